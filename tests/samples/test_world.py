"""The synthetic world: terrain, climate, growth of land use, leaf area, and the sample data set made of it."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from scipy import ndimage

from earthsr.errors import InputError
from earthsr.geo.grid import Window
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.samples import landuse as sample_landuse
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import SyntheticWorld, WorldSpec
from earthsr.samples.world.fields import box_mean, distance_km, generator, spectral_field
from earthsr.samples.world.growth import grow
from earthsr.samples.world.terrain import drained_cells, erode, fill_hollows, open_sea, receivers
from earthsr.samples.world.world import leaf_area, seasons
from tests.conftest import call_cli

SMALL = WorldSpec(rows=96, columns=192, years=tuple(range(1990, 1998)), seed=3)
EVERYWHERE = Window(0, 0, SMALL.rows, SMALL.columns)
INDEX = {name: i for i, name in enumerate(HILDA_PLUS.names)}
USES = [INDEX[name] for name in ("urban", "cropland", "pasture")]


@pytest.fixture(scope="module")
def world():
    return SyntheticWorld(SMALL)


@pytest.fixture(scope="module")
def south():
    """The same land in the southern hemisphere."""
    return SyntheticWorld(dataclasses.replace(SMALL, north_deg=-46.5))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("landuse")
    result = write_sample_landuse(root, SMALL, tile_size=16, held_out_last=3)
    return root, result


def shares(world, year_index):
    land = world.maps[year_index][~world.terrain.sea]
    return np.bincount(land, minlength=len(HILDA_PLUS)) / land.size


def changes(world):
    """Share of land that changes from each year to the next."""
    land = ~world.terrain.sea
    return np.array([(a != b)[land].mean() for a, b in zip(world.maps, world.maps[1:], strict=False)])


# ------------------------------------------------------------------------------------------------ tools


def test_distance_is_that_to_the_nearest_target():
    rng = np.random.default_rng(0)
    target = rng.random((17, 29)) > 0.97
    latitudes = np.linspace(60, 40, 17)
    found = distance_km(target, 0.1, latitudes)
    height = np.deg2rad(0.1) * 6371.0
    rows, columns = np.nonzero(target)
    for i in range(17):
        for j in range(29):
            width = height * np.cos(np.deg2rad(latitudes[i]))
            expected = np.hypot((rows - i) * height, (columns - j) * width).min()
            assert found[i, j] == pytest.approx(expected)


def test_distance_to_nothing_is_infinite():
    assert np.isinf(distance_km(np.zeros((4, 5), bool), 0.1, np.zeros(4))).all()


def test_box_mean_is_the_mean_of_a_square():
    values = np.random.default_rng(1).random((9, 13))
    np.testing.assert_allclose(box_mean(values, 2), ndimage.uniform_filter(values, 5, mode="nearest"), rtol=1e-5)


def test_spectral_fields_of_higher_exponent_are_smoother():
    rough, smooth = (spectral_field(generator(0, "x"), (64, 96), 0.02, 1.0, exponent) for exponent in (1.0, 3.0))
    assert rough.shape == (64, 96)
    assert rough.std() == pytest.approx(1)
    assert np.abs(np.diff(smooth, axis=1)).mean() < 0.5 * np.abs(np.diff(rough, axis=1)).mean()


@pytest.fixture(scope="module")
def relief():
    rng = np.random.default_rng(2)
    ground = 100 + 30 * ndimage.gaussian_filter(rng.normal(size=(40, 60)), 2) / 0.14
    sea = ground < np.quantile(ground, 0.1)
    return np.where(sea, 0.0, ground), sea


def test_water_reaches_an_outlet_from_everywhere(relief):
    ground, sea = relief
    surface = fill_hollows(ground, sea)
    assert (surface >= ground).all()
    assert (surface > ground + 1).any(), "the relief has no hollows to fill"
    lowest = ndimage.minimum_filter(surface, 3, mode="nearest")
    inner = np.zeros_like(sea)
    inner[1:-1, 1:-1] = ~sea[1:-1, 1:-1]
    assert (lowest < surface)[inner].all()
    # The fill is no deeper than it must be: without the small falls it is the classical one, by reconstruction.
    level = np.where(inner, ground.max(), ground)
    for _ in range(500):
        level = np.where(inner, np.maximum(ground, ndimage.minimum_filter(level, 3, mode="nearest")), ground)
    assert np.abs(surface - level).max() < 0.5


def test_what_drains_arrives(relief):
    ground, sea = relief
    surface = fill_hollows(ground, sea)
    receiver = receivers(surface, sea)
    drained = drained_cells(surface, receiver)
    ends = receiver == np.arange(receiver.size)
    assert drained.ravel()[ends].sum() == ground.size
    assert drained[~sea].max() > 20


def test_erosion_cuts_and_keeps_the_way_down(relief):
    ground, sea = relief
    surface = fill_hollows(ground, sea)
    receiver = receivers(surface, sea)
    worn = erode(surface, receiver, drained_cells(surface, receiver), 0.05)
    assert (worn <= surface + 1e-9).all()
    assert worn.mean() < surface.mean() - 1
    assert (worn.ravel() >= worn.ravel()[receiver]).all()


def test_low_land_without_a_way_to_the_edge_is_no_sea():
    low = np.random.default_rng(5).random((30, 40)) < 0.42
    labels, _ = ndimage.label(low, np.ones((3, 3)))
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    expected = np.isin(labels, edge[edge > 0])
    assert expected.any()
    assert (low & ~expected).any()
    np.testing.assert_array_equal(open_sea(low), expected)


# ------------------------------------------------------------------------------------------------ the world


def test_a_seed_gives_the_same_bytes_and_another_seed_another_world(world):
    again, other = SyntheticWorld(SMALL), SyntheticWorld(dataclasses.replace(SMALL, seed=4))
    assert again.maps.tobytes() == world.maps.tobytes()
    assert again.static(EVERYWHERE).tobytes() == world.static(EVERYWHERE).tobytes()
    lai = [each.continuous_field("lai", 1993, EVERYWHERE).tobytes() for each in (world, again)]
    assert lai[0] == lai[1]
    assert (other.maps != world.maps).mean() > 0.2
    assert not np.array_equal(other.static(EVERYWHERE), world.static(EVERYWHERE))


def test_it_says_that_it_is_synthetic(world):
    assert world.description.startswith("synthetic world")
    assert world.attributes["synthetic"] is True
    assert world.attributes["seed"] == 3
    assert world.attributes["rows"] == 96
    json.dumps(world.attributes)


def test_static_fields_are_finite_and_in_their_units(world):
    fields = world.static(EVERYWHERE)
    named = dict(zip([channel.name for channel in world.static_channels], fields, strict=True))
    sea = world.terrain.sea
    assert fields.dtype == np.float32
    assert np.isfinite(fields).all()
    assert 0.02 < sea.mean() < 0.4
    assert (named["elevation"][sea] == 0).all()
    assert (named["elevation"][~sea] >= 0).all()
    assert 500 < named["elevation"].max() < 6000
    assert 1 < named["slope"].max() < 60
    assert named["soil"].min() >= 0
    assert named["soil"].max() <= 1
    water = sea | (world.maps[0] == INDEX["water"])
    np.testing.assert_array_equal(named["distance_to_water"] == 0, water)
    assert named["latitude"][0, 0] == pytest.approx(48 - SMALL.cell_deg / 2)
    assert named["latitude"][-1, 0] == pytest.approx(48 - 95.5 * SMALL.cell_deg)


def test_windows_are_parts_of_the_whole(world):
    window = Window(17, 40, 20, 30)
    part = (slice(17, 37), slice(40, 70))
    np.testing.assert_array_equal(world.static(window), world.static(EVERYWHERE)[(slice(None), *part)])
    np.testing.assert_array_equal(world.classes(1995, window), world.maps[5][part])
    whole = world.continuous_field("lai", 1995, EVERYWHERE)[(slice(None), *part)]
    np.testing.assert_allclose(world.continuous_field("lai", 1995, window), whole, rtol=1e-5)


def test_all_classes_are_there_in_plausible_shares(world):
    for year in range(len(SMALL.years)):
        np.testing.assert_array_equal(world.maps[year] == NODATA, world.terrain.sea)
        found = dict(zip(HILDA_PLUS.names, shares(world, year), strict=True))
        assert all(share > 0.01 for share in found.values()), found
        assert 0.015 < found["urban"] < 0.03
        assert 0.2 < found["cropland"] < 0.35
        assert 0.1 < found["pasture"] < 0.25


def test_uses_grow_as_demand_has_it(world):
    first, last = shares(world, 0), shares(world, -1)
    assert (last[USES] > first[USES]).all()
    assert last[INDEX["water"]] == first[INDEX["water"]]


def test_land_changes_a_little_every_year_and_not_back(world):
    share = changes(world)
    assert (share > 0.004).all()
    assert (share < 0.02).all()
    land = ~world.terrain.sea
    for a, b, c, d in zip(world.maps, world.maps[1:], world.maps[2:], world.maps[3:], strict=False):
        back = (a != b) & ((a == c) | (a == d))
        assert back[land].mean() < 0.003


def test_land_is_given_up_too(world):
    back = np.isin(world.maps[0], USES[1:]) & ~np.isin(world.maps[-1], USES) & ~world.terrain.sea
    assert back.sum() > 50
    assert np.isin(world.maps[-1][back], [INDEX[name] for name in ("forest", "grass/shrub", "sparse")]).all()


def test_towns_and_water_stay(world):
    for name in ("urban", "water"):
        stays = world.maps[0] == INDEX[name]
        assert (world.maps[-1][stays] == INDEX[name]).all()


def test_expansion_is_at_edges_and_on_good_soil(world):
    at_edges, soils, left = [], [], []
    for before, after in zip(world.maps, world.maps[1:], strict=False):
        crop = before == INDEX["cropland"]
        edge = ndimage.maximum_filter(crop, 3)
        new = (after == INDEX["cropland"]) & ~crop
        candidates = edge & ~crop & ~np.isin(before, [NODATA, INDEX["urban"], INDEX["water"]]) & ~new
        at_edges.append(edge[new].mean())
        soils.append(world.terrain.soil[new].mean())
        left.append(world.terrain.soil[candidates].mean())
    assert np.mean(at_edges) > 0.9
    assert np.mean(soils) > np.mean(left) + 0.02


def test_farmland_lies_low_and_flat(world):
    last, terrain = world.maps[-1], world.terrain
    crop, forest = last == INDEX["cropland"], last == INDEX["forest"]
    assert terrain.elevation_m[crop].mean() < terrain.elevation_m[forest].mean()
    assert terrain.slope_deg[crop].mean() < terrain.slope_deg[forest].mean()


def test_a_year_does_not_depend_on_how_many_follow(world):
    shorter = grow(world.terrain, world.climate, world.grid, SMALL.years[:3], SMALL.seed)
    np.testing.assert_array_equal(shorter, world.maps[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rows=8), "too small"),
        (dict(cell_deg=0.0), "cell size"),
        (dict(cell_deg=1.0, rows=200), "85 N"),
        (dict(years=(1990,)), "at least two"),
        (dict(years=(1990, 1992)), "one after another"),
        (dict(seed=-1), "seed"),
    ],
)
def test_a_spec_that_makes_no_world_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        SyntheticWorld(dataclasses.replace(SMALL, **change))


# ------------------------------------------------------------------------------------------------ leaf area


def test_leaf_area_has_a_summer_in_each_hemisphere(world, south):
    for each, summer in ((world, (4, 5, 6)), (south, (10, 11, 0))):
        lai = each.continuous_field("lai", 1997, EVERYWHERE)
        assert lai.shape == (12, 96, 192)
        for name in ("forest", "cropland", "pasture"):
            cells = (each.maps[-1] == INDEX[name]) & (each.terrain.elevation_m < 1200)
            months = lai[:, cells].mean(axis=1)
            winter = [(month + 6) % 12 for month in summer]
            assert months[list(summer)].mean() > 1.5 * months[winter].mean(), (name, months)


def test_leaf_area_is_none_on_water_and_unknown_at_sea(world):
    lai = world.continuous_field("lai", 1990, EVERYWHERE)
    assert (lai[:, world.maps[0] == INDEX["water"]] == 0).all()
    np.testing.assert_array_equal(np.isnan(lai), np.broadcast_to(world.terrain.sea, lai.shape))
    assert np.nanmin(lai) >= 0
    assert 5 < np.nanmax(lai) < 7.5


def test_leaf_area_follows_the_class(world):
    window = Window(20, 60, 30, 40)
    of_class = seasons(world.climate.window(*window), world.terrain.soil[20:50, 60:100])
    means = {name: leaf_area(np.full((30, 40), index, np.uint8), of_class)[5].mean() for name, index in INDEX.items()}
    order = ["forest", "cropland", "pasture", "grass/shrub", "urban", "sparse", "water"]
    assert sorted(means, key=means.__getitem__, reverse=True) == order
    # What changes on the map changes in the leaves.
    before, after = (world.continuous_field("lai", year, EVERYWHERE) for year in (1990, 1997))
    changed = world.maps[0] != world.maps[-1]
    both = ~world.terrain.sea
    np.testing.assert_array_equal(before[:, ~changed & both], after[:, ~changed & both])
    cleared = (world.maps[0] == INDEX["forest"]) & (world.maps[-1] == INDEX["pasture"])
    assert cleared.any()
    assert (after[5, cleared] < before[5, cleared]).all()


def test_an_unknown_field_is_refused(world):
    with pytest.raises(InputError, match="no field ndvi"):
        world.continuous_field("ndvi", 1990, EVERYWHERE)


# ------------------------------------------------------------------------------------------------ files


def test_coarse_fractions_are_the_aggregated_truth(written, world):
    root, _ = written
    south_edges = 48 - SMALL.cell_deg * np.arange(SMALL.rows + 1)
    weights = -np.diff(np.sin(np.deg2rad(south_edges)))
    with h5py.File(root / "test" / "test.h5") as handle:
        coarse = handle["coarse"][:]
        channels = json.loads(handle.attrs["coarse_channels"])
        assert handle.attrs["forcing"] == "oracle"
    assert coarse.shape == (8, 7, 6, 12)
    for y in range(8):
        for c, name in enumerate(channels):
            hit = (world.maps[y] == INDEX[name]) * weights[:, None]
            blocks = hit.reshape(6, 16, 12, 16).sum(axis=(1, 3)) / 16
            expected = blocks / weights.reshape(6, 16).sum(axis=1)[:, None]
            np.testing.assert_allclose(coarse[y, c], expected, atol=1e-6)


def test_files_hold_the_world(written, world):
    root, result = written
    assert result.counts["train"] == 42
    assert sum(result.counts.values()) + result.skipped_tiles == 42 + 6 + 12
    for split in ("train", "valid", "test"):
        with h5py.File(root / split / f"{split}.h5") as handle:
            assert "synthetic" in handle.attrs["source"]
            assert json.loads(handle.attrs["provenance"])["synthetic"] is True
            years = handle["years"][:].tolist()
            for t in (0, len(handle["classes"]) - 1):
                window = Window(*(int(i) for i in handle["tile_index"][t]), 16, 16)
                np.testing.assert_array_equal(handle["static"][t], world.static(window))
                for y, year in enumerate(years):
                    np.testing.assert_array_equal(handle["classes"][t, y], world.classes(year, window))
                stored = handle["lai"][t, -1]
                truth = world.continuous_field("lai", years[-1], window)
                np.testing.assert_array_equal(stored == NODATA, np.isnan(truth))
                valid = np.isfinite(truth)
                assert np.abs(stored[valid] * 0.04 - truth[valid]).max(initial=0) <= 0.0201


def test_training_never_sees_held_out_years(written):
    root, _ = written
    years = {}
    for split in ("train", "valid", "test"):
        with h5py.File(root / split / f"{split}.h5") as handle:
            years[split] = handle["years"][:].tolist()
            assert json.loads(handle.attrs["held_out_years"]) == [1995, 1996, 1997]
            assert handle.attrs["anchor_year"] == 1994
            assert len(handle["coarse"]) == len(years[split])
            assert json.loads(handle.attrs["statistics"])["last_year"] == 1994
    assert years["train"] == years["valid"] == list(range(1990, 1995))
    assert years["test"] == list(range(1990, 1998))


SIZE = ["--rows", "64", "--columns", "192", "--tile", "16", "--seed", "3"]


def test_the_command_writes_a_sample_and_says_synthetic(tmp_path):
    words = ["sample", "landuse", tmp_path / "d", *SIZE, "--years", "1990:1993", "--held-out-years", "1"]
    done = call_cli(*words)
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip().replace("\n", " ")
    assert line.startswith(f"{tmp_path / 'd'}: synthetic world, ")
    assert line.endswith("test tiles of 16 x 16, years 1990 to 1993 (1993 to 1993 held out)")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["test", "train", "valid"]
    refused = call_cli(*words)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    result = json.loads(call_cli(*words, "--overwrite", "--stride", "8", "--json").stdout)
    assert result["synthetic"] is True
    with h5py.File(tmp_path / "d" / "train" / "train.h5") as handle:
        assert len(handle["classes"]) == result["counts"]["train"] > 2 * result["counts"]["test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--years", "1999"], "expected A:B"),
        (["--years", "1999:1990"], "expected A:B"),
        (["--years", "a:b"], "expected A:B"),
        (["--years", "1990:1990"], "expected A:B"),
        (["--years", "1990:9990"], "at most 1000 years"),
        (["--years", "1990:1995", "--held-out-years", "6"], "--held-out-years"),
        (["--held-out-years", "-1"], "--held-out-years"),
        (["--tile", "64"], "smaller tiles"),
        (["--tile", "0"], "tile size"),
        (["--stride", "0"], "stride"),
        (["--rows", "10"], "too small"),
        (["--cell", "-1"], "cell size"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(tmp_path, words, message):
    done = call_cli("sample", "landuse", tmp_path / "d", *SIZE, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "d").exists()


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(root, *_, **__):
        (root / "train").mkdir()
        (root / "train" / "train.h5").write_bytes(b"half")
        raise InputError("no tile of the test band has 5% of cells with a class")

    monkeypatch.setattr(sample_landuse, "write_landuse", fail)
    with pytest.raises(InputError, match="no tile"):
        write_sample_landuse(tmp_path / "d", SMALL, tile_size=16, held_out_last=3)
    assert not (tmp_path / "d").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no tile"):
        write_sample_landuse(kept, SMALL, tile_size=16, held_out_last=3)
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_default_world_is_fit_to_learn_from():
    world = SyntheticWorld(WorldSpec())
    land = ~world.terrain.sea
    assert (shares(world, -1) > 0.01).all()
    assert ((changes(world) > 0.006) & (changes(world) < 0.02)).all()
    for start in (0, 10, 19):
        assert 0.08 < (world.maps[start] != world.maps[start + 10])[land].mean() < 0.18
    back = [(a != b) & ((a == c) | (a == d)) for a, b, c, d in zip(*(world.maps[i:] for i in range(4)), strict=False)]
    assert max(each[land].mean() for each in back) < 0.003
    # West, which trains, and east, which tests: the same kinds of land, and as much of it changes.
    west, east = (slice(0, 650), slice(774, 960))
    kinds = [
        np.bincount(world.maps[-1][:, band][land[:, band]], minlength=7) / land[:, band].sum() for band in (west, east)
    ]
    assert np.abs(kinds[0] - kinds[1]).sum() / 2 < 0.25
    moved = [(world.maps[19] != world.maps[29])[:, band][land[:, band]].mean() for band in (west, east)]
    assert 0.6 < moved[0] / moved[1] < 1.6

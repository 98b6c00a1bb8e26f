"""Land-use tiles: what files hold, how samples are composed, in which order, and what travels with them."""

import dataclasses
import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthsr.data.normalise import ChannelNormalisation
from earthsr.data.samples import PADDING, TileSampler
from earthsr.errors import CheckpointError, DataError, InputError
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
from earthsr.landuse.fields import Channel, ContinuousField, Forcing
from earthsr.landuse.samples import Composer, PriorPlan, scalars, stack, turned
from earthsr.landuse.split import LandUseData
from earthsr.landuse.write import SplitPlan, write_landuse

YEARS = (2000, 2001, 2003, 2006, 2007, 2010)
K = len(HILDA_PLUS)
TILE = 16


class Arrays:
    """Fine fields that are arrays in memory; every cell is random, so that nothing is right by chance."""

    crs, table, years, attributes = "EPSG:4326", HILDA_PLUS, YEARS, {"seed": 0}
    description = "synthetic: random arrays"
    static_channels = (Channel("row", "1"), Channel("column", "1"), Channel("flat", "m"), Channel("noise", "m"))
    continuous = (ContinuousField("lai", "m2 m-2", ("january", "july"), 0.04),)

    def __init__(self, grid=None, seed=0):
        self.grid = grid or Grid(8.1, 50.02, 0.03, 0.03, 40, 130)
        shape = (self.grid.rows, self.grid.columns)
        rng = np.random.default_rng(seed)
        self.maps = rng.integers(0, K, (len(YEARS), *shape)).astype(np.uint8)
        # Some cells never have a class, others lack one now and then.
        self.maps[:, rng.random(shape) < 0.1] = NODATA
        self.maps[rng.random(self.maps.shape) < 0.05] = NODATA
        row, column = np.indices(shape)
        noise = rng.normal(500, 30, shape)
        noise[rng.random(shape) < 0.1] = np.nan
        self.fields = np.stack([row, column, np.full(shape, 123.4), noise]).astype(np.float32)
        self.lai = rng.uniform(0, 9, (len(YEARS), 2, *shape)).astype(np.float32)
        self.lai[:, :, rng.random(shape) < 0.1] = np.nan
        self.lai[rng.random(self.lai.shape) < 0.01] = np.nan

    def static(self, window):
        return self.fields[cut(window)]

    def classes(self, year, window):
        return self.maps[YEARS.index(year)][cut(window)]

    def continuous_field(self, name, year, window):
        assert name == "lai"
        return self.lai[YEARS.index(year)][cut(window)]


def cut(window):
    row, column, rows, columns = window
    return (..., slice(row, row + rows), slice(column, column + columns))


def by_year(years, fractions):
    """What reads the fractions (Y, C, h, w) of some years."""
    return dict(zip(years, fractions, strict=False)).__getitem__


def whole(source):
    return Window(0, 0, source.grid.rows, source.grid.columns)


PLAN = SplitPlan(tile_size=TILE, shares=(0.5, 0.2, 0.3), buffer_cells=4, held_out_years=(2007, 2010))


@pytest.fixture(scope="session")
def source():
    return Arrays()


@pytest.fixture(scope="session")
def root(source, tmp_path_factory):
    """Files of the arrays, with an oracle forcing on a grid in no ratio to theirs."""
    folder = tmp_path_factory.mktemp("arrays")
    write_landuse(folder, source, PLAN)
    return folder


def opened(root, split="train"):
    return LandUseData({"root_dir": root, "patch_size": TILE}, split)


@pytest.fixture(scope="session")
def train(root):
    return opened(root)


def unit(layout, **values):
    """Normalisation that changes nothing."""
    count = len(layout.static_channels)
    return ChannelNormalisation((0.0,) * count, (1.0,) * count, **values)


KEEP = PriorPlan(0.0, 0.0)


def neighbours_of(years, direction):
    """Years that are sampled and the years of their priors: the end of the years has none, and is no sample."""
    pairs = list(itertools.pairwise(years))
    return [(year, before) for before, year in pairs] if direction == "forwards" else pairs


def in_order(data, direction="forwards"):
    """Tile, year and year before of the samples of a data set that is not shuffled."""
    return [(tile, *pair) for tile in range(data.layout.tiles) for pair in neighbours_of(data.layout.years, direction)]


def dataset_of(data, batch=8, options=None, **rest):
    return LandUseDataset(data, options or LandUseOptions(prior=KEEP), **rest).create_dataset(batch)


def batches(data, epoch=0, batch=8, options=None, start=0, rank=0, world_size=1, **rest):
    made = dataset_of(data, batch, options, **rest)
    return list(made.training_batches(epoch, unit(data.layout), start=start, rank=rank, world_size=world_size))


def joined(parts):
    """Fields, target, mask and weight of batches, each in one array."""
    fields = {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    rest = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("target", "mask", "sample_weight")
    }
    return {**fields, **rest}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


# Files


def test_files_hold_what_the_contract_names(root, source):
    for split, years in (("train", 4), ("valid", 4), ("test", 6)):
        with h5py.File(root / split / f"{split}.h5") as handle:
            tiles = len(handle["tile_origin"])
            assert tiles
            coarse = source.grid.coarse(0.25)
            expected = {
                "static": ((tiles, 4, TILE, TILE), "f4"),
                "classes": ((tiles, years, TILE, TILE), "u1"),
                "coarse": ((years, K, coarse.rows, coarse.columns), "f4"),
                "coarse_latitude": ((coarse.rows,), "f8"),
                "coarse_longitude": ((coarse.columns,), "f8"),
                "tile_origin": ((tiles, 2), "f8"),
                "tile_index": ((tiles, 2), "i8"),
                "years": ((years,), "i4"),
                "lai": ((tiles, years, 2, TILE, TILE), "u1"),
            }
            assert {name: (item.shape, item.dtype) for name, item in handle.items()} == expected
            assert handle["classes"].chunks == (1, 1, TILE, TILE)
            assert handle["classes"].attrs["_FillValue"] == 255
            assert handle["years"][:].tolist() == list(YEARS[:years])
            np.testing.assert_allclose(handle["coarse_latitude"], coarse.latitudes())
            np.testing.assert_allclose(handle["coarse_longitude"], coarse.longitudes())
            attributes = dict(handle.attrs)
        assert attributes["crs"] == "EPSG:4326"
        np.testing.assert_array_equal(attributes["transform"], [0.03, 0, 8.1, 0, -0.03, 50.02])
        assert (attributes["forcing"], attributes["split"], attributes["task"]) == ("oracle", split, "land_use")
        table = json.loads(attributes["classes"])["classes"]
        assert [(c["index"], c["code"], c["name"], c["colour"]) for c in table] == [
            (i, c.code, c.name, c.colour) for i, c in enumerate(HILDA_PLUS.classes)
        ]
        assert json.loads(attributes["static_channels"])[3] == {"name": "noise", "units": "m"}
        assert json.loads(attributes["coarse_channels"]) == list(HILDA_PLUS.names)
        assert json.loads(attributes["held_out_years"]) == [2007, 2010]
        assert attributes["anchor_year"] == 2006


def test_plain_h5py_reads_the_files(root):
    """Without the filters of hdf5plugin, as a user's own script would."""
    script = (
        "import sys, h5py\n"
        "handle = h5py.File(sys.argv[1])\n"
        "[item[...] for item in handle.values()]\n"
        "assert 'hdf5plugin' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, root / "test" / "test.h5"], check=True, timeout=60)


def test_tiles_are_where_the_files_say(root, source):
    for split in ("train", "valid", "test"):
        data = opened(root, split)
        for tile, (row, column) in enumerate(data.places):
            window = Window(int(row), int(column), TILE, TILE)
            np.testing.assert_array_equal(data.static(tile), source.static(window))
            for year in data.layout.years:
                np.testing.assert_array_equal(data.classes(tile, year), source.classes(year, window))
        west, north = source.grid.west, source.grid.north
        np.testing.assert_allclose(data.origins, (west, north) + data.places[:, ::-1] * (0.03, -0.03))


def test_years_held_out_are_in_the_test_file_alone(root):
    layouts = {split: opened(root, split).layout for split in ("train", "valid", "test")}
    assert layouts["train"].years == layouts["valid"].years == (2000, 2001, 2003, 2006)
    assert layouts["test"].years == YEARS
    assert layouts["train"].statistics == layouts["test"].statistics
    assert layouts["train"].statistics.last_year == 2006
    with pytest.raises(ValueError, match="not in tuple"):
        opened(root).classes(0, 2007)


@pytest.mark.parametrize(
    ("held", "anchor", "scored"),
    [
        ((2007, 2010), 2006, (2007, 2010)),
        ((2000, 2001), 2003, (2000, 2001)),
        ((2003,), 2001, (2003,)),
        ((), 2003, (2006, 2007, 2010)),
    ],
    ids=["end", "beginning", "middle", "none"],
)
def test_the_anchor_is_the_last_year_that_training_saw(source, tmp_path, held, anchor, scored):
    write_landuse(tmp_path, source, dataclasses.replace(PLAN, held_out_years=held))
    test, valid = opened(tmp_path, "test"), opened(tmp_path, "valid")
    assert test.anchor_year == anchor
    assert test.scored_years == scored
    # A split without years that are held out is scored from the middle of its years on.
    years = valid.layout.years
    assert valid.anchor_year == years[(len(years) - 1) // 2]
    assert valid.scored_years == years[(len(years) - 1) // 2 + 1 :]


# Splits


@given(
    st.sampled_from(["rows", "columns"]), st.integers(100, 400), st.integers(20, 60), st.integers(0, 40),
    st.sampled_from([(0.5, 0.2, 0.3), (0.7, 0.0, 0.3), (0.6, 0.4, 0.0), (1.0, 0.0, 0.0), (0.2, 0.2, 0.2)]),
    st.sampled_from([None, 3, 8, 20]), st.sampled_from([1, 8, 25]),
)  # fmt: skip
def test_bands_lie_apart_by_the_buffer(axis, along, across, buffer, shares, stride, align):
    shape = (across, along) if axis == "columns" else (along, across)
    grid = Grid(0.0, 50.0, 0.1, 0.1, *shape)
    plan = SplitPlan(TILE, axis, shares, buffer, stride, align_cells=align)
    try:
        bands = plan.tiles(grid)
    except InputError as error:
        assert "tiles of 16 cells do not fit" in str(error)
        return
    assert list(bands) == [name for name, share in zip(("train", "valid", "test"), shares, strict=True) if share]
    spans = []
    for windows in bands.values():
        assert windows
        assert len(set(windows)) == len(windows)
        for row, column, rows, columns in windows:
            assert (rows, columns) == (TILE, TILE)
            assert row >= 0
            assert column >= 0
            assert row + TILE <= shape[0]
            assert column + TILE <= shape[1]
        starts = [w.column if axis == "columns" else w.row for w in windows]
        spans.append((min(starts), max(starts) + TILE))
        assert min(starts) % align == 0
    # From west to east, or from south to north, which is from the last row on.
    order = spans if axis == "columns" else spans[::-1]
    for (_, end), (start, _) in itertools.pairwise(order):
        assert start - end >= buffer
    for name in ("valid", "test"):
        corners = {(w.row, w.column) for w in bands.get(name, [])}
        for a, b in corners:
            assert not any((a, b) != (c, d) and abs(a - c) < TILE and abs(b - d) < TILE for c, d in corners)


def test_training_tiles_overlap_where_a_stride_says_so():
    grid = Grid(0.0, 50.0, 0.1, 0.1, 32, 96)
    plan = SplitPlan(TILE, shares=(0.5, 0.25, 0.25), buffer_cells=0, stride=8)
    bands = plan.tiles(grid)
    assert {w.column for w in bands["train"]} == {0, 8, 16, 24, 32}
    assert {w.row for w in bands["train"]} == {0, 8, 16}
    assert {w.column for w in bands["test"]} == {72}
    assert {w.row for w in bands["test"]} == {0, 16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(shares=(0.0, 0.5, 0.5)), "training not 0"),
        (dict(shares=(0.7, 0.3, 0.1)), "at most 1 together"),
        (dict(shares=(0.7, -0.1, 0.1)), "shares are"),
        (dict(tile_size=7), "tile size is 7, expected at least 8"),
        (dict(stride=0), "stride is 0"),
        (dict(held_out_years=(2002,)), r"held-out years \[2002\] are not in the data, which have 2000 to 2010"),
        (dict(held_out_years=YEARS), "all years are held out"),
        (dict(tile_size=64), "do not fit into the"),
        (dict(buffer_cells=60), "smaller buffer"),
        (dict(minimum_valid=0.99), "no tile of the train band has 99%"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_nothing_is_written(source, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_landuse(tmp_path, source, dataclasses.replace(PLAN, **change))
    assert list(tmp_path.iterdir()) == []


def test_a_forcing_that_does_not_fit_is_refused_with_year_and_place(source, tmp_path):
    grid = source.grid.coarse(0.25)
    good = np.full((len(YEARS), 2, grid.rows, grid.columns), 0.25, np.float32)

    def write(message, fractions=good, grid=grid, years=YEARS):
        forcing = Forcing("scenario", grid, ("a", "b"), years, by_year(years, fractions))
        with pytest.raises(DataError, match=message):
            write_landuse(tmp_path, source, PLAN, forcing)
        assert list(tmp_path.iterdir()) == []

    write(r"no fractions for \[2010\]", good[:5], years=YEARS[:5])
    low, high, much = good.copy(), good.copy(), good.copy()
    low[2, 1, 3, 4], high[1, 0, 0, 0], much[5, :, 2, 2] = -0.1, 25, 0.75
    at = f"{grid.latitudes()[3]:g} N, {grid.longitudes()[4]:g} E"
    write(f"b is -0.1 in 2003 at {at}, expected a fraction", low)
    write("a is 25 in 2001 at .* is it in percent", high)
    write(r"the fractions a, b add up to 1\.5 in 2010", much)
    write("forcing has shape", good[:, :1])
    narrow = dataclasses.replace(grid, columns=grid.columns - 3)
    write(r"does not cover the test tile at .* N, .* E", good[..., :-3], narrow)


def test_a_forcing_larger_than_memory_is_written_year_by_year(source, tmp_path):
    grid, held = source.grid.coarse(0.25), []

    class Fractions(np.ndarray):
        """One that can be counted."""

    def read(year):
        assert sum(fractions() is not None for fractions in held) <= 1  # the year before is let go of
        made = np.full((2, grid.rows, grid.columns), year / 5000, np.float32).view(Fractions)
        held.append(weakref.ref(made))
        notes[:] = [f"read to {year}"]
        return made

    notes = []
    write_landuse(tmp_path, source, PLAN, Forcing("scenario", grid, ("a", "b"), YEARS, read, notes=notes))
    for split in ("train", "valid", "test"):
        with h5py.File(tmp_path / split / f"{split}.h5") as handle:
            expected = np.array([year / 5000 for year in handle["years"]], np.float32)
            np.testing.assert_array_equal(handle["coarse"][:, 1, 0, -1], expected)
            assert json.loads(handle.attrs["provenance"])["notes"] == ["read to 2010"]


# Statistics


def test_statistics_are_those_of_the_training_tiles(train, source):
    statistics = train.layout.statistics
    windows = [Window(int(row), int(column), TILE, TILE) for row, column in train.places]
    fields = np.stack([source.static(w) for w in windows], axis=1).reshape(4, -1).astype(np.float64)
    np.testing.assert_allclose(statistics.static_mean, np.nanmean(fields, axis=1), rtol=1e-12)
    expected = np.nanstd(fields, axis=1)
    expected[2] = 1  # a flat field is not divided by zero
    np.testing.assert_allclose(statistics.static_std, expected, rtol=1e-9)
    maps = np.stack([[source.classes(year, w) for w in windows] for year in YEARS[:4]])
    assert statistics.class_counts == tuple((maps == k).sum() for k in range(K))
    both = (maps[1:] != NODATA) & (maps[:-1] != NODATA)
    assert statistics.changed == pytest.approx((both & (maps[1:] != maps[:-1])).sum() / both.sum(), rel=1e-12)
    lai = np.stack([[source.continuous_field("lai", year, w) for w in windows] for year in YEARS[:4]]).astype(
        np.float64
    )
    assert statistics.continuous["lai"] == pytest.approx((np.nanmean(lai), np.nanstd(lai)), rel=1e-9)
    assert (statistics.first_year, statistics.last_year) == (2000, 2006)


def test_normalised_statics_have_mean_0_and_variance_1(train):
    normalisation = train.layout.statistics.normalisation(None)
    fields = np.stack([normalisation.static(train.static(tile)) for tile in range(train.layout.tiles)])
    raw = np.stack([train.static(tile) for tile in range(train.layout.tiles)])
    assert np.isfinite(fields).all()
    assert (fields[np.isnan(raw)] == 0).all()
    assert np.isnan(raw).any()
    for c, std in enumerate((1, 1, 0, 1)):
        valid = np.isfinite(raw[:, c])
        assert fields[:, c][valid].mean() == pytest.approx(0, abs=1e-4)
        assert fields[:, c][valid].std() == pytest.approx(std, abs=1e-4)


def test_a_normalisation_goes_through_its_file():
    made = ChannelNormalisation((1.0, 2.0), (3.0, 4.0), 0.5, 2.5)
    assert ChannelNormalisation.from_dict(json.loads(json.dumps(made.to_dict())), "x") == made
    values = np.random.default_rng(0).uniform(0, 9, (2, 5)).astype(np.float32)
    np.testing.assert_allclose(made.undo(made.apply(values)), values, rtol=1e-6)
    np.testing.assert_allclose(made.apply(values), (values - 0.5) / 2.5, rtol=1e-6)
    np.testing.assert_allclose(scalars(1950, 5, -1), [-0.5, 0.5, -1])
    for damage in ({"kind": "patch"}, {"static_std": [0.0]}, {"static_mean": [float("nan")]}, {"target_scale": "x"}):
        with pytest.raises(CheckpointError, match=r"w\.safetensors: "):
            ChannelNormalisation.from_dict({**made.to_dict(), **damage}, "w.safetensors")


# Order


@given(
    st.integers(1, 20), st.integers(1, 6), st.integers(1, 7), st.integers(1, 30), st.integers(0, 99), st.integers(0, 3)
)
def test_every_sample_comes_once_and_tiles_mix_within_a_buffer_alone(tiles, per_tile, buffer, batch, seed, epoch):
    sampler = TileSampler(tiles * per_tile, batch, seed, per_tile=per_tile, buffer_tiles=buffer)
    order = sampler.order(epoch)
    assert sorted(order) == list(range(tiles * per_tile))
    np.testing.assert_array_equal(order, TileSampler(tiles * per_tile, 1, seed, True, per_tile, buffer).order(epoch))
    size = buffer * per_tile
    seen = [set(order[start : start + size] // per_tile) for start in range(0, len(order), size)]
    assert all(len(some) <= buffer for some in seen)
    assert sum(len(some) for some in seen) == tiles, "a tile stands in two buffers"
    table = sampler.batches(epoch)
    assert table.shape == (sampler.steps_per_epoch, batch)
    np.testing.assert_array_equal(table[table != PADDING], order)


def test_orders_differ_by_seed_and_epoch_and_mix_years():
    made = {
        (seed, epoch): TileSampler(60, 4, seed, per_tile=6, buffer_tiles=5).order(epoch)
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len({tuple(order) for order in made.values()}) == 6
    # Tiles in a new order, and years within the buffer too.
    assert len({tuple(sorted(set(order[:30] // 6))) for order in made.values()}) > 1
    assert all((np.diff(order[:30] // 6) != 0).sum() > 10 for order in made.values())
    np.testing.assert_array_equal(TileSampler(60, 4, shuffle=False, per_tile=6).order(2), np.arange(60))


def test_random_numbers_of_a_sample_do_not_depend_on_its_batch():
    draws = {
        (seed, epoch, i): TileSampler(60, 4, seed).chance(epoch, i).random()
        for seed in (0, 1)
        for epoch in (0, 1)
        for i in (0, 7)
    }
    assert len(set(draws.values())) == len(draws)
    assert TileSampler(60, 20, 1, per_tile=6).chance(1, 7).random() == draws[1, 1, 7]


HIDING = LandUseOptions(directions=("forwards", "backwards"), prior=PriorPlan(0.2, 0.4, 5, 0.3, 2, 0.3), buffer_tiles=3)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_see_together_what_one_would_and_resume_anywhere(train, world_size):
    alone = batches(train, 2, options=HIDING, augment=True, seed=5)
    for start in (0, 3, len(alone) - 1):
        shares = [
            batches(train, 2, options=HIDING, augment=True, seed=5, start=start, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert {len(share) for share in shares} == {len(alone) - start}
        for step, expected in enumerate(alone[start:]):
            parts = [share[step] for share in shares]
            assert {len(part.sample_weight) for part in parts} == {8 // world_size}
            real = np.arange(8) < expected.size
            found, wanted = joined(parts), joined([expected])
            # What fills the last batch differs by rank; it has no weight.
            assert_equal({k: v[real] for k, v in found.items()}, {k: v[real] for k, v in wanted.items()})
            np.testing.assert_array_equal(found["sample_weight"], wanted["sample_weight"])
            assert expected.earlier is None or any(part.earlier is not None for part in parts)
    with pytest.raises(InputError, match="multiple of 3"):
        batches(train, world_size=3)


def test_neither_workers_nor_batches_change_a_sample(train):
    few = joined(batches(train, 1, 3, HIDING, augment=True, seed=2, num_workers=0))
    many = joined(batches(train, 1, 32, HIDING, augment=True, seed=2, num_workers=3, prefetch=2))
    real = int(few["sample_weight"].sum())
    assert real == train.layout.tiles * 6
    assert_equal({k: v[:real] for k, v in few.items()}, {k: v[:real] for k, v in many.items()})


def test_epochs_differ_and_shuffling_can_be_left_out(train):
    firsts = [joined(batches(train, epoch, options=HIDING, seed=2))["prior"] for epoch in (0, 1)]
    assert (firsts[0] != firsts[1]).any()
    made = dataset_of(train, shuffle=False)
    assert [made.sample(i)[:2] for i in range(len(made))] == [(tile, year) for tile, year, _ in in_order(train)]
    scalars = joined(batches(train, shuffle=False))["scalars"]
    np.testing.assert_allclose(scalars[:4, 0] * 100 + 2000, (2001, 2003, 2006, 2001), atol=1e-4)


def test_the_last_batch_is_filled_with_its_own_samples_at_weight_0(train):
    count = len(dataset_of(train))
    size = next(size for size in range(7, count) if 2 < count % size < size - 2)
    last = batches(train, batch=size, seed=1)[-1]
    real = count % size
    np.testing.assert_array_equal(last.sample_weight, np.arange(size) < real)
    for name, value in last.inputs.items():
        for extra in range(real, size):
            np.testing.assert_array_equal(value[extra], value[extra % real], err_msg=name)
    assert last.weight[real:].sum() == 0
    assert last.mask[real:].any(), "batch norm sees real data"
    # A rank whose share is padding alone has data all the same.
    empty = batches(train, batch=count - 1, seed=1, world_size=count - 1, rank=3)[-1]
    assert empty.sample_weight.sum() == 0
    assert np.ptp(empty.inputs["static"]) > 0


# Fields


def direct(source, tile, year, method):
    """Forcing on the cells of a tile, by NumPy's interpolation along rows, then along columns."""
    fine, coarse = source.layout.fine, source.layout.coarse
    row, column = source.places[tile]
    latitudes, longitudes = fine.latitudes(row, TILE), fine.longitudes(column, TILE)
    with h5py.File(source.path) as handle:
        values = np.nan_to_num(handle["coarse"][source.layout.years.index(year)].astype(np.float64))
    north, west = coarse.latitudes(), coarse.longitudes()
    if method == "nearest":
        i, j = np.abs(latitudes[:, None] - north).argmin(1), np.abs(longitudes[:, None] - west).argmin(1)
        return values[:, i[:, None], j]
    across = np.apply_along_axis(lambda line: np.interp(longitudes, west, line), -1, values)
    return np.apply_along_axis(lambda line: np.interp(-latitudes, -north, line), -2, across)


def fused(fields):
    return np.einsum("...yi,...cij,...xj->...cyx", fields["wy"], fields["coarse"], fields["wx"])


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_fused_forcing_is_the_interpolated_one(root, split, method):
    data = opened(root, split)
    composer = Composer(data, unit(data.layout), method)
    for tile in range(data.layout.tiles):
        for year in data.layout.years[::2]:
            fields = composer.fields(tile, year, composer.empty, 1)
            np.testing.assert_allclose(fused(fields), direct(data, tile, year, method), atol=1e-5)


def test_unknown_fractions_are_0(root, tmp_path):
    path = tmp_path / "train" / "train.h5"
    path.parent.mkdir()
    path.write_bytes((root / "train" / "train.h5").read_bytes())
    with h5py.File(path, "r+") as handle:
        handle["coarse"][1, 2] = np.nan
    composer = Composer(opened(tmp_path), unit(opened(tmp_path).layout))
    assert (composer.fields(0, 2001, composer.empty, 1)["coarse"][2] == 0).all()
    assert (composer.fields(0, 2000, composer.empty, 1)["coarse"][2] != 0).any()


def test_a_tile_across_the_dateline_is_composed_as_any_other(tmp_path):
    """A global forcing, counted from -180, and class maps from 178.05 E to 181.95 E; then both 175 degrees west."""
    made = {}
    # The pattern of land moves with the tile; the forcing turns with it around the Earth.
    globe = (
        np.random.default_rng(3).dirichlet(np.ones(K), (len(YEARS), 20, 360)).transpose(0, 3, 1, 2).astype(np.float32)
    )
    for name, west, turn in (("across", 178.05, 0), ("inside", 3.05, -175)):
        grid = Grid(-180.0, 60.0, 1.0, 1.0, 20, 360)
        forcing = Forcing("scenario", grid, HILDA_PLUS.names, YEARS, by_year(YEARS, np.roll(globe, turn, axis=-1)))
        write_landuse(tmp_path / name, Arrays(Grid(west, 50.02, 0.03, 0.03, 40, 130)), PLAN, forcing)
        parts = []
        for split in ("train", "valid", "test"):
            data = opened(tmp_path / name, split)
            composer = Composer(data, unit(data.layout))
            parts += [fused(composer.fields(t, 2003, composer.empty, 1)) for t in range(data.layout.tiles)]
        made[name] = np.stack(parts)
    np.testing.assert_allclose(made["across"], made["inside"], atol=1e-5)


def test_the_prior_is_the_year_before_or_after_in_the_file(train):
    for direction, sign in (("forwards", 1), ("backwards", -1)):
        options = LandUseOptions(directions=(direction,), prior=KEEP)
        made = joined(batches(train, options=options, shuffle=False))
        assert made["sample_weight"].sum() == len(in_order(train))
        for i, (tile, year, before) in enumerate(in_order(train, direction)):
            truth, prior = train.classes(tile, year), train.classes(tile, before)
            np.testing.assert_array_equal(made["target"][i, 0], np.where(truth == NODATA, 0, truth))
            np.testing.assert_array_equal(made["mask"][i, 0], truth != NODATA)
            np.testing.assert_array_equal(made["prior"][i], prior)
            np.testing.assert_array_equal(made["prior_mask"][i], prior != NODATA)
            expected = [(year - 2000) / 100, abs(year - before) / 10, sign]
            np.testing.assert_allclose(made["scalars"][i], expected, atol=1e-7)


def test_a_year_without_neighbours_is_sampled_all_the_same(source, tmp_path):
    """One year alone, or a network that takes no prior."""
    write_landuse(tmp_path, source, dataclasses.replace(PLAN, held_out_years=YEARS[1:]))
    data = opened(tmp_path)
    made = joined(batches(data, options=LandUseOptions(prior=PriorPlan(0.0, 0.0, own=1.0, stale=1.0)), shuffle=False))
    assert made["sample_weight"].sum() == data.layout.tiles
    assert (made["prior"] == NODATA).all()
    assert (made["prior_mask"] == 0).all()
    np.testing.assert_allclose(made["scalars"][0], [0, 0.1, 1], atol=1e-7)


def test_without_a_prior_every_year_is_sampled(train):
    names = ("coarse", "wy", "wx", "static", "scalars")
    made = dataset_of(train, options=LandUseOptions(fields=names), shuffle=False)
    assert [made.sample(i)[:2] for i in range(len(made))] == [
        (tile, year) for tile in range(train.layout.tiles) for year in train.layout.years
    ]


def test_both_directions_double_the_samples(train):
    made = dataset_of(train, options=LandUseOptions(directions=("forwards", "backwards"), prior=KEEP))
    assert len(made) == 2 * 3 * train.layout.tiles
    assert made.get_dataset_size() == -(-len(made) // 8)
    seen = {made.sample(i) for i in range(len(made))}
    ways = (("forwards", 1), ("backwards", -1))
    assert seen == {(tile, year, sign) for way, sign in ways for tile, year, _ in in_order(train, way)}
    # Samples of a tile are neighbours in number, so that a buffer reads few tiles.
    assert [made.sample(i).tile for i in range(len(made))] == sorted(made.sample(i).tile for i in range(len(made)))


def test_only_fields_that_the_network_takes_are_made(train):
    names = ("coarse", "wy", "wx", "static", "scalars")
    assert set(batches(train, options=LandUseOptions(prior=KEEP, fields=names))[0].inputs) == set(names)


# Hidden priors


def draws(plan, count=3000, size=32):
    return np.stack([plan.mask(TileSampler(1, 1, 7).chance(0, i), size) for i in range(count)])


def test_priors_are_hidden_at_the_configured_rates():
    masks = draws(PriorPlan(hidden=0.3, hidden_blocks=0.5, block_cells=8))
    share = masks.mean(axis=(1, 2))
    count = len(masks)
    near = lambda p: pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5)  # noqa: E731
    assert (share == 0).mean() == near(0.3)
    assert (share == 1).mean() == near(0.7 * 0.5)
    partly = share[(share > 0) & (share < 1)]
    assert len(partly) / count == near(0.35)
    assert partly.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("block", [1, 4, 5, 8, 32, 100])
def test_blocks_have_the_configured_size(block):
    masks = draws(PriorPlan(hidden=0.0, hidden_blocks=1.0, block_cells=block), 200)
    size = min(block, 32)
    phases = set()
    for mask in masks:
        for lines in (mask, mask.T):
            edges = np.nonzero((np.diff(lines, axis=0) != 0).any(axis=1))[0] + 1
            # All edges lie on one comb with teeth a block apart.
            assert len({int(edge) % size for edge in edges}) <= 1
            phases |= {int(edge) % size for edge in edges}
    assert len(phases) >= min(size, 31), "blocks do not always begin at the tile's corner"


@pytest.mark.parametrize(("plan", "value"), [(PriorPlan(0.0, 0.0), 1), (PriorPlan(1.0, 0.0), 0)])
def test_nothing_or_everything_is_hidden(plan, value):
    assert (draws(plan, 50) == value).all()


def test_hidden_cells_have_mask_0_and_cells_without_class_always(train):
    made = joined(batches(train, options=LandUseOptions(prior=PriorPlan(0.2, 0.8, 4)), seed=1))
    mask, prior = made["prior_mask"], made["prior"]
    assert set(np.unique(mask)) == {0, 1}
    assert (mask[prior == NODATA] == 0).all()
    share = mask.mean(axis=(1, 2)) / np.maximum((prior != NODATA).mean(axis=(1, 2)), 1e-9)
    assert ((share > 0.01) & (share < 0.99)).any()
    assert (share == 0).any()
    # The target keeps every cell: what is hidden is to be found.
    truth = joined(batches(train, seed=1))
    np.testing.assert_array_equal(made["mask"], truth["mask"])


# Older priors, and the model's own


def test_a_stale_prior_is_an_older_year_that_says_it_is_not(train):
    plan = PriorPlan(0.0, 0.0, stale=1.0, stale_steps=2)
    years = train.layout.years
    for direction in ("forwards", "backwards"):
        sign = 1 if direction == "forwards" else -1
        options = LandUseOptions(directions=(direction,), prior=plan)
        fresh = joined(batches(train, options=LandUseOptions(directions=(direction,), prior=KEEP), shuffle=False))
        ages = set()
        for epoch in range(3):
            made = joined(batches(train, epoch, options=options, shuffle=False))
            np.testing.assert_array_equal(made["scalars"], fresh["scalars"])
            for i, (tile, _, before) in enumerate(in_order(train, direction)):
                found = [z for z, year in enumerate(years) if (train.classes(tile, year) == made["prior"][i]).all()]
                assert len(found) == 1, "the prior is no year of the file"
                y = years.index(before)
                age = sign * (y - found[0])
                last = y if sign > 0 else len(years) - 1 - y
                assert age in ({0} if last == 0 else set(range(1, min(2, last) + 1)))
                ages.add(age)
        assert ages == {0, 1, 2}


def test_stale_priors_come_at_their_rate():
    plan = PriorPlan(stale=0.25, stale_steps=4)
    ages = np.array([plan.age(TileSampler(1, 1, 3).chance(0, i)) for i in range(4000)])
    assert (ages > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert [(ages == n).mean() for n in (1, 2, 3, 4)] == pytest.approx([0.0625] * 4, abs=0.02)
    assert ages.max() == 4


def test_the_step_before_is_that_of_the_priors_own_year(train):
    """Scheduled sampling: a first pass maps the prior's year from the year before that one."""
    with h5py.File(train.path) as handle:
        forcing = handle["coarse"][...]
    for direction, sign in (("forwards", 1), ("backwards", -1)):
        options = LandUseOptions(directions=(direction,), prior=PriorPlan(0.0, 0.0, own=1.0))
        parts = batches(train, options=options, shuffle=False)
        plain = joined(batches(train, options=LandUseOptions(directions=(direction,), prior=KEEP), shuffle=False))
        assert_equal(joined(parts), plain)  # the inputs themselves are what they were
        earlier = {
            name: np.concatenate([part.earlier.inputs[name] for part in parts]) for name in parts[0].earlier.inputs
        }
        own = np.concatenate([part.earlier.own for part in parts])
        assert set(earlier) == {"coarse", "prior", "prior_mask", "scalars"}
        assert own.all()
        priors = dict(neighbours_of(train.layout.years, direction))
        for i, (tile, _, before) in enumerate(in_order(train, direction)):
            first = priors.get(before)
            prior = np.full((TILE, TILE), NODATA) if first is None else train.classes(tile, first)
            np.testing.assert_array_equal(earlier["prior"][i], prior)
            np.testing.assert_array_equal(earlier["prior_mask"][i], prior != NODATA)
            step = 1 if first is None else abs(before - first)
            np.testing.assert_allclose(earlier["scalars"][i], [(before - 2000) / 100, step / 10, sign], atol=1e-7)
            rows, columns, *_ = train.window(train.places[tile], "bilinear")
            there = forcing[train.layout.years.index(before)][:, rows[:, None], columns]
            np.testing.assert_array_equal(earlier["coarse"][i], there)


def test_the_models_own_maps_come_at_their_rate_and_the_rest_has_none(train):
    assert all(part.earlier is None for part in batches(train))
    options = LandUseOptions(prior=PriorPlan(0.0, 0.0, own=0.3))
    own = []
    for epoch in range(12):
        for part in batches(train, epoch, options=options, seed=1):
            own.append(part.earlier.own[: part.size] if part.earlier else np.zeros(part.size))
    assert np.concatenate(own).mean() == pytest.approx(0.3, abs=0.06)


# Symmetries


@pytest.mark.parametrize("symmetry", range(8))
def test_the_turned_forcing_is_the_forcing_turned(train, symmetry):
    composer = Composer(train, unit(train.layout))
    fields = composer.fields(2, 2001, composer.truth(2, 2000), 1)
    new = turned(fields, symmetry)
    expected = turned({"fused": fused(fields)}, symmetry)["fused"]
    np.testing.assert_allclose(fused(new), expected, atol=1e-6)
    for name, value in fields.items():
        assert new[name].shape == value.shape, name
    np.testing.assert_array_equal(new["scalars"], fields["scalars"])
    # The window stays small: the forcing itself keeps its numbers.
    np.testing.assert_array_equal(np.sort(new["coarse"], axis=None), np.sort(fields["coarse"], axis=None))


def test_the_eight_symmetries_are_those_of_the_square():
    square = np.arange(9).reshape(3, 3)
    made = [turned({"x": square}, symmetry)["x"] for symmetry in range(8)]
    expected = {np.rot90(each, k).tobytes() for each in (square, square.T) for k in range(4)}
    assert {np.ascontiguousarray(each).tobytes() for each in made} == expected
    np.testing.assert_array_equal(made[0], square)


def test_all_fields_of_a_sample_turn_alike(train, source):
    """The static fields tell row and column of every cell: all others must be those of that cell."""
    options = LandUseOptions(prior=PriorPlan(0.0, 0.0, own=1.0))
    seen = set()
    for epoch in range(3):
        for part in batches(train, epoch, options=options, augment=True, seed=4):
            for n in range(part.size):
                year = round(float(part.inputs["scalars"][n, 0]) * 100 + 2000)
                row, column = part.inputs["static"][n, :2].astype(int)
                y = YEARS.index(year)
                truth = source.maps[y][row, column]
                np.testing.assert_array_equal(part.mask[n, 0], truth != NODATA)
                np.testing.assert_array_equal(part.target[n, 0], np.where(truth == NODATA, 0, truth))
                if y:
                    np.testing.assert_array_equal(part.inputs["prior"][n], source.maps[y - 1][row, column])
                    np.testing.assert_array_equal(
                        part.inputs["prior_mask"][n], source.maps[y - 1][row, column] != NODATA
                    )
                if y > 1:
                    np.testing.assert_array_equal(part.earlier.inputs["prior"][n], source.maps[y - 2][row, column])
                noise = source.fields[3][row, column]
                np.testing.assert_array_equal(part.inputs["static"][n, 3], np.nan_to_num(noise))
                sample = {name: part.inputs[name][n] for name in ("coarse", "wy", "wx")}
                forcing = on_cells(train, sample, y, row, column)
                np.testing.assert_allclose(*forcing, atol=1e-5)
                if y:
                    before = {**sample, "coarse": part.earlier.inputs["coarse"][n]}
                    np.testing.assert_allclose(*on_cells(train, before, y - 1, row, column), atol=1e-5)
                steps = (
                    int(row[1, 0] - row[0, 0]),
                    int(row[0, 1] - row[0, 0]),
                    int(column[1, 0] - column[0, 0]),
                    int(column[0, 1] - column[0, 0]),
                )
                seen.add(steps)
    assert len(seen) == 8, "all eight symmetries occur"


def on_cells(data, sample, y, row, column):
    """A fused forcing, and what NumPy interpolates at the cells with those rows and columns."""
    grid, coarse = data.layout.fine, data.layout.coarse
    with h5py.File(data.path) as handle:
        values = handle["coarse"][y].astype(np.float64)
    latitudes, longitudes = grid.latitudes()[row], grid.longitudes()[column]
    i = np.clip((coarse.latitudes()[0] - latitudes) / coarse.cell_y, 0, coarse.rows - 1)
    j = np.clip((longitudes - coarse.longitudes()[0]) / coarse.cell_x, 0, coarse.columns - 1)
    i0, j0 = np.minimum(i.astype(int), coarse.rows - 2), np.minimum(j.astype(int), coarse.columns - 2)
    a, b = i - i0, j - j0
    expected = (
        values[:, i0, j0] * (1 - a) * (1 - b)
        + values[:, i0 + 1, j0] * a * (1 - b)
        + values[:, i0, j0 + 1] * (1 - a) * b
        + values[:, i0 + 1, j0 + 1] * a * b
    )
    return fused(sample), expected


# Continuous fields


def test_a_continuous_target_is_the_stored_byte_times_its_unit(train):
    normalisation = unit(train.layout, target_offset=2.0, target_scale=3.0)
    made = LandUseDataset(train, LandUseOptions(target="lai", prior=PriorPlan(1.0)), shuffle=False).create_dataset(8)
    parts = joined(list(made.training_batches(0, normalisation)))
    with h5py.File(train.path) as handle:
        stored = handle["lai"][:].reshape(-1, 2, TILE, TILE)
        classes = handle["classes"][:].reshape(-1, TILE, TILE)
    real = len(train)
    valid = (stored != 255).all(axis=1, keepdims=True)
    assert 0.5 < valid.mean() < 0.95
    assert parts["target"].dtype == np.float32
    np.testing.assert_array_equal(parts["mask"][:real], valid)
    expected = np.where(valid, (stored * 0.04 - 2) / 3, 0)
    np.testing.assert_allclose(parts["target"][:real], expected, atol=1e-5)
    # The prior is this year's own map, whatever is hidden elsewhere, at step 0.
    np.testing.assert_array_equal(parts["prior"][:real], classes)
    np.testing.assert_array_equal(parts["prior_mask"][:real], classes != NODATA)
    assert (parts["scalars"][:real, 1] == 0).all()


def test_values_beyond_the_byte_are_the_largest_it_holds(tmp_path):
    large = Arrays()
    large.lai[0, 0] = 99.0
    write_landuse(tmp_path, large, PLAN)
    assert opened(tmp_path).continuous("lai", 0, 2000)[0].max() == pytest.approx(254 * 0.04)


def test_a_field_that_is_not_there_is_refused_with_those_that_are(train):
    with pytest.raises(DataError, match=r"train\.h5: has no continuous field ndvi; it has lai \(data\.target\)"):
        LandUseDataset(train, LandUseOptions(target="ndvi"))


# Travelling


def read_elsewhere(data, queue):
    queue.put((data.classes(1, 2001), data.static(1), np.asarray(data.coarse[1])))


def test_a_split_travels_to_other_processes_and_threads(root):
    data = opened(root)
    here = (data.classes(1, 2001), data.static(1), np.asarray(data.coarse[1]))  # the file is open now
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        worker = context.Process(target=read_elsewhere, args=(data, queue))
        worker.start()
        for a, b in zip(queue.get(timeout=60), here, strict=True):
            np.testing.assert_array_equal(a, b)
        worker.join()
        assert worker.exitcode == 0
    text = pickle.dumps(data)
    assert len(text) < 20_000, "tiles and forcing stay in the file"
    copy = pickle.loads(text)
    np.testing.assert_array_equal(copy.classes(1, 2001), here[0])
    with ThreadPoolExecutor(4) as pool:
        pairs = [(tile, year) for tile in range(data.layout.tiles) for year in data.layout.years] * 5
        for (tile, year), found in zip(pairs, pool.map(lambda pair: data.classes(*pair), pairs), strict=True):
            np.testing.assert_array_equal(found, copy.classes(tile, year))
    data.close()
    np.testing.assert_array_equal(data.classes(1, 2001), here[0])  # opened again


def test_few_tiles_stay_in_memory(root, monkeypatch):
    monkeypatch.setattr("earthsr.landuse.samples.CACHED_TILES", 2)
    data = opened(root)
    composer = Composer(data, data.layout.statistics.normalisation(None))
    year, last = data.layout.years[0], data.layout.tiles - 1
    for _ in range(2):
        for tile in range(data.layout.tiles):
            composer.fields(tile, year, composer.empty, 1)
    assert len(composer._tiles) == 2
    static = [composer.fields(last, each, composer.empty, 1)["static"] for each in data.layout.years[:2]]
    assert static[0] is static[1]


def test_fingerprints_tell_data_apart(root, tmp_path):
    first = opened(root).fingerprint()
    assert first == opened(root).fingerprint()
    assert first != opened(root, "valid").fingerprint()
    for number, (key, where) in enumerate(
        {"classes": (0, 0, 3, 3), "coarse": (0, 1, 2, 3), "static": (0, 0, 0, 0)}.items()
    ):
        path = tmp_path / str(number) / "train" / "train.h5"
        path.parent.mkdir(parents=True)
        path.write_bytes((root / "train" / "train.h5").read_bytes())
        with h5py.File(path, "r+") as handle:
            handle[key][where] = (handle[key][where] + 1) % 2
        assert opened(tmp_path / str(number)).fingerprint() != first, key


def test_a_compressed_forcing_is_read_too(root, tmp_path):
    """As other programs, or h5repack, may have written it; with another byte order for good measure."""
    path = tmp_path / "train" / "train.h5"
    path.parent.mkdir()
    path.write_bytes((root / "train" / "train.h5").read_bytes())
    with h5py.File(path, "r+") as handle:
        values = handle["coarse"][...]
        del handle["coarse"]
        handle.create_dataset("coarse", data=values.astype(">f8"), compression="gzip")
    np.testing.assert_array_equal(opened(tmp_path).coarse, values)
    np.testing.assert_array_equal(opened(root).coarse, values)


def test_stacking_keeps_types(train):
    composer = Composer(train, unit(train.layout))
    made = stack([composer.fields(t, 2001, composer.truth(t, 2000), 1) for t in (0, 1)])
    types = {"prior": np.uint8, "prior_mask": np.uint8}
    assert {name: value.dtype for name, value in made.items()} == {n: np.dtype(types.get(n, np.float32)) for n in made}
    assert all(value.flags.c_contiguous for value in made.values())

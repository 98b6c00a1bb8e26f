"""The synthetic sample as archives, read as archives are and compared with its split files; and the synthetic globe."""

import dataclasses
import itertools
import json
import shlex
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import xarray
import yaml

from earthsr.errors import InputError
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS, NODATA, ClassTable
from earthsr.landuse.fields import aggregate
from earthsr.landuse.prepare import prepare_landuse
from earthsr.landuse.sources.rasters import ClassMaps
from earthsr.landuse.sources.scenario_files import variable_name
from earthsr.landuse.sources.scenario_forcing import scenario_forcing
from earthsr.landuse.sources.statics import open_statics
from earthsr.landuse.write import SplitPlan
from earthsr.samples import landuse as sample_landuse
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import SyntheticWorld, WorldSpec, archives
from earthsr.samples.world.globe import Globe, GlobeSpec, write_global_archives
from tests.conftest import call_cli

TILE = 16
YEARS = tuple(range(1990, 1996))
WORLD = WorldSpec(rows=32, columns=192, years=YEARS, seed=3)
FILES = [
    *("README.txt", "classes.yaml", "landuse_1990.tif", "landuse_1993.tif", "landuse_1995.tif"),
    *("scenario_future.nc", "scenario_historical.nc", "static.nc"),
]
SCENARIO = ["scenario_historical.nc", "scenario_future.nc"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A sample with archives, the last two years held out; only read."""
    root = tmp_path_factory.mktemp("sample")
    write_sample_landuse(root, WORLD, tile_size=TILE, held_out_last=2, archives=True)
    return root


def split_of(root, name):
    with h5py.File(root / name / f"{name}.h5") as handle:
        return {key: handle[key][:] for key in handle}, dict(handle.attrs)


def maps_of(root, years=(1990, 1993, 1995), table=HILDA_PLUS):
    return ClassMaps([f"{year}={root / 'archives' / f'landuse_{year}.tif'}" for year in years], table)


# ------------------------------------------------------------------------------------------------ against the splits


def test_class_maps_are_those_of_the_split_files(sample):
    maps = maps_of(sample)
    compared = 0
    for split in ("train", "valid", "test"):
        data, attributes = split_of(sample, split)
        assert maps.crs == attributes["crs"]
        assert [maps.grid.rows, maps.grid.columns] == attributes["grid_shape"].tolist()
        np.testing.assert_allclose(maps.grid.transform, attributes["transform"], rtol=1e-12, atol=0)
        for year in set(maps.years) & set(data["years"].tolist()):
            y = data["years"].tolist().index(year)
            for t, (row, column) in enumerate(data["tile_index"].tolist()):
                found = maps.read(year, Window(row, column, TILE, TILE))
                np.testing.assert_array_equal(found, data["classes"][t, y])
                compared += 1
    assert compared == 2 * (14 + 2) + 3 * 2


def test_class_maps_lie_where_no_tile_was_cut_too(sample):
    """Cells of the buffers between the splits are compared with the world itself."""
    world = SyntheticWorld(WORLD)
    whole = Window(0, 0, WORLD.rows, WORLD.columns)
    for year in (1990, 1993, 1995):
        np.testing.assert_array_equal(maps_of(sample).read(year, whole), world.classes(year, whole))


def test_a_class_map_is_a_raster_that_other_tools_draw(sample):
    with rasterio.open(sample / "archives" / "landuse_1993.tif") as file:
        codes = file.read(1)
        assert (file.count, file.dtypes[0], file.nodata, file.crs.to_epsg()) == (1, "uint8", 255, 4326)
        assert set(np.unique(codes)) <= {each.code for each in HILDA_PLUS.classes} | {255}
        assert (codes == 255).any()
        assert "synthetic" in file.tags()["source"]
        colours = file.colormap(1)
    for each in HILDA_PLUS.classes:
        assert "#{:02x}{:02x}{:02x}".format(*colours[each.code][:3]) == each.colour
    assert colours[255][3] == 0
    assert sorted(path.name for path in (sample / "archives").iterdir()) == FILES  # nothing beside them


def test_static_fields_are_those_of_the_split_files(sample):
    data, attributes = split_of(sample, "test")
    channels = json.loads(attributes["static_channels"])
    specs = [f"{each['name']}={sample / 'archives' / 'static.nc'}" for each in channels]
    notes = []
    statics = open_statics(specs, maps_of(sample), 1990, notes)
    assert [dataclasses.asdict(each.channel) for each in statics.fields] == channels
    assert notes == []
    assert all(not each.note for each in statics.fields), "on the grid itself, not brought onto it"
    found = np.stack([each.read(Window(0, 0, WORLD.rows, WORLD.columns)) for each in statics.fields])
    for split in ("train", "valid", "test"):
        data, _ = split_of(sample, split)
        for tile, (row, column) in zip(data["static"], data["tile_index"].tolist(), strict=True):
            np.testing.assert_array_equal(found[:, row : row + TILE, column : column + TILE], tile)


def test_static_fields_follow_cf(sample):
    with xarray.open_dataset(sample / "archives" / "static.nc", engine="h5netcdf") as made:
        assert made.attrs["Conventions"].startswith("CF-")
        assert "synthetic" in made.attrs["title"]
        assert json.loads(made.attrs["provenance"])["synthetic"] is True
        assert made.elevation.attrs["standard_name"] == "surface_altitude"
        assert made.elevation.attrs["grid_mapping"] == "crs"
        assert made.crs.attrs["grid_mapping_name"] == "latitude_longitude"
        np.testing.assert_allclose(made.latitude.isel(lon=0), made.lat)


def test_fractions_are_those_of_the_split_files(sample):
    data, attributes = split_of(sample, "test")
    table = ClassTable.from_yaml(sample / "archives" / "classes.yaml")
    notes = []
    paths = [sample / "archives" / name for name in SCENARIO]
    with scenario_forcing(paths, YEARS, maps_of(sample).grid, table, notes) as found:
        fractions = [found.of_year(year, "test") for year in found.years]
    assert found.years == YEARS == tuple(data["years"])
    channels = json.loads(attributes["coarse_channels"])
    assert list(found.channels) == [variable_name(name) for name in channels]
    np.testing.assert_array_equal(fractions, data["coarse"])
    np.testing.assert_allclose(found.grid.latitudes(), data["coarse_latitude"], rtol=1e-12)
    np.testing.assert_allclose(found.grid.longitudes(), data["coarse_longitude"], rtol=1e-12)
    assert "scenario_future.nc also has 1993: taken from scenario_historical.nc" in notes
    # One class, one variable; which is what the split files say of their own channels.
    assert found.of_class == {name: (variable_name(name),) for name in channels}


def test_scenario_files_have_the_form_of_luh2(sample):
    anchor = int(split_of(sample, "test")[1]["anchor_year"])
    assert anchor == 1993
    for name, years in zip(SCENARIO, (range(1990, anchor + 1), range(anchor, 1996)), strict=True):
        with xarray.open_dataset(sample / "archives" / name, engine="h5netcdf", decode_cf=False) as made:
            assert made.urban.dims == ("time", "lat", "lon")
            assert made.time.attrs["units"] == f"years since {years[0]}-01-01 0:0:0"
            assert made.time.attrs["calendar"] == "365_day"
            np.testing.assert_array_equal(made.time, np.arange(len(years)))
            assert (np.diff(made.lat) < 0).all()
            values = np.stack([made[key].values for key in made.data_vars], axis=1)
            assert {made[key].attrs["_FillValue"] for key in made.data_vars} == {np.float32(1e20)}
        truth = split_of(sample, "test")[0]["coarse"][[YEARS.index(year) for year in years]]
        sea = (truth == 0).all(axis=1, keepdims=True)
        assert 0 < sea.mean() < 1
        np.testing.assert_array_equal(values, np.where(sea, np.float32(1e20), truth))


@pytest.mark.parametrize("forcing", ["scenario", "oracle"])
def test_files_prepared_from_the_archives_are_the_sample(sample, tmp_path, forcing):
    """Tiles, static fields and classes; fractions too, whether read from the scenario or aggregated from the maps."""
    folder, held = sample / "archives", (1995,)
    plan = SplitPlan(tile_size=TILE, buffer_cells=16, align_cells=16, held_out_years=held)
    static = [f"{channel.name}={folder / 'static.nc'}" for channel in SyntheticWorld.static_channels]
    prepare_landuse(
        tmp_path,
        [f"{year}={folder / f'landuse_{year}.tif'}" for year in (1990, 1993, 1995)],
        static,
        [folder / name for name in SCENARIO] if forcing == "scenario" else (),
        table=ClassTable.from_yaml(folder / "classes.yaml"),
        plan=plan,
    )
    for split in ("train", "valid", "test"):
        (found, said), (expected, attributes) = split_of(tmp_path, split), split_of(sample, split)
        for key in ("tile_index", "tile_origin", "static", "coarse_latitude", "coarse_longitude"):
            np.testing.assert_array_equal(found[key], expected[key])
        assert said["forcing"] == forcing
        assert said["static_channels"] == attributes["static_channels"]
        years = found["years"].tolist()
        assert years == [1990, 1993, 1995] if split == "test" else [1990, 1993]
        layers = [expected["years"].tolist().index(year) for year in years]
        np.testing.assert_array_equal(found["classes"], expected["classes"][:, layers])
        np.testing.assert_array_equal(found["coarse"], expected["coarse"][layers])


# ------------------------------------------------------------------------------------------------ the command

SIZE = ["--rows", "32", "--columns", "192", "--tile", "16", "--seed", "3", "--years", "1990:1993"]


def paths_of(words):
    """Files that a command of earthsr reconstruct reads, and the store that it writes."""
    read = [
        word.rpartition("=")[2]
        for option, word in itertools.pairwise(words)
        if option in ("--scenario", "--static", "--anchor")
    ]
    return read, words[words.index("--output") + 1]


def test_the_command_writes_archives_and_says_what_comes_next(tmp_path):
    folder = tmp_path / "my data"
    words = ["sample", "landuse", folder, *SIZE, "--held-out-years", "1", "--archives"]
    done = call_cli(*words)
    assert done.returncode == 0, done.stderr
    first, second, third, *rest = done.stdout.splitlines()
    assert first.startswith(f"{folder}: synthetic world, ")
    assert second.startswith(f"{folder / 'archives'}: landuse_1990.tif, landuse_1992.tif, landuse_1993.tif, static.nc")
    assert third.startswith("next, ")
    command = shlex.split("\n".join(rest).replace("\\\n", ""))
    assert command[:3] == ["earthsr", "reconstruct", "CHECKPOINT"]
    assert command[command.index("--years") + 1] == "1990:1993"
    assert command[command.index("--anchor") + 1].startswith("1992=")
    read, output = paths_of(command)
    assert len(read) == 2 + 5 + 1
    assert all(Path(path).is_file() for path in read)
    assert not Path(output).exists()

    # The same words lie beside the files, for whoever stands there.
    text = (folder / "archives" / "README.txt").read_text()
    assert "synthetic" in text.splitlines()[0]
    assert all(name in text for name in ("landuse_1992.tif", "static.nc", *SCENARIO, "grass/shrub as grass_shrub"))
    command = shlex.split(text[text.index("earthsr reconstruct") :].replace("\\\n", ""))
    read, _ = paths_of(command)
    assert all((folder / "archives" / path).is_file() for path in read)

    refused = call_cli(*words)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    result = json.loads(call_cli(*words, "--overwrite", "--json").stdout)
    assert result["archives"]["anchor_year"] == 1992
    assert sorted(result["archives"]["files"]) == sorted(path.name for path in (folder / "archives").iterdir())
    assert shlex.split(result["archives"]["command"])[:2] == ["earthsr", "reconstruct"]


def test_without_the_option_there_are_none(tmp_path):
    words = ["sample", "landuse", tmp_path / "d", *SIZE, "--held-out-years", "1"]
    result = json.loads(call_cli(*words, "--json").stdout)
    assert "archives" not in result
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["test", "train", "valid"]


def test_archives_of_an_earlier_sample_do_not_outlive_it(sample, tmp_path):
    """Files of another anchor would lie beside the new ones; what others put there stays."""
    root = tmp_path / "again"
    shutil.copytree(sample, root)
    (root / "archives" / "maps.txt").write_text("mine")
    write_sample_landuse(root, WORLD, tile_size=TILE, held_out_last=1, overwrite=True, archives=True)
    names = [name.replace("1993", "1994") for name in FILES]
    assert sorted(path.name for path in (root / "archives").iterdir()) == sorted([*names, "maps.txt"])
    write_sample_landuse(root, WORLD, tile_size=TILE, held_out_last=1, overwrite=True)
    assert [path.name for path in (root / "archives").iterdir()] == ["maps.txt"]


def test_archives_of_another_kind_are_left_alone(tmp_path):
    (tmp_path / "archives").mkdir()
    for name in ("static.nc", "README.txt"):
        (tmp_path / "archives" / name).write_text("mine")
    with pytest.raises(InputError, match=r"archives is there already.*--overwrite"):
        write_sample_landuse(tmp_path, WORLD, tile_size=TILE, held_out_last=1, archives=True)
    write_sample_landuse(tmp_path, WORLD, tile_size=TILE, held_out_last=1, overwrite=True)
    assert {path.read_text() for path in (tmp_path / "archives").iterdir()} == {"mine"}


def test_too_few_coarse_cells_are_refused_before_a_world_is_made(tmp_path):
    done = call_cli(
        "sample", "landuse", tmp_path / "d", *SIZE, "--held-out-years", "1", "--cell", "0.002", "--archives"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "1 x 2 coarse cells of 0.25 degrees, archives need at least 2 x 2" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(path, *_):
        assert (path.parent / "static.nc").is_file(), "the disk is full when some files are there already"
        raise InputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(archives, "write_scenario", fail)
    with pytest.raises(InputError, match="No space"):
        write_sample_landuse(tmp_path / "d", WORLD, tile_size=TILE, held_out_last=1, archives=True)
    assert not (tmp_path / "d").exists()


def test_a_channel_becomes_a_name_that_netcdf_takes():
    assert [variable_name(name) for name in ("urban", "grass/shrub", "c3 ann")] == ["urban", "grass_shrub", "c3_ann"]
    assert sample_landuse.SampleWritten().to_dict().get("archives", "none") == "none"


# ------------------------------------------------------------------------------------------------ the globe

GLOBE = GlobeSpec(1.0, tuple(range(1990, 1994)), seed=1, coarse_deg=4.0)


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """Archives of a globe of cells of one degree; only read."""
    folder = tmp_path_factory.mktemp("globe")
    return write_global_archives(folder, 1.0, GLOBE.years, seed=1, coarse_deg=4.0, map_years=(1990,))


def whole(grid):
    return Window(0, 0, grid.rows, grid.columns)


def test_a_globe_is_read_as_archives_are(globe):
    assert globe.anchor_year == 1992
    source = Globe(GLOBE)
    maps = ClassMaps([f"{year}={globe.folder / f'landuse_{year}.tif'}" for year in (1990, 1992)], HILDA_PLUS)
    assert maps.grid == Grid(-180, 90, 1, 1, 180, 360)
    assert maps.grid.periodic
    for year in (1990, 1992):
        np.testing.assert_array_equal(maps.read(year, whole(maps.grid)), source.classes(year, whole(maps.grid)))
    statics = open_statics([f"{name}={globe.folder / 'static.nc'}" for name in globe.static], maps, 1992, [])
    found = np.stack([each.read(whole(maps.grid)) for each in statics.fields])
    np.testing.assert_array_equal(found, source.static(whole(maps.grid)))
    assert tuple(each.channel for each in statics.fields) == SyntheticWorld.static_channels
    table = ClassTable.from_yaml(globe.folder / "classes.yaml")
    with scenario_forcing([globe.folder / name for name in SCENARIO], GLOBE.years, maps.grid, table) as scenario:
        fractions = [scenario.of_year(year, "test") for year in GLOBE.years]
    assert scenario.years == GLOBE.years
    assert scenario.grid.periodic
    expected = aggregate(source, 4.0)
    assert scenario.grid == expected.grid
    # Sums of float64 in another order, kept as float32.
    np.testing.assert_allclose(fractions, [expected.read(year) for year in GLOBE.years], atol=1e-6)
    assert "synthetic" in (globe.folder / "README.txt").read_text().splitlines()[0]
    with xarray.open_dataset(globe.folder / "static.nc", engine="h5netcdf") as made:
        assert json.loads(made.attrs["provenance"])["synthetic"] is True


def test_a_globe_has_no_seam_at_the_dateline():
    """Steps from the last column to the first are as large as those between other neighbours."""
    source = Globe(dataclasses.replace(GLOBE, cell_deg=0.5))
    everywhere = whole(source.grid)
    for field in (*source.static(everywhere)[:4], source.classes(1990, everywhere)):
        steps = np.abs(np.roll(field.astype(float), -1, axis=1) - field)
        if field.dtype == np.uint8:
            steps = (steps > 0).astype(float)
        means = steps.mean(axis=0)
        assert means[-1] <= means[:-1].max()
        assert means[-1] < 2.5 * means.mean()


def test_a_globe_is_the_same_in_any_window():
    source = Globe(GLOBE)
    grid = source.grid
    classes, static = source.classes(1991, whole(grid)), source.static(whole(grid))
    for window in (Window(13, 200, 1, 7), Window(100, 0, 33, 360), Window(179, 359, 1, 1)):
        part = np.s_[window.row : window.row + window.rows, window.column : window.column + window.columns]
        np.testing.assert_array_equal(source.classes(1991, window), classes[part])
        np.testing.assert_array_equal(source.static(window), static[(slice(None), *part)])


def test_a_globe_has_all_classes_and_sea_and_changes_slowly():
    source = Globe(dataclasses.replace(GLOBE, cell_deg=0.5))
    maps = [source.classes(year, whole(source.grid)) for year in source.years]
    sea = maps[0] == NODATA
    assert 0.4 < sea.mean() < 0.8
    assert (np.bincount(maps[0][~sea], minlength=len(HILDA_PLUS)) / (~sea).sum() > 0.005).all()
    for before, after in itertools.pairwise(maps):
        np.testing.assert_array_equal(after == NODATA, sea)
        assert 0.001 < (before != after)[~sea].mean() < 0.03


@pytest.mark.parametrize(("north", "south"), [(50.0, -7.0), (90.0, 41.0)])
def test_a_belt_of_the_globe_is_a_part_of_it(north, south):
    """Coarse cells that the belt covers in part have the fractions of what it covers."""
    source, belt = Globe(GLOBE), Globe(dataclasses.replace(GLOBE, north_deg=north, south_deg=south))
    rows = np.s_[round(90 - north) : round(90 - south)]
    expected = source.classes(1990, whole(source.grid))[rows]
    np.testing.assert_array_equal(belt.classes(1990, whole(belt.grid)), expected)
    fractions, aggregated = belt.fractions(), aggregate(belt, 4.0)
    assert (fractions.grid, fractions.channels) == (aggregated.grid, aggregated.channels)
    found = fractions.read(GLOBE.years, 1, fractions.grid.rows - 1)
    expected = np.stack([aggregated.read(year) for year in GLOBE.years])
    np.testing.assert_allclose(found, expected[:, :, 1:], atol=1e-6)
    np.testing.assert_allclose(fractions.read((1991,), 0, 1), expected[1:2, :, :1], atol=1e-6)


@pytest.mark.slow
def test_what_is_in_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for rows in (512, 1536):
        tracemalloc.start()
        write_global_archives(tmp_path / str(rows), 0.1, (1990, 1991), coarse_deg=1.0, south_deg=90 - rows / 10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Bands of 256 rows; the waves along the rows are all that grows.
    assert peaks[1] < 1.02 * peaks[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(cell_deg=0.7), "fine cells around the Earth"),
        (dict(cell_deg=0.0), "fine cells around the Earth"),
        (dict(cell_deg=1.5), "fine cells in a coarse one"),
        (dict(cell_deg=1.0, coarse_deg=7.0), "coarse cells around the Earth"),
        (dict(north_deg=91.0), "latitudes are -90 to 91 N"),
        (dict(south_deg=-0.3), "90.3 cells"),
        (dict(south_deg=90.0), "latitudes are 90 to 90 N"),
        (dict(years=(1990, 1992)), "one after another"),
        (dict(anchor_year=1980), r"wanted of \[1980\], expected years of 1990 to 1993"),
        (dict(seed=-1), "seed"),
        (dict(north_deg=4.0, south_deg=0.0), "1 x 90 coarse cells"),
    ],
)
def test_a_globe_that_does_not_fit_is_refused(tmp_path, change, message):
    words = {"cell_deg": 1.0, "years": GLOBE.years, "coarse_deg": 4.0, **change}
    with pytest.raises(InputError, match=message):
        write_global_archives(tmp_path / "g", **words)
    assert not (tmp_path / "g").exists()


def test_the_table_beside_the_scenario_is_hilda_s_but_for_its_channels(globe):
    table = ClassTable.from_yaml(globe.folder / "classes.yaml")
    assert [(each.name, each.codes, each.colour) for each in table.classes] == [
        (each.name, each.codes, each.colour) for each in HILDA_PLUS.classes
    ]
    values = yaml.safe_load((globe.folder / "classes.yaml").read_text())
    assert values["classes"][4]["forcing"] == ["grass_shrub"]

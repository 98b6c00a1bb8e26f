"""From made archives to land-use files: class rasters, static fields, LUH2's states, and what is wrong with them."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import rasterio
import xarray
from rasterio.transform import Affine

from tests.cli.test_bad_input import assert_refused
from tests.conftest import call_cli

CODES = np.array([11, 22, 33, 40, 43, 55, 66, 77, 0, 99])
#: Index in HILDA+'s table of each of those codes.
INDICES = np.array([0, 1, 2, 3, 3, 4, 5, 6, 255, 255], np.uint8)
STATES = ["primf", "primn", "secdf", "secdn", "urban", "c3ann", "c4ann", "c3per", "c4per", "c3nfx", "pastr", "range"]
WEST, NORTH, CELL = -3.71, 52.28, 0.03
ROWS, COLUMNS = 40, 72


def write_tif(path, values, west=WEST, north=NORTH, cell=CELL, crs="EPSG:4326", transform=None, tags=None, **profile):
    values = np.atleast_3d(values.T).T  # one band, or several
    place = transform or Affine(cell, 0, west, 0, -cell, north)
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", "GTiff", dtype=values.dtype, crs=crs, transform=place, **size, **profile) as file:
        file.write(values)
        file.update_tags(**(tags or {}))
    return path


def code_map(seed, rows=ROWS, columns=COLUMNS, dtype=np.uint8):
    return np.random.default_rng(seed).choice(CODES, (rows, columns)).astype(dtype)


def indices_of(codes):
    return INDICES[np.argmax(codes[..., None] == CODES, axis=-1)]


def states(years=range(2000, 2004), west=-6.0, north=54.0, rows=24, columns=32, cell=0.25, reference=850):
    """Return fractions of LUH2's form, with an ocean in the first row, as a data set with the time axis of LUH2."""
    years = np.array(years)
    values = np.random.default_rng(5).dirichlet(np.ones(13), (len(years), rows, columns)).astype(np.float32)[..., :12]
    values[:, :6] = np.nan
    coordinates = {
        "time": ("time", (years - reference).astype(float)),
        "lat": ("lat", north - cell * (np.arange(rows) + 0.5)),
        "lon": ("lon", west + cell * (np.arange(columns) + 0.5)),
    }
    fields = {name: (("time", "lat", "lon"), values[..., i]) for i, name in enumerate(STATES)}
    made = xarray.Dataset(fields, coordinates)
    made.time.attrs |= {"units": f"years since {reference}-01-01 0:0:0", "calendar": "365_day"}
    made.lat.attrs["units"], made.lon.attrs["units"] = "degrees_north", "degrees_east"
    return made


def write_nc(path, dataset):
    encoding = {name: {"_FillValue": np.float32(1e20)} for name in dataset.data_vars if name in STATES}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


@pytest.fixture
def folder(tmp_path):
    """Class rasters of 2001, 2002 and 2003, each the map of that seed."""
    for year in (2001, 2002, 2003):
        write_tif(tmp_path / f"20221006_classes_{year}.tif", code_map(year))
    return tmp_path


PLAN = ("--tile", 16, "--stride", 8, "--buffer", 2, "--shares", "0.5,0.25,0.25")


def prepare(folder, *words, years=(2001, 2002, 2003), static=("latitude",), plan=PLAN):
    classes = [word for year in years for word in ("--classes", folder / f"20221006_classes_{year}.tif")]
    statics = [word for spec in static for word in ("--static", spec)]
    return call_cli("prepare", "landuse", folder / "out", *classes, *statics, *plan, *words)


def read(folder, split):
    with h5py.File(folder / "out" / split / f"{split}.h5") as handle:
        return {key: handle[key][:] for key in handle}, dict(handle.attrs)


def brute_fractions(codes, cell, coarse=0.25, sub=0.01):
    """Aggregate by cells of ``sub`` degrees, which both grids consist of, weighted by the cosine of their latitude."""
    times = round(cell / sub)
    small = np.kron(indices_of(codes), np.ones((times, times), np.uint8))
    latitude = NORTH - sub * (np.arange(small.shape[0]) + 0.5)
    longitude = WEST + sub * (np.arange(small.shape[1]) + 0.5)
    row, column = np.floor(-latitude / coarse).astype(int), np.floor(longitude / coarse).astype(int)
    row, column = row - row.min(), column - column.min()
    sums = np.zeros((8, row.max() + 1, column.max() + 1))
    weight = np.broadcast_to(np.cos(np.deg2rad(latitude))[:, None], small.shape)
    for k in range(7):
        np.add.at(sums[k], np.ix_(row, column), weight * (small == k))
    np.add.at(sums[7], np.ix_(row, column), weight)
    return sums[:7] / sums[7]


def test_from_rasters_without_a_scenario(folder):
    """Tiles hold the rasters' cells, and the oracle forcing is their aggregation by area."""
    done = prepare(folder, "--hold-out", "2003", "--json", static=("latitude", "longitude", "distance_to_coast"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["forcing"] == "oracle"
    assert said["tiles"] == {"train": 12, "valid": 2, "test": 2}
    assert said["years"] == {"train": [2001, 2002], "valid": [2001, 2002], "test": [2001, 2002, 2003]}
    for split, count in said["tiles"].items():
        data, attributes = read(folder, split)
        assert attributes["forcing"] == "oracle"
        assert len(data["classes"]) == count
        for t, (row, column) in enumerate(data["tile_index"]):
            inside = (slice(row, row + 16), slice(column, column + 16))
            for y, year in enumerate(data["years"]):
                np.testing.assert_array_equal(data["classes"][t, y], indices_of(code_map(year)[inside]))
            latitude = NORTH - CELL * (row + np.arange(16) + 0.5)
            np.testing.assert_allclose(data["static"][t, 0, :, 3], latitude, rtol=1e-6)
            np.testing.assert_allclose(data["static"][t, 1, 5], WEST + CELL * (column + np.arange(16) + 0.5), rtol=1e-6)
            sea = indices_of(code_map(2001)[inside]) == 255
            np.testing.assert_array_equal(data["static"][t, 2] == 0, sea)
        for y, year in enumerate(data["years"]):
            np.testing.assert_allclose(data["coarse"][y], brute_fractions(code_map(year), CELL), atol=2e-7)
    assert json.loads(attributes["held_out_years"]) == [2003]
    provenance = json.loads(attributes["provenance"])
    assert [each["name"] for each in provenance["classes"]] == [f"20221006_classes_{y}.tif" for y in (2001, 2002, 2003)]
    assert all(len(each["sha256"]) == 64 and each["bytes"] > 0 for each in provenance["classes"])
    assert str(folder) not in json.dumps(provenance)
    assert "middle latitude" in provenance["static"][2]["note"]


def test_from_rasters_and_luh2(folder):
    """The forcing is cut from the scenario with one cell around, oceans are 0, and classes know their channels."""
    made = states()
    write_nc(folder / "states.nc", made)
    done = prepare(folder, "--scenario", folder / "states.nc", "--json")
    assert done.returncode == 0, done.stderr
    assert "no class map for 2000, which states.nc has: left out" in done.stderr
    data, attributes = read(folder, "test")
    assert attributes["forcing"] == "scenario"
    assert json.loads(attributes["coarse_channels"]) == STATES
    of_class = json.loads(attributes["forcing_classes"])
    assert of_class["cropland"] == ["c3ann", "c4ann", "c3per", "c4per", "c3nfx"]
    assert "water" not in of_class
    assert list(data["years"]) == [2001, 2002, 2003]
    # Fine cells reach from 51.08 to 52.28 N and from 3.71 to 1.55 W; the cells that they touch, and one more each way.
    np.testing.assert_allclose(data["coarse_latitude"], np.arange(52.625, 50.7, -0.25))
    np.testing.assert_allclose(data["coarse_longitude"], np.arange(-3.875, -1.3, 0.25))
    wanted = made.sel(lat=data["coarse_latitude"], lon=data["coarse_longitude"]).isel(time=slice(1, 4))
    expected = np.stack([wanted[name].values for name in STATES], axis=1)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(data["coarse"], np.nan_to_num(expected))
    notes = json.loads(attributes["provenance"])["notes"]
    assert any(note.startswith("ocean cells filled with 0: up to 11 of") for note in notes)
    assert json.loads(attributes["provenance"])["scenario"][0]["name"] == "states.nc"


@pytest.mark.parametrize("units", ["1", ""])
def test_plantations_of_luh3_are_forest(folder, units):
    """LUH3 has a thirteenth state, mean ages that are no fractions, and time in days since 850."""
    made, share = states(range(2001, 2004)), np.float32(0.05)
    made["pltns"] = (made.secdf * 0 + share).assign_attrs(units=units)
    made["secma"] = (made.secdf * 0 + 37).assign_attrs(units="years")
    made["primf_to_urban"] = made.secdf * 0 + share
    for name in STATES:
        made[name] *= 1 - share
    days = (made.time.values * 365).astype(float)
    made = made.assign_coords(time=("time", days, {"units": "days since 0850-01-01", "calendar": "noleap"}))
    write_nc(folder / "luh3.nc", made)
    done = prepare(folder, "--scenario", folder / "luh3.nc")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is left out"
    data, attributes = read(folder, "train")
    channels = json.loads(attributes["coarse_channels"])
    assert channels == [*STATES, "pltns"]
    assert json.loads(attributes["forcing_classes"])["forest"] == ["primf", "secdf", "pltns"]
    wanted = made.sel(lat=data["coarse_latitude"], lon=data["coarse_longitude"])
    np.testing.assert_array_equal(data["coarse"][:, 12], np.nan_to_num(wanted.pltns.values))


def test_states_that_no_class_is_tied_to_are_warned_of_with_their_share(folder):
    made = states(range(2001, 2004))
    made["agrof"] = made.urban * 0 + np.float32(0.125)
    made["empty"] = made.urban * 0
    made["secmb"] = made.urban * 0 + np.float32(0.5)
    made["irrig_c3ann"] = made.urban * 0 + np.float32(0.5)
    done = prepare(folder, "--scenario", write_nc(folder / "states.nc", made))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    for word in ("states.nc", "agrof", "12.50%", "HILDA+", "--table"):
        assert word in line
    notes = json.loads(read(folder, "train")[1]["provenance"])["notes"]
    assert any("empty (0.00% of the land" in note for note in notes)


def test_land_without_a_scenario_value_is_refused_or_filled(folder, refused):
    """Where the map has land by more than half of a coarse cell, and no fraction: zeros would be an invention."""
    made = states(range(2001, 2004))
    for name in STATES:
        made[name][:, 10, 14] = np.nan
    write_nc(folder / "states.nc", made)
    where = ("states.nc", "primf", "2001", "51.375 N", "-2.375 E", "--fill-scenario nearest")
    refused(*where, arguments=("--scenario", folder / "states.nc"))
    refused("--fill-scenario", "'zero'", "nearest", arguments=("--fill-scenario", "zero"))
    done = prepare(folder, "--scenario", folder / "states.nc", "--fill-scenario", "nearest")
    assert done.returncode == 0, done.stderr
    data, attributes = read(folder, "train")
    row = int(np.argmin(np.abs(data["coarse_latitude"] - 51.375)))
    column = int(np.argmin(np.abs(data["coarse_longitude"] + 2.375)))
    filled, beside = data["coarse"][:, :, row, column], data["coarse"][:, :, row, [column - 1, column + 1]]
    assert filled.any()
    assert (filled[..., None] == beside).all(axis=(0, 1)).any(), "of the same latitude those beside are the nearest"
    assert any("1 coarse cells with land" in note for note in json.loads(attributes["provenance"])["notes"])


def test_a_coarse_cell_that_is_mostly_sea_needs_no_value(folder):
    made = states(range(2001, 2004))
    for name in STATES:
        made[name][:, 10, 14] = np.nan
    write_nc(folder / "states.nc", made)
    for year in (2001, 2002, 2003):
        codes = code_map(year)
        latitude = NORTH - CELL * (np.arange(ROWS) + 0.5)
        longitude = WEST + CELL * (np.arange(COLUMNS) + 0.5)
        cell = np.ix_(np.abs(latitude - 51.375) < 0.125, np.abs(longitude + 2.375) < 0.125)
        codes[cell] = 0
        codes[cell][:1] = 0
        first = (
            np.argwhere(np.abs(latitude - 51.375) < 0.125)[0, 0],
            np.argwhere(np.abs(longitude + 2.375) < 0.125)[0, 0],
        )
        codes[first] = 40
        write_tif(folder / f"20221006_classes_{year}.tif", codes)
    done = prepare(folder, "--scenario", folder / "states.nc")
    assert done.returncode == 0, done.stderr
    notes = json.loads(read(folder, "train")[1]["provenance"])["notes"]
    assert any("1 coarse cells with a little land" in note for note in notes)


def test_tree_crops_and_agroforestry_of_hilda_2_1_are_cropland(folder):
    codes = code_map(2001)
    codes[20, :30], codes[21, :30] = 23, 24
    write_tif(folder / "20221006_classes_2001.tif", codes)
    done = prepare(folder, years=(2001,))
    assert done.returncode == 0, done.stderr
    data, _ = read(folder, "train")
    row, column = data["tile_index"][0]
    assert (data["classes"][0, 0, 20 - row : 22 - row, : 30 - column] == 1).all()


def test_scenario_files_that_follow_each_other(folder):
    """The first file that has a year gives it; what both have is reported."""
    write_nc(folder / "historical.nc", states(range(2000, 2003)))
    later = states(range(2002, 2005), reference=2002)
    write_nc(folder / "ssp245.nc", later)
    done = prepare(folder, "--scenario", folder / "historical.nc", "--scenario", folder / "ssp245.nc")
    assert done.returncode == 0, done.stderr
    assert "ssp245.nc also has 2002: taken from historical.nc" in done.stderr
    data, _ = read(folder, "train")
    urban = [states(range(2000, 2003)).urban[1], states(range(2000, 2003)).urban[2], later.urban[1]]
    for found, expected in zip(data["coarse"][:, 4], urban, strict=True):
        part = expected.sel(lat=data["coarse_latitude"], lon=data["coarse_longitude"])
        np.testing.assert_array_equal(found, np.nan_to_num(part.values))


def test_missing_years_are_reported_and_left_out(folder):
    write_nc(folder / "states.nc", states(range(2000, 2003)))
    done = prepare(folder, "--scenario", folder / "states.nc", "--years", "2000:2003", years=(2001, 2003))
    assert done.returncode == 0, done.stderr
    assert "no class map for 2000, 2002: left out" in done.stderr
    assert "states.nc has no fractions for 2003, which the class maps have: left out" in done.stderr
    data, attributes = read(folder, "train")
    assert list(data["years"]) == [2001]
    assert data["classes"].shape[1] == data["coarse"].shape[0] == 1
    assert "no class map for 2000, 2002: left out" in json.loads(attributes["provenance"])["notes"]


def test_floats_with_nan_for_nodata(tmp_path):
    """As the HILDA+ maps of single countries are."""
    codes = code_map(1).astype(np.float32)
    codes[indices_of(codes) == 255] = np.nan
    codes[:, :4] = np.nan
    write_tif(tmp_path / "20221006_classes_2009.tif", codes, nodata=np.nan)
    done = prepare(tmp_path, years=(2009,), plan=("--tile", 16, "--buffer", 0, "--shares", "0.7,0,0.3"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out" / "valid").exists()
    data, _ = read(tmp_path, "train")
    for t, (row, column) in enumerate(data["tile_index"]):
        part = codes[row : row + 16, column : column + 16]
        expected = np.where(np.isnan(part), 255, indices_of(part))
        np.testing.assert_array_equal(data["classes"][t, 0], expected)


@pytest.mark.parametrize("time", ["years", "days"])
def test_netcdf_maps_that_go_north_and_count_longitudes_from_zero(tmp_path, time):
    """As HILDA+'s global files: rows are turned, columns rolled, years read from the time axis."""
    years = np.arange(1999, 2003)
    codes = np.stack([code_map(year, 36, 72, np.int8) for year in years])
    days = np.array([365 * (year - 1850) for year in years])
    units = {"units": "days since 1850-01-01", "calendar": "noleap"}
    axis = ("time", years) if time == "years" else ("time", days, units)
    xarray.Dataset(
        {"LULC_states": (("time", "latitude", "longitude"), codes), "quality": (("latitude", "longitude"), codes[0])},
        {"time": axis, "latitude": np.arange(-87.5, 90, 5), "longitude": np.arange(2.5, 360, 5)},
    ).to_netcdf(tmp_path / "hilda.nc", engine="h5netcdf")
    words = ("--static", "longitude", "--tile", 12, "--shares", "0.4,0.2,0.4", "--buffer", 0, "--coarse-cell", 10)
    done = call_cli("prepare", "landuse", tmp_path / "out", "--classes", tmp_path / "hilda.nc", *words)
    assert done.returncode == 0, done.stderr
    rolled = np.roll(codes[:, ::-1], 36, axis=2)
    for split in ("train", "test"):
        data, attributes = read(tmp_path, split)
        np.testing.assert_allclose(attributes["transform"], [5, 0, -180, 0, -5, 90])
        assert list(data["years"]) == list(years)
        for t, (row, column) in enumerate(data["tile_index"]):
            expected = indices_of(rolled[:, row : row + 12, column : column + 12])
            np.testing.assert_array_equal(data["classes"][t], expected)
            np.testing.assert_allclose(data["tile_origin"][t], [-180 + 5 * column, 90 - 5 * row])


def test_another_class_table(folder):
    """Two classes of one's own, tied to variables of one's own."""
    table = {
        "name": "toy",
        "nodata_codes": [9],
        "classes": [
            {"name": "wood", "codes": [1, 3], "colour": "#00ff00", "forcing": ["tree"]},
            {"name": "open", "codes": [2], "colour": "#ffff00"},
        ],
    }
    (folder / "toy.yaml").write_text(json.dumps(table))
    codes = np.random.default_rng(0).choice([1, 2, 3, 9], (ROWS, COLUMNS)).astype(np.int16)
    write_tif(folder / "20221006_classes_2001.tif", codes, nodata=-1)
    made = states()[["urban"]].assign(tree=states().urban)
    write_nc(folder / "toy.nc", made)
    done = prepare(folder, "--table", folder / "toy.yaml", "--scenario", folder / "toy.nc", years=(2001,))
    assert done.returncode == 0, done.stderr
    data, attributes = read(folder, "train")
    row, column = data["tile_index"][-1]
    expected = np.array([255, 0, 1, 0])[np.where(codes == 9, 0, codes)][row : row + 16, column : column + 16]
    np.testing.assert_array_equal(data["classes"][-1, 0], expected)
    assert json.loads(attributes["coarse_channels"]) == ["urban", "tree"]
    assert json.loads(attributes["forcing_classes"]) == {"wood": ["tree"]}


def test_static_rasters(folder):
    """Units come from the file, else from the command line; a plane's slope is that of the plane."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    write_tif(folder / "high.tif", (30.0 * columns).astype(np.float32), tags={"units": "m"})
    write_tif(folder / "soil.tif", (rows % 5).astype(np.uint8), nodata=4)
    static = ("slope", f"elevation:km={folder / 'high.tif'}", f"soil:kg={folder / 'soil.tif'}")
    done = prepare(folder, static=static, years=(2001,))
    assert done.returncode == 0, done.stderr
    data, attributes = read(folder, "train")
    channels = json.loads(attributes["static_channels"])
    assert [(c["name"], c["units"]) for c in channels] == [("slope", "deg"), ("elevation", "m"), ("soil", "kg")]
    assert any("high.tif are m, not km" in note for note in json.loads(attributes["provenance"])["notes"])
    for t, (row, column) in enumerate(data["tile_index"]):
        np.testing.assert_array_equal(data["static"][t, 1, 0], 30.0 * (column + np.arange(16)))
        expected = np.where((row + np.arange(16)) % 5 == 4, np.nan, (row + np.arange(16)) % 5)
        np.testing.assert_array_equal(data["static"][t, 2, :, 7], expected)
        latitude = np.deg2rad(NORTH - CELL * (row + np.arange(16) + 0.5))
        slope = np.rad2deg(np.arctan(30 / (CELL * 111195 * np.cos(latitude))))
        np.testing.assert_allclose(data["static"][t, 0], np.repeat(slope[:, None], 16, 1), rtol=1e-5)


# What is wrong with archives


@pytest.fixture
def refused(folder):
    """Prepare, which must be refused and write nothing."""

    def check(*words, arguments=(), **options):
        assert_refused(prepare(folder, *arguments, **options), *words)
        assert not (folder / "out").exists() or not list((folder / "out").rglob("*.*"))

    return check


def damage(folder, year=2002, **options):
    """Write the map of a year again."""
    codes = options.pop("codes", code_map(year))
    write_tif(folder / f"20221006_classes_{year}.tif", codes, **options)


def scenario(folder, made):
    return ("--scenario", write_nc(folder / "states.nc", made))


@pytest.mark.parametrize("kind", ["oracle", "scenario"])
def test_unknown_codes(folder, refused, kind):
    """A code in the last corner of a year that training never reads is found before the first file is written."""
    codes = code_map(2003)
    codes[ROWS - 1, COLUMNS - 2] = 12
    damage(folder, 2003, codes=codes)
    made = scenario(folder, states(range(2001, 2004))) if kind == "scenario" else ()
    cell = f"code 12 at row {ROWS - 1}, column {COLUMNS - 2}"
    refused("classes_2003.tif (2003)", cell, "HILDA+", "--table", arguments=("--hold-out", 2003, *made))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codes": code_map(0, ROWS, COLUMNS - 1)}, "40 x 71 cells against 40 x 72"),
        ({"west": WEST + 0.01}, "western edge at -3.7 against -3.71 degrees"),
        ({"cell": 0.0303}, "eastern edge at -1.5284 against -1.55 degrees"),
        ({"crs": "EPSG:4258"}, "CRS EPSG:4258 against EPSG:4326"),
    ],
)
def test_grids_that_differ(folder, refused, options, words):
    damage(folder, **options)
    refused("classes_2002.tif is not on the grid of 20221006_classes_2001.tif", words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"crs": "EPSG:27700"},
            "CRS is EPSG:27700, expected longitude and latitude; rio warp IN OUT.tif",
        ),
        ({"crs": None}, "has no CRS; rio edit-info --crs EPSG:4326"),
        ({"transform": Affine(0.03, 0.001, 0, 0.001, -0.03, 50)}, "rotated or mirrored, expected north up"),
        ({"transform": Affine(-0.03, 0, 0, 0, -0.03, 50)}, "rotated or mirrored, expected north up"),
        ({"codes": np.zeros((2, ROWS, COLUMNS), np.uint8)}, "has 2 bands, expected one"),
    ],
)
def test_rasters_that_are_not_north_up_in_degrees(folder, refused, options, words):
    damage(folder, **options)
    refused("20221006_classes_2002.tif", words)


def test_damaged_files(folder, refused):
    path = folder / "20221006_classes_2002.tif"
    path.write_bytes(path.read_bytes()[:600])
    refused("classes_2002.tif: cannot be read")
    path.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    refused("classes_2002.tif: cannot be read as NetCDF")
    path.write_bytes(b"GIF89a")
    refused("classes_2002.tif: cannot be read as a raster")
    path.unlink()
    refused("classes_2002.tif: no such file")


def test_years_of_names(folder, refused):
    source = folder / "20221006_classes_2002.tif"
    twice = source.rename(folder / "change_2001_2002.tif")
    refused(
        "change_2001_2002.tif: the name has the years 2001, 2002", "YEAR=", arguments=("--classes", twice), years=()
    )
    none = twice.rename(folder / "20221006_map.tif")
    refused("20221006_map.tif: the name has no year", "write YEAR=", arguments=("--classes", none), years=(2001,))
    refused("are both of 2001; give one", arguments=("--classes", f"2001={none}"), years=(2001,))
    done = prepare(folder, "--classes", f"2002={none}", years=(2001, 2003))
    assert done.returncode == 0, done.stderr
    assert list(read(folder, "train")[0]["years"]) == [2001, 2002, 2003]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.2, "c3per is -0.2 in 2002 at 51.375 N, 2.125 W, expected a fraction of 0 to 1"),
        (1.3, "c3per is 1.3 in 2002 at 51.375 N, 2.125 W"),
        (0.99, "in 2002 at 51.375 N, 2.125 W, expected at most 1"),
    ],
)
def test_values_that_are_no_fractions(folder, refused, value, words):
    made = states(range(2001, 2004)).fillna(0)
    made.c3per[1, 10, 15] = value
    refused("states.nc", words, "c3per", arguments=scenario(folder, made))


def test_fill_values_that_are_not_declared(folder):
    made = states(range(2001, 2004)).fillna(np.float32(1e20))
    made.to_netcdf(folder / "states.nc", engine="h5netcdf")
    done = prepare(folder, "--scenario", folder / "states.nc")
    assert done.returncode == 0, done.stderr
    assert read(folder, "train")[0]["coarse"].max() <= 1


def test_a_variable_that_is_missing(folder, refused):
    made = states(range(2001, 2004)).drop_vars(["c4per", "range"])
    refused("states.nc: has no variable c4per, range", "of table HILDA+", arguments=scenario(folder, made))


def test_no_year_in_common(folder, refused):
    arguments = scenario(folder, states(range(2015, 2020), reference=2015))
    refused("no year in common: states.nc has 2015 to 2019, the class maps have 2001 to 2003", arguments=arguments)
    refused("no class map for 1990 to 1999; there are maps for 2001 to 2003", arguments=("--years", "1990:1999"))


def test_steps_that_are_not_years(folder, refused):
    made = states(range(2001, 2004))
    made.time.attrs["units"] = "days since 2001-01-01"
    made["time"] = made.time.copy(data=[15.5, 45.0, 74.5])
    refused("states.nc: has 3 steps in 2001, expected one step a year", arguments=scenario(folder, made))
    made["time"] = made.time.copy(data=[0, 1826, 3652])
    refused("states.nc: has a step every 5 years (2001, 2006", arguments=scenario(folder, made))
    made.time.attrs["calendar"] = "martian"
    refused("states.nc", "time: calendar 'martian' is unknown", arguments=scenario(folder, made))
    made.time.attrs["units"] = "fortnights since 2001-01-01"
    refused("states.nc", "time: time counts in 'fortnights'", arguments=scenario(folder, made))


def test_a_scenario_that_does_not_cover_the_tiles(folder, refused):
    years = range(2001, 2004)
    here = "does not cover the test tile"
    refused("forcing grid", "-2 E)", here, arguments=scenario(folder, states(years, columns=16)))
    far = scenario(folder, states(years, west=20.0))
    refused("states.nc covers 48 to 54 N, 20 to 28 E, which does not reach the class maps", arguments=far)


def test_scenario_files_on_different_grids(folder, refused):
    write_nc(folder / "first.nc", states(range(2001, 2003)))
    arguments = ("--scenario", folder / "first.nc", *scenario(folder, states(range(2003, 2004), rows=20)))
    refused("states.nc is not on the grid of first.nc: 20 x 32 cells against 24 x 32", arguments=arguments)


def test_axes_that_are_not_regular(folder, refused):
    made = states(range(2001, 2004))
    latitude = made.lat.values.copy()
    latitude[-1] -= 0.1
    refused("states.nc", "lat is not regular", "0.25", arguments=scenario(folder, made.assign_coords(lat=latitude)))
    projected = made.rename(lat="y", lon="x")
    projected.x.attrs["units"] = projected.y.attrs["units"] = "m"
    refused("states.nc", "axes y and x", "no CRS", arguments=scenario(folder, projected))


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["aspect"], "--static aspect has no file; write aspect=PATH, or one of latitude"),
        (["latitude", "latitude"], "--static latitude is given twice"),
        (["a b=x"], "--static 'a b=x' is not NAME=PATH"),
        (["slope"], "slope is computed from elevation; add --static elevation=PATH"),
        (["soil={}/absent.tif"], "absent.tif: no such file"),
        (["soil={}/small.tif"], "small.tif: static field soil covers 51.68 to 52.28 N"),
        (["elevation={}/feet.tif", "slope"], "slope needs elevation in metres, its units are feet"),
    ],
)
def test_static_fields_that_do_not_fit(folder, refused, specs, words):
    write_tif(folder / "small.tif", np.zeros((20, COLUMNS), np.float32))
    write_tif(folder / "feet.tif", np.zeros((ROWS, COLUMNS), np.float32), tags={"units": "feet"})
    refused(words, static=[spec.format(folder) for spec in specs])


def test_a_fill_value_in_elevation_is_no_ground(folder, refused):
    high = np.add.outer(3.0 * np.arange(ROWS), 2.0 * np.arange(COLUMNS)).astype(np.float32)
    high[20:24, 20:24] = -9999
    write_tif(folder / "high.tif", high, tags={"units": "m"})
    words = ("high.tif: 16 cells hold -9999", "rio edit-info --nodata -9999 high.tif")
    refused(*words, static=[f"elevation={folder / 'high.tif'}"])


def test_no_coast(folder, refused):
    damage(folder, 2001, codes=np.full((ROWS, COLUMNS), 22, np.uint8))
    refused("distance_to_coast: every cell has a class in 2001", static=("distance_to_coast",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shares", "0.7,0.3"), "--shares is '0.7,0.3', expected three numbers"),
        (("--shares", "0,0.5,0.5"), "training not 0"),
        (("--years", "2003:2001"), "--years is '2003:2001', expected a year or FIRST:LAST"),
        (("--hold-out", "2010:2015"), "held-out years 2010 to 2015 are not in the data, which have 2001 to 2003"),
        (("--hold-out", "2001:2003"), "all years are held out"),
        (("--split-axis", "diagonal"), "--split-axis is 'diagonal'"),
        (("--tile", "48"), "tiles of 48 cells do not fit into the train band"),
        (("--table", "absent.yaml"), "absent.yaml: no such class table"),
        (("--coarse-cell", "0"), "coarse cells are 0 degrees"),
        (("--scenario", "absent.nc"), "absent.nc: no such scenario file"),
    ],
)
def test_wrong_arguments(refused, arguments, words):
    refused(words, arguments=arguments)


def test_bands_without_classes_leave_nothing(folder, refused):
    """The test band has no land: training is not written either."""
    codes = code_map(2001)
    codes[:, -20:] = 0
    damage(folder, 2001, codes=codes)
    refused("no tile of the test band", years=(2001,))


def test_data_that_are_there_are_kept(folder):
    assert prepare(folder).returncode == 0
    path = folder / "out" / "train" / "train.h5"
    before = path.read_bytes()
    assert_refused(prepare(folder), "train is there already", "--overwrite")
    assert path.read_bytes() == before
    two = ("--tile", 16, "--buffer", 2, "--shares", "0.5,0,0.5")
    assert prepare(folder, "--overwrite", plan=two).returncode == 0
    assert path.read_bytes() != before
    assert not list((folder / "out").rglob("valid.h5")), "of the data that were replaced"


@pytest.mark.parametrize(("package", "needed_for"), [("rasterio", "tif"), ("xarray", "nc"), ("h5netcdf", "nc")])
def test_packages_that_are_not_installed(folder, refused, monkeypatch, package, needed_for):
    arguments = scenario(folder, states(range(2001, 2004))) if needed_for == "nc" else ()
    monkeypatch.setitem(sys.modules, package, None)
    refused(f"needs the package {package}: pip install 'earthsr[geo]'", arguments=arguments)


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from earthsr.cli import main; code = main(['prepare', 'landuse', '--help']);"
        "print([m for m in ('numpy', 'rasterio', 'xarray', 'scipy', 'torch', 'mindspore') if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[] 0", done.stdout + done.stderr
    assert "--hold-out" in done.stdout

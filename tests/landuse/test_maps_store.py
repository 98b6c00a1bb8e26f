"""Annual maps in a Zarr store, and scratch fields: what comes back, what other tools see, several at once, kills."""

import json
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from earthsr.errors import DataError, InputError
from earthsr.geo import Window, same_crs
from earthsr.geo.crs import parse_crs, wkt_of
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass
from earthsr.landuse.maps import LAYERS, MapsSpec, Scratch, create_maps, open_maps

GLOBE = Grid(-180.0, 90.0, 7.2, 7.2, 25, 50)
REGION = Grid(170.0, 10.0, 0.4, 0.25, 20, 50)  # across the dateline: 170 to 190
WHOLE = Window(0, 0, 25, 50)
YEARS = (1849, 1850, 1851, 1904)
SPEC = MapsSpec(GLOBE, "EPSG:4326", YEARS, HILDA_PLUS, (8, 16))
ALL = replace(SPEC, chunk=(16, 32), layers=LAYERS)
K = len(HILDA_PLUS)


def classes_of(seed=0, grid=GLOBE):
    """Random classes with a band of no value."""
    classes = np.random.default_rng(seed).integers(0, K, (grid.rows, grid.columns), np.uint8)
    classes[5:7] = 255
    return classes


def probabilities_of(seed=0, grid=GLOBE):
    """(K, rows, columns), adding up to 1, NaN where :func:`classes_of` has no class."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(K, 0.3), (grid.rows, grid.columns)).astype(np.float32)
    probabilities = np.moveaxis(drawn, -1, 0).copy()
    probabilities[:, 5:7] = np.nan
    return probabilities


def make(path, spec=SPEC, attributes=None):
    create_maps(path, spec, attributes or {"title": "test"})
    return open_maps(path)


def filled(path, spec=SPEC):
    """Maps with values in all layers of the first and the last year."""
    maps = make(path, spec)
    everything = Window(0, 0, spec.grid.rows, spec.grid.columns)
    for year in (spec.years[0], spec.years[-1]):
        probabilities = probabilities_of(year, spec.grid)
        values = {
            "land_use": classes_of(year, spec.grid),
            "confidence": probabilities.max(axis=0),
            "probabilities": probabilities,
        }
        for layer in spec.layers:
            maps.write(layer, year, everything, values[layer])
    return maps


def expected(full, window, grid, void):
    """The rule, cell by cell: columns wrap around where the grid is periodic; beyond the grid there is no value."""
    row, column, rows, columns = window
    result = np.full((*full.shape[:-2], rows, columns), void, full.dtype)
    for i in range(rows):
        for j in range(columns):
            y, x = row + i, column + j
            x = x % grid.columns if grid.periodic else x
            if 0 <= y < grid.rows and 0 <= x < grid.columns:
                result[..., i, j] = full[..., y, x]
    return result


def chunk_files(path, layer="land_use"):
    return sorted(file for file in (path / layer / "c").rglob("*") if file.is_file())


def below(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


# What comes back.


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Maps with all layers; tests leave them as they are."""
    return filled(tmp_path_factory.mktemp("all") / "m.zarr", ALL)


def test_what_is_written_comes_back(everything):
    assert everything.spec == ALL
    again = open_maps(everything.path)
    for year in (1849, 1904):
        classes, probabilities = classes_of(year), probabilities_of(year)
        read = again.read("land_use", year, WHOLE)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, classes)
        # A byte is 0.004: rounding moves a probability by half of that.
        for layer, values in (("confidence", probabilities.max(axis=0)), ("probabilities", probabilities)):
            read = again.read(layer, year, WHOLE)
            assert read.dtype == np.float32
            np.testing.assert_allclose(read, values, rtol=0, atol=0.002001)
    assert (again.read("land_use", 1850, WHOLE) == 255).all()
    assert np.isnan(again.read("probabilities", 1850, WHOLE)).all()


def test_certain_and_impossible_classes_stay_so(tmp_path):
    maps = make(tmp_path / "m.zarr", ALL)
    values = np.zeros((25, 50), np.float32)
    values[0] = 1
    values[1] = 1 + 1e-6  # a sum of weights that rounding made a little more than 1
    maps.write("confidence", 1850, WHOLE, values)
    read = maps.read("confidence", 1850, WHOLE)
    assert (read[:2] == 1).all()
    assert (read[2:] == 0).all()


def test_maps_hold_the_first_codes_of_classes(everything):
    stored = zarr.open_group(everything.path, mode="r")["land_use"][0]
    codes = np.array([11, 22, 33, 40, 55, 66, 77, *[255] * 249], np.uint8)
    np.testing.assert_array_equal(stored, codes[classes_of(1849)])
    np.testing.assert_array_equal(everything.stored("land_use", 1849, WHOLE), stored)


@pytest.fixture(scope="module")
def two_grids(tmp_path_factory):
    """Maps and scratch fields of a periodic grid and of one that is not."""
    root = tmp_path_factory.mktemp("grids")
    made = []
    for name, grid in (("globe", GLOBE), ("region", REGION)):
        spec = replace(SPEC, grid=grid)
        scratch = Scratch.create_or_open(root / f"{name}.scratch", grid, 2, (8, 16))
        values = np.random.default_rng(3).normal(size=(2, grid.rows, grid.columns)).astype(np.float32)
        for i in range(-(-grid.rows // 8)):
            for j in range(-(-grid.columns // 16)):
                scratch.write(i, j, values[:, 8 * i : 8 * i + 8, 16 * j : 16 * j + 16])
        made.append((grid, filled(root / f"{name}.zarr", spec), scratch, values))
    return made


@settings(max_examples=60, deadline=None)
@given(
    which=st.integers(0, 1),
    row=st.integers(-12, 30),
    column=st.integers(-120, 120),
    rows=st.integers(0, 30),
    columns=st.integers(0, 130),
)
def test_any_window_can_be_read(two_grids, which, row, column, rows, columns):
    grid, maps, scratch, fields = two_grids[which]
    window = Window(row, column, rows, columns)
    full = classes_of(1849, grid)
    np.testing.assert_array_equal(maps.read("land_use", 1849, window), expected(full, window, grid, 255))
    np.testing.assert_array_equal(scratch.read(window), expected(fields, window, grid, np.nan))


def test_a_window_across_the_seam_is_what_lies_on_both_sides(two_grids, everything):
    _, maps, scratch, fields = two_grids[0]
    west, east = classes_of(1849)[:, 45:], classes_of(1849)[:, :7]
    for column in (-5, 45, 95):
        read = maps.read("land_use", 1849, Window(0, column, 25, 12))
        np.testing.assert_array_equal(read, np.concatenate([west, east], axis=1))
        across = np.concatenate([fields[..., 45:], fields[..., :7]], axis=2)
        np.testing.assert_array_equal(scratch.read(Window(0, column, 25, 12)), across)
    read = everything.read("probabilities", 1849, Window(-1, -5, 25, 12))
    np.testing.assert_array_equal(read[:, 1:, :5], everything.read("probabilities", 1849, WHOLE)[:, :24, 45:])
    assert np.isnan(read[:, 0]).all()


def test_only_the_chunks_of_a_window_are_read(tmp_path):
    maps = filled(tmp_path / "m.zarr")
    for file in chunk_files(tmp_path / "m.zarr"):
        if file.relative_to(tmp_path / "m.zarr" / "land_use" / "c").parts[1:] not in (("1", "1"), ("1", "2")):
            file.write_bytes(b"no chunk")
    window = Window(8, 16, 8, 32)
    np.testing.assert_array_equal(maps.read("land_use", 1849, window), classes_of(1849)[8:16, 16:48])
    with pytest.raises(DataError, match=r"land_use of 1849 cannot be read, rows 8 to 16, columns 16 to 47 \("):
        maps.read("land_use", 1849, Window(8, 16, 9, 32))


# What other tools see.


def test_xarray_decodes_years_classes_and_place(everything):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(everything.path, decode_coords="all")
    assert dataset.sizes == {"time": 4, "lat": 25, "lon": 50, "class": K, "bnds": 2}
    np.testing.assert_array_equal(dataset.time, np.array([f"{year}-01-01" for year in YEARS], "datetime64[ns]"))
    assert [str(each)[:10] for each in dataset.time_bnds.values[3]] == ["1904-01-01", "1905-01-01"]
    np.testing.assert_array_equal(dataset.year, YEARS)
    assert dataset.time.encoding["units"] == "days since 1850-01-01"
    assert dataset.time.encoding["calendar"] == "proleptic_gregorian"
    np.testing.assert_array_equal(dataset.lat, GLOBE.latitudes())
    np.testing.assert_array_equal(dataset.lon, GLOBE.longitudes())
    assert (dataset.lat.attrs["units"], dataset.lat.attrs["standard_name"]) == ("degrees_north", "latitude")
    assert (dataset.lon.attrs["units"], dataset.lon.attrs["standard_name"]) == ("degrees_east", "longitude")
    assert same_crs(dataset.crs.attrs["crs_wkt"], wkt_of(parse_crs("EPSG:4326", "test")))
    assert dataset.crs.attrs["grid_mapping_name"] == "latitude_longitude"
    classes = dataset.land_use
    assert classes.encoding["grid_mapping"] == "crs"
    assert (classes.encoding["_FillValue"], classes.encoding["dtype"]) == (255, np.uint8)
    assert classes.encoding["chunks"] == (1, 16, 32)
    assert (classes.attrs["units"], classes.attrs["long_name"]) == ("1", "land-use class")
    assert classes.attrs["flag_values"] == [11, 22, 33, 40, 55, 66, 77]
    assert classes.attrs["flag_meanings"] == "urban cropland pasture forest grass_shrub sparse water"
    assert classes.attrs["flag_colors"].split() == list(HILDA_PLUS.colours)
    codes = np.array([*classes.attrs["flag_values"], *[0] * 249])[classes_of(1904)]
    masked = classes.sel(time="1904-01-01").values
    np.testing.assert_array_equal(masked, np.where(classes_of(1904) == 255, np.nan, codes))
    assert np.isnan(classes.sel(time="1850").values).all()
    probabilities = probabilities_of(1904)
    np.testing.assert_array_equal(dataset["class"], classes.attrs["flag_values"])
    np.testing.assert_array_equal(dataset.class_name, HILDA_PLUS.names)
    forest = dataset.probabilities.isel(time=3).sel({"class": 40})
    assert str(forest.class_name.values) == "forest"
    np.testing.assert_allclose(forest, probabilities[3], atol=0.002001)
    np.testing.assert_allclose(dataset.confidence.isel(time=3), probabilities.max(axis=0), atol=0.002001)
    assert dataset.attrs["Conventions"] == "CF-1.9"
    assert dataset.attrs["earthsr_complete"] == 0


def test_words_of_classes_are_such_as_cf_allows(tmp_path):
    names = ("open / closed forest", "bare & ice", "crop-land")
    table = ClassTable("t", tuple(LandClass(name, (i,), "#010203") for i, name in enumerate(names)))
    make(tmp_path / "m.zarr", replace(SPEC, table=table))
    said = zarr.open_group(tmp_path / "m.zarr", mode="r")["land_use"].attrs["flag_meanings"]
    assert said == "open_closed_forest bare_ice crop-land"
    assert open_maps(tmp_path / "m.zarr").spec.table.names == names


def test_longitudes_beyond_the_dateline_are_written_as_they_are(tmp_path):
    make(tmp_path / "m.zarr", replace(SPEC, grid=REGION))
    dataset = xarray.open_zarr(tmp_path / "m.zarr")
    assert (float(dataset.lon[0]), float(dataset.lon[-1])) == pytest.approx((170.2, 189.8))
    assert dataset.crs.attrs["GeoTransform"] == "170.0 0.4 0.0 10.0 0.0 -0.25"


def test_finishing_adds_plain_attributes(tmp_path):
    maps = make(tmp_path / "m.zarr", attributes={"title": "first", "institution": "Institute", "Conventions": "none"})
    before = zarr.open_consolidated(tmp_path / "m.zarr")
    assert set(before.array_keys()) >= {"land_use", "lat", "lon", "time", "crs"}
    assert not maps.complete
    provenance = {"precision": np.float32(0.5), "jump": {"urban": float("nan")}, "tiles": (1, 2)}
    maps.finish(
        {"title": "second", "history": "made", "provenance": provenance, "loss": float("inf"), "seed": np.int64(3)}
    )
    assert maps.complete
    text = (tmp_path / "m.zarr" / "zarr.json").read_text()
    said = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["attributes"]
    assert said.pop("earthsr_maps") == SPEC.to_json()
    assert (said["earthsr_complete"], type(said.pop("earthsr_complete"))) == (1, int)
    assert json.loads(said.pop("provenance")) == {"precision": 0.5, "jump": {"urban": None}, "tiles": [1, 2]}
    assert said == {
        "Conventions": "CF-1.9",
        "title": "second",
        "institution": "Institute",
        "history": "made",
        "seed": 3,
    }
    assert set(zarr.open_consolidated(tmp_path / "m.zarr").array_keys()) == set(before.array_keys())
    assert open_maps(tmp_path / "m.zarr").spec == SPEC


# What lies on the disk.


def test_chunks_without_a_value_are_not_written(tmp_path):
    maps = make(tmp_path / "m.zarr", replace(ALL, chunk=(8, 16)))
    assert not chunk_files(tmp_path / "m.zarr")
    classes = np.full((25, 50), 255, np.uint8)
    classes[10, 20] = 2
    maps.write("land_use", 1850, WHOLE, classes)
    maps.write("confidence", 1850, WHOLE, np.full((25, 50), np.nan, np.float32))
    assert chunk_files(tmp_path / "m.zarr") == [tmp_path / "m.zarr" / "land_use" / "c" / "1" / "1" / "1"]
    assert not chunk_files(tmp_path / "m.zarr", "confidence")
    np.testing.assert_array_equal(open_maps(tmp_path / "m.zarr").read("land_use", 1850, WHOLE), classes)


def test_a_chunk_that_loses_its_values_reads_as_nodata(tmp_path):
    maps = filled(tmp_path / "m.zarr")
    maps.write("land_use", 1849, Window(8, 16, 8, 16), np.full((8, 16), 255, np.uint8))
    expected = classes_of(1849)
    expected[8:16, 16:32] = 255
    np.testing.assert_array_equal(open_maps(tmp_path / "m.zarr").read("land_use", 1849, WHOLE), expected)


def test_a_damaged_chunk_is_found_and_can_be_written_anew(tmp_path):
    maps = filled(tmp_path / "m.zarr", ALL)
    corner = Window(16, 32, 9, 18)  # smaller than a chunk, which zarr fills up
    for layer, values in (("land_use", classes_of(5)), ("probabilities", probabilities_of(5))):
        values = values[..., 16:, 32:]
        file = chunk_files(tmp_path / "m.zarr", layer)[-1]
        content = bytearray(file.read_bytes())
        flipped = content.copy()
        flipped[len(content) // 2] ^= 1
        for harm in (b"", content[:-3], flipped):
            file.write_bytes(harm)
            with pytest.raises(DataError, match=rf"m.zarr: {layer} of 1904 cannot be read.* may be damaged") as caught:
                maps.read(layer, 1904, corner)
            assert "\n" not in str(caught.value)
        maps.write(layer, 1904, corner, values)
        np.testing.assert_allclose(maps.read(layer, 1904, corner), values, atol=0.002001)


def test_a_code_of_no_class_is_found(tmp_path):
    maps = make(tmp_path / "m.zarr")
    zarr.open_group(tmp_path / "m.zarr", mode="r+")["land_use"][1, 3, 4] = 99
    with pytest.raises(DataError, match=r"land_use of 1850: code 99 is in no class of table HILDA\+"):
        maps.read("land_use", 1850, WHOLE)


# Several at once, and kills.

WRITER = """
import sys
import numpy as np
from earthsr.landuse.maps import open_maps
maps, number = open_maps(sys.argv[1]), int(sys.argv[2])
grid, chunk = maps.spec.grid, maps.spec.chunk
noise = np.random.default_rng(0).integers(0, 7, chunk, np.uint8)
print("ready", flush=True)
for version in range(10**6):
    for row in range(0, grid.rows, chunk[0]):
        for column in range(0, grid.columns, chunk[1]):
            if (row // chunk[0] + column // chunk[1]) % 2 == number:
                maps.write("land_use", 1850, (row, column, *chunk), (noise + version) % 7)
"""


def start_writer(path, number):
    words = [sys.executable, "-c", WRITER, str(path), str(number)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_write_chunks_of_one_map_at_once_and_a_kill_tears_none(tmp_path):
    """Two processes share a map out like a chessboard; they are killed in the middle of writing it again.

    Before and after that a third one reads, and finds whole chunks only.
    """
    side, path = 256, tmp_path / "m.zarr"
    grid = Grid(-180.0, 90.0, 0.1, 0.1, 4 * side, 4 * side)
    maps = make(path, MapsSpec(grid, "EPSG:4326", (1850,), HILDA_PLUS, (side, side)))
    noise = np.random.default_rng(0).integers(0, 7, (side, side), np.uint8)
    versions = {((noise + version) % 7).tobytes() for version in range(7)}

    def check():
        for row in range(0, grid.rows, side):
            for column in range(0, grid.columns, side):
                assert maps.read("land_use", 1850, Window(row, column, side, side)).tobytes() in versions

    writers = [start_writer(path, number) for number in (0, 1)]
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        end = time.monotonic() + 60
        while len(chunk_files(path)) < 16 and time.monotonic() < end:
            time.sleep(0.01)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            check()
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
    check()
    maps.finish({})
    assert not [file for file in path.rglob("*") if ".part" in file.name]
    assert len(chunk_files(path)) == 16


def test_a_reader_sees_whole_chunks_while_another_thread_writes(tmp_path):
    spec = MapsSpec(Grid(0.0, 50.0, 0.1, 0.1, 128, 128), "EPSG:4326", (1850,), HILDA_PLUS, (64, 64))
    maps, stop = make(tmp_path / "m.zarr", spec), threading.Event()
    everything = Window(0, 0, 128, 128)
    maps.write("land_use", 1850, everything, np.zeros((128, 128), np.uint8))

    def write():
        for version in range(1, 24):
            maps.write("land_use", 1850, everything, np.full((128, 128), version % K, np.uint8))
        stop.set()

    with ThreadPoolExecutor(1) as pool:
        written, seen = pool.submit(write), set()
        while not stop.is_set() and not written.done():
            read = maps.read("land_use", 1850, Window(-2, 0, 132, 128))[2:-2]
            for chunk in (read[:64, :64], read[64:, :64], read[:64, 64:], read[64:, 64:]):
                assert (chunk == chunk[0, 0]).all()
                seen.add(int(chunk[0, 0]))
        written.result()
    assert len(seen) > 1
    assert (maps.read("land_use", 1850, everything) == 23 % K).all()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")  # threads undo each other's settings of warnings
def test_of_several_that_create_a_store_one_does(tmp_path):
    """The others must not take the store away from the one that fills it already."""
    path = tmp_path / "m.zarr"

    def create(number):
        try:
            create_maps(path, SPEC, {"title": str(number)})
        except InputError as error:
            assert "m.zarr is there already; choose another name" in str(error)
            return None
        open_maps(path).write("land_use", 1850, WHOLE, np.full((25, 50), number, np.uint8))
        return number

    with ThreadPoolExecutor(4) as pool:
        first = [number for number in pool.map(create, range(4)) if number is not None]
    assert len(first) == 1
    maps = open_maps(path)
    assert maps.attributes["title"] == str(first[0])
    assert (maps.read("land_use", 1850, WHOLE) == first[0]).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.zarr"]

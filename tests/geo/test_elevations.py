"""What can be an elevation: fill values known by where they lie, depths turned, units assumed aloud."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo import Window, array_source, dataarray_source, open_source
from earthsr.geo.elevations import elevations
from earthsr.geo.voids import undeclared_fills
from tests.geo.test_rasters import DEGREES, dataset_of, write_tif

SIDE = 128


def relief(low=0.0, high=1800.0, seed=0, side=SIDE):
    """Ground as rough as the Earth's: its variance falls with the wavelength's power of 3.6."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * frequency**-1.8).real
    field = (field - field.min()) / (field.max() - field.min())
    return (low + (high - low) * field).astype(np.float32)


def radius():
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    return np.hypot(y, x)


def grid(rows=SIDE, columns=SIDE, **fields):
    return replace(DEGREES, **{"rows": rows, "columns": columns, "nodata": None, **fields})


def with_patch(values, number):
    values = values.copy()
    values[20:26, 30:40] = number
    return values


def with_corner(values, number):
    values = values.copy()
    values[:3, :4] = number
    return values


def with_cells(values, number, count=5):
    values = values.copy()
    rows, columns = np.random.default_rng(1).integers(0, SIDE, (2, count))
    values[rows, columns] = number
    return values


def fills_of(values):
    return [float(fill.value) for fill in undeclared_fills(np.asarray(values, np.float32))]


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize(
    ("values", "fill"),
    [
        (with_patch(relief(), -9999), -9999),
        (with_cells(relief(), -9999), -9999),
        (with_cells(relief(), -9999, count=1), -9999),
        (with_patch(relief(-6000, -2000), -9999), -9999),  # among the deep sea
        (with_patch(relief(-300, 4000), -999), -999),
        (with_patch(relief(1500, 4500), 0), 0),  # mountains far from the sea
        (with_corner(relief(1500, 4500), 0), 0),
        (with_patch(relief(200, 2000), -500), -500),
        (with_patch(np.round(relief(200, 500)), 5000), 5000),
        (np.where(relief() < 900, np.float32(-9999), relief()), -9999),  # half of it
        (np.full((8, 8), -9999), -9999),
    ],
)
def test_numbers_far_from_all_their_neighbours_are_fills(values, fill, dtype):
    assert fills_of(values.astype(dtype)) == [fill]


SEA = np.maximum(relief(-2500, 2500), 0)
LAKE = np.where(radius() < 14, 1883, 1500 + 700 * np.exp(-(((radius() - 20) / 7) ** 2)) + relief(0, 60))


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize(
    "values",
    [
        relief(),
        relief(-10_900, -4000),  # a trench, which has -9999 by chance
        SEA,  # the sea at 0 m, with steep coasts
        np.where(radius() < 12, 900 - 30 * radius(), 0),  # an island of cliffs
        np.where(radius() < 30, 700 + relief(0, 60), 0),  # a plateau in the sea
        np.where(radius() < 1, 700, 0),  # an island of one cell
        LAKE,  # a lake in a crater
        np.where(radius() < 20, 1800, 1300 + relief(0, 60)),  # a mesa
        np.where(np.arange(SIDE) < 64, 0, 1000) * np.ones((SIDE, 1)),  # a step, and nothing else
        np.random.default_rng(0).integers(-3000, 3000, (SIDE, SIDE)),  # noise has no ground to be far from
        np.full((SIDE, SIDE), 0),
        np.full((SIDE, SIDE), np.nan),
    ],
)
def test_lakes_seas_mesas_and_noise_are_ground(values, dtype):
    assert fills_of(np.round(values) if dtype == np.int16 else values) == []


def test_an_undeclared_fill_is_refused_with_value_count_and_remedy(tmp_path):
    values = np.round(with_patch(relief(), -9999)).astype(np.int16)
    path = write_tif(tmp_path / "a.tif", values, grid())
    with pytest.raises(
        DataError, match=r"a.tif: 60 cells hold -9999, .*row 20, column 30.*--nodata -9999.*--keep -9999"
    ):
        elevations(open_source(path)).read(Window(0, 0, SIDE, SIDE))
    assert np.isnan(elevations(open_source(path, nodata=-9999)).read(Window(0, 0, SIDE, SIDE))).sum() == 60
    kept = elevations(open_source(path), keep=[-9999]).read(Window(0, 0, SIDE, SIDE))
    np.testing.assert_array_equal(kept, values)


def test_a_number_that_is_near_its_neighbours_elsewhere_is_ground():
    """The window shows 0 m among mountains alone; the raster has a coast as well."""
    values = np.concatenate([with_patch(relief(1500, 4500), 0), np.maximum(relief(-500, 500), 0)], axis=1)
    source = elevations(array_source(values, grid(columns=2 * SIDE)))
    assert fills_of(values[:, :SIDE]) == [0]
    np.testing.assert_array_equal(source.read(Window(0, 0, SIDE, SIDE)), values[:, :SIDE])


@pytest.mark.parametrize(
    ("stored", "attributes", "typed"),
    [
        (np.float32(np.finfo(np.float32).min), {}, "-3.4028235e+38"),
        (np.float64(-99_999.9), {}, "-99999.9"),
        (np.int32(-(2**31) + 1), {}, "-2147483648"),  # as float32 has it
        (np.int16(-32_768), {"scale_factor": 0.5, "add_offset": 100.0}, "-32768"),
        (np.int16(-9999), {"scale_factor": 0.5}, "-9999"),
    ],
)
def test_the_number_of_the_message_works_when_it_is_typed(tmp_path, stored, attributes, typed):
    values = np.round(relief()).astype(stored.dtype)
    values[20:26, 30:40] = stored
    dataset_of(grid(), values, **attributes).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError) as error:
        elevations(open_source(tmp_path / "a.nc")).read(Window(0, 0, SIDE, SIDE))
    assert f"--nodata {typed}" in str(error.value)
    source = elevations(open_source(tmp_path / "a.nc", nodata=float(typed)))
    assert np.isnan(source.read(Window(0, 0, SIDE, SIDE))).sum() == 60


# Which way values count


def field(values, name="z", **attributes):
    dataset = dataset_of(grid(), values, **attributes)
    return dataset.rename(z=name)[name]


def read(array, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return elevations(dataarray_source(array), **options).read(Window(0, 0, SIDE, SIDE))


DEPTHS = relief(10, 4000)


@pytest.mark.parametrize(
    "attributes",
    [
        {"positive": "down"},
        {"standard_name": "sea_floor_depth_below_geoid"},
        {"standard_name": "sea_floor_depth_below_mean_sea_level", "positive": "down"},
        {"standard_name": "depth"},
    ],
)
def test_depths_are_turned_and_said(attributes):
    array = field(DEPTHS, "deptho", **attributes)
    with pytest.warns(EarthsrWarning, match=r"deptho: depths \(.*\) are turned into heights; --positive up"):
        source = elevations(dataarray_source(array))
    np.testing.assert_array_equal(source.read(Window(0, 0, SIDE, SIDE)), -DEPTHS)
    assert "turned into heights" in source.notes[0]
    said = source.georeference.attributes
    assert "depth" not in " ".join(map(str, said.values()))
    if "geoid" in attributes.get("standard_name", ""):
        assert said["standard_name"] == "altitude"


@pytest.mark.parametrize(
    ("name", "values", "attributes", "words"),
    [
        (
            "deptho",
            DEPTHS,
            {"standard_name": "sea_floor_depth_below_geoid", "positive": "up"},
            "counts down and .* says up",
        ),
        ("z", -DEPTHS, {"standard_name": "altitude", "positive": "down"}, "counts up and .* says down"),
        ("deptho", -DEPTHS, {"standard_name": "sea_floor_depth_below_geoid"}, "most values are negative"),
        ("depth", DEPTHS, {}, "nothing says which way"),
        ("h", DEPTHS, {"long_name": "bathymetry at RHO-points"}, "nothing says which way"),
    ],
)
def test_fields_that_may_be_depths_or_heights_are_refused(name, values, attributes, words):
    array = field(values, name, **attributes)
    with pytest.raises(DataError, match=f"{name}: .*{words}.*--positive"):
        read(array)
    np.testing.assert_array_equal(read(array, positive="up"), values)
    np.testing.assert_array_equal(read(array, positive="down"), -values)


@pytest.mark.parametrize(
    ("name", "values", "attributes"),
    [
        ("z", DEPTHS, {"positive": "up"}),
        ("depth", -DEPTHS, {}),
        ("z", DEPTHS, {"long_name": "Topography and bathymetry"}),
        ("elevation", DEPTHS, {"standard_name": "height_above_mean_sea_level"}),
        ("Band1", DEPTHS, {}),
    ],
)
def test_heights_stay(name, values, attributes):
    np.testing.assert_array_equal(read(field(values, name, **attributes)), values)


def test_zero_depth_is_zero_without_a_sign():
    values = DEPTHS - DEPTHS.min()
    turned = read(field(values, positive="down"))
    assert (turned == 0).sum() == 1
    assert not np.signbit(turned[turned == 0]).any()


def test_tags_of_a_geotiff_say_it_too(tmp_path):
    path = write_tif(tmp_path / "a.tif", DEPTHS, grid(), {"standard_name": "sea_floor_depth_below_geoid"})
    with pytest.warns(EarthsrWarning, match=r"a.tif: depths"):
        source = elevations(open_source(path))
    np.testing.assert_array_equal(source.read(Window(0, 0, SIDE, SIDE)), -DEPTHS)


# Units and voids of what is made from it


def test_metres_that_are_assumed_are_written():
    with pytest.warns(EarthsrWarning, match="array: has no units; metres are assumed"):
        source = elevations(array_source(DEPTHS, grid(units="")))
    assert source.georeference.units == "m"
    assert source.notes == ["array: has no units, metres are assumed"]


@pytest.mark.parametrize(("nodata", "kept"), [(-32768, True), (-9999, True), (0, False), (1000, False), (None, False)])
def test_only_void_values_that_are_no_elevations_are_carried_on(nodata, kept):
    source = elevations(array_source(DEPTHS, grid(nodata=nodata)))
    assert source.georeference.nodata == (nodata if kept else None)

"""Reading archives: time axes, grids that are cut and rolled, rasters brought onto another grid."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.distance import cdist

from earthsr.errors import DataError
from earthsr.geo.cf import regular_axis, require_yearly, spans, years_of
from earthsr.geo.grid import Bounds, Grid, Window, cut, difference, westward
from earthsr.geo.memory import array_source
from earthsr.geo.raster import Georeference
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.sources.rasters import ClassMaps, LonLatRaster, open_lonlat
from earthsr.landuse.sources.statics import KM_PER_DEGREE, open_statics, resample
from tests.cli.test_prepare_landuse import code_map, indices_of, write_tif


@pytest.mark.parametrize(
    ("values", "units", "calendar", "years"),
    [
        ([0, 1, 1165], "years since 850-01-01 0:0:0", "365_day", (850, 851, 2015)),
        ([0, 85], "years since 2015-1-1 0:0:0", "", (2015, 2100)),
        ([0.5, 1.5], "common_years since 2015-1-1", "noleap", (2015, 2016)),
        ([1899, 2019], "", "", (1899, 2019)),
        ([1899, 2019], "years", "", (1899, 2019)),
        ([18500701, 18510701.5], "day as %Y%m%d.%f", "", (1850, 1851)),
        ([11, 12], "months since 2000-01-15", "", (2000, 2001)),
        # Julian until 1582: 425,503 days from then to 2015-01-01.
        ([425502, 425503], "days since 850-01-01", "standard", (2014, 2015)),
        ([364.99, 365], "days since 2000-01-01", "noleap", (2000, 2001)),
        ([365.99, 366], "days since 2001-01-01", "all_leap", (2001, 2002)),
        ([329.99, 330], "days since 2000-02-01", "360_day", (2000, 2001)),
        ([24 * 366 - 1, 24 * 366], "hours since 2000-01-01 00:00:00", "proleptic_gregorian", (2000, 2001)),
    ],
)
def test_years_of_time_axes(values, units, calendar, years):
    assert years_of(np.array(values), units, calendar, "file") == years


def test_days_agree_with_the_calendar_of_python():
    first = datetime.date(1600, 3, 1)
    days = np.arange(0, 200000, 61)
    expected = tuple((first + datetime.timedelta(int(day))).year for day in days)
    for calendar in ("standard", "gregorian", "proleptic_gregorian"):
        assert years_of(days, "days since 1600-03-01", calendar, "file") == expected


def test_steps_of_years():
    require_yearly((2001, 2002, 2004), "file")
    for years, words in (
        ((2001, 2001), "2 steps in 2001"),
        ((2002, 2001), "2001 after 2002"),
        ((2000, 2010), "every 10 years"),
    ):
        with pytest.raises(DataError, match=words):
            require_yearly(years, "file")
    assert spans([2003, 2001, 2000, 2003]) == "2000 to 2001, 2003"


@pytest.mark.parametrize("cells", [100, 120, 4])
def test_coordinates_kept_as_float32(cells):
    """A global grid stays one that closes upon itself."""
    centres = (-180 + (np.arange(360 * cells) + 0.5) / cells).astype(np.float32)
    for kept in (centres, centres.astype(np.float64)):
        axis = regular_axis(kept, "lon", "file")
        np.testing.assert_allclose([axis.first - axis.step / 2, axis.step], [-180, 1 / cells], rtol=1e-12)


@pytest.mark.parametrize(("west", "shift", "found"), [(0, 36, -180), (-180, 0, -180), (-2.5, 37, -177.5)])
def test_longitudes_are_counted_from_minus_180(west, shift, found):
    grid, rolled = westward(Grid(west, 90, 5, 5, 36, 72))
    assert (grid.west, rolled) == (found, shift)
    regional, rolled = westward(Grid(200, 10, 1, 1, 5, 9))
    assert (regional.west, rolled) == (-160, 0)


def test_cuts_across_the_dateline_and_between_conventions():
    world = Grid(-180, 90, 5, 5, 36, 72)
    part = cut(world, Bounds(168, 1, 197, 9), margin=1)
    assert part.window == Window(15, 68, 4, 9)
    assert part.grid == Grid(160, 15, 5, 5, 4, 9)
    region = Grid(-170, 20, 5, 5, 8, 6)
    assert cut(region, Bounds(196, -3, 204, 4)) == (Window(3, 1, 2, 2), Grid(195, 5, 5, 5, 2, 2))
    assert cut(region, Bounds(0, -3, 10, 4)) is None
    assert difference(world, world) is None


def in_memory(values, grid, nodata=None):
    """Make a raster of an array."""
    return LonLatRaster(array_source(values, Georeference.of(grid, nodata=nodata)), Path("in memory"))


def test_finer_rasters_are_averaged_by_area():
    """Cells of 1/8 degree onto cells of 0.3 degrees: sub-cells of 1/40 degree weigh by the cosine of their latitude."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 96))
    values[rng.random(values.shape) < 0.2] = -9
    fine = Grid(10.3, 68.9, 0.3, 0.3, 20, 30)
    found = resample(in_memory(values, Grid(10, 70, 0.125, 0.125, 80, 96), nodata=-9), fine, Window(3, 2, 12, 20))
    small = np.kron(values, np.ones((5, 5)))
    weight = np.cos(np.deg2rad(70 - (np.arange(400) + 0.5) / 40))[:, None] * (small != -9)
    row, column = 44 + 12 * 3, 12 + 12 * 2
    inside = (slice(row, row + 144), slice(column, column + 240))
    sums = [(a[inside]).reshape(12, 12, 20, 12).sum((1, 3)) for a in (small * weight, weight)]
    np.testing.assert_allclose(found, sums[0] / sums[1], rtol=2e-5, atol=1e-6)


def test_coarser_rasters_are_interpolated():
    values = np.random.default_rng(1).normal(size=(12, 15))
    grid = Grid(0, 60, 1, 1, 12, 15)
    fine = Grid(1.1, 58.7, 0.13, 0.17, 40, 70)
    window = Window(4, 9, 30, 50)
    found = resample(in_memory(values, grid), fine, window)
    oracle = RegularGridInterpolator((-grid.latitudes(), grid.longitudes()), values)
    y, x = np.meshgrid(-fine.latitudes(4, 30), fine.longitudes(9, 50), indexing="ij")
    np.testing.assert_allclose(found, oracle((y, x)), atol=1e-6)


def test_interpolation_beyond_the_outermost_centres_takes_the_outermost_cell():
    grid = Grid(0, 3, 1, 1, 3, 3)
    found = resample(
        in_memory(np.arange(9.0).reshape(3, 3), grid), Grid(0, 3, 0.25, 0.25, 12, 12), Window(0, 0, 12, 12)
    )
    np.testing.assert_allclose(found[0, [0, 1]], 0, atol=1e-6)
    np.testing.assert_allclose(found[-1, -1], 8, atol=1e-6)


def test_interpolation_goes_across_the_dateline():
    grid = Grid(-180, 90, 10, 10, 18, 36)
    values = np.tile(np.cos(np.deg2rad(grid.longitudes())), (18, 1))
    fine = Grid(170, 8, 1, 1, 16, 20)
    found = resample(in_memory(values, grid), fine, Window(0, 0, 16, 20))
    expected = np.interp(fine.longitudes(), 165 + 10.0 * np.arange(5), values[0, [34, 35, 0, 1, 2]])
    np.testing.assert_allclose(found, np.tile(expected, (16, 1)), atol=1e-6)


def test_cells_that_no_value_reaches_have_none():
    values = np.array([[1.0, np.nan, np.nan, np.nan]])
    grid = Grid(0, 1, 1, 1, 1, 4)
    found = resample(in_memory(values, grid), Grid(0, 1, 0.5, 1, 1, 8), Window(0, 0, 1, 8))
    np.testing.assert_array_equal(found, [[1, 1, 1, np.nan, np.nan, np.nan, np.nan, np.nan]])


def test_distance_to_the_nearest_cell_without_a_class(tmp_path):
    codes = np.where(np.random.default_rng(2).random((20, 30)) < 0.03, 99, 22).astype(np.uint8)
    maps = ClassMaps([str(write_tif(tmp_path / "m_2000.tif", codes, west=3, north=61, cell=0.1))], HILDA_PLUS)
    field = open_statics(["distance_to_coast"], maps, 2000, []).fields[0]
    scale = 0.1 * KM_PER_DEGREE * np.array([1, np.cos(np.deg2rad(60))])
    cells = np.argwhere(codes >= 0) * scale
    expected = cdist(cells, np.argwhere(codes == 99) * scale).min(1).reshape(codes.shape)
    assert field.channel.units == "km"
    np.testing.assert_allclose(field.read(Window(2, 3, 10, 20)), expected[2:12, 3:23], rtol=1e-5)


def test_windows_across_the_blocks_that_are_kept(tmp_path):
    codes = code_map(3, 700, 1100)
    maps = ClassMaps([str(write_tif(tmp_path / "m_2000.tif", codes, cell=0.001))], HILDA_PLUS)
    for window in (Window(500, 1000, 40, 60), Window(0, 0, 700, 1100), Window(690, 500, 10, 13)):
        part = codes[window.row : window.row + window.rows, window.column : window.column + window.columns]
        np.testing.assert_array_equal(maps.read(2000, window), indices_of(part))
    codes[600, 1030] = 12
    maps = ClassMaps([f"2001={write_tif(tmp_path / 'm_2000.tif', codes, cell=0.001)}"], HILDA_PLUS)
    with pytest.raises(DataError, match=r"m_2000\.tif \(2001\): code 12 at row 600, column 1030 is in no class"):
        maps.read(2001, Window(590, 1010, 30, 30))


def test_packed_values_are_unpacked(tmp_path):
    path = write_tif(tmp_path / "packed.tif", np.array([[1, 2], [3, 255]], np.uint8), nodata=255)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.units = (0.5,), (10.0,), ("m",)
    raster = open_lonlat(path)
    np.testing.assert_array_equal(raster.read(Window(0, 0, 2, 2)), [[10.5, 11], [11.5, np.nan]])
    assert raster.units == "m"


def test_variables_are_named_where_a_file_has_several(tmp_path):
    fields = {name: (("lat", "lon"), np.full((2, 3), value)) for name, value in (("a", 1), ("b", 2))}
    axes = {"lat": [0.5, 1.5], "lon": [0.5, 1.5, 2.5]}
    path = tmp_path / "two.nc"
    xarray.Dataset(fields, axes).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(DataError, match=r"holds 2 fields \(a, b\); name the one to take as two\.nc:VARIABLE"):
        open_lonlat(path)
    with pytest.raises(DataError, match=r"two\.nc: has no field c, it has a, b"):
        open_lonlat(f"{path}:c")
    assert open_lonlat(f"{path}:b").read(Window(0, 0, 1, 1)) == 2
    assert open_lonlat(path, prefer="a").read(Window(0, 0, 1, 1)) == 1
    classic = tmp_path / "classic.nc"
    xarray.Dataset({"a": fields["a"]}, axes).to_netcdf(classic, engine="scipy")
    assert open_lonlat(classic).read(Window(0, 0, 2, 3)).shape == (2, 3)

"""Several rasters as one, rasters on other grids, rasters in memory and DataArrays."""

import os
from dataclasses import replace

import dask.array
import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray

from earthsr.errors import DataError, InputError
from earthsr.geo import (
    MemorySink,
    Window,
    array_source,
    dataarray_source,
    mosaic,
    open_sources,
    reprojected,
    same_crs,
    to_dataarray,
)
from tests.geo.test_rasters import (
    DEGREES,
    METRES,
    UTM,
    WGS84,
    assert_same_grid,
    dataset_of,
    ramp,
    rotated,
    whole,
    write_tif,
)


def tiles(tmp_path, **other):
    """Two tiles that share the column of an edge, as those of SRTM do; the first has a void on it."""
    left = np.arange(70, dtype=np.float32).reshape(7, 10)
    right = np.arange(70, dtype=np.float32).reshape(7, 10) + 9
    left[0, 9] = right[1, 0] = left[3, 3] = -32768
    grid = replace(DEGREES, columns=10)
    beside = replace(grid, **{"west": grid.west + 9 * grid.cell_x, **other})
    return write_tif(tmp_path / "left.tif", left, grid), write_tif(tmp_path / "right.tif", right, beside), left, right


def test_mosaic_of_tiles_that_share_an_edge(tmp_path):
    first, second, left, right = tiles(tmp_path)
    source = open_sources([second, first])
    assert_same_grid(source.georeference, replace(DEGREES, columns=19), 1e-9)
    expected = np.full((7, 19), np.nan, np.float32)
    expected[:, :10] = np.where(left < 0, np.nan, left)
    expected[:, 9:] = np.where(right < 0, np.where(np.arange(10) == 0, left[:, 9:], np.nan), right)
    np.testing.assert_array_equal(whole(source), expected)
    np.testing.assert_array_equal(source.read(Window(0, 7, 3, 6)), expected[:3, 7:13])
    assert expected[1, 9] == left[1, 9]  # where the first has no value, the second's counts
    source.close()


def test_mosaic_has_gaps_and_opens_only_what_is_touched(tmp_path):
    grid = replace(DEGREES, rows=4, columns=4)
    paths = []
    for number in range(40):
        place = replace(
            grid, west=grid.west + 4 * (number % 10) * grid.cell_x, north=grid.north - 4 * (number // 10) * grid.cell_y
        )
        if number != 11:
            paths.append(write_tif(tmp_path / f"{number:02d}.tif", np.full((4, 4), number, np.int16), place))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    source = open_sources(paths)
    opened = before is None or len(os.listdir("/proc/self/fd")) - before
    read = whole(source)
    assert np.isnan(read[4:8, 4:8]).all()
    assert np.isnan(read).sum() == 16
    assert read[-1, -1] == 39
    if before is not None:
        assert opened <= 1
        assert len(os.listdir("/proc/self/fd")) - before <= 17
    paths[0].unlink()  # a file that no window touches is not read
    source.release()
    assert source.read(Window(12, 36, 4, 4)).min() == 39
    with pytest.raises(DataError, match=r"00\.tif"):
        source.read(Window(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"west": 8.1001}, "right.tif does not lie .*: it lies .* of a cell beside it.*--like left.tif"),
        ({"cell_x": 1 / 120}, "its cells are 0.008333.* wide against 0.004166"),
        ({"crs_wkt": UTM}, "its CRS is EPSG:32632 against EPSG:4326; rio warp IN OUT.tif --dst-crs EPSG:4326"),
        ({"units": "ft"}, "its units are ft against m"),
    ],
)
def test_mosaics_of_different_grids_are_refused(tmp_path, other, words):
    first, second, *_ = tiles(tmp_path, **other)
    with pytest.raises(DataError, match=words):
        open_sources([first, second])


def test_mosaics_of_one_and_of_none(tmp_path):
    source = array_source(ramp(DEGREES), DEGREES)
    assert mosaic([source]) is source
    with pytest.raises(InputError, match="no raster is given"):
        mosaic([])


def test_reprojection_puts_a_plane_where_it_belongs(tmp_path):
    """Bilinear interpolation of a plane over the coordinates of the file is exact but for float32."""
    grid = replace(DEGREES, rows=60, columns=60, nodata=None)
    path = write_tif(tmp_path / "a.tif", ramp(grid), grid)
    source = reprojected(path, "EPSG:32632", resolution=(300.0, 300.0), anchor=(7.0, 11.0))
    found = source.georeference
    assert ((found.west - 7) % 300, (found.north - 11) % 300, found.cell_x, found.cell_y) == (0, 0, 300, 300)
    assert same_crs(found.crs_wkt, UTM)
    assert (found.units, found.geographic) == ("m", False)
    read = whole(source)
    x, y = np.meshgrid(found.x(), found.y())
    lon, lat = (np.reshape(v, read.shape) for v in rasterio.warp.transform(UTM, WGS84, x.ravel(), y.ravel()))
    expected = 1000 * (lon - grid.west) + 100 * (lat - grid.north)
    inside = (lon > grid.x()[0]) & (lon < grid.x()[-1]) & (lat < grid.y()[0]) & (lat > grid.y()[-1])
    # A hundredth of a cell (the tolerance of GDAL's lines) is 0.04 in longitude and latitude together.
    np.testing.assert_allclose(read[inside], expected[inside], atol=0.05)
    assert inside.sum() > 2000
    margin = 0.02 * grid.cell_x  # GDAL's lines again
    west, south, east, north = np.add(grid.bounds, (-margin, -margin, margin, margin))
    beyond = (lon < west) | (lon > east) | (lat > north) | (lat < south)
    assert beyond.any()
    assert np.isnan(read[beyond]).all()  # no nodata is said, and still nothing is made up
    np.testing.assert_array_equal(source.read(Window(20, 30, 5, 6)), read[20:25, 30:36])


@pytest.mark.parametrize("nodata", [-32768, np.nan])
@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
def test_voids_are_not_averaged_into_their_neighbours(tmp_path, resampling, nodata):
    values = np.full((60, 60), 100, np.float32 if np.isnan(nodata) else np.int16)
    values[np.random.default_rng(0).random((60, 60)) < 0.2] = nodata
    grid = replace(DEGREES, rows=60, columns=60, nodata=None if np.isnan(nodata) else nodata)
    path = write_tif(tmp_path / "a.tif", values, grid)
    read = whole(reprojected(path, "EPSG:32632", resampling=resampling))
    assert 0.005 < np.isnan(read).mean() < 0.5  # an average of many cells is rarely void
    np.testing.assert_allclose(read[~np.isnan(read)], 100, rtol=1e-6)


def test_reprojection_does_not_round_whole_metres(tmp_path):
    grid = replace(DEGREES, rows=60, columns=60, nodata=None)
    path = write_tif(tmp_path / "a.tif", np.tile(np.arange(100, 160, dtype=np.int16), (60, 1)), grid)
    read = whole(reprojected(path, "EPSG:32632"))
    assert (np.abs(read - np.round(read)) > 0.1).mean() > 0.5
    assert np.isnan(read).any()  # beyond the file, though it has no number for voids
    assert np.nanmin(read) >= 100


def test_reprojection_onto_a_grid(tmp_path):
    path = write_tif(tmp_path / "a.tif", ramp(DEGREES), DEGREES)
    same = reprojected(path, "", onto=DEGREES)
    assert same.georeference.transform == DEGREES.transform
    np.testing.assert_allclose(whole(same), ramp(DEGREES), atol=1e-4)  # float32 of 37


def test_reprojection_takes_rotated_grids_and_refuses_what_gdal_should_not_read(tmp_path):
    rotated(tmp_path)
    read = whole(reprojected(tmp_path / "a", "EPSG:32632"))
    assert np.nanmin(read) == np.nanmax(read) == 1
    dataset_of(DEGREES, ramp(DEGREES)).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"a.nc: is NetCDF, and only GeoTIFF is reprojected.*--dst-crs EPSG:32632"):
        reprojected(tmp_path / "a.nc", "EPSG:32632")
    with pytest.raises(DataError, match="CRS 'EPSG:nowhere' is not understood"):
        reprojected(tmp_path / "a", "EPSG:nowhere")


# In memory


def test_arrays_are_sources_and_sinks():
    values = ramp(DEGREES)
    values[1, 1] = -32768
    source = array_source(values, DEGREES, "mine")
    assert np.isnan(source.read(Window(1, 1, 1, 1))).all()
    np.testing.assert_array_equal(source.read(Window(2, 3, 2, 2)), values[2:4, 3:5])
    sink = MemorySink(DEGREES, ("a", "b"))
    sink.write(2, 3, np.ones((2, 2, 2), np.float32))
    sink.finish({"by": "me"})
    assert np.isfinite(sink.values).sum() == 8
    assert sink.attributes == {"by": "me"}
    with pytest.raises(DataError, match=r"mine: has shape \(7, 9\) of float32, expected numbers of shape \(8, 9\)"):
        array_source(values, replace(DEGREES, rows=8), "mine")


@pytest.mark.parametrize("order", ["yx", "xy"])
@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("grid", [DEGREES, METRES])
def test_dataarrays_in_and_out_look_the_same(grid, ascending, order):
    array = dataset_of(grid, ramp(grid), ascending, order=order).set_coords("crs").z
    array.coords["crs"].attrs["extra"] = 1
    source = dataarray_source(array)
    assert_same_grid(source.georeference, grid)
    np.testing.assert_array_equal(whole(source), ramp(grid))
    made = to_dataarray(whole(source)[None], source.georeference, like=array)
    assert made.dims == array.dims
    assert made.grid_mapping == "crs"
    xarray.testing.assert_allclose(made.drop_vars("crs"), array.drop_vars("crs"), rtol=1e-12)
    assert made[made.dims[0]].attrs == array[array.dims[0]].attrs
    fine = to_dataarray(
        np.zeros((2, grid.rows * 5, grid.columns * 5), np.float32),
        source.georeference.refined(5),
        ("elevation", "spread"),
        like=array,
    )
    assert list(fine.data_vars) == ["elevation", "spread"]
    y = array.dims[order.index("y")]
    centres = fine[y].values
    np.testing.assert_allclose(centres.reshape(-1, 5).mean(1), array[y].values, rtol=1e-12)
    assert_same_grid(dataarray_source(fine.spread).georeference, source.georeference.refined(5))


def test_crs_of_dataarrays():
    array = xarray.DataArray(ramp(DEGREES), {"y": DEGREES.y(), "x": DEGREES.x()}, ("y", "x"))
    assert dataarray_source(array).georeference.crs_wkt == ""
    assert same_crs(dataarray_source(array.assign_attrs(crs="EPSG:32632")).georeference.crs_wkt, UTM)
    like_rioxarray = array.assign_coords(spatial_ref=((), 0, {"spatial_ref": UTM}))
    assert not dataarray_source(like_rioxarray).georeference.geographic
    named = array.rename(y="latitude", x="longitude")
    assert same_crs(dataarray_source(named).georeference.crs_wkt, WGS84)
    array.y.attrs["units"] = array.x.attrs["units"] = "degrees"
    assert same_crs(dataarray_source(array).georeference.crs_wkt, WGS84)
    plain = to_dataarray(ramp(DEGREES)[None], dataarray_source(named).georeference, like=named)
    assert set(plain.coords) == {"latitude", "longitude"}


def test_dask_computes_only_what_a_window_touches():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"], np.float32)

    values = dask.array.map_blocks(
        block, chunks=((10,) * 6, (10,) * 6), dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    grid = replace(DEGREES, rows=60, columns=60)
    array = xarray.DataArray(values, {"lat": grid.y(), "lon": grid.x()}, ("lat", "lon"))
    source = dataarray_source(array)
    assert not computed
    assert source.read(Window(15, 25, 10, 10)).sum() == 100
    assert sorted(computed) == [(1, 2), (1, 3), (2, 2), (2, 3)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: np.ones((3, 3)), "expected an xarray.DataArray, got ndarray"),
        (lambda: dataset_of(DEGREES, ramp(DEGREES)), "got a Dataset of crs, z; take one"),
        (lambda: xarray.DataArray(np.ones((3, 3))), "expected axes of latitude and longitude"),
        (lambda: dataset_of(DEGREES, ramp(DEGREES)).z.expand_dims(time=2), "has several layers, time"),
        (lambda: dataset_of(DEGREES, ramp(DEGREES)).z.astype(str), "expected real numbers"),
    ],
)
def test_what_is_no_dataarray_of_a_raster(make, words):
    with pytest.raises(DataError, match=words):
        dataarray_source(make())

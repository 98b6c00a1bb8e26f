"""Rasters written block by block: what comes back, what other tools read, and what a failure leaves."""

import gc
import os
import resource
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray

from earthsr.errors import InputError
from earthsr.geo import (
    open_sink,
    open_source,
    same_crs,
)
from earthsr.geo.crs import parse_crs, wkt_of
from earthsr.geo.writers import is_whole
from tests.geo.test_rasters import DEGREES, FORMATS, METRES, WGS84, assert_same_grid, ramp, whole


def blocks_of(grid, rows, columns, seed=0):
    places = [(r, c) for r in range(0, grid.rows, rows) for c in range(0, grid.columns, columns)]
    return [places[i] for i in np.random.default_rng(seed).permutation(len(places))]


def write(path, grid, values, block=(8, 12), bands=("elevation", "spread"), attributes=None, **options):
    sink = open_sink(path, grid, bands, block, **options)
    for row, column in blocks_of(grid, *block):
        sink.write(row, column, values[:, row : row + block[0], column : column + block[1]])
    sink.finish(attributes or {})


def named(path, band):
    return path if path.suffix == ".tif" else f"{path}:{('elevation', 'spread')[band - 1]}"


@pytest.mark.parametrize("scale", [3, 5])
@pytest.mark.parametrize("coarse", [DEGREES, METRES])
@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_in_any_order_comes_back(tmp_path, suffix, coarse, scale):
    """The transform is the input's divided by the scale, to the last bit."""
    coarse = replace(coarse, attributes={"DTED_VerticalDatum": "E96", "AREA_OR_POINT": "Point", "long_name": "height"})
    grid = coarse.refined(scale)
    values = np.stack([ramp(grid), np.full((grid.rows, grid.columns), 2, np.float32)])
    values[0, 3:5, 4:9] = values[1, 0, 0] = np.nan
    path = tmp_path / f"a{suffix}"
    write(path, grid, values, attributes={"history": "predicted", "options": {"tile": 3}})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    for number in (1, 2):
        source = open_source(named(path, number), band=number if suffix == ".tif" else None)
        found = source.georeference
        assert (found.west, found.north) == (coarse.west, coarse.north)
        assert (found.cell_x, found.cell_y) == (coarse.cell_x / scale, coarse.cell_y / scale)
        assert same_crs(found.crs_wkt, coarse.crs_wkt)
        assert (found.units, found.nodata, found.geographic) == ("m", -32768, coarse.geographic)
        assert found.attributes["DTED_VerticalDatum"] == "E96"
        assert found.attributes.get("AREA_OR_POINT", "Area") == "Area"
        assert (found.attributes.get("long_name") == "height") == (number == 1)
        np.testing.assert_array_equal(whole(source), values[number - 1])


def test_geotiff_is_cloud_optimised(tmp_path):
    grid = replace(DEGREES, rows=1100, columns=1300)
    values = np.stack([ramp(grid), ramp(grid) * 0 + 3])
    values[:, :600, :700] = np.nan
    write(tmp_path / "a.tif", grid, values, block=(250, 330), attributes={"checkpoint": "best", "tiles": 4})
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert file.profile["compress"] == "deflate"
        assert file.block_shapes == [(512, 512)] * 2
        assert file.overviews(1) == file.overviews(2) == [2, 4]
        assert (file.descriptions, file.units) == (("elevation", "spread"), ("m", "m"))
        assert (file.tags()["checkpoint"], file.tags()["tiles"]) == ("best", "4")
        assert file.tags()["AREA_OR_POINT"] == "Area"
        assert file.transform == rasterio.Affine(*grid.transform)
        np.testing.assert_array_equal(file.read(masked=True).filled(np.nan), values)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as file:
        coarse = file.read(2, masked=True)
    assert coarse.mask[:300, :350].all()
    assert not coarse.mask[301:].any()
    assert set(np.unique(coarse.compressed())) == {3.0}  # voids are in no average


@pytest.mark.parametrize("suffix", FORMATS)
def test_cells_that_are_never_written_have_no_value(tmp_path, suffix):
    sink = open_sink(tmp_path / f"a{suffix}", replace(DEGREES, rows=300, columns=300), block=(100, 100))
    sink.write(100, 100, np.ones((1, 100, 100), np.float32))
    sink.finish({})
    read = whole(open_source(tmp_path / f"a{suffix}"))
    assert np.nansum(read) == np.isfinite(read).sum() == 10000


@pytest.mark.parametrize(
    ("nodata", "tif", "other"),
    [
        (None, -9999, np.nan),
        (np.nan, np.nan, np.nan),
        (-32768.0, -32768, -32768),
        (1e300, -9999, np.nan),
        (0.1, -9999, np.nan),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_nodata_is_the_inputs_where_it_can_be(tmp_path, suffix, nodata, tif, other):
    expected = tif if suffix == ".tif" else other
    values = np.full((1, 7, 9), 5, np.float32)
    values[0, 0, 0] = np.nan
    if not np.isnan(expected):
        values[0, 1, 1] = expected  # a value, and it must not become a void
    write(tmp_path / f"a{suffix}", replace(DEGREES, nodata=nodata), values, bands=("elevation",))
    source = open_source(tmp_path / f"a{suffix}")
    np.testing.assert_equal(source.georeference.nodata, float(expected))
    read = whole(source)
    assert np.isnan(read).sum() == 1
    np.testing.assert_allclose(read, values[0], rtol=1e-6)


@pytest.mark.parametrize("grid", [DEGREES, METRES])
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_xarray_reads_cf_metadata(tmp_path, suffix, grid):
    values = np.stack([ramp(grid), ramp(grid)])
    values[0, 2, 2] = np.nan
    attributes = {"history": "made", "checkpoint": Path("x"), "exact": True, "tile": np.int64(64)}
    write(tmp_path / f"a{suffix}", grid, values, attributes=attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_it = xarray.open_zarr if suffix == ".zarr" else xarray.open_dataset
        dataset = open_it(tmp_path / f"a{suffix}", decode_coords="all")
    assert dataset.attrs["Conventions"] == "CF-1.8"
    assert (dataset.attrs["history"], dataset.attrs["exact"], dataset.attrs["tile"]) == ("made", 1, 64)
    y, x = ("lat", "lon") if grid.geographic else ("y", "x")
    assert dataset.elevation.dims == (y, x)
    np.testing.assert_array_equal(dataset.elevation, values[0])
    np.testing.assert_array_equal(dataset[y], grid.y())
    assert dataset[x].standard_name == ("longitude" if grid.geographic else "projection_x_coordinate")
    assert dataset[x].units == ("degrees_east" if grid.geographic else "m")
    crs = dataset.coords[dataset.elevation.encoding["grid_mapping"]]
    assert crs.grid_mapping_name == ("latitude_longitude" if grid.geographic else "transverse_mercator")
    if not grid.geographic:
        assert (crs.longitude_of_central_meridian, crs.false_easting, crs.semi_major_axis) == (9, 500000, 6378137)
    assert same_crs(crs.crs_wkt, grid.crs_wkt)
    assert dataset.elevation.encoding["chunks" if suffix == ".zarr" else "chunksizes"] == (7, 9)
    assert dataset.elevation.units == "m"


def test_texts_of_netcdf_are_characters(tmp_path):
    """NCO keeps the CRS of a part only where it can read who names it."""
    write(tmp_path / "a.nc", DEGREES, np.stack([ramp(DEGREES)] * 2), attributes={"history": "Höhe"})
    with h5py.File(tmp_path / "a.nc") as file:
        for at, key in ((file["elevation"], "grid_mapping"), (file["lat"], "units"), (file, "history")):
            assert not at.attrs.get_id(key).get_type().is_variable_str(), key
    with xarray.open_dataset(tmp_path / "a.nc") as dataset:
        assert dataset.attrs["history"] == "Höhe"


@pytest.mark.parametrize("grid", [DEGREES, METRES])
def test_gdal_reads_netcdf(tmp_path, grid):
    with rasterio.Env() as env:
        if "netCDF" not in env.drivers():
            pytest.skip("this GDAL has no driver for NetCDF")
    values = np.stack([ramp(grid), ramp(grid)])
    values[0, 2, 2] = np.nan
    write(tmp_path / "a.nc", grid, values)
    with rasterio.open(f"NETCDF:{tmp_path / 'a.nc'}:elevation") as file:
        # On latitudes and longitudes GDAL goes by the centres, which are rounded to 16 digits.
        np.testing.assert_allclose(file.transform[:6], grid.transform, rtol=1e-13)
        assert file.crs == parse_crs(grid.crs_wkt, "test")
        np.testing.assert_array_equal(file.read(1, masked=True).filled(np.nan), values[0])


@pytest.mark.parametrize("code", [3035, 3413, 3857, 2154, 6933, 32733, 5070, 2263])
def test_projections_keep_their_crs_in_netcdf(tmp_path, code):
    grid = replace(METRES, crs_wkt=wkt_of(parse_crs(f"EPSG:{code}", "test")))
    write(tmp_path / "a.nc", grid, ramp(grid)[None], bands=("elevation",))
    assert_same_grid(open_source(tmp_path / "a.nc").georeference, grid, 1e-12)
    said = xarray.open_dataset(tmp_path / "a.nc").crs.attrs
    assert ("grid_mapping_name" in said) == (code != 3857)  # the web's Mercator is none of CF's
    if code == 2263:  # in feet: 300000 m
        assert said["false_easting"] == pytest.approx(984250, rel=1e-9)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_sink_that_is_aborted_or_forgotten_leaves_nothing(tmp_path, suffix):
    sink = open_sink(tmp_path / f"a{suffix}", DEGREES, block=(4, 4))
    assert all(entry.name.startswith(".") for entry in tmp_path.iterdir())
    sink.write(0, 0, np.ones((1, 4, 4), np.float32))
    sink.abort()
    assert not list(tmp_path.iterdir())
    sink = open_sink(tmp_path / f"a{suffix}", DEGREES, block=(4, 4))
    sink.write(0, 0, np.ones((1, 4, 4), np.float32))
    del sink
    gc.collect()
    assert not list(tmp_path.iterdir())
    sink = open_sink(tmp_path / "new" / "folder" / f"a{suffix}", DEGREES, block=(4, 4))
    sink.abort()
    assert not list(tmp_path.iterdir())
    sink = open_sink(tmp_path / f"a{suffix}", DEGREES, block=(4, 4))
    sink.finish({})
    sink.abort()
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_there_is_replaced_only_on_demand_and_only_in_the_end(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, DEGREES, ramp(DEGREES)[None], bands=("elevation",))
    with pytest.raises(InputError, match=rf"a\{suffix} is there already; choose another name, or --overwrite"):
        open_sink(path, DEGREES)
    sink = open_sink(path, METRES, overwrite=True)
    sink.write(0, 0, ramp(METRES)[None])
    assert open_source(path).georeference.geographic
    sink.finish({})
    assert not open_source(path).georeference.geographic
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_folders_of_something_else_are_not_replaced(tmp_path):
    for suffix in FORMATS:
        (tmp_path / f"a{suffix}").mkdir()
        (tmp_path / f"a{suffix}" / "thesis.txt").touch()
        with pytest.raises(InputError, match="is a folder of something else and is not replaced"):
            open_sink(tmp_path / f"a{suffix}", DEGREES, overwrite=True)
        assert (tmp_path / f"a{suffix}" / "thesis.txt").exists()
    (tmp_path / "b.zarr").touch()
    with pytest.raises(InputError, match="is a file where a folder is to be"):
        open_sink(tmp_path / "b.zarr", DEGREES, overwrite=True)


def test_names_that_are_no_output(tmp_path):
    with pytest.raises(InputError, match=r"a.png: suffix '.png' is no format of output; .tif, .tiff, .nc, .zarr are"):
        open_sink(tmp_path / "a.png", DEGREES)
    with pytest.raises(InputError, match="bands are a, a, expected different names"):
        open_sink(tmp_path / "a.tif", DEGREES, ("a", "a"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="there is a file in its place"):
        open_sink(tmp_path / "file" / "a.tif", DEGREES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the system's administrator writes everywhere")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_read_only_folder_is_refused_at_once(tmp_path, suffix):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match=r"cannot write .*: Permission denied; free some space or choose another"):
            open_sink(tmp_path / f"a{suffix}", DEGREES)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_gets_one_line_and_leaves_nothing(tmp_path, suffix):
    """A limit on the size of files stands in for the disk: the system's error comes at the same places."""
    grid = replace(DEGREES, rows=512, columns=512)
    noise = np.random.default_rng(0).random((1, 512, 512), np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            InputError, match=rf"cannot write .*a\{suffix}: .*; free some space or choose another"
        ) as caught:
            write(tmp_path / f"a{suffix}", grid, noise, block=(256, 256), bands=("elevation",))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_found_before_anything_is_computed(tmp_path):
    huge = replace(DEGREES, rows=2**26, columns=2**26)
    with pytest.raises(InputError, match=r"a.tif: its cells need 16777216.0 GiB while it is made and .* are free"):
        open_sink(tmp_path / "a.tif", huge)
    assert not list(tmp_path.iterdir())


def test_a_geotiff_that_gdal_did_not_write_whole_is_noticed(tmp_path):
    """On a full disk GDAL may leave out a tile and say that all is well."""
    grid = replace(DEGREES, rows=1100, columns=1100)
    noise = np.random.default_rng(0).random((1, 1100, 1100), np.float32)
    path = tmp_path / "a.tif"
    write(path, grid, noise, block=(1100, 1100), bands=("elevation",))
    content = path.read_bytes()
    original = path.with_name("original.tif")
    original.write_bytes(content)
    assert is_whole(path, original)
    with rasterio.open(path) as file:
        part = sum(np.prod(file.shape) // 4**level for level in range(1, 4)) / np.prod(file.shape)
    for at in (0.4, 0.5, 0.6, 0.7, 0.8, 0.95):  # overviews come first
        assert at > part
        start = int(at * len(content))
        path.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        assert not is_whole(path, original), at
    path.write_bytes(content[:-4096])
    assert not is_whole(path, original)


MEMORY = """
import resource, sys
import numpy as np
from earthsr.geo import Georeference, Window, open_sink, open_source
path, count, side = sys.argv[1], int(sys.argv[2]), 1024
grid = Georeference(0, 40, 1e-4, 1e-4, side * count, side * count, open(sys.argv[3]).read())
sink = open_sink(path, grid, block=(side, side))
block = np.random.default_rng(0).normal(size=(1, side, side)).cumsum(2).astype(np.float32)
for i in range(count**2):
    sink.write(side * (i // count), side * (i % count), block + i)
sink.finish({})
source = open_source(path)
for i in range(count**2):
    source.read(Window(side * (i // count), side * (i % count), side, side))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_raster(tmp_path, suffix):
    (tmp_path / "wkt").write_text(WGS84)
    peaks = []
    for count in (3, 6):
        arguments = [str(tmp_path / f"{count}{suffix}"), str(count), str(tmp_path / "wkt")]
        done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    # The larger one has 108 MiB more of cells; allocators account for some.
    assert peaks[1] - peaks[0] < 40, peaks

"""Rasters in any CRS, read and written window by window."""

import re
import shlex
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray
import zarr
from click.testing import CliRunner
from rasterio.rio.main import main_group

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo import (
    Georeference,
    Window,
    open_sink,
    open_source,
    require_metres,
    same_crs,
)
from earthsr.geo.crs import parse_crs, wkt_of

WGS84, UTM = wkt_of(parse_crs("EPSG:4326", "test")), wkt_of(parse_crs("EPSG:32632", "test"))
#: Cells of 15 arc-seconds in the Alps, and of 30 m in UTM zone 32.
DEGREES = Georeference(8.0, 47.0, 1 / 240, 1 / 240, 7, 9, WGS84, True, "m", -32768.0)
METRES = Georeference(500000.0, 5200000.0, 30.0, 30.0, 7, 9, UTM, False, "m", -32768.0)
FORMATS = (".tif", ".nc", ".zarr")


def whole(source):
    grid = source.georeference
    return source.read(Window(0, 0, grid.rows, grid.columns))


def ramp(grid, x_weight=1000.0, y_weight=100.0):
    """Values that say where they are: a plane over the coordinates of the centres, some units per coordinate."""
    x, y = grid.x() - grid.west, grid.y() - grid.north
    return ((x_weight * x)[None, :] + (y_weight * y)[:, None]).astype(np.float32)


def write_tif(path, values, grid, tags=None, masked=None, **options):
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    given = {
        "crs": grid.crs_wkt or None,
        "transform": rasterio.Affine(*grid.transform),
        "nodata": grid.nodata,
        "dtype": values.dtype,
        **options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        bands, rows, columns = values.shape
        with rasterio.open(path, "w", driver="GTiff", count=bands, height=rows, width=columns, **given) as file:
            file.write(values)
            file.update_tags(**(tags or {}))
            if grid.units:
                file.units = (grid.units,) * bands
            if masked is not None:
                file.write_mask(masked)
    return path


def dataset_of(grid, values, ascending=False, crs=True, order="yx", **attributes):
    """Dataset with CF coordinates, nothing encoded."""
    y, x = ("lat", "lon") if grid.geographic else ("y", "x")
    rows, values = (grid.y()[::-1], values[::-1]) if ascending else (grid.y(), values)
    kinds = ("latitude", "longitude") if grid.geographic else ("projection_y_coordinate", "projection_x_coordinate")
    said = {"units": "m", **attributes}
    dataset = xarray.Dataset(
        coords={y: (y, rows, {"standard_name": kinds[0]}), x: (x, grid.x(), {"standard_name": kinds[1]})}
    )
    if crs:
        dataset["crs"] = ((), 0, {"crs_wkt": grid.crs_wkt})
        said["grid_mapping"] = "crs"
    dataset["z"] = ((y, x), values, said)
    return dataset.transpose(x, y) if order == "xy" else dataset


def assert_same_grid(found, expected, slack=1e-6):
    """Coordinates of centres are rounded, so that edges may be off by a millionth of a cell."""
    assert (found.rows, found.columns) == (expected.rows, expected.columns)
    for name, cell in (("west", "cell_x"), ("north", "cell_y"), ("cell_x", "cell_x"), ("cell_y", "cell_y")):
        assert abs(getattr(found, name) - getattr(expected, name)) < slack * getattr(expected, cell), name
    assert same_crs(found.crs_wkt, expected.crs_wkt)
    assert found.geographic == expected.geographic


# Reading


@pytest.mark.parametrize("grid", [DEGREES, METRES])
def test_geotiff_gives_its_grid_and_its_values(tmp_path, grid):
    values = np.arange(63, dtype=np.int16).reshape(7, 9)
    values[2, 3] = -32768
    source = open_source(write_tif(tmp_path / "a.dat", values, grid, {"DTED_VerticalDatum": "E96", "Author": "x"}))
    found = source.georeference
    assert found.transform == grid.transform
    assert same_crs(found.crs_wkt, grid.crs_wkt)
    assert (found.geographic, found.units, found.nodata) == (grid.geographic, "m", -32768)
    assert found.attributes == {"DTED_VerticalDatum": "E96", "AREA_OR_POINT": "Area"}
    part = source.read(Window(1, 2, 3, 4))
    expected = values[1:4, 2:6].astype(np.float32)
    expected[1, 1] = np.nan
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, expected)
    with pytest.raises(ValueError, match="outside"):
        source.read(Window(0, 0, 8, 9))


def test_pixels_that_are_points_lie_where_areas_around_them_do(tmp_path):
    """One ramp, written by the places of its samples in either convention, comes at the same coordinates."""
    values = ramp(DEGREES)
    area = open_source(write_tif(tmp_path / "area.tif", values, DEGREES))
    # What the file of points holds is the place of the first sample itself; GDAL must not correct it when it writes.
    corner = replace(DEGREES, west=DEGREES.x()[0], north=DEGREES.y()[0])
    with rasterio.Env(GTIFF_POINT_GEO_IGNORE=True):
        write_tif(tmp_path / "point.tif", values, corner, {"AREA_OR_POINT": "Point"})
    point = open_source(tmp_path / "point.tif")
    assert point.georeference.attributes["AREA_OR_POINT"] == "Point"
    assert_same_grid(point.georeference, area.georeference)
    np.testing.assert_allclose(whole(point), ramp(point.georeference), atol=1e-4)  # float32 of 37


def test_srtm_tile_is_read_by_what_gdal_knows_of_it(tmp_path):
    values = np.tile(np.arange(1201, dtype=">i2"), (1201, 1))
    values[0, 0] = -32768
    values.tofile(tmp_path / "N46E008.hgt")
    source = open_source(tmp_path / "N46E008.hgt")
    grid = source.georeference
    assert (grid.rows, grid.units) == (1201, "m")
    np.testing.assert_allclose([grid.x()[0], grid.y()[-1]], [8, 46], atol=1e-9)
    assert np.isnan(source.read(Window(0, 0, 1, 1))).all()


@pytest.mark.parametrize("order", ["yx", "xy"])
@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_netcdf_of_both_kinds_with_rows_either_way(tmp_path, engine, ascending, order):
    dataset = dataset_of(DEGREES, ramp(DEGREES), ascending, crs=False, order=order, long_name="height")
    dataset.to_netcdf(tmp_path / "a.nc", engine=engine)
    source = open_source(tmp_path / "a.nc")
    assert_same_grid(source.georeference, DEGREES)
    assert (source.georeference.units, source.georeference.attributes) == ("m", {"long_name": "height"})
    np.testing.assert_array_equal(whole(source), ramp(DEGREES))
    part = source.read(Window(1, 2, 3, 4))
    assert part.flags.c_contiguous
    np.testing.assert_array_equal(part, ramp(DEGREES)[1:4, 2:6])


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions(tmp_path, version, consolidated):
    values = ramp(DEGREES)
    values[0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata of version 3
        dataset_of(DEGREES, values, ascending=True).to_zarr(
            tmp_path / "a", zarr_format=version, consolidated=consolidated, encoding={"z": {"_FillValue": -5.0}}
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(f"{tmp_path}/a:z")
    assert_same_grid(source.georeference, DEGREES)
    assert source.georeference.nodata == -5
    np.testing.assert_array_equal(whole(source), values)


def test_packed_values_with_two_kinds_of_voids(tmp_path):
    stored = np.arange(63, dtype=np.int16).reshape(7, 9)
    attributes = {"scale_factor": 0.5, "add_offset": -100.0, "_FillValue": np.int16(4), "missing_value": np.int16(9)}
    dataset_of(DEGREES, stored, **attributes).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    expected = stored * 0.5 - 100
    expected[np.isin(stored, (4, 9))] = np.nan
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.nc")), expected)
    expected[np.isin(stored, (6, 7))] = np.nan  # numbers that are given add to both tags
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.nc", nodata=[6, 7])), expected)


def test_unsigned_values_have_unsigned_voids(tmp_path):
    # As NetCDF 3 has it: 65535 is stored as -1, and so is the fill value that means it.
    stored = np.arange(63, dtype=np.uint16).reshape(7, 9) + 40_000
    stored[2, 3] = 65_535
    attributes = {"scale_factor": 0.1, "_FillValue": np.int16(-1), "_Unsigned": "true"}
    dataset_of(DEGREES, stored.view(np.int16), **attributes).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = open_source(tmp_path / "a.nc")
    expected = np.where(stored == 65_535, np.nan, stored * 0.1)
    np.testing.assert_allclose(whole(source), expected, rtol=1e-6)  # float32
    assert source.georeference.nodata == 65_535


def test_longitudes_count_as_in_the_file_and_coordinates_of_float32_are_mended(tmp_path):
    grid = replace(DEGREES, rows=48, columns=720, west=0.0, north=10.0, cell_x=0.5, cell_y=1 / 240)
    dataset = dataset_of(grid, ramp(grid), crs=False)
    dataset = dataset.assign_coords(lat=dataset.lat.astype(np.float32), lon=dataset.lon.astype(np.float32))
    dataset.lat.attrs["standard_name"] = "latitude"
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = open_source(tmp_path / "a.nc")
    assert_same_grid(source.georeference, grid)
    assert source.georeference.periodic
    assert source.georeference.bounds[::2] == (0, 360)


@pytest.mark.parametrize("unit", ["m", "km"])
def test_netcdf_in_a_projection(tmp_path, unit):
    dataset = dataset_of(METRES, ramp(METRES, 1.0, 1.0), ascending=True)
    if unit == "km":
        dataset = dataset.assign_coords(y=dataset.y / 1000, x=dataset.x / 1000)
        dataset.y.attrs["units"] = dataset.x.attrs["units"] = "km"
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = open_source(tmp_path / "a.nc")
    assert_same_grid(source.georeference, METRES)
    np.testing.assert_array_equal(whole(source), ramp(METRES, 1.0, 1.0))


def test_arguments_go_before_what_a_file_says(tmp_path):
    values = np.stack([np.full((7, 9), 5, np.int16), np.full((7, 9), 6, np.int16)])
    values[1, 0, 0] = 0
    path = write_tif(tmp_path / "a.tif", values, DEGREES)
    source = open_source(path, nodata=0, units="metre", band=2)
    assert (source.georeference.units, source.georeference.nodata) == ("metre", -32768)
    read = whole(source)
    assert np.isnan(read[0, 0])
    assert np.nansum(read) == 6 * 62


def test_masks_of_a_file_are_voids(tmp_path):
    mask = np.full((7, 9), 255, np.uint8)
    mask[3, 4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tif(tmp_path / "a.tif", np.ones((7, 9), np.float32), replace(DEGREES, nodata=None), masked=mask)
    np.testing.assert_array_equal(np.isnan(whole(open_source(path))), mask == 0)


def test_one_of_several_fields_is_named(tmp_path):
    dataset = dataset_of(DEGREES, ramp(DEGREES))
    dataset["depth"] = dataset.z * 2
    dataset["depth"].attrs = dataset.z.attrs
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"a.nc: holds 2 fields \(z, depth\); name the one to take as a.nc:VARIABLE"):
        open_source(tmp_path / "a.nc")
    np.testing.assert_array_equal(whole(open_source(f"{tmp_path / 'a.nc'}:depth")), ramp(DEGREES) * 2)
    with pytest.raises(DataError, match="has no field no"):
        open_source(f"{tmp_path / 'a.nc'}:no")


def test_layers_of_a_field_are_bands(tmp_path):
    dataset = dataset_of(DEGREES, ramp(DEGREES)).expand_dims(time=[1, 2], axis=0)
    dataset["z"] = dataset.z * xarray.DataArray([1.0, 3.0], dims="time").astype(np.float32)
    dataset["crs"] = ((), 0, {"crs_wkt": WGS84})
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"several layers, time \(2\), expected one"):
        open_source(tmp_path / "a.nc")
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.nc", band=2)), ramp(DEGREES) * 3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_thread_reads_what_another_opened_while_a_third_writes(tmp_path, suffix):
    sink = open_sink(tmp_path / f"a{suffix}", DEGREES, block=(4, 4))
    sink.write(0, 0, ramp(DEGREES)[None])
    sink.finish({})
    source = open_source(tmp_path / f"a{suffix}")
    results, failures = [], []

    def read():
        try:
            results.extend(whole(source) for _ in range(20))
        except BaseException as error:
            failures.append(error)

    def write():
        try:
            other = open_sink(tmp_path / f"b{suffix}", DEGREES, block=(4, 4))
            for row in (0, 4):
                other.write(row, 0, ramp(DEGREES)[None, row : row + 4])
            other.finish({})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=target) for target in (read, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    np.testing.assert_array_equal(results, [ramp(DEGREES)] * 20)
    np.testing.assert_array_equal(whole(open_source(tmp_path / f"b{suffix}")), ramp(DEGREES))


def rotated(path):
    grid = rasterio.Affine(1 / 240, 1e-4, 8, 1e-4, -1 / 240, 47)
    write_tif(path / "a", np.ones((7, 9), np.float32), DEGREES, transform=grid)


def mirrored(path):
    write_tif(
        path / "a",
        np.ones((7, 9), np.float32),
        replace(DEGREES, west=-8),
        transform=rasterio.Affine(-1, 0, 8, 0, -1, 47),
    )


def backwards(path):
    dataset_of(DEGREES, ramp(DEGREES)).isel(lon=slice(None, None, -1)).to_netcdf(path / "a", engine="h5netcdf")


def irregular(path, grid=DEGREES):
    dataset = dataset_of(grid, ramp(grid))
    y = "lat" if grid.geographic else "y"
    dataset.isel({y: [0, 1, 2, 4]}).to_netcdf(path / "a", engine="h5netcdf")


def truncated(path, write, keep):
    write(path / "a")
    content = (path / "a").read_bytes()
    (path / "a").write_bytes(content[: int(len(content) * keep)])


BAD = {
    "no such file": (lambda p: None, "a: no such file"),
    "empty": (lambda p: (p / "a").write_bytes(b""), "a: cannot be read as a raster"),
    "text": (lambda p: (p / "a").write_text("hello"), "a: cannot be read as a raster"),
    "folder": (lambda p: (p / "a").mkdir(), "is a folder and no Zarr store"),
    "no array in store": (lambda p: zarr.open_group(p / "a", mode="w"), "a: has no field on axes of latitude"),
    "an array as store": (
        lambda p: zarr.create_array(p / "a", shape=(2,), dtype="f4"),
        "cannot be read as a Zarr store",
    ),
    "no CRS": (
        lambda p: write_tif(p / "a", np.ones((7, 9), np.float32), replace(DEGREES, crs_wkt="")),
        "a: has no CRS; rio edit-info --crs EPSG:4326",
    ),
    "no place": (
        lambda p: write_tif(p / "a", np.ones((7, 9), np.float32), DEGREES, transform=None),
        "has a CRS and no place on it; rio edit-info --transform",
    ),
    "rotated": (rotated, "a: the grid is rotated or mirrored, expected north up; rio warp .* --dst-crs EPSG:4326"),
    "mirrored": (mirrored, "a: the grid is rotated or mirrored"),
    "bands": (
        lambda p: write_tif(p / "a", np.ones((3, 7, 9), np.float32), DEGREES),
        "a: has 3 bands, expected one; rio stack .*--bidx 1",
    ),
    "complex": (lambda p: write_tif(p / "a", np.ones((7, 9), np.complex64), DEGREES), "holds complex64"),
    "columns from the east": (backwards, "lon goes from east to west; turn it round"),
    "steps": (irregular, "lat is not regular"),
    "steps in a projection": (lambda p: irregular(p, METRES), "y is not regular"),
    "no axes": (
        lambda p: xarray.Dataset({"z": (("a", "b"), np.ones((3, 3)))}).to_netcdf(p / "a", engine="h5netcdf"),
        r"no field on axes of latitude and longitude.*a \(3\), b \(3\)",
    ),
    "projection without CRS": (
        lambda p: dataset_of(METRES, ramp(METRES), crs=False).to_netcdf(p / "a", engine="h5netcdf"),
        "has axes y and x and no CRS.*rio edit-info",
    ),
    "nonsense for a CRS": (
        lambda p: dataset_of(replace(DEGREES, crs_wkt="moon"), ramp(DEGREES)).to_netcdf(p / "a", engine="h5netcdf"),
        "CRS 'moon' is not understood",
    ),
    "a projection on degrees": (
        lambda p: dataset_of(replace(DEGREES, crs_wkt=UTM), ramp(DEGREES)).to_netcdf(p / "a", engine="h5netcdf"),
        "axes lat and lon in degrees and the CRS EPSG:32632",
    ),
    "cut off NetCDF": (
        lambda p: truncated(p, lambda f: dataset_of(DEGREES, ramp(DEGREES)).to_netcdf(f, engine="h5netcdf"), 0.5),
        "a: cannot be read as NetCDF",
    ),
    "cut off classic NetCDF": (
        lambda p: truncated(p, lambda f: dataset_of(DEGREES, ramp(DEGREES)).to_netcdf(f, engine="scipy"), 0.3),
        "a: cannot be read as NetCDF",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_raster_gets_one_line(tmp_path, case):
    make, words = BAD[case]
    make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_source(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_bands_that_are_not_there(tmp_path):
    write_tif(tmp_path / "a.tif", np.ones((2, 7, 9), np.float32), DEGREES)
    with pytest.raises(DataError, match="has no band 3, it has 2"):
        open_source(tmp_path / "a.tif", band=3)
    dataset_of(DEGREES, ramp(DEGREES)).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="has no band 2, it has 1"):
        open_source(tmp_path / "a.nc", band=2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_block_names_file_and_window(tmp_path, suffix):
    grid = replace(DEGREES, rows=128, columns=128)
    noise = np.random.default_rng(0).random((128, 128), np.float32)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        write_tif(path, noise, grid, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    else:
        sink = open_sink(path, grid, block=(64, 64))
        for row, column in np.ndindex(2, 2):
            sink.write(row * 64, column * 64, noise[None, row * 64 : row * 64 + 64, column * 64 : column * 64 + 64])
        sink.finish({})
    if suffix == ".zarr":
        damaged = next(file for file in (path / "elevation" / "c").rglob("1") if file.is_file())
        damaged.write_bytes(damaged.read_bytes()[:50])
    else:
        content = bytearray(path.read_bytes())
        content[-20000:-9000] = bytes(11000)
        path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(DataError, match=rf"a\{suffix}.*: rows 10 to 127, columns 20 to 127 cannot be read .*damaged"):
        source.read(Window(10, 20, 118, 108))


# Units


@pytest.mark.parametrize(
    "units", ["m", "M", "metre", "Metres", "meters", "m above mean sea level", "m MSL", "m (EGM96)"]
)
def test_metres_pass(units):
    require_metres(units, "a.tif")


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (
            "ft",
            "units are 'ft', expected metres; rio calc .*0.3048.*cdo -setunit,m -mulc,0.3048.*--units m if the tag is",
        ),
        ("US survey foot", "0.3048006096"),
        ("km", r"\* 1000 "),
        ("K", "elevations in metres are needed"),
        ("degrees", "units are 'degrees', expected metres"),
        ("m s-1", "units are 'm s-1', expected metres"),
        ("m2", "expected metres"),
        ("mm", "expected metres"),
        ("metres below sea level", "expected metres"),
    ],
)
def test_other_units_are_refused(units, words):
    with pytest.raises(DataError, match=f"a.tif: .*{words}"):
        require_metres(units, "a.tif")


@pytest.mark.parametrize("nodata", [None, -999])
def test_feet_become_metres_by_the_command_of_the_message(tmp_path, nodata):
    feet = np.arange(1000, 1600, dtype=np.int16).reshape(20, 30)
    feet[0, 0] = -999 if nodata else feet[0, 0]
    place = rasterio.transform.from_origin(5, 50, 0.1, 0.1)
    profile = {"height": 20, "width": 30, "count": 1, "dtype": "int16", "crs": "EPSG:4326", "nodata": nodata}
    with rasterio.open(tmp_path / "IN.tif", "w", "GTiff", transform=place, **profile) as file:
        file.write(feet, 1)
    with pytest.raises(DataError) as refusal:
        require_metres("ft", "IN.tif")
    words = shlex.split(re.search(r"rio (calc .*?) \(rio", str(refusal.value))[1])
    assert (
        CliRunner().invoke(main_group, words[:2] + [str(tmp_path / w) for w in words[2:4]] + words[4:]).exit_code == 0
    )
    values = open_source(tmp_path / "OUT.tif", units="m").read(Window(0, 0, 20, 30))
    expected = np.where(feet == -999, np.nan, feet * np.float32(0.3048))
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_no_units_are_metres_with_a_warning():
    with pytest.warns(EarthsrWarning, match="a.tif: has no units; metres are assumed"):
        require_metres(" ", "a.tif")

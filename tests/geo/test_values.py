"""From stored numbers to values: voids, packing and valid ranges, the same in every format."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import rasterio
import xarray
import zarr

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo import Window, dataarray_source, open_source, reprojected, require_metres
from tests.geo.test_rasters import DEGREES, METRES, dataset_of, ramp, whole, write_tif

LOWEST = np.finfo(np.float32).min


def typed(command):
    """Run an advised command as a user of this environment does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})


def terrain(dtype=np.float32):
    return (500 + 10 * np.arange(63).reshape(7, 9)).astype(dtype)


def write_field(path, stored, fill=None, **attributes):
    """A NetCDF file whose attributes are just these, of any type."""
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"lat": 7, "lon": 9}
        for name, centres, units in (("lat", DEGREES.y(), "degrees_north"), ("lon", DEGREES.x(), "degrees_east")):
            file.create_variable(name, (name,), "f8", data=centres).attrs["units"] = units
        options = {} if fill is None else {"fillvalue": fill}
        variable = file.create_variable("z", ("lat", "lon"), stored.dtype, data=stored, **options)
        variable.attrs.update({"units": "m", **attributes})
    return path


def voids_of_file(path, **options):
    return np.isnan(whole(open_source(path, **options)))


# Voids


@pytest.mark.parametrize("typed", [float(LOWEST), -3.4028235e38, -3.40282e38, -3.4028234663852886e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_float32_is_known_however_it_is_printed(tmp_path, dtype, typed):
    values = terrain(dtype)
    values[2, 3] = LOWEST
    path = write_tif(tmp_path / "a.tif", values, replace(DEGREES, nodata=None))
    np.testing.assert_array_equal(voids_of_file(path, nodata=typed), values == LOWEST)


@pytest.mark.parametrize("suffix", [".tif", ".nc"])
def test_void_values_that_are_given_add_to_the_declared_one(tmp_path, suffix):
    values = terrain(np.int16)
    values[0, :3] = (-9999, -32768, 32767)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        write_tif(path, values, replace(DEGREES, nodata=-9999))
    else:
        write_field(path, values, fill=np.int16(-9999))
    assert voids_of_file(path).sum() == 1
    assert voids_of_file(path, nodata=-32768)[0, :3].tolist() == [True, True, False]
    assert voids_of_file(path, nodata=(-32768, 32767)).sum() == 3


def test_several_voids_are_left_out_where_a_raster_is_reprojected(tmp_path):
    values = np.full((40, 40), 100, np.int16)
    values[8:12, 8:12], values[28:32, 28:32] = -9999, -32768
    grid = replace(METRES, rows=40, columns=40)
    path = write_tif(tmp_path / "a.tif", values, replace(grid, nodata=-9999))
    source = reprojected(path, "EPSG:32633", resolution=(30, 30), nodata=[-32768])
    read = whole(source)
    assert np.isnan(read).any()
    np.testing.assert_allclose(read[np.isfinite(read)], 100, atol=1e-3)


@pytest.mark.parametrize(
    "missing",
    [
        "-32768",
        "-32768s",
        b"-32768",
        "-1, -32768",
        np.array([-1, -32768], np.int16),
        np.array([-32768.0]),
        ["-1", "-32768"],
    ],
)
def test_missing_value_is_read_as_text_in_lists_and_beside_a_fill_value(tmp_path, missing):
    stored = terrain(np.int16)
    stored[0, :2] = (-9999, -32768)
    attribute = np.array(missing, "S") if isinstance(missing, list) else missing
    path = write_field(tmp_path / "a.nc", stored, fill=np.int16(-9999), missing_value=attribute)
    np.testing.assert_array_equal(voids_of_file(path), stored < 0)


def test_a_missing_value_that_is_no_number_is_warned_about(tmp_path):
    path = write_field(tmp_path / "a.nc", terrain(np.int16), missing_value="sea")
    with pytest.warns(EarthsrWarning, match=r"a.nc: z: missing_value 'sea' is no number.*--nodata"):
        assert not voids_of_file(path).any()


# Packing


@pytest.mark.parametrize("stored", [0.0, np.nan, "none", [1.0, 2.0]])
def test_a_scale_that_cannot_be_is_refused(tmp_path, stored):
    path = write_field(tmp_path / "a.nc", terrain(np.int16), scale_factor=stored)
    with pytest.raises(DataError, match=r"a.nc: z: scale_factor is .*ncatted"):
        open_source(path)


def test_a_scale_of_zero_is_refused_in_a_geotiff_and_its_remedy_works(tmp_path):
    path = write_tif(tmp_path / "a.tif", terrain(np.int16), DEGREES)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0], [7]
    with pytest.raises(DataError, match=r"a.tif: scale is 0 and offset 7.*python -c") as error:
        open_source(path)
    command = str(error.value).partition("; ")[2].removesuffix(" takes them out").replace("FILE", str(path))
    typed(command)
    np.testing.assert_array_equal(whole(open_source(path)), terrain())


@pytest.mark.parametrize(("word", "dtype", "expected"), [("true", np.int8, 200), ("false", np.uint8, -56)])
def test_the_sign_of_integers_is_what_the_attribute_says(tmp_path, word, dtype, expected):
    stored = np.full((7, 9), 200, np.uint8).view(dtype)
    stored[0, 0] = np.uint8(255).astype(dtype) if dtype == np.uint8 else -1
    fill = np.array(255, np.uint8).view(dtype)[()]
    path = write_field(tmp_path / "a.nc", stored, _Unsigned=word, missing_value=fill)
    read = whole(open_source(path))
    assert read[1, 1] == expected
    assert np.isnan(read[0, 0]) == (word == "true")  # 255 is stored as -1 there; here it means -1


@pytest.mark.parametrize(
    "attributes",
    [
        {"valid_range": np.array([-1000, 10_000], np.int16)},  # CF: of packed numbers
        {"valid_min": np.int16(-1000), "valid_max": np.int16(10_000)},
        {"valid_range": np.array([-500.0, 5000.0])},  # netCDF: of the unpacked type, so of unpacked numbers
    ],
)
@pytest.mark.parametrize("decoded", [False, True])
def test_values_beyond_the_valid_range_are_none(tmp_path, attributes, decoded):
    stored = terrain(np.int16)
    stored[0, :4] = (18_000, -1001, -1000, 10_000)
    path = write_field(tmp_path / "a.nc", stored, scale_factor=0.5, add_offset=0.0, **attributes)
    if decoded:
        with xarray.open_dataset(path) as dataset:
            read = whole(dataarray_source(dataset.z.load()))
    else:
        read = whole(open_source(path))
    assert np.isnan(read[0, :4]).tolist() == [True, True, False, False]
    assert np.isfinite(read[1:]).all()


def test_a_bound_of_float32_is_within_the_range(tmp_path):
    stored = np.full((7, 9), 0.1, np.float32)
    stored[0, 0] = 0.2
    path = write_field(tmp_path / "a.nc", stored, valid_max=0.1)
    assert voids_of_file(path).sum() == 1


def test_a_valid_range_from_high_to_low_is_refused(tmp_path):
    path = write_field(tmp_path / "a.nc", terrain(np.int16), valid_range=np.array([5, -5], np.int16))
    with pytest.raises(DataError, match=r"a.nc: z: valid values are 5 to -5.*ncatted"):
        open_source(path)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_decoded_array_gives_what_its_file_gives(tmp_path, dtype):
    """Stored 0 is the fill value and means 700 m; stored -1400 means 0 m, which is no void."""
    stored = terrain(dtype)
    stored[0, :2], stored[1, 0] = -1400, 0
    path = write_field(tmp_path / "a.nc", stored, fill=dtype(0), scale_factor=0.5, add_offset=700.0)
    from_file = whole(open_source(path))
    assert from_file[0, 0] == 0
    assert np.isnan(from_file).sum() == 1
    with xarray.open_dataset(path) as dataset:
        np.testing.assert_array_equal(whole(dataarray_source(dataset.z)), from_file)
    with xarray.open_dataset(path, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(whole(dataarray_source(dataset.z)), from_file)


def test_zeros_that_xarray_made_voids_are_said(tmp_path):
    stored = terrain()
    stored[0] = 0
    path = write_field(tmp_path / "a.nc", stored, fill=np.float32(0))
    with (
        xarray.open_dataset(path) as dataset,
        pytest.warns(EarthsrWarning, match=r"z: its fill value is 0.*mask_and_scale"),
    ):
        dataarray_source(dataset.z)


# Zarr's fill value


@pytest.mark.parametrize("version", [2, 3])
def test_zero_that_zarr_fills_with_is_sea_level(tmp_path, version):
    stored = terrain()
    stored[0, :5] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata of version 3
        dataset_of(DEGREES, stored).drop_encoding().to_zarr(
            tmp_path / "a.zarr", zarr_format=version, consolidated=False
        )
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    said = dict(group["z"].attrs)
    names = {"dimension_names": ("lat", "lon")} if version == 3 else {}
    said.pop("_FillValue", None)
    del group["z"]
    array = group.create_array("z", shape=(7, 9), chunks=(4, 9), dtype="f4", fill_value=0, attributes=said, **names)
    array[:4] = stored[:4]  # the second chunk is never written
    stored[4:] = 0
    words = "--nodata 0 .*1 of 2 chunks" if version == 2 else "1 of 2 chunks .*--nodata 0"
    with pytest.warns(EarthsrWarning, match=f"a.zarr: z: .*{words}"):
        source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole(source), stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert voids_of_file(tmp_path / "a.zarr", nodata=0).sum() == (stored == 0).sum()


def test_zero_that_the_attributes_declare_is_a_void(tmp_path):
    stored = terrain()
    stored[0, :5] = 0
    dataset_of(DEGREES, stored).to_zarr(
        tmp_path / "a.zarr", zarr_format=2, consolidated=False, encoding={"z": {"_FillValue": 0.0}}
    )
    zarr.open_group(tmp_path / "a.zarr", mode="r+")["z"].attrs["missing_value"] = 0.0
    assert voids_of_file(tmp_path / "a.zarr").sum() == 5


# Advice


def test_the_remedy_for_feet_works(tmp_path):
    stored = terrain(np.int16)
    stored[0, 0] = -32768
    path = write_tif(tmp_path / "a.tif", stored, replace(DEGREES, units="ft"))
    with pytest.raises(DataError, match="units are 'ft'") as error:
        require_metres("ft", "a.tif")
    command = str(error.value).partition("metres; ")[2].partition(" (rio")[0]
    command = command.replace("IN.tif", str(path)).replace("OUT.tif", str(tmp_path / "b.tif"))
    typed(command)
    read = whole(open_source(tmp_path / "b.tif", units="m"))
    assert np.isnan(read[0, 0])
    np.testing.assert_allclose(read.ravel()[1:], stored.ravel()[1:] * 0.3048, rtol=1e-6)


def test_the_remedies_for_a_file_without_crs_or_place_work(tmp_path):
    path = write_tif(tmp_path / "a.tif", terrain(), DEGREES, crs=None, transform=rasterio.Affine.identity())
    with pytest.raises(DataError, match=r"a.tif: has no CRS") as error:
        open_source(path)
    command = str(error.value).partition("CRS; ")[2].partition(" sets")[0]
    typed(command.replace("FILE", str(path)))
    with pytest.raises(DataError, match=r"a.tif: has a CRS and no place") as error:
        open_source(path)
    command = str(error.value).partition("on it; ")[2].partition(" sets")[0].replace("FILE", str(path))
    for word, value in {"WIDTH": "0.5", "HEIGHT": "0.25", "WEST": "8", "NORTH": "47"}.items():
        command = command.replace(word, value)
    typed(command)
    found = open_source(path).georeference
    assert (found.west, found.north, found.cell_x, found.cell_y) == (8, 47, 0.5, 0.25)


def test_a_tile_that_a_vrt_lacks_is_named(tmp_path):
    tile = write_tif(tmp_path / "tile & one.tif", terrain(), DEGREES)
    text = (
        '<VRTDataset rasterXSize="9" rasterYSize="7"><SRS>EPSG:4326</SRS><GeoTransform>8,0.1,0,47,0,-0.1</GeoTransform>'
        '<VRTRasterBand dataType="Float32" band="1"><SimpleSource><SourceFilename relativeToVRT="1">tile &amp; one.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "a.vrt").write_text(text)
    source = open_source(tmp_path / "a.vrt")
    np.testing.assert_array_equal(whole(source), terrain())
    source.close()
    tile.unlink()
    with pytest.raises(DataError, match=r"a.vrt: its tile .*tile & one.tif is missing; .*gdalbuildvrt"):
        open_source(tmp_path / "a.vrt").read(Window(0, 0, 2, 2))


# Places


@pytest.mark.parametrize("suffix", [".tif", ".nc"])
def test_a_column_that_repeats_the_first_is_left_out(tmp_path, suffix):
    grid = replace(DEGREES, rows=19, columns=37, west=-185.0, north=95.0, cell_x=10.0, cell_y=10.0, nodata=None)
    values = ramp(grid, 1.0, 1.0)
    values[:, -1] = values[:, 0]
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        write_tif(path, values, grid)
    else:
        dataset_of(grid, values, ascending=True, crs=False).to_netcdf(path, engine="h5netcdf")
    source = open_source(path)
    assert (source.georeference.columns, source.georeference.periodic) == (36, True)
    np.testing.assert_array_equal(whole(source), values[:, :-1])

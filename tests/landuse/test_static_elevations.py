"""Elevation and other static fields of land use: heights whatever the file counts, and no undeclared fill value."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import xarray
from rasterio.transform import from_origin

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo.voids import require_no_common_fill
from earthsr.landuse.emulator.maps import read_static
from earthsr.landuse.prepare import prepare_landuse
from earthsr.landuse.write import SplitPlan
from tests.geo.test_one_reader import CELL, COLUMNS, LATITUDES, LONGITUDES, NORTH, ROWS, TABLE, WEST, write_classes

GROUND = (1000 + 40 * np.hypot(*np.mgrid[-20:20, -30:30])).astype(np.float32)
FORMATS = ["a.tif", "a.nc", "a.zarr"]


def with_corner(number, values=GROUND):
    values = values.copy()
    values[:3, :4] = number
    return values


def write(path, values, units="m", **attributes):
    if path.suffix == ".tif":
        place = from_origin(WEST, NORTH, CELL, CELL)
        size = {"height": ROWS, "width": COLUMNS, "count": 1, "dtype": values.dtype}
        with rasterio.open(path, "w", "GTiff", crs="EPSG:4326", transform=place, **size) as file:
            file.write(values, 1)
            file.units = (units,)
            file.update_tags(1, **attributes)
        return path
    axes = {
        "lat": ("lat", LATITUDES, {"units": "degrees_north"}),
        "lon": ("lon", LONGITUDES, {"units": "degrees_east"}),
    }
    dataset = xarray.Dataset({"elevation": (("lat", "lon"), values, {"units": units, **attributes})}, axes)
    encoding = {"elevation": {"_FillValue": None}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".zarr":
            dataset.to_zarr(path, encoding=encoding)
        else:
            dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def prepared(folder, path, name="elevation"):
    plan = SplitPlan(tile_size=20, buffer_cells=0, shares=(0.34, 0.33, 0.33))
    prepare_landuse(folder / "o", [str(p) for p in write_classes(folder)], [f"{name}={path}"], table=TABLE, plan=plan)
    with h5py.File(folder / "o" / "train" / "train.h5") as file:
        return file["static"][:, 0], file["tile_index"][:], str(dict(file.attrs))


def emulated(path):
    return read_static({"elevation": path}, ["elevation"]).values[0]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("said", [{"positive": "down"}, {"standard_name": "sea_floor_depth_below_geoid"}])
def test_depths_become_heights_and_are_said(tmp_path, name, said):
    path = write(tmp_path / name, GROUND, **said)
    with pytest.warns(EarthsrWarning, match=f"{name}.*depths .* are turned into heights$"):
        static, tiles, attributes = prepared(tmp_path, path)
    for values, (row, column) in zip(static, tiles, strict=True):
        np.testing.assert_array_equal(values, -GROUND[row : row + 20, column : column + 20])
    assert "turned into heights" in attributes
    with pytest.warns(EarthsrWarning, match="turned into heights"):
        np.testing.assert_array_equal(emulated(path), -GROUND)


def test_an_array_of_depths_is_turned_as_its_file_is(tmp_path):
    path = write(tmp_path / "a.nc", GROUND, positive="down")
    with xarray.open_dataset(path) as file, pytest.warns(EarthsrWarning, match="turned into heights"):
        np.testing.assert_array_equal(emulated(file["elevation"].load()), -GROUND)


@pytest.mark.parametrize("units", ["m", "metres", "m above sea level", "1"])
def test_a_common_fill_value_is_refused_whatever_metres_are_called(tmp_path, units):
    path = write(tmp_path / "a.tif", with_corner(-9999), units=units)
    for read in (emulated, lambda p: prepared(tmp_path, p)):
        with pytest.raises(DataError, match=r"a.tif: 12 cells hold -9999, .*rio edit-info --nodata -9999 a.tif"):
            read(path)


def test_an_array_with_a_fill_value_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", with_corner(-9999))
    with (
        xarray.open_dataset(path) as file,
        pytest.raises(DataError, match=r"elevation: 12 cells hold -9999, .*make them NaN"),
    ):
        emulated(file["elevation"].load())


def test_what_is_only_likely_to_be_a_fill_value_is_a_warning(tmp_path):
    """No option of these commands could say that it is ground."""
    path = write(tmp_path / "a.tif", with_corner(-1))
    with pytest.warns(EarthsrWarning, match="a.tif: 12 cells hold -1, .*rio edit-info --nodata -1 a.tif"):
        assert emulated(path).min() == -1


@pytest.mark.parametrize("number", [-9999, -32768, -3.4028235e38, 1e20])
def test_fill_values_in_fields_that_are_no_elevation_are_refused(tmp_path, number):
    slope = (GROUND / 100).astype(np.float32)
    path = write(tmp_path / "a.tif", with_corner(number, slope), units="degrees")
    with pytest.raises(DataError, match=r"a.tif: 12 cells hold -?[\d.e+]+, a fill value .*rio edit-info --nodata"):
        prepared(tmp_path, path, "slope")


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-9999, 9999, 200).reshape(10, 20),
        np.full((10, 20), np.nan),
        np.where(np.arange(200).reshape(10, 20) < 3, -999, np.nan),
        np.linspace(-2000, 2000, 201)[:200].reshape(10, 20).round() - 999,
        np.zeros((10, 20)),
    ],
)
def test_values_like_all_others_are_no_fill_values(values):
    require_no_common_fill(values.astype(np.float32), "a.tif")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("number", "said"), [(None, {"standard_name": "depth", "positive": "up"}), (-9999.9, {}), (1e20, {})]
)
def test_the_remedy_works_when_it_is_typed(tmp_path, name, number, said):
    path = write(tmp_path / name, GROUND if number is None else with_corner(number), **said)
    with pytest.raises(DataError) as refusal:
        emulated(path)
    command = re.search(r"(rio edit-info .*|ncatted .*|python -c \".*\") (declares|says)", str(refusal.value))[1]
    if command.startswith("ncatted") and shutil.which("ncatted") is None:
        pytest.skip("NCO is not installed")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, env={**os.environ, "PATH": search})
    values = emulated(path)
    assert int(np.isnan(values).sum()) == (0 if number is None else 12)
    assert np.nanmin(values) >= 1000

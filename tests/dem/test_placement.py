"""A coarse raster that lies beside where it says, moved by what is given or by what is measured against a finer one."""

import numpy as np
import pytest
import rasterio
import xarray

import earthsr
from earthsr.dem.predict.placement import offset_of
from earthsr.errors import DataError, InputError
from earthsr.geo import Georeference
from earthsr.geo.resample import block_mean
from tests.cli.test_bad_input import assert_refused
from tests.conftest import call_cli
from tests.dem.test_prepare_dem import CELL, NORTH, WEST, cells, write_dem

ROWS, COLUMNS = 48, 64
#: Fine cells by which the coarse file's georeference lies west and south of its own cells.
EAST, NORTHWARD = 0.5, 1.0


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """Fine truth, and its block means with a georeference that is wrong by a known way."""
    folder = tmp_path_factory.mktemp("rasters")
    fine = cells(ROWS * 5, COLUMNS * 5).astype(np.float32)
    coarse = block_mean(fine, 5)
    place = {"west": WEST - EAST * CELL, "north": NORTH - NORTHWARD * CELL, "cell": 5 * CELL}
    return write_dem(folder / "fine.tif", fine), write_dem(folder / "coarse.tif", coarse, **place)


def predicted(rasters, tmp_path, *words):
    target = tmp_path / "out.tif"
    done = call_cli("predict", "demo-dem", rasters[1], target, "--backend", "torch", "--overwrite", *words)
    assert done.returncode == 0, done.stderr
    with rasterio.open(target) as file:
        return file.transform, file.read(1), file.tags()


def test_nothing_is_moved_that_was_not_asked_for(rasters, tmp_path):
    transform, _, tags = predicted(rasters, tmp_path)
    assert transform.c == pytest.approx(WEST - EAST * CELL, abs=1e-9)
    assert "moved" not in " ".join(tags.values())


def test_a_raster_is_moved_east_and_north_by_fine_cells(rasters, tmp_path):
    _, before, _ = predicted(rasters, tmp_path)
    transform, after, tags = predicted(rasters, tmp_path, "--offset", f"{EAST},{NORTHWARD}")
    assert transform.c == pytest.approx(WEST, abs=1e-9)
    assert transform.f == pytest.approx(NORTH, abs=1e-9)
    np.testing.assert_array_equal(after, before)  # its place changes, never its values
    assert "moved by +0.500 fine cells east and +1.000 north" in " ".join(tags.values())


def test_the_offset_is_measured_against_a_finer_raster(rasters, tmp_path):
    transform, _, tags = predicted(rasters, tmp_path, "--register", rasters[0])
    # To a tenth of a fine cell: least squares on gradients of fields that are means of others.
    assert (transform.c - WEST) / CELL == pytest.approx(0, abs=0.1)
    assert (transform.f - NORTH) / CELL == pytest.approx(0, abs=0.1)
    assert "measured against fine.tif" in " ".join(tags.values())


def test_metres_are_taken_at_the_middle_latitude():
    grid = Georeference(west=0.0, north=60.05, cell_x=0.01, cell_y=0.01, rows=10, columns=10)
    degree = np.pi / 180 * 6_371_008.8
    east, north = offset_of(f"{0.002 * degree / 2}m,{0.002 * degree}m", grid, 5)
    assert (east, north) == (pytest.approx(1.0, rel=1e-3), pytest.approx(1.0))  # cos 60° is a half


def test_a_dataarray_is_moved_too(rasters):
    with rasterio.open(rasters[1]) as file:
        values, t = file.read(1), file.transform
    latitude = t.f + t.e * (np.arange(ROWS) + 0.5)
    longitude = t.c + t.a * (np.arange(COLUMNS) + 0.5)
    array = xarray.DataArray(
        values,
        {"lat": ("lat", latitude, {"units": "degrees_north"}), "lon": ("lon", longitude, {"units": "degrees_east"})},
        attrs={"units": "m"},
    )
    model = earthsr.from_pretrained("demo-dem", backend="torch")
    plain, moved = earthsr.predict(model, array), earthsr.predict(model, array, offset=(EAST, NORTHWARD))
    np.testing.assert_allclose(moved.lon.values - plain.lon.values, EAST * CELL, atol=1e-9)
    np.testing.assert_allclose(moved.lat.values - plain.lat.values, NORTHWARD * CELL, atol=1e-9)
    assert "moved" in moved.attrs["input_notes"]


@pytest.mark.parametrize("text", ["0.5", "a,b", "1m,2", "nan,0", "1,2,3"])
def test_an_offset_that_is_none_is_refused(rasters, tmp_path, text):
    done = call_cli("predict", "demo-dem", rasters[1], tmp_path / "o.tif", "--backend", "torch", "--offset", text)
    assert_refused(done, "--offset", text, "0.5,0.5", "46m,46m")
    assert not (tmp_path / "o.tif").exists()


def test_one_of_both_is_enough(rasters, tmp_path):
    words = ("--offset", "0,0", "--register", rasters[0])
    done = call_cli("predict", "demo-dem", rasters[1], tmp_path / "o.tif", "--backend", "torch", *words)
    assert_refused(done, "--offset", "--register", "one of them")


def test_a_reference_that_tells_nothing_is_refused(rasters, tmp_path):
    elsewhere = write_dem(tmp_path / "elsewhere.tif", cells(40, 40).astype(np.float32), west=WEST + 20)
    flat = write_dem(tmp_path / "flat.tif", np.full((ROWS * 5, COLUMNS * 5), 7, np.float32))
    coarser = write_dem(tmp_path / "same.tif", block_mean(cells(200, 200).astype(np.float32), 5), cell=5 * CELL)
    for path, error, words in (
        (elsewhere, InputError, "shares no ground"),
        (flat, DataError, "--offset EAST,NORTH"),
        (coarser, DataError, "expected 5"),
    ):
        with pytest.raises(error, match=words):
            earthsr.predict(
                earthsr.from_pretrained("demo-dem", backend="torch"), rasters[1], tmp_path / "o.tif", register=path
            )
    assert not (tmp_path / "o.tif").exists()

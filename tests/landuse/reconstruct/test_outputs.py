"""What tools open, and what another backend makes of the same weights."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.landuse.maps import open_maps
from earthsr.landuse.reconstruct import Options, reconstruct
from tests.conftest import call_cli, installed
from tests.landuse.reconstruct.cases import SMALL, box, everything, inputs_of, names

YEARS = (1992, 1994)


@pytest.mark.slow
def test_netcdf_opens_with_xarray(model, part, tmp_path):
    xarray = pytest.importorskip("xarray")
    options = Options(chunk=32, batch_size=4, keep=("confidence",))
    reconstruct(model, part, YEARS, tmp_path / "maps.zarr", options)
    reconstruct(model, part, YEARS, tmp_path / "maps.nc", options)
    opened = open_maps(tmp_path / "maps.zarr").spec
    with xarray.open_dataset(tmp_path / "maps.nc", engine="h5netcdf", mask_and_scale=False) as found:
        codes = found["land_use"]
        assert codes.dims == ("time", "lat", "lon")
        assert [int(day.dt.year) for day in found["time"]] == [1992, 1993, 1994]
        assert codes.attrs["flag_meanings"].split() == [name.replace("/", "_") for name in opened.table.names]
        assert found[codes.attrs["grid_mapping"]].attrs["grid_mapping_name"] == "latitude_longitude"
        assert found.attrs["Conventions"].startswith("CF-")
        assert len(json.loads(found.attrs["provenance"])["checkpoint_sha256"]) == 64
        indices = np.full(256, 255)
        indices[list(codes.attrs["flag_values"])] = np.arange(len(opened.table))
        assert np.array_equal(indices[codes.values], everything(tmp_path / "maps.zarr"))


@pytest.mark.slow
def test_geotiffs_open_with_rasterio(model, part, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    reconstruct(model, part, YEARS, tmp_path / "maps.zarr", SMALL)
    reconstruct(model, part, YEARS, tmp_path / "maps.tif", SMALL)
    expected = everything(tmp_path / "maps.zarr")
    spec = open_maps(tmp_path / "maps.zarr").spec
    indices = np.full(256, 255)
    indices[[each.code for each in spec.table.classes]] = np.arange(len(spec.table))
    for place, year in enumerate(range(1992, 1995)):
        with rasterio.open(tmp_path / f"maps_{year}.tif") as found:
            assert found.crs.to_epsg() == 4326
            assert found.nodata == 255
            assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert found.transform.c == pytest.approx(spec.grid.west)
            assert np.array_equal(indices[found.read(1)], expected[place])
    assert not (tmp_path / "maps.tif").exists()


@pytest.mark.slow
def test_a_kill_inside_the_export_of_geotiffs_carries_on(world, grid, any_backend, tmp_path):
    """Killed in the second of three files: the same command, without --overwrite, writes the others, and cleans up."""
    bounds = ",".join(f"{edge:.6f}" for edge in box(grid, 0, 0, 32, 64))
    inputs = inputs_of(world / "archives")
    words = ["reconstruct", world / "model.safetensors", "--anchor", inputs.anchor, "--years", "1992:1994"]
    words += [word for path in inputs.scenario for word in ("--scenario", path)]
    words += [word for text in inputs.static for word in ("--static", text)]
    words += ["--chunk", 32, "--batch-size", 4, "--backend", any_backend, f"--bbox={bounds}", "--output"]
    script = """
import os, signal, sys
from earthsr.landuse.maps import export
write, left = export._write, [2]
def killed(*arguments):
    write(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
export._write = killed
from earthsr.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    target = tmp_path / "cut" / "maps.tif"
    command = [sys.executable, "-c", script, *map(str, words), str(target)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    tiffs = [f"maps_{year}.tif" for year in (1992, 1993, 1994)]
    assert [(target.parent / name).exists() for name in tiffs] == [True, False, False]
    assert any(name.startswith(".maps_1993.tif.part-") for name in names(target.parent))
    first = (target.parent / tiffs[0]).stat()
    again = call_cli(*words, target, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["chunks"] == 0
    assert (target.parent / tiffs[0]).stat().st_ino == first.st_ino, "what was finished is not made again"
    assert call_cli(*words, tmp_path / "whole" / "maps.tif").returncode == 0
    rasterio = pytest.importorskip("rasterio")
    assert names(target.parent) == names(tmp_path / "whole")
    for name in tiffs:
        with rasterio.open(target.parent / name) as cut, rasterio.open(tmp_path / "whole" / name) as whole:
            assert np.array_equal(cut.read(), whole.read())


@pytest.mark.slow
def test_both_backends_make_nearly_the_same_maps(world, tmp_path):
    """The same weights, five years. All 61,440 cells were equal when this was written.

    A cell in a thousand may differ: float32 sums in another order decide between classes that are equally likely, and
    such a cell is a prior of those around it in the years after.
    """
    maps = {}
    for name in ("torch", "mindspore"):
        if not installed(name):
            pytest.skip(f"backend {name} is not installed")
        model = Model.from_checkpoint(world / "model.safetensors", backend=name)
        reconstruct(model, inputs_of(world / "archives"), (1991, 1995), tmp_path / f"{name}.zarr", SMALL)
        maps[name] = everything(tmp_path / f"{name}.zarr")
    equal = (maps["torch"] == maps["mindspore"])[maps["torch"] != 255].mean()
    assert equal > 0.999

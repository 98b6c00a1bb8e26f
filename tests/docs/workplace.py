"""Where the commands of a document are run: a copy of the repository, smaller configurations, made archives.

The archives have the names that the documents give to those that a reader brings, and their form: SRTM's tiles, a grid
of elevation like GEBCO's, HILDA+'s classes, LUH2's states.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from earthsr.config import Config
from earthsr.models import DemSRNetSpec, initial_weights, write_weights
from tests.cli.test_prepare_landuse import CODES, states, write_nc, write_tif
from tests.conftest import REPOSITORY, call_cli, write_patches
from tests.dem.test_prepare_dem import CELL, cells, write_dem

#: Keys that are smaller in the copy than in the repository; only where a configuration has them.
SMALLER = {"features": 4, "width": 4, "depth": 1, "num_blocks": 1, "epochs": 1}
#: Configurations that name blocks of the paper's network by number.
DEEP = ("dem_srnet.yaml", "dem_srnet_ocean.yaml")


def make_workplace(folder):
    """Copy the repository as it stands, without what git ignores, and bring what a reader would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    for path in (folder / "configs").glob("*.yaml"):
        make_smaller(path)
    bring(folder)
    return folder


def make_smaller(path):
    """Write a configuration anew with few features and one epoch; other kinds of files stay as they are."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not set(values) <= set(Config.model_fields):
        return
    for section in ("model", "optimizer"):
        for key, small in SMALLER.items():
            if key in values.get(section, {}) and not (key == "num_blocks" and path.name in DEEP):
                values[section][key] = small
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def environment():
    """Return the environment of a reader's shell: this Python's commands first, one thread."""
    bin_folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def bring(folder):
    """Make everything that a reader of the documents brings or has from earlier."""
    _bring_elevation(folder)
    _bring_land_use(folder)
    shutil.copy(folder / "configs" / "dem_srnet_demo.yaml", folder / "my.yaml")
    # MindEarth's own weights, under its own names.
    spec = DemSRNetSpec(features=4, num_blocks=2, residual_scale=0.1, global_skip="input", resize="asymmetric")
    write_weights(folder / "own.safetensors", spec, initial_weights(spec, 0), {"units": "m"})
    done = call_cli("convert", folder / "own.safetensors", folder / "demnet.ckpt", "--names", "mindearth")
    assert done.returncode == 0, done.stderr


def _bring_elevation(folder):
    (folder / "srtm").mkdir()
    for name, west, north in (("N46E007", 7, 47), ("N46E008", 8, 47), ("N49W123", -123, 50)):
        values = cells(400, 480, west, north).astype(np.int16)
        write_dem(folder / "srtm" / f"{name}.tif", values, west, north, nodata=-32768)
    # Of the box of the examples, 5 to 11 degrees east and 45 to 48 north, what accounts.py takes, and some more.
    _write_grid(folder / "gebco.nc", west=7, north=47.5, rows=480, columns=840)
    _write_hgt(folder / "nasadem" / "n46e008.hgt")
    write_patches(folder / "dataset" / "ocean", patch=32)
    write_dem(folder / "coarse.tif", cells(48, 64, cell=1 / 240).astype(np.float32), cell=1 / 240)
    regions = yaml.safe_load((REPOSITORY / "configs" / "benchmark_dem.yaml").read_text(encoding="utf-8"))
    land = [name for group in regions["land"]["groups"].values() for name in group]
    ocean = [name for split in ("train", "valid", "test") for name in regions["ocean"][split]]
    for kind, names in (("land", land), ("more", regions["land"]["validation"]), ("ocean", ocean)):
        (folder / "regions" / kind).mkdir(parents=True)
        for name in names:
            write_dem(folder / "regions" / kind / f"{name}.tif", cells(40, 40).astype(np.int16))


def _write_hgt(path):
    """A tile of SRTM's own format: 1201 x 1201 big-endian integers, edges on whole degrees; its place is its name."""
    path.parent.mkdir()
    values = cells(1201, 1201, 8 - CELL / 2, 47 + CELL / 2)
    path.write_bytes(np.round(values).astype(">i2").tobytes())


def _write_grid(path, west, north, rows, columns):
    """A grid of 15 arc-seconds, as GEBCO's, of the hills that the other rasters show."""
    import xarray

    cell = 1 / 240
    elevation = xarray.DataArray(
        cells(rows, columns, west, north, cell).astype(np.int16),
        dims=("lat", "lon"),
        coords={
            "lat": ("lat", north - cell * (np.arange(rows) + 0.5), {"units": "degrees_north"}),
            "lon": ("lon", west + cell * (np.arange(columns) + 0.5), {"units": "degrees_east"}),
        },
        attrs={"units": "m", "standard_name": "height_above_mean_sea_level"},
        name="elevation",
    )
    elevation.to_netcdf(path, engine="h5netcdf")


def _bring_land_use(folder):
    import xarray

    rows, columns, cell, west, north = 128, 960, 0.01, -3.7, 52.3
    years = np.arange(2013, 2021)
    rng = np.random.default_rng(0)
    # Patches of land use rather than noise; they change from year to year in places.
    blocks = rng.choice(CODES[:8], (len(years), rows // 16, columns // 16)).astype(np.int16)
    maps = np.kron(blocks, np.ones((1, 16, 16), np.int16))
    maps[:, :48] = 0  # the sea, in the north
    axes = {
        "time": ("time", years - 1900.0, {"units": "years since 1900-01-01", "calendar": "365_day"}),
        "lat": ("lat", north - cell * (np.arange(rows) + 0.5), {"units": "degrees_north"}),
        "lon": ("lon", west + cell * (np.arange(columns) + 0.5), {"units": "degrees_east"}),
    }
    classes = xarray.Dataset({"LULC_states": (("time", "lat", "lon"), maps)}, axes)
    classes.to_netcdf(folder / "hilda_plus_states.nc", engine="h5netcdf")
    write_nc(folder / "states.nc", states(range(2012, 2021), columns=60))
    for name in ("dem", "soil"):
        values = rng.normal(300, 50, (rows // 4, columns // 4)).astype(np.float32)
        write_tif(folder / f"{name}.tif", values, west, north, 4 * cell)

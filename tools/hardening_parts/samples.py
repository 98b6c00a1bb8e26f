"""Small whole files of every format, from which mutated ones are made."""

from __future__ import annotations

import shutil
from pathlib import Path

ROWS, COLUMNS, CELL = 24, 32, 1 / 240


def make_samples(folder: Path) -> int:
    """Write all samples; 0 where they are whole. Runs in a child: it computes and begins threads."""
    import numpy as np

    folder.mkdir(parents=True)
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    heights = (800 + 300 * np.sin(rows / 7) * np.cos(columns / 9)).astype(np.float32)
    np.savez(folder / "dem.npz", elevation=heights, cell_size_deg=CELL, crs="EPSG:4326")
    _geotiff(folder / "dem.tif", heights)
    _fields(folder, heights)
    _earthsr("sample", "dem", folder / "patches", "--stride", 16, "--patch-size", 8)
    world = ("--rows", 48, "--columns", 256, "--tile", 16, "--years", "1990:1993", "--held-out-years", 1)
    _earthsr("sample", "landuse", folder / "landuse", *world)
    _models(folder)
    return 0


def _earthsr(*words: object) -> None:
    from earthsr.cli import main

    if main([str(word) for word in words]):
        raise RuntimeError(f"earthsr {' '.join(map(str, words))} failed")


def _geotiff(path: Path, heights) -> None:
    import rasterio

    transform = rasterio.transform.from_origin(10, 47, CELL, CELL)
    profile = {"dtype": "float32", "nodata": -32768, "compress": "deflate", "tiled": True, "blockxsize": 16}
    with rasterio.open(
        path, "w", "GTiff", COLUMNS, ROWS, 1, "EPSG:4326", transform, blockysize=16, **profile
    ) as raster:
        raster.write(heights, 1)
        raster.units = ("m",)


def _fields(folder: Path, heights) -> None:
    import numpy as np
    import xarray

    axes = {
        "lat": ("lat", 47 - CELL * (np.arange(ROWS) + 0.5), {"units": "degrees_north"}),
        "lon": ("lon", 10 + CELL * (np.arange(COLUMNS) + 0.5), {"units": "degrees_east"}),
    }
    notes = {"units": "m", "standard_name": "height_above_mean_sea_level"}
    field = xarray.Dataset({"elevation": (("lat", "lon"), heights, notes)}, axes)
    encoding = {"elevation": {"_FillValue": np.float32(-32768)}}
    field.to_netcdf(folder / "dem.nc", engine="h5netcdf", encoding=encoding)
    field.to_netcdf(folder / "dem_classic.nc", engine="scipy", format="NETCDF3_CLASSIC", encoding=encoding)
    for version in (2, 3):
        field.to_zarr(folder / f"dem_v{version}.zarr", zarr_format=version, consolidated=version == 2)


def _models(folder: Path) -> None:
    import torch

    import earthsr
    from earthsr.models import DemSRNetSpec, initial_weights, write_weights

    spec = DemSRNetSpec(features=4, num_blocks=1, residual_over="bicubic")
    notes = {"task": "dem_sr", "units": "m", "normalisation": {"kind": "patch", "offset": 0.0, "scale": 100.0}}
    write_weights(folder / "weights.safetensors", spec, initial_weights(spec, 0), notes)
    _earthsr("convert", folder / "weights.safetensors", folder / "weights.pt")
    _earthsr("export", folder / "weights.safetensors", folder / "model.onnx", "--backend", "torch")
    configs = Path(earthsr.__file__).parent.parent / "configs"
    shutil.copy(configs / "dem_srnet_demo.yaml", folder / "config.yaml")
    assert torch.__version__

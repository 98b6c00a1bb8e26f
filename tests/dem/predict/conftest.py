"""A small model, a small raster, and pieces so small that the raster has several."""

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict import plan
from earthsr.geo import cog
from earthsr.models import DemSRNetSpec, write_weights

rasterio = pytest.importorskip("rasterio")

SCALE = 2
CELL = 1 / 240


def hills(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1)
    return np.round(1500 + 300 * (field - field.mean()) / field.std())


def write_raster(path, values, west=7.0, north=47.0, cell=CELL, dtype="float32", crs="EPSG:4326", nodata=-32768):
    profile = {"driver": "GTiff", "width": values.shape[1], "height": values.shape[0], "count": 1, "dtype": dtype}
    transform = rasterio.Affine(cell, 0, west, 0, -cell, north)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata) as file:
        file.write(np.where(np.isnan(values), nodata, values).astype(dtype), 1)
        file.units = ("m",)
    return path


def read_band(path, band=1):
    with rasterio.open(path) as file:
        values = file.read(band)
        return np.where(values == file.nodata, np.float32(np.nan), values)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    spec = DemSRNetSpec(features=4, num_blocks=1, residual_over="bicubic", scale=SCALE)
    rng = np.random.default_rng(0)
    weights = {p.name: (0.3 * rng.normal(size=p.shape) * p.fan_in**-0.5).astype(np.float32) for p in spec.parameters}
    metadata = {"task": "dem_sr", "units": "m", "normalisation": Normalisation("patch", 0.0, 200.0).to_dict()}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_weights(path, spec, weights, metadata)
    return path


@pytest.fixture(scope="session")
def model(model_file, any_backend):
    return Model.from_checkpoint(model_file, backend=any_backend)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 16 coarse cells, which are 32 fine ones, and tiles of a file of 16."""
    monkeypatch.setattr(plan, "CHUNK", 16)
    monkeypatch.setattr(plan, "SAMPLE_CELLS", 8)
    monkeypatch.setattr(cog, "TILE", 16)


@pytest.fixture
def coarse(tmp_path):
    values = hills(40, 56)
    values[20:23, 30:33] = np.nan
    return write_raster(tmp_path / "coarse.tif", values)

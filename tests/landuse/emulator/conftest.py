"""One small world and an untrained network for all emulators; only read."""

import pytest

from earthsr import Emulator
from earthsr.backend import Model
from tests.conftest import small_world
from tests.landuse.emulator.cases import PART, opened
from tests.landuse.reconstruct.cases import write_model


@pytest.fixture(scope="package")
def world(tmp_path_factory):
    """Split files, archives and an untrained network."""
    root = small_world(tmp_path_factory.mktemp("world"), archives=True)
    write_model(root / "model.safetensors", root)
    return root


@pytest.fixture(scope="package")
def model(world, any_backend):
    return Model.from_checkpoint(world / "model.safetensors", backend=any_backend)


@pytest.fixture(scope="package")
def static(world):
    """Of the whole world; the emulators here take a part of it."""
    return opened(world / "archives" / "static.nc")


@pytest.fixture(scope="package")
def scenario(world):
    """All years, as states of LUH2 are opened."""
    return opened(world / "archives" / "scenario_historical.nc"), opened(world / "archives" / "scenario_future.nc")


@pytest.fixture(scope="package")
def anchor(world):
    return str(world / "archives" / "landuse_1993.tif")


@pytest.fixture
def emulator(model, static):
    """Of two coarse columns of land; not started."""
    return Emulator(model, static=static, bbox=PART, batch_size=4)

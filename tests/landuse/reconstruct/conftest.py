"""One small world and an untrained network for all reconstructions; only read."""

import pytest

from earthsr.backend import Model
from earthsr.landuse.reconstruct.plan import open_inputs
from tests.conftest import small_world
from tests.landuse.reconstruct.cases import box, inputs_of, write_model


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
def grid(world, model):
    """Of the anchor."""
    opened = open_inputs(model, inputs_of(world / "archives"))
    opened.close()
    return opened.grid


@pytest.fixture(scope="package")
def part(world, grid):
    """Inputs of two chunks with land, for tests that need no more."""
    return inputs_of(world / "archives", bbox=box(grid, 0, 0, 32, 64))

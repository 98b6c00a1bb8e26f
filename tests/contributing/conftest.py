"""Fixtures: a branch that holds the examples, and checkpoints with weights at which every layer shows."""

import pytest

from earthsr.config import load_yaml_config
from earthsr.models import DemSRNetSpec, initial_weights, write_weights
from earthsr.tasks import task_for
from tests.conftest import CONFIGS
from tests.contributing.blocks import make_branch


@pytest.fixture(scope="session")
def branch(tmp_path_factory):
    return make_branch(tmp_path_factory.mktemp("branch"))


def untrained(path, spec):
    """What backends compute does not depend on the weights' meaning."""
    notes = {"task": "dem_sr", "units": "m", "normalisation": {"kind": "patch", "offset": 0.0, "scale": 100.0}}
    return write_weights(path, spec, initial_weights(spec, 0, keep_zeros=False), notes)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The network of the demo."""
    spec = task_for(load_yaml_config(CONFIGS / "dem_srnet_demo.yaml")).spec()
    return untrained(tmp_path_factory.mktemp("demo") / "demo.safetensors", spec)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A network that takes no time."""
    spec = DemSRNetSpec(features=4, num_blocks=1, residual_over="bicubic")
    return untrained(tmp_path_factory.mktemp("small") / "small.safetensors", spec)

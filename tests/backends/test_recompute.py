"""Activations that are computed twice: the same numbers, less memory."""

import numpy as np
import pytest

from earthsr.errors import BackendError
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import CrossEntropyLoss, DemSRNetSpec, MSELoss, OptimizerSpec, UNetSpec, initial_weights
from earthsr.tasks.batches import synthetic_patches
from tests.conftest import backend_parameters, get_backend

DEM = DemSRNetSpec(features=8, num_blocks=3)
MAPS = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=2, norm="group", norm_groups=2)


def trained(backend, spec, objective, recompute=False, steps=4):
    engine = get_backend(backend).engine(spec, initial_weights(spec, 0), device="cpu")
    engine.prepare_training(objective, OptimizerSpec(), recompute=recompute)
    make = synthetic_tiles if isinstance(spec, UNetSpec) else synthetic_patches
    batches = make(spec, 16, 2, steps).batches
    losses = engine.run(batches, [1e-3] * steps).result().losses
    return losses, engine.export_state().weights


@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_parameters())
@pytest.mark.parametrize(("spec", "objective"), [(DEM, MSELoss()), (MAPS, CrossEntropyLoss())], ids=["dem", "maps"])
def test_recomputing_changes_no_number(backend, spec, objective):
    """The same operators on the same values in the same order: float32's rounding is allowed for other kernels."""
    plain, twice = (trained(backend, spec, objective, recompute) for recompute in (False, True))
    np.testing.assert_allclose(twice[0], plain[0], rtol=1e-6)
    for name, array in plain[1].items():
        np.testing.assert_allclose(twice[1][name], array, rtol=0, atol=1e-6 * max(np.abs(array).max(), 1e-3))


def test_recomputing_keeps_less():
    """What autograd holds between the passes: inputs of blocks, not what is inside of them."""
    torch = pytest.importorskip("torch")
    spec, held = DemSRNetSpec(features=16, num_blocks=8), {}
    for recompute in (False, True):
        engine = get_backend("torch").engine(spec, initial_weights(spec, 0), device="cpu")
        engine.prepare_training(MSELoss(), OptimizerSpec(), recompute=recompute)
        held[recompute] = 0

        def keep(tensor, recompute=recompute):
            held[recompute] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            engine.run(synthetic_patches(spec, 16, 2, 1).batches, [1e-3]).result()
    assert held[True] < 0.75 * held[False]


def test_batch_norm_is_not_counted_twice(any_backend):
    spec = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1)
    engine = get_backend(any_backend).engine(spec, initial_weights(spec, 0), device="cpu")
    with pytest.raises(BackendError, match=r"train\.recompute would count every batch twice"):
        engine.prepare_training(CrossEntropyLoss(), OptimizerSpec(), recompute=True)

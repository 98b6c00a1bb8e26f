"""What a loss is divided by: the valid weight of the whole step over all ranks, whatever that is.

Weights are relative: a hundredth of every class's weight, or of every sample's, changes no loss and no gradient. Where
nothing counts the loss is 0 and nothing is learnt.
"""

import dataclasses

import numpy as np
import pytest

from earthsr.backend import get_backend
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import (
    CrossEntropyLoss,
    DemSRNetSpec,
    HuberLoss,
    L1Loss,
    MSELoss,
    OptimizerSpec,
    UNetSpec,
    initial_weights,
)
from earthsr.tasks.batches import synthetic_patches
from tests.reference import demsrnet as reference

DEM = DemSRNetSpec(features=4, num_blocks=1, scale=2)
MAPS = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1, norm="group", norm_groups=2)
CLASS_WEIGHTS = (0.7, 0.2, 0.1)


def batch_of(spec):
    make = synthetic_tiles if isinstance(spec, UNetSpec) else synthetic_patches
    return make(spec, 8, 3, 1).batches[0]


def steps(backend, spec, objective, batches, accumulate=1):
    """Loss and first moments (a tenth of the gradient) of one step that changes no weight."""
    engine = backend.engine(spec, initial_weights(spec, 0, keep_zeros=False), device="cpu")
    engine.prepare_training(objective, OptimizerSpec(), accumulate)
    values = engine.run(batches, [0.0]).result()
    return values.losses[0], engine.export_state().first_moments


def cross_entropy(probabilities, batch, class_weights):
    """Weighted mean of ``-log(p)`` of the true class, in float64."""
    index = batch.target[:, 0].astype(int)
    known = index < len(class_weights)
    truth = np.take_along_axis(probabilities.astype(np.float64), np.where(known, index, 0)[:, None], axis=1)[:, 0]
    weight = batch.weight[:, 0] * np.where(known, np.take(class_weights, np.where(known, index, 0)), 0)
    return float((weight * -np.log(truth)).sum() / weight.sum())


def test_class_weights_of_any_size_give_the_weighted_mean(backend):
    batch, weights = batch_of(MAPS), tuple(1e-5 * weight for weight in CLASS_WEIGHTS)
    few = np.zeros_like(batch.mask)
    few[0, 0, 2, 3:6] = 1
    batch = dataclasses.replace(batch, mask=batch.mask * few)
    assert 0 < (batch.weight * max(weights)).sum() < 1e-3
    engine = backend.engine(MAPS, initial_weights(MAPS, 0, keep_zeros=False), device="cpu")
    wanted = cross_entropy(engine.submit(batch.inputs).result(), batch, weights)
    loss, moments = steps(backend, MAPS, CrossEntropyLoss(weights), [batch])
    assert wanted > 0.1
    assert loss == pytest.approx(wanted, rel=1e-5)
    _, others = steps(backend, MAPS, CrossEntropyLoss(tuple(1e5 * weight for weight in weights)), [batch])
    for name, moment in moments.items():
        np.testing.assert_allclose(moment, others[name], rtol=1e-4, atol=1e-6 * np.abs(moment).max(), err_msg=name)


@pytest.mark.parametrize("objective", [MSELoss(), L1Loss(), HuberLoss(0.5), MSELoss(slope=0.5)], ids=str)
def test_fractions_of_sample_weights_are_relative(backend, objective):
    batch = batch_of(DEM)
    small = dataclasses.replace(batch, sample_weight=batch.sample_weight * np.float32(2.0**-12))
    assert small.weight.sum() < 1
    (loss, moments), (other, others) = (steps(backend, DEM, objective, [each]) for each in (batch, small))
    assert loss > 0
    assert other == pytest.approx(loss, rel=1e-6)
    for name, moment in moments.items():
        np.testing.assert_allclose(others[name], moment, rtol=1e-5, atol=1e-7 * np.abs(moment).max(), err_msg=name)


def test_one_valid_cell_is_the_mean(backend):
    batch = batch_of(DEM)
    mask = np.zeros_like(batch.mask)
    mask[1, 0, 3, 4] = 1
    weight = np.float32([0, 0.25, 0])
    batch = dataclasses.replace(batch, mask=mask, sample_weight=weight)
    weights = initial_weights(DEM, 0, keep_zeros=False)
    error = reference.forward(DEM, weights, batch.inputs["elevation"]) - batch.target
    loss, _ = steps(backend, DEM, MSELoss(), [batch])
    assert loss == pytest.approx(error[1, 0, 3, 4] ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "objective"),
    [(DEM, MSELoss(slope=0.5)), (MAPS, CrossEntropyLoss(CLASS_WEIGHTS, 0.1, dice=0.5))],
    ids=["dem", "maps"],
)
def test_where_nothing_counts_the_loss_is_zero_and_nothing_is_learnt(backend, spec, objective):
    batch = batch_of(spec)
    empty = dataclasses.replace(batch, mask=np.zeros_like(batch.mask))
    loss, moments = steps(backend, spec, objective, [empty])
    assert loss == 0
    assert all((moment == 0).all() for moment in moments.values())


def test_an_empty_batch_of_several_takes_no_part(backend):
    batch = batch_of(MAPS)
    empty = dataclasses.replace(batch, mask=np.zeros_like(batch.mask))
    objective = CrossEntropyLoss(tuple(1e-6 * weight for weight in CLASS_WEIGHTS))
    alone, moments = steps(backend, MAPS, objective, [batch])
    both, others = steps(backend, MAPS, objective, [empty, batch], accumulate=2)
    assert both == pytest.approx(alone, rel=1e-6)
    for name, moment in moments.items():
        np.testing.assert_allclose(others[name], moment, rtol=1e-5, atol=1e-6 * np.abs(moment).max(), err_msg=name)


def test_a_loss_of_pytorch_itself_is_a_mean_over_valid_cells():
    torch = pytest.importorskip("torch")
    backend = get_backend("torch")
    for spec, native, objective in (
        (DEM, torch.nn.MSELoss(), MSELoss()),
        (MAPS, torch.nn.CrossEntropyLoss(), CrossEntropyLoss()),
    ):
        batch = batch_of(spec)
        half = batch.mask.copy()
        half[:, :, ::2] = 0
        (theirs, moments), (ours, others) = (
            steps(backend, spec, loss, [dataclasses.replace(batch, mask=half)]) for loss in (native, objective)
        )
        assert theirs == pytest.approx(ours, rel=1e-5)
        for name, moment in moments.items():
            np.testing.assert_allclose(moment, others[name], rtol=1e-4, atol=1e-5 * np.abs(moment).max(), err_msg=name)
        empty = dataclasses.replace(batch, mask=np.zeros_like(half))
        loss, moments = steps(backend, spec, native, [empty])
        assert loss == 0
        assert all((moment == 0).all() for moment in moments.values())

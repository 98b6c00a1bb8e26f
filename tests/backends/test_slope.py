"""The slope-aware loss, on every backend.

To the point loss is added a factor times the squared error of the gradients: over all pairs of cells beside or below
each other that are both valid, divided by the same valid weight. So neither padding nor masked values, nor the number
of batches that make a step, change it; and a prediction that is off by a constant has no error of slope.
"""

import dataclasses

import numpy as np
import pytest

from earthsr.data.batch import Batch
from earthsr.models import DemSRNetSpec, HuberLoss, L1Loss, MSELoss, OptimizerSpec, Precision, initial_weights
from tests.backends.test_engine import SPEC, assert_same_state, gradient_of, make_batch, ready, weight_of
from tests.reference import demsrnet as reference

TWO = DemSRNetSpec(features=4, num_blocks=1, scale=2, in_channels=2, out_channels=2)
SLOPED = MSELoss(slope=0.7)


def slope_of(error, weight):
    """The definition, one pair of cells at a time."""
    total = 0.0
    rows, columns = error.shape[-2:]
    for row in range(rows):
        for column in range(columns):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < rows and other[1] < columns:
                    pair = weight[..., row, column] * weight[..., other[0], other[1]]
                    total += (pair * (error[..., other[0], other[1]] - error[..., row, column]) ** 2).sum()
    return total


@pytest.mark.parametrize("spec", [SPEC, TWO], ids=["one channel", "two channels"])
@pytest.mark.parametrize(
    ("objective", "point"),
    [
        (MSELoss(slope=0.7), np.square),
        (L1Loss(slope=2.0), np.abs),
        (HuberLoss(0.5, slope=0.1), lambda e: np.where(np.abs(e) <= 0.5, 0.5 * e**2, 0.5 * (np.abs(e) - 0.25))),
    ],
    ids=["mse", "l1", "huber"],
)
def test_the_error_of_slopes_is_added_to_the_mean(backend, objective, point, spec):
    batch = make_batch(padding=1, spec=spec)
    engine = ready(backend, objective=objective, spec=spec)
    loss = engine.run([batch], [0.0]).result().losses[0]
    error = reference.forward(spec, initial_weights(spec, 0), batch.inputs["elevation"]) - batch.target
    weight = np.broadcast_to(weight_of(batch), error.shape)
    expected = ((weight * point(error)).sum() + objective.slope * slope_of(error, weight)) / weight.sum()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_constant_error_has_no_slope(backend):
    """With a truth that is the prediction and one metre, the loss is that metre's square and nothing more."""
    engine = ready(backend, objective=MSELoss(slope=1e3))
    batch = make_batch()
    truth = engine.submit(batch.inputs).result() + np.float32(1.0)
    loss = engine.run([dataclasses.replace(batch, target=truth)], [0.0]).result().losses[0]
    # Each pair's error is a rounding of 1e-7 or two: 1e3 times its square is nothing.
    assert loss == pytest.approx(1.0, rel=1e-6)


def test_padding_counts_for_nothing(backend):
    short = make_batch()
    padded = make_batch(padding=2)
    padded = Batch(
        {"elevation": np.concatenate([short.inputs["elevation"], padded.inputs["elevation"][3:]])},
        np.concatenate([short.target, padded.target[3:]]),
        np.concatenate([short.mask, np.ones_like(padded.mask[3:])]),
        padded.sample_weight,
    )
    a, b = ready(backend, objective=SLOPED), ready(backend, objective=SLOPED)
    one, two = gradient_of(a, short), gradient_of(b, padded)
    for name, value in one.items():
        # Equal but for the order of float32 sums.
        np.testing.assert_allclose(two[name], value, atol=1e-6 * np.abs(value).max() + 1e-9, err_msg=name)


def test_masked_values_count_for_nothing(backend):
    """Not in their own cell and not in the gradient between it and a valid neighbour."""
    batch = make_batch(masked=0.5)
    wild = dataclasses.replace(batch, target=np.where(batch.mask == 0, np.float32(1e6), batch.target))
    a, b = ready(backend, objective=SLOPED), ready(backend, objective=SLOPED)
    assert a.run([batch], [1e-3]).result().losses[0] == b.run([wild], [1e-3]).result().losses[0]
    assert_same_state(a.export_state(), b.export_state())


def test_accumulated_batches_equal_one_large_batch(backend):
    parts = [make_batch(1, masked=0.1), make_batch(2, masked=0.6)]
    whole = Batch(
        {"elevation": np.concatenate([part.inputs["elevation"] for part in parts])},
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.sample_weight for part in parts]),
    )
    a = ready(backend, objective=SLOPED, accumulate=2)
    b, plain = ready(backend, objective=SLOPED), ready(backend)
    one, two = a.run(parts, [1e-3]).result(), b.run([whole], [1e-3]).result()
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-6)
    np.testing.assert_allclose(one.gradient_norms, two.gradient_norms, rtol=1e-5)
    assert two.losses[0] > 1.1 * plain.run([whole], [1e-3]).result().losses[0]


def test_a_batch_without_valid_values_is_no_reason_for_nan(backend):
    engine = ready(backend, objective=SLOPED)
    assert engine.run([make_batch(masked=2.0)], [1e-3]).result().losses[0] == 0.0
    assert all(np.isfinite(value).all() for value in engine.export_state().weights.values())


def test_low_precision_computes_the_slopes_in_float32(backend):
    batch = make_batch()
    losses = []
    for level in ("O0", "O2"):
        engine = backend.engine(SPEC, initial_weights(SPEC, 0), device="cpu", precision=Precision(level))
        engine.prepare_training(SLOPED, OptimizerSpec())
        losses.append(engine.run([batch], [0.0]).result().losses[0])
    # bfloat16 has 8 bits; a mean over 432 cells and twice as many pairs averages its roundings.
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)

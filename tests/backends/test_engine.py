"""What every engine promises.

An engine takes a spec, weights and batches; it gives losses, gradients' norms and states. Padding and masked values
count for nothing. The update is Adam's as its paper states it, with the rate that the step was given. A state that
goes out and comes back, into this engine or another one of the same backend, changes nothing: the next steps are equal
bit for bit. Nothing is read from the device before it is asked for, and what was read once does not change.
"""

import dataclasses

import numpy as np
import pytest

from earthsr.data.batch import Batch
from earthsr.errors import BackendError, CheckpointError
from earthsr.models import (
    DemSRNetSpec,
    HuberLoss,
    L1Loss,
    MSELoss,
    OptimizerSpec,
    Precision,
    State,
    initial_weights,
)
from tests.conftest import installed
from tests.reference import demsrnet as reference

SPEC = DemSRNetSpec(features=4, num_blocks=1, scale=2)


def make_batch(seed=0, samples=3, padding=0, masked=0.2, spec=SPEC, size=6):
    rng = np.random.default_rng(seed)
    total = samples + padding
    weight = np.ones(total, np.float32)
    weight[samples:] = 0
    fine = size * spec.scale
    return Batch(
        inputs={"elevation": rng.normal(size=(total, spec.in_channels, size, size)).astype(np.float32)},
        target=rng.normal(size=(total, spec.out_channels, fine, fine)).astype(np.float32),
        mask=(rng.random((total, 1, fine, fine)) >= masked).astype(np.uint8),
        sample_weight=weight,
    )


def weight_of(batch):
    return (batch.mask * batch.sample_weight[:, None, None, None]).astype(np.float64)


def ready(backend, weights=None, objective=None, optimizer=None, accumulate=1, spec=SPEC):
    engine = backend.engine(spec, initial_weights(spec, 0) if weights is None else weights, device="cpu")
    engine.prepare_training(objective or MSELoss(), optimizer or OptimizerSpec(), accumulate)
    return engine


def gradient_of(engine, batch):
    """Gradient as the first moment shows it after one step from rest: m = (1 - beta1) g."""
    engine.run([batch], [0.0]).result()
    return {name: moment / 0.1 for name, moment in engine.export_state().first_moments.items()}


def assert_same_state(a, b):
    assert a.step == b.step
    for kind in ("weights", "first_moments", "second_moments"):
        left, right = getattr(a, kind), getattr(b, kind)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=f"{kind} {name}")


def test_weights_come_back_as_they_went_in(backend):
    weights = initial_weights(SPEC, 5)
    exported = backend.engine(SPEC, weights, device="cpu").export_state()
    assert list(exported.weights) == [parameter.name for parameter in SPEC.parameters]
    for name, value in weights.items():
        np.testing.assert_array_equal(exported.weights[name], value)
    assert exported.step == 0
    assert not exported.first_moments


def test_prediction_changes_nothing(backend):
    engine = ready(backend)
    engine.run([make_batch()], [1e-3]).result()
    before = engine.export_state()
    first = engine.submit(make_batch().inputs).result()
    second = engine.submit(make_batch().inputs).result()
    np.testing.assert_array_equal(first, second)
    assert_same_state(before, engine.export_state())


@pytest.mark.parametrize(
    ("objective", "point"),
    [
        (MSELoss(), lambda e: e**2),
        (L1Loss(), np.abs),
        (HuberLoss(0.5), lambda e: np.where(np.abs(e) <= 0.5, 0.5 * e**2, 0.5 * (np.abs(e) - 0.25))),
    ],
    ids=["mse", "l1", "huber"],
)
def test_loss_is_the_weighted_mean_over_valid_values(backend, objective, point):
    batch = make_batch(padding=1)
    engine = ready(backend, objective=objective)
    loss = engine.run([batch], [0.0]).result().losses[0]
    error = reference.forward(SPEC, initial_weights(SPEC, 0), batch.inputs["elevation"]) - batch.target
    weight = weight_of(batch)
    assert loss == pytest.approx((weight * point(error)).sum() / weight.sum(), rel=1e-5)


def test_gradient_equals_finite_differences_of_the_float64_reference(backend):
    batch, weights = make_batch(padding=1), initial_weights(SPEC, 0)
    gradient = gradient_of(ready(backend), batch)
    wide = {name: value.astype(np.float64) for name, value in weights.items()}
    inputs = batch.inputs["elevation"]

    def loss():
        return reference.masked_mse(SPEC, wide, inputs, batch.target, weight_of(batch))

    rng = np.random.default_rng(0)
    largest = float(max(np.abs(value).max() for value in gradient.values()))
    for name, value in wide.items():
        for _ in range(2):
            index = tuple(rng.integers(extent) for extent in value.shape)
            kept = value[index]
            value[index] = kept + 1e-5
            above = loss()
            value[index] = kept - 1e-5
            below = loss()
            value[index] = kept
            # Central differences are good to 1e-9 here; float32 sums over 432 cells to a few 1e-6 of the largest.
            assert gradient[name][index] == pytest.approx((above - below) / 2e-5, abs=2e-5 * largest)


@pytest.mark.slow
def test_padding_counts_for_nothing(backend):
    short, padded = make_batch(samples=3), make_batch(samples=3)
    rng = np.random.default_rng(9)
    grow = lambda a: np.concatenate([a, rng.normal(size=(2, *a.shape[1:])).astype(a.dtype)])  # noqa: E731
    padded = Batch(
        {"elevation": grow(short.inputs["elevation"])},
        grow(short.target),
        np.concatenate([short.mask, np.ones_like(short.mask[:2])]),
        np.array([1, 1, 1, 0, 0], np.float32),
    )
    a, b = ready(backend), ready(backend)
    loss_a, loss_b = (e.run([x], [1e-3]).result().losses[0] for e, x in ((a, short), (b, padded)))
    # Equal but for the order of float32 sums.
    assert loss_a == pytest.approx(loss_b, rel=1e-6)
    for name, value in a.export_state().first_moments.items():
        np.testing.assert_allclose(b.export_state().first_moments[name], value, atol=1e-6 * np.abs(value).max() + 1e-9)


def test_masked_values_count_for_nothing(backend):
    batch = make_batch(masked=0.5)
    wild = dataclasses.replace(batch, target=np.where(batch.mask == 0, np.float32(1e6), batch.target))
    a, b = ready(backend), ready(backend)
    assert a.run([batch], [1e-3]).result().losses[0] == b.run([wild], [1e-3]).result().losses[0]
    assert_same_state(a.export_state(), b.export_state())


def test_a_batch_without_valid_values_is_no_reason_for_nan(backend):
    batch = make_batch(masked=2.0)
    engine = ready(backend)
    assert engine.run([batch], [1e-3]).result().losses[0] == 0.0
    assert all(np.isfinite(value).all() for value in engine.export_state().weights.values())


def test_accumulated_batches_equal_one_large_batch(backend):
    # Different masks: the divisor has to be the valid weight of the whole step.
    parts = [make_batch(1, masked=0.1), make_batch(2, masked=0.8)]
    whole = Batch(
        {"elevation": np.concatenate([p.inputs["elevation"] for p in parts])},
        np.concatenate([p.target for p in parts]),
        np.concatenate([p.mask for p in parts]),
        np.concatenate([p.sample_weight for p in parts]),
    )
    a, b = ready(backend, accumulate=2), ready(backend)
    loss_a, loss_b = a.run(parts, [1e-3]).result(), b.run([whole], [1e-3]).result()
    np.testing.assert_allclose(loss_a.losses, loss_b.losses, rtol=1e-6)
    np.testing.assert_allclose(loss_a.gradient_norms, loss_b.gradient_norms, rtol=1e-5)
    assert a.export_state().step == b.export_state().step == 1


@pytest.mark.parametrize("eps", [1e-8, pytest.param(1e-3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "decay"), [("adam", 0.0), ("adam", 0.1), ("adamw", 0.1)])
def test_update_is_adam(backend, name, decay, eps):
    spec = OptimizerSpec(name=name, weight_decay=decay, eps=eps, beta1=0.8, beta2=0.95)
    engine = ready(backend, optimizer=spec)
    before = engine.export_state()
    zeros = {key: np.zeros_like(value) for key, value in before.weights.items()}
    before = State(before.weights, zeros, zeros)
    for step, rate in enumerate((1e-2, 3e-3, 5e-2), start=1):
        engine.run([make_batch(step)], [rate]).result()
        after = engine.export_state()
        assert after.step == step
        for key, weight in before.weights.items():
            m0, v0 = (d[key].astype(np.float64) for d in (before.first_moments, before.second_moments))
            m1, v1 = (d[key].astype(np.float64) for d in (after.first_moments, after.second_moments))
            gradient = (m1 - 0.8 * m0) / 0.2
            np.testing.assert_allclose(v1, 0.95 * v0 + 0.05 * gradient**2, rtol=2e-4, atol=1e-10)
            update = rate * (m1 / (1 - 0.8**step)) / (np.sqrt(v1 / (1 - 0.95**step)) + eps)
            shrunk = weight * (1 - rate * decay) if name == "adamw" else weight
            # The update itself to 1e-5, beside the rounding of the float32 weight that it is added to.
            np.testing.assert_allclose(
                after.weights[key], shrunk - update, atol=1e-5 * rate + 1.2e-7 * np.abs(weight).max()
            )
        before = after


def test_coupled_decay_is_part_of_the_gradient(backend):
    plain = gradient_of(ready(backend), make_batch())
    decayed = gradient_of(ready(backend, optimizer=OptimizerSpec(weight_decay=0.5)), make_batch())
    for name, weight in initial_weights(SPEC, 0).items():
        np.testing.assert_allclose(decayed[name], plain[name] + 0.5 * weight, atol=1e-5)


def test_clipping_scales_the_gradient_and_reports_its_norm_before(backend):
    batch = make_batch()
    free = gradient_of(ready(backend), batch)
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in free.values()))
    engine = ready(backend, optimizer=OptimizerSpec(clip_norm=norm / 4))
    reported = engine.run([batch], [0.0]).result().gradient_norms[0]
    assert reported == pytest.approx(norm, rel=1e-5)
    for name, value in engine.export_state().first_moments.items():
        np.testing.assert_allclose(value / 0.1, free[name] / 4, rtol=1e-4, atol=1e-7)
    loose = ready(backend, optimizer=OptimizerSpec(clip_norm=norm * 4))
    for name, value in gradient_of(loose, batch).items():
        np.testing.assert_allclose(value, free[name], rtol=1e-6)


def test_frozen_parameters_stay_byte_identical(backend):
    frozen = SPEC.select(["head", "blocks"])
    engine = ready(backend, optimizer=OptimizerSpec(frozen=frozen, name="adamw", weight_decay=0.1))
    engine.run([make_batch(1), make_batch(2)], [1e-2, 1e-2]).result()
    state = engine.export_state()
    for name, value in initial_weights(SPEC, 0).items():
        assert (state.weights[name].tobytes() == value.tobytes()) == (name in frozen), name
    assert set(state.first_moments) == set(state.weights) - frozen


def test_state_goes_out_and_comes_back_bit_for_bit(backend):
    batches = [make_batch(seed) for seed in range(5)]
    rates = [1e-3, 2e-3, 3e-3, 2e-3, 1e-3]
    straight = ready(backend)
    values = straight.run(batches, rates).result()
    first = ready(backend)
    early = first.run(batches[:2], rates[:2]).result()
    state = first.export_state()
    second = ready(backend, weights=initial_weights(SPEC, 99))
    second.load_state(state)
    assert_same_state(state, second.export_state())
    late = second.run(batches[2:], rates[2:]).result()
    np.testing.assert_array_equal(values.losses, np.concatenate([early.losses, late.losses]))
    assert_same_state(straight.export_state(), second.export_state())


def test_moments_loaded_before_training_is_prepared_are_kept(backend):
    first = ready(backend)
    first.run([make_batch(1)], [1e-2]).result()
    state = first.export_state()
    second = backend.engine(SPEC, initial_weights(SPEC, 0), device="cpu")
    second.load_state(state)
    second.prepare_training(MSELoss(), OptimizerSpec())
    for engine in (first, second):
        engine.run([make_batch(2)], [1e-2]).result()
    assert_same_state(first.export_state(), second.export_state())


def test_preparing_again_starts_the_optimiser_anew(backend):
    """Moments of a state that was loaded long ago do not come back."""
    first = ready(backend)
    first.run([make_batch(1)], [1e-2]).result()
    again = ready(backend)
    again.load_state(first.export_state())
    again.run([make_batch(2)], [1e-2]).result()
    again.prepare_training(MSELoss(), OptimizerSpec())
    fresh = ready(backend, weights=again.export_state().weights)
    for engine in (again, fresh):
        engine.run([make_batch(3)], [1e-2]).result()
    assert_same_state(again.export_state(), fresh.export_state())


def test_load_weights_forgets_moments(backend):
    engine = ready(backend)
    engine.run([make_batch()], [1e-2]).result()
    engine.load_weights(initial_weights(SPEC, 0))
    fresh = ready(backend)
    for each in (engine, fresh):
        each.run([make_batch(2)], [1e-2]).result()
    assert_same_state(engine.export_state(), fresh.export_state())


def test_an_exported_state_does_not_change_with_later_steps(backend):
    engine = ready(backend)
    engine.run([make_batch()], [1e-2]).result()
    state = engine.export_state()
    kept = {name: value.copy() for name, value in state.weights.items()}
    engine.run([make_batch(1)], [1e-2]).result()
    for name, value in kept.items():
        np.testing.assert_array_equal(state.weights[name], value)


def test_results_may_be_read_late(backend):
    a, b = ready(backend), ready(backend)
    late = [a.run([make_batch(i)], [1e-2]) for i in range(3)]
    soon = [b.run([make_batch(i)], [1e-2]).result().losses[0] for i in range(3)]
    assert [pending.result().losses[0] for pending in late] == soon
    assert late[0].result().losses[0] == soon[0]


def test_a_rate_of_zero_moves_nothing(backend):
    engine = ready(backend)
    engine.run([make_batch()], [0.0]).result()
    for name, value in initial_weights(SPEC, 0).items():
        np.testing.assert_array_equal(engine.export_state().weights[name], value)


@pytest.mark.parametrize(
    "level", [pytest.param("O1", marks=pytest.mark.slow), "O2", pytest.param("O3", marks=pytest.mark.slow)]
)
def test_low_precision_follows_float32(backend, level):
    batches = [make_batch(seed) for seed in range(3)]
    exact = ready(backend)
    low = backend.engine(SPEC, initial_weights(SPEC, 0), device="cpu", precision=Precision(level))
    low.prepare_training(MSELoss(), OptimizerSpec())
    a, b = (engine.run(batches, [1e-3] * 3).result().losses for engine in (exact, low))
    # bfloat16 keeps 8 bits: 0.4 % per rounding, a few of them one after the other.
    np.testing.assert_allclose(a, b, rtol=0.02)
    state = low.export_state()
    assert all(value.dtype == np.float32 for value in (*state.weights.values(), *state.first_moments.values()))
    assert low.precision


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "moments"])
def test_loading_is_strict(backend, damage):
    engine = ready(backend)
    state = engine.export_state()
    weights = dict(state.weights)
    moments = {}
    if damage == "missing":
        del weights["body.weight"]
    elif damage == "extra":
        weights["tail.weight"] = np.zeros(1, np.float32)
    elif damage == "shape":
        weights["body.weight"] = weights["body.weight"][:, :1]
    else:
        moments = {"tail.weight": np.zeros(1, np.float32)}
    with pytest.raises(CheckpointError, match=r"body\.weight|tail\.weight"):
        engine.load_state(State(weights, moments, moments))
    assert_same_state(state, engine.export_state())


def test_wrong_inputs_are_named(backend):
    engine = ready(backend)
    x = np.zeros((1, 1, 6, 6), np.float32)
    with pytest.raises(BackendError, match="takes elevation"):
        engine.submit({"height": x})
    with pytest.raises(BackendError, match=r"\(1, 2, 6, 6\), expected \(N, 1, any, any\)"):
        engine.submit({"elevation": np.zeros((1, 2, 6, 6), np.float32)})
    with pytest.raises(BackendError, match="3 batches for 1 learning rates"):
        engine.run([make_batch()] * 3, [1e-3])


def test_training_has_to_be_prepared(backend):
    engine = backend.engine(SPEC, initial_weights(SPEC, 0), device="cpu")
    with pytest.raises(BackendError, match="prepare_training"):
        engine.run([make_batch()], [1e-3])


def test_an_absent_device_is_refused_with_the_reason(backend):
    absent = [device.name for device in backend.describe().devices if not device.available]
    assert absent, "this machine has every device"
    for name in absent:
        with pytest.raises(BackendError, match=name if name == "ascend" else r"--device cpu"):
            backend.engine(SPEC, initial_weights(SPEC, 0), device=name)


def test_an_unknown_objective_is_refused(backend):
    engine = backend.engine(SPEC, initial_weights(SPEC, 0), device="cpu")
    unknown = dataclasses.replace(MSELoss(), name="perceptual")
    with pytest.raises(BackendError, match="perceptual"):
        engine.prepare_training(unknown, OptimizerSpec())


@pytest.mark.slow
@pytest.mark.skipif(not (installed("torch") and installed("mindspore")), reason="needs both backends")
def test_two_backends_live_in_one_process_and_agree():
    from earthsr.backend import get_backend

    engines = [ready(get_backend(name)) for name in ("torch", "mindspore")]
    batches, rates = [make_batch(seed) for seed in range(4)], [1e-3] * 4
    a, b = (engine.run(batches, rates).result() for engine in engines)
    # Float32 sums in another order; measured 2e-7 to 1e-6 here.
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-5)
    np.testing.assert_allclose(a.gradient_norms, b.gradient_norms, rtol=1e-4)
    engines[1].load_state(engines[0].export_state())
    assert_same_state(engines[0].export_state(), engines[1].export_state())

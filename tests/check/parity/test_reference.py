"""The float64 reference itself: its gradient against finite differences, its Adam against the paper's formula, and the
stored records against what it computes today."""

import hashlib

import numpy as np
import pytest

from earthsr.check.parity import compare, read_record
from earthsr.models import DemSRNetSpec
from earthsr.tasks.batches import synthetic_patches
from tests.check.parity.cases import CASES, RECORDS, reference_record
from tests.reference.demsrnet import anomaly, forward, masked_mse
from tests.reference.gradients import layers, loss_and_gradient

DEM_SR = [name for name, case in CASES.items() if isinstance(case.spec, DemSRNetSpec)]


@pytest.mark.slow
@pytest.mark.parametrize("name", DEM_SR)
def test_gradients_are_what_finite_differences_show(name):
    case = CASES[name]
    batch = case.inputs.batches[0]
    weights = {key: value.astype(np.float64) for key, value in case.weights.items()}
    arguments = (batch.inputs["elevation"], batch.target.astype(np.float64), batch.weight)
    slope = case.objective.slope
    loss, gradient = loss_and_gradient(case.spec, weights, *arguments, slope)
    assert loss == pytest.approx(masked_mse(case.spec, weights, *arguments, slope), rel=1e-12)
    rng = np.random.default_rng(0)
    for key, value in weights.items():
        direction = rng.normal(size=value.shape)
        step = 1e-6

        def along(amount, key=key, value=value, direction=direction):
            return masked_mse(case.spec, {**weights, key: value + amount * direction}, *arguments, slope)

        rise = (along(step) - along(-step)) / (2 * step)
        # Central differences: an error of the order of step**2 and 1e-16 / step; a ReLU may turn in between.
        assert (gradient[key] * direction).sum() == pytest.approx(rise, rel=1e-5, abs=1e-8), key


@pytest.mark.parametrize("name", ["local-mean", "slope"])
def test_a_constant_goes_through_a_network_of_anomalies(name):
    case = CASES[name]
    x = case.inputs.batches[0].inputs["elevation"].astype(np.float64)
    np.testing.assert_allclose(
        forward(case.spec, case.weights, x + 5000), forward(case.spec, case.weights, x) + 5000, atol=1e-9
    )


def test_an_anomaly_is_the_departure_from_the_mean_of_a_square():
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 6))
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    for row, column in np.ndindex(5, 6):
        mean = padded[..., row : row + 5, column : column + 5].mean(axis=(-1, -2))
        np.testing.assert_allclose(anomaly(x, 2)[..., row, column], x[..., row, column] - mean, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_stored_records_are_what_the_reference_computes(name):
    stored, made = read_record(RECORDS / f"{name}.safetensors"), reference_record(CASES[name])
    comparison = compare(stored, made)
    assert len(comparison.rows) > 20
    # Float64: another SciPy or processor may add in another order, and Adam's small gradients make the most of it.
    assert max(row.difference for row in comparison.rows) < 1e-9


def test_every_case_has_a_record_and_every_record_a_case():
    assert {path.stem for path in RECORDS.glob("*.safetensors")} == set(CASES)


@pytest.mark.parametrize("name", DEM_SR)
def test_the_mirrored_network_computes_the_same_in_exact_arithmetic(name):
    """The symmetry behind the own noise: transposed weights on transposed inputs give transposed layers."""
    case = CASES[name]
    spec, weights = case.spec, {key: value.astype(np.float64) for key, value in case.weights.items()}
    x = case.inputs.batches[0].inputs["elevation"][:, :, :, :5]  # not square: rows are no columns
    mirrored = spec.transpose_weights(weights)
    for key, value in spec.transpose_weights(mirrored).items():
        np.testing.assert_array_equal(value, weights[key])
    straight, turned = layers(spec, weights, x), layers(spec, mirrored, x.swapaxes(-1, -2))
    assert set(spec.layers) <= set(straight)
    for key in (*spec.layers, "output"):
        back = spec.transpose_layer(key, turned[key])
        # Float64 sums in another order.
        np.testing.assert_allclose(back, straight[key], atol=1e-12 * np.abs(straight[key]).max(), err_msg=key)
    if spec.upsampler == "pixel_shuffle":
        assert not np.allclose(turned["up"].swapaxes(-1, -2), straight["up"])


def test_made_inputs_are_the_same_on_every_machine():
    """Integers and powers of two: no rounding, so no processor's own."""
    inputs = synthetic_patches(CASES["paper"].spec, 6, 3, 2)
    digest = hashlib.sha256()
    for batch in inputs.batches:
        for array in (batch.inputs["elevation"], batch.target, batch.mask):
            digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest()[:16] == "62bea5c50d5bdc11"
    assert 0.05 < 1 - inputs.batches[0].mask.mean() < 0.15
    assert inputs.batches[0].target.std() > 0.2

"""The float64 reference itself: its gradient against finite differences, its Adam against the paper's formula, and the
stored records against what it computes today."""

import numpy as np
import pytest

from earthsr.parity import compare, read_record
from tests.parity.cases import CASES, RECORDS, reference_record
from tests.reference.demsrnet import masked_mse
from tests.reference.gradients import loss_and_gradient


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_what_finite_differences_show(name):
    case = CASES[name]
    batch = case.inputs.batches[0]
    weights = {key: value.astype(np.float64) for key, value in case.weights.items()}
    arguments = (batch.inputs["elevation"], batch.target.astype(np.float64), batch.weight)
    loss, gradient = loss_and_gradient(case.spec, weights, *arguments)
    assert loss == pytest.approx(masked_mse(case.spec, weights, *arguments), rel=1e-12)
    rng = np.random.default_rng(0)
    for key, value in weights.items():
        direction = rng.normal(size=value.shape)
        step = 1e-6

        def along(amount, key=key, value=value, direction=direction):
            return masked_mse(case.spec, {**weights, key: value + amount * direction}, *arguments)

        slope = (along(step) - along(-step)) / (2 * step)
        # Central differences: an error of the order of step**2 and 1e-16 / step; a ReLU may turn in between.
        assert (gradient[key] * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8), key


@pytest.mark.parametrize("name", CASES)
def test_stored_records_are_what_the_reference_computes(name):
    stored, made = read_record(RECORDS / f"{name}.safetensors"), reference_record(CASES[name])
    comparison = compare(stored, made)
    assert len(comparison.rows) > 20
    # Float64: another SciPy or processor may add in another order, and Adam's small gradients make the most of it.
    assert max(row.difference for row in comparison.rows) < 1e-9


def test_every_case_has_a_record_and_every_record_a_case():
    assert {path.stem for path in RECORDS.glob("*.safetensors")} == set(CASES)

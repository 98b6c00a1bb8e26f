import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthsr.config import OptimizerSection
from earthsr.training import learning_rate

STEPS, TOTAL = 10, 100


def rate(step, **settings):
    return learning_rate(OptimizerSection(**settings), 1e-3, step, STEPS, TOTAL)


def test_constant_is_constant():
    assert {rate(step) for step in range(TOTAL)} == {1e-3}


def test_exponential_decays_by_its_rate_once_per_epoch():
    settings = dict(schedule="exponential", decay_rate=0.9)
    assert rate(0, **settings) == 1e-3
    for epoch in range(1, 10):
        assert rate(epoch * STEPS, **settings) == pytest.approx(1e-3 * 0.9**epoch)
    assert 0.9e-3 < rate(5, **settings) < 1e-3


def test_cosine_ends_at_its_fraction():
    settings = dict(schedule="cosine", final_lr_fraction=0.1)
    assert rate(0, **settings) == pytest.approx(1e-3)
    assert rate(50, **settings) == pytest.approx(1e-3 * 0.55)
    assert rate(100, **settings) == pytest.approx(1e-4)
    assert rate(10_000, **settings) == pytest.approx(1e-4)


@pytest.mark.parametrize("schedule", ["constant", "exponential", "cosine"])
def test_warm_up_rises_linearly(schedule):
    plain = OptimizerSection(schedule=schedule)
    warm = [rate(step, schedule=schedule, warmup_steps=5) for step in range(6)]
    assert warm[0] == pytest.approx(1e-3 / 5, rel=0.02)
    assert warm[:5] == sorted(warm[:5])
    assert warm[4] == pytest.approx(learning_rate(plain, 1e-3, 4, STEPS, TOTAL), rel=0.02)


@given(st.sampled_from(["constant", "exponential", "cosine"]), st.integers(0, 300), st.integers(0, 50))
def test_rates_are_positive_and_never_above_the_base(schedule, step, warmup):
    value = rate(step, schedule=schedule, warmup_steps=warmup, final_lr_fraction=0.01)
    assert 0 < value <= 1e-3 * (1 + 1e-12)
    assert math.isfinite(value)

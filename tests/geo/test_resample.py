import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthsr.geo.resample import axis_kernel, block_mean, interpolate, polyphase_kernel
from tests.reference import demsrnet as reference

METHODS = ("nearest", "bilinear", "bicubic", "conservative", "mean_preserving", "bilinear_asymmetric")


def field(seed=0, shape=(2, 1, 6, 7)):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("scale", [2, 3, 5, 10])
def test_methods_equal_the_independent_reference(scale):
    x = field()
    np.testing.assert_allclose(
        interpolate(x, scale, "mean_preserving"), reference.mean_preserving(x, scale), atol=1e-12
    )
    np.testing.assert_allclose(
        interpolate(x, scale, "bilinear"), reference.bilinear(x, scale, "half_pixel"), atol=1e-12
    )
    asymmetric = reference.bilinear(x, scale, "asymmetric")
    np.testing.assert_allclose(interpolate(x, scale, "bilinear_asymmetric"), asymmetric, atol=1e-12)
    np.testing.assert_allclose(interpolate(x, scale, "bicubic"), reference.bicubic(x, scale), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, 5])
def test_weights_add_up_to_one(method, scale):
    np.testing.assert_allclose(axis_kernel(method, scale).sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(polyphase_kernel(method, scale).sum(axis=(2, 3)), 1, atol=1e-13)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "conservative", "mean_preserving"])
def test_a_ramp_lands_where_it_belongs(method):
    # Coarse cell centres at 0, 1, 2, …: fine centres lie at (i + 1/2) / scale - 1/2.
    scale, cells = 5, 24
    ramp = np.tile(np.arange(cells, dtype=float), (cells, 1))
    fine = interpolate(ramp, scale, method)
    expected = (np.arange(cells * scale) + 0.5) / scale - 0.5
    inner = slice(8 * scale, -8 * scale)
    np.testing.assert_allclose(fine[:, inner], np.tile(expected[inner], (cells * scale, 1)), atol=1e-12)


def test_the_asymmetric_variant_shifts_terrain_by_two_fine_pixels():
    scale, cells = 5, 12
    ramp = np.tile(np.arange(cells, dtype=float), (cells, 1))
    right = interpolate(ramp, scale, "bilinear")
    wrong = interpolate(ramp, scale, "bilinear_asymmetric")
    shift = (wrong - right)[30, 20:40] * scale
    np.testing.assert_allclose(shift, 2.0)


@pytest.mark.parametrize("scale", [2, 3, 5])
def test_conservative_interpolation_keeps_block_means(scale):
    x = field()
    np.testing.assert_allclose(block_mean(interpolate(x, scale, "conservative"), scale), x, atol=1e-12)
    # Bicubic does not: the test would fail for it.
    assert np.abs(block_mean(interpolate(x, scale, "bicubic"), scale) - x).max() > 1e-3


@pytest.mark.parametrize("scale", [2, 3, 5, 10])
def test_mean_preserving_interpolation_keeps_block_means_without_steps(scale):
    """To 2e-4 of white noise, for its filter is cut off after six cells; means beside replicated edges are not kept."""
    x = field(shape=(1, 1, 30, 31))
    fine = interpolate(x, scale, "mean_preserving")
    np.testing.assert_allclose(fine, reference.mean_preserving(x, scale), atol=1e-12)
    inner = (..., slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(block_mean(fine, scale)[inner], x[inner], atol=2e-4)
    # Steps across edges of coarse cells are as those within: Keys' kernel has a continuous slope, and a correction
    # that is constant in a cell has none.
    steps = np.abs(np.diff(fine[0, 0], n=2, axis=-1)).mean(axis=0)
    jumps = np.abs(np.diff(interpolate(x, scale, "conservative")[0, 0], n=2, axis=-1)).mean(axis=0)
    edge = (np.arange(len(steps)) + 1) % scale == 0
    assert steps[edge].mean() < 1.6 * steps[~edge].mean() if scale > 2 else True
    assert jumps[edge].mean() > steps[edge].mean()


def test_bicubic_reproduces_quadratics():
    # Keys' a = -1/2 is third-order accurate; -3/4 is not.
    scale, cells = 4, 14
    place = np.arange(cells) - 6.0
    fine_place = (np.arange(cells * scale) + 0.5) / scale - 0.5 - 6.0
    fine = interpolate(np.tile(place**2, (cells, 1)), scale, "bicubic")
    inner = slice(2 * scale, -2 * scale)
    np.testing.assert_allclose(fine[20, inner], fine_place[inner] ** 2, atol=1e-12)


def test_block_mean_of_a_void_has_no_value():
    x = np.ones((4, 4))
    x[0, 1] = np.nan
    means = block_mean(x, 2)
    assert np.isnan(means[0, 0])
    np.testing.assert_array_equal(means.ravel()[1:], 1)


def test_block_mean_refuses_a_grid_that_does_not_divide():
    with pytest.raises(ValueError, match="5 x 4 cells"):
        block_mean(np.ones((5, 4)), 2)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from(METHODS), st.floats(-500, 9000))
def test_a_plane_stays_a_plane(scale, height, width, method, level):
    fine = interpolate(np.full((height, width), level), scale, method)
    assert fine.shape == (height * scale, width * scale)
    np.testing.assert_allclose(fine, level, rtol=1e-12, atol=1e-9)

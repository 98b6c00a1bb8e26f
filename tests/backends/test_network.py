"""Every variant of the network on every backend against an independent float64 reference."""

import dataclasses
import itertools

import numpy as np
import pytest

from earthsr.models import DemSRNetSpec, Precision, initial_weights
from tests.reference import demsrnet as reference

PAPER = dict(global_skip="features", resize="half_pixel", upsampler="interpolate", bias=False)
SMALL = DemSRNetSpec(features=6, num_blocks=2, scale=3)


def variants():
    """All of them; the quick run takes those that differ from the paper's in one thing."""
    for skip, resize, upsampler, bias in itertools.product(
        ("features", "input"), ("half_pixel", "asymmetric"), ("interpolate", "pixel_shuffle"), (False, True)
    ):
        if upsampler == "interpolate" or resize == "half_pixel":
            yield dict(global_skip=skip, resize=resize, upsampler=upsampler, bias=bias)
    for surface in ("bilinear", "bicubic", "conservative", "mean_preserving"):
        yield dict(residual_over=surface)
    yield dict(residual_over="bicubic", local_mean=2)
    yield dict(residual_over="bilinear", local_mean=1, global_skip="input")
    yield dict(residual_over="conservative", local_mean=12, in_channels=2, out_channels=2)  # wider than the field
    yield dict(residual_over="bicubic", local_mean=2, local_relief=3)
    yield dict(residual_over="bilinear", local_mean=9, local_relief=9, global_skip="input", resize="asymmetric")
    yield dict(fine_features=4)
    yield dict(fine_features=3, upsampler="pixel_shuffle", residual_over="mean_preserving", bias=True)
    yield dict(residual_scale=0.1)
    yield dict(kernel_size=5)
    yield dict(kernel_size=1)
    yield dict(scale=5)
    yield dict(scale=2)
    yield dict(num_blocks=0)
    yield dict(in_channels=2, out_channels=2, residual_over="bicubic")
    yield dict(in_channels=3)


def random_weights(spec, seed=1):
    """Weights without the zeros that residual networks start from, so that every layer shows in the output."""
    plain = dataclasses.replace(spec, residual_over="none")
    return initial_weights(plain, seed)


def identity(variant):
    return "-".join(f"{k}={v}" for k, v in variant.items())


def marked(variant):
    changes = [variant.get(key, usual) != usual for key, usual in PAPER.items()]
    return pytest.param(variant, marks=[pytest.mark.slow] * (sum(changes) > 1), id=identity(variant))


@pytest.mark.parametrize("variant", [marked(variant) for variant in variants()])
def test_forward_equals_the_float64_reference(backend, variant):
    spec = dataclasses.replace(SMALL, **variant)
    weights = random_weights(spec)
    x = np.random.default_rng(0).normal(size=(2, spec.in_channels, 7, 9)).astype(np.float32)
    expected = reference.forward(spec, weights, x)
    found = backend.engine(spec, weights, device="cpu").submit({"elevation": x}).result()
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (2, spec.out_channels, 7 * spec.scale, 9 * spec.scale)
    # float32 rounds at 6e-8; a dozen convolutions of a few hundred terms stay below 1e-5 of the largest value.
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("surface", ["bilinear", "bicubic", "conservative"])
def test_a_residual_network_starts_as_its_interpolation(backend, surface):
    spec = dataclasses.replace(SMALL, residual_over=surface)
    x = np.random.default_rng(0).normal(size=(1, 1, 6, 6)).astype(np.float32)
    plain = dataclasses.replace(spec, num_blocks=0)
    zero = {name: np.zeros_like(value) for name, value in initial_weights(plain, 0).items()}
    expected = reference.forward(plain, zero, x)
    found = backend.engine(spec, initial_weights(spec, 0), device="cpu").submit({"elevation": x}).result()
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("level", ["O0", "O2", "O3"])
def test_a_constant_on_the_input_is_a_constant_on_the_output(backend, level):
    """The network sees departures from the local mean: how high a raster lies changes rounding alone."""
    spec = dataclasses.replace(SMALL, num_blocks=1, residual_over="bicubic", local_mean=2)
    weights = random_weights(spec)
    # In metres: at a scale of 64 m, heights to the metre and 5,000 m more are exact in float32.
    height_m = np.random.default_rng(0).integers(-200, 200, (1, 1, 9, 11))
    x, offset = (height_m / 64).astype(np.float32), np.float32(5000 / 64)
    engine = backend.engine(spec, weights, device="cpu", precision=Precision(level))
    low, high = (engine.submit({"elevation": field}).result().astype(np.float64) for field in (x, x + offset))
    # The mean of five rows and of five columns makes 12 roundings of half of 2**-23; the surface 26, its kernel's
    # weights adding up to 1.25**2 at most without their signs.
    size = float(np.abs(x + offset).max())
    anomaly, surface = 12 * 2.0**-24 * size, 26 * 1.25**2 * 2.0**-24 * size
    # What the layers make of the first at most: all weights positive, every ReLU open.
    plain = dataclasses.replace(spec, residual_over="none", local_mean=0)
    positive = {name: np.abs(value) for name, value in weights.items()}
    gain = reference.forward(plain, positive, np.ones_like(x)).max()
    bound = gain * anomaly + surface
    assert bound < 0.01 * offset
    if level == "O0":
        bound += 2e-5 * np.abs(low).max()  # and each pass's own roundings, as of the reference above
    else:
        # A low precision rounds departures of 5 at most to 8 or 11 bits, here and there the other way round; what is
        # left of the surface and of the mean, whose heights would lose more, is float32 at every level.
        bound = 5 * 2.0**-8
    assert np.abs(high - low - offset).max() <= bound


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"resize": "asymmetric", "global_skip": "input"},
        {"upsampler": "pixel_shuffle"},
        {"kernel_size": 1, "num_blocks": 1, "residual_over": "bicubic"},
        {"kernel_size": 5, "num_blocks": 1},
        {"scale": 5},
        {"residual_over": "bicubic", "local_mean": 3},
        {"residual_over": "bilinear", "local_mean": 1, "global_skip": "input", "resize": "asymmetric"},
        {"residual_over": "bicubic", "local_mean": 2, "local_relief": 3},
    ],
    ids=identity,
)
def test_receptive_radius_is_what_a_perturbation_reaches(variant):
    spec = dataclasses.replace(SMALL, features=2, **variant)
    # Positive weights and inputs keep every ReLU open, so that nothing hides.
    weights = {name: np.abs(value) + 0.01 for name, value in random_weights(spec).items()}
    radius = spec.receptive_radius
    size = 2 * radius + 5
    x = np.full((1, 1, size, size), 1.0)
    if spec.local_mean:
        # A dome stands above its local mean everywhere but at the edges, which are kept out of reach.
        size += 2 * radius
        place = np.arange(size) - size // 2
        x = -1.0 * (place[:, None] ** 2 + place**2)[None, None]
    y = x.copy()
    centre = size // 2
    y[..., centre, centre] += 1.0
    change = np.abs(reference.forward(spec, weights, y) - reference.forward(spec, weights, x))[0, 0]
    cells = change.reshape(size, spec.scale, size, spec.scale).max(axis=(1, 3)) > 1e-12
    rows, columns = np.nonzero(cells)
    reach = max(centre - rows.min(), rows.max() - centre, centre - columns.min(), columns.max() - centre)
    assert reach == radius

"""What is compared, how differences are measured, and how large they may be.

Both backends compute in float32 with plain kernels: no TF32 or HF32, no fused optimiser, deterministic. They add the
same numbers in another order, so they differ by rounding, and by what later steps make of it. A float32 rounds at 6e-8
of its value; a convolution adds hundreds or thousands of products.

Each tolerance has a fixed part, which says what rounding alone does to that quantity in a small network, and a
multiple of the *own noise*: the difference that a backend shows to itself on the other side of two symmetries, inputs
and kernels transposed and the samples of every batch in reverse order. In exact arithmetic nothing changes then; in
float32 every sum is taken in another order. Deep networks need it: a ReLU whose input is as near to zero as rounding
goes opens in one backend and not in the other, and its cell's share of the gradient comes and goes. A quantity may
differ between backends by a few times what it differs by within one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Norm = Literal["largest", "rms"]


@dataclass(frozen=True)
class Quantity:
    """Something that is compared, array by array."""

    name: str
    tolerance: float
    """Fixed part of the tolerance, relative."""
    norm: Norm
    """``largest``: largest difference over largest value; ``rms``: root mean squares of both."""
    reason: str
    noise_factor: float = 8.0
    """How many times the own noise is allowed besides."""


#: In the order of computation: the first line that fails is where to look.
QUANTITIES: Final[tuple[Quantity, ...]] = (
    Quantity("layers", 1e-5, "largest", "a rounding of 6e-8 per addition, through all layers up to that one"),
    Quantity(
        "raster",
        1e-5,
        "largest",
        "as layers; in metres (or the field's unit, or probabilities), relative to the largest value",
    ),
    Quantity(
        "scores",
        1e-5,
        "largest",
        "functions of rasters that agree; of classes those that are smooth in the probabilities",
    ),
    Quantity("loss", 1e-5, "largest", "a mean over all values: their roundings cancel"),
    Quantity("gradients", 2e-5, "rms", "sums over all cells of a batch, through the network twice"),
    Quantity("first_moments_1", 2e-5, "rms", "(1 - beta1) times the gradient"),
    Quantity(
        "second_moments_1",
        6e-5,
        "rms",
        "(1 - beta2) times its square, so twice its difference, and 1 - beta2 itself: MindSpore's Adam computes it in "
        "float32, 1.3e-5 off at 0.999",
    ),
    Quantity("losses", 1e-5, "largest", "as the loss; every step starts from the last one's differences"),
    Quantity(
        "first_moments_n",
        1e-4,
        "rms",
        "gradients at weights that have drifted apart: Adam divides small gradients by their own size, so that their "
        "roundings become steps",
    ),
    Quantity("second_moments_n", 1e-4, "rms", "as the first moments, and MindSpore's 1 - beta2"),
    Quantity("updates_n", 1e-4, "rms", "weights less initial weights, relative to the way they have gone"),
)

BY_NAME: Final[dict[str, Quantity]] = {quantity.name: quantity for quantity in QUANTITIES}

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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.check.parity.record import Record
from earthsr.errors import InputError

#: What two records have to have in common to be compared.
COMMON = ("spec", "objective", "optimizer", "rates", "steps", "batch_size", "inputs")

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


@dataclass(frozen=True)
class Row:
    """One array of one quantity."""

    quantity: str
    name: str
    """Of the array within the quantity."""
    difference: float
    """Relative difference of the two records."""
    noise: float
    """The larger of the relative differences that they show to themselves; 0 where it was not measured."""
    tolerance: float
    """Fixed part and noise together."""

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance

    @property
    def share(self) -> float:
        """Difference over tolerance."""
        return self.difference / self.tolerance


@dataclass(frozen=True)
class Comparison:
    """All rows, and who was compared with whom."""

    titles: tuple[str, str]
    """Backend, version and device of both."""
    rows: tuple[Row, ...]
    losses: tuple[list[float], list[float]]
    """Course of the loss of both."""
    abouts: tuple[dict[str, Any], dict[str, Any]]
    """What both records say of themselves."""

    @property
    def agrees(self) -> bool:
        """Whether every row does."""
        return all(row.agrees for row in self.rows)

    def worst(self) -> list[Row]:
        """Of each quantity the row that comes nearest to its tolerance, in the contract's order."""
        nearest = []
        for quantity in QUANTITIES:
            rows = [row for row in self.rows if row.quantity == quantity.name]
            if rows:
                nearest.append(max(rows, key=lambda row: row.share))
        return nearest

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``parity.json``."""
        return {
            "agree": self.agrees,
            "compared": list(self.titles),
            "quantities": {
                row.quantity: {
                    "difference": row.difference,
                    "tolerance": row.tolerance,
                    "own_noise": row.noise,
                    "where": row.name,
                    "agree": row.agrees,
                }
                for row in self.worst()
            },
            "rows": [{**asdict(row), "agree": row.agrees} for row in self.rows],
            "losses": list(self.losses),
            "about": list(self.abouts),
        }


def relative(a: NDArray, b: NDArray, norm: Norm) -> float:
    """Difference of two arrays over the size of the second; infinite where it is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if norm == "largest":
        difference, size = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
    else:
        difference, size = np.sqrt(np.square(a - b).mean()), np.sqrt(np.square(b).mean())
    if not np.isfinite(difference):
        return float("inf")
    if difference == 0:
        return 0.0
    return float(difference / size) if size > 0 else float("inf")


def _noise(record: Record, quantity: Quantity, name: str) -> float:
    again = record.noise.get(quantity.name, {}).get(name)
    return 0.0 if again is None else relative(again, record.arrays[quantity.name][name], quantity.norm)


def require_same_setup(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Compare what two descriptions say of model, optimiser, schedule and inputs.

    Raises
    ------
    InputError
        If they differ; the message names in what.
    """
    for key in COMMON:
        if ours[key] != theirs.get(key):
            raise InputError(
                f"the record is of another run: {key} is {_short(theirs.get(key))} in the record, {_short(ours[key])} "
                "here; record again with the same configuration and options"
            )


def require_same_inputs(ours: Mapping[str, NDArray], theirs: Mapping[str, NDArray]) -> None:
    """Compare initial weights and batches.

    Raises
    ------
    InputError
        If they differ by more than a last bit; the message names which.
    """
    for name, value in ours.items():
        other = theirs.get(name)
        # Both draw from one generator; a last bit may differ where processors contract multiply and add.
        if other is None or other.shape != value.shape or relative(value, other, "largest") > 1e-6:
            raise InputError(f"the record is of other inputs: {name} differs; record again on the same data")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def compare(a: Record, b: Record) -> Comparison:
    """Compare two records; the second one is what differences are relative to.

    Parameters
    ----------
    a, b : Record
        What two backends computed, or one on two machines.

    Returns
    -------
    Comparison
        Differences and tolerances of all quantities.

    Raises
    ------
    InputError
        If they are of different models, settings or inputs, or one lacks what the other has.
    """
    require_same_setup(a.about, b.about)
    require_same_inputs(a.arrays["inputs"], b.arrays["inputs"])
    rows = []
    for quantity in QUANTITIES:
        left, right = a.arrays.get(quantity.name, {}), b.arrays.get(quantity.name, {})
        if set(left) != set(right):
            one_sided = sorted(set(left) ^ set(right))[:4]
            raise InputError(f"the records do not hold the same {quantity.name}: {', '.join(one_sided)}; record again")
        for name, value in left.items():
            if value.shape != right[name].shape:
                raise InputError(
                    f"the records' {quantity.name} of {name} have {value.size} and {right[name].size} values; "
                    "record again"
                )
            noise = max(_noise(a, quantity, name), _noise(b, quantity, name))
            rows.append(
                Row(
                    quantity.name,
                    name,
                    relative(value, right[name], quantity.norm),
                    noise,
                    quantity.tolerance + quantity.noise_factor * noise,
                )
            )
    losses = (a.arrays["losses"]["losses"].tolist(), b.arrays["losses"]["losses"].tolist())
    return Comparison((a.title, b.title), tuple(rows), losses, (a.about, b.about))

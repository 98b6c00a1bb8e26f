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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.check.parity_record import Record
from earthsr.errors import InputError
from earthsr.evaluation.figures import new_figure, save
from earthsr.store import make_folder, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Where the logarithmic axes end; what is equal stands there.
FLOOR = 1e-9

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


def text_table(comparison: Comparison) -> str:
    """One line per quantity: the array that comes nearest to its tolerance."""
    rows = comparison.worst()
    width = max(len(row.quantity) for row in rows)
    where = max(len("where"), *(len(row.name) for row in rows))
    head = f"{'quantity':<{width}}  {'difference':>10}  {'own noise':>10}  {'tolerance':>10}  {'where':<{where}}"
    lines = [f"{comparison.titles[0]}  against  {comparison.titles[1]}", head]
    for row in rows:
        noise = f"{row.noise:10.1e}" if row.noise else f"{'-':>10}"
        verdict = "" if row.agrees else "  TOO LARGE"
        figures = f"{row.difference:10.1e}  {noise}  {row.tolerance:10.1e}"
        lines.append(f"{row.quantity:<{width}}  {figures}  {row.name:<{where}}{verdict}")
    count = sum(not row.agrees for row in comparison.rows)
    total = len(comparison.rows)
    lines.append(f"all {total} arrays agree" if not count else f"{count} of {total} arrays differ too much")
    return "\n".join(line.rstrip() for line in lines)


def _by_layer(axes: Axes, rows: Sequence[Row], colour: str, label: str) -> None:
    places = range(len(rows))
    axes.semilogy(places, [max(row.difference, FLOOR) for row in rows], "o-", ms=3, lw=0.8, color=colour, label=label)
    axes.semilogy(places, [row.tolerance for row in rows], "--", lw=1, color=colour, alpha=0.6)
    step = max(1, len(rows) // 12)
    ticks = list(places)[::step]
    axes.set_xticks(ticks, [rows[i].name for i in ticks], rotation=55, ha="right", fontsize=7)


def figure(comparison: Comparison) -> Figure:
    """Draw relative differences of layers and gradients in forward order, and the loss curves laid over each other."""
    drawn = new_figure(12.5, 4.6)
    left, middle, right = drawn.subplots(1, 3)
    for axes, quantity, colour, title in (
        (left, "layers", "tab:blue", "Outputs of layers"),
        (middle, "gradients", "tab:green", "Gradients of parameters"),
    ):
        rows = [row for row in comparison.rows if row.quantity == quantity]
        _by_layer(axes, rows, colour, "difference")
        axes.set_title(title, fontsize=10)
        axes.set_ylabel("relative difference")
        axes.plot([], [], "--", color=colour, alpha=0.6, label="tolerance")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.25, axis="y")
    steps = range(1, len(comparison.losses[0]) + 1)
    right.plot(steps, comparison.losses[0], lw=4, alpha=0.4, color="tab:blue", label=comparison.titles[0])
    right.plot(steps, comparison.losses[1], lw=1.2, color="black", label=comparison.titles[1])
    right.set(xlabel="step", ylabel="loss (normalised)")
    right.set_title("Course of the loss", fontsize=10)
    gap = right.twinx()
    differences = [abs(a - b) / abs(b) if b else 0.0 for a, b in zip(*comparison.losses, strict=True)]
    gap.plot(
        steps, [max(difference, FLOOR) for difference in differences], ":", marker=".", ms=4, color="tab:red", lw=0.8
    )
    gap.set_ylabel("relative difference", color="tab:red")
    gap.tick_params(axis="y", colors="tab:red")
    bound = max(row.tolerance for row in comparison.rows if row.quantity == "losses")
    gap.axhline(bound, color="tab:red", lw=1, ls="--", alpha=0.6)
    gap.set_yscale("log")
    # Below the axes, where it hides no point.
    gap.legend(*right.get_legend_handles_labels(), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return drawn


def write_report(comparison: Comparison, folder: str | Path) -> dict[str, Path]:
    """Write ``parity.json`` and ``parity.png`` into a folder.

    Parameters
    ----------
    comparison : Comparison
        Of two records.
    folder : str or Path
        Made where it is not there.

    Returns
    -------
    dict of str to Path
        The files.
    """
    folder = make_folder(Path(folder))
    return {
        "json": write_json(folder / "parity.json", comparison.to_dict()),
        "figure": save(figure(comparison), folder / "parity.png"),
    }

"""The report of a comparison: a table for the terminal, JSON, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earthsr.check.parity.compare import Comparison, Row
from earthsr.evaluation.figures import new_figure, save
from earthsr.store import make_folder, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Where the logarithmic axes end; what is equal stands there.
FLOOR = 1e-9


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

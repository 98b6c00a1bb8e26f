"""Figures of elevation and of training, drawn without pyplot's global state."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.terrain import hillshade, slope_degrees
from earthsr.store import atomic_file, remove_leftovers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
# Even in brightness and safe for colour-blind eyes; no blue that reads as water where valleys are.
ELEVATION_COLOURS = "viridis"
_ERROR = "RdBu_r"


@functools.cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """One that a notebook shows, although pyplot knows nothing of it."""

        def _repr_png_(self) -> bytes:
            shown = io.BytesIO()
            self.savefig(shown, format="png", dpi=DPI)
            return shown.getvalue()

    return NotebookFigure


def new_figure(width: float, height: float, gap: float = 0.02) -> Figure:
    """Return an empty figure of ``width x height`` inches, apart from pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = _figure_class()(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=gap), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Draw a figure of :func:`new_figure` into a file.

    The bytes are those of ``savefig``, which takes longer: it lays the figure out in a whole drawing of its own first.
    """
    from matplotlib.image import imsave

    canvas: Any = figure.canvas
    figure.set_dpi(DPI)
    canvas.draw()
    imsave(path, canvas.buffer_rgba(), format="png", origin="upper", dpi=DPI)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, atomically; what a killed process left of it goes."""
    path = Path(path)
    remove_leftovers(path.parent, path.name)
    with atomic_file(path) as temporary:
        write_png(figure, temporary)
    return path


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def comparison(
    coarse: NDArray[np.floating],
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    bicubic: NDArray[np.floating],
    valid: NDArray[np.bool_],
    cell_size_m: tuple[float, float] | None,
    title: str,
    border: int = 0,
) -> Figure:
    """Low resolution, truth and prediction on one elevation scale, their hillshades, and the errors of both methods.

    Parameters
    ----------
    coarse : ndarray of shape (h, w)
        Metres.
    truth, prediction, bicubic : ndarray of shape (H, W)
        Metres.
    valid : ndarray of shape (H, W)
        False cells are drawn blank.
    cell_size_m : tuple of float or None
        Fine cell size north-south and east-west; None shades as if cells were 90 m.
    title : str
        Title of the figure.
    border : int
        Fine cells at the edge that the scores leave out; the RMSE in the titles leaves them out too.
    """
    figure = new_figure(14.5, 10.4)
    figure.suptitle(title, fontsize=12)
    # A column of its own for colour bars keeps the panels of all rows in line.
    grid = figure.add_gridspec(3, 5, width_ratios=(1, 1, 1, 1, 0.05))
    shown = np.where(valid, truth, np.nan)
    low, high = (float(np.nanmin(shown)), float(np.nanmax(shown))) if valid.any() else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5  # a scale of one number would draw equal fields in different colours
    scale = truth.shape[0] // coarse.shape[0]
    panels = [("Low resolution", coarse), ("Bicubic", bicubic), ("Prediction", prediction), ("Truth", shown)]
    dy, dx = cell_size_m or (90.0, 90.0)
    image = None
    for column, (name, field) in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        image = axes.imshow(field, cmap=ELEVATION_COLOURS, vmin=low, vmax=high, interpolation="nearest")
        _bare(axes, f"{name} ({field.shape[0]} x {field.shape[1]})")
        axes = figure.add_subplot(grid[1, column])
        size = scale if column == 0 else 1
        light = hillshade(np.nan_to_num(field, nan=float(low)), dy * size, dx * size)
        axes.imshow(light, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        _bare(axes, f"{name}, hillshade")
    assert image is not None
    figure.colorbar(image, cax=figure.add_subplot(grid[0, 4]), label="elevation (m)", extend="both")
    errors = {"Bicubic": bicubic - truth, "Prediction": prediction - truth}
    inside = np.zeros_like(valid)
    inside[border : truth.shape[0] - border, border : truth.shape[1] - border] = True
    inside &= valid
    limit = (float(np.percentile(np.abs(errors["Bicubic"][valid]), 99)) if valid.any() else 0.0) or 1.0
    maps = [figure.add_subplot(grid[2, column]) for column in (1, 2)]
    for axes, (name, error) in zip(maps, errors.items(), strict=True):
        image = axes.imshow(
            np.where(valid, error, np.nan), cmap=_ERROR, vmin=-limit, vmax=limit, interpolation="nearest"
        )
        rmse = float(np.sqrt(np.mean(np.square(error[inside])))) if inside.any() else float("nan")
        _bare(axes, f"{name} - truth, RMSE {rmse:.2f} m")
    figure.colorbar(
        image, ax=maps, location="bottom", label="error (m)", extend="both", shrink=0.6, aspect=40, pad=0.02
    )
    _error_histogram(figure.add_subplot(grid[2, 0]), errors, inside, limit)
    _error_by_slope(figure.add_subplot(grid[2, 3]), errors, inside, np.nan_to_num(shown, nan=float(low)), dy, dx)
    return figure


_COLOURS = {"Bicubic": "0.45", "Prediction": "tab:blue"}


def _error_histogram(
    axes: Axes, errors: Mapping[str, NDArray[np.floating]], inside: NDArray[np.bool_], limit: float
) -> None:
    bins = np.linspace(-limit, limit, 61).tolist()
    for name, error in errors.items():
        inner = np.clip(error[inside], -limit, limit)
        axes.hist(inner, bins=bins, histtype="step", color=_COLOURS[name], label=name, density=bool(inner.size))
    axes.set_xlabel("error (m); outer bins hold the tails")
    axes.set_ylabel("density (1/m)")
    axes.legend(fontsize=8)
    axes.set_title("Distribution of errors", fontsize=10)


def _error_by_slope(
    axes: Axes,
    errors: Mapping[str, NDArray[np.floating]],
    inside: NDArray[np.bool_],
    truth: NDArray[np.floating],
    dy: float,
    dx: float,
) -> None:
    """RMSE in bins of the truth's slope, each with a tenth of the cells."""
    padded = np.pad(truth, 1, mode="edge")
    slope = slope_degrees(padded, dy, dx)[inside]
    axes.set_title("Error by slope", fontsize=10)
    edges = np.unique(np.quantile(slope, np.linspace(0, 1, 11))) if slope.size else np.empty(0)
    if len(edges) < 2:
        # Sea and lakes are of one slope, which nothing can be ordered by; the scores are in the other panels.
        reason = f"the truth is of one slope,\n{edges[0]:g} degrees" if len(edges) else "no valid cell"
        axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    which = np.clip(np.searchsorted(edges, slope, side="right") - 1, 0, len(edges) - 2)
    for name, error in errors.items():
        square = np.square(error[inside])
        count = np.bincount(which, minlength=len(edges) - 1)
        rmse = np.sqrt(np.bincount(which, square, minlength=len(edges) - 1) / np.maximum(count, 1))
        axes.plot((edges[:-1] + edges[1:]) / 2, rmse, "o-", ms=3, color=_COLOURS[name], label=name)
    axes.set_xlabel("slope of the truth (degrees)")
    axes.set_ylabel("RMSE (m)")
    axes.legend(fontsize=8)
    axes.set_ylim(bottom=0)


def loss_curves(
    records: Sequence[Mapping[str, Any]], score: str = "rmse", label: str = "validation RMSE (m)"
) -> Figure:
    """Training loss and learning rate by step, and the validation score beside the baselines', from ``metrics.jsonl``.

    Parameters
    ----------
    records : sequence of mapping
        Lines of the file.
    score : str
        Which score of ``valid``; those of baselines are named after it, as ``bicubic_rmse``.
    label : str
        Of its axis, with the unit.
    """
    figure = new_figure(10.5, 3.8, gap=0.08)
    left, right = figure.subplots(1, 2)
    steps = [record for record in records if "gradient_norm" in record]
    ends = [record for record in records if "loss" in record and "gradient_norm" not in record]
    scored = [record for record in ends if "valid" in record]
    left.plot([r["step"] for r in steps], [r["loss"] for r in steps], lw=0.8, color="tab:blue", alpha=0.5, label="step")
    left.plot([r["step"] for r in ends], [r["loss"] for r in ends], "o-", ms=3, color="tab:blue", label="epoch mean")
    if all(r["loss"] > 0 for r in (*steps, *ends)):
        left.set_yscale("log")
    left.legend(fontsize=8)
    left.set_xlabel("step")
    left.set_ylabel("training loss (normalised units)" if score == "rmse" else "training loss", color="tab:blue")
    rates = left.twinx()
    rates.plot(
        [r["step"] for r in (steps or ends)], [r["learning_rate"] for r in (steps or ends)], lw=0.9, color="tab:orange"
    )
    rates.set_ylabel("learning rate", color="tab:orange")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    right.plot([r["epoch"] for r in scored], [r["valid"][score] for r in scored], "o-", ms=3, label="model")
    last = scored[-1]["valid"] if scored else {}
    beside = [name for name in last if name.endswith(f"_{score}") and last[name] is not None]
    for name, colour in zip(beside, ("0.45", "tab:green", "tab:purple"), strict=False):
        method = name.removesuffix(f"_{score}").replace("_", " ")
        right.axhline(last[name], color=colour, ls="--", lw=1.1, label=method)
    right.set_xlabel("epoch")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_ylabel(label)
    right.legend()
    return figure


def score_bars(scores: Mapping[str, Mapping[str, float | None]], title: str = "") -> Figure:
    """RMSE and MAE of every method side by side, the largest RMSE first."""
    figure = new_figure(6.5, 3.4)
    axes = figure.subplots()
    names = sorted(scores, key=lambda name: -(scores[name]["rmse"] or 0.0))
    place = np.arange(len(names))
    for shift, key in ((-0.2, "rmse"), (0.2, "mae")):
        values = [scores[name][key] or 0.0 for name in names]
        bars = axes.bar(place + shift, values, 0.38, label=key.upper())
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(place, names)
    axes.margins(y=0.12)
    axes.set_ylabel("error (m)")
    axes.set_title(title, fontsize=10)
    axes.legend()
    return figure

"""Figures of land use: maps of classes and of what became of cells; confusion, IoU by class, areas over years."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.figures import new_figure
from earthsr.landuse.scores import NOT_COMPARED, MapStatistics, change_categories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Extent = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

# Rows of the model in shades of one colour, the others in colours of their own.
_ROW_COLOURS: Final = {"rollout": "#08519c", "no_prior": "#6baed6", "true_prior": "#bdd7e7"}
_OTHER_COLOURS: Final = ("#525252", "#e69f00", "#009e73", "#cc79a7", "#a6761d")
_LINES: Final = ("-", "--", ":", "-.")

NODATA_COLOUR: Final = "#dcdcdc"
# Of Okabe and Ito (2008), distinct to colour-blind eyes; what did not change stays white so that change stands out.
_CHANGE_COLOURS: Final = ("#ffffff", "#0072b2", "#cc79a7", "#e69f00", "#8c1515")
_CHANGE_LABELS: Final = (
    "unchanged, right",
    "hit: changed, right class",
    "wrong hit: changed, wrong class",
    "miss: change not predicted",
    "false alarm: no such change",
)


def coloured(values: NDArray[np.uint8], colours: Sequence[str], other: str = NODATA_COLOUR) -> NDArray[np.float64]:
    """Colours (H, W, 3) of indices (H, W); ``other`` where an index has none."""
    from matplotlib.colors import to_rgb

    table = np.array([to_rgb(colour) for colour in (*colours, other)])
    return table[np.minimum(values, len(colours))]


def _draw(axes: Axes, image: NDArray[np.float64], extent: Extent | None, title: str) -> None:
    axes.set_title(title, fontsize=10)
    if extent is None:
        axes.imshow(image, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    from matplotlib.ticker import MaxNLocator

    west, south, east, north = extent
    axes.imshow(image, interpolation="nearest", extent=(west, east, south, north))
    # A degree of longitude is shorter than one of latitude by the cosine.
    axes.set_aspect(1 / max(math.cos(math.radians((south + north) / 2)), 0.05))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("longitude (°E)", fontsize=8)
    axes.set_ylabel("latitude (°N)", fontsize=8)


def legend_patches(names: Sequence[str], colours: Sequence[str], occurring: Sequence[int]) -> list[Patch]:
    """Legend entries of the indices that occur; an index beyond the names is nodata."""
    from matplotlib.patches import Patch

    entries = [
        Patch(facecolor=colours[i], edgecolor="0.4", lw=0.5, label=names[i]) for i in occurring if i < len(names)
    ]
    if any(i >= len(names) for i in occurring):
        entries.append(Patch(facecolor=NODATA_COLOUR, edgecolor="0.4", lw=0.5, label="no class"))
    return entries


def _occurring(maps: Sequence[NDArray[np.uint8]]) -> list[int]:
    return sorted({int(i) for values in maps for i in np.unique(values)})


def _panel(values: NDArray[Any], extent: Extent | None, width: float, height: float) -> tuple[float, float]:
    """Width and height in inches of the largest panel within ``width x height``."""
    ratio = values.shape[0] / values.shape[1]
    if extent is not None:
        west, south, east, north = extent
        ratio = (north - south) / (east - west) / max(math.cos(math.radians((south + north) / 2)), 0.05)
    return min(width, height / ratio), min(height, width * ratio)


def class_maps(
    panels: Sequence[tuple[str, NDArray[np.uint8]]],
    names: Sequence[str],
    colours: Sequence[str],
    extent: Extent | None,
    title: str,
) -> Figure:
    """Maps of one window side by side, in the colours of their classes, with one legend.

    Parameters
    ----------
    panels : sequence of (str, ndarray of shape (H, W))
        Titles and class indices; those without a class (255) are light grey. Rows of four at most.
    names, colours : sequence of str
        Of the K classes; ``#rrggbb``.
    extent : tuple of float or None
        West, south, east, north in degrees; None draws no axes.
    title : str
        Title of the figure.
    """
    columns = min(len(panels), 4 if len(panels) != 5 else 3)
    rows = -(-len(panels) // columns)
    entries = legend_patches(names, colours, _occurring([values for _, values in panels]))
    edge, above = (0.75, 0.72) if extent is not None else (0.15, 0.35)
    width, height = _panel(panels[0][1], extent, 2.9, 4.0)
    figure_width = max((width + edge) * columns, 5.0)
    # A handle needs 0.6 inches, a letter 0.08.
    across = max(1, min(len(entries), int(figure_width / (0.6 + 0.08 * max(len(name) for name in names)))))
    lines = -(-len(entries) // across)
    figure = new_figure(figure_width, rows * (height + above) + 0.55 + 0.22 * lines, gap=0.04)
    figure.suptitle(title, fontsize=12)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(grid, panels, strict=False):
        _draw(axes, coloured(values, colours), extent, name)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    even = -(-len(entries) // lines)
    figure.legend(handles=entries, loc="outside lower center", ncols=even, fontsize=9, frameon=False)
    return figure


def rollout_figure(
    anchor: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    persistence: NDArray[np.uint8],
    names: Sequence[str],
    colours: Sequence[str],
    extent: Extent | None,
    title: str,
    baseline_name: str = "Persistence",
) -> Figure:
    """Anchor, truth and the model's rollout, and what became of every cell since the anchor, beside a baseline.

    Parameters
    ----------
    anchor, truth, prediction, persistence : ndarray of shape (H, W)
        Class indices; ``persistence`` is the baseline's map.
    names, colours, extent, title
        As :func:`class_maps` has them.
    baseline_name : str
        Of the baseline, for the title of its panel.
    """
    width, height = _panel(truth, extent, 3.5, 4.2)
    # The corner holds two legends, of 2.6 inches together.
    width, height = max(width, 2.7), max(height, 2.6)
    edge, above = (0.75, 0.72) if extent is not None else (0.15, 0.35)
    figure = new_figure(3 * (width + edge), 2 * (height + above) + 0.65, gap=0.04)
    figure.suptitle(title, fontsize=12)
    grid = figure.subplots(2, 3)
    for axes, (name, values) in zip(
        grid[0], (("Anchor", anchor), ("Truth", truth), ("Model, rollout", prediction)), strict=True
    ):
        _draw(axes, coloured(values, colours), extent, name)
    changes = []
    for axes, (name, values) in zip(
        grid[1], (("Model, rollout", prediction), (baseline_name, persistence)), strict=False
    ):
        changes.append(change_categories(truth, values, anchor, len(names)))
        scores = MapStatistics.of(truth, values, anchor, len(names)).scores(names)
        merit, accuracy = scores["change"]["figure_of_merit"], scores["accuracy"]
        text = [f"accuracy {accuracy:.3f}"] if accuracy is not None else []
        text += [f"figure of merit {merit:.3f}"] if merit is not None else []
        _draw(axes, coloured(changes[-1], _CHANGE_COLOURS), extent, "\n".join((f"{name}: errors", ", ".join(text))))
    corner = grid[1, 2]
    corner.set_axis_off()
    entries = legend_patches(names, colours, _occurring((anchor, truth, prediction)))
    classes = corner.legend(
        handles=entries,
        title="classes",
        loc="upper left",
        ncols=2,
        fontsize=9,
        frameon=False,
        borderaxespad=0,
        alignment="left",
        columnspacing=1.2,
    )
    corner.add_artist(classes)
    below = 0.2 * (-(-len(entries) // 2) + 2)  # inches: its lines, title and a gap
    corner.legend(
        handles=legend_patches(_CHANGE_LABELS, _CHANGE_COLOURS, [i for i in _occurring(changes) if i != NOT_COMPARED]),
        title="since the anchor",
        loc="upper left",
        bbox_to_anchor=(0, 1 - below / height),
        fontsize=9,
        frameon=False,
        borderaxespad=0,
        alignment="left",
    )
    return figure


def confusion_figure(
    confusion: NDArray[np.integer],
    names: Sequence[str],
    title: str,
    unpredicted: NDArray[np.integer] | None = None,
) -> Figure:
    """Confusion matrix: percent of each row, which is a class of the truth, and cells in short form.

    Parameters
    ----------
    confusion : ndarray of shape (K, K)
        Cells, rows truth, columns prediction.
    names : sequence of str
        Of the K classes.
    title : str
        Title of the figure.
    unpredicted : ndarray of shape (K,), optional
        Cells without a class in the prediction: one more column where there are any.
    """
    columns = list(names)
    if unpredicted is not None and unpredicted.any():
        confusion = np.column_stack([confusion, unpredicted])
        columns.append("no class")
    total = confusion.sum(axis=1, keepdims=True)
    percent = np.where(total > 0, 100 * confusion / np.maximum(total, 1), np.nan)
    figure = new_figure(2.6 + 0.82 * len(columns), 1.7 + 0.62 * len(names))
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(*percent.shape):
        if total[i, 0]:
            colour = "white" if percent[i, j] > 55 else "black"
            axes.text(j, i - 0.14, f"{percent[i, j]:.1f}", ha="center", va="center", fontsize=9, color=colour)
            axes.text(j, i + 0.24, _short(confusion[i, j]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel("prediction (above: percent of the row, below: cells)")
    axes.set_ylabel("truth")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="percent of the cells of the class in the truth", pad=0.02)
    return figure


def _short(count: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}" if count < 999.5 * size else f"{count / size:.0f}{letter}"
    return f"{count:.0f}"


def iou_bars(scores: Mapping[str, Mapping[str, Any]], names: Sequence[str], title: str) -> Figure:
    """IoU of every class, and their mean, of every row side by side.

    Parameters
    ----------
    scores : mapping of str to mapping
        Scores of :meth:`MapStatistics.scores` by row: ``rollout``, ``no_prior``, ``true_prior`` and baselines.
    names : sequence of str
        Of the K classes.
    title : str
        Title of the figure.
    """
    groups = ["mean IoU", *names]
    step = 0.86 / max(len(scores), 1)
    inches = 0.21 * len(scores) * len(groups) * 1.16
    width = min(max(inches + 1.2, 7.0), 18.0)
    figure = new_figure(width, 4.6)
    axes = figure.subplots()
    place = np.arange(len(groups), dtype=np.float64)
    others = iter(_OTHER_COLOURS * (1 + len(scores) // len(_OTHER_COLOURS)))
    for number, (row, values) in enumerate(scores.items()):
        heights = [values["miou"], *(values["iou"].get(name) for name in names)]
        colour = _ROW_COLOURS.get(row) or next(others)
        shift = place + (number - (len(scores) - 1) / 2) * step
        shown = [height or 0.0 for height in heights]
        bars = axes.bar(shift, shown, step * 0.94, color=colour, label=row.replace("_", " "))
        labels = ["–" if height is None else f"{height:.2f}" for height in heights]
        axes.bar_label(bars, labels, fontsize=7, rotation=90, padding=2)
    axes.axvline(0.5, color="0.75", lw=0.8)
    long = 0.09 * max(len(name) for name in groups) > (width - 1) / len(groups)
    axes.set_xticks(place, groups, fontsize=9, rotation=20 if long else 0, ha="right" if long else "center")
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("intersection over union")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=min(len(scores), 6), fontsize=9, frameon=False)
    return figure


def area_curves(
    years: Sequence[int],
    curves: Mapping[str, Mapping[str, Sequence[float | None]]],
    names: Sequence[str],
    colours: Sequence[str],
    title: str,
    held_out_years: Sequence[int] = (),
) -> Figure:
    """Area of every class over the years, a panel for each.

    Parameters
    ----------
    years : sequence of int
        Ascending.
    curves : mapping of str to mapping
        By label, areas in km2 by class, one for each year (None or NaN: no value); a class may be missing. The first
        label is drawn solid (the truth), the second dashed (the prediction), the third dotted (the forcing).
    names, colours : sequence of str
        Of the K classes.
    title : str
        Title of the figure.
    held_out_years : sequence of int
        Years that training has not seen, shaded.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    drawn = [i for i, name in enumerate(names) if any(name in series for series in curves.values())]
    columns = min(max(len(drawn), 1), 4)
    rows = max(1, -(-len(drawn) // columns))
    figure = new_figure(max(3.1 * columns, 5.0), 2.3 * rows + 1.0, gap=0.06)
    figure.suptitle(title, fontsize=12)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    series = {
        label: {name: np.asarray(values, np.float64) for name, values in areas.items()}
        for label, areas in curves.items()
    }
    highest = max((np.nanmax(v, initial=0.0) for areas in series.values() for v in areas.values()), default=0.0)
    unit, size = ("1000 km²", 1e3) if highest >= 1e4 else ("km²", 1.0)
    for axes, i in zip(grid, drawn, strict=False):
        for first, last in _runs(held_out_years):
            axes.axvspan(first - 0.5, last + 0.5, color="0.92", lw=0)
        for number, areas in enumerate(series.values()):
            if names[i] in areas:
                # A lone year, of an anchor say, is a point.
                marker = "o" if np.isfinite(areas[names[i]]).sum() == 1 else None
                style = _LINES[number % len(_LINES)]
                axes.plot(years, areas[names[i]] / size, style, color=_dark(colours[i]), lw=1.6, marker=marker)
        axes.set_title(names[i], fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(useOffset=False)
        axes.tick_params(labelsize=8, labelbottom=True)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    for axes in grid[max(len(drawn) - columns, 0) : len(drawn)]:
        axes.set_xlabel("year", fontsize=9)
    figure.supylabel(f"area ({unit})", fontsize=10)
    entries: list[Any] = [
        Line2D([], [], color="0.2", ls=_LINES[n % len(_LINES)], lw=1.6, label=label) for n, label in enumerate(series)
    ]
    if len(held_out_years):
        entries.append(Patch(facecolor="0.92", label="held-out years"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=9, frameon=False)
    return figure


def _runs(years: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of years that follow each other."""
    runs: list[tuple[int, int]] = []
    for year in sorted(years):
        if runs and year == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], year)
        else:
            runs.append((year, year))
    return runs


def _dark(colour: str) -> tuple[float, float, float]:
    """Return a class's colour, darkened until a thin line of it can be read on white."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    share = min(1.0, 0.5 / bright) if bright > 0 else 1.0
    return red * share, green * share, blue * share

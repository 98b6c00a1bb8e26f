"""Figures of land-use maps: classes, and what became of cells since the anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.figures import new_figure
from earthsr.landuse.map_scores import NOT_COMPARED, MapStatistics, change_categories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Extent = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

_NODATA_COLOUR: Final = "#dcdcdc"
# Of Okabe and Ito (2008), distinct to colour-blind eyes; what did not change stays white so that change stands out.
_CHANGE_COLOURS: Final = ("#ffffff", "#0072b2", "#cc79a7", "#e69f00", "#8c1515")
_CHANGE_LABELS: Final = (
    "unchanged, right",
    "hit: changed, right class",
    "wrong hit: changed, wrong class",
    "miss: change not predicted",
    "false alarm: no such change",
)


def _indexed(values: NDArray[np.uint8], colours: Sequence[str], other: str = _NODATA_COLOUR) -> NDArray[np.float64]:
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


def _patches(names: Sequence[str], colours: Sequence[str], occurring: Sequence[int]) -> list[Patch]:
    """Legend entries of the indices that occur; an index beyond the names is nodata."""
    from matplotlib.patches import Patch

    entries = [
        Patch(facecolor=colours[i], edgecolor="0.4", lw=0.5, label=names[i]) for i in occurring if i < len(names)
    ]
    if any(i >= len(names) for i in occurring):
        entries.append(Patch(facecolor=_NODATA_COLOUR, edgecolor="0.4", lw=0.5, label="no class"))
    return entries


def _occurring(maps: Sequence[NDArray[np.uint8]]) -> list[int]:
    return sorted({int(i) for each in maps for i in np.unique(each)})


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
    entries = _patches(names, colours, _occurring([values for _, values in panels]))
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
        _draw(axes, _indexed(values, colours), extent, name)
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
        _draw(axes, _indexed(values, colours), extent, name)
    changes = []
    for axes, (name, values) in zip(
        grid[1], (("Model, rollout", prediction), (baseline_name, persistence)), strict=False
    ):
        changes.append(change_categories(truth, values, anchor, len(names)))
        scores = MapStatistics.of(truth, values, anchor, len(names)).scores(names)
        merit, accuracy = scores["change"]["figure_of_merit"], scores["accuracy"]
        text = [f"accuracy {accuracy:.3f}"] if accuracy is not None else []
        text += [f"figure of merit {merit:.3f}"] if merit is not None else []
        _draw(axes, _indexed(changes[-1], _CHANGE_COLOURS), extent, "\n".join((f"{name}: errors", ", ".join(text))))
    corner = grid[1, 2]
    corner.set_axis_off()
    entries = _patches(names, colours, _occurring((anchor, truth, prediction)))
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
        handles=_patches(_CHANGE_LABELS, _CHANGE_COLOURS, [i for i in _occurring(changes) if i != NOT_COMPARED]),
        title="since the anchor",
        loc="upper left",
        bbox_to_anchor=(0, 1 - below / height),
        fontsize=9,
        frameon=False,
        borderaxespad=0,
        alignment="left",
    )
    return figure

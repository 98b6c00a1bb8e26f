"""Pictures of a region: hillshades of what went in, came out and is true, and errors on one scale; errors by ground."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.ground_errors import BINS
from earthsr.evaluation.figures import new_figure
from earthsr.geo.terrain import hillshade, slope_degrees
from earthsr.geo.voids import fill_voids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ELEVATION = "viridis"
_ERROR = "RdBu_r"
_VOID = "#e8e2d4"
_WIDTH, _NARROWEST, _TALLEST = 3.7, 2.4, 4.6  # inches of a panel; narrower ones leave room for their titles

#: Times that heights are exaggerated for shading, as much as it takes for the steeper ground to show relief.
_EXAGGERATIONS: Final = (1, 2, 3, 5, 10, 20, 50)
_SHADED_DEGREES: Final = 25.0

#: Bins with fewer cells than this are drawn pale: their errors are those of a few places.
THIN: Final = 1000

_COLOURS: Final[Mapping[str, str]] = {
    "model": "tab:blue",
    "conservative": "tab:orange",
    "bicubic": "0.35",
    "bilinear": "0.6",
    "nearest": "0.78",
}


def region_figure(
    coarse: NDArray[np.floating],
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    bicubic: NDArray[np.floating],
    valid: NDArray[np.bool_],
    cell_size_m: tuple[float, float] | None,
    title: str,
    border: int = 0,
) -> Figure:
    """Hillshades of low resolution, prediction and truth; below them the truth's heights and both methods' errors.

    Parameters
    ----------
    coarse : ndarray of shape (h, w)
        Metres; NaN where there is no value.
    truth, prediction, bicubic : ndarray of shape (H, W)
        Metres.
    valid : ndarray of shape (H, W)
        False cells are drawn blank.
    cell_size_m : tuple of float or None
        Fine cell size north-south and east-west: pictures have the ground's proportions. None shades as if cells were
        90 m, and measures the bar in cells.
    title : str
        Title of the figure.
    border : int
        Fine cells at the edge that the scores leave out; the RMSE in the titles leaves them out too.
    """
    rows, columns = truth.shape
    scale = rows // coarse.shape[0]
    dy, dx = cell_size_m or (90.0, 90.0)
    # Pictures have the ground's proportions; narrow ones of high latitudes shall not be taller than a page.
    tall = rows * dy / (columns * dx)
    width = min(_WIDTH, _TALLEST / tall)
    figure = new_figure(3 * max(width, _NARROWEST) + 0.4, 2 * (width * tall + 0.3) + 1.1)
    panels = figure.subplots(2, 3)
    # Voids are blank, and shaded as if they went on as their surroundings, so that their rims cast no shadow.
    known = np.isfinite(coarse)
    whole = np.where(valid, truth, prediction)
    times = exaggeration(np.where(valid, truth, np.nan), dy, dx)
    exaggerated = f" of heights x {times}" if times > 1 else ""
    figure.suptitle(f"{title}\nabove: hillshades{exaggerated}; below: elevation and errors", fontsize=10)
    shades = [
        ("Low resolution", _filled(fill_voids(np.asarray(coarse, np.float32))), known, scale),
        ("Prediction", prediction, valid, 1),
        ("Truth", whole, valid, 1),
    ]
    for axes, (name, field, shown, size) in zip(panels[0], shades, strict=True):
        light = hillshade(field * float(times), dy * size, dx * size)
        _picture(axes, np.where(shown, light, np.nan), dy / dx, cmap="gray", limits=(0.0, 1.0))
        axes.set_title(f"{name} ({field.shape[0]} x {field.shape[1]})", fontsize=8.5)
    if cell_size_m is None:
        _scale_bar(panels[0, 0], coarse.shape, 1.0 / scale, "fine cells")
    else:
        _scale_bar(panels[0, 0], coarse.shape, 1000 / (dx * scale), "km")
    heights = np.where(valid, truth, np.nan)
    low, high = (float(value) for value in np.nanpercentile(heights, (0.5, 99.5)))
    image = _picture(panels[1, 0], heights, dy / dx, cmap=_ELEVATION, limits=(low, max(high, low + 1.0)))
    panels[1, 0].set_title("Truth, elevation", fontsize=8.5)
    _bar(figure, image, [panels[1, 0]], "elevation (m)", aspect=20)
    inside = np.zeros_like(valid)
    inside[border : rows - border, border : columns - border] = True
    inside &= valid
    errors = {"Bicubic": bicubic - truth, "Prediction": prediction - truth}
    spread = np.abs(errors["Bicubic"][inside if inside.any() else valid])
    limit = (float(np.percentile(spread, 99)) if spread.size else 0.0) or 1.0
    for axes, (name, error) in zip(panels[1, 1:], errors.items(), strict=True):
        image = _picture(axes, np.where(valid, error, np.nan), dy / dx, cmap=_ERROR, limits=(-limit, limit))
        rmse = float(np.sqrt(np.mean(np.square(error[inside], dtype=np.float64)))) if inside.any() else math.nan
        axes.set_title(f"{name} minus truth, RMSE {rmse:.2f} m", fontsize=8.5)
    _bar(figure, image, list(panels[1, 1:]), "error (m)", aspect=42)
    return figure


def _bar(figure: Figure, image: Any, axes: list[Axes], label: str, aspect: float) -> None:
    """A colour bar below some panels, as wide as they are."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(image, ax=axes, location="bottom", extend="both", aspect=aspect, pad=0.02, fraction=0.05)
    bar.set_label(label, fontsize=9)
    bar.locator = MaxNLocator(5 if len(axes) == 1 else 8)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8)


def _picture(axes: Axes, field: NDArray[np.floating], aspect: float, cmap: str, limits: tuple[float, float]) -> Any:
    axes.set_facecolor(_VOID)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(field, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect=aspect)


def _filled(field: NDArray[np.floating]) -> NDArray[np.floating]:
    """The field with its mean where nothing is known, so that shading has something to work on."""
    known = np.isfinite(field)
    return np.where(known, field, float(field[known].mean(dtype=np.float64)) if known.any() else 0.0)


def exaggeration(elevation: NDArray[np.floating], dy: float, dx: float) -> int:
    """Return times that heights are multiplied for shading: the least of some by which some ground is steep.

    Parameters
    ----------
    elevation : ndarray of shape (H, W)
        Metres; NaN where there is no value.
    dy, dx : float
        Cell size in metres, north-south and east-west.
    """
    slope = slope_degrees(elevation, dy, dx)
    slopes = slope[np.isfinite(slope)]
    rise = math.tan(math.radians(float(np.percentile(slopes, 95)))) if slopes.size else 0.0
    wanted = math.tan(math.radians(_SHADED_DEGREES))
    return next((times for times in _EXAGGERATIONS if rise * times >= wanted), _EXAGGERATIONS[-1])


def bar_length(width: float) -> float:
    """Return a round length of 1, 2 or 5 times a power of ten: the longest that is at most a third of the width."""
    most = width / 3
    power = 10.0 ** math.floor(math.log10(most))
    return next(times * power for times in (5, 2, 1) if times * power <= most * (1 + 1e-9))


def _scale_bar(axes: Axes, shape: tuple[int, ...], cells_per_unit: float, unit: str) -> None:
    """A bar of so many units, east-west, in the lower left corner of a picture."""
    from matplotlib import patheffects

    rows, columns = shape
    length = bar_length(columns / cells_per_unit)
    cells = length * cells_per_unit
    left, low = columns * 0.05 - 0.5, rows * 0.93 - 0.5
    edge = [patheffects.withStroke(linewidth=4.5, foreground="white")]
    axes.plot([left, left + cells], [low, low], color="black", lw=2.5, solid_capstyle="butt", path_effects=edge)
    axes.text(
        left + cells / 2,
        low - rows * 0.015,
        f"{length:g} {unit}",
        ha="center",
        va="bottom",
        fontsize=9,
        path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
    )


def profile_figure(profiles: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """RMSE of every method by slope and by elevation of the truth, what that is against bicubic, and how many cells.

    Parameters
    ----------
    profiles : mapping
        ``profiles`` of ``metrics.json``.
    title : str
        Title of the figure.
    """
    kinds = [kind for kind in BINS if kind in profiles and any(profiles[kind]["count"])]
    if not kinds:
        figure = new_figure(6.4, 2.4)
        figure.suptitle(title, fontsize=11)
        figure.text(0.5, 0.45, "no valid cell", ha="center", va="center")
        return figure
    # Bins are drawn equally wide: there are many of them near sea level, and few where mountains are.
    spans = {kind: _filled_bins(profiles[kind]["count"]) for kind in kinds}
    widths = [max(len(span), 8) for span in spans.values()]
    figure = new_figure(1.4 + 0.36 * sum(widths) + 0.8 * len(kinds), 6.4, gap=0.03)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(3, len(kinds), squeeze=False, sharex="col", height_ratios=(3, 1.4, 1.2), width_ratios=widths)
    for column, kind in enumerate(kinds):
        _profile_column(grid[:, column], profiles[kind], spans[kind], BINS[kind].label, first=column == 0)
    return figure


def _filled_bins(count: list[int]) -> range:
    held = [i for i, cells in enumerate(count) if cells]
    return range(held[0], held[-1] + 1)


def _profile_column(axes: NDArray[Any], profile: Mapping[str, Any], span: range, label: str, first: bool) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    errors, gain, cells = axes
    pick = slice(span.start, span.stop)
    count = np.array(profile["count"][pick], float)
    place, sure = np.arange(len(span)) + 0.5, count >= THIN
    rmse = {name: np.array([np.nan if v is None else v for v in row[pick]]) for name, row in profile["rmse"].items()}
    rmse = {name: np.where(values > 0, values, np.nan) for name, values in rmse.items()}
    for name in [name for name in _COLOURS if name in rmse] + [name for name in rmse if name not in _COLOURS]:
        values = rmse[name]
        colour, front = _COLOURS.get(name, "tab:orange"), name == "model"
        errors.plot(place, values, "-", color=colour, lw=1.8 if front else 1.1, label=name, zorder=3 if front else 2)
        for marked, face in ((sure, colour), (~sure, "white")):
            errors.plot(place[marked], values[marked], "o", ms=4.5, mec=colour, mfc=face, zorder=4 if front else 2)
    if not any(np.isfinite(values).any() for values in rmse.values()):
        errors.text(0.5, 0.5, "every error is 0 m", ha="center", va="center", transform=errors.transAxes)
    # As ratios: what is gained on flat ground shows beside what is gained on cliffs.
    errors.set_yscale("log")
    errors.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    errors.yaxis.set_major_formatter("{x:g}")
    errors.yaxis.set_minor_formatter(NullFormatter())
    errors.grid(alpha=0.25)
    if "model" in rmse and "bicubic" in rmse:
        with np.errstate(divide="ignore", invalid="ignore"):
            reduction = 100 * (1 - rmse["model"] / rmse["bicubic"])
        shown = np.where(np.isfinite(reduction), reduction, 0.0)
        gain.bar(place[sure], shown[sure], 0.8, color="tab:blue")
        gain.bar(place[~sure], shown[~sure], 0.8, color="white", edgecolor="tab:blue", lw=0.8)
        # A bin of a few cells may be many times worse; it shall not hide the others.
        low = float(shown[sure].min(initial=0.0))
        gain.set_ylim(max(min(1.2 * low, -2.0), -100.0), max(1.15 * float(shown.max(initial=0.0)), 5.0))
    gain.axhline(0, color="0.3", lw=0.8)
    gain.grid(alpha=0.25)
    cells.bar(place, count, 0.8, color="0.6")
    cells.axhline(THIN, color="0.3", lw=0.8, ls=":")
    cells.set_yscale("log")
    cells.set_ylim(0.5, 3 * count.max())
    edges = [profile["edges"][i] for i in range(span.start, span.stop + 1)]
    cells.set_xticks(np.arange(len(edges)), [f"{edge:g}" for edge in edges], rotation=90 if len(edges) > 12 else 0)
    cells.tick_params(axis="x", labelsize=8)
    cells.set_xlim(0, len(span))
    cells.set_xlabel(label)
    if first:
        errors.set_ylabel("RMSE (m)")
        gain.set_ylabel("below\nbicubic (%)")
        cells.set_ylabel("cells")
        errors.legend(fontsize=8)

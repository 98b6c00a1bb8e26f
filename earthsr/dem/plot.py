"""Pictures of rasters of elevation: colours by height over hillshade, and two rasters beside their difference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.region_figures import exaggeration
from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.evaluation.maps import (
    PAGE,
    Drawing,
    MapRequest,
    View,
    blank_voids,
    cell_metres,
    colour_bar,
    draw_map,
    entitle,
    figure_text,
    inside,
    map_figure,
    map_inches,
    moved,
    note_voids,
    shared_box,
    view_of,
    window_of,
)
from earthsr.geo.areas import brought_onto
from earthsr.geo.crs import crs_name, same_crs
from earthsr.geo.elevations import Elevations, elevations
from earthsr.geo.fields import FieldSource
from earthsr.geo.grid import Bounds, Grid
from earthsr.geo.raster import Georeference, sampled
from earthsr.geo.readers import open_source, reprojected, split_variable
from earthsr.geo.terrain import hillshade, lit
from earthsr.geo.values import is_metres

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

#: Tints of land and of the sea floor by share of their range; brightness goes one way in each.
_LAND: Final = (
    (0.0, "#2e6b4f"),
    (0.08, "#5d9157"),
    (0.22, "#a3b86c"),
    (0.4, "#d9cf94"),
    (0.62, "#c59d6b"),
    (0.82, "#a9785f"),
    (1.0, "#f4efeb"),
)
_SEA: Final = ((0.0, "#0b2a5b"), (0.5, "#2f6db0"), (0.85, "#7fb3d9"), (1.0, "#cfe6f2"))
_DIFFERENCE: Final = "RdBu_r"
#: Cells that are read for each pixel of a side: their colours are averaged.
_FINER: Final = 1.5
#: Share of values below zero from which on these are drawn as sea.
_SEA_SHARE: Final = 0.002
#: Tints of a scale; share of the range from which on land, or the sea, has them all.
_TINTS: Final = 1024
_WHOLE: Final = 0.25
_MOST_CONTOURS: Final = 300
#: Least width of a row's cells, as they are shaded, over that of the widest.
_SLIVER: Final = 0.2


@dataclass(frozen=True)
class _Part:
    """A raster's part as it is drawn."""

    name: str
    view: View
    values: NDArray[np.float32]
    """Metres, NaN where there is none."""


def draw_elevation(source: Any, request: MapRequest) -> Drawing:
    """Draw a raster of elevation, alone or beside another one.

    Parameters
    ----------
    source : Source
        Open.
    request : MapRequest
        Part, size, contours, the other raster.

    Raises
    ------
    InputError
        If the rasters do not overlap, contours are too many, or years or areas are asked for.
    DataError
        If values are no metres, or no elevations.
    """
    require_one_map(source, request)
    raster = in_metres(source)
    grid = raster.georeference
    if request.beside:
        return _beside(raster, request)
    view = view_of(grid, window_of(grid, request.bbox), _FINER * request.size)
    part = _Part(raster.name, view, sampled(raster, view.window, view.step))
    _require_contours(part.values, request.contours)
    facts = {**view.facts(), **range_of(part.values), "notes": raster.notes}

    def figures() -> Iterator[Figure]:
        yield _single(part, request)

    return Drawing("elevation", facts, figures)


def in_metres(source: Any) -> Elevations:
    """See a raster as elevations; says so where nobody says the units.

    Raises
    ------
    DataError
        If its units are others than metres.
    """
    units = source.georeference.units.strip()
    if units and not is_metres(units):
        raise DataError(f"{source.name}: units are {units!r}, expected metres, as of elevation; leave it out")
    raster = elevations(source, option=None)
    if not units:
        warnings.warn(f"{source.name}: has no units; metres are assumed", EarthsrWarning, stacklevel=2)
        raster.notes.append(f"{source.name}: has no units, metres are assumed")
    return raster


def require_one_map(source: Any, request: MapRequest) -> None:
    """Check that a raster has one layer, and that nothing is asked for that only maps of years or classes have.

    Raises
    ------
    InputError
        If it has not, or it is.
    """
    years = source.years() if isinstance(source, FieldSource) else None
    if years is not None and len(years) > 1:
        raise InputError(
            f"{source.name}: has {len(years)} layers, expected one of elevation; cdo selyear takes one out"
        )
    if request.years is not None:
        raise InputError(f"--years: {source.name} is elevation and has no years; leave it out")
    if request.suffix in (".gif", ".mp4"):
        raise InputError(
            f"{source.name} is one map of elevation, and {request.suffix} shows years one after the other; name a .png"
        )
    if request.areas:
        raise InputError(f"{source.name} is elevation, and areas are those of classes; leave --areas out, name a .png")
    for option, given in (("--scenario", request.scenario), ("--relief", request.relief)):
        if given:
            raise InputError(f"{option} is for maps of land use, and {source.name} is elevation; leave it out")
    if len(request.beside) > 1 and request.suffix != PAGE:
        raise InputError(f"--beside names {len(request.beside)} rasters, and a picture shows one; name a .html")


def range_of(values: NDArray[np.float32]) -> dict[str, Any]:
    """Return lowest and highest of some heights, in plain values."""
    valid = values[np.isfinite(values)]
    return {
        "units": "m",
        "minimum": float(valid.min()) if valid.size else None,
        "maximum": float(valid.max()) if valid.size else None,
        "drawn_without_value": int(values.size - valid.size),
    }


def _require_contours(values: NDArray[np.float32], metres: float | None) -> None:
    if metres is None:
        return
    if not (math.isfinite(metres) and metres > 0):
        raise InputError(f"--contours is {metres:g}, expected metres between contours, above 0")
    heights = values[np.isfinite(values)]
    relief = float(heights.max() - heights.min()) if heights.size else 0.0
    if relief / metres > _MOST_CONTOURS:
        wanted = _round_up(relief / 40)
        raise InputError(
            f"--contours {metres:g} gives {relief / metres:.0f} heights of contours over {relief:.0f} m of relief; "
            f"--contours {wanted:g} gives {relief / wanted:.0f}"
        )


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= value * (1 - 1e-9))


def tints(values: NDArray[np.float32]) -> tuple[Colormap, float, float, str]:
    """Choose colours of heights, lowest and highest height that have one of their own, and which ends go on."""
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    heights = values[np.isfinite(values)]
    if not heights.size:
        heights = np.zeros(1, np.float32)
    least, most = float(heights.min()), float(heights.max())
    low, high = (float(value) for value in np.percentile(heights, (0.1, 99.9)))
    if most - least < 1.2 * (high - low):
        low, high = least, most
    if high - low < 1:
        low, high = low - 0.5, high + 0.5
    ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    extend = ends[least < low, most > high]
    sea, land = (LinearSegmentedColormap.from_list("part", tints) for tints in (_SEA, _LAND))
    if float((heights < 0).mean()) < _SEA_SHARE or low >= 0:
        tints = land(np.linspace(0, 1, _TINTS))
    elif high <= 0:
        tints = sea(np.linspace(0, 1, _TINTS))
    else:
        shore = -low / (high - low)
        below = max(1, round(_TINTS * shore))
        # What takes little of the range gets the tints next to the coast: shallow water is pale.
        tints = np.concatenate(
            [
                sea(np.linspace(1 - min(1.0, shore / _WHOLE), 1, below)),
                land(np.linspace(0, min(1.0, (1 - shore) / _WHOLE), max(1, _TINTS - below))),
            ]
        )
    return ListedColormap(tints), low, high, extend


def _shaded(
    values: NDArray[np.float32], grid: Grid, scale: tuple[Colormap, float, float, str], times: int
) -> NDArray[np.float32]:
    """Colours of heights under light from the north-west, (H, W, 4); nothing to be seen where there is no value."""
    colours, low, high, _ = scale
    dy, dx = cell_metres(grid)
    known = np.isfinite(values)
    # Near a pole, cells of a map of the globe are slivers whose least step would be a cliff.
    light = hillshade(values * np.float32(times), dy, np.maximum(dx, _SLIVER * dx.max()))
    share = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    image = np.asarray(colours(share), np.float32)
    image[..., :3] = lit(image[..., :3], light)
    image[..., 3] = known
    return image


def _draw(
    axes: Axes, part: _Part, scale: tuple[Colormap, float, float, str], times: int, title: str, contours: float | None
) -> Any:
    """Draw one raster; returns what a colour bar is made from."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    grid = part.view.grid
    blank_voids(axes)
    # Colours, not heights, are averaged where there are more cells than pixels.
    smooth = "antialiased" if part.view.step > 1 or max(grid.rows, grid.columns) > 900 else "nearest"
    draw_map(axes, _shaded(part.values, grid, scale, times), grid, title, interpolation=smooth)
    if contours is not None:
        _contours(axes, part, contours)
    return ScalarMappable(Normalize(scale[1], scale[2]), scale[0])


def _contours(axes: Axes, part: _Part, metres: float) -> None:
    grid, values = part.view.grid, part.values
    heights = values[np.isfinite(values)]
    if not heights.size or min(values.shape) < 2:
        return
    levels = np.arange(math.ceil(float(heights.min()) / metres), math.floor(float(heights.max()) / metres) + 1) * metres
    if not len(levels):
        return
    # Every fifth is thicker and has its height beside it.
    thick = np.isclose(np.mod(np.round(levels / metres), 5), 0)
    limits = axes.axis()
    for which, width in ((~thick, 0.35), (thick, 0.8)):
        if which.any():
            lines = axes.contour(
                grid.x(), grid.y(), np.ma.masked_invalid(values), levels[which], colors="0.15", linewidths=width
            )
            if width > 0.5:
                axes.clabel(lines, fontsize=6.5, fmt="%g", inline_spacing=2)
    axes.axis(limits)


def _single(part: _Part, request: MapRequest) -> Figure:
    grid = part.view.grid
    width, height = map_inches(grid, request.size)
    wide = height / width < 0.62
    figure = map_figure(width + (0.75 if wide else 1.7), height + (1.45 if wide else 0.85))
    dy, dx = cell_metres(grid)
    times = exaggeration(part.values, dy, float(dx.mean()))
    scale = tints(part.values)
    axes = figure.subplots()
    entitle(figure, _titled(part, times, request.contours))
    bar = _draw(axes, part, scale, times, "", request.contours)
    colour_bar(figure, bar, [axes], "elevation (m)", scale[3], below=wide)
    note_voids(figure, [part.values])
    return figure


def _titled(part: _Part, times: int, contours: float | None) -> str:
    words = [figure_text(part.view.facts())]
    words += ["hillshade" + (f" of heights x {times}" if times > 1 else "")]
    words += [] if contours is None else [f"contours every {contours:g} m"]
    return f"{part.name}\n{', '.join(words)}"


def _beside(raster: Any, request: MapRequest) -> Drawing:
    """Draw two rasters on one scale, and the first one minus the second."""
    (path,) = request.beside
    grid = raster.georeference
    source: Any = open_source(path)
    crs = source.georeference.crs_wkt
    warped = not same_crs(crs, grid.crs_wkt)
    if warped:
        source.close()
        source = reprojected(split_variable(path)[0], "", onto=_onto(raster, request))
    try:
        other = in_metres(source)
        first, second = _pair(raster, other, request)
    finally:
        source.close()
    onto, how = brought_onto(second.values, second.view.grid, first.view.grid, other.name)
    if warped:
        how = f"{other.name} was brought from {crs_name(crs)} to {crs_name(grid.crs_wkt)}, {how}"
    if max(first.view.step, second.view.step) > 1:
        how += ", of the cells that are drawn"
    difference = np.subtract(first.values, onto, dtype=np.float32)
    _require_contours(first.values, request.contours)
    valid = difference[np.isfinite(difference)].astype(np.float64)
    if not valid.size:
        raise InputError(f"{raster.name} and {other.name} have no cell with a value in common; nothing is compared")
    scores = {
        "mean": float(valid.mean()),
        "rmse": float(np.sqrt(np.mean(valid**2))),
        "largest": float(np.abs(valid).max()),
    }
    facts = {
        **first.view.facts(),
        **range_of(first.values),
        "beside": {"path": path, **second.view.facts(), **range_of(second.values)},
        "difference": {"what": f"{raster.name} minus {other.name}", "how": how, "units": "m", **scores},
        "notes": [*raster.notes, *other.notes],
    }

    def figures() -> Iterator[Figure]:
        yield _three(first, second, difference, facts["difference"], request)

    return Drawing("elevation", facts, figures)


def _side(request: MapRequest) -> int:
    """Pixels of the long side of one of three maps."""
    return max(request.size // 2, 300)


def _onto(raster: Any, request: MapRequest) -> Georeference:
    """Grid of what is drawn of the first raster, for another one to be warped onto."""
    grid = raster.georeference
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EarthsrWarning)  # said once, when it is read
        return Georeference.of(view_of(grid, window_of(grid, request.bbox), _FINER * _side(request)).grid)


def _pair(raster: Any, other: Any, request: MapRequest) -> tuple[_Part, _Part]:
    """The part of each that both cover."""
    ours, theirs = raster.georeference, other.georeference
    start = window_of(ours, request.bbox)
    wanted = ours.part(start)
    box = shared_box(wanted, theirs)
    if box is None:
        first, second = (", ".join(f"{edge:g}" for edge in grid.bounds) for grid in (wanted, theirs))
        raise InputError(
            f"{raster.name} and {other.name} do not overlap: {first} against {second} (west, south, east, north); "
            "give rasters of the same ground"
        )
    (bounds, turn), pixels = box, _FINER * _side(request)
    cut = inside(wanted, bounds)
    window = cut._replace(row=cut.row + start.row, column=cut.column + start.column)
    mine = view_of(ours, window, pixels)
    away = inside(theirs, Bounds(bounds.west - turn, bounds.south, bounds.east - turn, bounds.north))
    seen = view_of(theirs, away, pixels)
    values = sampled(other, seen.window, seen.step)
    seen = replace(seen, grid=moved(seen.grid, turn))
    return _Part(raster.name, mine, sampled(raster, mine.window, mine.step)), _Part(other.name, seen, values)


def _three(
    first: _Part, second: _Part, difference: NDArray[np.float32], about: dict[str, Any], request: MapRequest
) -> Figure:
    grid = first.view.grid
    width, height = map_inches(grid, _side(request))
    row = height / width > 0.45
    size = (3 * (width + 0.65), height + 2.0) if row else (width + 2.2, 3 * (height + 0.65) + 0.4)
    figure = map_figure(*size)
    panels = figure.subplots(1, 3) if row else figure.subplots(3, 1)
    scale = tints(np.concatenate([first.values.ravel(), second.values.ravel()]))
    dy, dx = cell_metres(grid)
    times = exaggeration(first.values, dy, float(dx.mean()))
    for axes, part in zip(panels[:2], (first, second), strict=True):
        bar = _draw(axes, part, scale, times, f"{part.name}\n{figure_text(part.view.facts())}", request.contours)
    valid = np.abs(difference[np.isfinite(difference)])
    limit = float(np.percentile(valid, 99)) or float(valid.max()) or 1.0
    blank_voids(panels[2])
    words = f"mean {about['mean']:.2f} m, RMSE {about['rmse']:.2f} m"
    image = draw_map(
        panels[2],
        np.ma.masked_invalid(difference),
        grid,
        f"difference: left minus right\n{words}" if row else f"difference: above minus below, {words}",
        cmap=_DIFFERENCE,
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    ends = "both" if float(valid.max()) > limit * 1.001 else "neither"
    light = "" if times == 1 else f"; hillshades of heights x {times}"
    entitle(figure, f"{first.name} and {second.name}: {about['how']}{light}", 9)
    colour_bar(figure, bar, list(panels[:2]), "elevation (m)", scale[3], below=row)
    colour_bar(figure, image, [panels[2]], "difference (m)", ends, below=row)
    note_voids(figure, [first.values, second.values, difference])
    return figure

"""Maps at a screen's size, whatever they show: which cells of a raster are read, axes of the ground, files to look at.

What is drawn on them is the workloads' own.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.evaluation.figures import DPI, new_figure, write_png
from earthsr.geo.crs import crs_name, metres_per_unit
from earthsr.geo.grid import Bounds, Grid, Window
from earthsr.geo.raster import sampled, samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
"""West, south, east, north, in units of the CRS."""

#: Suffixes of what is written.
SUFFIXES: Final = (".png", ".html", ".gif", ".mp4", ".csv")
#: That of a page.
PAGE: Final = ".html"
#: Of a degree of latitude, on the sphere of the same radius as areas have.
METRES_PER_DEGREE: Final = math.pi * 6_371_008.8 / 180
#: Milliseconds that each picture of an animation stands, and the last one.
_STANDS_MS, _ENDS_MS = 500, 1500
#: Length of a colour bar over its width.
_BAR: Final = 45
#: Letters of a title on an inch.
_LETTERS: Final = 13
#: A degree of longitude gets no narrower than this share of one of latitude.
_NARROWEST: Final = 0.05


@dataclass(frozen=True)
class MapRequest:
    """What a workload is asked to draw."""

    text: str | None
    """The raster as it was named: ``FILE`` or ``FILE:VARIABLE``; None of an array."""
    bbox: Box | None = None
    size: int = 1200
    """Pixels of the picture's long side."""
    contours: float | None = None
    """Metres between contours."""
    beside: tuple[str, ...] = ()
    """Further rasters to draw beside it; several on a page alone."""
    years: tuple[int, ...] | None = None
    suffix: str = ".png"
    """Of what is written."""
    areas: bool = False
    """Whether a table of areas is wanted."""
    scenario: tuple[str, ...] = ()
    """Files of a scenario, for a page of maps."""
    relief: str | None = None
    """A raster of elevation whose hillshade lies over maps, on a page."""


@dataclass(frozen=True)
class Drawing:
    """What a workload has drawn."""

    kind: str
    """Such as ``elevation``."""
    facts: dict[str, Any]
    """What is shown, in plain values."""
    figures: Callable[[], Iterator[Figure]] = lambda: iter(())
    """Draws the picture, or the pictures of an animation one after the other."""
    table: list[list[Any]] = field(default_factory=list)
    """Areas: a line of headings, and one for each class."""
    page: Any = None
    """A :class:`earthsr.evaluation.page.Page`, where one was asked for."""


@dataclass(frozen=True)
class View:
    """Part of a raster, as it is drawn."""

    window: Window
    """Its cells; columns may go round the globe."""
    step: int
    """Cells of the raster for each one that is drawn, along both axes."""
    grid: Grid
    """Of what is drawn."""

    def facts(self) -> dict[str, Any]:
        """Place and size of what is shown, in plain values."""
        return {
            "bounds": list(self.grid.bounds),
            "crs": crs_name(self.grid.crs_wkt),
            "cells": [self.window.rows, self.window.columns],
            "drawn": [self.grid.rows, self.grid.columns],
            "cells_per_pixel": self.step,
        }


def view_of(grid: Grid, window: Window, pixels: float) -> View:
    """Choose every how many cells of a window are drawn, so that its long side has about so many pixels."""
    step = max(1, round(max(window.rows, window.columns) / pixels))
    step = min(step, window.rows, window.columns)
    rows, columns = (samples(cells - min(step // 2, cells - 1), step) for cells in (window.rows, window.columns))
    part = grid.part(window)
    drawn = Grid(
        part.west,
        part.north,
        part.cell_x * part.columns / columns,
        part.cell_y * part.rows / rows,
        rows,
        columns,
        part.crs_wkt,
        part.geographic,
    )
    return View(window, step, drawn)


def window_of(grid: Grid, bbox: Box | None) -> Window:
    """Cells of a box, all of them where there is none; see :meth:`earthsr.geo.Grid.window`."""
    return Window(0, 0, grid.rows, grid.columns) if bbox is None else grid.window(bbox)


def holds_codes(source: Any) -> bool:
    """Whether a raster's numbers are codes: its file says what they stand for, or they are bytes without a unit."""
    if getattr(source, "categories", None) is not None:
        return True
    place = source.georeference
    if place.units.strip() not in ("", "1") or getattr(source, "packed", False) or not hasattr(source, "codes"):
        return False
    stored = source.codes(Window(0, 0, 1, 1)).stored
    return bool(stored.dtype.kind in "iu" and stored.dtype.itemsize == 1)


def cell_metres(grid: Grid) -> tuple[float, NDArray[np.float64]]:
    """Height of a cell in metres, and width of the cells of each row, (rows, 1)."""
    if not grid.geographic:
        unit = metres_per_unit(grid.crs_wkt)
        return grid.cell_y * unit, np.full((grid.rows, 1), grid.cell_x * unit)
    cosine = np.cos(np.deg2rad(np.clip(grid.latitudes(), -89.5, 89.5)))[:, None]
    return grid.cell_y * METRES_PER_DEGREE, grid.cell_x * METRES_PER_DEGREE * cosine


def shape_ratio(grid: Grid) -> float:
    """Height of a map over its width, in the ground's proportions at its middle latitude."""
    west, south, east, north = grid.bounds
    return (north - south) / (east - west) * aspect(grid)


def aspect(grid: Grid) -> float:
    """Length on paper of a unit of y over one of x."""
    if not grid.geographic:
        return 1.0
    south, north = max(grid.bounds.south, -90.0), min(grid.bounds.north, 90.0)
    return 1 / max(math.cos(math.radians((south + north) / 2)), _NARROWEST)


def map_inches(grid: Grid, size: int) -> tuple[float, float]:
    """Width and height in inches of a map whose long side has so many pixels."""
    ratio, long = shape_ratio(grid), size / DPI
    return (long, long * ratio) if ratio < 1 else (long / ratio, long)


def map_figure(width: float, height: float) -> Figure:
    """Return an empty figure of ``width x height`` inches, whose maps lie close together."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = new_figure(width, height)
    figure.set_layout_engine(ConstrainedLayoutEngine(compress=True, w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.02))
    return figure


def draw_map(axes: Axes, image: NDArray[Any], grid: Grid, title: str = "", labels: float = 8.0, **options: Any) -> Any:
    """Draw an image on axes of the ground: degrees with their letters, or kilometres of a projection.

    Parameters
    ----------
    axes : Axes
        Where.
    image : ndarray of shape (H, W) or (H, W, 3 or 4)
        Values, or colours.
    grid : Grid
        Of the image.
    title : str
        Above it.
    labels : float
        Size of the labels, points.
    **options
        Of matplotlib's ``imshow``.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    west, south, east, north = grid.bounds
    drawn = axes.imshow(image, extent=(west, east, south, north), aspect="auto", **options)
    axes.set_aspect(aspect(grid))
    # Beyond the poles, where the outermost cells of grids of nodes reach, there is nothing.
    if grid.geographic:
        axes.set_ylim(max(south, -90.0), min(north, 90.0))
    box = axes.get_position()
    inches = axes.figure.get_size_inches()  # type: ignore[union-attr]
    wide, high = box.width * inches[0], box.height * inches[1]
    ratio = shape_ratio(grid)
    wide, high = min(wide, high / ratio), min(high, wide * ratio)
    for axis, span, long, letters in ((axes.xaxis, east - west, wide, 7), (axes.yaxis, north - south, high, 5)):
        # Round numbers of degrees, on large maps parts of 90.
        steps = [1, 1.5, 3, 4.5, 6, 9, 10] if grid.geographic and span > 100 else [1, 2, 2.5, 5, 10]
        axis.set_major_locator(MaxNLocator(max(2, min(8, int(long * 72 / (labels * letters)))), steps=steps))
    if grid.geographic:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: longitude(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: latitude(value)))
    else:
        unit = metres_per_unit(grid.crs_wkt) / 1000
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * unit:,.10g}"))
        axes.set_xlabel("easting (km)", fontsize=labels)
        axes.set_ylabel("northing (km)", fontsize=labels)
    axes.tick_params(labelsize=labels)
    if title:
        axes.set_title(title, fontsize=labels + 1.5)
    return drawn


def blank_voids(axes: Axes) -> None:
    """Hatch what lies behind a map, where it has no value: no colour of a map looks so."""
    axes.set_facecolor("white")
    axes.patch.set(hatch="////", edgecolor="0.8", linewidth=0)


def entitle(figure: Figure, text: str, size: float = 10.0) -> None:
    """Write a title above all maps, in as many lines as the figure's width asks for."""
    letters = max(int(figure.get_size_inches()[0] * _LETTERS * 10 / size), 12)
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, letters)]
    figure.suptitle("\n".join(lines), fontsize=size)


def colour_bar(
    figure: Figure, image: Any, axes: Sequence[Axes], label: str, extend: Any = "neither", below: bool = False
) -> None:
    """Draw the colour bar of some maps, beside or below them; ``extend`` says which of its ends go on."""
    place: Any = "bottom" if below else "right"
    width, height = figure.get_size_inches()
    # As thick as it takes for the bar to be as long as the figure, however narrow that is.
    share = min(max((width / height if below else height / width) / _BAR, 0.05), 0.3)
    bar = figure.colorbar(
        image, ax=axes, location=place, extend=extend, extendfrac=0.02, aspect=_BAR, pad=0.02, fraction=share
    )
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def note_voids(figure: Figure, fields: Sequence[NDArray[np.float32]]) -> None:
    """Say what the hatching is, where there is any."""
    if any(not np.isfinite(values).all() for values in fields):
        from matplotlib.patches import Patch

        void = Patch(facecolor="white", edgecolor="0.8", hatch="////", label="no value")
        figure.legend(handles=[void], loc="outside lower left", fontsize=8, frameon=False)


def longitude(value: float) -> str:
    """Write a longitude with its letter; 190 is 170°W."""
    turned = (value + 180) % 360 - 180
    if abs(abs(turned) - 180) < 1e-9:
        return "180°"
    return f"{abs(turned):.6g}°{'E' if turned > 0 else 'W' if turned < 0 else ''}"


def latitude(value: float) -> str:
    """Write a latitude with its letter."""
    return f"{abs(value):.6g}°{'N' if value > 0 else 'S' if value < 0 else ''}"


def shared_box(grid: Grid, other: Grid) -> tuple[Bounds, float] | None:
    """Part of a grid that another one covers too, and what its longitudes are ahead of the other's.

    None where they share nothing.
    """
    ours = grid.bounds
    if grid.periodic or other.periodic:
        # What goes round the globe has all longitudes, however it counts them.
        across = ours if other.periodic else other.bounds
        south, north = max(ours.south, other.bounds.south), min(ours.north, other.bounds.north)
        return None if south >= north else (Bounds(across.west, south, across.east, north), 0.0)
    best: tuple[Bounds, float] | None = None
    for turn in (0.0, 360.0, -360.0) if grid.geographic else (0.0,):
        theirs = other.bounds
        west, east = max(ours.west, theirs.west + turn), min(ours.east, theirs.east + turn)
        south, north = max(ours.south, theirs.south), min(ours.north, theirs.north)
        if west >= east or south >= north:
            continue
        if best is None or east - west > best[0].east - best[0].west:
            best = Bounds(west, south, east, north), turn
    return best


def inside(grid: Grid, box: Bounds) -> Window:
    """Cells of a grid that a box touches, none beyond its edges; columns go round the globe where it does."""
    slack = 1e-6
    left = math.floor((box.west - grid.west) / grid.cell_x + slack)
    right = math.ceil((box.east - grid.west) / grid.cell_x - slack)
    if not grid.periodic:
        left, right = max(left, 0), min(right, grid.columns)
    top = max(math.floor((grid.north - box.north) / grid.cell_y + slack), 0)
    bottom = min(math.ceil((grid.north - box.south) / grid.cell_y - slack), grid.rows)
    return Window(top, left, max(bottom - top, 1), max(right - left, 1))


def moved(grid: Grid, east: float) -> Grid:
    """The grid with its longitudes counted otherwise."""
    return replace(grid, west=grid.west + east) if east else grid


def seen_from(raster: Any, grid: Grid, pixels: float) -> tuple[NDArray[np.float32], Grid] | None:
    """Read what a raster has of the ground of a grid, at about so many cells along its long side.

    Returns
    -------
    tuple
        Values, NaN where there is none, and their grid, whose longitudes count as those of ``grid``. None where the
        two share no ground.
    """
    place = raster.georeference
    box = shared_box(grid, place)
    if box is None:
        return None
    bounds, turn = box
    away = inside(place, Bounds(bounds.west - turn, bounds.south, bounds.east - turn, bounds.north))
    view = view_of(place, away, pixels)
    return sampled(raster, view.window, view.step), moved(view.grid, turn)


def write_table(rows: Sequence[Sequence[Any]]) -> str:
    """Write a table as CSV; areas with as many digits as they have meaning."""
    return "".join(",".join(_cell(value) for value in row) + "\n" for row in rows)


def _cell(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n') else text


def write_drawing(drawing: Drawing, path: Path) -> None:
    """Write what was drawn into a file that nobody sees yet, by its suffix.

    Raises
    ------
    InputError
        If an animation is asked for and there is one picture, or ffmpeg is needed and not there.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        path.write_text(write_table(drawing.table), encoding="utf-8")
    elif suffix == ".png":
        write_png(next(drawing.figures()), path)
    elif suffix == ".gif":
        _write_gif(drawing, path)
    else:
        _write_mp4(drawing, path)


def require_ffmpeg(path: Path) -> None:
    """Check that a film can be written.

    Raises
    ------
    InputError
        If it is one and ffmpeg is not there.
    """
    from matplotlib.animation import FFMpegWriter

    if path.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise InputError(
            f"{path}: .mp4 is written by ffmpeg, which is not on the PATH; install it (apt install ffmpeg, or conda "
            f"install ffmpeg), or name {path.with_suffix('.gif')}"
        )


def _write_gif(drawing: Drawing, path: Path) -> None:
    from PIL import Image

    frames = []
    for figure in drawing.figures():
        pixels = _pixels(figure)
        # As many colours as a class map has are kept as they are.
        frames.append(Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, dither=Image.Dither.NONE))
    stands = [_STANDS_MS] * (len(frames) - 1) + [_ENDS_MS]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=stands, loop=0)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure: (rows, columns, 3)."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _write_mp4(drawing: Drawing, path: Path) -> None:
    from matplotlib.animation import FFMpegWriter

    writer = None
    try:
        for figure in drawing.figures():
            if writer is None:
                # Films of this code have an even number of pixels a side; each year stands as long as in a GIF.
                even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4"]
                writer = FFMpegWriter(fps=1000 / _STANDS_MS, extra_args=even)  # type: ignore[arg-type]
                writer.setup(figure, path, dpi=DPI)
            writer.fig = figure
            writer.grab_frame()
    finally:
        if writer is not None:
            writer.finish()


def figure_text(facts: Mapping[str, Any]) -> str:
    """What is shown, in a line for people."""
    (rows, columns), step = facts["cells"], facts["cells_per_pixel"]
    return f"{rows} x {columns} cells" + (f", every {step} cells" if step > 1 else "")

"""Windows of rasters, which may be any integers: once around the Earth where it goes, and nothing beyond the edges.

Class maps, archives and elevations all cut such windows here, so that the dateline is the same to all of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from earthsr.errors import EarthsrWarning


class Window(NamedTuple):
    """A rectangle of cells."""

    row: int
    column: int
    rows: int
    columns: int


class Piece(NamedTuple):
    """Part of a window that lies inside the raster."""

    part: Window
    """Its cells."""
    down: int
    """Its first row and column in the window that was asked for."""
    across: int


def pieces(window: Window, rows: int, columns: int, periodic: bool) -> Iterator[Piece]:
    """Divide a window into parts inside a raster; what lies beyond the raster is in none.

    Parameters
    ----------
    window : Window
        Any integers; its rows and columns are not negative.
    rows, columns : int
        Of the raster.
    periodic : bool
        Whether columns wrap around, as often as the window is wider than the raster.
    """
    first, start, height, width = window
    if height < 0 or width < 0:
        raise ValueError(f"window has {height} rows and {width} columns, expected none or more")
    top, bottom = max(first, 0), min(first + height, rows)
    left, right = start, start + width
    if not periodic:
        left, right = max(left, 0), min(right, columns)
    while top < bottom and left < right:
        place = left % columns
        count = min(right - left, columns - place)
        yield Piece(Window(top, place, bottom - top, count), top - first, left - start)
        left += count


def warn_of_rest(
    bbox: tuple[float, float, float, float],
    covered: tuple[float, float, float, float],
    cell: tuple[float, float],
    what: str,
    round_the_globe: bool = False,
) -> None:
    """Warn of a box that reaches beyond what there is, by a cell or more: what comes out is smaller than asked for.

    Parameters
    ----------
    bbox, covered : tuple of float
        West, south, east, north of the box, and of the cells that it touches.
    cell : tuple of float
        Width and height of a cell, in the same units.
    what : str
        What has an edge there, for the message.
    round_the_globe : bool
        Whether there is none in the west and the east.
    """
    over_x = 0.0 if round_the_globe else max(covered[0] - bbox[0], bbox[2] - covered[2])
    over_y = max(covered[1] - bbox[1], bbox[3] - covered[3])
    if over_x >= cell[0] or over_y >= cell[1]:
        asked, got = (",".join(f"{value:g}" for value in box) for box in (bbox, covered))
        warnings.warn(
            f"--bbox {asked} reaches beyond {what}; what comes out covers {got}", EarthsrWarning, stacklevel=4
        )


def dateline(west: float, cell: float, columns: int) -> int:
    """First column east of longitude 180: the same place on Earth, whichever longitude a periodic raster begins with.

    Where the meridian cuts a cell, that cell or the next one, always the same of the two.
    """
    # Grids have the meridian on an edge or a centre: a quarter of a cell keeps rounding away from either.
    return math.floor((180 - west) / cell + 0.25) % columns

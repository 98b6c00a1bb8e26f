"""Windows of any integers: once around the Earth where a grid goes, no value beyond it, and the cells of another grid.

Nothing larger than the window is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import Grid
from earthsr.geo.lonlat_grids import Box, box_of
from earthsr.geo.window import Window, pieces

Read = Callable[[Window], NDArray[Any]]

#: Share of a cell; a centre that lies on an edge, but for rounding, belongs to the cell south or east of it.
_EDGE: Final = 1e-6
#: Share of a cell by which two grids whose cells are meant to be the same may differ.
_SAME: Final = 0.02


def centres_of(grid: Grid) -> Box:
    """Outermost centres of a grid: what an interpolation onto it must reach."""
    box, half_lon, half_lat = box_of(grid), grid.cell_lon_deg / 2, grid.cell_lat_deg / 2
    return Box(box.west + half_lon, box.east - half_lon, box.south + half_lat, box.north - half_lat)


def fill(values: NDArray, grid: Grid, window: Window, read: Read) -> NDArray:
    """Fill the part of a window that the grid has; columns wrap around where it is periodic.

    Parameters
    ----------
    values : ndarray of shape (..., rows, columns)
        Of the window, holding what cells beyond the grid have. It is changed.
    grid : Grid
        Whose window it is.
    window : Window
        Any integers.
    read : callable
        Reads a window that lies within the grid, (..., rows, columns).

    Returns
    -------
    ndarray
        ``values``.
    """
    for part, down, across in pieces(window, grid.rows, grid.columns, grid.periodic):
        values[..., down : down + part.rows, across : across + part.columns] = read(part)
    return values


def aligned(fine: Grid, other: Grid) -> tuple[int, int] | None:
    """Row and column of another grid at which a grid begins whose cells are some of its own; None where they are not.

    Notes
    -----
    The column may lie beyond the other grid where that is periodic. Whether it has all the cells is not looked at.
    """
    here, there = box_of(fine), box_of(other)
    turn = 0 if other.periodic else 360 * round(((here.west + here.east) - (there.west + there.east)) / 720)
    row, column = (there.north - here.north) / other.cell_lat_deg, (here.west - turn - there.west) / other.cell_lon_deg
    bottom = (there.north - here.south) / other.cell_lat_deg
    right = (here.east - turn - there.west) / other.cell_lon_deg
    off = [row - round(row), column - round(column), bottom - round(row) - fine.rows]
    off.append(right - round(column) - fine.columns)
    return (round(row), round(column)) if max(map(abs, off)) < _SAME else None


def sample(values: NDArray, fine: Grid, window: Window, other: Grid, read: Read) -> NDArray:
    """Take the cells of another grid in which the centres of a window's cells lie.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
        Of the window, holding what cells have whose centres lie beyond the other grid. It is changed.
    fine : Grid
        Whose window it is.
    window : Window
        Within the grid.
    other : Grid
        Of what is read.
    read : callable
        Reads a window that lies within the other grid.

    Returns
    -------
    ndarray
        ``values``.
    """
    rows, columns = _cells(fine, window, other)
    i = np.flatnonzero((rows >= 0) & (rows < other.rows))
    j = np.arange(window.columns) if other.periodic else np.flatnonzero(columns < other.columns)
    if not i.size or not j.size:
        return values
    rows, columns = rows[i], columns[j]
    top, left = int(rows.min()), int(columns.min())
    part = Window(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    found = fill(np.empty((part.rows, part.columns), values.dtype), other, part, read)
    values[np.ix_(i, j)] = found[np.ix_(rows - top, columns - left)]
    return values


def _cells(fine: Grid, window: Window, other: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the other grid for each row of a window, and its column, which counts on round the Earth on periodic ones.

    Rows beyond it are negative or too large; columns beyond a grid that is not periodic are too large.
    """
    south = (np.arange(window.row, window.row + window.rows) + 0.5) * (fine.cell_lat_deg / other.cell_lat_deg)
    rows = np.floor((other.north_deg - fine.north_deg) / other.cell_lat_deg + south + _EDGE).astype(np.int64)
    east = (np.arange(window.column, window.column + window.columns) + 0.5) * (fine.cell_lon_deg / other.cell_lon_deg)
    east += (fine.west_deg - other.west_deg) / other.cell_lon_deg + _EDGE
    if not other.periodic:
        east %= 360 / other.cell_lon_deg
    return rows, np.floor(east).astype(np.int64)

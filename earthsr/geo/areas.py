"""Areas on regular grids of longitude and latitude: overlaps, aggregation, and interpolation between two such grids.

No ratio between the two grids is assumed, and no alignment. A cell's area is that on a sphere, whose share between two
parallels is the difference of their sines: for rows of one height that is the cosine of the latitude, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.grid import Grid, Window, pieces

Interpolation = Literal["bilinear", "nearest"]

Read = Callable[[Window], NDArray[Any]]

#: Share of a cell; a centre that lies on an edge, but for rounding, belongs to the cell south or east of it.
_EDGE: Final = 1e-6
#: Share of a cell by which two grids whose cells are meant to be the same may differ.
_SAME: Final = 0.02
#: Cells of the grids of this field are 1e-3 degrees and larger; coordinates that differ by less are the same.
_SAME_DEG = 1e-6


def overlap(coarse_edges: NDArray[np.float64], fine_edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length that each coarse cell shares with each fine one.

    Parameters
    ----------
    coarse_edges, fine_edges : ndarray of shape (n + 1,) and (m + 1,)
        Monotonic, both in the same direction.

    Returns
    -------
    ndarray of shape (n, m)
        In the unit of the edges.
    """
    low_c, high_c = np.minimum(coarse_edges[:-1], coarse_edges[1:]), np.maximum(coarse_edges[:-1], coarse_edges[1:])
    low_f, high_f = np.minimum(fine_edges[:-1], fine_edges[1:]), np.maximum(fine_edges[:-1], fine_edges[1:])
    shared = np.minimum(high_c[:, None], high_f) - np.maximum(low_c[:, None], low_f)
    # Edges that are meant to be the same differ by rounding: a sliver is no overlap.
    cells = np.minimum((high_c - low_c)[:, None], high_f - low_f)
    return np.where(shared > 1e-9 * cells, shared, 0.0)


def overlaps(
    coarse: Grid, fine: Grid, row: int = 0, column: int = 0, shape: tuple[int, int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shared areas of the cells of two grids, as a product of rows and columns.

    Parameters
    ----------
    coarse, fine : Grid
        In any ratio.
    row, column : int
        First cell of a window of the fine grid.
    shape : tuple of int, optional
        Rows and columns of the window; the rest of the grid where absent.

    Returns
    -------
    tuple of ndarray
        ``rows`` (h, H), differences of sines of latitude, and ``columns`` (w, W), degrees: the area that coarse cell
        (i, j) shares with fine cell (k, l) is proportional to ``rows[i, k] * columns[j, l]``.
    """
    height, width = (None, None) if shape is None else shape
    sines = np.sin(np.deg2rad(np.clip(coarse.latitude_edges(), -90, 90)))
    fine_sines = np.sin(np.deg2rad(np.clip(fine.latitude_edges(row, height), -90, 90)))
    return overlap(sines, fine_sines), overlap(coarse.longitude_edges(), fine.longitude_edges(column, width))


def cells_of(coarse: Grid, fine: Grid, window: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Coarse row of each row of a window, and coarse column of each column; -1 where there is none.

    A fine cell belongs to the coarse cell in which its centre lies.

    Parameters
    ----------
    coarse, fine : Grid
        In any ratio.
    window : sequence of int
        First row and column on the fine grid, rows, columns; it may reach beyond the grid.
    """
    row, column, rows, columns = window
    # A centre on an edge, but for rounding, belongs to the cell south or east of it.
    i = np.floor((coarse.north - fine.latitudes(row, rows)) / coarse.cell_y + 1e-9).astype(np.int64)
    j = np.floor((fine.longitudes(column, columns) - coarse.west) / coarse.cell_x + 1e-9).astype(np.int64)
    if coarse.periodic:
        j %= coarse.columns
    return np.where((i >= 0) & (i < coarse.rows), i, -1), np.where((j >= 0) & (j < coarse.columns), j, -1)


def class_areas(
    classes: NDArray[np.uint8], count: int, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area of each class in each coarse cell.

    Parameters
    ----------
    classes : ndarray of shape (H, W)
        Class indices; those of ``count`` and more (255 is nodata) belong to no class.
    count : int
        Number of classes K.
    rows, columns : ndarray of shape (h, H) and (w, W)
        Of :func:`overlaps`.

    Returns
    -------
    tuple of ndarray
        Areas (K, h, w), and the area (h, w) that the window covers of each coarse cell, nodata included; their ratio is
        the fraction. Units as :func:`overlaps` has them.
    """
    areas = np.empty((count, len(rows), len(columns)))
    for k in range(count):
        areas[k] = rows @ (classes == k).astype(np.float64) @ columns.T
    return areas, np.outer(rows.sum(axis=1), columns.sum(axis=1))


def window_size(cells: int, fine_deg: float, coarse_deg: float) -> int:
    """Coarse cells per side that hold, with neighbours, ``cells`` fine ones wherever these lie."""
    return math.floor((cells - 1) * fine_deg / coarse_deg) + 3


def window_matrix(
    centres: NDArray[np.float64],
    first: float,
    step: float,
    count: int,
    size: int,
    method: Interpolation = "bilinear",
    periodic: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Interpolation along one axis from a window of coarse cells.

    Parameters
    ----------
    centres : ndarray of shape (m,)
        Centres of fine cells.
    first, step, count : float, float, int
        Centre of the first coarse cell, signed distance to the next, number of cells.
    size : int
        Cells of the window; see :func:`window_size`.
    method : {"bilinear", "nearest"}
        Beyond the outermost centres the outermost cell is taken.
    periodic : bool
        The axis closes upon itself (longitude of a global grid): the dateline is no edge.

    Returns
    -------
    tuple of ndarray
        Indices (size,) of the window's coarse cells, and weights (m, size) with rows that add up to 1.

    Raises
    ------
    DataError
        If a fine cell lies outside the coarse grid.
    """
    position = (centres - first) / step
    if periodic:
        # The window is a run of neighbours, however the two grids count longitudes.
        position = position - count * math.floor(position.min() / count)
    elif position.min() < -0.5 - _SAME_DEG or position.max() > count - 0.5 + _SAME_DEG:
        at = float(centres[int(np.argmin(position) if position.min() < -0.5 else np.argmax(position))])
        ends = (first - step / 2, first + (count - 0.5) * step)
        raise DataError(f"{at:.4f} degrees lie outside the coarse grid, which covers {min(ends):g} to {max(ends):g}")
    low = np.floor(position + (0.5 if method == "nearest" else 0.0)).astype(np.int64)
    share = np.zeros(len(centres)) if method == "nearest" else position - low
    start = int(low.min())
    weights = np.zeros((len(centres), size), np.float64)
    lines = np.arange(len(centres))
    np.add.at(weights, (lines, low - start), 1 - share)
    np.add.at(weights, (lines, np.minimum(low - start + 1, size - 1)), share)
    indices = start + np.arange(size)
    indices = indices % count if periodic else np.clip(indices, 0, count - 1)
    return indices, weights.astype(np.float32)


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
    inner, outer = fine.bounds, other.bounds
    turn = 0 if other.periodic else 360 * round(((inner.west + inner.east) - (outer.west + outer.east)) / 720)
    row, column = (outer.north - inner.north) / other.cell_y, (inner.west - turn - outer.west) / other.cell_x
    bottom = (outer.north - inner.south) / other.cell_y
    right = (inner.east - turn - outer.west) / other.cell_x
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
    cells = fill(np.empty((part.rows, part.columns), values.dtype), other, part, read)
    values[np.ix_(i, j)] = cells[np.ix_(rows - top, columns - left)]
    return values


def _cells(fine: Grid, window: Window, other: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the other grid for each row of a window, and its column, which counts on round the Earth on periodic ones.

    Rows beyond it are negative or too large; columns beyond a grid that is not periodic are too large.
    """
    south = (np.arange(window.row, window.row + window.rows) + 0.5) * (fine.cell_y / other.cell_y)
    rows = np.floor((other.north - fine.north) / other.cell_y + south + _EDGE).astype(np.int64)
    east = (np.arange(window.column, window.column + window.columns) + 0.5) * (fine.cell_x / other.cell_x)
    east += (fine.west - other.west) / other.cell_x + _EDGE
    if not other.periodic:
        east %= 360 / other.cell_x
    return rows, np.floor(east).astype(np.int64)


def brought_onto(values: NDArray[np.float32], own: Grid, grid: Grid, name: str) -> tuple[NDArray[np.float32], str]:
    """Bring values onto the cells of another grid of the same CRS, and say how.

    Cells of one place are taken as they are; of finer ones the mean is taken, and between coarser ones the values are
    interpolated linearly.

    Parameters
    ----------
    values : ndarray of shape (h, w)
        NaN where there is none.
    own : Grid
        Their cells.
    grid : Grid
        Where they are wanted; longitudes count alike.
    name : str
        Of the values, for the words.

    Returns
    -------
    tuple
        Values (rows, columns), NaN where there is none or ``own`` has no cell; and what was done, in words.
    """
    same = (own.rows, own.columns) == (grid.rows, grid.columns)
    if same and np.allclose(own.bounds, grid.bounds, rtol=0, atol=_SAME * min(grid.cell_x, grid.cell_y)):
        return values, "cell by cell"
    if own.cell_x <= grid.cell_x / 1.5 and own.cell_y <= grid.cell_y / 1.5:
        return _means(values, own, grid), f"means of the cells of {name} in each cell"
    rows = (own.north - grid.y()) / own.cell_y - 0.5
    columns = (grid.x() - own.west) / own.cell_x - 0.5
    return _between(values, rows, columns), f"{name} is interpolated linearly onto each cell"


def _means(values: NDArray[np.float32], own: Grid, grid: Grid) -> NDArray[np.float32]:
    """Mean of the cells whose centres lie in each cell; NaN where one of them is, or none is there."""
    i = np.floor((grid.north - own.y()) / grid.cell_y + 1e-9).astype(np.int64)
    j = np.floor((own.x() - grid.west) / grid.cell_x + 1e-9).astype(np.int64)
    kept = (i >= 0) & (i < grid.rows), (j >= 0) & (j < grid.columns)
    i, j, values = i[kept[0]], j[kept[1]], values[np.ix_(*kept)]
    place = (i[:, None] * grid.columns + j).ravel()
    cells = grid.rows * grid.columns
    sums = np.bincount(place, values.ravel().astype(np.float64), cells)
    count = np.bincount(place, minlength=cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums / count).astype(np.float32).reshape(grid.rows, grid.columns)


def _between(
    values: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Values at places between the centres of cells, bilinear; beyond the outermost cells there are none."""
    lines = []
    for place, count in ((rows, values.shape[0]), (columns, values.shape[1])):
        within = np.clip(place, 0, count - 1)
        low = np.minimum(np.floor(within).astype(np.int64), max(count - 2, 0))
        share = (within - low).astype(np.float32)
        beyond = (place < -0.5 - _EDGE) | (place > count - 0.5 + _EDGE)
        lines.append((low, np.minimum(low + 1, count - 1), share, beyond))
    (top, bottom, down, above), (left, right, across, beside) = lines
    down, across = down[:, None], across[None, :]
    result = np.zeros((len(rows), len(columns)), np.float32)
    for i, share_i in ((top, 1 - down), (bottom, down)):
        for j, share_j in ((left, 1 - across), (right, across)):
            # A void beside a place that is a centre itself has no weight there, and makes none of it.
            share = share_i * share_j
            result += np.where(share > 0, values[np.ix_(i, j)], np.float32(0)) * share
    result[above] = np.nan
    result[:, beside] = np.nan
    return result

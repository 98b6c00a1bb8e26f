"""Areas on regular grids of longitude and latitude: overlaps, aggregation, and interpolation between two such grids.

No ratio between the two grids is assumed, and no alignment. A cell's area is that on a sphere, whose share between two
parallels is the difference of their sines: for rows of one height that is the cosine of the latitude, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError

Interpolation = Literal["bilinear", "nearest"]

#: Cells of the grids of this field are 1e-3 degrees and larger; coordinates that differ by less are the same.
_SAME_DEG = 1e-6


@dataclass(frozen=True)
class Grid:
    """A regular grid of longitude and latitude, rows from north to south, columns from west to east."""

    west_deg: float
    north_deg: float
    cell_lon_deg: float
    cell_lat_deg: float
    rows: int
    columns: int

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine transform (a, b, c, d, e, f) from (column, row) to (longitude, latitude), as rasterio orders it."""
        return (self.cell_lon_deg, 0.0, self.west_deg, 0.0, -self.cell_lat_deg, self.north_deg)

    @property
    def periodic(self) -> bool:
        """Whether the grid goes once around the Earth, so that its last column has the first as neighbour."""
        # Cell sizes are often written with six digits: 43,200 cells of 0.00833333 degrees lack a fiftieth of a cell.
        return math.isclose(self.columns * self.cell_lon_deg, 360.0, abs_tol=self.cell_lon_deg / 20)

    def latitude_edges(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Edges of rows, north to south, (count + 1,), degrees."""
        count = self.rows - start if count is None else count
        return self.north_deg - self.cell_lat_deg * np.arange(start, start + count + 1, dtype=np.float64)

    def longitude_edges(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Edges of columns, west to east, (count + 1,), degrees."""
        count = self.columns - start if count is None else count
        return self.west_deg + self.cell_lon_deg * np.arange(start, start + count + 1, dtype=np.float64)

    def latitudes(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Centres of rows, north to south, (count,), degrees."""
        return self.latitude_edges(start, count)[:-1] - self.cell_lat_deg / 2

    def longitudes(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Centres of columns, west to east, (count,), degrees."""
        return self.longitude_edges(start, count)[:-1] + self.cell_lon_deg / 2

    def coarse(self, cell_deg: float) -> Grid:
        """Return the grid of square cells of ``cell_deg``, whose edges are multiples of it, that covers this one."""
        south = self.north_deg - self.rows * self.cell_lat_deg
        east = self.west_deg + self.columns * self.cell_lon_deg
        slack = _SAME_DEG / cell_deg
        top = math.ceil(self.north_deg / cell_deg - slack)
        left = math.floor(self.west_deg / cell_deg + slack)
        rows = top - math.floor(south / cell_deg + slack)
        columns = math.ceil(east / cell_deg - slack) - left
        return Grid(left * cell_deg, top * cell_deg, cell_deg, cell_deg, rows, columns)


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
    i = np.floor((coarse.north_deg - fine.latitudes(row, rows)) / coarse.cell_lat_deg + 1e-9).astype(np.int64)
    j = np.floor((fine.longitudes(column, columns) - coarse.west_deg) / coarse.cell_lon_deg + 1e-9).astype(np.int64)
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

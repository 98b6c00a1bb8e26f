"""The network's input fields for windows of a raster: cut from what was read for a whole chunk."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import Interpolation, window_matrix, window_size
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.inference.tiling import slices
from earthsr.landuse.classes import NODATA
from earthsr.landuse.samples import Fields, scalars


class Ground(NamedTuple):
    """What was read for the windows of a chunk."""

    cover: Window
    """Cells that the arrays hold."""
    static: NDArray[np.float32]
    """(C_s, rows, columns), normalised."""
    prior: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    coarse: NDArray[np.float32]
    """(C_c, h, w): the scenario's whole grid."""


class WindowFields:
    """Makes the input fields of windows.

    Parameters
    ----------
    fine, coarse : Grid
        Of the maps, and of the scenario.
    tile : int
        Fine cells per side of a window.
    method : {"bilinear", "nearest"}
        How the forcing comes onto the fine cells; as in training.
    names : tuple of str
        Fields that the network takes.
    """

    def __init__(self, fine: Grid, coarse: Grid, tile: int, method: Interpolation, names: tuple[str, ...]) -> None:
        self._fine, self._coarse, self._tile, self._method, self._names = fine, coarse, tile, method, names
        self._cells = max(
            window_size(tile, fine.cell_y, coarse.cell_y),
            window_size(tile, fine.cell_x, coarse.cell_x),
        )
        # Windows lie on a lattice: those of one row share a matrix.
        self._rows = lru_cache(maxsize=64)(self._rows_of)
        self._columns = lru_cache(maxsize=512)(self._columns_of)

    def _rows_of(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        coarse = self._coarse
        south = coarse.north - coarse.rows * coarse.cell_y
        # Windows that reach beyond a pole or the raster see the outermost cells there, where nothing is kept.
        centres = np.clip(self._fine.latitudes(row, self._tile), south, coarse.north)
        first = float(coarse.latitudes(0, 1)[0])
        return window_matrix(centres, first, -coarse.cell_y, coarse.rows, self._cells, self._method)

    def _columns_of(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        coarse = self._coarse
        centres = self._fine.longitudes(column, self._tile)
        if not coarse.periodic:
            centres = np.clip(centres, coarse.west, coarse.west + coarse.columns * coarse.cell_x)
        first = float(coarse.longitudes(0, 1)[0])
        return window_matrix(centres, first, coarse.cell_x, coarse.columns, self._cells, self._method, coarse.periodic)

    def of(self, window: Window, ground: Ground, scalars: NDArray[np.float32]) -> Fields:
        """Fields of one window.

        Parameters
        ----------
        window : Window
            Inside ``ground.cover``.
        ground : Ground
            What was read.
        scalars : ndarray of shape (3,)
            Year, step and direction, as the normalisation makes them.
        """
        rows, wy = self._rows(window.row)
        columns, wx = self._columns(window.column)
        inside = slices(window, ground.cover)
        prior = ground.prior[inside]
        fields = {
            "coarse": ground.coarse[:, rows[:, None], columns],
            "wy": wy,
            "wx": wx,
            "static": ground.static[(slice(None), *inside)],
            "prior": prior,
            "prior_mask": (prior != NODATA).astype(np.uint8),
            "scalars": scalars,
        }
        return {name: fields[name] for name in self._names}


def scalars_of(year: int, before: int) -> NDArray[np.float32]:
    """Scalars of a step from one year's map to another's."""
    return scalars(year, abs(year - before), 1 if year > before else -1)

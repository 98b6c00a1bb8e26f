"""What a map is made from and where it goes, in memory: with the faces of the stores that a reconstruction has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import fill
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.emulator.forcing import MemoryScenario
from earthsr.landuse.reconstruct.chunk import FREE, VOID


@dataclass(frozen=True, eq=False)
class State:
    """A year's map, and which of its cells may change."""

    year: int
    classes: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    free: NDArray[np.bool_]
    """(rows, columns): mapped anew each year; others keep their class, or have none."""

    @property
    def marks(self) -> NDArray[np.float32]:
        """Marks of the cells, as :mod:`earthsr.landuse.reconstruct.chunk` has them."""
        kept = np.where(self.classes == NODATA, VOID, self.classes).astype(np.float32)
        return np.where(self.free, np.float32(FREE), kept)


@dataclass(frozen=True, eq=False)
class MemoryWorld:
    """Grid, classes and forcing."""

    grid: Grid
    table: ClassTable
    scenario: MemoryScenario


class MemoryFields:
    """Static fields, normalised, and the marks of a step as the last channel.

    Parameters
    ----------
    grid : Grid
        Of the maps.
    static : ndarray of shape (C, rows, columns)
        Normalised.
    """

    def __init__(self, grid: Grid, static: NDArray[np.float32]) -> None:
        self._grid = grid
        self._values = np.concatenate([static, np.zeros((1, grid.rows, grid.columns), np.float32)])

    def mark(self, marks: NDArray[np.float32]) -> None:
        """Take the marks (rows, columns) of a step."""
        self._values[-1] = marks

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window, (C + 1, rows, columns); NaN beyond the grid."""
        row, column, rows, columns = window
        if row >= 0 and column >= 0 and row + rows <= self._grid.rows and column + columns <= self._grid.columns:
            return self._values[:, row : row + rows, column : column + columns]
        values = np.full((len(self._values), rows, columns), np.nan, np.float32)
        return fill(values, self._grid, window, lambda w: _part(self._values, w))


class MemoryMaps:
    """Maps of the years of a step.

    Parameters
    ----------
    grid : Grid
        Of the maps.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.arrays: dict[tuple[str, int], NDArray[Any]] = {}
        """By layer and year, (rows, columns)."""

    def read(self, layer: str, year: int, window: Window) -> NDArray[Any]:
        """Read a window of a map; 255 beyond the grid."""
        values = np.full((window.rows, window.columns), NODATA, np.uint8)
        return fill(values, self._grid, window, lambda w: _part(self.arrays[layer, year], w))

    def write(self, layer: str, year: int, window: Window, values: NDArray) -> None:
        """Write a chunk."""
        key = (layer, year)
        if key not in self.arrays:
            self.arrays[key] = np.empty((self._grid.rows, self._grid.columns), values.dtype)
        _part(self.arrays[key], window)[...] = values


def _part(values: NDArray[Any], window: Window) -> NDArray[Any]:
    row, column, rows, columns = window
    return values[..., row : row + rows, column : column + columns]

"""Where the cells of a raster lie, what its values mean, and what reads and writes them window by window.

Formats live beside this file; nothing here needs a geospatial package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid, Window, pieces


@dataclass(frozen=True)
class Georeference(Grid):
    """A grid and what the values on it mean."""

    units: str = "m"
    """Of the values."""
    nodata: float | None = None
    """What stands for no value in the file; NaN in memory."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a file says besides, such as its vertical datum; carried to what is made from it."""

    @classmethod
    def of(
        cls, grid: Grid, units: str = "m", nodata: float | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Self:
        """Make one of a ``grid`` and what its values mean: their ``units``, ``nodata`` and further ``attributes``."""
        place: dict[str, Any] = {entry.name: getattr(grid, entry.name) for entry in fields(Grid)}
        return cls(**place, units=units, nodata=nodata, attributes=attributes or {})

    @property
    def grid(self) -> Grid:
        """The grid alone."""
        return Grid(*(getattr(self, entry.name) for entry in fields(Grid)))


class Codes(NamedTuple):
    """Numbers as a file has them, for what is counted and not measured: codes of classes."""

    stored: NDArray
    """(rows, columns), of the file's own type."""
    valid: NDArray[np.bool_]
    """(rows, columns), where they are values."""


class Source(Protocol):
    """A raster that is read window by window. Reads may come from another thread than opening did, one at a time."""

    georeference: Georeference
    name: str
    """Of the file, for messages."""

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window (rows, columns) in the units of the georeference, NaN where there is no value."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class Sink(Protocol):
    """A raster that is written block by block, each block once and in any order."""

    georeference: Georeference

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write a ``block`` (bands, rows, columns) with its first cell at ``row``, ``column``; NaN for no value."""
        ...

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write ``attributes``, the provenance, with what else stands at the end, and give the file its final name."""
        ...

    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        ...


def read_window(
    source: Source, window: Window, read: Callable[[Window], NDArray[np.float32]] | None = None
) -> NDArray[np.float32]:
    """Read any window, also one that lies beyond the raster's edges or across its first column.

    Parameters
    ----------
    source : Source
        Columns of a periodic one (:attr:`Georeference.periodic`) go round; its rows end at the poles.
    window : Window
        Any integers; columns may span more than a turn. No cell is read twice, and none that is not in the window.
    read : callable, optional
        Reads a window that lies inside, in place of the source's own ``read``.

    Returns
    -------
    ndarray of shape (rows, columns)
        Of the window; NaN where there is no value and beyond an edge.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    read = read or source.read
    grid = source.georeference
    row, column, rows, columns = window = Window(*map(int, window))
    turn = grid.columns
    if 0 <= row <= row + rows <= grid.rows and 0 <= column <= column + columns <= turn:
        return read(window)
    values = np.full((rows, columns), np.nan, np.float32)
    # Further turns hold what the first one holds, which is read once.
    once = min(columns, turn) if grid.periodic else columns
    for part, down, across in pieces(Window(row, column, rows, once), grid.rows, turn, grid.periodic):
        values[down : down + part.rows, across : across + part.columns] = read(part)
    for at in range(once, columns, turn):
        values[:, at : at + turn] = values[:, : columns - at][:, :turn]
    return values

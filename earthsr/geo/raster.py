"""What a raster is to whoever reads or writes it: where its cells lie, what its values mean, windows in and out.

Formats live beside this file; nothing here needs a geospatial package. What the files of all formats share when they
are written block by block is here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid, Window, pieces
from earthsr.store import Part, disk_errors


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


#: Name of a band of codes that say where each cell comes from: no number of it is a mean of others.
SOURCE_BAND: Final = "source"


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


def samples(cells: int, step: int) -> int:
    """Count of every ``step``-th of some cells, the first of them included."""
    return -(-cells // step)


def sampled(source: Any, window: Window, step: int, kind: str = "read", layer: int = 0) -> Any:
    """Read every so many cells of a window, for a picture: few of a large raster are touched.

    Parameters
    ----------
    source : Source
        One that has a method ``sampled`` reads them its own way, as GeoTIFF from its overviews; others line by line.
    window : Window
        Any integers, as in :func:`read_window`.
    step : int
        Cells from one that is read to the next, along both axes; the first is the middle of the first ``step`` cells.
    kind : {"read", "codes"}
        Values, or numbers as they are stored, for classes.
    layer : int
        Of a source that has several.

    Returns
    -------
    ndarray or Codes
        Of shape (:func:`samples` of rows, of columns), or one less where the last cells have no middle.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    grid = source.georeference
    first = Window(*(int(number) for number in window))
    middle = min(step // 2, first.rows - 1), min(step // 2, first.columns - 1)
    row, column, rows, columns = (
        first.row + middle[0],
        first.column + middle[1],
        first.rows - middle[0],
        first.columns - middle[1],
    )
    shape = samples(rows, step), samples(columns, step)
    stored: NDArray | None = None
    valid = np.zeros(shape, bool)
    for part, down, across in pieces(Window(row, column, rows, columns), grid.rows, grid.columns, grid.periodic):
        # Of a part that begins between two samples, the first one is the next.
        skip_down, skip_across = -down % step, -across % step
        if skip_down >= part.rows or skip_across >= part.columns:
            continue
        inner = Window(
            part.row + skip_down, part.column + skip_across, part.rows - skip_down, part.columns - skip_across
        )
        read = sampled_inside(source, inner, step, kind, layer)
        values, there = read if kind == "codes" else (read, np.isfinite(read))
        if stored is None:
            stored = np.full(shape, np.nan if kind == "read" else 0, values.dtype)
        top, left = (down + skip_down) // step, (across + skip_across) // step
        inside = slice(top, top + values.shape[0]), slice(left, left + values.shape[1])
        stored[inside], valid[inside] = values, there
    if stored is None:
        stored = np.full(shape, np.nan, np.float32)
    return stored if kind == "read" else Codes(stored, valid)


def sampled_inside(source: Any, window: Window, step: int, kind: str = "read", layer: int = 0) -> Any:
    """Read every so many cells of a window inside the raster, its first cell among them; see :func:`sampled`."""
    if hasattr(source, "sampled"):
        return source.sampled(window, step, kind, layer)
    starts = range(window.row, window.row + window.rows, step)
    lines = [getattr(source, kind)(Window(row, window.column, 1, window.columns)) for row in starts]
    if kind == "read":
        return np.concatenate([line[:, ::step] for line in lines])
    return Codes(*(np.concatenate([line[place][:, ::step] for line in lines]) for place in (0, 1)))


class FileSink(ABC):
    """A raster file that is being written; it gets its name when it is finished.

    Parameters
    ----------
    path : Path
        Destination.
    georeference : Georeference
        Grid of what is written; its nodata is the file's where float32 has it, else the format's own.
    bands : sequence of str
        Their names.
    block : tuple of int
        Rows and columns of a block as it is written.
    overwrite : bool
        Whether what is there is replaced.
    """

    store: ClassVar[bool] = False
    """Whether the format is a folder."""
    void: ClassVar[float] = float("nan")
    """What stands for no value where the input does not say."""

    def __init__(
        self,
        path: Path,
        georeference: Georeference,
        bands: Sequence[str],
        block: tuple[int, int],
        overwrite: bool = False,
    ) -> None:
        self.path, self.georeference, self.bands, self.block = path, georeference, tuple(bands), block
        self.nodata = representable(georeference.nodata, self.void)
        self._part = Part(path, overwrite, self.store)
        try:
            with disk_errors(path):
                self._begin(self._part.target)
        except BaseException:
            self.abort()
            raise

    @abstractmethod
    def _begin(self, target: Path) -> None:
        """Create the file."""

    @abstractmethod
    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        """Write (bands, rows, columns) as they are stored."""

    @abstractmethod
    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        """Write what comes last and close the file."""

    @abstractmethod
    def _drop(self) -> None:
        """Close the file, whatever its state; what goes wrong is of no interest."""

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write (bands, rows, columns) with its first cell at ``row``, ``column``; NaN where there is no value.

        Raises
        ------
        InputError
            If the disk is full; nothing is left then.
        """
        window = self.georeference.check(Window(row, column, *block.shape[1:]))
        if len(block) != len(self.bands):
            raise ValueError(f"block has shape {block.shape}, expected {len(self.bands)} bands")
        try:
            with disk_errors(self.path):
                self._put(window, stored(block, self.nodata))
        except BaseException:
            self.abort()
            raise

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write provenance, and give the file its final name.

        Raises
        ------
        InputError
            If the disk is full; nothing is left then.
        """
        try:
            with disk_errors(self.path):
                self._end(self._part.target, attributes)
            self._part.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        if self._part.open:
            self._drop()
            self._part.discard()


def representable(nodata: float | None, otherwise: float) -> float:
    """A declared void value where float32 has it, else another one."""
    if nodata is None:
        return otherwise
    with np.errstate(over="ignore"):
        single = float(np.float32(nodata))
    return single if np.isnan(single) or (np.isfinite(single) and single == nodata) else otherwise


def stored(block: NDArray[np.float32], nodata: float) -> NDArray[np.float32]:
    """Put a number in the place of NaN; a value that happens to be this number moves to the next one of float32."""
    values = np.ascontiguousarray(block, np.float32)
    if np.isnan(nodata):
        return values
    number = np.float32(nodata)
    taken, void = values == number, np.isnan(values)
    if taken.any() or void.any():
        values = values.copy()
        values[taken] = np.nextafter(number, np.float32(np.inf))
        values[void] = number
    return values

"""How a raster is cut: chunks that are written once, and windows that the network reads to fill them.

All sizes are coarse cells. Windows of one plan have one shape, so that one compiled graph serves them all: one that
would reach beyond the raster is moved inwards. Nothing depends on which part of a raster is wanted, so a part comes out
as it does in the whole.

Columns of a raster that goes once round the globe are periodic. There windows are not moved inwards but *unwrapped*:
they begin at negative columns or end beyond the last one, always beside the part that they are for; columns that are a
turn apart are the same cells. Rows end at the poles, periodic or not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from earthsr.errors import InputError
from earthsr.geo.window import Window


@dataclass(frozen=True)
class Tile:
    """What the network reads at once, and what is kept of it."""

    window: Window
    """Read by the network."""
    keep: Window
    """Kept: inside the window, and of the chunk that the tile is for."""


@dataclass(frozen=True)
class ExactTiles:
    """Windows that overlap by a halo, which is cut off: what is kept is what a prediction in one piece gives.

    The network pads with zeros beyond its window. A value that is kept lies at least ``halo`` cells from every edge of
    its window that is not an edge of the raster, and no value depends on what is farther away. On a periodic raster a
    window may be wider than a turn: then it holds cells twice, as the raster repeated without end does.
    """

    rows: int
    columns: int
    tile: int
    """Cells per side that are kept."""
    halo: int
    periodic: bool = False
    """Whether the columns go once round the globe."""

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise InputError(f"--tile is {self.tile}, expected 1 or more coarse cells")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every window."""
        side = self.tile + 2 * self.halo
        return min(side, self.rows), self._kept + 2 * self.halo if self.periodic else min(side, self.columns)

    @property
    def _kept(self) -> int:
        """Columns that are kept of a window: a turn at most, however much is asked for."""
        return min(self.tile, self.columns) if self.periodic else self.tile

    def tiles(self, part: Window) -> Iterator[Tile]:
        """Tiles that fill a part of the raster."""
        height, width = self.shape
        for row in range(part.row, part.row + part.rows, self.tile):
            for column in range(part.column, part.column + part.columns, self._kept):
                keep = Window(
                    row,
                    column,
                    min(self.tile, part.row + part.rows - row),
                    min(self._kept, part.column + part.columns - column),
                )
                top = _inwards(row - self.halo, height, self.rows)
                left = column - self.halo
                if not self.periodic:
                    left = _inwards(left, width, self.columns)
                yield Tile(Window(top, left, height, width), keep)


@dataclass(frozen=True)
class Lattice:
    """Places of blended windows along one axis."""

    extent: int
    """Cells of the axis."""
    side: int
    """Cells of a window."""
    step: int
    """Cells from one window to the next, at most."""
    periodic: bool = False
    origin: int = 0
    """Cell at which a window begins, on a periodic axis."""

    @property
    def count(self) -> int:
        """Windows of the whole axis."""
        if self.periodic:
            return math.ceil(self.extent / self.step)
        return 1 + max(0, math.ceil((self.extent - self.side) / self.step))

    def start(self, index: int) -> int:
        """First cell of a window.

        Periodic windows are spread evenly, so that they close upon themselves: there is no last one to be moved. Any
        index has its place, that of a further turn too. A window that is longer than the axis has it in its middle.
        """
        if self.periodic:
            turn, place = divmod(index, self.count)
            return self.origin + turn * self.extent + round(place * self.extent / self.count)
        if self.side > self.extent:
            return (self.extent - self.side) // 2
        return min(index * self.step, self.extent - self.side)

    def starts(self, first: int, last: int) -> list[int]:
        """First cells of the windows that touch cells ``first`` to ``last`` (exclusive), ascending.

        The windows are those of the whole axis, whichever part of it is asked for.
        """
        indices: Iterable[int]
        if self.periodic:
            indices = itertools.count((first - self.origin - self.side) * self.count // self.extent)
        else:
            indices = range(max(0, (first - self.side) // self.step), self.count)
        starts: list[int] = []
        for index in indices:
            start = self.start(index)
            if start >= last:
                break
            if start + self.side > first:
                starts.append(start)
        return starts


@dataclass(frozen=True)
class BlendedTiles:
    """Windows that overlap by a share of their side and are blended."""

    rows: int
    columns: int
    tile: int
    """Cells per side of a window."""
    overlap: float
    """Share of its side that a window has in common with the next, 0 to under 1."""
    periodic: bool = False
    """Whether the columns go once round the globe. Windows are a turn wide at most."""
    whole: bool = False
    """Whether windows keep their side on a raster that is smaller, or has a smaller side, for networks that need tiles
    of one size: they have the raster in their middle then, and reach beyond it, where nothing has a value."""
    origin: int = 0
    """Column at which a window begins, on a periodic raster. One that is the same place on Earth for all rasters makes
    results depend on what is there, and not on the longitude that a file begins with."""

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise InputError(f"--tile is {self.tile}, expected 1 or more coarse cells")
        if not 0 <= self.overlap < 1:
            raise InputError(f"--overlap is {self.overlap:g}, expected a share of 0 to under 1 (0.25 is a good one)")
        if self.whole and self.periodic and self.columns < self.tile:
            raise InputError(
                f"the grid goes once round the globe in {self.columns} columns, and tiles of {self.tile} cells that "
                "keep their size would overlap themselves; take smaller tiles"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every window."""
        if self.whole:
            return self.tile, self.tile
        return min(self.tile, self.rows), min(self.tile, self.columns)

    @property
    def axes(self) -> tuple[Lattice, Lattice]:
        """Places along the rows, which never wrap, and along the columns."""
        height, width = self.shape
        return (
            Lattice(self.rows, height, self._step(height)),
            Lattice(self.columns, width, self._step(width), self.periodic, self.origin),
        )

    def _step(self, side: int) -> int:
        return max(1, round(side * (1 - self.overlap)))

    def tiles(self, part: Window) -> Iterator[Tile]:
        """Tiles that touch a part of the raster."""
        height, width = self.shape
        down, across = self.axes
        for top in down.starts(part.row, part.row + part.rows):
            for left in across.starts(part.column, part.column + part.columns):
                window = Window(top, left, height, width)
                yield Tile(window, overlap_of(window, part))


Tiles = ExactTiles | BlendedTiles


def chunks(wanted: Window, side: int) -> list[Window]:
    """Cut a window into squares of ``side`` cells, row by row; those at its end are smaller."""
    return [
        Window(
            row,
            column,
            min(side, wanted.row + wanted.rows - row),
            min(side, wanted.column + wanted.columns - column),
        )
        for row in range(wanted.row, wanted.row + wanted.rows, side)
        for column in range(wanted.column, wanted.column + wanted.columns, side)
    ]


def grown(window: Window, margin: int, rows: int, columns: int, periodic: bool = False) -> Window:
    """Add a margin to a window, inside a raster of that many rows and columns; periodic columns have no edge."""
    top, left = max(window.row - margin, 0), window.column - margin
    bottom = min(window.row + window.rows + margin, rows)
    right = window.column + window.columns + margin
    if not periodic:
        left, right = max(left, 0), min(right, columns)
    return Window(top, left, bottom - top, right - left)


def overlap_of(first: Window, second: Window) -> Window:
    """Cells that two windows share; they have to share some."""
    top, left = max(first.row, second.row), max(first.column, second.column)
    bottom = min(first.row + first.rows, second.row + second.rows)
    right = min(first.column + first.columns, second.column + second.columns)
    return Window(top, left, bottom - top, right - left)


def covering(tiles: list[Tile]) -> Window:
    """Smallest window that holds the windows of all tiles."""
    top = min(tile.window.row for tile in tiles)
    left = min(tile.window.column for tile in tiles)
    bottom = max(tile.window.row + tile.window.rows for tile in tiles)
    right = max(tile.window.column + tile.window.columns for tile in tiles)
    return Window(top, left, bottom - top, right - left)


def slices(part: Window, origin: Window, scale: int = 1) -> tuple[slice, slice]:
    """Place of a window inside another's array, whose cells are divided by ``scale``."""
    row, column = (part.row - origin.row) * scale, (part.column - origin.column) * scale
    return slice(row, row + part.rows * scale), slice(column, column + part.columns * scale)


def _inwards(start: int, side: int, extent: int) -> int:
    return min(max(start, 0), extent - side)

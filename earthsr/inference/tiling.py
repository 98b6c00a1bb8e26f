"""How a raster is cut: chunks that are written once, and windows that the network reads to fill them.

All sizes are coarse cells. Windows of one plan have one shape, so that one compiled graph serves them all: one that
would reach beyond the raster is moved inwards. Nothing depends on which part of a raster is wanted, so a part comes out
as it does in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from earthsr.data.rasters import Window
from earthsr.errors import InputError


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
    its window that is not an edge of the raster, and no value depends on what is farther away.
    """

    rows: int
    columns: int
    tile: int
    """Cells per side that are kept."""
    halo: int

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise InputError(f"--tile is {self.tile}, expected 1 or more coarse cells")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every window."""
        side = self.tile + 2 * self.halo
        return min(side, self.rows), min(side, self.columns)

    def tiles(self, part: Window) -> Iterator[Tile]:
        """Tiles that fill a part of the raster."""
        height, width = self.shape
        for row in range(part.row, part.row + part.rows, self.tile):
            for column in range(part.column, part.column + part.columns, self.tile):
                keep = Window(
                    row,
                    column,
                    min(self.tile, part.row + part.rows - row),
                    min(self.tile, part.column + part.columns - column),
                )
                top = _inwards(row - self.halo, height, self.rows)
                left = _inwards(column - self.halo, width, self.columns)
                yield Tile(Window(top, left, height, width), keep)


@dataclass(frozen=True)
class BlendedTiles:
    """Windows that overlap by a share of their side and are blended."""

    rows: int
    columns: int
    tile: int
    """Cells per side of a window."""
    overlap: float
    """Share of its side that a window has in common with the next, 0 to under 1."""

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise InputError(f"--tile is {self.tile}, expected 1 or more coarse cells")
        if not 0 <= self.overlap < 1:
            raise InputError(f"--overlap is {self.overlap:g}, expected a share of 0 to under 1 (0.25 is a good one)")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every window."""
        return min(self.tile, self.rows), min(self.tile, self.columns)

    @property
    def step(self) -> int:
        """Cells from one window to the next."""
        return max(1, round(self.tile * (1 - self.overlap)))

    def starts(self, first: int, last: int, extent: int) -> list[int]:
        """First cells along an axis of the windows that touch cells ``first`` to ``last`` (exclusive).

        The windows are those of the whole axis of ``extent`` cells, whichever part of it is asked for.
        """
        side = min(self.tile, extent)
        count = 1 + max(0, math.ceil((extent - side) / self.step))
        low = max(0, (first - side) // self.step)
        found: list[int] = []
        for i in range(low, count):
            start = min(i * self.step, extent - side)
            if start >= last:
                break
            if start + side > first:
                found.append(start)
        return found

    def tiles(self, part: Window) -> Iterator[Tile]:
        """Tiles that touch a part of the raster."""
        height, width = self.shape
        for top in self.starts(part.row, part.row + part.rows, self.rows):
            for left in self.starts(part.column, part.column + part.columns, self.columns):
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


def grown(window: Window, margin: int, rows: int, columns: int) -> Window:
    """Add a margin to a window, inside a raster of that many rows and columns."""
    top, left = max(window.row - margin, 0), max(window.column - margin, 0)
    bottom = min(window.row + window.rows + margin, rows)
    right = min(window.column + window.columns + margin, columns)
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

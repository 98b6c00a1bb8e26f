"""How a raster is cut: chunks that are written once, and windows that the network reads to fill them, blended.

All sizes are coarse cells. Windows of one plan have one shape, so that one compiled graph serves them all: one that
would reach beyond the raster is moved inwards. A part of a raster comes out as it does in the whole.

Columns of a raster that goes once round the globe are periodic. There windows are *unwrapped*, not moved: they begin at
negative columns or end beyond the last one, beside the part that they are for. Rows end at the poles, periodic or not.

Windows that overlap are weighed by a Gaussian bell each, divided by the sum of all bells at a cell. They lie on a
lattice, so that weights are products of one along rows and one along columns; nothing is divided at the end, and
memory follows the chunk that is filled, not the raster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending
from earthsr.errors import InputError
from earthsr.geo.grid import Window


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


#: Values that are weighed at once: few enough to stay in a core's cache from one step to the next.
BLOCK: Final = 32_768
#: Standard deviation of the bell over the side of a window (as in MONAI's sliding windows).
SIGMA: Final = 0.125


def bell(cells: int) -> NDArray[np.float64]:
    """Gaussian weights of the cells of a window's side, 1 at its middle."""
    position = np.arange(cells) - (cells - 1) / 2
    return np.exp(-0.5 * np.square(position / (SIGMA * cells)))


def axis_weights(axis: Lattice, first: int, count: int, scale: int) -> dict[int, NDArray]:
    """Weights along one axis of the windows that touch a part of it.

    Parameters
    ----------
    axis : Lattice
        Where the windows are.
    first, count : int
        First coarse cell of the part, and number.
    scale : int
        Fine cells per coarse cell.

    Returns
    -------
    dict of int to ndarray of shape (n,)
        By the window's first coarse cell: float32 weights of the fine cells that it shares with the part. At every cell
        they add up to 1.
    """
    one = bell(axis.side * scale)
    total = np.zeros(count * scale)
    ramps: dict[int, tuple[slice, NDArray]] = {}
    for start in axis.starts(first, first + count):
        low, high = max(start, first), min(start + axis.side, first + count)
        place = slice((low - first) * scale, (high - first) * scale)
        weights = one[(low - start) * scale : (high - start) * scale]
        total[place] += weights
        ramps[start] = (place, weights)
    return {start: (weights / total[place]).astype(np.float32) for start, (place, weights) in ramps.items()}


class ChunkSums:
    """The weighted sum of windows over one part of a raster, in float32.

    Parameters
    ----------
    tiles : Tiles
        Whose windows are added.
    part : Window
        Coarse cells that are filled.
    scale : int
        Fine cells per coarse cell.
    channels : int
        Of the predictions.
    buffer : ndarray, optional
        Flat float32 memory that is used where it is large enough: new memory of this size is slow on its first use.
    """

    def __init__(
        self,
        tiles: Tiles,
        part: Window,
        scale: int,
        channels: int = 1,
        buffer: NDArray[np.float32] | None = None,
    ) -> None:
        self._part, self._scale = part, scale
        self._weights: tuple[dict[int, NDArray], dict[int, NDArray]] | None = None
        if isinstance(tiles, BlendedTiles):
            down, across = tiles.axes
            self._weights = (
                axis_weights(down, part.row, part.rows, scale),
                axis_weights(across, part.column, part.columns, scale),
            )
        shape = (channels, part.rows * scale, part.columns * scale)
        if buffer is not None and buffer.size >= math.prod(shape):
            self.values = buffer[: math.prod(shape)].reshape(shape)
            self.values.fill(0)
        else:
            self.values = np.zeros(shape, np.float32)
        """(channels, fine rows, fine columns): complete once every tile of the part was added."""
        self._block = np.empty(max(BLOCK, channels * shape[2]), np.float32)

    def add(self, tile: Tile, prediction: NDArray[np.float32]) -> None:
        """Add the prediction (channels, fine rows, fine columns) of a tile's whole window."""
        kept = prediction[(slice(None), *slices(tile.keep, tile.window, self._scale))]
        place = (slice(None), *slices(tile.keep, self._part, self._scale))
        if self._weights is None:
            self.values[place] = kept
            return
        rows, columns = self._weights[0][tile.window.row], self._weights[1][tile.window.column]
        total, channels, width = self.values[place], kept.shape[0], kept.shape[2]
        step = max(1, BLOCK // (channels * width))
        for top in range(0, kept.shape[1], step):
            some = slice(top, top + step)
            product = self._block[: kept[:, some].size].reshape(channels, -1, width)
            np.multiply(kept[:, some], rows[some, None], out=product)
            product *= columns
            total[:, some] += product


def fill(sums: ChunkSums, started: Iterable[tuple[list[Tile], Pending[NDArray[np.float32]]]]) -> None:
    """Add predictions to sums, in their order.

    Parameters
    ----------
    sums : ChunkSums
        What is filled.
    started : iterable
        Windows and their predictions. Asking for the next one starts it; that is done before the one before it is
        waited for.
    """

    def take(group: list[Tile], pending: Pending[NDArray[np.float32]]) -> None:
        for tile, prediction in zip(group, pending.result(), strict=True):
            sums.add(tile, prediction)

    before = None
    for group, pending in started:
        if before is not None:
            take(*before)
        before = group, pending
    if before is not None:
        take(*before)


def batch_size(count: int, most: int) -> int:
    """Windows at once, between half of ``most`` and ``most``, with which ``count`` windows fill their batches best.

    The last batch is padded, so that one compiled graph serves all: what it lacks is computed for nothing.
    """
    sizes = range(max(1, most), max(1, most // 2) - 1, -1)
    return min(sizes, key=lambda size: -(-count // size) * size)


def batches(tiles: Iterator[Tile] | list[Tile], size: int) -> Iterator[list[Tile]]:
    """Tiles in their order, ``size`` at a time."""
    group: list[Tile] = []
    for tile in tiles:
        group.append(tile)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group

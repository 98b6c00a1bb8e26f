"""Weights of overlapping windows: a Gaussian bell each, divided by the sum of all bells at a cell.

Windows lie on a lattice, so that weights are products of one along rows and one along columns; what is added up needs
no division at the end, and memory follows the chunk that is filled, not the raster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending
from earthsr.geo.window import Window
from earthsr.inference.tiling import BlendedTiles, Lattice, Tile, Tiles, slices

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

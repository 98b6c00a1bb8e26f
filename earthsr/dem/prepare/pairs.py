"""Coarse and fine elevations of the same ground: truth as it is, and degraded truth or a coarse product beside it.

There may be a sea that the fine product has at exactly 0 m while the coarse one goes down to the floor, as SRTM beside
GEBCO. Then the pair says that a bay of -234 m is a plain of 0 m: as truth it teaches that water has no depth. What
shall become of such cells is a choice with a name; where the two products are registered they count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.degradation import Degradation
from earthsr.errors import DataError
from earthsr.geo import Georeference, Source
from earthsr.geo.grid import Window
from earthsr.geo.resample import block_mean, keys

FlatSea = Literal["mask", "fill", "keep"]
FLAT_SEA: Final[tuple[FlatSea, ...]] = get_args(FlatSea)

#: Share of the fine cells under the coarse product's sea from which on "exactly 0 m" is a flat sea and no coincidence:
#: a product with a sea floor has some cells of 0 m along its coasts.
_FLAT_SHARE: Final = 0.5

_DONE: Final = {
    "mask": "they are masked (--flat-sea fill takes the coarse product there, keep leaves 0 m as truth)",
    "fill": "the coarse product, interpolated, stands there as truth",
    "keep": "0 m stays the truth there, as --flat-sea keep says",
}


@dataclass(frozen=True)
class SeaCells:
    """Fine cells where the coarse product is below 0 m; ``a + b`` merges."""

    cells: int = 0
    flat: int = 0
    """Of these at exactly 0 m."""
    lowest_m: float = 0.0
    """Of the coarse product."""

    def __add__(self, other: SeaCells) -> SeaCells:
        return SeaCells(self.cells + other.cells, self.flat + other.flat, min(self.lowest_m, other.lowest_m))

    @classmethod
    def of(cls, coarse: NDArray[np.float32], fine: NDArray[np.float32]) -> SeaCells:
        """Count in a window of coarse (h, w) and fine (h * scale, w * scale) elevations, metres, NaN for voids."""
        scale = fine.shape[0] // coarse.shape[0]
        below = (coarse < 0).repeat(scale, axis=0).repeat(scale, axis=1) & ~np.isnan(fine)
        if not below.any():
            return cls()
        return cls(int(below.sum()), int((fine[below] == 0).sum()), float(np.nanmin(coarse)))

    @property
    def is_flat(self) -> bool:
        """Whether the fine product knows no sea floor."""
        return self.cells > 0 and self.flat >= _FLAT_SHARE * self.cells

    def to_dict(self, region: str, choice: FlatSea) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "region": region,
            "cells_below_0_in_the_coarse_product": self.cells,
            "of_these_exactly_0": self.flat,
            "lowest_coarse_m": self.lowest_m,
            "choice": choice,
        }

    def warning(self, region: str, choice: FlatSea) -> str:
        """What to warn about."""
        share = 100 * self.flat / self.cells
        return (
            f"region {region}: {share:.0f} % of the fine cells below which the coarse product has sea (down to "
            f"{self.lowest_m:.0f} m) are exactly 0 m; {_DONE[choice]}"
        )


def flat_sea_cells(coarse: NDArray[np.float32], fine: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which fine cells are flat sea: exactly 0 m in a block that is below 0 m in the coarse product, or beside one.

    Parameters
    ----------
    coarse : ndarray of shape (h + 2, w + 2)
        Metres, with one block around the window; NaN where there is no value.
    fine : ndarray of shape (h * scale, w * scale)
        Metres.

    Returns
    -------
    ndarray of bool of shape (h * scale, w * scale)
        Beside: a block on a coast is above 0 m as a mean, and its water is as flat.
    """
    height, width = coarse.shape[0] - 2, coarse.shape[1] - 2
    scale = fine.shape[0] // height
    below = coarse < 0
    near = np.zeros((height, width), bool)
    for down in range(3):
        for across in range(3):
            near |= below[down : down + height, across : across + width]
    return near.repeat(scale, axis=0).repeat(scale, axis=1) & (fine == 0)


#: Cell sizes may differ from what they should be by this part: archives round them.
TOLERANCE = 0.01


@dataclass(frozen=True)
class BlockAxis:
    """Blocks along one axis."""

    first: int
    """Fine cell with which the first block begins."""
    blocks: int
    position: float = 0.0
    """Of the centre of the first block, in cells of the coarse product, counted from the centre of its first one."""
    step: float = 1.0
    """Cells of the coarse product per block: 1 within the tolerance of archives' cell sizes."""

    def positions(self, start: int, count: int) -> NDArray[np.float64]:
        """Positions of the centres of some blocks."""
        return self.position + self.step * np.arange(start, start + count)

    @property
    def gap(self) -> float:
        """Position of the middle block against the nearest coarse cell, in blocks: what interpolation makes up for."""
        middle = self.position + self.step * (self.blocks // 2)
        return middle - round(middle)


@dataclass(frozen=True)
class Alignment:
    """Blocks of a region."""

    rows: BlockAxis
    columns: BlockAxis


def own_blocks(hr: Georeference, scale: int) -> Alignment:
    """Blocks from the first fine cell on, for coarse cells that are block means."""
    return Alignment(BlockAxis(0, hr.rows // scale), BlockAxis(0, hr.columns // scale))


def align(hr: Georeference, lr: Georeference, scale: int, shift: tuple[float, float] = (0.0, 0.0)) -> Alignment:
    """Choose the blocks whose centres lie nearest to those of a coarse product's cells.

    Parameters
    ----------
    hr, lr : Georeference
        Grids of one CRS.
    scale : int
        Fine cells per block and axis.
    shift : tuple of float
        How far the coarse product lies to the south and to the east of where its file says, in fine cells.

    Raises
    ------
    DataError
        If a cell of the product is not ``scale`` fine cells, within 1 %; the message names the ratio.
    """
    west = lr.west + 360 * _turns(hr, lr)
    return Alignment(
        _axis(hr.rows, -hr.north, hr.cell_y, -lr.north, lr.cell_y, scale, shift[0]),
        _axis(hr.columns, hr.west, hr.cell_x, west, lr.cell_x, scale, shift[1]),
    )


def require_ratio(hr: Georeference, lr: Georeference, scale: int, hr_name: str, lr_name: str) -> None:
    """Raise a :class:`DataError` where cells of a coarse product are not ``scale`` fine cells, within 1 %."""
    ratios = lr.cell_x / hr.cell_x, lr.cell_y / hr.cell_y
    if all(abs(ratio / scale - 1) <= TOLERANCE for ratio in ratios):
        return
    whole = [round(ratio) for ratio in ratios]
    advice = "take another product, or resample one of them (rio warp IN OUT.tif --res CELL --resampling average)"
    if whole[0] == whole[1] and 2 <= whole[0] <= 10 and max(abs(r / whole[0] - 1) for r in ratios) <= TOLERANCE:
        advice = f"--scale {whole[0]} fits"
    raise DataError(
        f"{lr_name}: cells are {ratios[0]:.4g} x {ratios[1]:.4g} cells of {hr_name} (x, y), expected {scale} within "
        f"1 %; {advice}"
    )


def overlap(first: Georeference, second: Georeference) -> bool:
    """Whether two grids of one CRS share any ground."""
    west, south, east, north = first.bounds
    a, b, c, d = second.bounds
    turn = 360.0 * _turns(first, second)
    return west < c + turn and a + turn < east and south < d and b < north


def _turns(hr: Georeference, lr: Georeference) -> int:
    """Whole turns round the globe that bring the coarse product's longitudes nearest to the fine ones."""
    if not hr.geographic:
        return 0
    middle, other = hr.west + hr.columns * hr.cell_x / 2, lr.west + lr.columns * lr.cell_x / 2
    return round((middle - other) / 360)


def _axis(cells: int, edge: float, cell: float, lr_edge: float, lr_cell: float, scale: int, shift: float) -> BlockAxis:
    step = scale * cell / lr_cell

    def made(first: int) -> BlockAxis:
        centre = edge - lr_edge + (first + scale / 2 + shift) * cell
        return BlockAxis(first, (cells - first) // scale, centre / lr_cell - 0.5, step)

    # Half a fine cell either way is a tie, which rounding shall not decide.
    return min((made(first) for first in range(min(scale, cells))), key=lambda axis: round(abs(axis.gap), 6))


#: Positions so near to a cell's centre are that cell, whose value is then copied: georeferences are rounded.
_SAME = 1e-4


class Pair:
    """Coarse and fine elevations of a region, read by windows of coarse cells.

    Fine cells are never resampled. A coarse cell is the mean of its block, which has no value where the block touches
    a void; or it is a coarse product, interpolated at the block's centre.

    Parameters
    ----------
    hr : Source
        Fine elevations, metres.
    lr : Source or None
        The coarse product.
    alignment : Alignment
        Where the blocks lie.
    scale : int
        Fine cells per coarse cell and axis.
    flat_sea : {"mask", "fill", "keep"}
        What becomes of a sea that the fine product has at exactly 0 m (:mod:`earthsr.dem.prepare.pairs`).
    degradation : Degradation, optional
        What makes coarse cells of fine ones where there is no coarse product; block means where absent.
    """

    def __init__(
        self,
        hr: Source,
        lr: Source | None,
        alignment: Alignment,
        scale: int,
        flat_sea: FlatSea = "keep",
        degradation: Degradation | None = None,
    ) -> None:
        self.hr, self.lr, self.alignment, self.scale, self.flat_sea = hr, lr, alignment, scale, flat_sea
        self.degradation = degradation or Degradation.block_mean(scale)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coarse (h, w) and fine (h * scale, w * scale) elevations in metres, NaN where there is no value.

        Fine cells of a block whose coarse cell has no value are NaN too: where nothing is known no claim is made.

        Raises
        ------
        DataError
            If a value is no elevation on Earth, or a file is damaged.
        """
        s, rows, columns = self.scale, self.alignment.rows, self.alignment.columns
        place = Window(
            rows.first + s * window.row, columns.first + s * window.column, s * window.rows, s * window.columns
        )
        fine = self.hr.read(place)
        if self.lr is None:
            coarse = self._degraded(place, fine)
        else:
            around = interpolated(
                self.lr,
                rows.positions(window.row - 1, window.rows + 2),
                columns.positions(window.column - 1, window.columns + 2),
            )
            coarse = around[1:-1, 1:-1].copy()
            if self.flat_sea != "keep":
                sea = flat_sea_cells(around, fine)
                fine[sea] = np.nan if self.flat_sea == "mask" else self._floor(window)[sea]
        fine[np.isnan(coarse).repeat(s, axis=0).repeat(s, axis=1)] = np.nan
        return coarse, fine

    def _degraded(self, place: Window, fine: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coarse cells made of the fine ones of a window, and of those around it that have a weight, metres."""
        if self.degradation == Degradation.block_mean(self.scale):
            return block_mean(fine, self.scale)
        reach = self.degradation.reach(self.scale)
        bottom, right = place.row + place.rows + reach - 1, place.column + place.columns + reach - 1
        wide = read_padded(self.hr, place.row - reach, bottom, place.column - reach, right)
        blocks = place.rows // self.scale, place.columns // self.scale
        return self.degradation.coarse(wide, self.scale, (reach, reach), blocks).astype(np.float32)

    def _floor(self, window: Window) -> NDArray[np.float32]:
        """Return the coarse product at the centres of the fine cells of a window, metres, nowhere above the sea."""
        assert self.lr is not None
        s = self.scale
        within = (np.arange(s) + 0.5) / s - 0.5
        positions = (
            (axis.positions(first, count)[:, None] + within * axis.step).ravel()
            for axis, first, count in (
                (self.alignment.rows, window.row, window.rows),
                (self.alignment.columns, window.column, window.columns),
            )
        )
        return np.minimum(interpolated(self.lr, *positions), 0)


def interpolated(source: Source, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values between the cell centres of a raster by cubic convolution (Keys, a = -1/2).

    Beside voids and edges it is bilinear, and nothing where even that would touch a void. Voids are never averaged in.

    Parameters
    ----------
    source : Source
        The raster, metres.
    rows, columns : ndarray of shape (h,) and (w,)
        Positions, 0 being the centre of the first cell; beyond the raster there is no value. Columns of a global
        raster go round.

    Returns
    -------
    ndarray of shape (h, w)
        Values of cells whose centres are hit are the raster's own, bit for bit.
    """
    along, across = _Taps(rows), _Taps(columns)
    values = read_padded(source, along.first, along.last, across.first, across.last)
    void = np.isnan(values)
    if not void.any():
        return _weighted(values, along, across, along.cubic, across.cubic).astype(np.float32)
    filled = np.where(void, 0.0, values)
    result = np.full((len(rows), len(columns)), np.nan)
    touched = np.ones(result.shape, bool)
    for a, b in ((along.cubic, across.cubic), (along.linear, across.linear)):
        # A tap without weight reads nothing: a void under it does no harm.
        clear = touched & (_weighted(void.astype(float), along, across, a != 0, b != 0) == 0)
        result[clear] = _weighted(filled, along, across, a, b)[clear]
        touched &= ~clear
    return result.astype(np.float32)


class _Taps:
    """Four cells around each position, and their weights."""

    def __init__(self, positions: NDArray[np.float64]) -> None:
        nearest = np.round(positions)
        positions = np.where(np.abs(positions - nearest) < _SAME, nearest, positions)
        base = np.floor(positions)
        t = positions - base
        self.first, self.last = int(base.min()) - 1, int(base.max()) + 2
        self.cells = base.astype(np.int64)[None, :] + np.arange(-1, 3)[:, None] - self.first
        """(4, n), counted from ``first``."""
        self.cubic = keys(np.stack([1 + t, t, 1 - t, 2 - t]))
        zero = np.zeros_like(t)
        self.linear = np.stack([zero, 1 - t, t, zero])


def _weighted(
    values: NDArray[np.floating], along: _Taps, across: _Taps, row_weights: NDArray, column_weights: NDArray
) -> NDArray[np.float64]:
    """Sum of the sixteen cells around each position, in float64."""
    rows = sum(w[:, None] * values[cells] for w, cells in zip(row_weights, along.cells, strict=True))
    return sum(w[None, :] * rows[:, cells] for w, cells in zip(column_weights, across.cells, strict=True))


def read_padded(source: Source, top: int, bottom: int, left: int, right: int) -> NDArray[np.float64]:
    """Read cells of a raster, both ends included, NaN beyond its edges; columns of a global one go round."""
    grid = source.georeference
    out = np.full((bottom - top + 1, right - left + 1), np.nan)
    low, high = max(top, 0), min(bottom + 1, grid.rows)
    column = left
    while column <= right and low < high:
        turn = grid.columns * (column // grid.columns) if grid.periodic else 0
        begin, end = max(column - turn, 0), min(right + 1 - turn, grid.columns)
        if begin >= end:
            break
        window = Window(low, begin, high - low, end - begin)
        values = source.read(window)
        place = begin + turn - left
        out[low - top : high - top, place : place + end - begin] = values
        if not grid.periodic:
            break
        column = end + turn
    return out

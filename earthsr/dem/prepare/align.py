"""Where blocks of fine cells lie, and where their centres fall on the grid of a coarse product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo import Georeference

#: Cell sizes may differ from what they should be by this part: archives round them.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Axis:
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

    rows: Axis
    columns: Axis


def own_blocks(hr: Georeference, scale: int) -> Alignment:
    """Blocks from the first fine cell on, for coarse cells that are block means."""
    return Alignment(Axis(0, hr.rows // scale), Axis(0, hr.columns // scale))


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
    advice = "take another product, or resample one of them (gdalwarp -r average -tr X Y)"
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


def _axis(cells: int, edge: float, cell: float, lr_edge: float, lr_cell: float, scale: int, shift: float) -> Axis:
    step = scale * cell / lr_cell

    def made(first: int) -> Axis:
        centre = edge - lr_edge + (first + scale / 2 + shift) * cell
        return Axis(first, (cells - first) // scale, centre / lr_cell - 0.5, step)

    # Half a fine cell either way is a tie, which rounding shall not decide.
    return min((made(first) for first in range(min(scale, cells))), key=lambda axis: round(abs(axis.gap), 6))

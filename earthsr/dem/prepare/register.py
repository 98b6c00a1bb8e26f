"""Whether a coarse product lies where its file says: measured against means of the truth, and corrected.

Half a pixel is what two products differ by when one file calls its pixels points and they are areas, or the other way
round. For the comparison the truth is averaged over the very cells of the product, by area: nothing is interpolated,
which would displace the shortest waves.

Offsets are in fine cells, positive where the coarse product lies to the south or to the east of the truth.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.prepare.pairs import Alignment, BlockAxis, Pair, SeaCells, align, read_padded
from earthsr.geo import Source
from earthsr.geo.grid import Window
from earthsr.geo.registration import Offset, OffsetSums

Mode = Literal["auto", "report", "off"]
MODES: Final[tuple[Mode, ...]] = ("auto", "report", "off")

#: Windows that are compared, of so many coarse cells per side, spread over the region: the offset of a product is one
#: number, which 48 windows of a million fine cells each tell as well as all of them.
_WINDOWS: Final = 48
_SIDE: Final = 200

#: Part of a fine cell that is rounding of georeferences.
_ROUNDING: Final = 1e-6

#: Fine cells by which a measured offset may differ from half a cell and still be that; its standard error at most.
_HALF_WITHIN: Final = 0.15
_SURE: Final = 0.05

#: Fine cells from which on an offset that is not corrected is warned about.
WORTH_A_WARNING: Final = 0.25


@dataclass(frozen=True)
class Registration:
    """How a coarse product lies on a region's fine cells; offsets in fine cells."""

    region: str
    grids: tuple[float, float]
    """What the files' georeferences leave between blocks and coarse cells, to the south and to the east, after whole
    fine cells: interpolation makes up for it."""
    measured: Offset | None
    """With the georeferences as they are; None where it was not asked for."""
    corrected: tuple[float, float] = (0.0, 0.0)
    """What the coarse product was moved back by."""
    after: Offset | None = None
    """Measured again after the correction; None where nothing was corrected."""

    @property
    def final(self) -> Offset | None:
        """What is left."""
        return self.after or self.measured

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "region": self.region,
            "units": "fine cells; positive: the coarse product lies to the south or to the east",
            "between_grids": {"rows": self.grids[0], "columns": self.grids[1]},
            "measured": None if self.measured is None else self.measured.to_dict(),
            "corrected": {"rows": self.corrected[0], "columns": self.corrected[1]},
            "after": None if self.after is None else self.after.to_dict(),
        }

    def words(self) -> str:
        """One line for people."""
        if self.measured is None:
            return f"region {self.region}: registration of the coarse product not measured"
        text = f"region {self.region}: the coarse product lies {_place(self.measured)}"
        if self.after is not None:
            text += (
                f": half a pixel, taken off ({self.corrected[0]:+.2f} south, {self.corrected[1]:+.2f} east); now "
                f"{_place(self.after)}"
            )
        return text

    def warning(self) -> str | None:
        """What to warn about, if anything."""
        left = self.final
        if left is None or not max(_known(left.rows), _known(left.columns)) > WORTH_A_WARNING:
            return None
        return (
            f"region {self.region}: the coarse product lies {_place(left)}, which is not corrected; check the "
            "georeferences of both products"
        )


def measure_sea(hr: Source, lr: Source, scale: int) -> SeaCells:
    """Look for a sea that the fine product has at exactly 0 m, over the windows that are registered."""
    alignment = align(hr.georeference, lr.georeference, scale)
    pair, sea = Pair(hr, lr, alignment, scale), SeaCells()
    blocks = _Blocks(0, alignment.rows.blocks), _Blocks(0, alignment.columns.blocks)
    for top, left, bottom, right in _windows(*blocks):
        sea += SeaCells.of(*pair.read(Window(top, left, bottom - top, right - left)))
    return sea


def register_region(
    region: str, hr: Source, lr: Source, scale: int, mode: Mode, flat_sea: bool = False
) -> Registration:
    """Align a coarse product with blocks of fine cells, measure what is left, and correct it where it is half a pixel.

    Parameters
    ----------
    region : str
        For the report.
    hr, lr : Source
        Fine and coarse elevations, metres, in one CRS.
    scale : int
        Fine cells per coarse cell and axis.
    mode : {"auto", "report", "off"}
        ``auto`` corrects an offset of half a fine cell, or of half a coarse cell, along either axis; others are left
        alone. ``report`` measures only.
    flat_sea : bool
        Whether the truth's sea is at exactly 0 m, where the coarse product's is not: it is left out then.
    """
    alignment = align(hr.georeference, lr.georeference, scale)
    between = (alignment.rows.gap * scale, alignment.columns.gap * scale)
    registration = Registration(region, between, None)
    if mode == "off":
        return registration
    measured = measure(hr, lr, alignment, scale, flat_sea)
    registration = replace(registration, measured=measured)
    wrong = (
        _half(measured.rows, measured.rows_error, scale),
        _half(measured.columns, measured.columns_error, scale),
    )
    if mode == "report" or wrong == (0.0, 0.0):
        return registration
    alignment = align(hr.georeference, lr.georeference, scale, wrong)
    return replace(registration, corrected=wrong, after=measure(hr, lr, alignment, scale, flat_sea))


def measure(hr: Source, lr: Source, alignment: Alignment, scale: int, flat_sea: bool = False) -> Offset:
    """Offset of a coarse product against means of the truth over its cells, fine cells; of land where sea is flat."""
    rows = _Cover.of(alignment.rows, scale, hr.georeference.rows)
    columns = _Cover.of(alignment.columns, scale, hr.georeference.columns)
    sums = OffsetSums.zero()
    for top, left, bottom, right in _windows(rows, columns):
        down, across = rows.edges(top, bottom), columns.edges(left, right)
        first = math.floor(down[0]), math.floor(across[0])
        window = Window(*first, math.ceil(down[-1]) - first[0], math.ceil(across[-1]) - first[1])
        fine = hr.read(window)
        if flat_sea:
            fine = np.where(fine == 0, np.nan, fine)
        truth = means_between(means_between(fine, down - first[0], 0), across - first[1], 1)
        sums += OffsetSums.of(read_padded(lr, top, bottom - 1, left, right - 1), truth)
    offset = sums.fit()
    lengths = ("rows", "columns", "rows_error", "columns_error")
    return replace(offset, **{name: getattr(offset, name) * scale for name in lengths})


@dataclass(frozen=True)
class _Cover:
    """Cells of a coarse product along one axis, laid on fine cells."""

    edge: float
    """Of the product's first cell, in fine cells from the raster's edge."""
    size: float
    """Fine cells per cell."""
    first: int
    """The first cell that lies wholly on the raster."""
    end: int

    @classmethod
    def of(cls, axis: BlockAxis, scale: int, cells: int) -> _Cover:
        size = scale / axis.step
        edge = axis.first + scale / 2 - (axis.position + 0.5) * size
        first, end = math.ceil((-edge - _ROUNDING) / size), math.floor((cells - edge + _ROUNDING) / size)
        return cls(edge, size, first, end)

    def edges(self, first: int, end: int) -> NDArray[np.float64]:
        """Edges of some cells, in fine cells; those that are fine cells' edges but for rounding are these."""
        edges = self.edge + self.size * np.arange(first, end + 1)
        whole = np.round(edges)
        return np.where(np.abs(edges - whole) < _ROUNDING, whole, edges)


def means_between(values: NDArray, edges: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Means between edges along an axis, cells that an edge divides counted by their part; NaN where one has none."""
    values = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    low, high = edges[:-1], edges[1:]
    first = np.floor(low).astype(int)
    total = np.zeros((*values.shape[:-1], len(low)))
    for tap in range(int((np.ceil(high) - first).max())):
        cell = first + tap
        part = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None)
        chosen = values[..., np.minimum(cell, values.shape[-1] - 1)]
        total += np.where(part > 0, chosen * part, 0.0)
    return np.moveaxis(total / (high - low), -1, axis)


class _Blocks(NamedTuple):
    """First block along an axis, and the one after the last."""

    first: int
    end: int


def _windows(rows: _Cover | _Blocks, columns: _Cover | _Blocks) -> list[tuple[int, int, int, int]]:
    """First and last ends of windows of coarse cells: all, or some spread evenly where the region is large."""
    corners = list(itertools.product(range(rows.first, rows.end, _SIDE), range(columns.first, columns.end, _SIDE)))
    if not corners:
        return []
    chosen = np.unique(np.linspace(0, len(corners) - 1, min(_WINDOWS, len(corners))).round().astype(int))
    return [
        (row, column, min(row + _SIDE, rows.end), min(column + _SIDE, columns.end))
        for row, column in (corners[i] for i in chosen)
    ]


def _half(offset: float, error: float, scale: int) -> float:
    """Half a fine or half a coarse cell, where an offset is that; 0 where it is anything else, or not known well."""
    if not error <= _SURE:
        return 0.0
    for half in (0.5, scale / 2):
        if abs(abs(offset) - half) <= _HALF_WITHIN:
            return math.copysign(half, offset)
    return 0.0


def _known(value: float) -> float:
    return abs(value) if math.isfinite(value) else 0.0


def _place(offset: Offset) -> str:
    return (
        f"{_words(offset.rows, offset.rows_error, 'south', 'north')} and "
        f"{_words(offset.columns, offset.columns_error, 'east', 'west')} of the truth"
    )


def _words(value: float, error: float, positive: str, negative: str) -> str:
    if not math.isfinite(value):
        return f"an unknown way {positive} or {negative}"
    return f"{abs(value):.3f} ± {error:.3f} fine cells {positive if value >= 0 else negative}"

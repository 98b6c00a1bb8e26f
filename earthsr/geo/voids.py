"""Cells without a value: filled before a network reads them, and recognised where nobody says that they are.

Many equal values are nothing unusual: a lake, the sea, plains in whole metres. They have some neighbour that is a
little higher or lower. A fill value stands hundreds of metres from every neighbour, and farther than the ground itself
steps from cell to cell.

What is filled is a guess that only makes the surroundings of a void usable: the void itself stays without a value in
every output and every score.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.values import number_text

#: Fill values of common products that could be elevations; one cell is enough to know them, where it stands alone.
STANDARD_FILLS: Final = frozenset(map(np.float32, (-9999, -9999.9, -9999.99, -9998, -9990, -8888, -7777, -999, -999.9)))
#: Further ones, which no elevation is: of integers, of C and CF's models, of ArcGIS, of NetCDF itself.
_IMPOSSIBLE: Final = frozenset(
    map(np.float32, (-32768, -32767, -99999, -999999, 1e20, -1e20, 9.969209968386869e36, 3.4028235e38, -3.4028235e38))
)
#: Metres from every neighbour, at least; and how many times the steps of the ground beside.
_STANDARD_GAP: Final = (300.0, 1.5)
_OTHER_GAP: Final = (500.0, 2.0)
#: Of numbers that are no common fill: cells, steps to neighbours, and other cells with so many different values, that
#: must be there for a judgement. 0 may be the sea around a steep island: it needs a long coast, and most cells
#: must be others.
_CELLS: Final = 3
_STEPS: Final = 8
_OTHERS: Final = 16
_DIFFERENT: Final = 8
_COAST_STEPS: Final = 16
#: A window that holds nothing but a common fill value has at least so many cells of it.
_ALL: Final = 16
#: Steps of the ground: all but the steepest hundredth.
_STEEP: Final = 99
#: Candidates that are looked at in a window, the most frequent first.
_MOST: Final = 32


@dataclass(frozen=True)
class Fill:
    """A number that looks like a fill value."""

    value: np.float32
    row: int
    """Of its first cell in the window."""
    column: int
    gap: float
    """Smallest difference from a neighbour with another value, metres; infinite where there is none."""
    needed: float
    """What it had to be, at least."""


def undeclared_fills(values: NDArray[np.float32], known: Collection[np.float32] = ()) -> list[Fill]:
    """Find numbers that stand far from all their neighbours.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
        Elevations in metres, NaN where there is none.
    known : collection of float32
        Numbers that are none.
    """
    far = np.zeros(values.shape, bool)
    near = np.zeros(values.shape, bool)
    for first, second in _pairs(values.shape):
        step = np.abs(values[first] - values[second])
        wide, small = step > _STANDARD_GAP[0], (step > 0) & (step <= _STANDARD_GAP[0])
        far[first] |= wide
        far[second] |= wide
        near[first] |= small
        near[second] |= small
    alone = far & ~near
    if not alone.any():
        return _nothing_else(values, known)
    numbers, counts = np.unique(values[alone], return_counts=True)
    beside = values[near]
    place = np.minimum(np.searchsorted(numbers, beside), len(numbers) - 1)
    elsewhere = np.zeros(len(numbers), bool)
    elsewhere[place[numbers[place] == beside]] = True
    order = np.argsort(-counts, kind="stable")
    standard = [i for i in order if numbers[i] in STANDARD_FILLS]
    others = [i for i in order if not elsewhere[i] and numbers[i] not in STANDARD_FILLS and counts[i] > 1]
    ground = _ground_steps(values, alone)
    fills = (_judged(values, numbers[i], ground) for i in (standard + others)[:_MOST] if numbers[i] not in known)
    return [fill for fill in fills if fill is not None]


def require_no_common_fill(values: NDArray[np.float32], name: str) -> None:
    """Check that no common fill value stands among values of any kind.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
        NaN where there is none.
    name : str
        Of their file, for messages.

    Raises
    ------
    DataError
        If one does, far from all values beside it.
    """
    for fill in np.sort(np.array([*STANDARD_FILLS, *_IMPOSSIBLE], np.float32)):
        cells = values == fill
        if not cells.any():
            continue
        others = values[np.isfinite(values) & ~cells]
        others = others[~np.isin(others, [*STANDARD_FILLS, *_IMPOSSIBLE])]
        if others.size:
            low, high = float(others.min()), float(others.max())
            # No farther from the others than these are from each other.
            if low - (high - low) <= fill <= high + (high - low):
                continue
        elif cells.sum() < _ALL:
            continue
        text = number_text(float(fill))
        raise DataError(
            f"{name}: {int(cells.sum())} cells hold {text}, a fill value that the file does not declare; "
            f"{declaring(text, name)}"
        )


def declaring(number: str, name: str) -> str:
    """How a file comes to say that a stored number stands for no value; ``name`` is that of messages."""
    file, _, variable = name.partition(": ")
    if not Path(file).suffix:
        return "make them NaN"
    if not variable:
        return f"rio edit-info --nodata {number} {file} declares it"
    return f"{attributes_command(name, missing_value=float(number))} declares it"


def attributes_command(name: str, **attributes: str | float) -> str:
    """Write the command that gives the only band of a GeoTIFF, or a field of NetCDF or Zarr, attributes."""
    file, _, variable = name.partition(": ")
    if file.endswith(".zarr"):
        return (
            f"python -c \"import zarr; zarr.open('{file}')['{variable}'].attrs.update({attributes}); "
            f"zarr.consolidate_metadata('{file}')\""
        )
    if variable:
        words = (f"-a {k},{variable},o,{'c' if isinstance(v, str) else 'd'},{v}" for k, v in attributes.items())
        return f"ncatted -O {' '.join(words)} {file}"
    words = (f"{key}={value!r}" for key, value in attributes.items())
    lines = f"f = rasterio.open('{file}', 'r+'); f.update_tags(1, {', '.join(words)}); f.close()"
    return f'python -c "import rasterio; {lines}"'


def is_isolated(values: NDArray[np.float32], fill: Fill) -> bool:
    """Whether a number keeps its distance from all neighbours in another window; so it does where it is absent."""
    _, _, gap, _ = _surroundings(values, fill.value)
    return gap > fill.needed


def count_of(values: NDArray[np.float32], value: np.float32) -> int:
    """Cells that hold a number."""
    return int((values == value).sum())


def _nothing_else(values: NDArray[np.float32], known: Collection[np.float32]) -> list[Fill]:
    """A window in which a common fill value is all there is."""
    present = values[np.isfinite(values)]
    if len(present) < _ALL or present[0] not in STANDARD_FILLS or present[0] in known or (present != present[0]).any():
        return []
    row, column = np.argwhere(values == present[0])[0]
    return [Fill(present[0], int(row), int(column), math.inf, 0.0)]


def _judged(values: NDArray[np.float32], value: np.float32, ground: float) -> Fill | None:
    first, cells, gap, steps = _surroundings(values, value)
    least, times = _STANDARD_GAP if value in STANDARD_FILLS else _OTHER_GAP
    needed = max(least, times * ground)
    if not steps or gap <= needed:
        return None
    if value not in STANDARD_FILLS:
        others = values[np.isfinite(values) & (values != value)]
        needed_steps = _COAST_STEPS if value == 0 else _STEPS
        if value == 0 and cells > len(others):
            return None
        if cells < _CELLS or steps < needed_steps or len(others) < _OTHERS or len(np.unique(others)) < _DIFFERENT:
            return None
    return Fill(value, *first, gap, needed)


def _surroundings(values: NDArray[np.float32], value: np.float32) -> tuple[tuple[int, int], int, float, int]:
    """First cell of a number, its cells, the smallest step to a neighbour with another value, and such steps."""
    inside = values == value
    cells = int(inside.sum())
    if not cells:
        return (0, 0), 0, math.inf, 0
    gap, steps = math.inf, 0
    for first, second in _pairs(values.shape):
        edge = inside[first] != inside[second]
        step = np.abs(values[first] - values[second])[edge]
        step = step[np.isfinite(step)]
        if step.size:
            gap, steps = min(gap, float(step.min())), steps + step.size
    row, column = np.unravel_index(int(np.argmax(inside)), values.shape)
    return (int(row), int(column)), cells, gap, steps


def _ground_steps(values: NDArray[np.float32], alone: NDArray[np.bool_]) -> float:
    """Largest step between neighbours where neither stands alone, the steepest hundredth left out; 0 without any."""
    steps = []
    for first, second in _pairs(values.shape, diagonals=False):
        step = np.abs(values[first] - values[second])[~(alone[first] | alone[second])]
        steps.append(step[np.isfinite(step)])
    every = np.concatenate(steps)
    return float(np.percentile(every, _STEEP)) if every.size else 0.0


def _pairs(shape: tuple[int, ...], diagonals: bool = True) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Neighbouring cells: of a row, of a column, and across corners."""
    whole, head, tail = slice(None), slice(None, -1), slice(1, None)
    yield (whole, head), (whole, tail)
    yield (head, whole), (tail, whole)
    if diagonals:
        yield (head, head), (tail, tail)
        yield (head, tail), (tail, head)


#: Rings of cells that are filled from the outside inwards. A filled value depends on cells at most so far away, so that
#: tiles with a halo and the whole raster are filled alike. What is deeper in a void counts as the mean height of a
#: patch or raster, which may be thousands of metres away: a network that takes local means off (over up to 8 cells to
#: each side, twice that for the mean of means) shall see nothing of it near a cell with a value.
REACH: Final = 8 + 2 * 8


def fill_voids(field: NDArray[np.float32], reach: int = REACH) -> NDArray[np.float32]:
    """Fill cells without a value ring by ring, each with the mean of its neighbours (of eight) that have one.

    Parameters
    ----------
    field : ndarray of shape (..., H, W)
        NaN where there is no value.
    reach : int
        Rings.

    Returns
    -------
    ndarray of shape (..., H, W)
        The same array where nothing is missing; else a copy. Cells farther than ``reach`` from any value stay NaN.
    """
    missing = np.isnan(field)
    if not missing.any():
        return field
    lead, shape = field.shape[:-2], field.shape[-2:]
    planes = field.reshape(-1, *shape)
    touched = missing.reshape(-1, *shape).any(axis=(1, 2))
    filled = planes.copy()
    filled[touched] = _rings(planes[touched], reach)
    return filled.reshape(*lead, *shape)


def _rings(planes: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    # Sums about each plane's own mean, so that float32 keeps the digits of small relief on high ground.
    known = np.isfinite(planes)
    counts = np.maximum(known.sum(axis=(1, 2), keepdims=True), 1)
    middle = np.where(known, planes, 0).sum(axis=(1, 2), keepdims=True, dtype=np.float64) / counts
    values = np.where(known, planes - middle, 0.0)
    for _ in range(reach):
        near, total = _around(known.astype(np.float64)), _around(values)
        ring = ~known & (near > 0)
        if not ring.any():
            break
        values[ring] = total[ring] / near[ring]
        known = known | ring
    return np.where(known, values + middle, np.nan).astype(np.float32)


def _around(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over each cell and its eight neighbours; nothing lies beyond the edges."""
    padded = np.pad(planes, [(0, 0), (1, 1), (1, 1)])
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]

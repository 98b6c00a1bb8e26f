"""A first look at a raster: its mean and range, and whether its values can be elevations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.data.hdf5 import PLAUSIBLE_M
from earthsr.errors import DataError
from earthsr.geo import Source
from earthsr.geo.georeference import read_window
from earthsr.geo.window import Window
from earthsr.inference.tiling import chunks

#: Rows and columns that are read at once.
_BLOCK: Final = 1024


@dataclass(frozen=True)
class Survey:
    """What a first pass over a raster found."""

    valid: int
    mean: float
    minimum: float
    maximum: float


def survey(source: Source, window: Window | None = None) -> Survey:
    """Read a raster once: its mean, its range, and whether a value can be no elevation.

    Raises
    ------
    DataError
        If no cell has a value, or one has a value that no place on Earth has; the message names value and place.
    """
    here = source.georeference
    blocks = chunks(window or Window(0, 0, here.rows, here.columns), _BLOCK)
    count, total, low, high = 0, 0.0, math.inf, -math.inf
    shown = None if len(blocks) > 16 else True
    for block in tqdm(blocks, desc="survey", unit="block", disable=shown):
        values = read_window(source, block)
        require_plausible(values, source, block)
        found = values[np.isfinite(values)]
        if found.size:
            count += found.size
            total += float(found.sum(dtype=np.float64))
            low, high = min(low, float(found.min())), max(high, float(found.max()))
    if not count:
        raise DataError(f"{source.name}: no cell has a value where it is wanted; check its nodata value and --bbox")
    return Survey(count, total / count, low, high)


def require_plausible(values: NDArray[np.float32], source: Source, window: Window) -> None:
    """Check that values are elevations on Earth in metres.

    Raises
    ------
    DataError
        If one is not: an undeclared fill value, or another unit.
    """
    low, high = PLAUSIBLE_M
    # Comparisons with NaN are false: only values count.
    bad = (values < low) | (values > high)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        # Windows of a periodic raster go round; the column is the one that the file has.
        place = (window.column + column) % source.georeference.columns
        raise DataError(
            f"{source.name}: holds {float(values[row, column]):g} in row {window.row + row}, column "
            f"{place}, and elevations are {low:,} to {high:,} m; name a fill value with --nodata"
        )

"""A first look at a raster: its mean and range, and whether its values can be elevations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from tqdm import tqdm

from earthsr.errors import DataError
from earthsr.geo import Source
from earthsr.geo.elevations import elevations
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
    """Read a raster of elevation once: its mean and its range.

    Raises
    ------
    DataError
        If no cell has a value, or one is no elevation (:func:`earthsr.geo.elevations.elevations`).
    """
    source = elevations(source)
    grid = source.georeference
    blocks = chunks(window or Window(0, 0, grid.rows, grid.columns), _BLOCK)
    count, total, low, high = 0, 0.0, math.inf, -math.inf
    shown = None if len(blocks) > 16 else True
    for block in tqdm(blocks, desc="survey", unit="block", disable=shown):
        values = read_window(source, block)
        valid = values[np.isfinite(values)]
        if valid.size:
            count += valid.size
            total += float(valid.sum(dtype=np.float64))
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    if not count:
        raise DataError(f"{source.name}: no cell has a value where it is wanted; check its nodata value and --bbox")
    return Survey(count, total / count, low, high)

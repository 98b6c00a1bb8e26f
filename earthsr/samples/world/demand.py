"""How much land of each kind is wanted in a year, and where more of it than elsewhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.samples.world.fields import generator, spectral_field

#: Share of land of each use: before and after the great expansion, the year of its middle, and years it takes (1 e-fold
#: of the logistic curve). The curves follow the calendar, so that any span of years makes sense.
_CURVES = {
    "urban": (0.006, 0.036, 1990.0, 28.0),
    "cropland": (0.12, 0.34, 1960.0, 45.0),
    "pasture": (0.10, 0.24, 1980.0, 40.0),
}
#: Share of land that is given up each year while as much is taken elsewhere, in the mean over time.
_TURNOVER = {"cropland": 0.0023, "pasture": 0.0023}
#: Years in which a region goes from boom to bust and back.
_CYCLE_YEARS = 52.0
#: Wavelength of regions, degrees.
_REGIONS_DEG = 1.6


def wanted_share(use: str, year: int) -> float:
    """Share of land that a use has in a year."""
    low, high, middle, width = _CURVES[use]
    return low + (high - low) / (1.0 + math.exp(-(year - middle) / width))


def turnover_share(use: str, year: int) -> float:
    """Share of land that a use gives up in a year."""
    return _TURNOVER[use] * (1.0 + 0.4 * math.sin(2 * math.pi * year / 23.0))


class RegionalPressure:
    """A smooth field per use that drifts slowly: where demand is above (positive) or below that of the whole land."""

    def __init__(self, use: str, grid: Grid, seed: int) -> None:
        shape, cell = (grid.rows, grid.columns), grid.cell_y
        self._parts = tuple(
            spectral_field(generator(seed, f"{use} {part}"), shape, cell, _REGIONS_DEG, 3.5).astype(np.float32)
            for part in ("now", "later")
        )

    def at(self, year: int) -> NDArray[np.float32]:
        """(H, W), of zero mean and a variance of about 1."""
        phase = 2 * math.pi * year / _CYCLE_YEARS
        return np.float32(math.cos(phase)) * self._parts[0] + np.float32(math.sin(phase)) * self._parts[1]

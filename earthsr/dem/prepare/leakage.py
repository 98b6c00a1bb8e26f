"""Whether splits share ground: regions of different splits that overlap, or lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earthsr.errors import DataError


@dataclass(frozen=True)
class Ground:
    """What a split takes of a region."""

    region: str
    split: str
    bounds: tuple[float, float, float, float]
    """West, south, east, north, in units of the CRS."""
    cell: float
    """Size of a fine cell."""


def require_apart(grounds: Sequence[Ground], buffer: float, geographic: bool) -> list[str]:
    """Refuse regions of different splits that overlap; returns a note where some lie closer than the buffer.

    Parameters
    ----------
    grounds : sequence of Ground
        All of them.
    buffer : float
        In fine cells.
    geographic : bool
        Whether longitudes go round.

    Raises
    ------
    DataError
        If half a fine cell and more is in two splits.
    """
    bounds = np.array([ground.bounds for ground in grounds])
    if geographic:
        # Rasters may count longitudes from -180 or from 0; one may lie across either.
        turned = np.floor((bounds[:, 0] + 180) / 360) * 360
        bounds[:, [0, 2]] -= turned[:, None]
    splits = np.array([ground.split for ground in grounds])
    regions = np.array([ground.region for ground in grounds])
    cells = np.array([ground.cell for ground in grounds])
    close: list[tuple[str, str]] = []
    for i, ground in enumerate(grounds):
        others = np.flatnonzero((splits != ground.split) & (regions != ground.region) & (np.arange(len(grounds)) > i))
        if not len(others):
            continue
        shared = np.full(len(others), -np.inf)
        for turn in (-360, 0, 360) if geographic else (0,):
            west, east = bounds[others, 0] + turn, bounds[others, 2] + turn
            wide = np.minimum(east, bounds[i, 2]) - np.maximum(west, bounds[i, 0])
            high = np.minimum(bounds[others, 3], bounds[i, 3]) - np.maximum(bounds[others, 1], bounds[i, 1])
            shared = np.maximum(shared, np.minimum(wide, high))
        size = np.minimum(cells[others], ground.cell)
        overlapping = others[shared > 0.5 * size]
        if len(overlapping):
            other = grounds[overlapping[0]]
            raise DataError(
                f"regions {ground.region} ({ground.split}) and {other.region} ({other.split}) overlap: the same ground "
                "would be in two splits; give both to one split, or join them by giving them one name"
            )
        close += [(ground.region, grounds[j].region) for j in others[shared > -buffer * size]]
    if not close:
        return []
    first, second = close[0]
    more = f" (and {len(close) - 1} more pairs)" if len(close) > 1 else ""
    return [f"regions {first} and {second} are in different splits and lie side by side{more}: terrain goes on across"]

"""Filling voids of coarse fields before a network or an interpolation reads them.

What is filled is a guess that only makes the surroundings of a void usable: the void itself stays without a value in
every output and every score.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

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

"""Areas, not only counts: single cells move where the rows of a coarse cell differ in area, as they do near a pole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Sums of areas differ by rounding; a cell that fits but for this much stays.
_ROUNDING = 1e-6


def trim(
    classes: NDArray[np.uint8],
    scores: NDArray[np.float64],
    areas: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> None:
    """Move cells until each class has the wanted area but for less than the largest cell's, in place.

    One after the other, a cell of the class with most too much goes to that with most too little: the cell that loses
    least likelihood per area. Each move lowers the sum of absolute differences, so this ends; it begins at the
    likeliest map with counts in proportion, a few moves away, and so ends at a map that is nearly the likeliest.

    Parameters
    ----------
    classes : ndarray of shape (G, N)
        Of :func:`earthsr.landuse.match_areas.assignment.assign`.
    scores : ndarray of shape (K, G, N)
        Logarithms of probabilities.
    areas : ndarray of shape (G, N)
        Of the fine cells, 0 behind the last one.
    wanted : ndarray of shape (G, K)
        Areas of the classes; rows add up to those of ``areas``.
    """
    k = wanted.shape[1]
    gap = wanted - np.stack([np.where(classes == c, areas, 0.0).sum(axis=1) for c in range(k)], axis=1)
    limit = areas.max(axis=1) * (1 + _ROUNDING)
    while (active := np.nonzero(np.abs(gap).max(axis=1) > limit)[0]).size:
        rich, poor = gap[active].argmin(axis=1), gap[active].argmax(axis=1)
        movable = (classes[active] == rich[:, None]) & (areas[active] > 0)
        loss = (scores[rich, active] - scores[poor, active]) / np.where(movable, areas[active], 1.0)
        cell = np.where(movable, loss, np.inf).argmin(axis=1)
        classes[active, cell] = poor
        gap[active, rich] += areas[active, cell]
        gap[active, poor] -= areas[active, cell]

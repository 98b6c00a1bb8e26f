"""Areas of classes in the coarse cells that a window touches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compact(cells: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Coarse cells that occur (n,), ascending, and which of these each of ``cells`` is; all are below ``count``."""
    touched = np.nonzero(np.bincount(cells, minlength=count))[0]
    number = np.zeros(count, np.int64)
    number[touched] = np.arange(touched.size)
    return touched, number[cells]


def class_sums(
    place: NDArray[np.int64], classes: NDArray[np.uint8], areas: NDArray[np.float64], count: int, k: int
) -> NDArray[np.float64]:
    """Areas of ``k`` classes in ``count`` coarse cells (n, K), from fine cells in the order of rows."""
    sums = np.bincount(place * k + classes, areas, minlength=count * k)
    return np.asarray(sums, np.float64).reshape(count, k)

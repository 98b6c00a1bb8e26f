"""What a model is measured against: interpolation of the same coarse cells."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.resample import Method, interpolate
from earthsr.geo.voids import fill_voids

#: In the order of tables and figures. Where coarse cells are means of the truth, a surface that keeps these means
#: (bicubic, and what it lacks of them) is the strongest of the four: what a network learns, it learns beyond that.
BASELINES: Final[tuple[Method, ...]] = ("nearest", "bilinear", "bicubic", "conservative")


def baseline(coarse: NDArray[np.float32], scale: int, method: Method) -> NDArray[np.float32]:
    """Interpolate coarse patches, half-pixel centres, edges replicated.

    A cell without a value is filled as it is for the model: from its neighbours, else with its patch's mean.

    Parameters
    ----------
    coarse : ndarray of shape (N, C, p, p)
        Metres; may hold NaN.
    scale : int
        Fine cells per coarse cell and axis.
    method : {"nearest", "bilinear", "bicubic", "conservative"}

    Returns
    -------
    ndarray of shape (N, C, p * scale, p * scale)
        Metres.
    """
    coarse = fill_voids(coarse)
    missing = np.isnan(coarse)
    if missing.any():
        count = np.maximum((~missing).sum(axis=(1, 2, 3), keepdims=True), 1)
        mean = np.where(missing, 0, coarse).sum(axis=(1, 2, 3), keepdims=True) / count
        coarse = np.where(missing, mean, coarse).astype(np.float32)
    return interpolate(coarse, scale, method)

"""Fine fields whose area means are the coarse values that they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.geo import Georeference
from earthsr.geo.resample import interpolate


def area_weights(coarse: Georeference, row: int, rows: int, scale: int) -> NDArray[np.float64]:
    """Share of a coarse cell's area in each of its rows of fine cells.

    Parameters
    ----------
    coarse : Georeference
        The coarse grid.
    row, rows : int
        Its first row that is wanted, and their number.
    scale : int
        Fine cells per coarse cell and axis.

    Returns
    -------
    ndarray of shape (rows, scale)
        Rows add up to 1. On a grid of longitude and latitude the sphere's areas, differences of the sine of latitude;
        equal ones on a projected grid.
    """
    if not coarse.geographic:
        return np.full((rows, scale), 1 / scale)
    edges = coarse.north - (row + np.arange(rows * scale + 1) / scale) * coarse.cell_y
    sines = np.sin(np.deg2rad(np.clip(edges, -90, 90)))
    areas = (sines[:-1] - sines[1:]).reshape(rows, scale)
    total = areas.sum(axis=1, keepdims=True)
    # A row beyond a pole has no area; its cells count alike.
    return np.where(total > 0, areas / np.where(total > 0, total, 1), 1 / scale)


def area_mean(fine: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area mean over each coarse cell, (rows * scale, columns * scale) to (rows, columns), in float64."""
    # Whole rows and columns at a time: several times faster than a reduction over axes as short as the scale.
    scale = weights.shape[1]
    rows = weights[:, :1] * fine[::scale]
    for k in range(1, scale):
        rows += weights[:, k, None] * fine[k::scale]
    total = rows[:, ::scale].copy()
    for k in range(1, scale):
        total += rows[:, k::scale]
    return total / scale


def conserved(
    fine: NDArray[np.float32], coarse: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Shift a fine field so that its area mean over each coarse cell is the coarse value.

    What is missing is added as a smooth surface of the same means, which has no step where coarse cells meet; what that
    leaves, 1e-4 of it and the difference between area means and plain ones, is added per cell.

    Parameters
    ----------
    fine : ndarray of shape (rows * scale, columns * scale)
        Without NaN.
    coarse : ndarray of shape (rows, columns)
        NaN where there is no value: nothing is asked for there.
    weights : ndarray of shape (rows, scale)
        Of :func:`area_weights`.
    """
    scale = weights.shape[1]
    missing = np.where(np.isfinite(coarse), coarse - area_mean(fine, weights), 0.0)
    shifted = fine + interpolate(missing, scale, "mean_preserving")
    rest = np.where(np.isfinite(coarse), coarse - area_mean(shifted, weights), 0.0)
    return (shifted + rest.repeat(scale, axis=0).repeat(scale, axis=1)).astype(np.float32)


@dataclass(frozen=True)
class Residual:
    """Sums of the area mean minus the coarse value over coarse cells; ``a + b`` merges."""

    count: int = 0
    total: float = 0.0
    square: float = 0.0
    largest: float = 0.0

    def __add__(self, other: Residual) -> Residual:
        return Residual(
            self.count + other.count,
            self.total + other.total,
            self.square + other.square,
            max(self.largest, other.largest),
        )

    @classmethod
    def of(cls, fine: NDArray[np.float32], coarse: NDArray[np.float32], weights: NDArray[np.float64]) -> Residual:
        """Compare a fine field with its coarse values; cells without one do not count."""
        valid = np.isfinite(coarse)
        gaps = (area_mean(fine, weights) - coarse)[valid]
        if not gaps.size:
            return cls()
        return cls(int(gaps.size), float(gaps.sum()), float(np.square(gaps).sum()), float(np.abs(gaps).max()))

    def to_dict(self) -> dict[str, float | None]:
        """Return ``mean``, ``rms`` and ``largest`` in the values' unit."""
        if not self.count:
            return {"mean": None, "rms": None, "largest": None}
        return {
            "mean": self.total / self.count,
            "rms": float(np.sqrt(self.square / self.count)),
            "largest": self.largest,
        }

"""How far one field lies from another on the same grid: a fraction of a cell, by least squares on the gradient.

Where ``moving(x) = fixed(x - d) + bias``, the difference of the two is, for small ``d``, ``bias - d * gradient`` with
the gradient at the middle of the way, which is the mean of both fields' gradients (so errors of second order in ``d``
cancel). Every cell gives one such equation; their sums over patches, tiles or ranks add up, and the offset is a
function of the sums. Offsets of up to about half a cell come out within some hundredths of a cell on terrain, larger
ones too small: shift by what was found, and measure again.

Standard errors are those of clusters of cells (Liang and Zeger, 1986, "Longitudinal data analysis using generalized
linear models", eq. 5), since neighbouring residuals of terrain are far from independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: First derivative and the smoothing that matches it (Farid and Simoncelli, 2004, "Differentiation of discrete
#: multidimensional signals", IEEE Trans. Image Processing 13(4), five taps): both suppress the noise of single cells,
#: and their ratio is that of a true derivative within 1 % for all wavelengths above five cells. The derivative is
#: scaled so that the slope of a plane is exact.
_SMOOTHING: Final = (0.426376, 0.249153, 0.037659)  # of the cell, and of those one and two cells away
_DERIVATIVE: Final = (0.276691 / 0.991798, 0.109604 / 0.991798)  # of differences over two and four cells

#: Cells to each side that the filters read: a void takes its neighbours with it, and so does an edge.
REACH: Final = 2

#: Cells per side of a cluster, whose residuals may depend on each other as they like.
_CLUSTER: Final = 16

#: An axis is unknown where the gradients' spread along it is less than this part of all that there is. Slopes stored
#: in float32 are exact to about 1e-5 of themselves, and spreads are squares.
_KNOWN: Final = 1e-7

# Order of the unknowns and of the observation: rise towards the south, rise towards the east, one, difference.
_TERMS: Final = 4
_UPPER: Final = np.triu_indices(_TERMS)


@dataclass(frozen=True)
class Offset:
    """Where a moving field lies, seen from a fixed one."""

    rows: float
    """Cells towards the south; NaN where the fields do not tell."""
    columns: float
    """Cells towards the east."""
    rows_error: float
    """Standard error, cells."""
    columns_error: float
    bias: float
    """Moving minus fixed where both show the same place, in the fields' unit; 0 where it was not asked for."""
    cells: int
    """Cells that were compared."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description, None for what is unknown."""
        values = {name: getattr(self, name) for name in ("rows", "columns", "rows_error", "columns_error", "bias")}
        return {**{k: v if math.isfinite(v) else None for k, v in values.items()}, "cells": self.cells}


@dataclass(frozen=True, eq=False)
class OffsetSums:
    """Sums from which an offset follows; ``a + b`` merges."""

    cells: int
    moments: NDArray[np.float64]
    """(4, 4): sums of products of gradients, one, and difference."""
    pairs: NDArray[np.float64]
    """(10, 10): sums over clusters of products of the cluster's own moments."""
    clusters: int

    @classmethod
    def zero(cls) -> OffsetSums:
        """Sums of nothing, to start from."""
        size = len(_UPPER[0])
        return cls(0, np.zeros((_TERMS, _TERMS)), np.zeros((size, size)), 0)

    def __add__(self, other: OffsetSums) -> OffsetSums:
        return OffsetSums(
            self.cells + other.cells,
            self.moments + other.moments,
            self.pairs + other.pairs,
            self.clusters + other.clusters,
        )

    @classmethod
    def of(
        cls, moving: NDArray[np.floating], fixed: NDArray[np.floating], valid: NDArray[np.bool_] | None = None
    ) -> OffsetSums:
        """Sums of two fields, or of stacks of fields that do not touch each other.

        Parameters
        ----------
        moving, fixed : ndarray of shape (..., H, W)
            Values on the same grid, rows from north to south; NaN where there is none.
        valid : ndarray of bool of shape (..., H, W), optional
            Where to compare; a cell counts where all cells within ``REACH`` of it have values.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        if moving.shape != fixed.shape or moving.ndim < 2 or (valid is not None and valid.shape != moving.shape):
            raise ValueError(f"fields of shapes {moving.shape} and {fixed.shape} cannot be compared")
        a, b = np.asarray(moving, np.float64), np.asarray(fixed, np.float64)
        has_value = np.isfinite(a) & np.isfinite(b)
        if valid is not None:
            has_value &= valid
        if min(a.shape[-2:]) <= 2 * REACH or not has_value.any():
            return cls.zero()
        a, b = np.where(has_value, a, 0.0), np.where(has_value, b, 0.0)
        middle, difference = (a + b) / 2, a - b
        whole = _whole(has_value)
        terms = np.stack(
            [
                _smooth(_rise(middle, -2), -1),
                _smooth(_rise(middle, -1), -2),
                np.ones(whole.shape),
                _smooth(_smooth(difference, -2), -1),
            ],
            axis=-1,
        )
        return cls._of_terms(np.where(whole[..., None], terms, 0.0), int(whole.sum()))

    @classmethod
    def _of_terms(cls, terms: NDArray[np.float64], cells: int) -> OffsetSums:
        height, width = terms.shape[-3:-1]
        pad = [(0, 0)] * (terms.ndim - 3) + [(0, -height % _CLUSTER), (0, -width % _CLUSTER), (0, 0)]
        padded = np.pad(terms, pad)
        rows, columns = padded.shape[-3] // _CLUSTER, padded.shape[-2] // _CLUSTER
        cut = padded.reshape(-1, rows, _CLUSTER, columns, _CLUSTER, _TERMS)
        clusters = cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, _CLUSTER * _CLUSTER, _TERMS)
        own = clusters.transpose(0, 2, 1) @ clusters
        upper = own[:, _UPPER[0], _UPPER[1]]
        return cls(cells, own.sum(axis=0), upper.T @ upper, int((own[:, 2, 2] > 0).sum()))

    def offset(self, bias: bool = True) -> tuple[float, float]:
        """Where ``moving`` lies, in cells towards the south and towards the east of ``fixed``; NaN where unknown."""
        offset = self.fit(bias)
        return offset.rows, offset.columns

    def standard_error(self, bias: bool = True) -> tuple[float, float]:
        """Standard errors of :meth:`offset`, cells; NaN where it is unknown."""
        offset = self.fit(bias)
        return offset.rows_error, offset.columns_error

    def fit(self, bias: bool = True) -> Offset:
        """Solve for the offset.

        Parameters
        ----------
        bias : bool
            Allow a constant difference between the fields, such as that of two vertical datums. A plane then tells
            nothing, for a shift of it is the same as lifting it; without a bias it tells the offset along its slope.

        Returns
        -------
        Offset
            An axis along which nothing can be told is NaN.
        """
        used = [0, 1, 2] if bias else [0, 1]
        # Gradients about their mean, where a bias takes the mean away.
        normal = self.moments[np.ix_(used, used)]
        spread = self.moments[:2, :2].copy()
        if bias and self.cells:
            spread -= np.outer(self.moments[:2, 2], self.moments[:2, 2]) / self.cells
        scale = float(np.trace(self.moments[:2, :2]))
        if self.cells <= len(used) or not scale > 0:
            return Offset(math.nan, math.nan, math.nan, math.nan, 0.0, self.cells)
        powers, directions = np.linalg.eigh(spread)
        blind = directions[:, powers <= _KNOWN * scale]
        # An axis is known where it has no part in a direction without gradients: of a shift by a cell along that
        # direction it would see less than a thousandth.
        known = np.abs(blind).max(axis=1, initial=0.0) < 1e-3
        # Slopes of the sea floor are a millionth of those of the Alps, and one is one: each in its own size.
        size = np.array([math.sqrt(scale / self.cells)] * 2 + [1.0])[used]
        inverse = np.linalg.pinv(normal / np.outer(size, size), rcond=1e-13, hermitian=True) / np.outer(size, size)
        beta = inverse @ self.moments[used, 3]
        errors = np.sqrt(self._variances(used, inverse, beta))
        value = np.where(known, -beta[:2], math.nan)
        error = np.where(known, errors[:2], math.nan)
        lift = float(beta[2]) if bias and known.all() else 0.0
        return Offset(float(value[0]), float(value[1]), float(error[0]), float(error[1]), lift, self.cells)

    def _variances(
        self, used: list[int], inverse: NDArray[np.float64], beta: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Variances of the solution: those of clusters, or those of independent cells where these are larger."""
        weights = np.zeros(_TERMS)
        weights[used], weights[3] = -beta, 1.0  # a cell's residual is its terms times these
        residual = max(float(weights @ self.moments @ weights), 0.0)
        independent = np.diag(inverse) * residual / (self.cells - len(used))
        if self.clusters < 2:
            return independent
        # The score of a cluster is its moments times the weights; each row of ``pick`` makes one of the upper triangle.
        pick = np.zeros((len(used), len(_UPPER[0])))
        for place, (i, j) in enumerate(zip(*_UPPER, strict=True)):
            for k, term in enumerate(used):
                if i == term:
                    pick[k, place] += weights[j]
                if j == term and i != j:
                    pick[k, place] += weights[i]
        scores = pick @ self.pairs @ pick.T * self.clusters / (self.clusters - 1)
        return np.maximum(np.diag(inverse @ scores @ inverse), independent)


def _shifts(field: NDArray[np.float64], axis: int) -> list[NDArray[np.float64]]:
    """Views of a field two cells before to two cells after each inner cell, along one of the last two axes."""
    length = field.shape[axis] - 2 * REACH
    swapped = field.swapaxes(axis, -1)
    return [swapped[..., start : start + length].swapaxes(axis, -1) for start in range(2 * REACH + 1)]


def _smooth(field: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Smooth along an axis, which loses ``REACH`` cells at each end."""
    a, b, c, d, e = _shifts(field, axis)
    return _SMOOTHING[0] * c + _SMOOTHING[1] * (b + d) + _SMOOTHING[2] * (a + e)


def _rise(field: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Rise per cell along an axis, which loses ``REACH`` cells at each end; exactly 0 where nothing changes."""
    a, b, _, d, e = _shifts(field, axis)
    return _DERIVATIVE[0] * (d - b) + _DERIVATIVE[1] * (e - a)


def _whole(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all cells within ``REACH`` of each inner cell are valid, (..., H - 2 * REACH, W - 2 * REACH)."""
    window = 2 * REACH + 1
    rows = np.lib.stride_tricks.sliding_window_view(valid, window, axis=-2).all(axis=-1)
    return np.lib.stride_tricks.sliding_window_view(rows, window, axis=-1).all(axis=-1)

"""Whether the coarse grid shows in a fine surface: steps and curvature by the phase of a fine cell in its coarse cell.

Terrain knows nothing of the grid that its means were taken on: every phase bends alike. Where a surface steps at the
edges of coarse cells, every hillshade shows them, and root mean squares do not. All of it is sums, which merge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Fine cells to each side that the fitted filter reads: 7 x 7.
_REACH: Final = 3


def _by_phase(values: NDArray[np.floating], valid: NDArray[np.bool_], first: int, scale: int, axis: int) -> NDArray:
    """Sums and counts (2, scale) of absolute values by phase along an axis of (N, H, W)."""
    moved, where = np.moveaxis(np.abs(values), axis, 0), np.moveaxis(valid, axis, 0)
    result = np.zeros((2, scale))
    for phase in range(scale):
        pick = slice((phase - first) % scale, None, scale)
        result[:, phase] = moved[pick][where[pick]].sum(dtype=np.float64), where[pick].sum()
    return result


@dataclass(frozen=True, eq=False)
class SurfaceSums:
    """Sums over one surface, both axes together; ``a + b`` merges."""

    steps: NDArray[np.float64]
    """(2, scale): absolute differences from the cell before, and their number; phase 0 is across an edge."""
    bends: NDArray[np.float64]
    """(2, scale): absolute second differences about a cell, and their number."""

    def __add__(self, other: SurfaceSums) -> SurfaceSums:
        return SurfaceSums(self.steps + other.steps, self.bends + other.bends)

    @classmethod
    def of(cls, surface: NDArray[np.floating], valid: NDArray[np.bool_], scale: int) -> SurfaceSums:
        """Sums of (N, H, W) surfaces whose first cell is of phase 0, where all cells that take part are valid."""
        surface = np.asarray(surface, np.float64)
        steps, bends = np.zeros((2, scale)), np.zeros((2, scale))
        for axis in (1, 2):
            count = surface.shape[axis]
            before, after = (np.arange(count - 1), np.arange(1, count))
            take, pair = np.take, np.take(valid, before, axis) & np.take(valid, after, axis)
            step = take(surface, after, axis) - take(surface, before, axis)
            steps += _by_phase(step, pair, 1, scale, axis)
            inner, outer = np.arange(count - 2), np.arange(1, count - 1)
            both = take(pair, inner, axis) & take(pair, outer, axis)
            bends += _by_phase(take(step, outer, axis) - take(step, inner, axis), both, 1, scale, axis)
        return cls(steps, bends)

    def to_dict(self) -> dict[str, Any]:
        """Return ratios and the curvature by phase; None where there is no cell, or where nothing bends."""
        with np.errstate(invalid="ignore", divide="ignore"):
            steps, bends = self.steps[0] / self.steps[1], self.bends[0] / self.bends[1]
            across = steps[0] / steps[1:].mean()
            # Flat pieces, as linear interpolation has them, bend nowhere but at their edges: no ratio says how much.
            spread = bends.max() / bends.min() if bends.min() > 1e-4 * bends.max() else np.nan
        return {
            "edge_step_ratio": float(across) if np.isfinite(across) else None,
            "curvature_ratio": float(spread) if np.isfinite(spread) else None,
            "curvature_by_phase_m": [float(value) if np.isfinite(value) else None for value in bends],
        }


@dataclass(frozen=True, eq=False)
class FilterSums:
    """Normal equations of a 7 x 7 filter for every phase, behind a prediction; ``a + b`` merges.

    What such a filter gains, a network should have learnt. It is fitted on one half of the patches and scored on the
    other, both ways round, so that its 1,225 weights gain nothing by themselves.
    """

    matrix: NDArray[np.float64]
    """(2 halves, phases, k, k)."""
    vector: NDArray[np.float64]
    """(2 halves, phases, k)."""
    square: NDArray[np.float64]
    """(2 halves, phases): of the prediction's own error."""

    def __add__(self, other: FilterSums) -> FilterSums:
        return FilterSums(self.matrix + other.matrix, self.vector + other.vector, self.square + other.square)

    @classmethod
    def of(
        cls,
        prediction: NDArray[np.floating],
        truth: NDArray[np.floating],
        valid: NDArray[np.bool_],
        half: NDArray[np.int64],
        scale: int,
    ) -> FilterSums:
        """Sums of (N, H, W) predictions; ``half`` (N,) says which half a patch belongs to, 0 or 1."""
        side = 2 * _REACH + 1
        size = side * side
        matrix, vector = np.zeros((2, scale**2, size, size)), np.zeros((2, scale**2, size))
        square = np.zeros((2, scale**2))
        view = np.lib.stride_tricks.sliding_window_view
        for i, which in enumerate(half):
            field = np.asarray(prediction[i], np.float64)
            windows = view(field, (side, side))
            clear = view(valid[i], (side, side)).all(axis=(-2, -1))
            inner = (slice(_REACH, -_REACH), slice(_REACH, -_REACH))
            error = np.asarray(truth[i], np.float64)[inner] - field[inner]
            for phase in range(scale**2):
                row, column = ((p - _REACH) % scale for p in divmod(phase, scale))
                pick = (slice(row, None, scale), slice(column, None, scale))
                use = clear[pick]
                # Departures from the cell itself: a constant added to the terrain changes no weight.
                taps = windows[pick][use].reshape(-1, size) - field[inner][pick][use][:, None]
                target = error[pick][use]
                matrix[which, phase] += taps.T @ taps
                vector[which, phase] += taps.T @ target
                square[which, phase] += target @ target
        return cls(matrix, vector, square)

    def gain(self) -> float | None:
        """Share of the root mean square error that the filter takes off; None where there is no error or one half."""
        before, after = self.square.sum(), 0.0
        if not (self.square.sum(axis=1) > 0).all():
            return None
        for fitted, scored in ((0, 1), (1, 0)):
            for phase in range(self.square.shape[1]):
                a, b = self.matrix[fitted, phase], self.vector[fitted, phase]
                # A trace of a ridge: the filter's own cell is 0 throughout, and flat ground tells nothing.
                weights = np.linalg.solve(a + np.eye(len(a)) * (1e-9 * np.trace(a) + 1e-12), b)
                a, b = self.matrix[scored, phase], self.vector[scored, phase]
                after += self.square[scored, phase] - 2 * weights @ b + weights @ a @ weights
        return float(1 - np.sqrt(max(after, 0.0) / before))


@dataclass(frozen=True, eq=False)
class Lattice:
    """Sums over some patches; ``a + b`` merges."""

    surfaces: Mapping[str, SurfaceSums] = field(default_factory=dict)
    """By method, and ``truth``."""
    filter: FilterSums | None = None
    """Behind the model."""

    def __add__(self, other: Lattice) -> Lattice:
        surfaces = dict(self.surfaces)
        for name, sums in other.surfaces.items():
            surfaces[name] = surfaces[name] + sums if name in surfaces else sums
        if self.filter is None or other.filter is None:
            return Lattice(surfaces, self.filter or other.filter)
        return Lattice(surfaces, self.filter + other.filter)

    def to_dict(self) -> dict[str, Any]:
        """Return ``lattice`` of ``metrics.json``."""
        gain = None if self.filter is None else self.filter.gain()
        return {
            "surfaces": {name: sums.to_dict() for name, sums in self.surfaces.items()},
            "phase_filter_gain_percent": None if gain is None else 100 * gain,
        }


def lattice_of(
    methods: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.floating],
    mask: NDArray[np.uint8],
    indices: NDArray[np.int64],
    *,
    scale: int,
    border: int,
) -> Lattice:
    """Look for the coarse grid in some patches.

    Parameters
    ----------
    methods : mapping of str to ndarray of shape (N, C, H, W)
        Predictions by method, metres; H and W are multiples of ``scale``.
    truth : ndarray of shape (N, C, H, W)
        Metres.
    mask : ndarray of shape (N, 1, H, W)
        1 = valid.
    indices : ndarray of shape (N,)
        Of the patches in their split; even and odd ones are the halves of the fitted filter.
    scale : int
        Fine cells per coarse cell and axis.
    border : int
        Fine cells left out at every edge, a multiple of ``scale``.

    Returns
    -------
    Lattice
        Of the first channel.
    """
    height, width = truth.shape[-2:]
    inner = (slice(border, height - border), slice(border, width - border))
    valid = mask[:, 0][:, *inner].astype(bool)
    fields = {name: values[:, 0][:, *inner] for name, values in {**methods, "truth": truth}.items()}
    surfaces = {name: SurfaceSums.of(values, valid, scale) for name, values in fields.items()}
    model = fields.get("model")
    if model is None or min(model.shape[1:]) <= 2 * _REACH:
        return Lattice(surfaces)
    return Lattice(surfaces, FilterSums.of(model, fields["truth"], valid, indices % 2, scale))

"""Errors by what the ground is like: by slope and by elevation, in fixed bins, and the offset of a prediction.

All of it is sums: those of patches, batches or splits add up to those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.statistics import add_up
from earthsr.geo.registration import OffsetSums
from earthsr.geo.terrain import slope_degrees


@dataclass(frozen=True)
class Bins:
    """Fixed bins of a quantity of the truth; a value on an edge is in the bin above it."""

    units: str
    label: str
    """For axes, with the unit."""
    edges: tuple[float, ...]
    """From below all that can occur to above it."""

    @property
    def count(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1

    def place(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """Bin of every value; those beyond the ends are in the first or the last one."""
        bins = np.searchsorted(np.asarray(self.edges), values, side="right") - 1
        return np.clip(bins, 0, self.count - 1)


#: Fine where most ground is. Sea level has a bin of its own: SRTM has the sea at 0 m, as flat as no land is.
BINS: Final[Mapping[str, Bins]] = {
    "slope": Bins(
        "degrees", "slope of the truth (degrees)", (0, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 35, 40, 50, 90)
    ),
    "elevation": Bins(
        "m",
        "elevation of the truth (m)",
        (
            *(-12000, -8000, -6000, -5000, -4000, -3000, -2000, -1000, -500, -200, -100, -50, -20, -0.5),
            *(0.5, 20, 50, 100, 200, 500, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 9500),
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class BinnedErrors:
    """Sums over the cells of every bin; ``a + b`` merges."""

    count: NDArray[np.float64]
    error: NDArray[np.float64]
    square: NDArray[np.float64]

    def __add__(self, other: BinnedErrors) -> BinnedErrors:
        return BinnedErrors(self.count + other.count, self.error + other.error, self.square + other.square)

    @classmethod
    def of(cls, place: NDArray[np.int64], error: NDArray[np.floating], count: int) -> BinnedErrors:
        """Sums of the errors of some cells, in ``count`` bins."""
        wide = np.asarray(error, np.float64)
        return cls(
            np.bincount(place, minlength=count).astype(np.float64),
            np.bincount(place, wide, minlength=count).astype(np.float64),
            np.bincount(place, wide**2, minlength=count).astype(np.float64),
        )

    def rmse(self) -> NDArray[np.float64]:
        """Root mean square error of every bin; NaN where it has no cell."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.square / self.count)

    def bias(self) -> NDArray[np.float64]:
        """Mean error of every bin; NaN where it has no cell."""
        with np.errstate(invalid="ignore"):
            return self.error / self.count


@dataclass(frozen=True)
class GroundErrors:
    """Errors of several methods by the ground, and their offsets; ``a + b`` merges."""

    profiles: Mapping[str, Mapping[str, BinnedErrors]] = field(default_factory=dict)
    """By quantity (a key of :data:`BINS`) and method."""
    offsets: Mapping[str, OffsetSums] = field(default_factory=dict)
    """By method: the prediction seen from the truth."""

    def __add__(self, other: GroundErrors) -> GroundErrors:
        kinds = {*self.profiles, *other.profiles}
        return GroundErrors(
            {kind: add_up(self.profiles.get(kind, {}), other.profiles.get(kind, {})) for kind in sorted(kinds)},
            add_up(self.offsets, other.offsets),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return ``profiles`` and ``offset`` of ``metrics.json``; None where a bin has no cell, an axis no relief.

        Offsets are in fine cells towards the east and the south; the standard error is the larger one of both axes.
        """
        profiles = {}
        for kind, methods in self.profiles.items():
            first = next(iter(methods.values()))
            profiles[kind] = {
                "units": BINS[kind].units,
                "edges": list(BINS[kind].edges),
                "count": [int(count) for count in first.count],
                "rmse": {name: _plain(errors.rmse()) for name, errors in methods.items()},
                "bias": {name: _plain(errors.bias()) for name, errors in methods.items()},
            }
        return {"profiles": profiles, "offset": {name: _offset(sums) for name, sums in self.offsets.items()}}


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _offset(sums: OffsetSums) -> dict[str, float | None]:
    offset = sums.fit()
    east, south, error = _plain(
        np.array([offset.columns, offset.rows, np.fmax(offset.columns_error, offset.rows_error)])
    )
    return {"east_cells": east, "south_cells": south, "standard_error_cells": error}


def ground_errors(
    methods: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.floating],
    mask: NDArray[np.uint8],
    *,
    border: int,
    cell_size_m: NDArray[np.float64] | None,
) -> GroundErrors:
    """Errors of several methods over some patches.

    Parameters
    ----------
    methods : mapping of str to ndarray of shape (N, C, H, W)
        Predictions by method, metres.
    truth : ndarray of shape (N, C, H, W)
        Metres.
    mask : ndarray of shape (N, 1, H, W)
        1 = valid.
    border : int
        Fine cells left out at every edge, as the scores do.
    cell_size_m : ndarray of shape (N, 2) or None
        Fine cell size north-south and east-west; None leaves slopes out.
    """
    height, width = truth.shape[-2:]
    inner = (..., slice(border, height - border), slice(border, width - border))
    inside = truth[inner].astype(np.float64)
    valid = np.broadcast_to(mask[inner].astype(bool), inside.shape)
    ground = {"elevation": (inside, valid)}
    if cell_size_m is not None and min(inside.shape[-2:]) >= 3:
        ground["slope"] = _slope(np.where(valid, inside, np.nan), cell_size_m)
    places = {kind: (BINS[kind].place(values[where]), where) for kind, (values, where) in ground.items()}
    profiles: dict[str, dict[str, BinnedErrors]] = {kind: {} for kind in places}
    offsets = {}
    for name, prediction in methods.items():
        predicted = prediction[inner]
        difference = predicted - inside
        for kind, (place, where) in places.items():
            profiles[kind][name] = BinnedErrors.of(place, difference[where], BINS[kind].count)
        offsets[name] = OffsetSums.of(predicted, inside, valid)
    return GroundErrors(profiles, offsets)


def _slope(
    elevation: NDArray[np.float64], cell_size_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Slope of cells whose neighbours are all valid, and which these are; edges have none."""
    dy, dx = (cell_size_m[:, i, None, None, None] for i in (0, 1))
    slope = np.full(elevation.shape, np.nan)
    slope[..., 1:-1, 1:-1] = slope_degrees(elevation, dy, dx)
    return slope, np.isfinite(slope)

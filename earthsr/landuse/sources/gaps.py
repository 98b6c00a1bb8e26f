"""Coarse cells of which a forcing says nothing although the map has land there: refused, or filled by a named choice.

Files, arrays in memory, training data and rollouts go through the same rule. What is left out over the sea is no gap:
fractions of LUH2 end at the coast, and a coarse cell that is mostly sea may have no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid, Window

#: What may stand for a value that a scenario has not: that of the nearest coarse cell that has all.
Fill = Literal["nearest"]

#: Share of a coarse cell above which it counts as land, where a forcing has to have a value.
LAND: Final = 0.5


def require_fill(fill: str | None, option: str) -> None:
    """Raise an :class:`InputError` where ``fill`` is none of the choices."""
    if fill is not None and fill not in get_args(Fill):
        raise InputError(f"{option} is {fill!r}, expected {' or '.join(get_args(Fill))}")


def land_share(
    coarse: Grid, fine: Grid, windows: Iterable[Window], land: Callable[[Window], NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Share of each coarse cell's fine cells that are land; 0 where it has none.

    Parameters
    ----------
    coarse, fine : Grid
        In any ratio.
    windows : iterable of Window
        Parts of the fine grid, each cell in one of them.
    land : callable
        Whether the fine cells (rows, columns) of a window have a class that the forcing knows.

    Returns
    -------
    ndarray of shape (h, w)
        0 to 1.
    """
    height, width = coarse.rows, coarse.columns
    count, whole = np.zeros((height, width)), np.zeros((height, width))
    for window in windows:
        rows, columns = cells_of(coarse, fine, window)
        inside = np.ix_(rows >= 0, columns >= 0)
        cells = (rows[rows >= 0, None] * width + columns[columns >= 0]).ravel()
        count += np.bincount(cells, land(window)[inside].ravel(), height * width).reshape(height, width)
        whole += np.bincount(cells, minlength=height * width).reshape(height, width)
    return count / np.maximum(whole, 1)


@dataclass(frozen=True)
class Gaps:
    """Coarse cells of one year with land and without a value."""

    filled: int = 0
    """Those that were given the fractions of the nearest coarse cell."""
    left: int = 0
    """Those with less land than :data:`LAND` that have no value at all: fractions of 0, which ask for nothing."""

    def note(self, source: str) -> list[str]:
        """What provenance says of it."""
        notes = []
        if self.filled:
            notes.append(
                f"{source}: {self.filled} coarse cells with land have no value: filled from the nearest that has one"
            )
        if self.left:
            notes.append(
                f"{source}: {self.left} coarse cells with a little land (up to {LAND:.0%} of the cell) have no value: "
                "taken as 0, which asks for no class there"
            )
        return notes


def close_gaps(
    values: NDArray[np.float32],
    share: NDArray[np.floating],
    channels: Sequence[str],
    year: int,
    grid: Grid,
    source: str,
    fill: Fill | None = None,
    remedy: str = "--fill-scenario nearest takes the nearest coarse cell that has one",
) -> Gaps:
    """Put a value wherever there is none, in place, or refuse.

    Parameters
    ----------
    values : ndarray of shape (C, h, w)
        Fractions, NaN where there is none; has none after this.
    share : ndarray of shape (h, w)
        Of :func:`land_share`.
    channels : sequence of str
        Of the C channels.
    year : int
        For errors.
    grid : Grid
        Of the fractions.
    source : str
        File, for errors.
    fill : {"nearest"}, optional
        What stands for a value that is not there; refused where absent.
    remedy : str
        Of the error.

    Raises
    ------
    DataError
        If a coarse cell with land lacks a value: all of them where it is land by more than half, some of them where it
        has any land. Or if there is no coarse cell to fill from.
    """
    void = np.isnan(values)
    nothing, some = void.all(axis=0), void.any(axis=0)
    missing = np.where(nothing, share > LAND, some & (share > 0))
    filled = 0
    if fill is not None:
        missing = some & (share > 0)
        filled = int(missing.sum())
        if filled:
            _from_nearest(values, missing, ~some, grid, source, year)
    elif missing.any():
        i, j = (int(k) for k in np.argwhere(missing)[0])
        empty = [channel for channel, lacks in zip(channels, void[:, i, j], strict=True) if lacks]
        raise DataError(
            f"{source} has no value (NaN) for {', '.join(empty)} in {year} at {grid.latitudes()[i]:g} N, "
            f"{grid.longitudes()[j]:g} E and {int(missing.sum()) - 1} more coarse cells with land; {remedy}, or take "
            "the land out of the map"
        )
    left = int((nothing & (share > 0) & ~missing).sum())
    values[np.isnan(values)] = 0
    return Gaps(filled, left)


def _from_nearest(
    values: NDArray[np.float32],
    missing: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    grid: Grid,
    source: str,
    year: int,
) -> None:
    """Give cells all fractions of the whole cell that is nearest on the sphere."""
    if not whole.any():
        raise DataError(f"{source} has no coarse cell with all fractions in {year}: nothing to fill from")
    tree = geo_module("scipy.spatial").cKDTree(_on_sphere(grid, whole))
    nearest = tree.query(_on_sphere(grid, missing))[1]
    values[:, missing] = values[:, whole][:, nearest]


def _on_sphere(grid: Grid, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit vectors (n, 3) to the centres of cells."""
    i, j = np.nonzero(chosen)
    latitude, longitude = np.deg2rad(grid.latitudes()[i]), np.deg2rad(grid.longitudes()[j])
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )

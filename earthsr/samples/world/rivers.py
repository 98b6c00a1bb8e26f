"""Where water flows: hollows are filled, every cell drains to its steepest neighbour, and drained areas add up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Least fall from cell to cell over filled hollows, m: enough to have a direction, too little to be seen.
_FALL_M = 5e-4
#: Higher than what falls add up to on any way over any map, m.
_WALL_M = 1e9

_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)


def fill_hollows(elevation_m: NDArray[np.float64], outlet: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Lowest surface above the terrain from which all water reaches an outlet.

    Parameters
    ----------
    elevation_m : ndarray of shape (H, W)
        Metres.
    outlet : ndarray of shape (H, W)
        The sea. The edges of the map are outlets too.

    Returns
    -------
    ndarray of shape (H, W)
        Metres. Every other cell has a lower neighbour.
    """
    end = outlet.copy()
    end[[0, -1]] = True
    end[:, [0, -1]] = True
    surface = np.where(end, elevation_m, np.inf)
    # Uneven falls let rivers wind through plains; the same plain always in the same way.
    fall = _FALL_M * (1.0 + 5.0 * np.random.default_rng(0).random(elevation_m.shape))
    ground_t, fall_t = np.ascontiguousarray(elevation_m.T), np.ascontiguousarray(fall.T)
    while True:
        before = surface.copy()
        _sweep(surface, elevation_m, fall)
        across = np.ascontiguousarray(surface.T)
        _sweep(across, ground_t, fall_t)
        surface = np.ascontiguousarray(across.T)
        if np.array_equal(surface, before):
            return surface


def _sweep(surface: NDArray[np.float64], ground: NDArray[np.float64], fall: NDArray[np.float64]) -> None:
    """Carry lower water levels down all rows and up again, in place."""
    rows = len(surface)
    for i, step in [*((i, -1) for i in range(1, rows)), *((i, 1) for i in range(rows - 2, -1, -1))]:
        near = surface[i + step]
        lowest = near.copy()
        np.minimum(lowest[1:], near[:-1], out=lowest[1:])
        np.minimum(lowest[:-1], near[1:], out=lowest[:-1])
        lowest += fall[i]
        np.maximum(lowest, ground[i], out=lowest)
        np.minimum(surface[i], lowest, out=surface[i])


def open_sea(low: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the low cells (H, W) that low cells connect with an edge of the map; the others are lakes."""
    edge = np.zeros_like(low)
    edge[[0, -1]] = low[[0, -1]]
    edge[:, [0, -1]] = low[:, [0, -1]]
    # Land as a wall that no water passes: what is dry behind it stays as high as the wall.
    surface = fill_hollows(np.where(low, 0.0, _WALL_M), edge)
    return low & (surface < _WALL_M / 2)


def receivers(surface_m: NDArray[np.float64], outlet: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat index of the neighbour to which each cell drains: the steepest way down; outlets drain to themselves.

    Parameters
    ----------
    surface_m, outlet : ndarray of shape (H, W)
        Of :func:`fill_hollows`.

    Returns
    -------
    ndarray of shape (H * W,)
    """
    rows, columns = surface_m.shape
    padded = np.pad(surface_m, 1, constant_values=np.inf)
    own = np.arange(rows * columns).reshape(rows, columns)
    steepest = np.zeros((rows, columns))
    found = own.copy()
    for i, j in _NEIGHBOURS:
        fall = (surface_m - padded[1 + i : 1 + i + rows, 1 + j : 1 + j + columns]) / np.hypot(i, j)
        better = fall > steepest
        steepest[better] = fall[better]
        found[better] = own[better] + i * columns + j
    found[outlet] = own[outlet]
    return found.ravel()


def drained_cells(surface_m: NDArray[np.float64], receiver: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cells that drain through each cell, itself included, (H, W)."""
    order = np.argsort(-surface_m, axis=None, kind="stable")
    down = receiver[order]
    # Plain lists: one pass from the top, where each cell's own sum is complete when it is handed on.
    total = [1.0] * surface_m.size
    for cell, below in zip(order.tolist(), down.tolist(), strict=True):
        if below != cell:
            total[below] += total[cell]
    return np.array(total).reshape(surface_m.shape)


def erode(
    surface_m: NDArray[np.float64], receiver: NDArray[np.int64], drained: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """Cut rivers into a surface: the more water and the steeper, the deeper, and never below the next cell downstream.

    One implicit step of the stream-power law dz/dt = -k sqrt(A) dz/dx, from the mouths upwards, stable at any strength.

    Parameters
    ----------
    surface_m, receiver, drained : ndarray
        Of :func:`fill_hollows`, :func:`receivers` and :func:`drained_cells`.
    strength : float
        k times the step, per cell: 0.01 is little, 0.1 wears mountains down.

    Returns
    -------
    ndarray of shape (H, W)
        Metres.
    """
    order = np.argsort(surface_m, axis=None, kind="stable")
    pull = strength * np.sqrt(drained)
    height = surface_m.ravel().tolist()
    for cell, below, own in zip(order.tolist(), receiver[order].tolist(), pull.flat[order].tolist(), strict=True):
        height[cell] = (height[cell] + own * height[below]) / (1.0 + own)
    return np.array(height).reshape(surface_m.shape)

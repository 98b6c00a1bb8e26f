"""Terrain by spectral synthesis: coasts, mountains, valleys, rivers and lakes, slope, soil, distances to water."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.samples.world.fields import EARTH_RADIUS_KM, box_mean, distance_km, generator, smooth_step, spectral_field

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
    filled = own.copy()
    for i, j in _NEIGHBOURS:
        fall = (surface_m - padded[1 + i : 1 + i + rows, 1 + j : 1 + j + columns]) / np.hypot(i, j)
        better = fall > steepest
        steepest[better] = fall[better]
        filled[better] = own[better] + i * columns + j
    filled[outlet] = own[outlet]
    return filled.ravel()


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


#: Shares of all cells that are low enough for the sea and, where the sea does not reach, for lakes; and shares of land
#: cells that are rivers and, at most, lakes in filled hollows.
_SEA_SHARE, _BASIN_SHARE, _RIVER_SHARE, _LAKE_SHARE = 0.22, 0.09, 0.014, 0.01
#: Distance from the sea over which land rises out of its reach, km.
_RISE_KM = 50.0
#: A filled hollow is a lake where it is deeper than this, m.
_LAKE_DEPTH_M = 12.0
#: Height of plains one standard deviation of the continents' field above the sea, and of the highest ridges, m.
_PLAINS_M, _RIDGES_M = 260.0, 2100.0
#: Rounds of erosion, the strength of each, and how much of a slope creeps.
_AGES, _EROSION, _CREEP = 6, 0.035, 0.12


@dataclass(frozen=True)
class Terrain:
    """Fixed fields (H, W) of the synthetic world."""

    elevation_m: NDArray[np.float32]
    """Above the sea, whose cells have 0."""
    slope_deg: NDArray[np.float32]
    soil: NDArray[np.float32]
    """Index of how good the soil is, 0 to 1: deep and moist in valleys, thin on slopes, patchy everywhere."""
    sea: NDArray[np.bool_]
    inland_water: NDArray[np.bool_]
    """Rivers and lakes."""
    to_water_km: NDArray[np.float32]
    """Distance to the sea, a river or a lake."""
    to_sea_km: NDArray[np.float32]
    """Distance to the sea alone."""

    @property
    def dry_land(self) -> NDArray[np.bool_]:
        """Cells that are neither sea nor river nor lake."""
        return ~self.sea & ~self.inland_water


def make_terrain(grid: Grid, seed: int) -> Terrain:
    """Make the terrain of a grid.

    Parameters
    ----------
    grid : Grid
        Cells of one size in latitude and longitude.
    seed : int
        Of the world.
    """
    cell = grid.cell_y
    carved, sea, basins = _relief(grid, seed)
    low = sea | basins
    for _ in range(_AGES):
        surface = fill_hollows(carved, low)
        receiver = receivers(surface, low)
        worn = erode(surface, receiver, drained_cells(surface, receiver), _EROSION)
        # Slopes creep: a little smoothing keeps valleys from being one cell wide.
        carved = np.where(low, 0.0, np.maximum((1.0 - _CREEP) * worn + _CREEP * box_mean(worn, 1), 1.0))
    elevation = fill_hollows(carved, low)
    drained = drained_cells(elevation, receivers(elevation, low))
    water = _rivers(drained, low) | _lakes(elevation - carved, low) | basins
    latitudes = grid.latitudes()
    slope = _slope(np.where(low, 0.0, elevation), cell, latitudes)
    to_water = distance_km(sea | water, cell, latitudes)
    to_sea = distance_km(sea, cell, latitudes)
    texture = spectral_field(generator(seed, "soil"), (grid.rows, grid.columns), cell, 0.25, 1.2)
    soil = 0.6 + 0.15 * np.exp(-to_water / 4.0) - 0.03 * slope - elevation / 8000.0 + 0.15 * texture
    return Terrain(
        elevation_m=np.where(low, 0.0, elevation).astype(np.float32),
        slope_deg=np.where(sea, 0.0, slope).astype(np.float32),
        soil=np.where(sea, 0.0, np.clip(soil, 0.0, 1.0)).astype(np.float32),
        sea=sea,
        inland_water=water,
        to_water_km=to_water.astype(np.float32),
        to_sea_km=to_sea.astype(np.float32),
    )


def _relief(grid: Grid, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Elevation (m) before rivers, the sea, and basins that are lakes."""
    shape, cell = (grid.rows, grid.columns), grid.cell_y
    continents = spectral_field(generator(seed, "continents"), shape, cell, 2.0, 2.1)
    level, basin_level = np.quantile(continents, [_SEA_SHARE, _BASIN_SHARE])
    sea = open_sea(continents <= level)
    away = np.minimum(distance_km(sea, cell, grid.latitudes()), _RISE_KM)
    height = continents - level + (level - basin_level) * smooth_step(away, 0.0, _RISE_KM)
    ranges = spectral_field(generator(seed, "ranges"), shape, cell, 1.8, 3.0)
    # A ridge is where a field changes its sign: lines, not blobs.
    ridges = 1.0 - np.abs(spectral_field(generator(seed, "ridges"), shape, cell, 0.8, 2.0)) / 1.6
    hills = spectral_field(generator(seed, "hills"), shape, cell, 0.6, 1.5)
    mountains = smooth_step(ranges, 0.2, 2.4) * smooth_step(height, 0.1, 1.2)
    inland = smooth_step(height, 0.0, 0.8)
    elevation = (
        _PLAINS_M * np.maximum(height, 0.0) ** 1.2
        + _RIDGES_M * mountains * (0.7 + 0.3 * ridges)
        + (75.0 + 260.0 * mountains) * inland * hills
    )
    return np.maximum(elevation, 1.0), sea, (height <= 0) & ~sea


def _rivers(drained: NDArray[np.float64], sea: NDArray[np.bool_]) -> NDArray[np.bool_]:
    enough = np.quantile(drained[~sea], 1.0 - _RIVER_SHARE)
    return (drained > enough) & ~sea


def _lakes(depth_m: NDArray[np.float64], sea: NDArray[np.bool_]) -> NDArray[np.bool_]:
    enough = max(_LAKE_DEPTH_M, float(np.quantile(depth_m[~sea], 1.0 - _LAKE_SHARE)))
    deep = (depth_m > enough) & ~sea
    # Single cells are puddles.
    return deep & (box_mean(deep, 1) > 3 / 9)


def _slope(elevation_m: NDArray[np.float64], cell_deg: float, latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    height_m = np.deg2rad(cell_deg) * EARTH_RADIUS_KM * 1000.0
    down, right = np.gradient(elevation_m, height_m)
    return np.rad2deg(np.arctan(np.hypot(down, right / np.cos(np.deg2rad(latitudes))[:, None])))

"""What would grow by itself, what land is good for, and where the first towns are."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.samples.world.climate import Climate
from earthsr.samples.world.fields import EARTH_RADIUS_KM, distance_km, generator, spectral_field
from earthsr.samples.world.terrain import Terrain

URBAN: Final = HILDA_PLUS.names.index("urban")
CROPLAND: Final = HILDA_PLUS.names.index("cropland")
PASTURE: Final = HILDA_PLUS.names.index("pasture")
FOREST: Final = HILDA_PLUS.names.index("forest")
GRASS: Final = HILDA_PLUS.names.index("grass/shrub")
SPARSE: Final = HILDA_PLUS.names.index("sparse")
WATER: Final = HILDA_PLUS.names.index("water")

#: Land cells per town.
_CELLS_PER_TOWN = 1500
#: Least distance between towns, km.
_BETWEEN_TOWNS_KM = 22.0


def natural_classes(terrain: Terrain, climate: Climate) -> NDArray[np.uint8]:
    """Classes (H, W) without people; the sea is nodata."""
    slope, soil = terrain.slope_deg, terrain.soil
    # Trees want water and warmth; where these are scarce, the soil decides.
    trees = climate.moisture - 0.98 + 0.8 * (soil - 0.5) + 0.02 * np.minimum(slope, 6.0)
    trees = np.minimum(trees, 0.16 * (climate.temperature_degc - 1.0) + 0.7 * (soil - 0.3))
    bare = np.maximum(0.35 * (-0.3 - climate.temperature_degc), 3.0 * (0.22 - climate.moisture))
    bare = bare + 0.05 * (slope - 6.0) - 0.9 * (soil - 0.25)
    found = np.where(bare > 0, SPARSE, np.where(trees > 0, FOREST, GRASS)).astype(np.uint8)
    found[terrain.inland_water] = WATER
    found[terrain.sea] = NODATA
    return found


def suitabilities(
    terrain: Terrain, climate: Climate, towns: NDArray[np.bool_], grid: Grid
) -> dict[str, NDArray[np.float32]]:
    """How good land is for each use, (H, W), of zero mean and unit variance over dry land."""
    slope, soil = np.minimum(terrain.slope_deg, 8.0), terrain.soil
    warmth = np.exp(-np.square((climate.temperature_degc - 14.0) / 7.0))
    wet = np.clip(climate.moisture, 0.2, 1.1)
    market = np.exp(-distance_km(towns, grid.cell_y, grid.latitudes()) / 16.0).astype(np.float32)
    shore = np.exp(-terrain.to_water_km / 6.0)
    crop = 2.4 * soil + warmth + 0.4 * wet - 0.15 * slope + 0.6 * market + 0.2 * shore
    pasture = 1.2 * soil + 0.6 * warmth + 0.6 * wet - 0.06 * slope + 0.3 * market
    urban = 0.9 * soil + 0.5 * warmth - 0.25 * slope + 1.5 * market + 0.4 * shore
    land = terrain.dry_land
    return {
        use: ((field - field[land].mean()) / max(float(field[land].std()), 1e-6)).astype(np.float32)
        for use, field in (("urban", urban), ("cropland", crop), ("pasture", pasture))
    }


def first_towns(terrain: Terrain, climate: Climate, grid: Grid, share: float, seed: int) -> NDArray[np.bool_]:
    """Cells (H, W) of the towns of the first year: on flat land near water, few of them large.

    Parameters
    ----------
    terrain, climate : Terrain, Climate
        (H, W).
    grid : Grid
        Of both.
    share : float
        Of land that is to be urban.
    seed : int
        Of the world.
    """
    rng = generator(seed, "towns")
    land = terrain.dry_land
    count = max(1, round(land.sum() / _CELLS_PER_TOWN))
    appeal = (
        1.2 * terrain.soil
        - 0.3 * terrain.slope_deg
        + 0.9 * np.exp(-terrain.to_water_km / 5.0)
        + 0.6 * np.exp(-terrain.to_sea_km / 8.0)
        + np.exp(-np.square((climate.temperature_degc - 13.0) / 6.0))
        + 0.35 * rng.gumbel(size=land.shape)
    )
    appeal[~land] = -np.inf
    reach = max(1, round(_BETWEEN_TOWNS_KM / (np.deg2rad(grid.cell_y) * EARTH_RADIUS_KM)))
    free = land.copy()
    centres: list[tuple[int, int]] = []
    for cell in np.argsort(-appeal, axis=None, kind="stable").tolist():
        row, column = divmod(cell, grid.columns)
        if len(centres) == count or not land[row, column]:
            break
        if free[row, column]:
            centres.append((row, column))
            free[max(row - reach + 1, 0) : row + reach, max(column - reach + 1, 0) : column + reach] = False
    # Sizes by Zipf's law: the second town is half as large as the first.
    sizes = 1.0 / np.arange(1, len(centres) + 1) ** 0.8
    sizes *= share * land.sum() / sizes.sum()
    ragged = np.exp(
        0.25 * spectral_field(generator(seed, "suburbs"), (grid.rows, grid.columns), grid.cell_y, 0.15, 1.0)
    )
    towns = np.zeros(land.shape, bool)
    order = rng.permutation(len(centres))
    for size, at in zip(sizes, order, strict=True):
        _build(towns, centres[at], float(size), ragged * (1 + 0.1 * terrain.slope_deg), land)
    return towns


def _build(
    towns: NDArray[np.bool_], centre: tuple[int, int], size: float, cost: NDArray[np.float64], land: NDArray[np.bool_]
) -> None:
    """Add the cells of one town: those around its centre that are nearest, as a ragged map has distances."""
    row, column = centre
    # Coasts and the edges of the map may leave a quarter of the square to build on.
    reach = 2 * int(np.sqrt(size)) + 2
    top, left = max(row - reach, 0), max(column - reach, 0)
    part = (slice(top, row + reach + 1), slice(left, column + reach + 1))
    rows, columns = np.indices(land[part].shape)
    far = np.hypot(rows + top - row, columns + left - column) * cost[part]
    far[~land[part]] = np.inf
    nearest = np.argsort(far, axis=None, kind="stable")[: max(1, round(size))]
    towns[part].flat[nearest[np.isfinite(far.flat[nearest])]] = True

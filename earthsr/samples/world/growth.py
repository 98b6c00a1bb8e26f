"""Land use that grows over years: cropland, pasture and towns take the best land beside them and give up the worst.

The rule of a year, for each use: its worst cells go back to what grows by itself, and the best cells at its edges are
taken until there is as much of it as is wanted. How good a cell is adds up from suitability, the share of the use in
its neighbourhood, and the pressure of its region; a little noise is all that a reader of the map cannot know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.samples.world.climate import Climate
from earthsr.samples.world.fields import EARTH_RADIUS_KM, box_mean, distance_km, generator, spectral_field
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
    classes = np.where(bare > 0, SPARSE, np.where(trees > 0, FOREST, GRASS)).astype(np.uint8)
    classes[terrain.inland_water] = WATER
    classes[terrain.sea] = NODATA
    return classes


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


#: Share of land of each use: before and after the great expansion, the year of its middle, and years it takes (1 e-fold
#: of the logistic curve). The curves follow the calendar, so that any span of years makes sense.
_CURVES = {
    "urban": (0.006, 0.036, 1990.0, 28.0),
    "cropland": (0.12, 0.34, 1960.0, 45.0),
    "pasture": (0.10, 0.24, 1980.0, 40.0),
}
#: Share of land that is given up each year while as much is taken elsewhere, in the mean over time.
_TURNOVER = {"cropland": 0.0023, "pasture": 0.0023}
#: Years in which a region goes from boom to bust and back.
_CYCLE_YEARS = 52.0
#: Wavelength of regions, degrees.
_REGIONS_DEG = 1.6


def wanted_share(use: str, year: int) -> float:
    """Share of land that a use has in a year."""
    low, high, middle, width = _CURVES[use]
    return low + (high - low) / (1.0 + math.exp(-(year - middle) / width))


def turnover_share(use: str, year: int) -> float:
    """Share of land that a use gives up in a year."""
    return _TURNOVER[use] * (1.0 + 0.4 * math.sin(2 * math.pi * year / 23.0))


class RegionalPressure:
    """A smooth field per use that drifts slowly: where demand is above (positive) or below that of the whole land."""

    def __init__(self, use: str, grid: Grid, seed: int) -> None:
        shape, cell = (grid.rows, grid.columns), grid.cell_y
        self._parts = tuple(
            spectral_field(generator(seed, f"{use} {part}"), shape, cell, _REGIONS_DEG, 3.5).astype(np.float32)
            for part in ("now", "later")
        )

    def at(self, year: int) -> NDArray[np.float32]:
        """(H, W), of zero mean and a variance of about 1."""
        phase = 2 * math.pi * year / _CYCLE_YEARS
        return np.float32(math.cos(phase)) * self._parts[0] + np.float32(math.sin(phase)) * self._parts[1]


_NATURE: Final = (FOREST, GRASS, SPARSE)
_USES: Final = {"urban": URBAN, "cropland": CROPLAND, "pasture": PASTURE}
#: What a use may be made of. Nobody gives up cropland for pasture; towns take all.
_TAKEN_FROM: Final = {
    "urban": (CROPLAND, PASTURE, *_NATURE),
    "cropland": (PASTURE, *_NATURE),
    "pasture": _NATURE,
}
#: Weights of neighbourhood, regional pressure and noise against a suitability of unit variance.
_NEIGHBOURS: Final = {"urban": 2.5, "cropland": 1.6, "pasture": 1.6}
_PRESSURE: Final = {"urban": 0.3, "cropland": 0.5, "pasture": 0.6}
_NOISE: Final = 0.05
#: Years for which a cell that has changed stays as it is: people do not clear and leave and clear again.
_REST_YEARS: Final = 6
#: Share of what is taken that is cleared away from the edges.
_CLEARINGS: Final = 0.03
#: Passes that give the first year's fields their shape.
_PASSES: Final = 6


def grow(terrain: Terrain, climate: Climate, grid: Grid, years: Sequence[int], seed: int) -> NDArray[np.uint8]:
    """Classes of all years.

    Parameters
    ----------
    terrain, climate : Terrain, Climate
        (H, W).
    grid : Grid
        Of both.
    years : sequence of int
        One after another.
    seed : int
        Of the world.

    Returns
    -------
    ndarray of shape (Y, H, W)
        Indices of the table of HILDA+; 255 in the sea.
    """
    land = _Land(terrain, climate, grid, years[0], seed)
    maps = np.empty((len(years), grid.rows, grid.columns), np.uint8)
    maps[0] = land.classes
    for i, year in enumerate(years[1:], 1):
        land.step(year)
        maps[i] = land.classes
    return maps


class _Land:
    """The map of one year, and what it takes to make the next one."""

    def __init__(self, terrain: Terrain, climate: Climate, grid: Grid, year: int, seed: int) -> None:
        self.nature = natural_classes(terrain, climate)
        self.cells = int(terrain.dry_land.sum())
        self.rng = generator(seed, "years")
        self.pressure = {use: RegionalPressure(use, grid, seed) for use in _USES}
        towns = first_towns(terrain, climate, grid, wanted_share("urban", year), seed)
        self.suitability = suitabilities(terrain, climate, towns, grid)
        self.classes = self.nature.copy()
        self.classes[towns] = URBAN
        self.rested = np.full(self.classes.shape, _REST_YEARS, np.int16)
        self._settle(year)

    def _settle(self, year: int) -> None:
        """Lay out cropland and pasture of the first year, in passes that let neighbours join."""
        free = np.isin(self.nature, _NATURE) & (self.classes != URBAN)
        for _ in range(_PASSES):
            scores = {use: self._score(use, year, noise=0.0) for use in ("cropland", "pasture")}
            self.classes[free] = self.nature[free]
            for use, score in scores.items():
                open_land = np.isin(self.classes, _NATURE)
                self.classes.flat[_best(score, open_land, self._wanted(use, year))] = _USES[use]

    def step(self, year: int) -> None:
        """Go to the next year."""
        self.rested += 1
        self._take("urban", year)
        for use in ("cropland", "pasture"):
            self._give_up(use, year)
        for use in ("cropland", "pasture"):
            self._take(use, year)

    def _wanted(self, use: str, year: int) -> int:
        return round(wanted_share(use, year) * self.cells)

    def _score(self, use: str, year: int, noise: float = _NOISE) -> NDArray[np.float32]:
        # Twice three by three: near neighbours count for more, and fronts are round.
        share = box_mean(box_mean(self.classes == _USES[use], 1), 1)
        score = self.suitability[use] + _NEIGHBOURS[use] * share + _PRESSURE[use] * self.pressure[use].at(year)
        if noise:
            score += noise * self.rng.standard_normal(score.shape, np.float32)
        return score

    def _give_up(self, use: str, year: int) -> None:
        settled = (self.classes == _USES[use]) & (self.rested >= _REST_YEARS)
        cells = _best(-self._score(use, year), settled, round(turnover_share(use, year) * self.cells))
        self.classes.flat[cells] = self.nature.flat[cells]
        self.rested.flat[cells] = 0

    def _take(self, use: str, year: int) -> None:
        count = max(0, self._wanted(use, year) - int((self.classes == _USES[use]).sum()))
        clearings = 0 if use == "urban" else round(_CLEARINGS * count)
        score = self._score(use, year)
        open_land = np.isin(self.classes, _TAKEN_FROM[use])
        if use != "urban":
            open_land &= self.rested >= _REST_YEARS
        edge = box_mean(self.classes == _USES[use], 1) > 0
        cells = np.concatenate(
            [_best(score, open_land & edge, count - clearings), _best(score, open_land & ~edge, clearings)]
        )
        self.classes.flat[cells] = _USES[use]
        self.rested.flat[cells] = 0


def _best(score: NDArray[np.float32], candidates: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Flat indices of the candidates of highest score; fewer than ``count`` where there are no more."""
    cells = np.flatnonzero(candidates)
    if count >= len(cells):
        return cells
    if count <= 0:
        return cells[:0]
    return cells[np.argpartition(-score.flat[cells], count)[:count]]

"""Land use that grows over years: cropland, pasture and towns take the best land beside them and give up the worst.

The rule of a year, for each use: its worst cells go back to what grows by itself, and the best cells at its edges are
taken until there is as much of it as is wanted. How good a cell is adds up from suitability, the share of the use in
its neighbourhood, and the pressure of its region; a little noise is all that a reader of the map cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.samples.world.climate import Climate
from earthsr.samples.world.demand import RegionalPressure, turnover_share, wanted_share
from earthsr.samples.world.fields import box_mean, generator
from earthsr.samples.world.suitability import (
    CROPLAND,
    FOREST,
    GRASS,
    PASTURE,
    SPARSE,
    URBAN,
    first_towns,
    natural_classes,
    suitabilities,
)
from earthsr.samples.world.terrain import Terrain

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
        here = (self.classes == _USES[use]) & (self.rested >= _REST_YEARS)
        cells = _best(-self._score(use, year), here, round(turnover_share(use, year) * self.cells))
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

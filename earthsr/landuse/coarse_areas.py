"""Areas of classes by coarse cell: of the maps that a page shows, and of the scenario that they should follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.maps import View
from earthsr.evaluation.page.layers import Curves
from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.classes import NODATA
from earthsr.landuse.plot import DrawnClasses, row_km2
from earthsr.landuse.sources.scenario import Scenario

#: Coarse cells of scenarios, degrees.
_COARSE_DEG: Final = 0.25
#: Cells that are drawn along a side of a coarse cell, at least: its areas are counted from these.
_LEAST_SIDE: Final = 4
#: Coarse cells along the map's long side where its CRS has no degrees.
_SIDES: Final = 40
#: Numbers that curves may have in all: coarse cells are put together until they have.
_MOST_SHARES: Final = 15_000_000


class Tally:
    """Areas of classes by coarse cell, counted from the cells that are drawn.

    Parameters
    ----------
    view : View
        What is drawn of the raster.
    years : tuple of int or None
        Of the frames.
    k : int
        Classes.
    coarse : Grid, optional
        Cells of the scenario; of a quarter of a degree where absent. So many are put together that each has some cells
        of the map, and the page stays small.
    """

    def __init__(self, view: View, years: tuple[int | None, ...], k: int, coarse: Grid | None) -> None:
        self.view, self.years, self.k = view, years, k
        grid = view.grid
        if coarse is not None:
            base = coarse
        elif grid.geographic:
            base = grid.coarse(_COARSE_DEG)
        else:
            side = max(grid.rows, grid.columns) / _SIDES * grid.cell_x
            rows, columns = (max(1, math.ceil(n * grid.cell_x / side)) for n in (grid.rows, grid.columns))
            base = replace(grid, cell_x=side, cell_y=side, rows=rows, columns=columns)
        least = math.ceil(_LEAST_SIDE * max(grid.cell_x, grid.cell_y) / base.cell_x - 1e-6)
        series = k * (1 if coarse is None else 2)
        many = math.ceil(math.sqrt(base.rows * base.columns * len(years) * series / _MOST_SHARES))
        self.times = max(1, least, many)
        self.base = base
        self.grid = _blocks(base, self.times)
        window = Window(0, 0, grid.rows, grid.columns)
        i, j = cells_of(self.grid, grid, window)
        place = i[:, None] * self.grid.columns + j
        # Cells of the map that no coarse cell has go to one beyond the last.
        self._place = np.where((i[:, None] >= 0) & (j >= 0), place, self.grid.rows * self.grid.columns)
        self._km2 = np.broadcast_to(row_km2(grid, 0, grid.rows)[:, None], place.shape)
        cells = self.grid.rows * self.grid.columns
        covered = np.bincount(self._place.ravel(), self._km2.ravel(), cells + 1)
        self.covered = covered[:cells].reshape(self.grid.rows, self.grid.columns)
        self.areas = np.repeat(row_km2(self.grid, 0, self.grid.rows)[:, None], self.grid.columns, axis=1)
        self.shares = np.full((len(years), k, self.grid.rows, self.grid.columns), np.nan, np.float32)
        self.totals = np.zeros((len(years), k))

    def add(self, number: int, values: NDArray[np.uint8]) -> None:
        """Count the map of a frame, class indices with 255 for none."""
        known = values != NODATA
        cells = self.grid.rows * self.grid.columns
        place = self._place[known] * self.k + values[known]
        sums = np.bincount(place, self._km2[known], (cells + 1) * self.k)
        self.totals[number] = sums.reshape(cells + 1, self.k).sum(axis=0)
        areas = sums[: cells * self.k].reshape(self.grid.rows, self.grid.columns, self.k)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = areas / self.covered[..., None]
        self.shares[number] = shares.transpose(2, 0, 1)

    def scenario(self, scenario: Scenario, names: Sequence[str]) -> NDArray[np.float32]:
        """Shares of a scenario in the same coarse cells, (Y, K, h, w), NaN where it says nothing."""
        result = np.full_like(self.shares, np.nan)
        weights = row_areas(self.base)
        for number, year in enumerate(self.years):
            if year not in scenario.years:
                continue
            fractions = dict(zip(scenario.channels, scenario.fractions(year), strict=True))
            for k, name in enumerate(names):
                tied = scenario.of_class.get(name)
                if tied:
                    whole = np.sum([fractions[channel] for channel in tied], axis=0, dtype=np.float64)
                    result[number, k] = _means(whole, weights, self.times)
        result[:, :, self.covered <= 0] = np.nan
        return result

    def curves(self, classes: DrawnClasses, scenario: NDArray[np.float32] | None) -> Curves:
        """Return the shares, and the areas of the whole map."""
        whole: dict[str, list[list[float | None]]] = {
            "map": [[round(float(value), 1) for value in line] for line in self.totals.T]
        }
        if scenario is not None:
            km2 = np.nansum(scenario * self.covered, axis=(2, 3), dtype=np.float64)
            lines = np.where(np.isfinite(scenario).any(axis=(2, 3)), km2, np.nan).T
            whole["scenario"] = [[None if np.isnan(v) else round(float(v), 1) for v in line] for line in lines]
        return Curves(classes.names, classes.colours, self.grid, self.shares, scenario, self.areas, whole)


def _blocks(grid: Grid, times: int) -> Grid:
    """The grid of blocks of cells, the last ones cut where they do not fit."""
    if times == 1:
        return grid
    rows, columns = -(-grid.rows // times), -(-grid.columns // times)
    return replace(grid, cell_x=grid.cell_x * times, cell_y=grid.cell_y * times, rows=rows, columns=columns)


def _means(values: NDArray[np.float64], weights: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Means of blocks of cells by their areas; beyond the last cell there is none."""
    if times == 1:
        return values
    rows, columns = (-(-side // times) * times for side in values.shape)
    padded = np.zeros((rows, columns))
    padded[: values.shape[0], : values.shape[1]] = values * weights[:, None]
    weight = np.zeros((rows, columns))
    weight[: values.shape[0], : values.shape[1]] = weights[:, None]
    shape = rows // times, times, columns // times, times
    return padded.reshape(shape).sum(axis=(1, 3)) / weight.reshape(shape).sum(axis=(1, 3))

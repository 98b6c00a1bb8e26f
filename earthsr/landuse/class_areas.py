"""Areas of classes in coarse cells, added up tile by tile, and their agreement with the fractions of a forcing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import class_areas, overlaps
from earthsr.geo.grid import Grid

#: Mean radius of the Earth, (2a + b) / 3 of GRS 80 (Moritz, 2000).
EARTH_RADIUS_KM: Final = 6371.0088

#: km2 in a unit of :func:`earthsr.geo.areas.overlaps`: difference of sines of latitude times degrees of longitude.
KM2_PER_UNIT: Final = EARTH_RADIUS_KM**2 * math.pi / 180


def row_areas(grid: Grid, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
    """Area on the sphere of one cell of each row of a grid, or of some rows, (count,), km2."""
    sines = np.sin(np.deg2rad(np.clip(grid.latitude_edges(start, count), -90, 90)))
    return -np.diff(sines) * grid.cell_x * KM2_PER_UNIT


def cell_areas(grid: Grid) -> NDArray[np.float64]:
    """Areas of the cells of a grid on the sphere, (rows, columns), km2."""
    return np.repeat(row_areas(grid)[:, None], grid.columns, axis=1)


@dataclass(eq=False)
class AreaStatistics:
    """Areas of K classes in Y years by coarse cell; ``a + b`` merges what different tiles gave.

    Tiles must not overlap: an area that is counted twice is an error that :meth:`agreement` notices.
    """

    coarse: Grid
    areas: NDArray[np.float64]
    """(Y, K, h, w), km2."""
    covered: NDArray[np.float64]
    """(h, w), km2 of the coarse cell that tiles cover, cells without a class included."""

    @classmethod
    def empty(cls, coarse: Grid, years: int, k: int) -> AreaStatistics:
        """Return areas of no tile, for ``years`` years and ``k`` classes."""
        shape = (coarse.rows, coarse.columns)
        return cls(coarse, np.zeros((years, k, *shape)), np.zeros(shape))

    def __add__(self, other: AreaStatistics) -> AreaStatistics:
        if self.coarse != other.coarse or self.areas.shape != other.areas.shape:
            raise ValueError(
                f"areas of shape {self.areas.shape} on {self.coarse} cannot merge with those of shape "
                f"{other.areas.shape} on {other.coarse}"
            )
        return AreaStatistics(self.coarse, self.areas + other.areas, self.covered + other.covered)

    def add(self, maps: NDArray[np.uint8], fine: Grid, row: int, column: int) -> None:
        """Add one tile, in place.

        Parameters
        ----------
        maps : ndarray of shape (Y, H, W)
            Class indices; those of K and more (255 is nodata) belong to no class.
        fine : Grid
            Grid of the maps, in any ratio to the coarse one; both count longitudes alike.
        row, column : int
            First cell of the tile on the fine grid.
        """
        years, k = self.areas.shape[:2]
        if len(maps) != years:
            raise ValueError(f"the tile has {len(maps)} maps, expected one for each of {years} years")
        rows, columns = overlaps(self.coarse, fine, row, column, (maps.shape[-2], maps.shape[-1]))
        # Only the coarse cells that the tile touches: a global grid has a million.
        i, j = np.nonzero(rows.any(axis=1))[0], np.nonzero(columns.any(axis=1))[0]
        where = np.ix_(i, j)
        for y in range(years):
            areas, covered = class_areas(maps[y], k, rows[i], columns[j])
            self.areas[y][:, where[0], where[1]] += areas * KM2_PER_UNIT
            if y == 0:
                self.covered[where] += covered * KM2_PER_UNIT

    def cover(self) -> NDArray[np.float64]:
        """Share of each coarse cell that tiles cover, (h, w), 0 to 1."""
        return self.covered / cell_areas(self.coarse)

    def fractions(self) -> NDArray[np.float64]:
        """Share of each class in the covered part of each coarse cell, (Y, K, h, w), 0 to 1; NaN where none is."""
        seen = self.covered > 0
        return np.where(seen, self.areas / np.where(seen, self.covered, 1.0), np.nan)

    def agreement(
        self, forcing: Mapping[str, NDArray[np.floating]], names: Sequence[str], minimum_cover: float = 0.999
    ) -> dict[str, Any]:
        """Compare fractions with those of the forcing, over coarse cells that tiles cover and over all years.

        Cells and years count alike. Where the forcing has no value (NaN) nothing is compared.

        Parameters
        ----------
        forcing : mapping of str to ndarray of shape (Y, h, w)
            Fraction, 0 to 1, of the classes that the forcing knows.
        names : sequence of str
            Names of the K classes.
        minimum_cover : float
            Share of a coarse cell's area that tiles must cover: of a part the forcing says nothing.

        Returns
        -------
        dict
            ``cells`` (coarse cells covered), ``classes``: ``bias`` (maps minus forcing) and ``rmse`` by class, None
            where the forcing does not know it or no cell is covered; ``mean``: ``absolute_bias`` and ``rmse``, means
            over those classes. In percent of the coarse cell's area.

        Raises
        ------
        ValueError
            If tiles overlap, or names or shapes do not fit.
        """
        self._check(names, forcing)
        cover = self.cover()
        if (cover > 1 + 1e-6).any():
            raise ValueError(f"tiles overlap: they cover {cover.max():.3f} times the area of a coarse cell")
        used = cover >= minimum_cover
        fractions = self.fractions()
        classes: dict[str, dict[str, float] | None] = {}
        for k, name in enumerate(names):
            gap = 100 * (fractions[:, k] - forcing[name])[:, used] if name in forcing else np.empty(0)
            gap = gap[np.isfinite(gap)]
            classes[name] = (
                {"bias": float(gap.mean()), "rmse": float(np.sqrt(np.mean(np.square(gap))))} if gap.size else None
            )
        known = [scores_of_class for scores_of_class in classes.values() if scores_of_class]
        mean: dict[str, float | None] = {"absolute_bias": None, "rmse": None}
        if known:
            # Biases themselves add up to nearly nothing: what one class has too much, others have too little.
            mean["absolute_bias"] = sum(abs(scores_of_class["bias"]) for scores_of_class in known) / len(known)
            mean["rmse"] = sum(scores_of_class["rmse"] for scores_of_class in known) / len(known)
        return {
            "units": "percent of the coarse cell's area",
            "minimum_cover": minimum_cover,
            "cells": int(used.sum()),
            "classes": classes,
            "mean": mean,
        }

    def curves(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Area of every class in every year over all that tiles cover, km2."""
        self._check(names, {})
        totals = self.areas.sum(axis=(2, 3))
        return {name: totals[:, k].tolist() for k, name in enumerate(names)}

    def forcing_curves(
        self, forcing: Mapping[str, NDArray[np.floating]], names: Sequence[str]
    ) -> dict[str, list[float]]:
        """Area that the forcing gives the same classes and the same cover, km2, as if spread evenly in a coarse cell.

        Classes that it does not know are left out; where it has no value (NaN) it gives no area.
        """
        self._check(names, forcing)
        return {
            name: (np.nan_to_num(forcing[name].astype(np.float64), nan=0.0) * self.covered).sum(axis=(1, 2)).tolist()
            for name in names
            if name in forcing
        }

    def _check(self, names: Sequence[str], forcing: Mapping[str, NDArray[np.floating]]) -> None:
        years, k, *shape = self.areas.shape
        if len(names) != k:
            raise ValueError(f"{len(names)} names for {k} classes")
        if unknown := sorted(set(forcing) - set(names)):
            raise ValueError(
                f"the forcing has {', '.join(unknown)}, which are not among the classes {', '.join(names)}"
            )
        for name, values in forcing.items():
            if values.shape != (years, *shape):
                raise ValueError(f"the forcing of {name} has shape {values.shape}, expected {(years, *shape)}")

"""Areas of classes in coarse cells: added up tile by tile, and how far they are from the fractions of a forcing."""

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


def shares(
    fractions: NDArray[np.floating], known: NDArray[np.bool_], touched: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Share of each class in what the classes have that the scenario knows.

    Parameters
    ----------
    fractions : ndarray of shape (K, h, w)
        Of all coarse cells, 0 to 1; NaN: the class is not known there.
    known : ndarray of shape (K,)
        Whether the scenario knows the class at all.
    touched : ndarray of shape (n,)
        Coarse cells ``i * w + j``.

    Returns
    -------
    tuple of ndarray
        Shares (n, K), which add up to 1, or are all 0 where the scenario has no fraction above 0; and whether each
        class is known in each coarse cell (n, K), which it is nowhere where all shares are 0.
    """
    values = fractions.reshape(len(fractions), -1)[:, touched].T.astype(np.float64)
    told = known & np.isfinite(values)
    values = np.where(told, np.maximum(values, 0.0), 0.0)
    total = values.sum(axis=1, keepdims=True)
    return values / np.where(total > 0, total, 1.0), told & (total > 0)


def compact(cells: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Coarse cells that occur (n,), ascending, and which of these each of ``cells`` is; all are below ``count``."""
    touched = np.nonzero(np.bincount(cells, minlength=count))[0]
    number = np.zeros(count, np.int64)
    number[touched] = np.arange(touched.size)
    return touched, number[cells]


def class_sums(
    place: NDArray[np.int64], classes: NDArray[np.uint8], areas: NDArray[np.float64], count: int, k: int
) -> NDArray[np.float64]:
    """Areas of ``k`` classes in ``count`` coarse cells (n, K), from fine cells in the order of rows."""
    sums = np.bincount(place * k + classes, areas, minlength=count * k)
    return np.asarray(sums, np.float64).reshape(count, k)


@dataclass(frozen=True, eq=False)
class AreaError:
    """Sums of differences over coarse cells; ``a + b`` merges windows that share no coarse cell."""

    differences: NDArray[np.float64]
    """(K,) absolute differences of areas."""
    areas: NDArray[np.float64]
    """(K,) areas of the coarse cells in which the class is compared."""
    misplaced: float
    """Areas that would have to change class."""
    area: float
    """Area of the coarse cells in which any class is compared."""

    def __add__(self, other: AreaError) -> AreaError:
        if self.areas.shape != other.areas.shape:
            raise ValueError(f"errors of {len(self.areas)} and of {len(other.areas)} classes cannot merge")
        return AreaError(
            self.differences + other.differences,
            self.areas + other.areas,
            self.misplaced + other.misplaced,
            self.area + other.area,
        )

    @property
    def by_class(self) -> NDArray[np.float64]:
        """Mean absolute difference of fractions, (K,), 0 to 1; NaN for classes that the scenario knows nowhere."""
        return np.where(self.areas > 0, self.differences / np.where(self.areas > 0, self.areas, 1.0), np.nan)

    @property
    def in_all(self) -> float:
        """Share of the area that would have to change class, 0 to 1: the quantity disagreement of coarse cells.

        As of Pontius and Millones (2011, International Journal of Remote Sensing 32, 4407-4429): half the sum of
        absolute differences over classes, where those that the scenario does not know are one. NaN without any area.
        """
        return self.misplaced / self.area if self.area > 0 else float("nan")


def area_error(
    classes: NDArray[np.uint8],
    fractions: NDArray[np.floating],
    cell_index: NDArray[np.int64],
    known: NDArray[np.bool_],
    pixel_area: NDArray[np.floating] | None = None,
    *,
    among_known: bool = False,
) -> AreaError:
    """Compare a map's class areas with the scenario's fractions in every coarse cell that it touches.

    Parameters
    ----------
    classes : ndarray of shape (H, W)
        Class indices; those of K and more (255 is nodata) are no class.
    fractions, cell_index, known, pixel_area
        As :func:`earthsr.landuse.match_areas.match_areas` has them.
    among_known : bool
        Compare shares in the area of the classes that the scenario knows, which is what
        :func:`earthsr.landuse.match_areas.match_areas` can bring to 0, in place of fractions of the whole coarse cell.
        These differ also where map and scenario disagree on sea, or on classes that the scenario does not know.

    Returns
    -------
    AreaError
        Coarse cells count by the area of their fine cells here (with ``among_known``, of those with a class that the
        scenario knows), those without a class included. Coarse cells without any fine cell that has a class are left
        out.
    """
    k = len(fractions)
    if classes.shape != cell_index.shape:
        raise ValueError(f"the map has shape {classes.shape} and cell_index {cell_index.shape}, expected the same")
    areas = np.ones(len(classes)) if pixel_area is None else np.maximum(np.asarray(pixel_area, np.float64), 0.0)
    inside = (cell_index >= 0).ravel()
    touched, place = compact(cell_index.ravel()[inside], fractions[0].size)
    area = np.broadcast_to(areas[:, None], classes.shape).ravel()[inside]
    # One more column for cells without a class.
    column = np.minimum(classes.ravel()[inside], k)
    sums = class_sums(place, column, area, touched.size, k + 1)
    share, told = shares(fractions, np.asarray(known, bool), touched)
    if among_known:
        covered = np.where(told, sums[:, :k], 0.0).sum(axis=1)
        wanted = share
    else:
        values = fractions.reshape(k, -1)[:, touched].T.astype(np.float64)
        told = np.asarray(known, bool) & np.isfinite(values)
        covered = np.where(sums[:, :k].any(axis=1), sums.sum(axis=1), 0.0)
        wanted = np.where(told, np.maximum(values, 0.0), 0.0)
    gaps = np.where(told, sums[:, :k] - wanted * covered[:, None], 0.0)
    told = told & (covered > 0)[:, None]
    gaps = np.where(told, gaps, 0.0)
    misplaced = (np.abs(gaps).sum(axis=1) + np.abs(gaps.sum(axis=1))) / 2
    return AreaError(
        np.abs(gaps).sum(axis=0),
        (told * covered[:, None]).sum(axis=0),
        float(misplaced.sum()),
        float(covered[told.any(axis=1)].sum()),
    )

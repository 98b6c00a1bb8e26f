"""How far the class areas of a map are from a scenario's, coarse cell by coarse cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.landuse.match_areas.match import class_sums, compact, shares


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

"""Classes whose areas add up: from probabilities to the likeliest map that has a scenario's areas in every coarse cell.

:func:`match_areas` decodes, :func:`area_error` measures what a map's areas lack, with and without it. Only NumPy is
needed. What the areas of whole maps and years are is in :mod:`earthsr.landuse.class_areas`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.landuse.area_assignment import NO_CLASS, UNIT, assign, scores_of, trim
from earthsr.landuse.class_areas import AreaError, area_error, class_sums, compact, shares

__all__ = ["AreaError", "MatchStatistics", "Matched", "area_error", "match_areas"]


#: Fine cells that are assigned at once, unless a single coarse cell has more: their scores stay in the cache.
_BATCH: Final = 65536

#: Sums of areas differ by rounding.
_ROUNDING: Final = 1e-4


@dataclass(frozen=True, eq=False)
class MatchStatistics:
    """What matching did to areas; ``a + b`` merges windows that share no coarse cell.

    Areas are in the unit of ``pixel_area``, cells where it was absent, over fine cells with a class in a coarse cell.
    """

    wanted: NDArray[np.float64]
    """(K,) area that the scenario asks for; the area before where it asks for nothing."""
    before: NDArray[np.float64]
    """(K,) area in the likeliest map, fixed cells kept."""
    after: NDArray[np.float64]
    """(K,) area in the matched map."""
    missed: NDArray[np.float64]
    """(K,) absolute differences of wanted areas and those after, added up over coarse cells that cannot be met."""
    fine_cells: int
    """Fine cells with a class in a coarse cell."""
    changed: int
    """Those of them that have another class than before."""
    coarse_cells: int
    """Coarse cells with such a fine cell."""
    unmet: int
    """Those of them in which fixed cells leave some class more than the largest fine cell from its wanted area."""
    loss_nats: float
    """Log likelihood before minus that after, added up over fine cells; an impossible class counts as -104."""

    def __add__(self, other: MatchStatistics) -> MatchStatistics:
        if self.wanted.shape != other.wanted.shape:
            raise ValueError(f"statistics of {len(self.wanted)} and of {len(other.wanted)} classes cannot merge")
        return MatchStatistics(
            self.wanted + other.wanted,
            self.before + other.before,
            self.after + other.after,
            self.missed + other.missed,
            self.fine_cells + other.fine_cells,
            self.changed + other.changed,
            self.coarse_cells + other.coarse_cells,
            self.unmet + other.unmet,
            self.loss_nats + other.loss_nats,
        )


@dataclass(frozen=True, eq=False)
class Matched:
    """A map with matched areas."""

    classes: NDArray[np.uint8]
    """(H, W); 255 where the probabilities have no value."""
    statistics: MatchStatistics
    """What was changed, and what areas lack."""
    unmet: NDArray[np.int64]
    """(m,) coarse cells, ascending, that fixed cells keep from having the wanted areas."""


def match_areas(
    probabilities: NDArray[np.floating],
    fractions: NDArray[np.floating],
    cell_index: NDArray[np.int64],
    known: NDArray[np.bool_],
    *,
    fixed: NDArray[np.uint8] | None = None,
    pixel_area: NDArray[np.floating] | None = None,
) -> Matched:
    """Find the likeliest map in which each coarse cell has the scenario's class areas, as nearly as whole cells can.

    Parameters
    ----------
    probabilities : ndarray of shape (K, H, W)
        Of the classes, 0 to 1; a fine cell in which any of them is NaN has no value. 0 is possible, as the least
        likely of all: areas come first.
    fractions : ndarray of shape (K, h, w)
        Of all coarse cells, 0 to 1; NaN where the scenario does not know a class.
    cell_index : ndarray of shape (H, W)
        Coarse cell ``i * w + j`` of every fine cell, -1 for none, as
        :func:`earthsr.landuse.baselines.nearest_cells` gives it.
    known : ndarray of shape (K,)
        Whether the scenario knows the class at all; the rows of others in ``fractions`` are not read.
    fixed : ndarray of shape (H, W), optional
        Class that a fine cell has and keeps, with or without probabilities; 255 is none.
    pixel_area : ndarray of shape (H,), optional
        Area of a fine cell in each row, in any unit: differences of sines of latitude, or cosines. Equal areas where
        absent. Rows without area (beyond a pole) are left as they are.

    Returns
    -------
    Matched
        In every coarse cell the area of each class is at most that of the largest fine cell from the wanted one (so the
        count is at most one from it, where areas are equal), unless fixed cells forbid that. These count towards their
        class; where they are more than is wanted, the others have less, in proportion: no other map has a smaller sum
        of absolute differences but for whole cells. ``unmet`` names these coarse cells.

    Raises
    ------
    ValueError
        If shapes or classes do not fit, or a probability is infinite.

    Notes
    -----
    Fine cells whose likeliest class the scenario does not know keep it, and the classes that it knows share the others
    in proportion to their fractions, as in :func:`earthsr.landuse.baselines.target_counts`. So the wanted
    areas add up to what there is, although water or sea in the map is never quite that of the scenario, a window may
    cut a coarse cell in two, and fractions need not add up to 1. Where the scenario has no fraction above 0, and
    outside the coarse cells, every cell keeps its likeliest class.

    The product of all probabilities is the largest that is possible with the numbers of cells of each class: see
    :mod:`earthsr.landuse.area_assignment`. Where the areas of a coarse cell's rows differ so much that these
    numbers do not give the areas, single cells change after that (``trim`` there). The result in a coarse cell depends
    on its own fine cells only, so that windows which both hold it agree.
    """
    told, areas = _checked(probabilities, fractions, cell_index, known, fixed, pixel_area)
    k, _, width = probabilities.shape
    likeliest = _likeliest(probabilities)
    before = likeliest if fixed is None else np.where(fixed != NO_CLASS, fixed, likeliest)

    position = np.nonzero(((cell_index >= 0) & (before != NO_CLASS) & (areas > 0)[:, None]).ravel())[0]
    touched, place = compact(cell_index.ravel()[position], fractions[0].size)
    share, told = shares(fractions, told, touched)
    old = before.ravel()[position]
    area = areas[position // width]
    sums = class_sums(place, old, area, touched.size, k)
    shared = told[place, old]
    held = np.zeros(len(position), bool) if fixed is None else fixed.ravel()[position] != NO_CLASS
    still = shared & held
    held_sums = class_sums(place[still], old[still], area[still], touched.size, k)
    asked = share * np.where(told, sums, 0.0).sum(axis=1, keepdims=True)
    goal = with_fixed(asked, held_sums) - held_sums

    result = before.copy()
    free = shared & ~held
    _decide(result, probabilities, position[free], place[free], goal, None if pixel_area is None else areas)

    new = result.ravel()[position]
    after = class_sums(place, new, area, touched.size, k)
    wanted = np.where(told, asked, sums)
    gap = np.abs(after - wanted)
    largest = np.zeros(touched.size)
    np.maximum.at(largest, place, area)
    unmet = gap.max(axis=1) > largest * (1 + _ROUNDING)
    changed = new != old
    statistics = MatchStatistics(
        wanted.sum(axis=0),
        sums.sum(axis=0),
        after.sum(axis=0),
        gap[unmet].sum(axis=0),
        len(position),
        int(changed.sum()),
        touched.size,
        int(unmet.sum()),
        _loss_nats(probabilities, position[changed], old[changed], new[changed]),
    )
    return Matched(result, statistics, touched[unmet])


def _decide(
    result: NDArray[np.uint8],
    probabilities: NDArray[np.floating],
    position: NDArray[np.int64],
    place: NDArray[np.int64],
    goal: NDArray[np.float64],
    areas: NDArray[np.float64] | None,
) -> None:
    """Give the fine cells at ``position`` (n,) of coarse cells ``place`` (n,) classes with areas ``goal``, in place."""
    flat = probabilities.reshape(len(probabilities), -1)
    for groups, cells, sizes in _batches(position, place, len(goal)):
        scores = np.stack([scores_of(plane[cells]) for plane in flat])
        classes = assign(scores, whole_cells(goal[groups], sizes), sizes)
        inside = classes != NO_CLASS
        if areas is not None:
            trim(classes, scores, np.where(inside, areas[cells // result.shape[1]], 0.0), goal[groups])
        result.ravel()[cells[inside]] = classes[inside]


def _loss_nats(
    probabilities: NDArray[np.floating], at: NDArray[np.int64], was: NDArray[np.uint8], now: NDArray[np.uint8]
) -> float:
    """Logarithm of the likelihood of the classes that cells were of minus that of those which they are of now."""
    flat = probabilities.reshape(len(probabilities), -1)
    return float((scores_of(flat[was, at]) - scores_of(flat[now, at])).sum()) / UNIT


def _checked(
    probabilities: NDArray[np.floating],
    fractions: NDArray[np.floating],
    cell_index: NDArray[np.int64],
    known: NDArray[np.bool_],
    fixed: NDArray[np.uint8] | None,
    pixel_area: NDArray[np.floating] | None,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Known classes (K,) and areas of rows (H,), when everything fits."""
    k, height, width = probabilities.shape
    told = np.asarray(known, bool)
    if len(told) != k or len(fractions) != k or k > NO_CLASS:
        raise ValueError(
            f"probabilities of {k} classes, fractions of {len(fractions)} and known of {len(told)}, expected the same "
            f"number, at most {NO_CLASS}"
        )
    if cell_index.shape != (height, width):
        raise ValueError(f"cell_index has shape {cell_index.shape}, expected {(height, width)}")
    if cell_index.size and cell_index.max() >= fractions[0].size:
        raise ValueError(f"cell_index reaches {cell_index.max()}, but there are {fractions[0].size} coarse cells")
    if fixed is not None:
        if fixed.shape != (height, width):
            raise ValueError(f"fixed has shape {fixed.shape}, expected {(height, width)}")
        if (wrong := fixed[(fixed >= k) & (fixed != NO_CLASS)]).size:
            raise ValueError(f"fixed holds class {wrong[0]}, expected 0 to {k - 1}, or {NO_CLASS} for none")
    if pixel_area is None:
        return told, np.ones(height)
    areas = np.asarray(pixel_area, np.float64)
    if areas.shape != (height,):
        raise ValueError(f"pixel_area has shape {areas.shape}, expected {(height,)}")
    return told, areas


def _likeliest(probabilities: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Class of the largest probability, the first of equal ones, (H, W); 255 where any is NaN."""
    best = probabilities[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    void = np.isnan(best)
    for c, plane in enumerate(probabilities[1:], 1):
        classes[plane > best] = c
        np.fmax(best, plane, out=best)
        void |= np.isnan(plane)
    if np.isinf(best).any():
        raise ValueError("a probability is infinite, expected 0 to 1, or NaN for no value")
    classes[void] = NO_CLASS
    return classes


def _batches(
    position: NDArray[np.int64], place: NDArray[np.int64], count: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Coarse cells (G,), positions of their fine cells (G, N), and how many these are (G,); the last one fills rows.

    Coarse cells of nearly the same size come together, so that little is filled.
    """
    # Numbers of 16 bits are sorted in one pass.
    order = np.argsort(place.astype(np.uint16) if count <= 65536 else place, kind="stable")
    position = position[order]
    sizes = np.bincount(place, minlength=count)
    first = np.cumsum(sizes) - sizes
    groups = np.argsort(-sizes, kind="stable")
    groups = groups[sizes[groups] > 0]
    while groups.size:
        n = sizes[groups[0]]
        some, groups = np.split(groups, [max(1, _BATCH // n)])
        within = np.minimum(np.arange(n), sizes[some, None] - 1)
        yield some, position[first[some, None] + within], sizes[some]


def with_fixed(wanted: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas nearest to the wanted ones among those that are not below the fixed ones.

    Classes of which more is fixed than wanted have what is fixed; the others share what is left in proportion to what
    is wanted of them. They get less than that, so no other areas have a smaller sum of absolute differences.

    Parameters
    ----------
    wanted, fixed : ndarray of shape (n, K)
        Areas; rows of ``wanted`` add up to no less than those of ``fixed``.

    Returns
    -------
    ndarray of shape (n, K)
        Rows add up to those of ``wanted``.
    """
    full = np.zeros(wanted.shape, bool)
    result = wanted
    # What a full class takes away from others may make one of these full in turn.
    for _ in range(wanted.shape[1]):
        more = ~full & (fixed > result)
        if not more.any():
            break
        full |= more
        left = wanted.sum(axis=1, keepdims=True) - np.where(full, fixed, 0.0).sum(axis=1, keepdims=True)
        base = np.where(full, 0.0, wanted)
        total = base.sum(axis=1, keepdims=True)
        result = np.where(full, fixed, base * (np.maximum(left, 0.0) / np.where(total > 0, total, 1.0)))
    return result


def whole_cells(areas: NDArray[np.float64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers of cells in proportion to areas, by largest remainder: each within one cell of its proportion.

    Parameters
    ----------
    areas : ndarray of shape (n, K)
        Rows are above 0 somewhere.
    cells : ndarray of shape (n,)
        What the numbers add up to.

    Returns
    -------
    ndarray of shape (n, K)
        Of equal remainders the first class has the cell.
    """
    # Rounded, so that the last bits of float32 fractions decide nothing.
    exact = np.round(areas / areas.sum(axis=1, keepdims=True) * cells[:, None], 6)
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(areas.shape[1])[None], axis=1)
    return whole + (rank < (cells - whole.sum(axis=1))[:, None])

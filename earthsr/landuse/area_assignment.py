"""Capacity-constrained assignment: the likeliest classes of the fine cells in a coarse cell, so many of each class.

This is a transportation problem, solved exactly and for many coarse cells at once, in two steps.

1. *Prices.* Every class of a coarse cell has a price that is added to its scores, and every fine cell takes the class
   with the largest sum. One price after the other is set so that the wanted number of cells takes its class: coordinate
   descent on the dual problem, which Bertsekas and Castañon (1989, Annals of Operations Research 20, 67-96) solve by
   auction. The iteration variable of a land use in CLUE-S (Verburg et al., 2002, Environmental Management 30, 391-405)
   is such a price, found by trial. Whatever the prices, no map with the same counts is likelier; only the counts are
   not quite the wanted ones.
2. *Repair* by successive shortest paths (Ahuja, Magnanti and Orlin, 1993, Network Flows, chapter 9). From class a to
   class b leads an arc that costs what that cell of a loses as b that loses least. Cells move along the cheapest path
   from classes with too many to one with too few, all those at once that cost the same. After each move, too, no map
   with the same counts is likelier: so the last one, with the wanted counts, is the likeliest of all.

Scores are whole numbers in float64, so that all sums are exact: a result depends on nothing but the coarse cell's own
scores in their order, not on rounding, nor on other coarse cells.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NO_CLASS: Final = 255

#: Scores per nat. A score is at most 104 * 2**30 in size; float64 adds whole numbers up to 2**53 exactly.
UNIT: Final = 2.0**30

#: Probabilities below half the smallest positive float32 count as this much: 0 is less likely than anything else.
_LEAST: Final = 2.0**-150

#: Minus the score of a class that nothing is wanted of: beyond all scores and prices, and still exact in sums.
_FAR: Final = 2.0**50

#: Steps between the cells that each round of prices looks at: cheap rounds come near, two whole ones nearly there.
_STRIDES: Final = (8, 8, 8, 8, 1, 1)

#: For some coarse cells of a batch, in which of them an arc is (m,), from which class and to which class (m,).
_Step = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

#: Sums of areas differ by rounding; a cell that fits but for this much stays.
_ROUNDING = 1e-6


def scores_of(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of probabilities, of any shape, in whole units of 2**-30 nat."""
    scores = np.maximum(probabilities, _LEAST, dtype=np.float64)
    np.log(scores, out=scores)
    scores *= UNIT
    return np.rint(scores, out=scores)


def assign(scores: NDArray[np.float64], quotas: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give fine cells classes, so many cells each, with the largest possible sum of scores.

    Parameters
    ----------
    scores : ndarray of shape (K, G, N)
        Of :func:`scores_of`, for up to N fine cells in each of G coarse cells.
    quotas : ndarray of shape (G, K)
        Fine cells wanted of each class; rows add up to ``sizes``.
    sizes : ndarray of shape (G,)
        Fine cells, 1 to N: the first ones. Scores behind them are finite, and not used.

    Returns
    -------
    ndarray of shape (G, N)
        Classes; 255 behind the first ``sizes``. Among equal maps a move takes the first cells and the first class.

    Raises
    ------
    ValueError
        If quotas are negative, or do not add up.
    """
    wrong = (quotas < 0).any(axis=1) | (quotas.sum(axis=1) != sizes)
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(f"quotas of {quotas[n].tolist()} cells, expected none below 0 and {sizes[n]} in all")
    scores = np.where((quotas == 0).T[:, :, None], -_FAR, scores)
    prices = np.zeros(quotas.shape)
    for stride in _STRIDES:
        some = np.ascontiguousarray(scores[:, :, ::stride])
        _set_prices(prices, some, quotas / sizes[:, None], -(-sizes // stride))
    classes = _dearest(scores, prices)
    classes[np.arange(scores.shape[2]) >= sizes[:, None]] = NO_CLASS
    _repair(classes, scores, quotas)
    return classes


def _set_prices(
    prices: NDArray[np.float64], scores: NDArray[np.float64], shares: NDArray[np.float64], sizes: NDArray[np.int64]
) -> None:
    """Set each class's prices (G, K) so that its share of cells takes it while the other prices are what they are."""
    k, groups, width = scores.shape
    behind = np.arange(width) >= sizes[:, None]
    # The best offer of the classes after each one, with old prices, and of those before it, with new ones.
    after = np.empty((k, groups, width))
    after[-1] = -np.inf
    for c in range(k - 1, 0, -1):
        np.maximum(after[c], scores[c] + prices[:, c, None], out=after[c - 1])
    before = np.full((groups, width), -np.inf)
    for c in range(k):
        # A class that nothing or all is wanted of needs no price: the others are out of reach, or it is.
        wanted = np.nonzero((shares[:, c] > 0) & (shares[:, c] < 1))[0]
        needed = np.maximum(before[wanted], after[c][wanted]) - scores[c][wanted]
        needed[behind[wanted]] = np.inf
        needed.sort(axis=1)
        last = sizes[wanted] - 1
        count = np.rint(shares[wanted, c] * sizes[wanted]).astype(np.int64)
        row = np.arange(len(wanted))
        low, high = needed[row, np.clip(count - 1, 0, last)], needed[row, np.clip(count, 0, last)]
        prices[wanted, c] = np.floor((low + high) / 2)
        np.maximum(before, scores[c] + prices[:, c, None], out=before)


def _dearest(scores: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Class with the largest sum of score and price, the first of equal ones, (G, N)."""
    best = scores[0] + prices[:, 0, None]
    classes = np.zeros(best.shape, np.uint8)
    for c in range(1, len(scores)):
        offer = scores[c] + prices[:, c, None]
        classes[offer > best] = c
        np.maximum(best, offer, out=best)
    return classes


def _repair(classes: NDArray[np.uint8], scores: NDArray[np.float64], quotas: NDArray[np.int64]) -> None:
    """Move cells until every class has as many as are wanted, in place."""
    groups, k = quotas.shape
    excess = np.stack([(classes == c).sum(axis=1) for c in range(k)], axis=1) - quotas
    arcs = np.full((groups, k, k), np.inf)
    active = np.nonzero(excess.any(axis=1))[0]
    for c in range(k):
        _set_arcs(arcs, c, active, classes, scores)
    while active.size:
        source, sink, steps = _cheapest_paths(arcs[active], excess[active])
        room = np.minimum(excess[active, source], -excess[active, sink])
        moved = _move(classes, scores, arcs, active, steps, room)
        excess[active, source] -= moved
        excess[active, sink] += moved
        for c in range(k):
            changed = [which[(a == c) | (b == c)] for which, a, b in steps]
            _set_arcs(arcs, c, active[np.unique(np.concatenate(changed))], classes, scores)
        active = active[excess[active].any(axis=1)]


def _set_arcs(
    arcs: NDArray[np.float64],
    c: int,
    groups: NDArray[np.int64],
    classes: NDArray[np.uint8],
    scores: NDArray[np.float64],
) -> None:
    """Set the least that a cell of class ``c`` loses as any other class, inf where there is no such cell."""
    own = scores[c, groups]
    own[classes[groups] != c] = np.inf
    for other in range(len(scores)):
        arcs[groups, c, other] = np.min(own - scores[other, groups], axis=1)


def _cheapest_paths(
    arcs: NDArray[np.float64], excess: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[_Step]]:
    """Find the cheapest path from any class with too many cells to one with too few (Bellman and Ford).

    Costs may be negative. There is no cycle of negative cost, because no map with the same counts is likelier: so paths
    end after K - 1 arcs at most.

    Parameters
    ----------
    arcs : ndarray of shape (G, K, K)
    excess : ndarray of shape (G, K)
        Not 0 everywhere; rows add up to 0.

    Returns
    -------
    tuple
        First and last class (G,) of the paths, and their arcs from the last one backwards.
    """
    k = excess.shape[1]
    cost = np.where(excess > 0, 0.0, np.inf)
    previous = np.full(cost.shape, -1)
    for _ in range(k - 1):
        ways = cost[:, :, None] + arcs
        cheapest = ways.min(axis=1)
        shorter = cheapest < cost
        if not shorter.any():
            break
        previous = np.where(shorter, ways.argmin(axis=1), previous)
        cost = np.where(shorter, cheapest, cost)
    sink = np.where(excess < 0, cost, np.inf).argmin(axis=1)
    source, which, node = sink.copy(), np.arange(len(sink)), sink
    steps: list[_Step] = []
    while (more := previous[which, node] >= 0).any():
        which, node = which[more], node[more]
        source[which] = previous[which, node]
        steps.append((which, source[which], node))
        node = source[which]
    return source, sink, steps


def _move(
    classes: NDArray[np.uint8],
    scores: NDArray[np.float64],
    arcs: NDArray[np.float64],
    active: NDArray[np.int64],
    steps: list[_Step],
    room: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Move as many cells along each arc of a path as cost the same, at most ``room``; return how many, (G,)."""
    amount = room.copy()
    equal = []
    for which, a, b in steps:
        groups = active[which]
        loss = scores[a, groups] - scores[b, groups]
        equal.append((classes[groups] == a[:, None]) & (loss == arcs[groups, a, b][:, None]))
        amount[which] = np.minimum(amount[which], equal[-1].sum(axis=1))
    for (which, _, b), same in zip(steps, equal, strict=True):
        group, cell = np.nonzero(same & (np.cumsum(same, axis=1) <= amount[which][:, None]))
        classes[active[which][group], cell] = b[group]
    return amount


def trim(
    classes: NDArray[np.uint8],
    scores: NDArray[np.float64],
    areas: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> None:
    """Move cells until each class has the wanted area but for less than the largest cell's, in place.

    One after the other, a cell of the class with most too much goes to that with most too little: the cell that loses
    least likelihood per area. Each move lowers the sum of absolute differences, so this ends; it begins at the
    likeliest map with counts in proportion, a few moves away, and so ends at a map that is nearly the likeliest.

    Parameters
    ----------
    classes : ndarray of shape (G, N)
        Of :func:`earthsr.landuse.area_assignment.assign`.
    scores : ndarray of shape (K, G, N)
        Logarithms of probabilities.
    areas : ndarray of shape (G, N)
        Of the fine cells, 0 behind the last one.
    wanted : ndarray of shape (G, K)
        Areas of the classes; rows add up to those of ``areas``.
    """
    k = wanted.shape[1]
    gap = wanted - np.stack([np.where(classes == c, areas, 0.0).sum(axis=1) for c in range(k)], axis=1)
    limit = areas.max(axis=1) * (1 + _ROUNDING)
    while (active := np.nonzero(np.abs(gap).max(axis=1) > limit)[0]).size:
        rich, poor = gap[active].argmin(axis=1), gap[active].argmax(axis=1)
        movable = (classes[active] == rich[:, None]) & (areas[active] > 0)
        loss = (scores[rich, active] - scores[poor, active]) / np.where(movable, areas[active], 1.0)
        cell = np.where(movable, loss, np.inf).argmin(axis=1)
        classes[active, cell] = poor
        gap[active, rich] += areas[active, cell]
        gap[active, poor] -= areas[active, cell]

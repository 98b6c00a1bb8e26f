"""How many fine cells of each class a coarse cell shall have, given those that are fixed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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

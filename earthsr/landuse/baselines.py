"""What a land-use model is measured against: maps from the same anchor and the same coarse fractions, without learning.

Persistence keeps the anchor; argmax takes the largest fraction of the coarse cell; allocation changes the anchor just
enough to have the fractions, next to where a class is already (the spatial allocation of cellular models, as in
Verburg et al., 2002, reduced to distance alone). Where a window holds a part of a coarse cell alone, the fractions of
the whole say nothing of the part: there the anchor is changed by as much as they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid

_NODATA: Final = 255

#: Square of the distance to a class that is nowhere in the window; windows are smaller by far.
_FAR: Final = np.int64(2**40)


def nearest_cells(
    coarse: Grid, fine: Grid, row: int = 0, column: int = 0, shape: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """Coarse cell in which the centre of every fine cell lies.

    Parameters
    ----------
    coarse, fine : Grid
        In any ratio.
    row, column : int
        First cell of a window of the fine grid.
    shape : tuple of int, optional
        Rows and columns of the window; the rest of the grid where absent.

    Returns
    -------
    ndarray of shape (H, W)
        ``i * coarse.columns + j``; -1 outside the coarse grid.
    """
    height, width = shape or (fine.rows - row, fine.columns - column)
    i, j = cells_of(coarse, fine, (row, column, height, width))
    return np.where((i >= 0)[:, None] & (j >= 0), i[:, None] * coarse.columns + j, -1)


def persistence(anchor: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the anchor's map as that of any other year, (H, W)."""
    return anchor.copy()


def argmax_fractions(
    fractions: NDArray[np.floating],
    valid: NDArray[np.bool_],
    known: Sequence[bool],
    otherwise: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Give every fine cell the class with the largest fraction in its coarse cell.

    Parameters
    ----------
    fractions : ndarray of shape (K, H, W)
        Of the coarse cell in which each fine cell lies (:func:`nearest_cells`), 0 to 1; NaN is no value.
    valid : ndarray of shape (H, W)
        Cells to give a class to; others become 255.
    known : sequence of bool
        Whether the forcing knows each of the K classes; the rest is never chosen.
    otherwise : ndarray of shape (H, W), optional
        Classes, such as the anchor's, where the forcing has no fraction above 0; 255 where absent.

    Returns
    -------
    ndarray of shape (H, W)
        Class indices; the first of equal fractions.
    """
    usable = np.where(np.asarray(known, bool)[:, None, None] & np.isfinite(fractions), fractions, 0.0)
    silent = np.full(valid.shape, _NODATA, np.uint8) if otherwise is None else otherwise
    largest = np.where(usable.max(axis=0) > 0, usable.argmax(axis=0), silent)
    return np.where(valid, largest, _NODATA).astype(np.uint8)


def target_counts(
    fractions: NDArray[np.floating],
    previous: NDArray[np.uint8],
    cell_index: NDArray[np.int64],
    known: Sequence[bool],
) -> NDArray[np.int64]:
    """Count the fine cells that each class should have in each coarse cell, by largest remainder.

    Classes that the forcing does not know keep their cells, and the others share what is left in proportion to their
    fractions. Where the forcing has no fraction above 0 (water, say), all classes keep their cells.

    Parameters
    ----------
    fractions : ndarray of shape (K, h, w)
        Of all coarse cells, 0 to 1; NaN is no value, and rows of unknown classes are not read.
    previous : ndarray of shape (H, W)
        Class indices of the year before; those of K and more (255 is nodata) are no class.
    cell_index : ndarray of shape (H, W)
        Coarse cell ``i * w + j`` of every fine cell, -1 for none: of :func:`nearest_cells`.
    known : sequence of bool
        Whether the forcing knows each of the K classes.

    Returns
    -------
    ndarray of shape (h * w, K)
        Rows add up to the cells of ``previous`` that have a class; 0 for coarse cells that the window does not touch.
    """
    k = len(fractions)
    told = _told(known, k)
    targets = np.zeros((fractions[0].size, k), np.int64)
    touched, counts = _counts(previous, cell_index, k)
    if not touched.size:
        return targets
    shares, some = _shares(fractions, told, touched)
    room = np.where(told, counts, 0).sum(axis=1, keepdims=True)
    targets[touched] = np.where(told & some, _whole_numbers(shares * room, room), counts)
    return targets


def changed_counts(
    fractions: NDArray[np.floating],
    before: NDArray[np.floating],
    anchor: NDArray[np.uint8],
    cell_index: NDArray[np.int64],
    known: Sequence[bool],
) -> NDArray[np.int64]:
    """Count the fine cells of each class that the anchor has, and by how many the fractions have changed since.

    Of a part of a coarse cell this is what is known: its own classes at the anchor, and the whole cell's change, of
    which it has its share. What would be less than no cell of a class is taken from the others in proportion.

    Parameters
    ----------
    fractions, before : ndarray of shape (K, h, w)
        Of all coarse cells, in the year that is wanted and in that of the anchor.
    anchor : ndarray of shape (H, W)
        Class indices at the anchor.
    cell_index, known
        As :func:`target_counts` has them.

    Returns
    -------
    ndarray of shape (h * w, K)
        As of :func:`target_counts`.
    """
    k = len(fractions)
    told = _told(known, k)
    targets = np.zeros((fractions[0].size, k), np.int64)
    touched, counts = _counts(anchor, cell_index, k)
    if not touched.size:
        return targets
    (now, some_now), (then, some_then) = _shares(fractions, told, touched), _shares(before, told, touched)
    held = np.where(told, counts, 0)
    room = held.sum(axis=1, keepdims=True)
    wanted = np.maximum(held + (now - then) * room, 0.0)
    total = wanted.sum(axis=1, keepdims=True)
    wanted *= room / np.where(total > 0, total, 1.0)
    targets[touched] = np.where(told & some_now & some_then, _whole_numbers(wanted, room), counts)
    return targets


def _told(known: Sequence[bool], k: int) -> NDArray[np.bool_]:
    told = np.asarray(known, bool)
    if len(told) != k:
        raise ValueError(f"known has {len(told)} entries for {k} classes")
    return told


def _shares(
    fractions: NDArray[np.floating], told: NDArray[np.bool_], touched: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Share (n, K) of each class in those that the forcing knows, and whether there are any (n, 1)."""
    shares = fractions.reshape(len(fractions), -1)[:, touched].T.astype(np.float64)
    shares = np.where(told & np.isfinite(shares), np.maximum(shares, 0.0), 0.0)
    total = shares.sum(axis=1, keepdims=True)
    return shares / np.where(total > 0, total, 1.0), total > 0


def _whole_numbers(quota: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers (n, K) near ``quota`` that add up to ``room`` (n, 1), by largest remainder."""
    # Rounded, so that the last bits of float32 fractions decide nothing.
    quota = np.round(quota, 6)
    whole = np.floor(quota).astype(np.int64)
    order = np.argsort(whole - quota, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(quota.shape[1])[None], axis=1)
    return whole + (rank < room - whole.sum(axis=1, keepdims=True))


def allocate(
    previous: NDArray[np.uint8], targets: NDArray[np.int64], cell_index: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Change a map just enough that every coarse cell has the wanted number of cells of each class.

    Cells of classes with too many become cells of classes with too few, the nearest to a cell that has the class
    already first (Euclidean distance in cells within the window; ties by position in rows, then by class). Where the
    window has no cell of the class, any will do, in the order of rows.

    Parameters
    ----------
    previous : ndarray of shape (H, W)
        Class indices; cells of K and more (255 is nodata), or outside the coarse grid, stay as they are.
    targets : ndarray of shape (h * w, K)
        Of :func:`target_counts`.
    cell_index : ndarray of shape (H, W)
        Coarse cell of every fine cell, -1 for none.

    Returns
    -------
    ndarray of shape (H, W)
        Class indices.

    Raises
    ------
    ValueError
        If the targets of a coarse cell do not add up to its cells with a class.
    """
    k = targets.shape[1]
    touched, counts = _counts(previous, cell_index, k)
    wanted = targets[touched]
    if (wrong := wanted.sum(axis=1) != counts.sum(axis=1)).any():
        n = int(np.argmax(wrong))
        raise ValueError(
            f"targets of coarse cell {touched[n]} add up to {wanted[n].sum()}, but it has {counts[n].sum()} cells"
        )
    result = previous.copy()
    missing = np.maximum(wanted - counts, 0)
    spare = np.maximum(counts - wanted, 0)
    # Only cells that could be given away, and only the classes that want any.
    inside = (previous < k) & (cell_index >= 0)
    position = np.nonzero(inside.ravel())[0]
    source = previous.ravel()[position].astype(np.int64)
    place = np.searchsorted(touched, cell_index.ravel()[position])
    free = spare[place, source] > 0
    position, source, place = position[free], source[free], place[free]
    wanting = np.nonzero(missing.any(axis=0))[0]
    if not position.size or not wanting.size:
        return result
    square = squared_distance(previous == wanting[:, None, None]).reshape(len(wanting), -1)[:, position]
    which, at = np.nonzero(missing[place][:, wanting].T > 0)
    order = np.lexsort((which, at, square[which, at]))
    _take_in_turn(result, at[order], wanting[which[order]], position, source, place, missing, spare)
    return result


def _take_in_turn(
    result: NDArray[np.uint8],
    at: NDArray[np.int64],
    to: NDArray[np.int64],
    position: NDArray[np.int64],
    source: NDArray[np.int64],
    place: NDArray[np.int64],
    missing: NDArray[np.int64],
    spare: NDArray[np.int64],
) -> None:
    """Give cells to classes in the order of the offers while there is want of the one and plenty of the other.

    One offer may close others in three ways (cell, source, target): plain Python on lists is the fastest exact way.
    """
    k = missing.shape[1]
    want, give = missing.ravel().tolist(), spare.ravel().tolist()
    wants = (place[at] * k + to).tolist()
    gives = (place * k + source)[at].tolist()
    taken = [False] * len(position)
    open_wants = sum(want)
    chosen: list[int] = []
    for offer, (cell, target, origin) in enumerate(zip(at.tolist(), wants, gives, strict=True)):
        if taken[cell] or not want[target] or not give[origin]:
            continue
        taken[cell] = True
        want[target] -= 1
        give[origin] -= 1
        chosen.append(offer)
        open_wants -= 1
        if not open_wants:
            break
    result.ravel()[position[at[chosen]]] = to[chosen]


def allocate_series(
    anchor: NDArray[np.uint8],
    fractions: NDArray[np.floating],
    cell_index: NDArray[np.int64],
    known: Sequence[bool],
    before: NDArray[np.floating] | None = None,
    by_change: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Allocate year after year, each from the map before it.

    Parameters
    ----------
    anchor : ndarray of shape (H, W)
        Class indices at the anchor.
    fractions : ndarray of shape (Y, K, h, w)
        Of the years that follow, forwards or backwards, in that order; see :func:`target_counts`.
    cell_index, known
        As :func:`target_counts` has them.
    before : ndarray of shape (K, h, w), optional
        Fractions in the year of the anchor.
    by_change : ndarray of shape (h * w,), optional
        Coarse cells in which the anchor is changed by as much as the fractions change (:func:`changed_counts`): those
        of which the window holds a part alone. None where absent.

    Returns
    -------
    ndarray of shape (Y, H, W)
        Class indices.
    """
    maps = np.empty((len(fractions), *anchor.shape), np.uint8)
    previous = anchor
    for y, wanted in enumerate(fractions):
        targets = target_counts(wanted, previous, cell_index, known)
        if before is not None and by_change is not None:
            changed = changed_counts(wanted, before, anchor, cell_index, known)
            targets = np.where(by_change[:, None], changed, targets)
        maps[y] = previous = allocate(previous, targets, cell_index)
    return maps


def cut_cells(coarse: Grid, fine: Grid, row: int, column: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Coarse cells (h, w) of which a window of the fine grid holds some fine cells, and not all that there are."""
    height, width = shape
    parts = []
    for axis, first, count in ((0, row, height), (1, column, width)):
        cells = cells_of(coarse, fine, (0, 0, fine.rows, fine.columns))[axis]
        size = coarse.columns if axis else coarse.rows
        all_cells = np.bincount(cells[cells >= 0], minlength=size)
        inside = cells[first : first + count]
        parts.append((np.bincount(inside[inside >= 0], minlength=size), all_cells))
    (rows, all_rows), (columns, all_columns) = parts
    touched = (rows > 0)[:, None] & (columns > 0)
    return touched & ((rows < all_rows)[:, None] | (columns < all_columns))


def _counts(
    classes: NDArray[np.uint8], cell_index: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Coarse cells that the window touches (n,), ascending, and the cells of each class in them (n, K)."""
    if classes.shape != cell_index.shape:
        raise ValueError(f"the map has shape {classes.shape} and cell_index {cell_index.shape}, expected the same")
    inside = (classes < k) & (cell_index >= 0)
    touched, place = np.unique(cell_index[inside], return_inverse=True)
    counts = np.bincount(place * k + classes[inside], minlength=len(touched) * k)
    return touched, counts.reshape(len(touched), k).astype(np.int64)


def squared_distance(features: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Square of the Euclidean distance of every cell to the nearest feature, exactly.

    Two passes: along columns, the distance to the nearest feature; along rows, the minimum over all shifts of that
    squared plus the shift squared. The shifts end where none can lower anything, so near features cost little.

    Parameters
    ----------
    features : ndarray of shape (..., H, W)
        True where the distance is 0.

    Returns
    -------
    ndarray of shape (..., H, W)
        In cells squared; 2**40 and more where there is no feature at all.
    """
    height, width = features.shape[-2:]
    rows = np.arange(height, dtype=np.int64)[:, None]
    above = np.maximum.accumulate(np.where(features, rows, -_FAR), axis=-2)
    below = np.minimum.accumulate(np.where(features, rows, _FAR)[..., ::-1, :], axis=-2)[..., ::-1, :]
    near = np.minimum(rows - above, below - rows)
    column = np.where(near < height, np.square(np.minimum(near, height)), _FAR)
    square = column.copy()
    reach = np.where(features.any(axis=(-2, -1), keepdims=True), square, 0)
    for shift in range(1, width):
        if shift * shift >= reach.max():
            break
        np.minimum(square[..., shift:], column[..., :-shift] + shift * shift, out=square[..., shift:])
        np.minimum(square[..., :-shift], column[..., shift:] + shift * shift, out=square[..., :-shift])
        np.minimum(reach, square, out=reach)
    return square

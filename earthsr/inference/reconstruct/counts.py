"""What is counted in each map, to be added up over chunks: areas, agreement with the scenario, change and reversal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ledger:
    """Sums over a chunk of one year; areas in km2."""

    valid_km2: float
    """Of cells with a class."""
    areas_km2: list[float]
    """By class."""
    forcing_km2: list[float] | None = None
    """By class, what the scenario's fractions of the same coarse cells say; 0 for classes that it does not know."""
    difference_km2: list[float] | None = None
    """By class, sum over coarse cells of the absolute difference of the two; 0 for classes that it does not know."""
    covered_km2: float = 0.0
    """Of cells with a class in coarse cells with fractions: what the two sums above are of."""
    transitions_km2: list[list[float]] | None = None
    """From class (rows) to class since the map before."""
    reverted_km2: float = 0.0
    """Of cells that changed at the last step and have changed back."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a marker holds."""
        return asdict(self)


def count(
    classes: NDArray[np.uint8],
    k: int,
    row_km2: NDArray[np.float64],
    known: NDArray[np.bool_],
    index: NDArray[np.int64] | None = None,
    fractions: NDArray[np.float32] | None = None,
    before: NDArray[np.uint8] | None = None,
    earlier: NDArray[np.uint8] | None = None,
) -> Ledger:
    """Count one map.

    Parameters
    ----------
    classes : ndarray of shape (H, W)
        Class indices; those of ``k`` and more are no class.
    k : int
        Number of classes.
    row_km2 : ndarray of shape (H,)
        Area of one cell of each row, km2.
    known : ndarray of shape (K,)
        Whether the scenario knows the class.
    index : ndarray of shape (H, W), optional
        Flat coarse cell of every cell, -1 for none.
    fractions : ndarray of shape (K, h, w), optional
        The scenario's.
    before, earlier : ndarray of shape (H, W), optional
        The maps one and two steps before.
    """
    valid = classes < k
    weights = np.broadcast_to(row_km2[:, None], classes.shape)
    here, area = classes[valid].astype(np.int64), weights[valid]
    areas = np.bincount(here, area, k)
    forcing, difference, covered = None, None, 0.0
    if index is not None and fractions is not None:
        place = index[valid]
        said = fractions.reshape(k, -1).astype(np.float64)
        # A cell of the sea has fractions of 0 throughout: nothing is said of it.
        silent = ~(np.nan_to_num(said[known]).sum(axis=0) > 0)
        told = (place >= 0) & ~silent[place]
        n = said.shape[1]
        made = np.bincount(place[told] * k + here[told], area[told], n * k).reshape(n, k)
        # Fractions are of the whole coarse cell, the sea included.
        inside = index >= 0
        extent = np.bincount(index[inside], weights[inside], n)[:, None] * ~silent[:, None]
        wanted = np.where(known, np.nan_to_num(said.T), 0.0) * extent
        forcing = wanted.sum(axis=0).tolist()
        difference = np.where(known, np.abs(made - wanted), 0.0).sum(axis=0).tolist()
        covered = float(made.sum())
    transitions, reverted = None, 0.0
    if before is not None:
        both = valid & (before < k)
        pairs = before[both].astype(np.int64) * k + classes[both]
        transitions = np.bincount(pairs, weights[both], k * k).reshape(k, k).tolist()
        if earlier is not None:
            back = both & (earlier == classes) & (before != classes)
            reverted = float(weights[back].sum())
    return Ledger(float(area.sum()), areas.tolist(), forcing, difference, covered, transitions, reverted)


def add_up(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Add the sums of several chunks of one year; those of which nothing is known count as nothing."""
    total: dict[str, Any] = {}
    for record in records:
        for key, value in record.items():
            total[key] = _sum(total.get(key), value)
    return total


def _sum(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, dict):
        return {key: _sum(first.get(key), second.get(key)) for key in {**first, **second}}
    if isinstance(first, list):
        return [_sum(a, b) for a, b in zip(first, second, strict=True)]
    return first + second

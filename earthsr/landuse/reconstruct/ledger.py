"""What is counted in each map, added up over chunks, and told by year and decade.

Areas, agreement with the scenario, change and reversal: how a rollout behaves over time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Decades begin with years that end on 0.
_DECADE = 10


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
    cells: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    fractions: NDArray[np.float32] | None = None,
    before: NDArray[np.uint8] | None = None,
    earlier: NDArray[np.uint8] | None = None,
) -> Ledger:
    """Count one map.

    Cells are counted by row, as whole numbers, and rows weighed after that: areas differ between rows alone.

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
    cells : tuple of ndarray of shape (H,) and (W,), optional
        Row and column of ``fractions`` in which each row and column lies, -1 for none.
    fractions : ndarray of shape (K, h, w), optional
        The scenario's.
    before, earlier : ndarray of shape (H, W), optional
        The maps one and two steps before.
    """
    rows, columns = cells if cells is not None else (np.zeros(len(classes), int), np.zeros(classes.shape[1], int))
    # The last column stands for cells that lie in none, the last class for cells without one.
    w = (fractions.shape[2] if fractions is not None else 1) + 1
    lines = np.arange(len(classes))[:, None]
    key = (lines * w + np.where(columns < 0, w - 1, columns)) * (k + 1) + np.minimum(classes, k)
    cell_counts = np.bincount(key.ravel(), minlength=len(classes) * w * (k + 1)).reshape(len(classes), w, k + 1)
    areas = np.einsum("h,hwk->k", row_km2, cell_counts[:, :, :k])
    forcing, difference, covered = None, None, 0.0
    if cells is not None and fractions is not None:
        inside = rows >= 0
        h = fractions.shape[1]
        spread = np.zeros((h, len(rows)))
        spread[rows[inside], np.flatnonzero(inside)] = row_km2[inside]
        mapped = np.einsum("ih,hwk->iwk", spread, cell_counts[:, :-1], optimize=True)
        told_fractions = np.where(known[:, None, None], np.nan_to_num(fractions.astype(np.float64)), 0.0)
        # A cell of the sea has fractions of 0 throughout: nothing is said of it.
        told = told_fractions.sum(axis=0) > 0
        # Fractions are of the whole coarse cell, the sea included.
        wanted = told_fractions * np.where(told, mapped.sum(axis=-1), 0.0)
        mapped = np.where(told[..., None], mapped[..., :k], 0.0)
        forcing = wanted.sum(axis=(1, 2)).tolist()
        gap = np.abs(mapped.transpose(2, 0, 1) - wanted).sum(axis=(1, 2))
        difference = np.where(known, gap, 0.0).tolist()
        covered = float(mapped.sum())
    transitions, reverted = None, 0.0
    if before is not None:
        pairs = (lines * (k + 1) + np.minimum(before, k)) * (k + 1) + np.minimum(classes, k)
        moves = np.bincount(pairs.ravel(), minlength=len(classes) * (k + 1) ** 2).reshape(-1, k + 1, k + 1)
        transitions = np.einsum("h,hij->ij", row_km2, moves[:, :k, :k]).tolist()
        if earlier is not None:
            back = (earlier == classes) & (before != classes) & (classes < k) & (before < k)
            reverted = float(back.sum(axis=1) @ row_km2)
    return Ledger(float(areas.sum()), areas.tolist(), forcing, difference, covered, transitions, reverted)


def add_up(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
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


def yearly(totals: Mapping[int, Mapping[str, Any]], names: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Figures of every year from its sums.

    Parameters
    ----------
    totals : mapping of int to mapping
        Sums over all chunks, as :class:`earthsr.landuse.reconstruct.ledger.Ledger` has them.
    names : sequence of str
        Of the K classes.
    """
    by_year = {}
    for year, total in sorted(totals.items()):
        valid = total["valid_km2"] or 1.0
        figures: dict[str, Any] = {"areas_km2": dict(zip(names, total["areas_km2"], strict=True))}
        if total.get("forcing_km2") is not None and total["covered_km2"] > 0:
            covered = total["covered_km2"]
            figures["scenario_km2"] = dict(zip(names, total["forcing_km2"], strict=True))
            # Half of it is what would have to change class: what one class has too much another lacks.
            figures["area_error_percent"] = 100 * sum(total["difference_km2"]) / covered
            decoder = total.get("decoder")
            if decoder is not None:
                figures["area_error_percent_without_decoder"] = 100 * sum(decoder["difference_km2_before"]) / covered
                figures["cells_changed_by_decoder"] = decoder["cells_changed"]
                figures["coarse_cells"] = decoder["coarse_cells"]
                figures["coarse_cells_unmet"] = decoder["coarse_cells_unmet"]
        if total.get("transitions_km2") is not None:
            moves = np.array(total["transitions_km2"])
            figures["changed_percent"] = 100 * float(moves.sum() - np.trace(moves)) / valid
            figures["reverted_percent"] = 100 * total["reverted_km2"] / valid
        by_year[year] = figures
    return by_year


def by_decade(years: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the years of each decade, and the net change of areas in it."""
    rows = []
    for start in sorted({year // _DECADE * _DECADE for year in years}):
        within = [year for year in sorted(years) if start <= year < start + _DECADE]
        row: dict[str, Any] = {"decade": start, "years": [within[0], within[-1]]}
        for key in (
            "area_error_percent",
            "area_error_percent_without_decoder",
            "changed_percent",
            "reverted_percent",
        ):
            values = [years[year][key] for year in within if years[year].get(key) is not None]
            row[key] = float(np.mean(values)) if values else None
        first, last = years[within[0]]["areas_km2"], years[within[-1]]["areas_km2"]
        row["net_change_km2"] = {name: last[name] - first[name] for name in first}
        rows.append(row)
    return rows


def worst_years(years: Mapping[int, Mapping[str, Any]], count: int = 3) -> list[int]:
    """Years with the most change: a break in the scenario shows there."""
    changed = {year: values["changed_percent"] for year, values in years.items() if "changed_percent" in values}
    return sorted(changed, key=lambda year: (-changed[year], year))[:count]

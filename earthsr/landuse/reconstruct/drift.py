"""How a rollout behaves over time: areas against the scenario, change and change undone, by year and by decade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Decades begin with years that end on 0.
_DECADE = 10


def yearly(totals: Mapping[int, Mapping[str, Any]], names: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Figures of every year from its sums.

    Parameters
    ----------
    totals : mapping of int to mapping
        Sums over all chunks, as :class:`earthsr.landuse.reconstruct.counts.Ledger` has them.
    names : sequence of str
        Of the K classes.
    """
    found = {}
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
        found[year] = figures
    return found


def by_decade(years: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the years of each decade, and the net change of areas in it."""
    found = []
    for start in sorted({year // _DECADE * _DECADE for year in years}):
        here = [year for year in sorted(years) if start <= year < start + _DECADE]
        row: dict[str, Any] = {"decade": start, "years": [here[0], here[-1]]}
        for key in (
            "area_error_percent",
            "area_error_percent_without_decoder",
            "changed_percent",
            "reverted_percent",
        ):
            values = [years[year][key] for year in here if years[year].get(key) is not None]
            row[key] = float(np.mean(values)) if values else None
        first, last = years[here[0]]["areas_km2"], years[here[-1]]["areas_km2"]
        row["net_change_km2"] = {name: last[name] - first[name] for name in first}
        found.append(row)
    return found


def worst_years(years: Mapping[int, Mapping[str, Any]], count: int = 3) -> list[int]:
    """Years with the most change: a break in the scenario shows there."""
    changed = {year: values["changed_percent"] for year, values in years.items() if "changed_percent" in values}
    return sorted(changed, key=lambda year: (-changed[year], year))[:count]

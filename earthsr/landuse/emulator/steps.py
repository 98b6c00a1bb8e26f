"""Which steps a model can make: calendar years, those that it was trained on, and whether it can do without a prior."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from earthsr.backend import Model
from earthsr.errors import InputError
from earthsr.models import UNetSpec

#: Years that scenarios of land use are made for: LUH2 begins in 850, and its extensions end in 2300.
YEARS: Final = (850, 2300)


def require_year(year: Any) -> int:
    """Return a calendar year as an int.

    Raises
    ------
    InputError
        If it is none, or one of which no scenario of land use says anything.
    """
    whole = year
    if isinstance(year, float | np.floating) and math.isfinite(year) and year == int(year):
        whole = int(year)
    try:
        whole = operator.index(whole)
    except TypeError:
        raise InputError(f"year is {year!r}, expected a calendar year such as 2015") from None
    if isinstance(year, bool) or not YEARS[0] <= whole <= YEARS[1]:
        raise InputError(f"year is {year!r}, expected a calendar year from {YEARS[0]} to {YEARS[1]}")
    return whole


def years_between(before: int, year: int) -> tuple[int, ...]:
    """Years from the one after a map's to another, in the order in which they are stepped.

    Raises
    ------
    InputError
        If both are the same.
    """
    if year == before:
        raise InputError(f"the prior is of {year} itself; a step makes the map of another year, such as {year + 1}")
    direction = 1 if year > before else -1
    return tuple(range(before + direction, year + direction, direction))


def years_trained_on(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """First and last year of a checkpoint's training data that were not held out; None where it does not say."""
    try:
        data = metadata["training"]["data"]
        years = {int(year) for year in data["years"]} - {int(year) for year in data.get("held_out_years") or ()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return (min(years), max(years)) if years else None


def hidden_share(model: Model) -> float | None:
    """Share of training samples whose prior was hidden; 1 for a network without a prior, None where nothing says it.

    The checkpoint says it, or else the configuration of the run that it lies in.
    """
    if isinstance(model.spec, UNetSpec) and not model.spec.prior:
        return 1.0
    if "prior_hidden" in model.metadata:
        return float(model.metadata["prior_hidden"])
    weights = Path(str(model.metadata.get("source", "in memory")))
    path = weights.parent.parent.parent / "config.yaml"
    if weights.parent.parent.name != "checkpoints" or not path.is_file():
        return None
    try:
        return float(yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["prior_hidden"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None

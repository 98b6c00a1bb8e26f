"""What a step is asked for, as another program hands it over: its year, and the year's coarse fractions, checked.

Fractions are brought onto the emulator's coarse grid. What is wrong with them is said in one line, and nothing is put
right silently: percent are not divided by 100, a shifted grid is not moved, and no value over land is not taken as none
of any class.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import cells_of
from earthsr.geo.cf import spans
from earthsr.geo.grid import Grid, Window
from earthsr.geo.memory import Placed, cut_to, place, require_xarray, years_in
from earthsr.landuse.classes import OPTIONAL_STATES, ClassTable
from earthsr.landuse.fields import COARSE_CELL_DEG, require_fractions
from earthsr.landuse.sources.gaps import LAND, close_gaps, land_share
from earthsr.landuse.sources.scenario_files import (
    FRACTION_UNITS,
    around,
    held_states,
    looks_like_state,
    note_untied,
    variable_name,
)
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


_PERCENT: Final = ("%", "percent", "per cent", "percentage")
#: Over land fractions add up to nearly 1, ice and lakes left out: below this they are in another unit.
_LEAST_MEAN: Final = 0.1


@dataclass(eq=False)
class MemoryScenario:
    """Fractions of the years that a step was given."""

    grid: Grid
    channels: tuple[str, ...]
    of_class: Mapping[str, tuple[str, ...]]
    given: dict[int, NDArray[np.float32]]
    """(C, h, w) by year."""

    @property
    def years(self) -> tuple[int, ...]:
        """Years that were given."""
        return tuple(sorted(self.given))

    def fractions(self, year: int) -> NDArray[np.float32]:
        """Fractions of a year, (C, h, w), 0 to 1; 0 in the ocean."""
        return self.given[year]


def coarse_grid(fine: Grid, cell_deg: tuple[float, float] | None) -> Grid:
    """Coarse cells of a region and one around it, as far as there are any; all of the globe where that goes round.

    Parameters
    ----------
    fine : Grid
        Of the maps.
    cell_deg : tuple of float, optional
        Height and width of a coarse cell, whose edges are multiples of it; those of LUH2 where absent.

    Raises
    ------
    DataError
        If cells of this size do not go once around the Earth.
    """
    height, width = cell_deg or (COARSE_CELL_DEG, COARSE_CELL_DEG)
    columns, half = round(360 / width), math.ceil(90 / height - 1e-6)
    if abs(columns * width - 360) > 1e-3 * width:
        raise DataError(f"coarse cells of {width:g} degrees do not go once around the Earth, as an emulator needs it")
    west = math.floor(-180 / width + 1e-6) * width
    part = around(Grid(west, half * height, width, height, 2 * half, columns), fine)
    assert part is not None, "the whole Earth holds any region"
    return part.grid


def read_forcing(
    forcing: Any,
    years: Sequence[int],
    channels: Sequence[str],
    table: ClassTable,
    coarse: Grid,
    fine: Grid,
    land: NDArray[np.bool_],
    notes: list[str],
) -> dict[int, NDArray[np.float32]]:
    """Read the fractions of years.

    Parameters
    ----------
    forcing : Dataset or DataArray
        One variable a channel, or one array with a dimension ``channel`` that names them; on latitude and longitude
        in any order, of one year or with an axis of them.
    years : sequence of int
        Those that are needed, in the order of the steps.
    channels : sequence of str
        C channels of the model.
    table : ClassTable
        Of the checkpoint, for what is said of states that none of its classes is tied to.
    coarse, fine : Grid
        Of the emulator.
    land : ndarray of shape (rows, columns)
        Fine cells with a class that the forcing knows.
    notes : list of str
        States that no class is tied to are added, and warned of once.

    Returns
    -------
    dict of int to ndarray of shape (C, h, w)
        Fractions by year, 0 where there is no land.

    Raises
    ------
    InputError, DataError
        If channels, units, years, grid or values do not fit.
    """
    array = _channels_of(require_xarray(forcing, "forcing"), channels, table, years[-1], notes)
    axis, given_years = years_in(array, "forcing")
    if axis is None and len(years) > 1:
        raise InputError(_gap(years))
    if missing := [year for year in years if given_years and year not in given_years]:
        raise InputError(
            f"forcing is of {spans(given_years)}, asked for is {spans(missing)}; give the fractions of that year"
        )
    if axis is not None:
        if len(set(given_years)) < len(given_years):
            raise DataError(
                f"forcing has several steps in one of the years {spans(given_years)}; take its yearly means first"
            )
        array = array.isel({axis: [given_years.index(year) for year in years]}).transpose(axis, "channel", ...)
    unnamed = [d for d, cells in array.sizes.items() if cells == 1 and d != "channel" and d not in array.coords]
    array = array.squeeze(unnamed)
    placed = place(array, "forcing", (coarse.cell_y, coarse.cell_x))
    expected = 3 if axis is None else 4
    if placed.values.ndim != expected:
        raise DataError(f"forcing has the axes {', '.join(map(str, array.dims))}, expected channel, lat and lon")
    values = placed.values.astype(np.float32)
    stack = values[None] if axis is None else values
    return {
        year: _checked(Placed(placed.grid, fractions), year, channels, coarse, fine, land)
        for year, fractions in zip(years, stack, strict=True)
    }


def _gap(years: Sequence[int]) -> str:
    first = years[0] - 1 if years[-1] > years[0] else years[0] + 1
    return (
        f"the prior is of {first}, asked for is {years[-1]}, and the model goes year by year: step through "
        f"{spans(years)}, or give the forcing an axis of time with all of them"
    )


def _channels_of(forcing: Any, channels: Sequence[str], table: ClassTable, year: int, notes: list[str]) -> Any:
    """One array with the model's channels in its order, along ``channel``; units are checked.

    States that the channels lack are added to the channel that holds them in LUH2, and others are warned of.
    """
    xarray = geo_module("xarray")
    if isinstance(forcing, xarray.DataArray):
        if "channel" not in forcing.dims or "channel" not in forcing.coords:
            raise InputError(
                f"forcing has the axes {', '.join(map(str, forcing.dims))}, expected a dimension channel whose "
                f"coordinate names {', '.join(channels)}"
            )
        names = [str(name) for name in forcing["channel"].values]
        _require_channels(names, channels)
        _require_fractions(str(forcing.attrs.get("units", "")), "forcing")
        fields = {name: forcing.isel(channel=i, drop=True) for i, name in enumerate(names)}
    else:
        fields = {str(name): field for name, field in forcing.data_vars.items()}
        _require_channels(list(fields), channels)
    names = list(fields)
    like = fields[names[_find(names, next(c for c in channels if c not in OPTIONAL_STATES))]]
    picked = {
        channel: fields[names[_find(names, channel)]] if _held_in(names, channel) else like * 0 for channel in channels
    }
    for channel, field in picked.items():
        _require_fractions(str(field.attrs.get("units", "")), f"forcing: {channel}")
    if any(field.dims != like.dims for field in picked.values()):
        listed = "; ".join(f"{name} ({', '.join(map(str, field.dims))})" for name, field in picked.items())
        raise DataError(f"forcing: its channels have different axes: {listed}")
    taken = {name for channel in channels for name in (channel, variable_name(channel))}
    held = held_states(channels)
    for name, field in fields.items():
        if name in taken or not looks_like_state(name, field, like):
            continue
        if name in held:
            picked[held[name]] = picked[held[name]] + field
        share = float(np.where(np.isfinite(field), field, 0).sum() / max(int(np.isfinite(like).sum()), 1))
        note_untied("forcing", name, share, year, table, held.get(name), False, notes)
    return xarray.concat([picked[channel] for channel in channels], "channel").assign_coords(channel=list(channels))


def _held_in(names: Sequence[str], channel: str) -> bool:
    return channel in names or variable_name(channel) in names


def _find(names: Sequence[str], channel: str) -> int:
    return names.index(channel if channel in names else variable_name(channel))


def _require_channels(names: Sequence[str], channels: Sequence[str]) -> None:
    missing = [channel for channel in channels if not _held_in(names, channel) and channel not in OPTIONAL_STATES]
    if missing:
        raise InputError(
            f"forcing has no {', '.join(missing)}; the model reads {', '.join(channels)}, it has "
            f"{', '.join(names) or 'nothing'}"
        )


def _require_fractions(units: str, what: str) -> None:
    text = units.strip().lower()
    if text in _PERCENT:
        raise DataError(f"{what} is in {units}, expected fractions of 0 to 1 (units 1); divide by 100")
    if text not in FRACTION_UNITS:
        raise DataError(f"{what} is in {units!r}, expected fractions of the cell's area of 0 to 1 (units 1)")


def _checked(
    placed: Placed, year: int, channels: Sequence[str], coarse: Grid, fine: Grid, land: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Fractions (C, h, w) on the emulator's coarse grid."""
    values = cut_to(placed, coarse, np.nan, "forcing")
    covered = cut_to(placed._replace(values=np.ones(placed.values.shape[-2:], np.uint8)), coarse, 0, "forcing") > 0
    rows, columns = cells_of(coarse, fine, Window(0, 0, fine.rows, fine.columns))
    needed = np.zeros(covered.shape, bool)
    needed[np.ix_(np.unique(rows), np.unique(columns))] = True
    if (needed & ~covered).any():
        given, wanted = placed.grid.bounds, fine.bounds
        raise DataError(
            f"forcing covers {given.south:g} to {given.north:g} N, {given.west:g} to {given.east:g} E, the maps need "
            f"{wanted.south:g} to {wanted.north:g} N, {wanted.west:g} to {wanted.east:g} E; give the whole region"
        )
    values = _spread(values, covered)
    whole = Window(0, 0, fine.rows, fine.columns)
    share = land_share(coarse, fine, [whole], lambda _: land)
    close_gaps(values, share, channels, year, coarse, "forcing", remedy="fill them")
    require_fractions(values, channels, coarse, year, "forcing")
    sums = values.sum(axis=0)[share > LAND]
    if sums.size and sums.mean() < _LEAST_MEAN:
        raise DataError(
            f"forcing adds up to {sums.mean():.3g} over land in {year}, expected nearly 1; are these fractions of the "
            "cell's area, and of all channels?"
        )
    values.flags.writeable = False
    return values


def _spread(values: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Let cells around the region that were not given have what their nearest neighbour has."""
    if covered.all():
        return values
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    i = np.clip(np.arange(covered.shape[0]), rows[0], rows[-1])
    j = np.clip(np.arange(covered.shape[1]), columns[0], columns[-1])
    return values[:, i[:, None], j]

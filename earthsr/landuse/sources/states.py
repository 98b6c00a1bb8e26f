"""States of land use in scenarios: their names in LUH2 and LUH3, the classes they are tied to, and those that none is.

LUH2 (Hurtt et al., 2020) has twelve states, LUH3 (CMIP7) the same and forest plantations, ``pltns``. Both have
variables beside them that are no fractions (mean age and biomass of secondary land), and files of their form may hold
transitions (``primf_to_urban``) and management (``irrig_c3ann``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.classes import OPTIONAL_STATES, ClassTable
from earthsr.landuse.sources.scenario_files import ScenarioFile

STATES: Final = (
    *("primf", "primn", "secdf", "secdn", "urban"),
    *("c3ann", "c4ann", "c3per", "c4per", "c3nfx"),
    *("pastr", "range"),
    *OPTIONAL_STATES,
)

#: Units of fractions, as files of the field write them.
FRACTION_UNITS: Final = ("", "1", "fraction", "m2 m-2", "m2/m2", "km2 km-2", "km2/km2")

#: Variables of one value a year and cell in files of LUH2 and LUH3 that are no share of the cell: age and biomass of
#: secondary land, shares of harvest and of crops.
_OTHERS: Final = frozenset({"secma", "secmb", "rndwd", "fulwd", "combf", "flood"})

_logger = logging.getLogger("earthsr")


def variable_name(channel: str) -> str:
    """Name of the variable that holds a channel: letters, digits and underscores, as CF wants names.

    Parameters
    ----------
    channel : str
        Such as ``urban`` or ``grass/shrub``, which becomes ``grass_shrub``.
    """
    return re.sub(r"[^0-9A-Za-z_]", "_", channel)


def channels_of_classes(table: ClassTable, channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Forcing channels that make up each class; classes that the channels do not cover are left out."""
    of_class = {}
    for land_class in table.classes:
        if tied := land_class.tied(channels):
            of_class[land_class.name] = tied
        elif land_class.name in channels:
            of_class[land_class.name] = (land_class.name,)
    return of_class


def held_states(channels: Collection[str]) -> dict[str, str]:
    """States that ``channels`` lack, each with the channel that it is added to: LUH2 does not tell them apart."""
    return {state: holder for state, holder in OPTIONAL_STATES.items() if state not in channels and holder in channels}


def looks_like_state(name: str, variable: Any, like: Any) -> bool:
    """Whether a variable may be the share of a cell: by its axes, numbers, unit and name, not by its values.

    Parameters
    ----------
    name : str
        Of the variable.
    variable, like : DataArray
        The variable, and one that is a share of the cell.
    """
    parts = name.split("_")
    of_a_state = len(parts) > 1 and any(part in STATES for part in parts)  # transitions and management
    fraction = variable.dtype.kind == "f" or "scale_factor" in {**variable.attrs, **variable.encoding}
    units = str(variable.attrs.get("units", "")).strip().lower()
    return (
        name not in _OTHERS
        and not of_a_state
        and fraction
        and set(variable.dims) == set(like.dims)
        and units in FRACTION_UNITS
    )


def report_untied(
    files: Sequence[ScenarioFile],
    layers: Mapping[int, Mapping[int, int]],
    channels: Sequence[str],
    of_class: Mapping[str, Sequence[str]],
    table: ClassTable,
    window: Window,
    grid: Grid,
    notes: list[str],
) -> None:
    """Warn of states that files hold and no class is tied to, with their share of the land.

    Parameters
    ----------
    files : sequence of ScenarioFile
        Of the scenario.
    layers : mapping of int to mapping
        For each file, by its number: layer of each year that it gives; first and last are looked at.
    channels : sequence of str
        That are read.
    of_class : mapping
        Channels of each class.
    table : ClassTable
        Of the classes, for the message.
    window, grid : Window and Grid
        The part that is read, on the files' grid and its own.
    notes : list of str
        What is warned of is added, and what is tied to no class but holds nothing.
    """
    tied = {channel for parts in of_class.values() for channel in parts}
    known = tied | {variable_name(channel) for channel in tied}
    held = held_states(channels)
    for number, file in enumerate(files):
        years, (channel, first) = layers[number], next(iter(file.fields.items()))
        if not years:
            continue
        lands: dict[int, NDArray[np.bool_]] = {}
        like = file.dataset[channel if channel in file.dataset else variable_name(channel)]
        for name in map(str, file.dataset.data_vars):
            if name in known or not looks_like_state(name, file.dataset[name], like):
                continue
            field, shares = file.field(name), {}
            for year in sorted({min(years), max(years)}):
                if year not in lands:
                    lands[year] = np.isfinite(first.read(window, years[year]))
                shares[year] = share_of_land(field.read(window, years[year]), lands[year], grid)
            year = max(shares, key=lambda y: shares[y])
            note_untied(file.name, name, shares[year], year, table, held.get(name), name in channels, notes)


def share_of_land(values: NDArray[np.floating], land: NDArray[np.bool_], grid: Grid) -> float:
    """Mean of a fraction over cells with land, weighted by area."""
    weights = np.where(land, np.cos(np.deg2rad(grid.latitudes())).clip(0)[:, None], 0.0)
    whole = float(weights.sum())
    usable = np.where(np.isfinite(values) & (np.abs(values) <= 1.001), values, 0.0)
    return float((usable * weights).sum()) / whole if whole else 0.0


def note_untied(
    source: str,
    name: str,
    share: float,
    year: int,
    table: ClassTable,
    holder: str | None,
    read: bool,
    notes: list[str],
) -> None:
    """Note that no class is tied to a state, and warn where it holds anything."""
    if holder is not None:
        what = f"is added to {holder}, with which LUH2 counts it"
    else:
        what = "is read, but counts for none of the classes" if read else "is left out"
    note = f"{source}: {name} ({share:.2%} of the land in {year}) is tied to no class of table {table.name}: it {what}"
    if holder is None:
        note += "; a table that names it under forcing ties it to a class (--table)"
    if note in notes:
        return
    notes.append(note)
    if share > 0:
        _logger.warning(note)

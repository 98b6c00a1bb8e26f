"""Files of scenarios, laid beside each other, and the states of land use that are in them.

States have names in LUH2 and LUH3, and classes that are tied to them; of some none is.

LUH2 (Hurtt et al., 2020) has twelve states, LUH3 (CMIP7) the same and forest plantations, ``pltns``. Both have
variables beside them that are no fractions (mean age and biomass of secondary land), and files of their form may hold
transitions (``primf_to_urban``) and management (``irrig_c3ann``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.cf import require_yearly, spans
from earthsr.geo.fields import field_of, open_dataset
from earthsr.geo.grid import Cut, Grid, Window, cut, difference
from earthsr.geo.readers import kind_of
from earthsr.landuse.classes import OPTIONAL_STATES, ClassTable
from earthsr.landuse.sources.rasters import LonLatRaster

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

#: Which variable of a file is which channel, from the file's name and its data set.
Choose = Callable[[str, Any], Mapping[str, str]]

#: Fill values that a file does not declare: netCDF's 9.97e36 and CF's habit 1e20.
_FILL: Final = 1e19

_logger = logging.getLogger("earthsr")


@dataclass
class ScenarioFile:
    """One open scenario file."""

    path: Path
    dataset: Any
    fields: dict[str, LonLatRaster]
    """By channel."""
    years: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name without its folder."""
        return self.path.name

    @property
    def grid(self) -> Grid:
        """Grid of all variables."""
        return next(iter(self.fields.values())).grid

    def field(self, variable: str) -> LonLatRaster:
        """View of any variable of the file, a layer a year."""
        return LonLatRaster(field_of(self.path, variable, self.dataset, layers=True), self.path)

    def read(self, channels: Sequence[str], window: Window, layer: int) -> NDArray[np.float32]:
        """Fractions (C, rows, columns) of a layer; NaN where there is none."""
        fractions = np.empty((len(channels), window.rows, window.columns), np.float32)
        for values, channel in zip(fractions, channels, strict=True):
            values[:] = self.fields[channel].read(window, layer)
        fractions[np.isfinite(fractions) & (np.abs(fractions) > _FILL)] = np.nan
        return fractions


class Place(NamedTuple):
    """Where the fractions of a year are."""

    file: ScenarioFile
    layer: int


def open_files(paths: Sequence[Path], choose: Choose) -> list[ScenarioFile]:
    """Open files that are on one grid.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a variable, is not yearly, or is on another grid than the first.
    """
    files: list[ScenarioFile] = []
    try:
        for path in paths:
            files.append(_open(path, choose))
            differs = difference(files[-1].grid, files[0].grid)
            if differs is not None:
                raise DataError(f"{files[-1].name} is not on the grid of {files[0].name}: {differs}")
    except BaseException:
        close_files(files)
        raise
    return files


def close_files(files: Sequence[ScenarioFile]) -> None:
    """Close all files."""
    for file in files:
        file.dataset.close()


def _open(path: Path, choose: Choose) -> ScenarioFile:
    if not path.exists():
        raise DataError(f"{path}: no such scenario file")
    if kind_of(path) not in ("NetCDF", "Zarr"):
        raise DataError(f"{path.name}: is neither NetCDF nor Zarr, in which scenarios have a layer a year")
    dataset = open_dataset(path)
    try:
        fields = {
            channel: LonLatRaster(field_of(path, name, dataset, layers=True), path)
            for channel, name in choose(path.name, dataset).items()
        }
        first = next(iter(fields.values()))
        for field in fields.values():
            if field.years is None:
                raise DataError(f"{field.name} has no dimension time, expected one step a year")
            if field.years != first.years:
                raise DataError(f"{field.name} has other years than {first.name}")
        years = first.years or ()
        require_yearly(years, path.name)
        return ScenarioFile(path, dataset, fields, years)
    except BaseException:
        dataset.close()
        raise


def place_years(files: Sequence[ScenarioFile], notes: list[str]) -> dict[int, Place]:
    """Find file and layer of each year; the first file that has a year gives it, and what others have is noted."""
    places: dict[int, Place] = {}
    for file in files:
        twice = sorted(set(file.years) & set(places))
        if twice:
            first = {places[year].file.name: None for year in twice}
            notes.append(f"{file.name} also has {spans(twice)}: taken from {', '.join(first)}")
            _logger.warning(notes[-1])
        for layer, year in enumerate(file.years):
            places.setdefault(year, Place(file, layer))
    return places


def around(grid: Grid, fine: Grid) -> Cut | None:
    """Part of a scenario's grid that touches the fine one, with one cell around; None where nothing does.

    Longitudes count as those of the fine grid; of a global scenario that is needed all around it is the whole grid.
    """
    part = cut(grid, fine.bounds, margin=1)
    if part is not None and grid.periodic and part.window.columns >= grid.columns:
        # Once around the Earth, and no cell twice.
        window = part.window._replace(column=0, columns=grid.columns)
        part = Cut(window, grid.part(window))
    return part


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


def report_states(
    files: Sequence[ScenarioFile],
    places: Mapping[int, Place],
    channels: Sequence[str],
    of_class: Mapping[str, tuple[str, ...]],
    table: ClassTable,
    part: Cut,
    notes: list[str],
) -> None:
    """Note the states that a file lacks, and those that no class is tied to; warn where these hold land."""
    layers: dict[int, dict[int, int]] = {number: {} for number in range(len(files))}
    for year, place in places.items():
        layers[[place.file is file for file in files].index(True)][year] = place.layer
    for file in files:
        for state in OPTIONAL_STATES:
            if state in channels and state not in file.fields:
                notes.append(f"{file.name} has no {state}: taken as 0 (LUH2 counts it with {OPTIONAL_STATES[state]})")
    report_untied(files, layers, channels, of_class, table, part.window, part.grid, notes)


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

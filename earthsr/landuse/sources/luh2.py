"""Fractions of land-use states from LUH2's ``states.nc`` (Hurtt et al., 2020) and files of its form.

Fractions are of the whole cell. Oceans have no value there; here they have fractions of 0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from earthsr.errors import DataError, InputError
from earthsr.geo.grid import Cut, Grid
from earthsr.geo.times import spans
from earthsr.landuse.classes import ClassTable
from earthsr.landuse.fields import Forcing
from earthsr.landuse.sources.scenario import Scenario
from earthsr.landuse.sources.scenario_files import Place, ScenarioFile, around, close_files, open_files, place_years

STATES: Final = (
    *("primf", "primn", "secdf", "secdn", "urban"),
    *("c3ann", "c4ann", "c3per", "c4per", "c3nfx"),
    *("pastr", "range"),
)

_logger = logging.getLogger("earthsr")


def read_scenario(
    path: str | Path | Sequence[str | Path],
    years: Sequence[int],
    grid: Grid,
    table: ClassTable,
    notes: list[str] | None = None,
) -> Forcing:
    """Read the fractions of a scenario around a fine grid.

    Parameters
    ----------
    path : str, Path or sequence of them
        One file, or several that follow each other (``historical.nc``, ``ssp245.nc``); the first that has a year gives
        it.
    years : sequence of int
        Years that are wanted; those that the scenario does not have are reported and left out.
    grid : Grid
        Fine grid; its region and one coarse cell around it are read.
    table : ClassTable
        Whose classes name the variables that must be there; others of LUH2's twelve are read where they are.
    notes : list of str, optional
        What the provenance should say is added.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a variable, is not yearly, is on another grid than the first, does not reach the
        fine grid, or holds values that are no fractions; the message names file, variable, cell and year.
    InputError
        If no year is in common.
    """
    paths = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
    named = [name for each in table.classes for name in each.forcing]
    if not named:
        raise InputError(f"class table {table.name} names no forcing; give its classes `forcing: [variable, …]`")
    said = [] if notes is None else notes
    files = open_files(paths, lambda name, dataset: _variables(name, dataset, named, table))
    try:
        chosen = _choose(files, sorted(set(years)), said)
        channels = [c for c in (*STATES, *named) if all(c in f.fields for f in files)]
        channels = list(dict.fromkeys(channels))
        _report_uncommon(files, channels)
        part = _around(files[0], grid)
        of_class = {each.name: each.forcing for each in table.classes if each.forcing}
        scenario = Scenario(files, chosen, channels, part, of_class)
        shape = (len(chosen), len(channels), part.grid.rows, part.grid.columns)
        fractions = np.empty(shape, np.float32)
        source = ", ".join(file.name for file in files)
        dry, partial = 0, 0
        for y, year in enumerate(chosen):
            fractions[y] = scenario.raw(year)
            void = np.isnan(fractions[y])
            dry = max(dry, int(void.all(axis=0).sum()))
            partial += int((void.any(axis=0) & ~void.all(axis=0)).sum())
            fractions[y][void] = 0
        if dry:
            said.append(f"ocean cells filled with 0: up to {dry} of {part.grid.rows * part.grid.columns} in a year")
        if partial:
            said.append(f"{source}: some, not all fractions have no value in {partial} cells and years: taken as 0")
            _logger.warning(said[-1])
    finally:
        close_files(files)
    forcing = Forcing("scenario", part.grid, tuple(channels), tuple(chosen), fractions, of_class)
    forcing.check(source)
    return forcing


def _variables(name: str, dataset: Any, named: Sequence[str], table: ClassTable) -> dict[str, str]:
    """Variables to read, by their own names: what the classes are tied to, and LUH2's states that are there."""
    missing = [each for each in dict.fromkeys(named) if each not in dataset.data_vars]
    if missing:
        held = [each for each in STATES if each in dataset.data_vars]
        raise DataError(
            f"{name}: has no variable {', '.join(missing)}, which the classes of table {table.name} are tied "
            f"to; of LUH2's states it has {', '.join(held) or 'none'}"
        )
    return {each: each for each in (*STATES, *named) if each in dataset.data_vars}


def _choose(files: Sequence[ScenarioFile], years: list[int], notes: list[str]) -> Mapping[int, Place]:
    """Find file and layer of each year, and report the years that only one side has."""
    place = place_years(files, notes)
    source = ", ".join(file.name for file in files)
    chosen = {year: place[year] for year in years if year in place}
    if not chosen:
        raise InputError(f"no year in common: {source} has {spans(place)}, the class maps have {spans(years)}")
    for text, alone in (
        (f"{source} has no fractions for {{}}, which the class maps have", set(years) - set(place)),
        (f"no class map for {{}}, which {source} has", set(place) - set(years)),
    ):
        if alone:
            notes.append(f"{text.format(spans(alone))}: left out")
            _logger.warning(notes[-1])
    return chosen


def _report_uncommon(files: Sequence[ScenarioFile], channels: list[str]) -> None:
    for file in files:
        alone = [name for name in file.fields if name not in channels]
        if alone:
            _logger.warning("%s: %s left out, which not every scenario file has", file.name, ", ".join(alone))


def _around(file: ScenarioFile, fine: Grid) -> Cut:
    """Part of the scenario's grid that touches the fine one, with one cell around; all of it where that is global."""
    part = around(file.grid, fine)
    if part is None:
        box, here = fine.bounds, file.grid.bounds
        raise DataError(
            f"{file.name} covers {here.south:g} to {here.north:g} N, {here.west:g} to {here.east:g} E, which does not "
            f"reach the class maps at {box.south:g} to {box.north:g} N, {box.west:g} to {box.east:g} E"
        )
    return part

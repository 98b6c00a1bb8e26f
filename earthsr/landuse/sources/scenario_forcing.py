"""The coarse forcing of training data from a scenario: years that both have, states that classes are tied to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.cf import spans
from earthsr.geo.grid import Cut, Grid, Window
from earthsr.landuse.classes import OPTIONAL_STATES, ClassTable
from earthsr.landuse.fields import Forcing
from earthsr.landuse.sources.gaps import Fill, Gaps, land_share
from earthsr.landuse.sources.scenario import Scenario
from earthsr.landuse.sources.scenario_files import (
    STATES,
    Place,
    ScenarioFile,
    around,
    channels_of_classes,
    close_files,
    open_files,
    place_years,
    report_states,
)

_logger = logging.getLogger("earthsr")

#: Fine cells that are read at once where land is looked for.
_CELLS: Final = 2**24


@contextmanager
def scenario_forcing(
    path: str | Path | Sequence[str | Path],
    years: Sequence[int],
    grid: Grid,
    table: ClassTable,
    notes: list[str] | None = None,
    classes: Callable[[int, Window], NDArray[np.uint8]] | None = None,
    fill: Fill | None = None,
) -> Iterator[Forcing]:
    """Open the fractions of a scenario, LUH2's ``states.nc`` or files of its form, around a fine grid.

    Fractions are of the whole cell. Oceans have no value there; here they have fractions of 0. A year is read when it
    is asked for.

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
        Whose classes name the variables that must be there; other states of LUH2 and LUH3 are read where they are.
        Those that no class is tied to are warned of, with their share of the land.
    notes : list of str, optional
        What the provenance should say is added.
    classes : callable, optional
        Class indices of a year and a window of the fine grid: where these have a class that the scenario knows, it has
        to have a value, or ``fill`` says what stands for it. Without them no value is taken as 0.
    fill : {"nearest"}, optional
        What stands for a value that is not there.

    Yields
    ------
    Forcing
        Of the years that are there; files are closed at the end of the block.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a variable, is not yearly, is on another grid than the first, or does not reach
        the fine grid; and when a year is read, if it has no value over land or holds values that are no fractions. The
        message names file, variable, cell and year.
    InputError
        If no year is in common.
    """
    paths = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
    named = [name for land_class in table.classes for name in land_class.forcing]
    if not named:
        raise InputError(f"class table {table.name} names no forcing; give its classes `forcing: [variable, …]`")
    notes = [] if notes is None else notes
    files = open_files(paths, lambda name, dataset: _variables(name, dataset, named, table))
    try:
        chosen = _choose(files, sorted(set(years)), notes)
        shared = [any if state in OPTIONAL_STATES else all for state in (*STATES, *named)]
        channels = [c for c, rule in zip((*STATES, *named), shared, strict=True) if rule(c in f.fields for f in files)]
        channels = list(dict.fromkeys(channels))
        _report_uncommon(files, channels)
        part = _around(files[0], grid)
        of_class = channels_of_classes(table, channels)
        scenario = Scenario(files, chosen, channels, part, of_class)
        report_states(files, chosen, channels, of_class, table, part, notes)
        if classes is not None:
            scenario.require_land(_land_share(classes, chosen, part.grid, grid, table, of_class), fill)
        source = ", ".join(file.name for file in files)
        remarks: list[str] = []
        dry, gaps = 0, Gaps()

        def read(year: int) -> NDArray[np.float32]:
            nonlocal dry, gaps
            fractions = scenario.fractions(year)
            dry = max(dry, int((fractions == 0).all(axis=0).sum()))
            gaps = max(gaps, scenario.gaps(year), key=lambda counted: counted.filled + counted.left)
            cells = part.grid.rows * part.grid.columns
            remarks[:] = [f"ocean cells filled with 0: up to {dry} of {cells} in a year"] if dry else []
            remarks.extend(gaps.note(source))
            return fractions

        yield Forcing("scenario", part.grid, tuple(channels), tuple(chosen), read, of_class, remarks)
    finally:
        close_files(files)


def _land_share(
    classes: Callable[[int, Window], NDArray[np.uint8]],
    years: Iterable[int],
    coarse: Grid,
    fine: Grid,
    table: ClassTable,
    of_class: Mapping[str, tuple[str, ...]],
) -> NDArray[np.float64]:
    """Share of each coarse cell that the map of the first year gives a class that the scenario knows."""
    known = np.zeros(256, bool)
    known[: len(table)] = [name in of_class for name in table.names]
    first = min(years)
    rows = max(1, _CELLS // fine.columns)
    bands = (Window(top, 0, min(rows, fine.rows - top), fine.columns) for top in range(0, fine.rows, rows))
    return land_share(coarse, fine, bands, lambda window: known[classes(first, window)])


def _variables(name: str, dataset: Any, named: Sequence[str], table: ClassTable) -> dict[str, str]:
    """Variables to read, by their own names: what the classes are tied to, and LUH2's states that are there."""
    present = [state for state in (*STATES, *named) if state in dataset.data_vars]
    missing = [name for name in dict.fromkeys(named) if name not in present and name not in OPTIONAL_STATES]
    if missing:
        held = [state for state in STATES if state in present]
        raise DataError(
            f"{name}: has no variable {', '.join(missing)}, which the classes of table {table.name} are tied "
            f"to; of LUH2's states it has {', '.join(held) or 'none'}"
        )
    return {name: name for name in present}


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
        alone = [name for name in file.fields if name not in channels and name not in OPTIONAL_STATES]
        if alone:
            _logger.warning("%s: %s left out, which not every scenario file has", file.name, ", ".join(alone))


def _around(file: ScenarioFile, fine: Grid) -> Cut:
    """Part of the scenario's grid that touches the fine one, with one cell around; all of it where that is global."""
    part = around(file.grid, fine)
    if part is None:
        box, reach = fine.bounds, file.grid.bounds
        raise DataError(
            f"{file.name} covers {reach.south:g} to {reach.north:g} N, {reach.west:g} to {reach.east:g} E, which does "
            f"not reach the class maps at {box.south:g} to {box.north:g} N, {box.west:g} to {box.east:g} E"
        )
    return part

"""Fractions of land-use states from LUH2's ``states.nc`` (Hurtt et al., 2020) and files of its form.

Fractions are of the whole cell. Oceans have no value there; here they have fractions of 0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.areas import Grid
from earthsr.data.archives.grids import Cut, box_of, cut, difference, part_of
from earthsr.data.archives.rasters import NetCdf, open_dataset
from earthsr.data.archives.times import require_yearly, spans
from earthsr.data.classes import ClassTable
from earthsr.data.landuse_source import Forcing
from earthsr.errors import DataError, InputError

STATES: Final = (
    *("primf", "primn", "secdf", "secdn", "urban"),
    *("c3ann", "c4ann", "c3per", "c4per", "c3nfx"),
    *("pastr", "range"),
)
#: Fill values that a file does not declare: netCDF's 9.97e36 and CF's habit 1e20.
_FILL: Final = 1e19

_logger = logging.getLogger("earthsr")


@dataclass
class _File:
    """One open scenario file."""

    name: str
    dataset: Any
    fields: dict[str, NetCdf]
    years: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        return next(iter(self.fields.values())).grid


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
    files: list[_File] = []
    try:
        for each in paths:
            files.append(_open(each, named, table))
            differs = difference(files[-1].grid, files[0].grid)
            if differs is not None:
                raise DataError(f"{files[-1].name} is not on the grid of {files[0].name}: {differs}")
        chosen = _choose(files, sorted(set(years)), said)
        channels = [c for c in (*STATES, *named) if all(c in f.fields for f in files)]
        channels = list(dict.fromkeys(channels))
        _report_uncommon(files, channels)
        part = _around(files[0], grid)
        shape = (len(chosen), len(channels), part.grid.rows, part.grid.columns)
        fractions = np.empty(shape, np.float32)
        source = ", ".join(file.name for file in files)
        dry, partial = 0, 0
        for y, (file, layer) in enumerate(chosen.values()):
            for c, channel in enumerate(channels):
                fractions[y, c] = _without_fill(file.fields[channel].values(part.window, layer))
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
        for file in files:
            file.dataset.close()
    of_class = {each.name: each.forcing for each in table.classes if each.forcing}
    forcing = Forcing("scenario", part.grid, tuple(channels), tuple(chosen), fractions, of_class)
    forcing.check(source)
    return forcing


def _open(path: Path, named: Sequence[str], table: ClassTable) -> _File:
    if not path.is_file():
        raise DataError(f"{path}: no such scenario file")
    dataset = open_dataset(path)
    try:
        missing = [name for name in dict.fromkeys(named) if name not in dataset.data_vars]
        if missing:
            held = [name for name in STATES if name in dataset.data_vars]
            raise DataError(
                f"{path.name}: has no variable {', '.join(missing)}, which the classes of table {table.name} are tied "
                f"to; of LUH2's states it has {', '.join(held) or 'none'}"
            )
        wanted = dict.fromkeys(name for name in (*STATES, *named) if name in dataset.data_vars)
        fields = {name: NetCdf(path, name, dataset) for name in wanted}
        first = next(iter(fields.values()))
        for field in fields.values():
            if field.years is None:
                raise DataError(f"{field.name} has no dimension time, expected one step a year")
            if field.years != first.years:
                raise DataError(f"{field.name} has other years than {first.name}")
        years = first.years or ()
        require_yearly(years, path.name)
        return _File(path.name, dataset, fields, years)
    except BaseException:
        dataset.close()
        raise


def _choose(files: list[_File], years: list[int], notes: list[str]) -> dict[int, tuple[_File, int]]:
    """Find file and layer of each year, and report the years that only one side has."""
    place: dict[int, tuple[_File, int]] = {}
    for file in files:
        twice = sorted(set(file.years) & set(place))
        if twice:
            first = {place[year][0].name: None for year in twice}
            notes.append(f"{file.name} also has {spans(twice)}: taken from {', '.join(first)}")
            _logger.warning(notes[-1])
        for layer, year in enumerate(file.years):
            place.setdefault(year, (file, layer))
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


def _report_uncommon(files: list[_File], channels: list[str]) -> None:
    for file in files:
        alone = [name for name in file.fields if name not in channels]
        if alone:
            _logger.warning("%s: %s left out, which not every scenario file has", file.name, ", ".join(alone))


def _around(file: _File, fine: Grid) -> Cut:
    """Part of the scenario's grid that touches the fine one, with one cell around; all of it where that is global."""
    box, here = box_of(fine), box_of(file.grid)
    part = cut(file.grid, box, margin=1)
    if part is None:
        raise DataError(
            f"{file.name} covers {here.south:g} to {here.north:g} N, {here.west:g} to {here.east:g} E, which does not "
            f"reach the class maps at {box.south:g} to {box.north:g} N, {box.west:g} to {box.east:g} E"
        )
    if file.grid.periodic and part.window.columns >= file.grid.columns:
        # Once around the Earth, and no cell twice.
        window = part.window._replace(column=0, columns=file.grid.columns)
        part = Cut(window, part_of(file.grid, window))
    return part


def _without_fill(values: NDArray[np.float32]) -> NDArray[np.float32]:
    fill = np.isfinite(values) & (np.abs(values) > _FILL)
    return np.where(fill, np.float32(np.nan), values)

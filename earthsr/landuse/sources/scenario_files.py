"""Files of yearly fractions on one coarse grid: opened, put one after another, and read a year at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.fields import field_of, open_dataset
from earthsr.geo.grid import Cut, Grid, cut, difference
from earthsr.geo.lonlat import LonLatRaster
from earthsr.geo.readers import kind_of
from earthsr.geo.times import require_yearly, spans
from earthsr.geo.window import Window

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

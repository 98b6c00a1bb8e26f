"""A scenario's fractions year by year: several files that follow each other, and no more of them in memory than needed.

Where one file ends and the next begins, fractions may jump: how far, beside what they change from year to year inside
the files, is measured when the scenario is opened.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.cf import spans
from earthsr.geo.grid import Cut, Grid, centres_of, covers
from earthsr.landuse.classes import OPTIONAL_STATES, ClassTable
from earthsr.landuse.fields import require_fractions
from earthsr.landuse.sources.gaps import Fill, Gaps, close_gaps
from earthsr.landuse.sources.scenario_files import (
    Place,
    ScenarioFile,
    around,
    channels_of_classes,
    close_files,
    held_states,
    open_files,
    place_years,
    report_states,
    variable_name,
)

#: Years that stay in memory: windows of this year and the next one take turns.
_KEPT_YEARS: Final = 2
#: Pairs of neighbouring years on each side of a join that tell what is ordinary.
_ORDINARY_PAIRS: Final = 5
#: Fractions that differ by less are the same but for rounding.
_ROUNDING: Final = 5e-7

_logger = logging.getLogger("earthsr")


@dataclass(frozen=True)
class Join:
    """Where one file ends and the next begins.

    Changes are means over the scenario's grid of the absolute difference between two years, weighted by area (the
    cosine of the latitude), of cells that are not ocean in both years.
    """

    year: int
    """First year of the later file."""
    before: str
    """Name of the file of the year before."""
    after: str
    """Name of the file of the year."""
    jump: dict[str, float]
    """Change from the year before to the year, by channel."""
    ordinary: dict[str, float]
    """Mean change between neighbouring years inside the files, up to five on each side, by channel; empty where both
    have but one year there."""


class _Year(NamedTuple):
    fractions: NDArray[np.float32]
    """(C, h, w), 0 in the ocean."""
    land: NDArray[np.bool_]
    """(h, w), cells with any value in the file."""
    gaps: Gaps
    """Cells with land among the others."""


class Scenario:
    """Fractions of a scenario around a fine grid, read when they are asked for.

    Parameters
    ----------
    files : sequence of ScenarioFile
        On one grid; closed with the scenario.
    places : mapping
        File and layer of each year.
    channels : sequence of str
        Which fields of the files.
    part : Cut
        Window of the files' grid, and its own grid.
    of_class : mapping
        Channels that add up to a class, by its name.
    """

    def __init__(
        self,
        files: Sequence[ScenarioFile],
        places: Mapping[int, Place],
        channels: Sequence[str],
        part: Cut,
        of_class: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.grid: Grid = part.grid
        self.channels = tuple(channels)
        self.years = tuple(sorted(places))
        self.of_class = dict(of_class)
        self.joins: tuple[Join, ...] = ()
        self._files, self._places, self._window = tuple(files), dict(places), part.window
        self._held = held_states(self.channels)
        self._land_share: NDArray[np.floating] | None = None
        self._fill: Fill | None = None
        self._kept: OrderedDict[int, _Year] = OrderedDict()
        self._lock = threading.Lock()
        self._remarked: set[str] = set()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files in the order in which they were given."""
        return tuple(file.path for file in self._files)

    def raw(self, year: int) -> NDArray[np.float32]:
        """Fractions of a year as the file has them, (C, h, w), NaN where there is none; nothing is checked or kept.

        Raises
        ------
        InputError
            If the scenario does not have the year.
        """
        place = self._place(year)
        with self._lock:
            return self._stored(place)

    def require_land(self, share: NDArray[np.floating], fill: Fill | None = None) -> None:
        """Refuse, or fill, what has no value over land from now on; without this it is 0.

        Parameters
        ----------
        share : ndarray of shape (h, w)
            Share of each coarse cell that is land, as :func:`earthsr.landuse.sources.gaps.land_share` gives it.
        fill : {"nearest"}, optional
            What stands for a value that is not there; an error names the cell where absent.
        """
        with self._lock:
            self._land_share, self._fill = share, fill
            self._kept.clear()

    def gaps(self, year: int) -> Gaps:
        """Coarse cells with land of which the scenario says nothing in a year; none where nothing was required."""
        with self._lock:
            return self._year(year).gaps

    def fractions(self, year: int) -> NDArray[np.float32]:
        """Fractions of a year, (C, h, w), 0 to 1 of the area of the coarse cell; 0 in the ocean.

        The last two years are kept, and given as they are: the array cannot be written to. Threads may call this.

        Raises
        ------
        InputError
            If the scenario does not have the year.
        DataError
            If the file is damaged, a fraction is outside 0 to 1, those of a cell add up to more, or land has none
            (:meth:`require_land`); the message names file, variable, cell and year.
        """
        with self._lock:
            return self._year(year).fractions

    def close(self) -> None:
        """Close all files."""
        close_files(self._files)

    def _place(self, year: int) -> Place:
        if year not in self._places:
            names = ", ".join(file.name for file in self._files)
            raise InputError(f"{names}: no fractions for {year}, there are those of {spans(self.years)}")
        return self._places[year]

    def _year(self, year: int) -> _Year:
        if year in self._kept:
            self._kept.move_to_end(year)
        else:
            # Before the year is read, so that no third one is in memory meanwhile.
            while len(self._kept) >= _KEPT_YEARS:
                self._kept.popitem(last=False)
            self._kept[year] = self._read(self._place(year), year)
        return self._kept[year]

    def _stored(self, place: Place) -> NDArray[np.float32]:
        """Fractions (C, h, w) as a file has them, NaN where there is none.

        Of states that not every scenario has, those that this one lacks are 0, and those that the channels lack are
        added to the state that holds them elsewhere.
        """
        file = place.file
        present = [name for name in (*self.channels, *self._held) if name in file.fields]
        stored = file.read(present, self._window, place.layer)
        if present == list(self.channels):
            return stored
        by_name = dict(zip(present, stored, strict=True))
        blank = np.where(np.isnan(stored).all(axis=0), np.float32(np.nan), np.float32(0))
        values = np.stack([by_name.get(channel, blank) for channel in self.channels])
        for state, holder in self._held.items():
            if state in by_name:
                values[self.channels.index(holder)] += by_name[state]
        return values

    def _read(self, place: Place, year: int) -> _Year:
        file = place.file
        values = self._stored(place)
        void = np.isnan(values)
        land = ~void.all(axis=0)
        gaps = Gaps()
        if self._land_share is not None:
            gaps = close_gaps(values, self._land_share, self.channels, year, self.grid, file.name, self._fill)
            self._remark(gaps.note(file.name))
        else:
            partial = int((void.any(axis=0) & land).sum())
            if partial:
                self._remark(
                    [f"{file.name}: some, not all fractions have no value in {partial} cells of {year}: taken as 0"]
                )
            values[void] = 0
        require_fractions(values, self.channels, self.grid, year, file.name)
        values.flags.writeable = False
        return _Year(values, land, gaps)

    def _remark(self, notes: Sequence[str]) -> None:
        """Warn once."""
        for note in notes:
            if note not in self._remarked:
                self._remarked.add(note)
                _logger.warning(note)


def open_scenario(
    paths: Sequence[str | Path], channels: Sequence[str], table: ClassTable, fine: Grid, notes: list[str]
) -> Scenario:
    """Open a scenario around a fine grid.

    Parameters
    ----------
    paths : sequence of str or Path
        Files that follow each other, in any order (``historical.nc``, ``ssp245.nc``); of those that have a year the
        first one gives it.
    channels : sequence of str
        Variables to read, in this order; of names that NetCDF does not allow (``grass/shrub``) the variable is
        :func:`~earthsr.landuse.sources.scenario_files.variable_name`.
    table : ClassTable
        Whose classes the channels stand for: those of a class's ``forcing`` where they are all there, else the channel
        that has the class's own name.
    fine : Grid
        Its region and one coarse cell around it are read; all of a global scenario where that is needed all around.
    notes : list of str
        What the provenance should say is added: years that two files have and how much they differ there, years that
        are missing inside a file.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a variable, is not yearly, is on another grid than the first, or does not cover
        the fine grid; or a value that is read to measure the joins is no fraction.
    InputError
        If no file is given, or years are missing between two of them.
    """
    if not paths:
        raise InputError("no scenario is given; --scenario FILE, states.nc of LUH2 or one of its form")
    files = open_files([Path(path) for path in paths], lambda name, dataset: _variables(name, dataset, channels))
    try:
        places = place_years(files, notes)
        _require_joined(places)
        _note_missing(files, places, notes)
        part, of_class = _part(files[0], fine), channels_of_classes(table, channels)
        scenario = Scenario(files, places, channels, part, of_class)
        report_states(files, places, channels, of_class, table, part, notes)
        _note_overlaps(scenario, notes)
        years = scenario.years
        changes = [b for a, b in itertools.pairwise(years) if places[a].file is not places[b].file]
        scenario.joins = tuple(_join(scenario, year) for year in changes)
    except BaseException:
        close_files(files)
        raise
    return scenario


def _variables(name: str, dataset: Any, channels: Sequence[str]) -> dict[str, str]:
    """Variable of each channel."""
    by_channel, missing = {}, []
    for channel in (*channels, *held_states(channels)):
        names = (channel, variable_name(channel))
        variable = next((key for key in names if key in dataset.data_vars), None)
        if variable is not None:
            by_channel[channel] = variable
        elif channel not in OPTIONAL_STATES:
            missing.append(channel)
    if missing or not by_channel:
        held = [str(key) for key in dataset.data_vars]
        listed = ", ".join(held[:20]) + (f" and {len(held) - 20} more" if len(held) > 20 else "")
        raise DataError(
            f"{name}: has no variable {', '.join(missing)}, which the model reads; it has {listed or 'none'}; give the "
            "scenario in the variables that the model was trained with"
        )
    return by_channel


def _part(file: ScenarioFile, fine: Grid) -> Cut:
    covered, centres = file.grid.bounds, centres_of(fine)
    part = around(file.grid, fine) if covers(file.grid, centres) else None
    if part is None:
        raise DataError(
            f"{file.name} covers {covered.south:g} to {covered.north:g} N, {covered.west:g} to {covered.east:g} E, the "
            f"maps need {centres.south:g} to {centres.north:g} N, {centres.west:g} to {centres.east:g} E; take a "
            "scenario of the whole region, or --bbox a smaller one"
        )
    return part


def _require_joined(places: Mapping[int, Place]) -> None:
    years = sorted(places)
    for before, after in itertools.pairwise(years):
        first, second = places[before].file, places[after].file
        if after > before + 1 and first is not second:
            raise InputError(
                f"no fractions for {spans(range(before + 1, after))} between {first.name}, which ends with {before}, "
                f"and {second.name}, which goes on with {after}; give --scenario a file that has them too"
            )


def _note_missing(files: Sequence[ScenarioFile], places: Mapping[int, Place], notes: list[str]) -> None:
    for file in files:
        missing = set(range(file.years[0], file.years[-1])) - set(file.years) - set(places)
        if missing:
            notes.append(f"{file.name} has no fractions for {spans(missing)}, which no other file has")
            _logger.warning(notes[-1])


def _change(first: _Year, second: _Year, channels: Sequence[str], grid: Grid) -> dict[str, float]:
    """Mean absolute difference of two years by channel, weighted by area, over cells that are not ocean in both."""
    weights = np.where(first.land | second.land, np.cos(np.deg2rad(grid.latitudes())).clip(0)[:, None], 0.0)
    whole = float(weights.sum())
    by_channel = {}
    for c, channel in enumerate(channels):
        differences = np.abs(second.fractions[c].astype(np.float64) - first.fractions[c])
        by_channel[channel] = float((differences * weights).sum()) / whole if whole else 0.0
    return by_channel


def _join(scenario: Scenario, year: int) -> Join:
    """Measure the change into a year whose file is another than that of the year before."""
    places = scenario._places
    sides = (places[year - 1].file, places[year].file)
    first, last = year - 1, year
    while year - first <= _ORDINARY_PAIRS and first - 1 in places and places[first - 1].file is sides[0]:
        first -= 1
    while last - year < _ORDINARY_PAIRS and last + 1 in places and places[last + 1].file is sides[1]:
        last += 1
    jump: dict[str, float] = {}
    ordinary: list[dict[str, float]] = []
    with scenario._lock:
        for later in range(first + 1, last + 1):
            pair = scenario._year(later - 1), scenario._year(later)
            change = _change(*pair, scenario.channels, scenario.grid)
            if later == year:
                jump = change
            else:
                ordinary.append(change)
    means = (
        {c: float(np.mean([pair_change[c] for pair_change in ordinary])) for c in scenario.channels} if ordinary else {}
    )
    return Join(year, sides[0].name, sides[1].name, jump, means)


def _note_overlaps(scenario: Scenario, notes: list[str]) -> None:
    """Say how much files differ in years that both have: those of two scenarios that do not belong together do.

    The first and the last year of an overlap are compared; the first is where two scenarios are alike.
    """
    places = scenario._places
    for file in scenario._files:
        twice: dict[str, list[int]] = {}
        for year in file.years:
            if places[year].file is not file:
                twice.setdefault(places[year].file.name, []).append(year)
        for name, years in twice.items():
            for year in dict.fromkeys((years[0], years[-1])):
                dropped = scenario._read(Place(file, file.years.index(year)), year)
                change = _change(scenario._read(places[year], year), dropped, scenario.channels, scenario.grid)
                notes.append(f"{file.name} and {name} {_in_words(change, year)}")
                if max(change.values()) > _ROUNDING:
                    _logger.warning(notes[-1])


def _in_words(change: Mapping[str, float], year: int) -> str:
    apart = {c: value for c, value in sorted(change.items(), key=lambda item: -item[1]) if value > _ROUNDING}
    if not apart:
        return f"agree in {year}"
    listed = ", ".join(f"{channel} {value:.2g}" for channel, value in apart.items())
    others = ", others 0" if len(apart) < len(change) else ""
    return f"differ in {year} by {listed}{others} (mean absolute difference of the fractions over land)"

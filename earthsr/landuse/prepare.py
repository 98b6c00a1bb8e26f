"""From archives to land-use files: years that all sources have, fields put together, checked, and written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from earthsr.errors import InputError
from earthsr.geo.times import spans
from earthsr.landuse.classes import HILDA_PLUS, ClassTable
from earthsr.landuse.sources.class_maps import ClassMaps
from earthsr.landuse.sources.fine import ArchiveSource
from earthsr.landuse.sources.luh2 import read_scenario
from earthsr.landuse.sources.statics import open_statics
from earthsr.landuse.write import SPLITS, SplitPlan, Written, write_landuse
from earthsr.store import files_together, require_free

_logger = logging.getLogger("earthsr")

Span = tuple[int, int]


def prepare_landuse(
    root: str | Path,
    classes: Sequence[str],
    static: Sequence[str],
    scenario: Sequence[str | Path] = (),
    table: ClassTable = HILDA_PLUS,
    plan: SplitPlan | None = None,
    years: Span | None = None,
    hold_out: Sequence[Span] = (),
    coarse_cell_deg: float = 0.25,
    overwrite: bool = False,
) -> Written:
    """Write land-use files from class rasters, static fields and, where there is one, a scenario.

    Parameters
    ----------
    root : str or Path
        Folder to write into.
    classes : sequence of str
        ``PATH`` or ``YEAR=PATH``: GeoTIFF of one year, or NetCDF of one and more.
    static : sequence of str
        ``NAME=PATH``, ``NAME:UNITS=PATH``, ``latitude``, ``longitude``, ``distance_to_coast`` or ``slope``.
    scenario : sequence of str or Path
        Files of LUH2's form; fractions are aggregated from the classes (``oracle``) where there is none.
    table : ClassTable
        What codes mean.
    plan : SplitPlan, optional
        How space is divided; its held-out years are joined with ``hold_out``.
    years : tuple of int, optional
        First and last year to take; all that the sources have where absent.
    hold_out : sequence of tuple of int
        First and last year of spans that training never sees.
    coarse_cell_deg : float
        Cell size of an aggregated forcing.
    overwrite : bool
        Replace data that the folder holds already.

    Raises
    ------
    InputError, DataError
        If something does not fit; the message names file, variable, cell and year, and nothing is written.
    """
    plan = plan or SplitPlan()
    if not coarse_cell_deg > 0:
        raise InputError(f"coarse cells are {coarse_cell_deg:g} degrees, expected more than 0")
    require_free(Path(root), SPLITS, overwrite)
    notes: list[str] = []
    with ExitStack() as stack:
        maps = ClassMaps(classes, table)
        stack.callback(maps.close)
        taken = _take(maps.years, years, notes)
        forcing = None
        if scenario:
            forcing = read_scenario([Path(path) for path in scenario], taken, maps.grid, table, notes)
            taken = forcing.years
        plan = replace(plan, held_out_years=_held_out(plan, hold_out, taken))
        if not plan.shares[1]:
            _logger.warning("no validation split is written (its share is 0); earthsr train needs one")
        statics = open_statics(static, maps, taken[0], notes)
        stack.callback(statics.close)
        source = ArchiveSource(maps, statics, taken)
        # What can be refused is refused before hours of reading.
        plan.check(source)
        plan.tiles(source.grid)
        if forcing is not None:
            source.check()  # an aggregation reads every cell anyway
        parameters = {**asdict(plan), "coarse_cell_deg": coarse_cell_deg if forcing is None else None}
        source.describe([Path(path) for path in scenario], parameters, notes)
        files = [f"{split}/{split}.h5" for split in SPLITS]
        with files_together(Path(root), SPLITS, overwrite, files) as folder:
            return write_landuse(folder, source, plan, forcing, coarse_cell_deg)


def _take(held: tuple[int, ...], wanted: Span | None, notes: list[str]) -> tuple[int, ...]:
    """Choose the years of the class maps, and report those that are missing among them."""
    first, last = wanted or (held[0], held[-1])
    taken = tuple(year for year in held if first <= year <= last)
    if not taken:
        raise InputError(f"no class map for {first} to {last}; there are maps for {spans(held)}")
    missing = set(range(first, last + 1)) - set(held)
    if missing:
        notes.append(f"no class map for {spans(missing)}: left out")
        _logger.warning(notes[-1])
    return taken


def _held_out(plan: SplitPlan, asked: Sequence[Span], years: Sequence[int]) -> tuple[int, ...]:
    found = set(plan.held_out_years)
    for first, last in asked:
        inside = {year for year in years if first <= year <= last}
        if not inside:
            raise InputError(f"held-out years {first} to {last} are not in the data, which have {spans(years)}")
        found |= inside
    return tuple(sorted(found))

"""From archives to land-use files: years that all sources have, fields put together, checked, and written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.errors import InputError
from earthsr.geo.cf import spans
from earthsr.geo.grid import Window
from earthsr.inference.pieces import Place as WorkPlace
from earthsr.inference.pieces import Scheduler
from earthsr.landuse.classes import HILDA_PLUS, ClassTable
from earthsr.landuse.fields import ContinuousField
from earthsr.landuse.sources.gaps import Fill, require_fill
from earthsr.landuse.sources.rasters import ClassMaps
from earthsr.landuse.sources.scenario_forcing import scenario_forcing
from earthsr.landuse.sources.statics import StaticFields, describe_statics, open_statics
from earthsr.landuse.tile_work import TileStages
from earthsr.landuse.write import SPLITS, SplitPlan, Written, write_landuse
from earthsr.store import absolute, files_together, fingerprint, require_free, require_other

_logger = logging.getLogger("earthsr")

Span = tuple[int, int]

#: Attributes of HDF5 hold 64 KB; beyond so many files one checksum stands for all.
_MOST_FILES: Final = 200


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
    fill_scenario: Fill | None = None,
    scheduler: Scheduler | None = None,
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
    fill_scenario : {"nearest"}, optional
        What stands for fractions that the scenario lacks over land; an error that names the cell where absent.
    scheduler : Scheduler, optional
        Who reads the tiles (:func:`earthsr.inference.make_scheduler`): this process where absent.

    Returns
    -------
    Written
        Tiles and years per split, and the kind of forcing.

    Raises
    ------
    InputError, DataError
        If something does not fit; the message names file, variable, cell and year, and nothing is written.

    Examples
    --------
    >>> import earthsr
    >>> folder = "runs/landuse-data/archives"
    >>> done = earthsr.prepare_landuse(
    ...     "tiles",
    ...     [f"{folder}/landuse_1970.tif", f"{folder}/landuse_1999.tif"],
    ...     [f"elevation={folder}/static.nc", "latitude"],
    ...     table=earthsr.ClassTable.from_yaml(f"{folder}/classes.yaml"),
    ...     plan=earthsr.SplitPlan(tile_size=64, shares=(1, 0, 0)),
    ...     overwrite=True,
    ... )
    >>> done.years["train"]
    (1970, 1999)
    """
    plan = plan or SplitPlan()
    if not coarse_cell_deg > 0:
        raise InputError(f"coarse cells are {coarse_cell_deg:g} degrees, expected more than 0")
    require_fill(fill_scenario, "--fill-scenario")
    require_free(Path(root), SPLITS, overwrite)
    files = [f"{split}/{split}.h5" for split in SPLITS]
    require_other([Path(root) / name for name in files], [*classes, *static, *scenario])
    notes: list[str] = []
    with ExitStack() as stack:
        maps = ClassMaps(classes, table)
        stack.callback(maps.close)
        taken = _take(maps.years, years, notes)
        forcing = None
        if scenario:
            forcing = stack.enter_context(
                scenario_forcing(
                    [Path(path) for path in scenario], taken, maps.grid, table, notes, maps.read, fill_scenario
                )
            )
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
        with files_together(Path(root), SPLITS, overwrite, files) as folder:
            texts = tuple(map(absolute, classes)), tuple(map(absolute, static))
            recipe = partial(ArchiveRecipe, *texts, table, taken)
            return write_landuse(folder, source, plan, forcing, coarse_cell_deg, scheduler=scheduler, recipe=recipe)


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
    held_out = set(plan.held_out_years)
    for first, last in asked:
        inside = {year for year in years if first <= year <= last}
        if not inside:
            raise InputError(f"held-out years {first} to {last} are not in the data, which have {spans(years)}")
        held_out |= inside
    return tuple(sorted(held_out))


class ArchiveSource:
    """Fine fields of archives, as :class:`earthsr.landuse.fields.FineSource` has them.

    Parameters
    ----------
    maps : ClassMaps
        Class rasters.
    statics : StaticFields
        Static fields on their grid.
    years : sequence of int
        Years of the maps that are taken.
    """

    def __init__(self, maps: ClassMaps, statics: StaticFields, years: Sequence[int]) -> None:
        absent = sorted(set(years) - set(maps.years))
        if absent:
            raise InputError(f"no class map for {spans(absent)}; there are maps for {spans(maps.years)}")
        self._maps, self._statics = maps, statics
        self.grid, self.crs, self.table = maps.grid, maps.crs, maps.table
        self.years = tuple(sorted(years))
        self.static_channels = tuple(field.channel for field in statics.fields)
        self.continuous: tuple[ContinuousField, ...] = ()
        files = [path.name for path in maps.paths(self.years)]
        some = ", ".join(files) if len(files) <= 3 else f"{files[0]} and {len(files) - 1} more files"
        self.description = f"classes {self.table.name} of {spans(self.years)} from {some}"
        self.attributes: dict[str, Any] = {}

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (C_s, rows, columns) in their units; NaN where there is no value."""
        return np.stack([field.read(window) for field in self._statics.fields])

    def classes(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a year; 255 = nodata."""
        return self._maps.read(year, window)

    def continuous_field(self, name: str, year: int, window: Window) -> NDArray[np.float32]:
        """Refuse: archives of classes hold no continuous field."""
        raise InputError(f"{self.description}: holds no continuous field {name}")

    def check(self) -> None:
        """Read every map of every year once.

        Raises
        ------
        DataError
            If a block is damaged or a code is in no class; the message names file, year and cell.
        """
        bands = self._maps.bands()
        work = [(year, band) for year in self.years for band in bands]
        cells = len(self.years) * self.grid.rows * self.grid.columns
        for year, band in tqdm(work, desc="check classes", disable=True if cells < 10**8 else None):
            self._maps.indices(year, band)

    def describe(self, scenario: Iterable[Path], parameters: dict[str, Any], notes: list[str]) -> None:
        """Write the provenance: files by name, checksum and size, parameters, and what was assumed."""
        self.attributes = {
            "classes": _fingerprints(self._maps.paths(self.years)),
            "static": describe_statics(self._statics.fields),
            "scenario": _fingerprints(scenario),
            "parameters": parameters,
            "notes": notes,
        }


@dataclass(frozen=True)
class ArchiveRecipe:
    """How a worker opens archives: their names, and what they mean."""

    classes: tuple[str, ...]
    static: tuple[str, ...]
    table: ClassTable
    years: tuple[int, ...]
    folder: Path
    """Where pieces of the files are written."""

    def open(self, place: WorkPlace) -> TileStages:
        """Open them; where it works makes no difference."""
        maps = ClassMaps(self.classes, self.table)
        statics = open_statics(self.static, maps, self.years[0], [])
        return TileStages(ArchiveSource(maps, statics, self.years), self.folder)


def _fingerprints(paths: Iterable[Path]) -> list[dict[str, Any]]:
    prints = [fingerprint(path) for path in paths]
    if len(prints) <= _MOST_FILES:
        return prints
    digest = hashlib.sha256("".join(file_print["sha256"] for file_print in prints).encode()).hexdigest()
    first, last = prints[0]["name"], prints[-1]["name"]
    whole = sum(file_print["bytes"] for file_print in prints)
    return [{"name": f"{first} to {last}", "files": len(prints), "bytes": whole, "sha256_of_sha256": digest}]

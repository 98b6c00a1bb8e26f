"""Writing land-use files: tiles cut from fine fields, blocks of space and years held out, one file per split.

``static`` (T, C_s, P, P), ``classes`` (T, Y, P, P), ``coarse`` (Y, C_c, h, w): nothing is stored once per year that
does not change with the year, and the coarse forcing stays on its own grid.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.errors import DataError, InputError
from earthsr.geo.grid import Grid, Window
from earthsr.inference.pieces import Recipe, Scheduler
from earthsr.inference.scheduler import LocalScheduler
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import COARSE_CELL_DEG, FineSource, Forcing, LandUseStatistics, aggregate
from earthsr.landuse.tile_work import TileStages, create, cut_items, write_tiles
from earthsr.store import atomic_file, part_name, require_free

SCHEMA_VERSION: Final = 1
SPLITS: Final = ("train", "valid", "test")

#: Bytes of fractions from which on reading them shows progress.
_LARGE_FORCING: Final = 2**28

_logger = logging.getLogger("earthsr")


@dataclass(frozen=True)
class SplitPlan:
    """How space and years are divided.

    The raster is cut into three bands of tiles with a buffer between them; bands of one split never touch another's.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.SplitPlan(tile_size=128, shares=(0.8, 0.1, 0.1)).buffer_cells
    32
    """

    tile_size: int = 256
    """Fine cells per tile side."""
    axis: Literal["rows", "columns"] = "columns"
    """``columns``: bands from west to east; ``rows``: bands from south to north. Training is first."""
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test; 0 leaves a split out."""
    buffer_cells: int = 32
    """Fine cells between bands."""
    stride: int | None = None
    """Fine cells between training tiles; the tile size (no overlap) where absent."""
    held_out_years: tuple[int, ...] = ()
    """Years whose truth training never sees."""
    align_cells: int = 1
    """Bands begin at a multiple of so many fine cells: those of a coarse cell, where these are whole, so that tiles
    hold coarse cells whole."""
    minimum_valid: float = 0.05
    """Tiles with a smaller share of cells that have a class are left out."""

    def check(self, source: FineSource) -> None:
        """Check against what is to be divided.

        Parameters
        ----------
        source : FineSource
            Grid and years.

        Raises
        ------
        InputError
            If shares, sizes or years do not fit; the message says what would.
        """
        if min(self.shares) < 0 or sum(self.shares) > 1 + 1e-9 or self.shares[0] == 0:
            raise InputError(f"shares are {self.shares}, expected three of 0 to 1, at most 1 together, training not 0")
        if self.tile_size < 8:
            raise InputError(f"tile size is {self.tile_size}, expected at least 8 fine cells")
        if self.stride is not None and self.stride < 1:
            raise InputError(f"stride is {self.stride}, expected at least 1 fine cell")
        unknown = sorted(set(self.held_out_years) - set(source.years))
        if unknown:
            raise InputError(f"held-out years {unknown} are not in the data, which have {_span(source.years)}")
        if set(self.held_out_years) >= set(source.years):
            raise InputError("all years are held out: nothing is left to learn from")
        first = min(set(source.years) - set(self.held_out_years))
        held = self.held_out_years
        if held and min(held) < first < max(held):
            raise InputError(
                f"held-out years {sorted(held)} lie before and after {first}, the first year to learn from: a rollout "
                "goes one way; hold out years at the beginning, or later ones"
            )

    def tiles(self, grid: Grid) -> dict[str, list[Window]]:
        """Tiles of every split, before any is left out for want of valid cells.

        Parameters
        ----------
        grid : Grid
            Of the fine cells.

        Raises
        ------
        InputError
            If a band is narrower than a tile.
        """
        along = grid.columns if self.axis == "columns" else grid.rows
        wanted = [(name, share) for name, share in zip(SPLITS, self.shares, strict=True) if share > 0]
        room = along - self.buffer_cells * (len(wanted) - 1)
        whole = sum(share for _, share in wanted)
        windows: dict[str, list[Window]] = {}
        start, done = 0, 0.0
        for number, (name, share) in enumerate(wanted):
            done += share
            end = round(room * done / whole) + self.buffer_cells * number
            band = (start, end) if self.axis == "columns" else (along - end, along - start)
            windows[name] = self._cut(grid, name, band)
            start = end + self.buffer_cells
        return windows

    def _cut(self, grid: Grid, name: str, band: tuple[int, int]) -> list[Window]:
        size = self.tile_size
        across = grid.rows if self.axis == "columns" else grid.columns
        low = -(-band[0] // self.align_cells) * self.align_cells
        length = band[1] - low
        if length < size or across < size:
            raise InputError(
                f"tiles of {size} cells do not fit into the {name} band of {max(length, 0)} x {across} cells; take "
                f"smaller tiles (--tile), a smaller buffer, or other shares"
            )
        step = self.stride if name == "train" and self.stride else size
        first = [low + i for i in _starts(length, size, step)]
        second = _starts(across, size, step)
        pairs = (
            [(b, a) for b in second for a in first]
            if self.axis == "columns"
            else [(a, b) for a in first for b in second]
        )
        return [Window(row, column, size, size) for row, column in pairs]


def _starts(length: int, size: int, step: int) -> list[int]:
    """First cells of tiles from the beginning on; the last one ends where there is no room for another."""
    return list(range(0, length - size + 1, step))


def _span(years: Iterable[int]) -> str:
    years = sorted(years)
    return f"{years[0]} to {years[-1]} ({len(years)} years)" if years else "none"


@dataclass
class Written:
    """What was written."""

    counts: dict[str, int] = field(default_factory=dict)
    """Tiles per split."""
    years: dict[str, tuple[int, ...]] = field(default_factory=dict)
    skipped_tiles: int = 0
    forcing: str = "oracle"
    bytes_on_disk: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)


def write_landuse(
    root: str | Path,
    source: FineSource,
    plan: SplitPlan,
    forcing: Forcing | None = None,
    coarse_cell_deg: float = COARSE_CELL_DEG,
    overwrite: bool = False,
    scheduler: Scheduler | None = None,
    recipe: Callable[[Path], Recipe] | None = None,
) -> Written:
    """Write ``{train,valid,test}/{train,valid,test}.h5`` from a source.

    Training and validation files hold the years that are not held out; the test file holds all of them, and says which
    were held out (``held_out_years``) and where a rollout starts (``anchor_year``).

    Parameters
    ----------
    root : str or Path
        Folder to write into.
    source : FineSource
        Fine fields.
    plan : SplitPlan
        How they are divided.
    forcing : Forcing, optional
        Of a scenario, with the source's years; aggregated from the classes (``oracle``) where absent.
    coarse_cell_deg : float
        Cell size of an aggregated forcing.
    overwrite : bool
        Replace data that the folder holds already.
    scheduler : Scheduler, optional
        Who reads and compresses the tiles: this process where absent.
    recipe : callable, optional
        How its workers open the source, of the folder into which they write.

    Raises
    ------
    InputError
        If the folder holds data already, the plan does not fit, or no tile has enough valid cells.
    DataError
        If the forcing does not cover the tiles or the years.
    """
    root = Path(root)
    require_free(root, SPLITS, overwrite)
    plan.check(source)
    bands = plan.tiles(source.grid)
    forcing = forcing or aggregate(source, coarse_cell_deg)
    missing = sorted(set(source.years) - set(forcing.years))
    if missing:
        raise DataError(f"the forcing has no fractions for {missing}; it covers {_span(forcing.years)}")
    _check_cover(source.grid, forcing.grid, bands)
    learnt = tuple(year for year in source.years if year not in plan.held_out_years)
    written = Written(forcing=forcing.kind)
    # All bands are looked at before the first file is written: what is refused leaves nothing behind.
    kept: dict[str, list[Window]] = {}
    for name, windows in bands.items():
        kept[name] = [window for window in windows if _valid_share(source, window) >= plan.minimum_valid]
        written.skipped_tiles += len(windows) - len(kept[name])
        if not kept[name]:
            raise InputError(f"no tile of the {name} band has {plan.minimum_valid:.0%} of cells with a class")
    paths = {name: root / name / f"{name}.h5" for name in kept}
    years = {name: tuple(source.years if name == "test" else learnt) for name in kept}
    folder = root / part_name(root / "tiles")
    with ExitStack() as stack:
        for path in paths.values():
            stack.callback(_remove_empty, path.parent)
        handles = {
            name: stack.enter_context(h5py.File(stack.enter_context(atomic_file(path)), "w"))
            for name, path in paths.items()
        }
        for name, handle in handles.items():
            create(handle, source, len(kept[name]), plan.tile_size, len(years[name]))
        # What may be refused is read before the tiles, which take longest.
        _write_forcing(handles, years, forcing, source.description)
        folder.mkdir(parents=True)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        items, stages = list(cut_items(kept, years, source)), TileStages(source, folder)
        opened = None if recipe is None else recipe(folder.absolute())
        sums = write_tiles(handles, items, stages, folder, scheduler or LocalScheduler(), opened)
        for name, handle in handles.items():
            handle["tile_index"] = np.array([(window.row, window.column) for window in kept[name]], np.int64)
            handle["tile_origin"] = _origins(source.grid, kept[name])
            for key, value in _attributes(name, source, forcing, sums.statistics(learnt), plan).items():
                handle.attrs[key] = value
    written.counts = {name: len(tiles) for name, tiles in kept.items()}
    written.years = years
    written.bytes_on_disk = sum(path.stat().st_size for path in paths.values())
    for name in set(SPLITS) - set(kept):
        # Of other data that these replace.
        (root / name / f"{name}.h5").unlink(missing_ok=True)
    return written


def _valid_share(source: FineSource, window: Window) -> float:
    return float((source.classes(source.years[0], window) != NODATA).mean())


def _check_cover(fine: Grid, coarse: Grid, bands: dict[str, list[Window]]) -> None:
    """Raise a :class:`DataError` where a tile lies beyond the forcing's outermost cells."""
    south, east = (
        coarse.north - coarse.rows * coarse.cell_y,
        coarse.west + coarse.columns * coarse.cell_x,
    )
    slack = 1e-6
    for name, windows in bands.items():
        for window in windows:
            latitudes = fine.latitude_edges(window.row, window.rows)
            longitudes = fine.longitude_edges(window.column, window.columns)
            inside = coarse.periodic or (longitudes[0] >= coarse.west - slack and longitudes[-1] <= east + slack)
            if not inside or latitudes[0] > coarse.north + slack or latitudes[-1] < south - slack:
                raise DataError(
                    f"the forcing grid ({south:g} to {coarse.north:g} N, {coarse.west:g} to {east:g} E) does "
                    f"not cover the {name} tile at {latitudes[-1]:.3f} to {latitudes[0]:.3f} N, {longitudes[0]:.3f} to "
                    f"{longitudes[-1]:.3f} E; take a forcing of that region"
                )


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _write_forcing(
    handles: Mapping[str, h5py.File], years: Mapping[str, tuple[int, ...]], forcing: Forcing, source: str
) -> None:
    """Write the fractions of every split, one year of them in memory at a time."""
    shape = (len(forcing.channels), forcing.grid.rows, forcing.grid.columns)
    for name, handle in handles.items():
        handle.create_dataset("coarse", (len(years[name]), *shape), np.float32).attrs["units"] = "1"
        handle["coarse_latitude"] = forcing.grid.latitudes()
        handle["coarse_longitude"] = forcing.grid.longitudes()
        handle["years"] = np.array(years[name], np.int32)
    wanted = sorted(set().union(*years.values()))
    values = 4 * len(wanted) * math.prod(shape)
    for year in tqdm(wanted, desc="forcing", disable=True if values < _LARGE_FORCING else None):
        fractions = forcing.of_year(year, source)
        for name, handle in handles.items():
            if year in years[name]:
                handle["coarse"][years[name].index(year)] = fractions


def _origins(grid: Grid, windows: list[Window]) -> NDArray[np.float64]:
    return np.array([(grid.west + w.column * grid.cell_x, grid.north - w.row * grid.cell_y) for w in windows])


def _attributes(
    split: str, source: FineSource, forcing: Forcing, statistics: LandUseStatistics, plan: SplitPlan
) -> dict[str, Any]:
    held = set(plan.held_out_years)
    learnt = [year for year in source.years if year not in held]
    # A rollout over years held out at the end starts from the last year before them; over years held out at the
    # beginning it goes backwards from the first year after them.
    before = [year for year in learnt if held and year < min(held)]
    anchor = before[-1] if before else learnt[0]
    provenance = dict(source.attributes)
    if forcing.notes:
        provenance["notes"] = [*provenance.get("notes", []), *forcing.notes]
    return {
        "schema_version": SCHEMA_VERSION,
        "task": "land_use",
        "split": split,
        "forcing": forcing.kind,
        "crs": source.crs,
        "transform": np.array(source.grid.transform),
        "grid_shape": np.array([source.grid.rows, source.grid.columns]),
        "classes": source.table.to_json(),
        "static_channels": json.dumps([asdict(channel) for channel in source.static_channels]),
        "coarse_channels": json.dumps(forcing.channels),
        "forcing_classes": json.dumps(forcing.of_class),
        "continuous": json.dumps([field.name for field in source.continuous]),
        "held_out_years": json.dumps(sorted(held)),
        "anchor_year": int(anchor),
        "statistics": json.dumps(statistics.to_dict()),
        "origin_convention": "longitude and latitude of the north-western corner, degrees",
        "source": source.description,
        "provenance": json.dumps(provenance),
    }

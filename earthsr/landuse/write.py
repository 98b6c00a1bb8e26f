"""Writing land-use files: tiles cut from fine fields, blocks of space and years held out, one file per split.

``static`` (T, C_s, P, P), ``classes`` (T, Y, P, P), ``coarse`` (Y, C_c, h, w): nothing is stored once per year that
does not change with the year, and the coarse forcing stays on its own grid.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.errors import DataError, InputError
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import COARSE_CELL_DEG, FineSource, Forcing, LandUseStatistics, RunningStatistics, aggregate
from earthsr.store import atomic_file, require_free

SCHEMA_VERSION: Final = 1
SPLITS: Final = ("train", "valid", "test")

#: Chunks of one tile and year, and a filter that every HDF5 reads (tools/benchmark_landuse.py has the measurements).
FILTER: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 4}
FLOAT_FILTER: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}

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
    forcing.check(source.description)
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
    running = RunningStatistics(source, learnt)
    for window in tqdm(kept["train"], desc="statistics", disable=True if len(kept["train"]) < 500 else None):
        running.add(window)
    statistics = running.result()
    for name, tiles in kept.items():
        years = source.years if name == "test" else learnt
        path = root / name / f"{name}.h5"
        _write_split(path, name, source, tiles, years, forcing, statistics, plan)
        written.counts[name], written.years[name] = len(tiles), tuple(years)
        written.bytes_on_disk += path.stat().st_size
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


def _write_split(
    path: Path,
    split: str,
    source: FineSource,
    windows: list[Window],
    years: tuple[int, ...],
    forcing: Forcing,
    statistics: LandUseStatistics,
    plan: SplitPlan,
) -> None:
    tiles, size = len(windows), plan.tile_size
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as handle:
        static = handle.create_dataset(
            "static",
            (tiles, len(source.static_channels), size, size),
            np.float32,
            chunks=(1, 1, size, size),
            **FLOAT_FILTER,
        )
        classes = handle.create_dataset(
            "classes", (tiles, len(years), size, size), np.uint8, chunks=(1, 1, size, size), fillvalue=NODATA, **FILTER
        )
        classes.attrs["_FillValue"] = np.uint8(NODATA)
        classes.attrs["flag_values"] = np.arange(len(source.table), dtype=np.uint8)
        classes.attrs["flag_meanings"] = " ".join(name.replace(" ", "_") for name in source.table.names)
        fields = {}
        for field in source.continuous:
            shape = (tiles, len(years), len(field.channels), size, size)
            fields[field.name] = handle.create_dataset(
                field.name, shape, np.uint8, chunks=(1, 1, len(field.channels), size, size), fillvalue=NODATA, **FILTER
            )
            fields[field.name].attrs["units"] = field.units
            fields[field.name].attrs["scale_factor"] = field.scale_factor
            fields[field.name].attrs["_FillValue"] = np.uint8(NODATA)
            fields[field.name].attrs["channels"] = json.dumps(field.channels)
        for t, window in enumerate(tqdm(windows, desc=f"write {split}", disable=True if tiles < 100 else None)):
            static[t] = source.static(window)
            for y, year in enumerate(years):
                classes[t, y] = source.classes(year, window)
                for field in source.continuous:
                    values = source.continuous_field(field.name, year, window) / field.scale_factor
                    stored = np.where(np.isfinite(values), np.clip(np.rint(values), 0, NODATA - 1), NODATA)
                    fields[field.name][t, y] = stored.astype(np.uint8)
        chosen = [forcing.years.index(year) for year in years]
        coarse = handle.create_dataset("coarse", (len(chosen), *forcing.fractions.shape[1:]), np.float32)
        for y, index in enumerate(chosen):
            coarse[y] = forcing.fractions[index]
        handle["coarse_latitude"] = forcing.grid.latitudes()
        handle["coarse_longitude"] = forcing.grid.longitudes()
        handle["years"] = np.array(years, np.int32)
        handle["tile_index"] = np.array([(window.row, window.column) for window in windows], np.int64)
        handle["tile_origin"] = _origins(source.grid, windows)
        handle["coarse"].attrs["units"] = "1"
        for name, value in _attributes(split, source, forcing, statistics, plan).items():
            handle.attrs[name] = value


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
        "provenance": json.dumps(source.attributes),
    }

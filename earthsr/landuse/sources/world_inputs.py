"""What a reconstruction reads: the anchor map, static fields, a scenario and protected areas, on the grid of its maps.

Windows may be anywhere (see :func:`earthsr.geo.areas.fill`), in any order and from any thread; files are read
where a window lies and nowhere else. The grid is the anchor's, or the part of it or the cells that are asked for. A
distance to the coast is the exception: it is computed once, of the whole anchor
map.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.areas import Read, fill, sample
from earthsr.geo.grid import Bounds, Grid, Window, centres_of, covers, cut, warn_of_rest
from earthsr.landuse.class_tables import TABLES
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.fields import Channel
from earthsr.landuse.sources.gaps import Fill, Gaps, land_share, require_fill
from earthsr.landuse.sources.rasters import ClassMaps, LonLatRaster, open_anchor, open_lonlat
from earthsr.landuse.sources.scenario import Scenario, open_scenario
from earthsr.landuse.sources.statics import COMPUTED, StaticField, StaticFields, describe_statics, open_statics
from earthsr.landuse.sources.statics import static_names as names_of
from earthsr.store import fingerprint

#: West, south, east, north, degrees.
BBox = tuple[float, float, float, float]

#: Relative rounding of a cell size that is written in a few digits (0.0083333).
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Inputs:
    """What a reconstruction reads, as the command line names it."""

    anchor: str
    """``PATH`` or ``YEAR=PATH`` of one class raster; one of several years needs the year."""
    scenario: tuple[Path, ...]
    """Files of LUH2's form that follow each other; of two that have a year the first gives it."""
    static: tuple[str, ...]
    """``NAME=PATH``, ``NAME:UNITS=PATH``, ``latitude``, ``longitude``, ``distance_to_coast`` or ``slope``."""
    protected: tuple[str, ...] = ()
    """Rasters of cells that may not change: those that are not 0."""
    table: Path | None = None
    """Class table; the checkpoint's own where absent."""
    bbox: BBox | None = None
    """West, south, east, north, degrees: cells that it touches are mapped. West beyond east crosses the dateline."""
    cell_size_deg: float | None = None
    """Size of the maps' cells; the anchor's where absent."""
    fill_scenario: Fill | None = None
    """``nearest``: what stands for fractions that the scenario lacks over land; an error where absent."""

    def paths(self) -> list[str | Path | None]:
        """Return the texts that name files."""
        return [self.anchor, *self.scenario, *self.static, *self.protected, self.table]

    def absolute(self) -> Inputs:
        """Return the same with whole paths, for a process that works in another folder."""
        year, equals, anchor = self.anchor.partition("=")
        named = equals and year.strip().lstrip("-").isdigit()
        return replace(
            self,
            anchor=f"{year}={os.path.abspath(anchor)}" if named else os.path.abspath(self.anchor),
            scenario=tuple(path.absolute() for path in self.scenario),
            static=tuple(
                f"{name}={os.path.abspath(path)}" if equals else name
                for name, equals, path in (text.partition("=") for text in self.static)
            ),
            protected=tuple(map(os.path.abspath, self.protected)),
            table=self.table if self.table is None or str(self.table).lower() in TABLES else self.table.absolute(),
        )


@dataclass(eq=False)
class WorldInputs:
    """Open inputs on one fine grid; made by :func:`open_world`."""

    grid: Grid
    """Of the maps."""
    anchor_year: int
    scenario: Scenario
    notes: list[str]
    """What was assumed, for the provenance."""
    inputs: Inputs
    """What was asked for."""
    maps: ClassMaps
    """The anchor, on its own grid."""
    fields: tuple[StaticField, ...]
    """In the order of the model's channels."""
    sources: tuple[StaticField, ...]
    """These, and what some are computed from."""
    masks: tuple[LonLatRaster, ...]
    """Protected areas, each on its own grid."""
    _stack: ExitStack
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def crs(self) -> str:
        """CRS of the maps: the anchor's."""
        return self.maps.crs

    @property
    def table(self) -> ClassTable:
        """What class indices mean."""
        return self.maps.table

    @property
    def static_channels(self) -> tuple[Channel, ...]:
        """Names and units of the static fields."""
        return tuple(field.channel for field in self.fields)

    def anchor(self, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of the anchor year; 255 = nodata, and beyond the grid.

        Raises
        ------
        DataError
            If a code is in no class; the message names code, file and cell.
        """

        def read(part: Window) -> NDArray[np.uint8]:
            values = _blank(part, NODATA, np.uint8)
            return sample(values, self.grid, part, self.maps.grid, lambda w: self.maps.read(self.anchor_year, w))

        with self._lock:
            return fill(_blank(window, NODATA, np.uint8), self.grid, window, read)

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (C, rows, columns) in their units; NaN where there is no value, and beyond the grid."""
        values = np.full((len(self.fields), *window[2:]), np.nan, np.float32)
        with self._lock:
            for plane, channel in zip(values, self.fields, strict=True):
                fill(plane, self.grid, window, channel.read)
        return values

    def protected(self, window: Window) -> NDArray[np.bool_]:
        """Cells (rows, columns) that are not 0 in any raster of protected areas; False beyond the grid.

        Cells that such a raster gives no value, or that lie beyond it, are not protected by it.
        """
        marked = _blank(window, False, bool)
        with self._lock:
            for raster in self.masks:
                marked |= fill(_blank(window, False, bool), self.grid, window, self._reader(raster))
        return marked

    def forced_land(self, windows: Iterable[Window]) -> NDArray[np.float64]:
        """Share (h, w) of each coarse cell that the anchor gives a class which the scenario knows; reads the anchor.

        Parameters
        ----------
        windows : iterable of Window
            Parts of the grid, each cell in one of them.
        """
        known = np.zeros(256, bool)
        known[: len(self.table)] = [name in self.scenario.of_class for name in self.table.names]
        return land_share(self.scenario.grid, self.grid, windows, lambda window: known[self.anchor(window)])

    def require_forcing(self, share: NDArray[np.floating], years: Sequence[int]) -> Gaps:
        """Hold the scenario to having a value over land, and see whether it has: in the first and last year to be made.

        All others are looked at when they are read.

        Parameters
        ----------
        share : ndarray of shape (h, w)
            Of :meth:`forced_land`.
        years : sequence of int
            Those that are made.

        Raises
        ------
        DataError
            If it has none, and none is to be filled in.
        """
        self.scenario.require_land(share, self.inputs.fill_scenario)
        gaps = [self.scenario.gaps(year) for year in sorted({min(years), max(years)})] if years else [Gaps()]
        most = max(gaps, key=lambda counted: counted.filled + counted.left)
        notes = most.note(", ".join(path.name for path in self.scenario.paths))
        self.notes += [note for note in notes if note not in self.notes]
        return most

    def _reader(self, raster: LonLatRaster) -> Read:
        def marked(part: Window) -> NDArray[np.bool_]:
            values = raster.read(part)
            return ~np.isnan(values) & (values != 0)

        return lambda part: sample(_blank(part, False, bool), self.grid, part, raster.grid, marked)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Name, size and SHA-256 of every file, anchor year, class table, box and cell size; JSON-able.

        All files are read for it, once.
        """
        return {
            "anchor": {"year": self.anchor_year, "file": fingerprint(self.maps.paths([self.anchor_year])[0])},
            "class_table": self.table.name,
            "static": describe_statics(self.sources),
            "scenario": [fingerprint(path) for path in self.scenario.paths],
            "protected": [fingerprint(raster.path) for raster in self.masks],
            "bbox": None if self.inputs.bbox is None else list(self.inputs.bbox),
            "cell_size_deg": self.inputs.cell_size_deg,
            **({"fill_scenario": self.inputs.fill_scenario} if self.inputs.fill_scenario else {}),
        }

    def close(self) -> None:
        """Close all files."""
        self._stack.close()


def _blank(window: Window, value: float, kind: Any) -> NDArray:
    return np.full(tuple(window[2:]), value, kind)


def open_world(
    inputs: Inputs, table: ClassTable, *, static_names: Sequence[str], coarse_channels: Sequence[str]
) -> WorldInputs:
    """Open what a reconstruction reads, and check that it fits the model and the grid.

    Parameters
    ----------
    inputs : Inputs
        What is opened.
    table : ClassTable
        The checkpoint's.
    static_names, coarse_channels : sequence of str
        Channels of the model, in its order.

    Raises
    ------
    InputError, DataError
        If a file cannot be read, a field is missing or one too many, or something does not cover the grid; the message
        names it and says what to give.

    Notes
    -----
    Cells of the maps take the class of the anchor's cell in which their centre lies, and so do cells of protected
    areas; a centre on an edge belongs to the cell south or east of it. Static fields are averaged or interpolated as
    ``earthsr prepare landuse`` does it. ``distance_to_coast`` is that on the anchor's whole grid.
    """
    require_fill(inputs.fill_scenario, "--fill-scenario")
    _require_fields(inputs.static, static_names)
    notes: list[str] = []
    with ExitStack() as stack:
        maps, year = open_anchor(inputs.anchor, table)
        stack.callback(maps.close)
        grid = output_grid(maps.grid, inputs.cell_size_deg, inputs.bbox)
        masks = tuple(_open_mask(spec, grid, stack, notes) for spec in inputs.protected)
        forcing = open_scenario(inputs.scenario, coarse_channels, table, grid, notes)
        stack.callback(forcing.close)
        statics = open_statics(inputs.static, maps, year, notes, grid) if inputs.static else StaticFields([], [])
        stack.callback(statics.close)
        by_name = {field.channel.name: field for field in statics.fields}
        return WorldInputs(
            grid=grid,
            anchor_year=year,
            scenario=forcing,
            notes=notes,
            inputs=inputs,
            maps=maps,
            fields=tuple(by_name[name] for name in static_names),
            sources=tuple(statics.fields),
            masks=masks,
            _stack=stack.pop_all(),
        )


def _require_fields(specs: Sequence[str], names: Sequence[str]) -> None:
    """Check that the static fields are those of the model, before files are opened.

    Raises
    ------
    InputError
        If one is missing, or not the model's.
    """
    given = names_of(specs)
    reads = f"the model reads the static fields {', '.join(names) or 'none'}"
    missing = [name for name in names if name not in given]
    if missing:
        add = " ".join(f"--static {name}" + ("" if name in COMPUTED else "=PATH") for name in missing)
        raise InputError(f"{reads}; missing: {', '.join(missing)}; add {add}")
    extra = [name for name in given if name not in names]
    if "elevation" in extra and not given.get("slope", True):
        extra.remove("elevation")  # what the slope is computed from
    if extra:
        raise InputError(f"{reads}; it does not know {', '.join(extra)}: leave out --static {' and '.join(extra)}")


def _open_mask(spec: str, grid: Grid, stack: ExitStack, notes: list[str]) -> LonLatRaster:
    raster = open_lonlat(spec)
    stack.callback(raster.close)
    if raster.years is not None and len(raster.years) > 1:
        raise DataError(f"{raster.name}: --protected has {len(raster.years)} steps, expected one; take one out")
    mapped, covered = grid.bounds, raster.grid.bounds
    if cut(raster.grid, mapped) is None:
        raise DataError(
            f"{raster.name}: --protected covers {covered.south:g} to {covered.north:g} N, {covered.west:g} to "
            f"{covered.east:g} E, and nothing of the maps at {mapped.south:g} to {mapped.north:g} N, "
            f"{mapped.west:g} to {mapped.east:g} E"
        )
    if not covers(raster.grid, centres_of(grid)):
        notes.append(f"{raster.name} does not cover all of the maps: what lies beyond it is not protected by it")
    return raster


def output_grid(anchor: Grid, cell_size_deg: float | None = None, bbox: BBox | None = None) -> Grid:
    """Grid of the maps.

    Parameters
    ----------
    anchor : Grid
        Of the anchor map.
    cell_size_deg : float, optional
        Side of a cell; the anchor's cells where absent. The western and the northern edge stay where they are.
    bbox : tuple of float, optional
        West, south, east, north in degrees; cells that it touches are the grid. Its longitudes are contiguous (170 to
        190), from a western edge that counts as the anchor's.

    Raises
    ------
    InputError
        If the cells do not divide the anchor's extent, or the box is none or lies outside.
    """
    grid = anchor if cell_size_deg is None else _resized(anchor, cell_size_deg)
    return grid if bbox is None else grid.part(touched(grid, bbox))


def _resized(grid: Grid, cell_deg: float) -> Grid:
    if not (math.isfinite(cell_deg) and cell_deg > 0):
        raise InputError(f"--cell-size is {cell_deg:g} degrees, expected more than 0")
    height, width = grid.rows * grid.cell_y, grid.columns * grid.cell_x
    rows, columns = round(height / cell_deg), round(width / cell_deg)
    for exact, whole in ((height / cell_deg, rows), (width / cell_deg, columns)):
        if whole < 1 or abs(exact - whole) > _ROUNDING * whole:
            raise InputError(
                f"--cell-size: cells of {cell_deg:g} degrees do not divide the anchor's {height:g} x {width:g} degrees "
                f"({height / cell_deg:.6g} x {width / cell_deg:.6g} cells); take one that does, or cut the anchor"
            )
    # What is divided stays whole: 43,200 columns of 0.0083333 degrees would not close upon themselves.
    return replace(grid, cell_y=height / rows, cell_x=width / columns, rows=rows, columns=columns)


def touched(grid: Grid, bbox: BBox) -> Window:
    """Cells that a box touches, as far as there are cells.

    Parameters
    ----------
    grid : Grid
        Of the whole raster.
    bbox : tuple of float
        West, south, east, north in degrees. West above east goes across the dateline.

    Returns
    -------
    Window
        Its first column lies within the grid; on a periodic grid its last may count on beyond. A box that touches all
        columns of a periodic grid is the grid's whole width, from its own first column.

    Raises
    ------
    InputError
        If it is empty, or lies outside.
    """
    west, south, east, north = bbox
    option, bounds = f"--bbox {west:g},{south:g},{east:g},{north:g}", grid.bounds
    across = west > east
    if across:
        east += 360
    if not (all(map(math.isfinite, bbox)) and south < north and west < east):
        raise InputError(f"{option}: expected finite numbers, south < north, west < east (or > across the dateline)")
    if across and not grid.periodic and bounds.east <= 180:
        raise InputError(f"{option}: west > east is a box across the dateline, which the anchor does not reach")
    box_cut = cut(grid, Bounds(west, south, east, north))
    if box_cut is None:
        raise InputError(
            f"{option} lies outside the anchor, which covers {bounds.west:g},{bounds.south:g},"
            f"{bounds.east:g},{bounds.north:g} (west, south, east, north)"
        )
    window = box_cut.window
    part, cell = box_cut.grid.bounds, (grid.cell_x, grid.cell_y)
    warn_of_rest(
        (west, south, east, north), (part.west, part.south, part.east, part.north), cell, "the anchor", grid.periodic
    )
    if not grid.periodic:
        return window
    if window.columns >= grid.columns:
        return window._replace(column=0, columns=grid.columns)
    return window._replace(column=window.column % grid.columns)

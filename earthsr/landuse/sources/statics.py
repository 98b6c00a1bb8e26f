"""Static fields on the fine grid: rasters brought onto it, and fields that need no file.

Along each axis a raster with smaller cells is averaged by area, one with larger cells is interpolated. Cells without a
value take no part, and what no valued cell reaches has none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import aligned, fill, overlap, window_matrix
from earthsr.geo.grid import Grid, Window, centres_of, covers, cut
from earthsr.geo.memory import array_source
from earthsr.geo.raster import Georeference
from earthsr.geo.values import is_metres
from earthsr.geo.voids import require_no_common_fill
from earthsr.landuse.fields import Channel
from earthsr.landuse.sources.rasters import ClassMaps, LonLatRaster, open_lonlat
from earthsr.store import fingerprint

Field = Callable[[Window], NDArray[np.float32]]

#: Length of a degree on a sphere of 6371 km.
KM_PER_DEGREE: Final = 111.195
COMPUTED: Final = {"latitude": "degrees_north", "longitude": "degrees_east", "distance_to_coast": "km", "slope": "deg"}

_SPEC = re.compile(r"^(?P<name>[A-Za-z]\w*)(:(?P<units>[^=]*))?(=(?P<path>.+))?$", re.DOTALL)
_METRES = ("m", "metre", "metres", "meter", "meters", "1", "")
#: Above this the distance transform of the whole mask needs more than about 10 GB.
_LARGEST_MASK = 4 * 10**8


@dataclass(frozen=True)
class StaticField:
    """One static channel and how its windows are read."""

    channel: Channel
    read: Field
    path: Path | None = None
    note: str = ""
    """How it was made, for the provenance."""


@dataclass
class StaticFields:
    """Static channels in the order in which they were asked for."""

    fields: list[StaticField]
    rasters: list[LonLatRaster]

    def close(self) -> None:
        """Close all files."""
        for raster in self.rasters:
            raster.close()


def open_statics(
    specs: Sequence[str], maps: ClassMaps, first_year: int, notes: list[str], grid: Grid | None = None
) -> StaticFields:
    """Open what ``--static`` names.

    Parameters
    ----------
    specs : sequence of str
        ``NAME=PATH``, ``NAME:UNITS=PATH``, or the name of a field that needs no file.
    maps : ClassMaps
        The coast is where they have no class.
    first_year : int
        Year whose cells without a class are the sea.
    notes : list of str
        Units that file and command line name differently are added.
    grid : Grid, optional
        The fine grid: that of the maps where absent, else a part of it, or one of other cells.

    Raises
    ------
    InputError
        If a specification cannot be read, a name comes twice, or a raster does not cover the fine grid.
    """
    if not specs:
        raise InputError("no static field is given; --static latitude needs no file")
    statics = StaticFields([], [])
    fine = maps.grid if grid is None else grid
    try:
        for spec in specs:
            match = _match(spec)
            name = match["name"]
            if any(field.channel.name == name for field in statics.fields):
                raise InputError(f"--static {name} is given twice; name each field once")
            if match["path"] is not None:
                statics.fields.append(_from_raster(name, match["units"], match["path"], fine, statics.rasters, notes))
            elif name in ("latitude", "longitude"):
                statics.fields.append(_coordinate(name, fine, maps.grid))
            elif name == "distance_to_coast":
                statics.fields.append(_distance(maps, first_year, fine))
            elif name == "slope":
                statics.fields.append(StaticField(Channel(name, COMPUTED[name]), _unready))
            else:
                raise InputError(f"--static {name} has no file; write {name}=PATH, or one of {', '.join(COMPUTED)}")
        for i, field in enumerate(statics.fields):
            if field.read is _unready:
                statics.fields[i] = _slope(statics.fields, fine)
    except BaseException:
        statics.close()
        raise
    return statics


def in_metres(units: str) -> bool:
    """Whether elevations are in metres: they say so, or nothing."""
    return units.strip().lower() in _METRES or is_metres(units)


def static_names(specs: Sequence[str]) -> dict[str, bool]:
    """Names of what ``--static`` names, and whether each has a file of its own; nothing is opened.

    Raises
    ------
    InputError
        If a specification cannot be read.
    """
    return {match["name"]: match["path"] is not None for match in map(_match, specs)}


def _match(spec: str) -> re.Match[str]:
    match = _SPEC.match(spec)
    if match is None:
        raise InputError(f"--static {spec!r} is not NAME=PATH, NAME:UNITS=PATH or one of {', '.join(COMPUTED)}")
    return match


def _unready(window: Window) -> NDArray[np.float32]:
    raise NotImplementedError  # stands for the slope until all rasters are known


def _from_raster(
    name: str, units: str | None, text: str, fine: Grid, rasters: list[LonLatRaster], notes: list[str]
) -> StaticField:
    raster = open_lonlat(text, prefer=name)
    rasters.append(raster)
    if raster.years is not None and len(raster.years) > 1:
        raise DataError(f"{raster.name}: static field {name} has {len(raster.years)} steps, expected one; take one out")
    centres = centres_of(fine)
    if not covers(raster.grid, centres):
        bounds = raster.grid.bounds
        raise DataError(
            f"{raster.name}: static field {name} covers {bounds.south:g} to {bounds.north:g} N, {bounds.west:g} to "
            f"{bounds.east:g} E, the classes need {centres.south:g} to {centres.north:g} N, {centres.west:g} to "
            f"{centres.east:g} E; take a larger one, or rio clip IN OUT.tif --bounds 'W S E N' the classes"
        )
    if raster.units and units and raster.units != units:
        notes.append(f"{name}: the units of {raster.name} are {raster.units}, not {units} as the command line has them")
    if name == "elevation" and in_metres(raster.units or units or ""):
        # Looked at as it lies in the file: interpolation hides fill values.
        notes += raster.take_for_elevations()
    else:
        raster.check = functools.partial(require_no_common_fill, name=raster.name)
    read, way = _onto(raster, fine)
    return StaticField(Channel(name, raster.units or units or "1"), read, raster.path, way)


def _onto(raster: LonLatRaster, fine: Grid) -> tuple[Field, str]:
    """How windows of the fine grid are read from a raster that covers it, and what that is in words."""
    place = aligned(fine, raster.grid)
    if place is not None:
        top, left = place
        return lambda w: raster.read(w._replace(row=w.row + top, column=w.column + left)), ""
    ways = [_way(raster.grid.cell_y, fine.cell_y), _way(raster.grid.cell_x, fine.cell_x)]
    note = f"{ways[0]} onto the fine grid" if ways[0] == ways[1] else f"{ways[0]} along rows, {ways[1]} along columns"
    return lambda window: resample(raster, fine, window), note


def _way(cell: float, fine_cell: float) -> str:
    return "averaged by area" if cell < fine_cell * (1 - 1e-6) else "interpolated bilinearly"


def resample(raster: LonLatRaster, fine: Grid, window: Window) -> NDArray[np.float32]:
    """Bring a window of a raster on another grid onto the fine one.

    Parameters
    ----------
    raster : Raster
        On any regular grid that covers the window.
    fine : Grid
        Whose window is wanted.
    window : Window
        Of the fine grid.

    Returns
    -------
    ndarray of shape (rows, columns)
        In the raster's units, NaN where it has no value.
    """
    part = cut(raster.grid, fine.part(window).bounds, margin=1)
    assert part is not None, "the raster covers the fine grid"
    target, source = fine.part(window), part.grid
    sines = [np.sin(np.deg2rad(np.clip(g.latitude_edges(), -90, 90))) for g in (target, source)]
    if _way(source.cell_y, target.cell_y).startswith("averaged"):
        rows = overlap(sines[0], sines[1])
    else:
        rows = _bilinear(target.latitudes(), float(source.latitudes()[0]), -source.cell_y, source.rows)
    if _way(source.cell_x, target.cell_x).startswith("averaged"):
        columns = overlap(target.longitude_edges(), source.longitude_edges())
    else:
        first = float(source.longitudes()[0])
        columns = _bilinear(target.longitudes(), first, source.cell_x, source.columns)
    values = raster.read(part.window).astype(np.float64)
    valid = np.isfinite(values)
    reached = rows @ valid.astype(np.float64) @ columns.T
    sums = rows @ np.where(valid, values, 0.0) @ columns.T
    # What is only the rounding of a float32 weight is nothing.
    enough = reached > 1e-6 * np.outer(rows.sum(1), columns.sum(1))
    return np.where(enough, sums / np.where(enough, reached, 1.0), np.nan).astype(np.float32)


def _bilinear(centres: NDArray[np.float64], first: float, step: float, count: int) -> NDArray[np.float64]:
    """Weights (m, count); beyond the outermost centres the outermost cell is taken."""
    # Two more than there are: one beyond each end, which stand for the outermost cells.
    indices, weights = window_matrix(centres, first, step, count, count + 2)
    full = np.zeros((len(centres), count))
    for column, weight in zip(indices, weights.T, strict=True):
        full[:, column] += weight
    return full


def _coordinate(name: str, fine: Grid, whole: Grid) -> StaticField:
    east = whole.west + 360 if whole.periodic else np.inf

    def read(window: Window) -> NDArray[np.float32]:
        shape = (window.rows, window.columns)
        if name == "latitude":
            return np.broadcast_to(fine.latitudes(window.row, window.rows)[:, None], shape).astype(np.float32)
        longitudes = fine.longitudes(window.column, window.columns)
        # A part across the dateline has there the values that the whole has.
        longitudes = np.where(longitudes >= east, longitudes - 360, longitudes)
        return np.broadcast_to(longitudes, shape).astype(np.float32)

    return StaticField(Channel(name, COMPUTED[name]), read)


def _distance(maps: ClassMaps, year: int, fine: Grid) -> StaticField:
    grid = maps.grid
    # The coast that is nearest may lie beyond the dateline.
    turn = grid.columns // 2 if grid.periodic else 0
    if grid.rows * (grid.columns + 2 * turn) > _LARGEST_MASK:
        raise InputError(
            f"distance_to_coast of {grid.rows} x {grid.columns} cells needs the whole mask in memory, at most "
            f"{_LARGEST_MASK // (2 if turn else 1):g} cells; give a raster of it: distance_to_coast:km=PATH"
        )
    land = maps.mask(year)
    if land.all():
        raise InputError(f"distance_to_coast: every cell has a class in {year}, so there is no coast; leave it out")
    box = grid.bounds
    middle = np.deg2rad((box.south + box.north) / 2)
    spacing = (grid.cell_y * KM_PER_DEGREE, grid.cell_x * KM_PER_DEGREE * float(np.cos(middle)))
    transform = geo_module("scipy.ndimage").distance_transform_edt
    distance = transform(np.pad(land, ((0, 0), (turn, turn)), mode="wrap"), sampling=spacing)
    values = distance[:, turn : turn + grid.columns].astype(np.float32)
    place = Georeference.of(grid, units=COMPUTED["distance_to_coast"])
    raster = LonLatRaster(array_source(values, place, "distance_to_coast"), Path("distance_to_coast"))
    read, way = _onto(raster, fine)
    note = (
        f"distance of each cell to the nearest one without a class in {year}, cells being {spacing[0]:.4f} km high and "
        f"{spacing[1]:.4f} km wide everywhere (those of the raster's middle latitude); what lies beyond the raster's "
        "edges is not known"
    ) + (f"; {way}" if way else "")
    return StaticField(Channel("distance_to_coast", COMPUTED["distance_to_coast"]), read, note=note)


def _slope(fields: list[StaticField], fine: Grid) -> StaticField:
    elevation = next((field for field in fields if field.channel.name == "elevation"), None)
    if elevation is None:
        raise InputError("slope is computed from elevation; add --static elevation=PATH, or give slope=PATH")
    if not in_metres(elevation.channel.units):
        raise InputError(f"slope needs elevation in metres, its units are {elevation.channel.units}; convert it first")
    source = elevation.read

    def read(window: Window) -> NDArray[np.float32]:
        # One cell around the window, so that differences are central but at the raster's edges.
        top, left = max(window.row - 1, 0), window.column - 1
        bottom, right = min(window.row + window.rows + 1, fine.rows), window.column + window.columns + 1
        if not fine.periodic:
            left, right = max(left, 0), min(right, fine.columns)
        wide = Window(top, left, bottom - top, right - left)
        metres = fill(np.empty((wide.rows, wide.columns)), fine, wide, source)
        north = fine.cell_y * KM_PER_DEGREE * 1000
        east = fine.cell_x * KM_PER_DEGREE * 1000 * np.cos(np.deg2rad(fine.latitudes(top, wide.rows)))
        rise_y, rise_x = np.gradient(metres, north, axis=0), np.gradient(metres, axis=1) / east[:, None]
        degrees = np.rad2deg(np.arctan(np.hypot(rise_x, rise_y)))
        row, column = window.row - top, window.column - left
        return degrees[row : row + window.rows, column : column + window.columns].astype(np.float32)

    note = f"of the elevation ({elevation.channel.units}, taken as metres) on the fine grid, by central differences"
    return StaticField(Channel("slope", COMPUTED["slope"]), read, note=note)


def describe_statics(fields: Iterable[StaticField]) -> list[dict[str, Any]]:
    """Name, units, file and how it was made, of each static field."""
    fields = list(fields)
    # Several fields may come from one large file.
    files = {path: fingerprint(path) for path in {field.path for field in fields} if path is not None}
    return [
        {"name": field.channel.name, "units": field.channel.units}
        | ({"file": files[field.path]} if field.path is not None else {})
        | ({"note": field.note} if field.note else {})
        for field in fields
    ]

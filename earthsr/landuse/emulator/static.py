"""Static fields of a region, in memory: their grid is that of the maps."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.elevations import require_ground
from earthsr.geo.fields import open_dataset
from earthsr.geo.grid import Grid
from earthsr.geo.lonlat import open_lonlat
from earthsr.geo.window import Window
from earthsr.landuse.emulator.places import Placed, cut_to, decoded, place
from earthsr.landuse.sources.scenario_files import variable_name
from earthsr.landuse.sources.statics import METRES
from earthsr.landuse.sources.world_inputs import BBox, output_grid

#: Fields that need no file.
_COMPUTED: Final = ("latitude", "longitude")


class Static(NamedTuple):
    """Static fields on the grid of the maps."""

    grid: Grid
    values: NDArray[np.float32]
    """(C, rows, columns) in their units, NaN where there is no value."""


def read_static(given: Any, names: Sequence[str], bbox: BBox | None = None) -> Static:
    """Read the static fields of a model.

    Parameters
    ----------
    given : Dataset, mapping, str or Path
        A Dataset, or a NetCDF file, with a variable for each field; or by name a DataArray, or a GeoTIFF or NetCDF
        file (``FILE.nc:VARIABLE``). Fields that the model does not know are left alone; ``latitude`` and ``longitude``
        are computed where they are not given.
    names : sequence of str
        C fields of the model, in its order.
    bbox : tuple of float, optional
        West, south, east, north of the part that is mapped, degrees; west beyond east goes across the dateline.

    Raises
    ------
    InputError, DataError
        If a field is missing, or on other cells than the first.
    """
    fields = _given(given, names)
    missing = [name for name in names if name not in fields and name not in _COMPUTED]
    if missing:
        raise InputError(
            f"the model reads the static fields {', '.join(names)}; missing: {', '.join(missing)}; give them in static="
        )
    if not fields:
        raise InputError("static has no field with a grid: nothing says where the maps are; give a field of the region")
    placed = {name: _placed(field, name) for name, field in fields.items()}
    whole = next(iter(placed.values())).grid
    grid = output_grid(whole, None, bbox)
    values = np.empty((len(names), grid.rows, grid.columns), np.float32)
    for channel, name in zip(values, names, strict=True):
        channel[...] = _coordinate(name, grid, whole) if name not in placed else _on(placed[name], grid, name)
    return Static(grid, values)


def _given(given: Any, names: Sequence[str]) -> dict[str, Any]:
    """Field by name, of those that the model knows."""
    xarray = geo_module("xarray")
    if isinstance(given, str | Path):
        return {name: f"{given}:{variable_name(name)}" for name in _variables(Path(given), names)}
    if isinstance(given, xarray.DataArray):
        if given.name is None:
            raise InputError("static is a DataArray without a name, expected a Dataset, or fields by their names")
        given = given.to_dataset()
    if not isinstance(given, xarray.Dataset | Mapping):
        raise InputError(
            f"static is of type {type(given).__name__}, expected a Dataset, a NetCDF file, or fields by name"
        )
    if isinstance(given, xarray.Dataset):
        keys = [str(key) for key in given.data_vars]
        return {name: given[_key(keys, name)] for name in names if _key(keys, name) in keys}
    return {name: given[name] for name in names if name in given}


def _variables(path: Path, names: Sequence[str]) -> list[str]:
    if not path.exists():
        raise DataError(f"{path}: no such file of static fields")
    dataset = open_dataset(path)
    try:
        return [name for name in names if variable_name(name) in dataset.data_vars]
    finally:
        dataset.close()


def _key(keys: Sequence[str], name: str) -> str:
    return name if name in keys else variable_name(name)


def _placed(field: Any, name: str) -> Placed:
    what = f"static field {name}"
    if isinstance(field, str | Path):
        raster = open_lonlat(field, prefer=name)
        try:
            if raster.years is not None and len(raster.years) > 1:
                raise DataError(f"{raster.name}: {what} has {len(raster.years)} steps, expected one; take one out")
            if name == "elevation" and raster.units.lower() in METRES:
                raster.check = functools.partial(require_ground, name=raster.name)
            whole = Window(0, 0, raster.grid.rows, raster.grid.columns)
            return Placed(raster.grid, raster.read(whole))
        finally:
            raster.close()
    if not isinstance(field, geo_module("xarray").DataArray):
        raise InputError(f"{what} is of type {type(field).__name__}, expected a DataArray or a path")
    placed = place(field.squeeze(), what)
    if placed.values.ndim != 2:
        raise DataError(f"{what} has the axes {', '.join(map(str, field.dims))}, expected lat and lon")
    return placed._replace(values=decoded(field, placed.values, what))


def _on(field: Placed, grid: Grid, name: str) -> NDArray[np.float32]:
    what = f"static field {name}"
    covered = cut_to(field._replace(values=np.ones(field.values.shape, np.uint8)), grid, 0, what)
    if not covered.all():
        raise DataError(
            f"{what} covers {int(covered.sum())} of the {covered.size} cells of the first field; give it whole"
        )
    values = cut_to(field, grid, np.nan, what)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _coordinate(name: str, grid: Grid, whole: Grid) -> NDArray[np.float32]:
    if name == "latitude":
        return np.broadcast_to(grid.latitudes()[:, None], (grid.rows, grid.columns)).astype(np.float32)
    longitudes = grid.longitudes()
    # A part across the dateline has there the values that the whole globe has.
    turn = whole.west + 360 if whole.periodic else np.inf
    return np.broadcast_to(
        np.where(longitudes >= turn, longitudes - 360, longitudes), (grid.rows, grid.columns)
    ).astype(np.float32)

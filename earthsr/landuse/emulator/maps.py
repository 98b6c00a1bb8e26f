"""Static fields, class maps and masks that a caller hands over: read by their coordinates, and checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import sample
from earthsr.geo.elevations import elevations
from earthsr.geo.fields import open_dataset
from earthsr.geo.grid import Grid, Window
from earthsr.geo.memory import Placed, array_source, cut_to, decoded, place, require_xarray, years_in
from earthsr.geo.raster import Georeference
from earthsr.geo.values import kept_attributes, packing_of
from earthsr.geo.voids import require_no_common_fill
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.maps import MapsSpec
from earthsr.landuse.maps.layout import flags
from earthsr.landuse.sources.rasters import open_anchor, open_lonlat
from earthsr.landuse.sources.scenario_files import variable_name
from earthsr.landuse.sources.statics import in_metres
from earthsr.landuse.sources.world_inputs import BBox, output_grid

#: Fields that need no file.
_COMPUTED: Final = ("latitude", "longitude")

#: CRS of all grids here.
CRS: Final = "EPSG:4326"
#: Cells whose codes are looked up at once.
_AT_ONCE: Final = 2**22


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
    fields = _static_fields(given, names)
    missing = [name for name in names if name not in fields and name not in _COMPUTED]
    if missing:
        raise InputError(
            f"the model reads the static fields {', '.join(names)}; missing: {', '.join(missing)}; give them in static="
        )
    if not fields:
        raise InputError("static has no field with a grid: nothing says where the maps are; give a field of the region")
    placed = {name: _static_placed(field, name) for name, field in fields.items()}
    whole = next(iter(placed.values())).grid
    grid = output_grid(whole, None, bbox)
    values = np.empty((len(names), grid.rows, grid.columns), np.float32)
    for channel, name in zip(values, names, strict=True):
        channel[...] = (
            _coordinate(name, grid, whole) if name not in placed else _static_values(placed[name], grid, name)
        )
    return Static(grid, values)


def _static_fields(given: Any, names: Sequence[str]) -> dict[str, Any]:
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


def _static_placed(field: Any, name: str) -> Placed:
    what = f"static field {name}"
    if isinstance(field, str | Path):
        raster = open_lonlat(field, prefer=name)
        try:
            if raster.years is not None and len(raster.years) > 1:
                raise DataError(f"{raster.name}: {what} has {len(raster.years)} steps, expected one; take one out")
            if name == "elevation" and in_metres(raster.units):
                raster.take_for_elevations()
            else:
                raster.check = functools.partial(require_no_common_fill, name=raster.name)
            whole = Window(0, 0, raster.grid.rows, raster.grid.columns)
            return Placed(raster.grid, raster.read(whole))
        finally:
            raster.close()
    if not isinstance(field, geo_module("xarray").DataArray):
        raise InputError(f"{what} is of type {type(field).__name__}, expected a DataArray or a path")
    placed = place(field.squeeze(), what)
    if placed.values.ndim != 2:
        raise DataError(f"{what} has the axes {', '.join(map(str, field.dims))}, expected lat and lon")
    values = decoded(field, placed.values, what)
    if name == "elevation" and in_metres(units := str(field.attrs.get("units", ""))):
        lies = Georeference.of(placed.grid, units=units, attributes=kept_attributes(field.attrs))
        whole = Window(0, 0, placed.grid.rows, placed.grid.columns)
        values = elevations(array_source(values, lies, what), option=None).read(whole)
    else:
        require_no_common_fill(values, what)
    return placed._replace(values=values)


def _static_values(field: Placed, grid: Grid, name: str) -> NDArray[np.float32]:
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


class ClassMap(NamedTuple):
    """A map of classes on the emulator's grid."""

    classes: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    free: NDArray[np.bool_] | None
    """Cells that may change, where the map says so: that of an earlier step does."""
    year: int | None


def read_map(given: Any, table: ClassTable, grid: Grid, what: str) -> ClassMap:
    """Read a class map.

    Parameters
    ----------
    given : Dataset, DataArray, str or Path
        What a step returned, an array of the table's codes, or a class raster (``[YEAR=]PATH``).
    table : ClassTable
        The checkpoint's.
    grid : Grid
        Of the emulator. Arrays have its cells, and may have more; rasters are sampled at the centres of its cells.
    what : str
        Its name, for errors.

    Raises
    ------
    InputError, DataError
        If its classes, codes or cells are others, or no cell has a class.
    """
    class_map = (
        _from_raster(str(given), table, grid)
        if isinstance(given, str | Path)
        else _from_array(given, table, grid, what)
    )
    if not (class_map.classes != NODATA).any():
        raise DataError(f"{what}: no cell of the region has a class")
    return class_map


def _from_raster(spec: str, table: ClassTable, grid: Grid) -> ClassMap:
    maps, year = open_anchor(spec, table)
    try:
        whole = Window(0, 0, grid.rows, grid.columns)
        empty = np.full((grid.rows, grid.columns), NODATA, np.uint8)
        classes = sample(empty, grid, whole, maps.grid, lambda window: maps.read(year, window))
    finally:
        maps.close()
    return ClassMap(classes, None, year)


def _from_array(given: Any, table: ClassTable, grid: Grid, what: str) -> ClassMap:
    given = require_xarray(given, what)
    free = None
    if isinstance(given, geo_module("xarray").Dataset):
        if "land_use" not in given:
            held = ", ".join(map(str, given.data_vars)) or "nothing"
            raise InputError(
                f"{what} has no variable land_use, it has {held}; give what a step returned, or a class map"
            )
        array = given["land_use"]
        if "may_change" in given:
            free = _on_grid(given["may_change"], grid, 0, f"{what}: may_change") > 0
        if "year" in given.attrs:
            array = array.assign_attrs(year=given.attrs["year"])
    else:
        array = given
    axis, years = years_in(array, what)
    if axis is not None:
        if len(years) > 1:
            raise InputError(f"{what} has {len(years)} maps, expected one; take one out, such as .isel({axis}=0)")
        array = array.isel({axis: 0})
    _require_table(array.attrs, table, grid, what)
    fill_value = array.attrs.get("_FillValue", array.encoding.get("_FillValue"))
    # Codes of an array that nobody decoded may be signed bytes that mean unsigned ones.
    codes = packing_of(array.attrs, array.dtype, what, decoded=array.encoding).stored(_on_grid(array, grid, 0, what))
    return ClassMap(indices_of(codes, table, what, fill_value), free, years[0] if years else None)


def _on_grid(array: Any, grid: Grid, empty: float, what: str) -> NDArray[Any]:
    placed = place(array.squeeze(), what)
    if placed.values.ndim != 2:
        raise DataError(f"{what} has the axes {', '.join(map(str, array.dims))}, expected lat and lon")
    inside = cut_to(placed._replace(values=np.ones(placed.values.shape, np.uint8)), grid, 0, what)
    if not inside.all():
        raise DataError(
            f"{what} covers {int(inside.sum())} of the {inside.size} cells of the region; give a map of all of it"
        )
    return cut_to(placed, grid, empty, what)


def _require_table(attributes: Any, table: ClassTable, grid: Grid, what: str) -> None:
    """Check what a map says of its classes, where it says something.

    Raises
    ------
    DataError
        If these are others than the checkpoint's.
    """
    expected = flags(MapsSpec(grid, CRS, (2000,), table, (grid.rows, grid.columns), ("land_use",)))
    ours = dict(zip(expected["flag_values"].tolist(), expected["flag_meanings"].split(), strict=True))
    if "flag_values" not in attributes and "flag_meanings" not in attributes:
        return
    values = [int(value) for value in np.atleast_1d(attributes.get("flag_values", list(ours)))]
    meanings = str(attributes.get("flag_meanings", " ".join(ours.values()))).split()
    theirs = dict(zip(values, meanings, strict=False))
    if len(values) != len(meanings) or theirs != ours:
        listed = [", ".join(f"{code} {name}" for code, name in meaning.items()) for meaning in (theirs, ours)]
        raise DataError(
            f"{what} is of another class table: its flag_values and flag_meanings say {listed[0]}, the checkpoint "
            f"knows {listed[1]}; translate its codes first"
        )


def indices_of(codes: NDArray[Any], table: ClassTable, what: str, fill_value: Any = None) -> NDArray[np.uint8]:
    """Turn codes into class indices; 255, NaN, the fill value and the table's codes of no class become 255.

    Raises
    ------
    DataError
        If a code is in no class; the message names it.
    """
    if codes.dtype.kind not in "iuf":
        raise DataError(f"{what} holds {codes.dtype}, expected the codes of classes as numbers")
    meaning = {float(code): i for i, land_class in enumerate(table.classes) for code in land_class.codes}
    empty = {float(code) for code in (NODATA, *table.nodata_codes)}
    if fill_value is not None and float(fill_value) not in meaning:
        empty.add(float(fill_value))
    indices = np.empty(codes.shape, np.uint8)
    # Some rows at a time: what looks codes up needs eight bytes a cell.
    step = max(1, _AT_ONCE // max(codes.shape[1], 1))
    for top in range(0, len(codes), step):
        held, place_of = np.unique(codes[top : top + step], return_inverse=True)
        for code in held.tolist():
            if np.isfinite(code) and code not in meaning and code not in empty:
                known = ", ".join(
                    f"{'/'.join(map(str, land_class.codes))} {land_class.name}" for land_class in table.classes
                )
                raise DataError(
                    f"{what} has the code {code:g}, which is in no class of the checkpoint's table {table.name} "
                    f"({known}; none: {', '.join(f'{code:g}' for code in sorted(empty))}); translate its codes first"
                )
        lookup = np.array([meaning.get(code, NODATA) for code in held.tolist()], np.uint8)
        indices[top : top + step] = lookup[place_of].reshape(indices[top : top + step].shape)
    return indices


def read_protected(given: Any, grid: Grid) -> NDArray[np.bool_]:
    """Cells (rows, columns) that may not change: those that are not 0 in any mask.

    Parameters
    ----------
    given : DataArray, str, Path, or a sequence of them, or None
        Arrays have the cells of the grid; rasters are sampled at their centres. What lies beyond one, or has no value
        there, is not protected by it.
    grid : Grid
        Of the emulator.

    Raises
    ------
    InputError, DataError
        If one cannot be read, or an array has other cells.
    """
    protected = np.zeros((grid.rows, grid.columns), bool)
    masks: Sequence[Any] = () if given is None else given if isinstance(given, list | tuple) else (given,)
    for mask in masks:
        if isinstance(mask, str | Path):
            protected |= _mask_of(mask, grid)
            continue
        if isinstance(require_xarray(mask, "protected"), geo_module("xarray").Dataset):
            raise InputError("protected is a Dataset, expected one DataArray: true where cells keep their class")
        placed = place(mask.squeeze(), "protected")
        if placed.values.ndim != 2:
            raise DataError(f"protected has the axes {', '.join(map(str, mask.dims))}, expected lat and lon")
        values = np.nan_to_num(decoded(mask, placed.values, "protected"), nan=0.0)
        protected |= cut_to(placed._replace(values=values), grid, 0.0, "protected") != 0
    return protected


def _mask_of(path: str | Path, grid: Grid) -> NDArray[np.bool_]:
    raster = open_lonlat(path)

    def marked(window: Window) -> NDArray[np.bool_]:
        values = raster.read(window)
        return ~np.isnan(values) & (values != 0)

    try:
        empty = np.zeros((grid.rows, grid.columns), bool)
        return sample(empty, grid, Window(0, 0, grid.rows, grid.columns), raster.grid, marked)
    finally:
        raster.close()

"""Class maps and masks that a caller hands over: read by their coordinates, and checked against the model's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import sample
from earthsr.geo.grid import Grid
from earthsr.geo.lonlat import open_lonlat
from earthsr.geo.values import packing_of
from earthsr.geo.window import Window
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.emulator.places import cut_to, decoded, place, require_xarray, years_in
from earthsr.landuse.maps import MapsSpec
from earthsr.landuse.maps.layout import flags
from earthsr.landuse.sources.class_maps import open_anchor

#: CRS of all grids here.
CRS: Final = "EPSG:4326"
#: Cells whose codes are looked up at once.
_AT_ONCE: Final = 2**22


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

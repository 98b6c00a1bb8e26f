"""Fields on axes, read window by window: variables of NetCDF files and Zarr stores, and DataArrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, geo_module
from earthsr.geo.cf import Axes, axes_of, grid_of
from earthsr.geo.georeference import Georeference
from earthsr.geo.lonlat_rasters import open_dataset
from earthsr.geo.values import kept_attributes, physical, unreadable
from earthsr.geo.window import Window


class FieldSource:
    """One field of two dimensions, or one layer of a field of three."""

    def __init__(
        self,
        name: str,
        open_array: Callable[[], tuple[Any, Callable[[], None]]],
        georeference: Georeference,
        axes: Axes,
        layer: dict[str, int],
        nodata: tuple[float, ...],
    ) -> None:
        self.name, self.georeference = name, georeference
        self._open, self._axes, self._layer, self._nodata = open_array, axes, layer, nodata
        self._opened: tuple[Any, Callable[[], None]] | None = None

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (rows, columns) from north to south, NaN where there is no value.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        row, column, rows, columns = window = self.georeference.check(window)
        if self._axes.ascending:
            row = self.georeference.rows - row - rows
        y, x = self._axes.y, self._axes.x
        at = {**self._layer, y: slice(row, row + rows), x: slice(column, column + columns)}
        try:
            self._opened = self._opened or self._open()
            array = self._opened[0]
            stored = np.asarray(array.isel(at).transpose(y, x).values)
        except DataError:
            raise
        except Exception as error:  # every library has errors of its own for a damaged block
            raise unreadable(self.name, window, error) from error
        said = array.attrs
        if _unsigned(said, stored.dtype):
            stored = stored.view(f"u{stored.dtype.itemsize}")
        scale, offset = float(said.get("scale_factor", 1.0)), float(said.get("add_offset", 0.0))
        values = physical(stored, self._nodata, scale, offset)
        return np.ascontiguousarray(values[::-1]) if self._axes.ascending else values

    def release(self) -> None:
        """Close the file until the next read."""
        if self._opened is not None:
            self._opened[1]()
            self._opened = None

    def close(self) -> None:
        """Close the file."""
        self.release()


def field_source(
    name: str,
    array: Any,
    variables: Any,
    open_array: Callable[[], tuple[Any, Callable[[], None]]],
    *,
    nodata: float | None,
    units: str | None,
    band: int | None,
    need_crs: bool = True,
) -> FieldSource:
    """Describe a field and read it.

    Parameters
    ----------
    name : str
        For messages.
    array : xarray.DataArray
        The field, decoded or not.
    variables : Mapping
        Where the variable of its CRS is looked for.
    open_array : callable
        Gives the field and what closes it again.
    nodata, units, band
        As in :func:`~earthsr.geo.readers.open_source`.
    need_crs : bool
        Whether it is an error to have none.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: holds {array.dtype}, expected real numbers")
    axes = axes_of(array, name)
    layer = _layer(array, axes, name, band)
    voids = _voids(array) if nodata is None else (nodata,)
    georeference = grid_of(
        array,
        variables,
        axes,
        name,
        units=str(array.attrs.get("units", "")) if units is None else units,
        nodata=voids[0] if voids else None,
        attributes=kept_attributes(array.attrs),
        need_crs=need_crs,
    )
    return FieldSource(name, open_array, georeference, axes, layer, voids)


def _voids(array: Any) -> tuple[float, ...]:
    """Stored numbers that mean no value; a decoded field has NaN there and remembers them in its encoding."""
    found: list[float] = []
    for key in ("_FillValue", "missing_value"):
        said = array.attrs.get(key, array.encoding.get(key))
        if said is not None and np.asarray(said).dtype.kind in "iuf":
            found += [float(number) for number in np.ravel(said)]
    if _unsigned(array.attrs, array.dtype):
        # NetCDF 3 has no unsigned type: fill values are stored as signed as the values are.
        found = [number + 256**array.dtype.itemsize if number < 0 else number for number in found]
    return tuple(dict.fromkeys(found))


def _unsigned(said: Mapping[str, Any], dtype: np.dtype) -> bool:
    """Whether stored integers are unsigned though their type is not."""
    return str(said.get("_Unsigned", "")).lower() == "true" and dtype.kind == "i"


def _layer(array: Any, axes: Axes, name: str, band: int | None) -> dict[str, int]:
    others = {str(dim): array.sizes[dim] for dim in array.dims if dim not in (axes.y, axes.x)}
    several = [dim for dim, count in others.items() if count > 1]
    listed = " x ".join(f"{dim} ({count})" for dim, count in others.items())
    if several and (band is None or len(several) > 1):
        raise DataError(
            f"{name}: has several layers, {listed}, expected one; cdo seltimestep,1 IN OUT (or ncks -d {several[0]},0) "
            "takes one out"
        )
    count = others[several[0]] if several else 1
    if band is not None and not 1 <= band <= count:
        raise DataError(f"{name}: has no band {band}, it has {count}; they count from 1")
    layer = dict.fromkeys(others, 0)
    if several and band is not None:
        layer[several[0]] = band - 1
    return layer


def open_netcdf(
    path: Path, variable: str | None, nodata: float | None = None, units: str | None = None, band: int | None = None
) -> FieldSource:
    """Open one variable of a NetCDF file."""
    return _open(path, variable, open_dataset, nodata=nodata, units=units, band=band)


def open_zarr(
    path: Path, variable: str | None, nodata: float | None = None, units: str | None = None, band: int | None = None
) -> FieldSource:
    """Open one array of a Zarr store, of version 2 or 3, with consolidated metadata or without."""
    return _open(path, variable, _open_store, nodata=nodata, units=units, band=band)


def _open_store(path: Path) -> Any:
    xarray = geo_module("xarray")
    geo_module("zarr")
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that metadata are not consolidated concerns nobody here
            return xarray.open_dataset(path, engine="zarr", chunks=None, cache=False, decode_cf=False)
    except Exception as error:  # zarr has many errors for stores that are no groups of arrays
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path.name}: cannot be read as a Zarr store ({reason})") from None


def _open(
    path: Path,
    variable: str | None,
    open_file: Callable[[Path], Any],
    *,
    nodata: float | None,
    units: str | None,
    band: int | None,
) -> FieldSource:
    dataset = open_file(path)
    try:
        key = _choose(dataset, variable, path.name)

        def again() -> tuple[Any, Callable[[], None]]:
            opened = open_file(path)
            return opened[key], opened.close

        source = field_source(
            f"{path.name}: {key}",
            dataset[key],
            dataset.variables,
            again,
            nodata=nodata,
            units=units,
            band=band,
        )
    finally:
        dataset.close()
    return source


def _choose(dataset: Any, variable: str | None, name: str) -> str:
    """Name the field to read: the one that is asked for, else the only one with two axes of space."""
    fields = []
    for key, array in dataset.data_vars.items():
        try:
            axes_of(array, name)
        except DataError:
            continue
        fields.append(str(key))
    listed = ", ".join(fields)
    if not fields:
        dims = ", ".join(f"{dim} ({size})" for dim, size in dataset.sizes.items()) or "none"
        raise DataError(
            f"{name}: has no field on axes of latitude and longitude, or of y and x in a projection, among the "
            f"dimensions {dims}; gdalwarp -t_srs EPSG:4326 IN OUT.tif makes such a grid"
        )
    if variable is not None:
        if variable not in fields:
            raise DataError(f"{name}: has no field {variable}, it has {listed}")
        return variable
    if len(fields) != 1:
        raise DataError(f"{name}: holds {len(fields)} fields ({listed}); name the one to take as {name}:VARIABLE")
    return fields[0]

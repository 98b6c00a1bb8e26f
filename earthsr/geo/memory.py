"""Rasters in memory, arrays and xarray's DataArrays, read and written as files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthsr.errors import DataError, geo_module
from earthsr.geo.cf import axes_of, grid_mapping_name
from earthsr.geo.cf_write import CRS_VARIABLE, axis_attributes, axis_names, crs_attributes
from earthsr.geo.fields import FieldSource, field_source
from earthsr.geo.grid import Window
from earthsr.geo.raster import Codes, Georeference
from earthsr.geo.values import Packing, Voids, voids_of


class ArraySource:
    """An array with its place; :func:`array_source` makes it."""

    def __init__(self, values: NDArray, georeference: Georeference, name: str) -> None:
        self._values, self.georeference, self.name = values, georeference, name

    def read(self, window: Window) -> NDArray[np.float32]:
        """Copy (rows, columns); NaN where there is no value."""
        row, column, rows, columns = self.georeference.check(window)
        voids = Packing(voids_of(self.georeference.nodata))
        return voids.decode(self._values[row : row + rows, column : column + columns])

    def codes(self, window: Window) -> Codes:
        """Copy (rows, columns) as they are, and which of them are values."""
        row, column, rows, columns = self.georeference.check(window)
        values = self._values[row : row + rows, column : column + columns].copy()
        return Codes(values, ~Packing(voids_of(self.georeference.nodata)).void(values))

    def close(self) -> None:
        """Let the array go."""
        self._values = np.empty((0, 0), np.float32)


def array_source(values: ArrayLike, georeference: Georeference, name: str = "array") -> ArraySource:
    """Read an array as a raster.

    Parameters
    ----------
    values : array_like of shape (rows, columns)
        From north to south; NaN and the georeference's nodata are no values.
    georeference : Georeference
        Its place.
    name : str
        For messages.

    Raises
    ------
    DataError
        If the shape is not that of the grid, or these are no numbers.
    """
    array = np.asarray(values)
    expected = (georeference.rows, georeference.columns)
    if array.shape != expected or array.dtype.kind not in "iuf":
        raise DataError(f"{name}: has shape {array.shape} of {array.dtype}, expected numbers of shape {expected}")
    return ArraySource(array, georeference, name)


class MemorySink:
    """Collects what is written in an array.

    Parameters
    ----------
    georeference : Georeference
        Of what is written.
    bands : sequence of str
        Names of the bands.
    """

    def __init__(self, georeference: Georeference, bands: Sequence[str] = ("elevation",)) -> None:
        self.georeference, self.bands = georeference, tuple(bands)
        self.values = np.full((len(self.bands), georeference.rows, georeference.columns), np.nan, np.float32)
        """(bands, rows, columns), NaN where nothing was written."""
        self.attributes: dict[str, Any] = {}
        """As given to :meth:`finish`."""

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write a ``block`` (bands, rows, columns) with its first cell at ``row``, ``column``."""
        window = self.georeference.check(Window(row, column, *block.shape[1:]))
        self.values[:, row : row + window.rows, column : column + window.columns] = block

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Keep ``attributes``, the provenance."""
        self.attributes = dict(attributes)

    def abort(self) -> None:
        """Let the array go."""
        self.values = self.values[:, :0, :0]


def dataarray_source(
    array: Any, *, nodata: Voids = None, units: str | None = None, name: str | None = None
) -> FieldSource:
    """Read a DataArray as a raster, window by window: only what a window touches is loaded or computed.

    Parameters
    ----------
    array : xarray.DataArray
        On axes of latitude and longitude, or of y and x, in either order and with rows either way up; other
        dimensions have length one. Its CRS is that of its coordinate ``spatial_ref`` or of its ``grid_mapping``, else
        its attribute ``crs``, else EPSG:4326 where the axes are latitude and longitude, else none.
    nodata : float or sequence of float, optional
        Numbers that stand for no value besides NaN.
    units : str, optional
        In place of the attribute ``units``.
    name : str, optional
        For messages, in place of the array's own.

    Raises
    ------
    DataError
        If it has no such axes or they are not regular, or it holds no numbers.
    """
    if not hasattr(array, "isel") or not hasattr(array, "dims"):
        raise DataError(f"expected an xarray.DataArray, got {type(array).__name__}")
    if hasattr(array, "data_vars"):
        listed = [str(key) for key in array.data_vars] or ["none"]
        raise DataError(
            f"expected a DataArray, got a Dataset of {', '.join(listed)}; take one, as dataset['{listed[0]}']"
        )
    return field_source(
        name or (str(array.name) if array.name else "DataArray"),
        array,
        {},
        lambda: (array, lambda: None),
        nodata=nodata,
        units=units,
        band=None,
        need_crs=False,
    )


def to_dataarray(
    values: NDArray[np.float32],
    georeference: Georeference,
    bands: Sequence[str] = ("elevation",),
    *,
    like: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Make a DataArray of a raster, or a Dataset where there are several bands.

    Parameters
    ----------
    values : ndarray of shape (bands, rows, columns)
        From north to south, NaN where there is no value.
    georeference : Georeference
        Its place.
    bands : sequence of str
        Names of the bands; of one band, the name of the DataArray.
    like : xarray.DataArray, optional
        Names and order of dimensions, direction of the rows, attributes of the axes and the coordinate of the CRS are
        as there.
    attributes : Mapping, optional
        Added to those of the values.

    Returns
    -------
    xarray.DataArray or xarray.Dataset

    Raises
    ------
    DataError
        If the shape of ``values`` is not that of bands and georeference.
    """
    xarray = geo_module("xarray")
    expected = (len(bands), georeference.rows, georeference.columns)
    if values.shape != expected:
        raise DataError(f"values have shape {values.shape}, expected {expected} (bands, rows, columns)")
    said_y, said_x = axis_attributes(georeference)
    y, x = axis_names(georeference)
    ascending, order = False, (y, x)
    mapping: str | None = CRS_VARIABLE
    if like is not None:
        axes = axes_of(like, "DataArray")
        y, x, ascending = axes.y, axes.x, axes.ascending
        order = (y, x) if like.dims.index(y) < like.dims.index(x) else (x, y)
        said_y, said_x = dict(like[y].attrs), dict(like[x].attrs)
        mapping = grid_mapping_name(like, {})
    rows, columns = georeference.y(), georeference.x()
    if ascending:
        rows, values = rows[::-1], values[:, ::-1]
    coordinates: dict[str, Any] = {y: (y, rows, said_y), x: (x, columns, said_x)}
    value_attributes: dict[str, Any] = {k: v for k, v in georeference.attributes.items() if k != "AREA_OR_POINT"}
    if georeference.units:
        value_attributes["units"] = georeference.units
    if georeference.crs_wkt and mapping:
        coordinates[mapping] = ((), 0, crs_attributes(georeference, north_first=not ascending))
        value_attributes["grid_mapping"] = mapping
    elif like is not None and "crs" in like.attrs:
        value_attributes["crs"] = like.attrs["crs"]
    arrays = {}
    for number, band in enumerate(bands):
        names = {} if number == 0 else {"long_name": band, "standard_name": None}
        kept = {k: v for k, v in {**value_attributes, **names, **(attributes or {})}.items() if v is not None}
        array = xarray.DataArray(values[number], coordinates, (y, x), band, kept)
        arrays[band] = array.transpose(*order)
    return arrays[bands[0]] if len(bands) == 1 else xarray.Dataset(arrays)

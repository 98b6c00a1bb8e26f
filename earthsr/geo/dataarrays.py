"""xarray's DataArrays as rasters, and rasters as DataArrays that look like the one they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.cf import axes_of, grid_mapping_name
from earthsr.geo.cf_write import axis_attributes, crs_attributes
from earthsr.geo.fields import FieldSource, field_source
from earthsr.geo.georeference import Georeference
from earthsr.geo.lonlat_rasters import geo_module


def dataarray_source(
    array: Any, *, nodata: float | None = None, units: str | None = None, name: str | None = None
) -> FieldSource:
    """Read a DataArray as a raster, window by window: only what a window touches is loaded or computed.

    Parameters
    ----------
    array : xarray.DataArray
        On axes of latitude and longitude, or of y and x, in either order and with rows either way up; other
        dimensions have length one. Its CRS is that of its coordinate ``spatial_ref`` or of its ``grid_mapping``, else
        its attribute ``crs``, else EPSG:4326 where the axes are latitude and longitude, else none.
    nodata : float, optional
        Number that stands for no value besides NaN.
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
    y, x = ("lat", "lon") if georeference.geographic else ("y", "x")
    ascending, order = False, (y, x)
    mapping: str | None = "crs"
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
    said: dict[str, Any] = {k: v for k, v in georeference.attributes.items() if k != "AREA_OR_POINT"}
    if georeference.units:
        said["units"] = georeference.units
    if georeference.crs_wkt and mapping:
        coordinates[mapping] = ((), 0, crs_attributes(georeference, north_first=not ascending))
        said["grid_mapping"] = mapping
    elif like is not None and "crs" in like.attrs:
        said["crs"] = like.attrs["crs"]
    arrays = {}
    for number, band in enumerate(bands):
        names = {} if number == 0 else {"long_name": band, "standard_name": None}
        kept = {k: v for k, v in {**said, **names, **(attributes or {})}.items() if v is not None}
        array = xarray.DataArray(values[number], coordinates, (y, x), band, kept)
        arrays[band] = array.transpose(*order)
    return arrays[bands[0]] if len(bands) == 1 else xarray.Dataset(arrays)

"""Rasters in memory, arrays and xarray's DataArrays: read and written as files are, or brought into order at once.

In order means rows from north to south and columns from west to east. Nothing is guessed from the order of the values:
there an array without latitudes and longitudes is refused, for it may be upside down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import aligned, fill
from earthsr.geo.cf import axes_of, grid_mapping_name, regular_axis, years_along
from earthsr.geo.cf_write import CRS_VARIABLE, axis_attributes, axis_names, crs_attributes
from earthsr.geo.fields import FieldSource, field_source
from earthsr.geo.grid import Grid, Window
from earthsr.geo.raster import SOURCE_BAND, Codes, Georeference
from earthsr.geo.values import Packing, Voids, packing_of, voids_of


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
    array: Any, *, nodata: Voids = None, units: str | None = None, name: str | None = None, layers: bool = False
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
    layers : bool
        Whether it may have several, along one more dimension, such as years.

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
        layers=layers,
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
        names: dict[str, Any] = {} if number == 0 else {"long_name": band, "standard_name": None}
        if band == SOURCE_BAND:
            names["units"] = "1"
        kept = {k: v for k, v in {**value_attributes, **names, **(attributes or {})}.items() if v is not None}
        array = xarray.DataArray(values[number], coordinates, (y, x), band, kept)
        arrays[band] = array.transpose(*order)
    return arrays[bands[0]] if len(bands) == 1 else xarray.Dataset(arrays)


_TIMES: Final = ("time", "year", "years")


class Placed(NamedTuple):
    """Values and where they are."""

    grid: Grid
    values: NDArray[Any]
    """(..., rows, columns), north to south and west to east."""


def require_xarray(value: Any, what: str) -> Any:
    """Return a value that is an xarray Dataset or DataArray.

    Raises
    ------
    InputError
        If it is something else; the message says what it is.
    """
    xarray = geo_module("xarray")
    if not isinstance(value, xarray.Dataset | xarray.DataArray):
        raise InputError(
            f"{what} is of type {type(value).__name__}, expected an xarray Dataset or DataArray with the coordinates "
            "lat and lon: without them nobody can tell where its cells are, or which way up it is"
        )
    return value


def place(array: Any, what: str, cell_deg: tuple[float, float] | None = None) -> Placed:
    """Bring an array into order by its coordinates.

    Parameters
    ----------
    array : DataArray
        With one axis of latitude and one of longitude, each with its coordinate; either may go either way.
    what : str
        Its name, for errors.
    cell_deg : tuple of float, optional
        Height and width of a cell, for axes of a single one.

    Raises
    ------
    InputError
        If an axis has no coordinate.
    DataError
        If an axis is not regular.
    """
    latitude, longitude = _axes(array, what)
    height, width = cell_deg or (None, None)
    y = _ends(np.asarray(array[latitude].values, np.float64), latitude, what, height)
    x = _ends(_unwrapped(np.asarray(array[longitude].values, np.float64)), longitude, what, width)
    rows, columns = array.sizes[latitude], array.sizes[longitude]
    if y.high > 90 + y.cell or y.low < -90 - y.cell:
        raise DataError(f"{what}: {latitude} goes from {y.low:g} to {y.high:g}, expected degrees between -90 and 90")
    values = array.transpose(..., latitude, longitude).values
    values = values[..., :: -1 if y.ascending else 1, :: 1 if x.ascending else -1]
    return Placed(Grid(x.low - x.cell / 2, y.high + y.cell / 2, x.cell, y.cell, rows, columns), values)


def decoded(array: Any, values: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Values of an array's stored numbers, NaN where there is none, as files are read."""
    return packing_of(array.attrs, array.dtype, what, decoded=array.encoding).decode(values)


def cut_to(field: Placed, grid: Grid, empty: float, what: str) -> NDArray[Any]:
    """Values on the cells of a grid, which have to be some of their own; ``empty`` where they have none.

    Raises
    ------
    DataError
        If the cells are others; the message says how they differ.
    """
    offset = aligned(grid, field.grid)
    if offset is None:
        raise DataError(f"{what}: {_difference(field.grid, grid)}")
    row, column = offset
    values = np.full((*field.values.shape[:-2], grid.rows, grid.columns), empty, field.values.dtype)

    def read(part: Window) -> NDArray[Any]:
        return field.values[..., part.row : part.row + part.rows, part.column : part.column + part.columns]

    return fill(values, field.grid, Window(row, column, grid.rows, grid.columns), read)


def years_in(array: Any, what: str) -> tuple[str | None, tuple[int, ...]]:
    """Name of an array's axis of time, None where it has none, and the years; none where nothing says them.

    Raises
    ------
    DataError
        If a time cannot be read.
    """
    for name in _TIMES:
        if name in array.dims and name not in array.coords:
            raise DataError(f"{what}: the axis {name} has no coordinate, so that nobody knows its years")
        if name in array.coords and array[name].ndim <= 1:
            return (name if name in array.dims else None), years_along(array[name], f"{what}: {name}")
    if "year" in array.attrs:
        try:
            return None, (int(array.attrs["year"]),)
        except (TypeError, ValueError):
            raise DataError(f"{what}: attribute year is {array.attrs['year']!r}, expected a calendar year") from None
    return None, ()


def _axes(array: Any, what: str) -> tuple[str, str]:
    """Names of the axes of latitude and longitude, which have to have their coordinates."""
    try:
        axes = axes_of(array, what)
    except DataError:
        dims = ", ".join(map(str, array.dims)) or "none"
        raise InputError(
            f"{what} has no coordinate of latitude or of longitude (its axes are {dims}), without which nobody can "
            "tell where its cells are, or which way up it is; give it lat and lon, in degrees"
        ) from None
    return axes.y, axes.x


def _unwrapped(longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes that count on across the dateline: 179, -179 becomes 179, 181."""
    steps = np.diff(longitudes)
    if not steps.size:
        return longitudes
    turns = np.where(np.abs(steps) > 180, -360 * np.sign(steps), 0.0)
    return longitudes + np.concatenate([[0.0], np.cumsum(turns)])


class _Ends(NamedTuple):
    low: float
    high: float
    cell: float
    ascending: bool


def _ends(centres: NDArray[np.float64], name: str, what: str, cell: float | None) -> _Ends:
    """Lowest and highest centre of an axis, its cell, and which way it goes."""
    if len(centres) == 1 and cell is not None and np.isfinite(centres[0]):
        return _Ends(float(centres[0]), float(centres[0]), cell, True)
    axis = regular_axis(centres, name, what)
    last = axis.first + axis.step * (axis.cells - 1)
    return _Ends(min(axis.first, last), max(axis.first, last), abs(axis.step), axis.step > 0)


def _difference(given: Grid, wanted: Grid) -> str:
    """How the cells of two grids differ, in words."""
    for name, a, b in (
        ("high", given.cell_y, wanted.cell_y),
        ("wide", given.cell_x, wanted.cell_x),
    ):
        if abs(a / b - 1) > 0.01:
            return f"cells are {a:.6g} degrees {name}, expected {b:.6g}; regrid it first (cdo remapcon)"
    edges, expected = given.bounds, wanted.bounds
    down = (edges.north - expected.north) / wanted.cell_y
    across = (edges.west - expected.west) / wanted.cell_x
    down, across = down - round(down), across - round(across)
    return (
        f"its grid is shifted by {abs(down):.3g} of a cell along latitude and {abs(across):.3g} along longitude "
        f"(an edge lies at {edges.north:.6g} N, {edges.west:.6g} E, expected one at {expected.north:.6g} N, "
        f"{expected.west:.6g} E); coordinates are centres of cells: give it on the cells that are expected"
    )

"""Arrays with coordinates, brought into one order: rows from north to south, columns from west to east.

Nothing is guessed from the order of the values: an array without latitudes and longitudes is refused, for it may be
upside down.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.areas import aligned, fill
from earthsr.geo.cf import axes_of, regular_axis, years_of
from earthsr.geo.grid import Grid, Window
from earthsr.geo.values import packing_of

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
            return (name if name in array.dims else None), _years(array[name], f"{what}: {name}")
    if "year" in array.attrs:
        try:
            return None, (int(array.attrs["year"]),)
        except (TypeError, ValueError):
            raise DataError(f"{what}: attribute year is {array.attrs['year']!r}, expected a calendar year") from None
    return None, ()


def _years(coordinate: Any, what: str) -> tuple[int, ...]:
    values = np.atleast_1d(coordinate.values)
    if values.dtype.kind == "M":
        return tuple(int(year) for year in values.astype("datetime64[Y]").astype(np.int64) + 1970)
    if values.dtype == object:  # the calendars of climate models
        try:
            return tuple(int(value.year) for value in values)
        except AttributeError:
            raise DataError(f"{what} holds {values[0]!r}, expected times or years") from None
    if values.dtype.kind not in "iuf":
        raise DataError(f"{what} holds {values[0]!r}, expected times or years")
    time_attributes = {key: str(coordinate.attrs.get(key, "")) for key in ("units", "calendar")}
    return years_of(values, time_attributes["units"], time_attributes["calendar"], what)


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

"""The CF conventions, read: which dimensions are axes of space, where their cells lie, in what CRS, and years.

Time is not decoded by xarray: LUH2 counts "years since 850-01-01", which has no length in days, and the calendars of
climate models need a further package there. Only the year is wanted here, in any of CF's calendars.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.crs import crs_name, parse_crs, wkt_of
from earthsr.geo.grid import columns_once
from earthsr.geo.raster import Georeference

_NAMES: Final = {
    "lat": ("lat", "latitude"),
    "lon": ("lon", "longitude"),
    "y": ("y", "northing", "ycoord"),
    "x": ("x", "easting", "xcoord"),
}
_STANDARD: Final = {
    "latitude": "lat",
    "longitude": "lon",
    "projection_y_coordinate": "y",
    "projection_x_coordinate": "x",
}
#: Share of a cell by which steps may differ; and by which a transform that is written beside the axes may.
_REGULAR: Final = 0.02
_EXACT: Final = 1e-4


class Axis(NamedTuple):
    """A regular axis: centre of the first cell, signed distance to the next one (degrees), number of cells."""

    first: float
    step: float
    cells: int


class Axes(NamedTuple):
    """Dimensions of a field that are axes of space."""

    y: str
    x: str
    ascending: bool
    """Whether rows go from south to north."""
    degrees: bool
    """Whether the axes say that they are longitude and latitude."""


def _kind(array: Any, dim: Any) -> str | None:
    """What an axis is: lat, lon, y, x, or none of these."""
    if dim not in array.coords:
        return None
    attrs = array[dim].attrs
    if (standard := str(attrs.get("standard_name", ""))) in _STANDARD:
        return _STANDARD[standard]
    units = str(attrs.get("units", "")).lower()
    if units.endswith(("_north", "_n")):
        return "lat"
    if units.endswith(("_east", "_e")):
        return "lon"
    name = str(dim).lower()
    for kind, names in _NAMES.items():
        if name in names:
            degrees = units in ("degree", "degrees", "deg")
            return {"y": "lat", "x": "lon"}.get(kind, kind) if degrees else kind
    return None


def axes_of(array: Any, name: str) -> Axes:
    """Find the axes of space of a field.

    Raises
    ------
    DataError
        If it has none.
    """
    kinds = {kind: str(dim) for dim in array.dims if (kind := _kind(array, dim))}
    for north, east in (("lat", "lon"), ("y", "x")):
        if north in kinds and east in kinds:
            values = array[kinds[north]].values
            ascending = bool(len(values) > 1 and values[-1] > values[0])
            return Axes(kinds[north], kinds[east], ascending, north == "lat")
    dims = ", ".join(f"{dim} ({size})" for dim, size in array.sizes.items())
    raise DataError(
        f"{name}: has dimensions {dims}, expected axes of latitude and longitude, or of y and x in a projection, with "
        "their coordinates"
    )


def grid_of(
    array: Any,
    variables: Mapping[Any, Any],
    axes: Axes,
    name: str,
    *,
    units: str,
    nodata: float | None,
    attributes: Mapping[str, Any],
    need_crs: bool,
) -> Georeference:
    """Describe the grid of a field: coordinates are the centres of its cells.

    Raises
    ------
    DataError
        If an axis is not regular, columns go from east to west, or no CRS is said where one is needed.
    """
    grid_mapping = _grid_mapping(array, variables)
    crs = _crs(array, grid_mapping, axes, name, need_crs)
    factor = 1.0
    if axes.degrees:
        y = regular_axis(array[axes.y].values, axes.y, name)
        x = regular_axis(array[axes.x].values, axes.x, name)
    else:
        y = _projected_axis(array[axes.y].values, axes.y, name)
        x = _projected_axis(array[axes.x].values, axes.x, name)
        factor = _axis_factor(array[axes.x].attrs.get("units"), crs)
    if x.step < 0:
        raise DataError(f"{name}: {axes.x} goes from east to west; turn it round (ncpdq -a -{axes.x})")
    cell_x, cell_y = x.step * factor, abs(y.step) * factor
    west = (x.first - x.step / 2) * factor
    # Grids with a row on each pole reach beyond it by half a cell.
    north = (max(y.first, y.first + y.step * (y.cells - 1)) + abs(y.step) / 2) * factor
    exact = _transform(grid_mapping)
    if exact is not None:
        # Centres are rounded numbers; the transform beside them says what they were made from.
        differences = (
            (exact[0] - west) / cell_x,
            (exact[1] / cell_x - 1) * x.cells,
            (exact[2] - north) / cell_y,
            (exact[3] / cell_y - 1) * y.cells,
        )
        if max(map(abs, differences)) < _EXACT:
            west, cell_x, north, cell_y = exact
    geographic = axes.degrees if crs is None else bool(crs.is_geographic)
    return Georeference(
        rows=y.cells,
        columns=columns_once(x.cells, cell_x) if geographic else x.cells,
        west=west,
        north=north,
        cell_x=cell_x,
        cell_y=cell_y,
        crs_wkt="" if crs is None else wkt_of(crs),
        geographic=geographic,
        units=units,
        nodata=nodata,
        attributes=attributes,
    )


def grid_mapping_name(array: Any, variables: Mapping[Any, Any]) -> str | None:
    """Name of the variable that holds the CRS of a field; None where there is none."""
    named = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping"))
    candidates = [str(named).split()[0].rstrip(":")] if named else []
    for key in (*candidates, "spatial_ref", "crs"):
        if key in array.coords or key in variables:
            return key
    return None


def _grid_mapping(array: Any, variables: Mapping[Any, Any]) -> Mapping[str, Any]:
    key = grid_mapping_name(array, variables)
    if key is None:
        return {}
    return dict((array.coords[key] if key in array.coords else variables[key]).attrs)


def _crs(array: Any, grid_mapping: Mapping[str, Any], axes: Axes, name: str, need_crs: bool) -> Any:
    """CRS of rasterio; None where none is said and none is needed."""
    text = (
        grid_mapping.get("crs_wkt")
        or grid_mapping.get("spatial_ref")
        or grid_mapping.get("epsg_code")
        or array.attrs.get("crs")
    )
    mapping = grid_mapping.get("grid_mapping_name")
    if text:
        crs = parse_crs(text, name)
        if axes.degrees and not crs.is_geographic:
            raise DataError(
                f"{name}: has axes {axes.y} and {axes.x} in degrees and the CRS {crs_name(wkt_of(crs))}, expected one "
                "of longitude and latitude; rio convert NETCDF:FILE:VARIABLE OUT.tif, then rio edit-info OUT.tif "
                "--crs EPSG:4326"
            )
        return crs
    if axes.degrees or mapping == "latitude_longitude":
        return parse_crs("EPSG:4326", name)
    if not need_crs:
        return None
    what = f"grid mapping {mapping} without crs_wkt" if mapping else "no CRS (no grid_mapping with crs_wkt)"
    raise DataError(
        f"{name}: has axes {axes.y} and {axes.x} and {what}; rio convert NETCDF:FILE:VARIABLE OUT.tif, then "
        "rio edit-info OUT.tif --crs EPSG:CODE sets it"
    )


def _transform(grid_mapping: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Western edge, cell width, northern edge and cell height, as GDAL and rioxarray write them beside the CRS."""
    text = grid_mapping.get("GeoTransform")
    try:
        numbers = [float(word) for word in (text.split() if isinstance(text, str) else np.ravel(text))]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if len(numbers) != 6 or numbers[2] or numbers[4] or numbers[5] >= 0:
        return None
    return numbers[0], numbers[1], numbers[3], -numbers[5]


def _axis_factor(units: Any, crs: Any) -> float:
    """What coordinates of a projection are multiplied with: some files count in km on a CRS in metres."""
    if crs is None or str(units).lower() not in ("km", "kilometer", "kilometers", "kilometre", "kilometres"):
        return 1.0
    return 1000.0 / float(crs.linear_units_factor[1])


def _projected_axis(centres: NDArray, name: str, source: str) -> Axis:
    values = np.asarray(centres)
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise DataError(f"{source}: {name} has shape {values.shape}, expected one axis of two and more finite numbers")
    single = values.dtype == np.float32
    values = values.astype(np.float64)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    rounding = 2 * float(np.finfo(np.float32).eps) * float(np.abs(values).max()) if single else 0.0
    steps = np.diff(values)
    if step == 0 or np.abs(steps - step).max() > _REGULAR * abs(step) + rounding:
        raise DataError(
            f"{source}: {name} is not regular, its steps are {steps.min():g} to {steps.max():g}; resample the file "
            "onto a regular grid first (xarray's interp, or cdo remapbil)"
        )
    return Axis(float(values[0]), step, len(values))


def regular_axis(centres: NDArray, name: str, source: str) -> Axis:
    """Describe an axis by its first centre and its step.

    Parameters
    ----------
    centres : ndarray of shape (n,)
        Degrees.
    name, source : str
        Of the axis and its file, for errors.

    Raises
    ------
    DataError
        If the distances differ, or there are fewer than two cells.
    """
    values = np.asarray(centres, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise DataError(f"{source}: {name} has shape {values.shape}, expected one axis of two and more finite degrees")
    step = float(values[-1] - values[0]) / (len(values) - 1)
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(values).max())
    steps = np.diff(values)
    if step == 0 or np.abs(steps - step).max() > _REGULAR * abs(step) + rounding:
        raise DataError(
            f"{source}: {name} is not regular, its steps are {steps.min():g} to {steps.max():g} degrees; resample the "
            "file onto a regular grid of longitude and latitude first (xarray's interp, or cdo remapnn)"
        )
    first = float(values[0])
    if np.array_equal(values.astype(np.float32), values):
        first, step = _rounded(first, step)
    return Axis(first, step, len(values))


def _rounded(first: float, step: float) -> tuple[float, float]:
    """Undo the rounding of float32: cells of 1/n degrees, edges on multiples of half a cell, where they nearly are."""
    per_degree = round(1 / step) or 1
    if abs(step * per_degree - 1) < 1e-4:
        step = 1 / per_degree
    halves = round(first / step * 2)
    return (halves * step / 2 if abs(halves / 2 - first / step) < _REGULAR else first), step


_SINCE = re.compile(r"^\s*(\w+)\s+since\s+([+-]?\d{1,5})-(\d{1,2})-(\d{1,2})", re.IGNORECASE)
_PER_DAY = {"day": 1, "d": 1, "hour": 24, "hr": 24, "h": 24, "minute": 1440, "min": 1440, "second": 86400, "s": 86400}
_YEARS = {"year", "yr", "common_year"}
#: Days of years that all have the same length.
_EVEN = {"noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366, "360_day": 360}
_MIXED = {"standard", "gregorian", "proleptic_gregorian", "julian"}
#: Day number of 1582-10-15, the first of the Gregorian calendar.
_REFORM = 2299161


def years_along(coordinate: Any, source: str) -> tuple[int, ...]:
    """Years of a coordinate of times, whether xarray has decoded it or not.

    Parameters
    ----------
    coordinate : xarray.DataArray
        Numbers with CF's attributes, NumPy's times, or those of the calendars of climate models.
    source : str
        File and variable, for errors.

    Raises
    ------
    DataError
        If it is none of these, or its units or its calendar are not known.
    """
    values = np.atleast_1d(coordinate.values)
    if values.dtype.kind == "M":
        return tuple(int(year) for year in values.astype("datetime64[Y]").astype(np.int64) + 1970)
    if values.dtype == object:
        try:
            return tuple(int(value.year) for value in values)
        except AttributeError:
            raise DataError(f"{source} holds {values[0]!r}, expected times or years") from None
    if values.dtype.kind not in "iuf":
        raise DataError(f"{source} holds {values[0]!r}, expected times or years")
    units, calendar = (str(coordinate.attrs.get(key, "")) for key in ("units", "calendar"))
    return years_of(values, units, calendar, source)


def years_of(values: NDArray, units: str, calendar: str, source: str) -> tuple[int, ...]:
    """Turn a time axis into years.

    Parameters
    ----------
    values : ndarray of shape (n,)
        As the file has them.
    units : str
        CF's ``UNIT since DATE``, ``day as %Y%m%d.%f``, or none, ``1`` and ``years`` where the values are years.
    calendar : str
        CF's name of the calendar.
    source : str
        File and variable, for errors.

    Raises
    ------
    DataError
        If the units or the calendar are not known.
    """
    numbers = np.asarray(values, np.float64)
    text = units.strip().lower()
    if not np.isfinite(numbers).all():
        raise DataError(f"{source}: the time axis holds values that are no numbers; write it again")
    if text.startswith("day as %y%m%d"):
        return tuple(int(value // 10000) for value in numbers)
    match = _SINCE.match(text)
    if match is None:
        if "since" in text or (text and text not in ("1", "a") and "year" not in text and "%y" not in text):
            raise DataError(f"{source}: units of time are {units!r}, expected years, or UNIT since YEAR-MONTH-DAY")
        return tuple(math.floor(value) for value in numbers)
    unit = match[1] if match[1] in _PER_DAY or match[1] in _YEARS else match[1].rstrip("s")
    year, month, day = (int(part) for part in match.groups()[1:])
    if unit in _YEARS:
        begun = (month - 1) / 12 + (day - 1) / 366
        return tuple(year + math.floor(value + begun + 1e-6) for value in numbers)
    if unit in ("month", "mon"):
        return tuple(year + math.floor((month - 1 + value + 1e-6) / 12) for value in numbers)
    if unit not in _PER_DAY:
        raise DataError(f"{source}: time counts in {match[1]!r}, expected years, months, days, hours or seconds")
    name = calendar.strip().lower() or "standard"
    if name not in _EVEN and name not in _MIXED:
        raise DataError(f"{source}: calendar {calendar!r} is unknown; known are {', '.join([*_EVEN, *sorted(_MIXED)])}")
    start = _day_number(year, month, day, name)
    # Half a second: hours kept as float32 days do not come out whole.
    return tuple(_year(math.floor(start + value / _PER_DAY[unit] + 0.5 / 86400), name) for value in numbers)


def _day_number(year: int, month: int, day: int, calendar: str) -> int:
    """Count days; their origin is the calendar's own affair (Julian day numbers, or the year 0)."""
    if calendar in _EVEN:
        length = _EVEN[calendar]
        if length == 360:
            return 360 * year + 30 * (month - 1) + day - 1
        february = 28 + length - 365
        months = (31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
        return length * year + sum(months[: month - 1]) + day - 1
    # Years that begin in March have the leap day at their end.
    late = (14 - month) // 12
    y, m = year + 4800 - late, month + 12 * late - 3
    common = day + (153 * m + 2) // 5 + 365 * y + y // 4
    julian = common - 32083
    gregorian = common - y // 100 + y // 400 - 32045
    if calendar == "julian":
        return julian
    return gregorian if calendar == "proleptic_gregorian" or gregorian >= _REFORM else julian


def _year(number: int, calendar: str) -> int:
    if calendar in _EVEN:
        return number // _EVEN[calendar]
    year = math.floor((number + 31739) / 365.25) - 4800 + 1
    while _day_number(year, 1, 1, calendar) > number:
        year -= 1
    while _day_number(year + 1, 1, 1, calendar) <= number:
        year += 1
    return year


def require_yearly(years: Sequence[int], source: str) -> None:
    """Check that there is one step a year; single years may be missing.

    Raises
    ------
    DataError
        If a year comes twice, years go backwards, or the step is longer; the message names the year.
    """
    steps = np.diff(np.asarray(years, np.int64))
    if (steps <= 0).any():
        year = years[int(np.argmax(steps <= 0)) + 1]
        many = sum(other == year for other in years)
        problem = f"{many} steps in {year}" if many > 1 else f"{year} after {max(years)}"
        raise DataError(f"{source}: has {problem}, expected one step a year in order; take its yearly means first")
    if len(steps) and steps.min() > 1:
        raise DataError(
            f"{source}: has a step every {steps.min()} years ({years[0]}, {years[1]}, …), expected every year"
        )


def spans(years: Iterable[int]) -> str:
    """Write years in few words: ``2009, 2012 to 2015``."""
    runs: list[list[int]] = []
    for year in sorted(set(years)):
        if runs and year == runs[-1][1] + 1:
            runs[-1][1] = year
        else:
            runs.append([year, year])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    if len(texts) > 8:
        texts = [*texts[:4], "…", *texts[-3:]]
    return ", ".join(texts) or "none"

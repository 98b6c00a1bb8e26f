"""The CF conventions for grids, read: which dimensions are axes of space, where their cells lie, and in what CRS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.crs import crs_name, parse_crs, wkt_of
from earthsr.geo.georeference import Georeference
from earthsr.geo.grid import columns_once

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
                "of longitude and latitude; gdal_translate -a_srs EPSG:CODE NETCDF:FILE:VARIABLE OUT.tif sets it"
            )
        return crs
    if axes.degrees or mapping == "latitude_longitude":
        return parse_crs("EPSG:4326", name)
    if not need_crs:
        return None
    what = f"grid mapping {mapping} without crs_wkt" if mapping else "no CRS (no grid_mapping with crs_wkt)"
    raise DataError(
        f"{name}: has axes {axes.y} and {axes.x} and {what}; gdal_translate -a_srs EPSG:CODE "
        "NETCDF:FILE:VARIABLE OUT.tif sets it"
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
            "onto a regular grid first (gdalwarp -tr)"
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
            "file onto a regular grid of longitude and latitude first (cdo remapnn, gdalwarp -t_srs EPSG:4326)"
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

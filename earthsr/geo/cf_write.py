"""The CF conventions for grids, written: one table of attributes of axes, CRS and values, for every format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from earthsr.geo.crs import parse_crs
from earthsr.geo.grid import Grid
from earthsr.geo.raster import SOURCE_BAND, Georeference

#: Name of the variable that holds the CRS; the attribute ``grid_mapping`` of values names it.
CRS_VARIABLE: Final = "crs"

#: PROJ's projections and parameters, and their names in CF 1.8 (appendix F).
_PROJECTIONS: Final = {
    "utm": "transverse_mercator",
    "tmerc": "transverse_mercator",
    "etmerc": "transverse_mercator",
    "lcc": "lambert_conformal_conic",
    "aea": "albers_conical_equal_area",
    "laea": "lambert_azimuthal_equal_area",
    "aeqd": "azimuthal_equidistant",
    "stere": "polar_stereographic",
    "merc": "mercator",
    "cea": "lambert_cylindrical_equal_area",
    "sinu": "sinusoidal",
}
_MERIDIAN: Final = {
    "transverse_mercator": "longitude_of_central_meridian",
    "lambert_conformal_conic": "longitude_of_central_meridian",
    "albers_conical_equal_area": "longitude_of_central_meridian",
    "lambert_cylindrical_equal_area": "longitude_of_central_meridian",
    "polar_stereographic": "straight_vertical_longitude_from_pole",
}
#: Those that have no latitude of origin.
_NO_ORIGIN: Final = ("mercator", "lambert_cylindrical_equal_area", "sinusoidal")
_ELLIPSOID: Final = re.compile(r'(?:ELLIPSOID|SPHEROID)\["[^"]*",([\d.]+),([\d.]+)')


def conventions(*types: DTypeLike) -> str:
    """Version of the conventions that knows the types of all variables: unsigned bytes came with 1.9."""
    return "CF-1.9" if any(np.dtype(kind).kind == "u" for kind in types) else "CF-1.8"


def axis_names(grid: Grid) -> tuple[str, str]:
    """Names of the axes along rows and along columns."""
    return ("lat", "lon") if grid.geographic else ("y", "x")


def axis_attributes(grid: Grid) -> tuple[dict[str, str], dict[str, str]]:
    """Attributes of the axes along rows and along columns."""
    if grid.geographic:
        y = {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"}
        x = {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"}
        return y, x
    units = _linear_units(grid.crs_wkt)
    y = {"standard_name": "projection_y_coordinate", "long_name": "y coordinate of projection", **units, "axis": "Y"}
    x = {"standard_name": "projection_x_coordinate", "long_name": "x coordinate of projection", **units, "axis": "X"}
    return y, x


def _linear_units(wkt: str) -> dict[str, str]:
    if not wkt:
        return {}
    name, factor = parse_crs(wkt, "raster").linear_units_factor
    # Names that UDUNITS knows.
    known = {1.0: "m", 1000.0: "km", 0.3048: "ft"}
    return {"units": known.get(factor, "US_survey_foot" if abs(factor - 0.3048006) < 1e-6 else name)}


def crs_attributes(grid: Grid, north_first: bool = True) -> dict[str, Any]:
    """Attributes of the variable that ``grid_mapping`` names.

    CDO reads the parameters, xarray and QGIS the WKT, and GDAL the transform, which is exact where centres of cells
    are rounded. For rows from south to north readers disagree on what the transform means, and it is left out.
    """
    wkt, west, cell_x, north, cell_y = grid.crs_wkt, grid.west, grid.cell_x, grid.north, grid.cell_y
    attributes = {**_parameters(grid), "crs_wkt": wkt, "spatial_ref": wkt}
    if north_first:
        attributes["GeoTransform"] = f"{west!r} {cell_x!r} 0.0 {north!r} 0.0 {-cell_y!r}"
    return attributes


def _parameters(grid: Grid) -> dict[str, Any]:
    """CF's name and parameters of a projection; nothing for one that is not in the table above."""
    attributes: dict[str, Any] = {}
    if not re.search(r'PRIMEM\["[^"]*",0(\.0*)?[,\]]', grid.crs_wkt):
        return {}
    ellipsoid = _ELLIPSOID.search(grid.crs_wkt)
    if ellipsoid:
        attributes["semi_major_axis"] = float(ellipsoid[1])
        if float(ellipsoid[2]):
            attributes["inverse_flattening"] = float(ellipsoid[2])
    if grid.geographic:
        return {"grid_mapping_name": "latitude_longitude", "longitude_of_prime_meridian": 0.0, **attributes}
    crs = parse_crs(grid.crs_wkt, "raster")
    proj, unit = crs.to_dict(), float(crs.linear_units_factor[1])
    name = _PROJECTIONS.get(str(proj.get("proj")))
    oblique = name == "polar_stereographic" and abs(float(proj.get("lat_0", 0))) != 90
    if name is None or oblique or "nadgrids" in proj:  # the web's Mercator takes the ellipsoid for a sphere
        return {}
    if proj["proj"] == "utm":
        south = proj.get("south", False)
        proj = {"lon_0": 6 * int(proj["zone"]) - 183, "k": 0.9996, "x_0": 5e5, "y_0": 1e7 if south else 0.0}
    attributes["grid_mapping_name"] = name
    attributes[_MERIDIAN.get(name, "longitude_of_projection_origin")] = float(proj.get("lon_0", 0))
    if name not in _NO_ORIGIN:
        attributes["latitude_of_projection_origin"] = float(proj.get("lat_0", 0))
    parallels = [float(proj[key]) for key in ("lat_1", "lat_2", "lat_ts") if key in proj]
    if name == "transverse_mercator":
        attributes["scale_factor_at_central_meridian"] = float(proj.get("k", proj.get("k_0", 1)))
    elif parallels:
        attributes["standard_parallel"] = parallels[0] if len(set(parallels)) == 1 else parallels
    elif name in ("polar_stereographic", "mercator"):
        attributes["scale_factor_at_projection_origin"] = float(proj.get("k", proj.get("k_0", 1)))
    # PROJ has metres here whatever the coordinates are in.
    attributes["false_easting"] = float(proj.get("x_0", 0)) / unit
    attributes["false_northing"] = float(proj.get("y_0", 0)) / unit
    return attributes


def value_attributes(georeference: Georeference, band: str, first: bool) -> dict[str, Any]:
    """Attributes of one band's values; names of the input belong to the first band alone."""
    attributes = {key: value for key, value in georeference.attributes.items() if key != "AREA_OR_POINT"}
    if not first:
        attributes.pop("standard_name", None)
        attributes["long_name"] = band
    attributes.setdefault("long_name", band)
    if band == SOURCE_BAND:
        attributes["units"] = "1"
    elif georeference.units:
        attributes["units"] = georeference.units
    if georeference.crs_wkt:
        attributes["grid_mapping"] = CRS_VARIABLE
    return attributes


def plain(value: Any) -> Any:
    """Bring an attribute to what all formats hold: a text or a number; anything else as JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return json.dumps(value, default=str)


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Bring attributes to what all formats hold; those that are None are left out."""
    return {str(key): plain(value) for key, value in attributes.items() if value is not None}


def netcdf_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Bring attributes to what NetCDF-4 holds, texts as characters of a fixed length (NC_CHAR).

    h5netcdf writes texts of any length (NC_STRING), and NCO does not follow a ``grid_mapping``, ``bounds`` or
    ``coordinates`` of that type.
    """
    return {key: _characters(value) if isinstance(value, str) else value for key, value in attributes.items()}


def _characters(text: str) -> NDArray:
    encoded = text.encode()
    return np.array(encoded, h5py.string_dtype("utf-8", max(len(encoded), 1)))


def write_place(file: Any, grid: Grid, centres: Sequence[NDArray[np.float64]] | None = None) -> tuple[str, str]:
    """Write dimensions, axes and CRS of a grid into an open file of h5netcdf.

    Parameters
    ----------
    file : h5netcdf.File
        Open for writing; other dimensions that it has stay.
    grid : Grid
        Where the cells lie.
    centres : sequence of ndarray, optional
        Of rows and of columns, where they are to be other than :meth:`Grid.y` and :meth:`Grid.x` round them.

    Returns
    -------
    tuple of str
        Names of the axes along rows and along columns.
    """
    names = axis_names(grid)
    file.dimensions.update(dict(zip(names, (grid.rows, grid.columns), strict=True)))
    for name, values, attributes in zip(names, centres or (grid.y(), grid.x()), axis_attributes(grid), strict=True):
        file.create_variable(name, (name,), np.float64, data=values).attrs.update(netcdf_attributes(attributes))
    if grid.crs_wkt:
        variable = file.create_variable(CRS_VARIABLE, (), np.int32, data=np.int32(0))
        variable.attrs.update(netcdf_attributes(crs_attributes(grid)))
    return names

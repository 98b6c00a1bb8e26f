"""Coordinate reference systems: read from text or from a library's object, compared, and named in messages."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from earthsr.errors import DataError, geo_module

#: Where PROJ looks for its data, before its own place.
_PROJ_VARIABLES: Final = ("PROJ_DATA", "PROJ_LIB")
_WGS84: Final = re.compile(r"(World Geodetic System 1984|WGS[ _]?(19)?84|D_WGS_1984)( ensemble)?", re.IGNORECASE)

#: GDAL keeps read and written blocks in memory up to 5 % of the machine's; windows need far less.
_CACHE_BYTES: Final = 64 * 2**20


def gdal() -> Any:
    """Give GDAL's settings for a piece of work, as a context manager: a small cache, whatever the machine has."""
    rasterio = geo_module("rasterio")
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


def parse_crs(value: Any, where: str) -> Any:
    """Read a CRS.

    Parameters
    ----------
    value : object
        WKT, a code such as ``EPSG:32632``, a PROJ string, or a library's object that has ``to_wkt``.
    where : str
        What says so, for errors.

    Returns
    -------
    rasterio.crs.CRS

    Raises
    ------
    DataError
        If it is none.
    """
    rasterio = geo_module("rasterio")
    geo_module("rasterio.crs")
    try:
        with gdal():
            crs = rasterio.crs.CRS.from_user_input(value.to_wkt() if hasattr(value, "to_wkt") else value)
    except (rasterio.errors.CRSError, ValueError) as error:
        text = " ".join(str(value).split())
        text = text if len(text) <= 60 else text[:57] + "..."
        reason = " ".join(str(error).split())
        advice = _foreign_proj() or "give a code such as EPSG:4326, or WKT"
        raise DataError(f"{where}: CRS {text!r} is not understood ({reason}); {advice}") from None
    return crs


def _foreign_proj() -> str:
    """Advice where a variable of the environment sends PROJ to data of another installation; else nothing."""
    rasterio = geo_module("rasterio")
    chosen = [f"{name}={os.environ[name]}" for name in _PROJ_VARIABLES if os.environ.get(name)]
    if not chosen:
        return ""
    try:
        with gdal():
            rasterio.crs.CRS.from_epsg(4326)
    except rasterio.errors.CRSError:
        unset = " ".join(f"-u {text.partition('=')[0]}" for text in chosen)
        return (
            f"the environment has {' and '.join(chosen)}, whose proj.db is of another installation of PROJ: unset it, "
            f"as in: env {unset} earthsr ..."
        )
    return ""


def metres_per_unit(wkt: str) -> float:
    """Length of the unit that a projection's coordinates count in, metres; 1 where no CRS says it.

    Parameters
    ----------
    wkt : str
        Text of the CRS; empty for none.
    """
    if not wkt:
        return 1.0
    rasterio = geo_module("rasterio")
    crs = parse_crs(wkt, "raster")
    try:
        return float(crs.linear_units_factor[1])
    except rasterio.errors.CRSError:  # of longitude and latitude, or local
        return 1.0


def wkt_of(crs: Any) -> str:
    """WKT 2 of a CRS of rasterio."""
    rasterio = geo_module("rasterio")
    with gdal():
        try:
            return str(crs.to_wkt(version="WKT2_2019"))
        except rasterio.errors.CRSError:
            return str(crs.to_wkt())  # some local systems have WKT 1 only


def crs_name(wkt: str) -> str:
    """Return a short name of a CRS for messages: its code where it has one, else its name; ``none`` for no CRS.

    Parameters
    ----------
    wkt : str
        Text of the CRS; empty for none.
    """
    if not wkt:
        return "none"
    code = parse_crs(wkt, "raster").to_epsg()
    if code:
        return f"EPSG:{code}"
    named = re.search(r'"([^"]+)"', wkt)
    return named[1] if named else "without a name"


def same_crs(first: str, second: str) -> bool:
    """Whether two texts of WKT mean the same CRS on the ground; two that are empty do.

    Heights take no part, nor does the order of axes, for coordinates are kept as x and y: OGC:CRS84, EPSG:4979 (with
    a height above the ellipsoid), EPSG:9518 (with one above the geoid) and ESRI's GCS_WGS_1984 are the same as
    EPSG:4326.

    Parameters
    ----------
    first, second : str
        Texts of the CRS.
    """
    if first == second:
        return True
    if not (first and second):
        return False
    a, b = parse_crs(first, "raster"), parse_crs(second, "raster")
    return bool(a == b) or bool(_horizontal(a) == _horizontal(b))


def _horizontal(crs: Any) -> Any:
    """The part of a CRS that is of places on the ground, axes in the usual order; the CRS itself where it has none."""
    rasterio = geo_module("rasterio")
    try:
        with gdal():
            parts = crs.to_dict(projjson=True)
            if parts.get("type") == "BoundCRS":
                parts = parts["source_crs"]
            if parts.get("type") == "CompoundCRS":
                parts = parts["components"][0]
            axes = parts["coordinate_system"]["axis"]
            if parts["type"] == "GeographicCRS":
                datum = parts.get("datum_ensemble") or parts["datum"]
                greenwich = float(_value(parts.get("prime_meridian", {}).get("longitude", 0))) == 0
                degrees = all(_is_degree(axis.get("unit")) for axis in axes[:2])
                sphere = abs(float(_value(datum["ellipsoid"].get("semi_major_axis", 0))) - 6_378_137) > 0.5
                if _WGS84.fullmatch(datum["name"]) and greenwich and degrees and not sphere:
                    return rasterio.crs.CRS.from_epsg(4326)
                axes = sorted(axes[:2], key=lambda axis: axis["direction"] != "north")
            parts["coordinate_system"]["axis"] = axes[:2]
            # What is left is not what the code stands for.
            parts.pop("id", None)
            return rasterio.crs.CRS.from_user_input(json.dumps(parts))
    except (rasterio.errors.CRSError, KeyError, TypeError, ValueError, AttributeError):
        return crs  # local systems have no such form


def _value(number: Any) -> Any:
    return number.get("value", 0) if isinstance(number, dict) else number


def _is_degree(unit: Any) -> bool:
    if isinstance(unit, dict):
        return abs(float(unit.get("conversion_factor", 0)) - 0.017453292519943295) < 1e-12
    return unit == "degree"

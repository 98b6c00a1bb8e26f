"""Coordinate reference systems: read from text or from a library's object, compared, and named in messages."""

from __future__ import annotations

import re
from typing import Any, Final

from earthsr.errors import DataError, geo_module

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
        said = " ".join(str(value).split())
        said = said if len(said) <= 60 else said[:57] + "..."
        reason = " ".join(str(error).split())
        raise DataError(
            f"{where}: CRS {said!r} is not understood ({reason}); give a code such as EPSG:4326, or WKT"
        ) from None
    return crs


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
    """Whether two texts of WKT mean the same CRS; two that are empty do.

    Parameters
    ----------
    first, second : str
        Texts of the CRS.
    """
    if first == second:
        return True
    if not (first and second):
        return False
    return bool(parse_crs(first, "raster") == parse_crs(second, "raster"))

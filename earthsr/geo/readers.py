"""Opening rasters by what they are: GeoTIFF and GDAL's other files, NetCDF, Zarr; one file or a product's tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from earthsr.errors import DataError, InputError
from earthsr.geo.fields import open_netcdf, open_zarr
from earthsr.geo.georeference import Source
from earthsr.geo.geotiff import GdalSource
from earthsr.geo.lonlat_rasters import split_variable
from earthsr.geo.mosaic_source import mosaic
from earthsr.geo.parts import is_store

#: Bytes at the beginning of a file by which formats are told apart.
_START: Final = 64


class Opener(Protocol):
    """Opens a raster of one format; ``variable`` is what stands behind the colon of ``FILE.nc:VARIABLE``."""

    def __call__(
        self,
        path: Path,
        variable: str | None,
        *,
        nodata: float | None = None,
        units: str | None = None,
        band: int | None = None,
    ) -> Source:
        """Open it; see :func:`open_source`."""
        ...


@dataclass(frozen=True)
class Format:
    """A format that has a reader of its own."""

    begins: Callable[[bytes], bool]
    """Whether a file that begins with these bytes, its first 64, is of the format."""
    open: Opener


def _is_netcdf(start: bytes) -> bool:
    return start[:3] == b"CDF" or start[:8] == b"\x89HDF\r\n\x1a\n"


#: Formats of input by name; GDAL opens what none of them knows. A Zarr store is a folder and has no first bytes.
SOURCES: Final[dict[str, Format]] = {
    "NetCDF": Format(_is_netcdf, open_netcdf),
    "Zarr": Format(lambda start: False, open_zarr),
}


def kind_of(path: Path) -> str:
    """Say what a file is by its first bytes: a name in :data:`SOURCES`, else ``gdal``.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder and no Zarr store.
    """
    if path.is_dir():
        if is_store(path):
            return "Zarr"
        raise DataError(f"{path}: is a folder and no Zarr store; name a file, or a store with its zarr.json")
    try:
        with path.open("rb") as handle:
            start = handle.read(_START)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return next((name for name, known in SOURCES.items() if known.begins(start)), "gdal")


def open_source(
    text: str | Path, *, nodata: float | None = None, units: str | None = None, band: int | None = None
) -> Source:
    """Open a raster in any CRS, by what the file is and not by its suffix.

    Parameters
    ----------
    text : str or Path
        GeoTIFF or another raster file of GDAL, NetCDF, or a Zarr store; ``FILE.nc:VARIABLE`` names a variable.
    nodata : float, optional
        Stored number that stands for no value, in place of what the file says.
    units : str, optional
        Of the values, in place of what the file says.
    band : int, optional
        Which of several, from 1; of NetCDF and Zarr, the layer along the dimension besides the two of space.

    Returns
    -------
    Source
        Gives float32 from north to south, NaN where there is no value. Longitudes count as in the file; NetCDF
        with axes of latitude and longitude and no CRS is EPSG:4326; coordinates are centres of cells. Its method
        ``release`` closes the file until the next read.

    Raises
    ------
    DataError
        If there is no such file, it is no raster or a damaged one, it has no CRS, several bands and none is chosen,
        or no regular grid with north up.
    """
    path, variable = split_variable(text)
    if variable is None and not path.exists():
        head, colon, tail = str(text).rpartition(":")
        if colon and tail.isidentifier() and Path(head).is_dir():
            path, variable = Path(head), tail
    kind = kind_of(path)
    if kind in SOURCES:
        return SOURCES[kind].open(path, variable, nodata=nodata, units=units, band=band)
    if variable is not None:
        raise DataError(f"{path.name}: is neither NetCDF nor Zarr and has no variable {variable}")
    return GdalSource(path, nodata=nodata, units=units, band=band)


def open_sources(
    texts: Sequence[str | Path], *, nodata: float | None = None, units: str | None = None, band: int | None = None
) -> Source:
    """Open one raster, or several tiles of one product as one; see :func:`open_source` and :func:`mosaic`.

    Parameters
    ----------
    texts : sequence of str or Path
        Files, or ``FILE.nc:VARIABLE``.
    nodata : float, optional
        Value that stands for none; that of the file where absent.
    units : str, optional
        Units of the values; those of the file where absent.
    band : int, optional
        Which of several bands, from 1 on.

    Raises
    ------
    InputError
        If none is named.
    DataError
        If a file is missing, damaged, or does not fit the others.
    """
    if not texts:
        raise InputError("no raster is given; name one file, or the tiles of one product")
    return mosaic(open_source(text, nodata=nodata, units=units, band=band) for text in texts)

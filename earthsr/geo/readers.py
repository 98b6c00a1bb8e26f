"""Opening rasters by what they are: GeoTIFF and GDAL's other files, NetCDF, Zarr; one, tiles, or warped."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.crs import crs_name, parse_crs, wkt_of
from earthsr.geo.fields import open_field
from earthsr.geo.geotiff import GdalSource
from earthsr.geo.mosaic import mosaic
from earthsr.geo.raster import Georeference, Source
from earthsr.geo.values import Voids, end_of_float32, voids_of
from earthsr.store import is_zarr, restore

#: Bytes at the beginning of a file by which formats are told apart.
_START: Final = 64


class Opener(Protocol):
    """Opens a raster of one format; ``variable`` is what stands behind the colon of ``FILE.nc:VARIABLE``."""

    def __call__(
        self,
        path: Path,
        variable: str | None,
        *,
        nodata: Voids = None,
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
    "NetCDF": Format(_is_netcdf, open_field),
    "Zarr": Format(lambda start: False, open_field),
}


def kind_of(path: Path) -> str:
    """Say what a file is by its first bytes: a name in :data:`SOURCES`, else ``gdal``.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder and no Zarr store.
    """
    restore(path)
    if path.is_dir():
        if is_zarr(path):
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


def split_variable(text: str | Path) -> tuple[Path, str | None]:
    """Split ``FILE:VARIABLE``; a colon that belongs to a file's own name stays there."""
    whole = Path(text)
    head, colon, tail = str(text).rpartition(":")
    if colon and tail.isidentifier() and not whole.exists() and Path(head).exists():
        return Path(head), tail
    return whole, None


def open_source(text: str | Path, *, nodata: Voids = None, units: str | None = None, band: int | None = None) -> Source:
    """Open a raster in any CRS, by what the file is and not by its suffix.

    Parameters
    ----------
    text : str or Path
        GeoTIFF or another raster file of GDAL, NetCDF, or a Zarr store; ``FILE.nc:VARIABLE`` names a variable.
    nodata : float or sequence of float, optional
        Stored numbers that stand for no value, besides those that the file names.
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
    kind = kind_of(path)
    if kind in SOURCES:
        return SOURCES[kind].open(path, variable, nodata=nodata, units=units, band=band)
    if variable is not None:
        raise DataError(f"{path.name}: is neither NetCDF nor Zarr and has no variable {variable}")
    return GdalSource(path, nodata=nodata, units=units, band=band)


def open_sources(
    texts: Sequence[str | Path], *, nodata: Voids = None, units: str | None = None, band: int | None = None
) -> Source:
    """Open one raster, or several tiles of one product as one; see :func:`open_source` and :func:`mosaic`.

    Parameters
    ----------
    texts : sequence of str or Path
        Files, or ``FILE.nc:VARIABLE``.
    nodata : float or sequence of float, optional
        Stored numbers that stand for no value, besides those that the files name.
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


def open_layers(
    text: str | Path, prefer: str | Sequence[str] = "", *, nodata: Voids = None, units: str | None = None
) -> Source:
    """Open a raster that may have several layers, which only NetCDF and Zarr have; see :func:`open_source`.

    Parameters
    ----------
    text : str or Path
        As in :func:`open_source`.
    prefer : str or sequence of str
        Variable, or named band, to take where several are there and none is named; of several, the first that is there.
    nodata, units
        As in :func:`open_source`.

    Returns
    -------
    Source
        Where it is a :class:`~earthsr.geo.fields.FieldSource`, its ``read`` takes the number of a layer.
    """
    path, variable = split_variable(text)
    kind = kind_of(path)
    if kind in SOURCES and SOURCES[kind].open is open_field:
        return open_field(path, variable, nodata, units, prefer=prefer, layers=True)
    if kind == "gdal" and variable is None:
        names = (prefer,) if isinstance(prefer, str) else tuple(prefer)
        return GdalSource(path, nodata, units, prefer=names)
    return open_source(text, nodata=nodata, units=units)


def reprojected(
    path: str | Path,
    crs: str,
    *,
    resolution: tuple[float, float] | None = None,
    anchor: tuple[float, float] = (0.0, 0.0),
    onto: Georeference | None = None,
    resampling: str = "bilinear",
    nodata: Voids = None,
    units: str | None = None,
    band: int | None = None,
) -> GdalSource:
    """Read a raster file on a grid of another CRS, warped window by window.

    Cells without a value are left out of every weighted mean, and what has no cell with a value near has none.

    Parameters
    ----------
    path : str or Path
        A file that GDAL opens; one without a CRS is refused, one with a rotated grid is welcome.
    crs : str
        Code or WKT of the grid to read on.
    resolution : tuple of float, optional
        Width and height of a cell in its units; without it GDAL chooses square cells that keep the diagonal's count.
    anchor : tuple of float
        With ``resolution``: a corner of some cell, so that grids made of neighbouring files fit together.
    onto : Georeference, optional
        The very grid, in place of ``resolution``; its CRS is taken and ``crs`` may be empty.
    resampling : str
        As in GDAL: ``bilinear``, ``cubic``, ``average``, ``nearest``, …
    nodata, units, band
        As in :func:`~earthsr.geo.readers.open_source`.

    Raises
    ------
    DataError
        If it is NetCDF or Zarr, cannot be read, or the CRS is unknown.
    """
    path = Path(path)
    target = parse_crs(onto.crs_wkt if onto is not None else crs, "reprojection")
    if (kind := kind_of(path)) != "gdal":
        raise DataError(
            f"{path.name}: is {kind}, and only GeoTIFF is reprojected while it is read; rio warp IN OUT.tif "
            f"--dst-crs {crs_name(wkt_of(target))}"
        )

    def warp(file: Any, number: int) -> Any:
        return _warp(file, number, target, resolution, anchor, onto, resampling, nodata)

    return GdalSource(path, nodata=nodata, units=units, band=band, warp=warp)


def _warp(
    file: Any,
    band: int,
    crs: Any,
    resolution: tuple[float, float] | None,
    anchor: tuple[float, float],
    onto: Georeference | None,
    resampling: str,
    nodata: Voids,
) -> Any:
    rasterio, vrt, warping = geo_module("rasterio"), geo_module("rasterio.vrt"), geo_module("rasterio.warp")
    if onto is not None:
        transform, columns, rows = rasterio.Affine(*onto.transform), onto.columns, onto.rows
    else:
        transform, columns, rows = warping.calculate_default_transform(
            file.crs, crs, file.width, file.height, *file.bounds, resolution=resolution
        )
        if resolution is not None:
            transform, columns, rows = _anchored(transform, columns, rows, anchor)
    voids = [*voids_of(file.nodatavals[band - 1]), *voids_of(nodata)]
    kind = np.dtype(file.dtypes[band - 1]).kind
    if kind == "f" and not any(map(math.isnan, voids)):
        voids.append(math.nan)  # else a void of NaN spreads over all cells that it has the least weight in
    void = None
    if voids:
        void, *others = dict.fromkeys(end_of_float32(number) if kind == "f" else number for number in voids)
        for other in others:
            file, band = _with_void(file, band, other, void), 1
    return vrt.WarpedVRT(
        file,
        crs=crs,
        transform=transform,
        width=columns,
        height=rows,
        resampling=rasterio.enums.Resampling[resampling],
        src_nodata=void,
        nodata=float("nan"),
        # Whole metres would be rounded to whole metres again.
        dtype="float32",
        # The straight lines by which GDAL approximates a projection may be off by an eighth of a cell.
        tolerance=0.01,
    )


def _with_void(file: Any, band: int, other: float, void: float) -> Any:
    """View of one band in which one more number stands for no value: a view that is warped knows a single one."""
    rasterio = geo_module("rasterio")
    source = html.escape(file.name)
    transform = ", ".join(repr(number) for number in file.transform.to_gdal())
    return rasterio.open(
        f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">'
        f"<SRS>{html.escape(file.crs.to_wkt())}</SRS>"
        f'<GeoTransform>{transform}</GeoTransform><VRTRasterBand dataType="Float64" band="1">'
        f"<NoDataValue>{void!r}</NoDataValue><ComplexSource><SourceFilename>{source}</SourceFilename>"
        f"<SourceBand>{band}</SourceBand><NODATA>{other!r}</NODATA></ComplexSource></VRTRasterBand></VRTDataset>"
    )


def _anchored(transform: Any, columns: int, rows: int, anchor: tuple[float, float]) -> tuple[Any, int, int]:
    """Move a grid's edges outwards onto whole cells from a corner."""
    rasterio = geo_module("rasterio")
    width, height = transform.a, -transform.e
    slack = 1e-6
    left = np.floor((transform.c - anchor[0]) / width + slack)
    right = np.ceil((transform.c + columns * width - anchor[0]) / width - slack)
    top = np.ceil((transform.f - anchor[1]) / height - slack)
    bottom = np.floor((transform.f - rows * height - anchor[1]) / height + slack)
    corner = (anchor[0] + left * width, anchor[1] + top * height)
    return rasterio.Affine(width, 0, corner[0], 0, -height, corner[1]), int(right - left), int(top - bottom)

"""Raster files read on a grid of another CRS, warped window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from earthsr.errors import DataError
from earthsr.geo.crs import crs_name, parse_crs, wkt_of
from earthsr.geo.georeference import Georeference
from earthsr.geo.geotiff import GdalSource
from earthsr.geo.lonlat_rasters import geo_module
from earthsr.geo.readers import kind_of


def reprojected(
    path: str | Path,
    crs: str,
    *,
    resolution: tuple[float, float] | None = None,
    anchor: tuple[float, float] = (0.0, 0.0),
    onto: Georeference | None = None,
    resampling: str = "bilinear",
    nodata: float | None = None,
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
            f"{path.name}: is {kind}, and only GeoTIFF is reprojected while it is read; gdalwarp -t_srs "
            f"{crs_name(wkt_of(target))} IN OUT.tif"
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
    nodata: float | None,
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
    void = file.nodatavals[band - 1] if nodata is None else nodata
    if void is None and np.dtype(file.dtypes[band - 1]).kind == "f":
        void = float("nan")  # else a void of NaN spreads over all cells that it has the least weight in
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

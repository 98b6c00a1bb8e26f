"""GeoTIFF, and whatever else GDAL opens as one raster file, read as it lies or through a view."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.crs import crs_name, gdal, wkt_of
from earthsr.geo.georeference import Georeference
from earthsr.geo.lonlat_rasters import geo_module
from earthsr.geo.values import kept_attributes, physical, unreadable
from earthsr.geo.window import Window


class GdalSource:
    """One band of a raster file.

    GDAL gives files whose pixels are points the transform of the areas around them, so nothing is shifted here.
    """

    def __init__(
        self,
        path: Path,
        nodata: float | None = None,
        units: str | None = None,
        band: int | None = None,
        warp: Callable[[Any, int], Any] | None = None,
    ) -> None:
        self._path, self._band, self._warp = path, 1, warp
        self._files: list[Any] = []
        self._scale, self._offset, self._masked, self._flipped = 1.0, 0.0, False, False
        self._nodata: float | None = None
        self.name = path.name
        try:
            with gdal():
                self.georeference = self._describe(nodata, units, band)
        except BaseException:
            self.close()
            raise

    def _describe(self, nodata: float | None, units: str | None, band: int | None) -> Georeference:
        name = self.name
        file = self._open()
        self._band = _band_of(file, band, name)
        index = self._band - 1
        if not file.crs:
            raise DataError(f"{name}: has no CRS; gdal_edit.py -a_srs EPSG:4326 FILE sets it if it is that")
        if np.dtype(file.dtypes[index]).kind not in "iuf":
            raise DataError(f"{name}: holds {file.dtypes[index]}, expected real numbers")
        tags = {**file.tags(), **file.tags(self._band)}
        said = file.units[index] or tags.get("units") or ""
        # The file's own word on voids; another's goes before it.
        self._nodata = file.nodatavals[index] if nodata is None else nodata
        masks = [flag.name for flag in file.mask_flag_enums[index]]
        self._masked = "per_dataset" in masks
        self._scale, self._offset = file.scales[index], file.offsets[index]
        if self._warp is not None:
            file = self._warped(file)
        wkt = wkt_of(file.crs)
        t = file.transform
        if t.b or t.d or t.a <= 0 or not t.e:
            raise DataError(
                f"{name}: the grid is rotated or mirrored, expected north up; gdalwarp -t_srs {crs_name(wkt)} IN "
                "OUT.tif"
            )
        if t.is_identity:
            raise DataError(f"{name}: has a CRS and no place on it; gdal_edit.py -a_ullr WEST NORTH EAST SOUTH FILE")
        self._flipped = t.e > 0
        return Georeference(
            rows=file.height,
            columns=file.width,
            west=t.c,
            north=t.f + t.e * file.height if self._flipped else t.f,
            cell_x=t.a,
            cell_y=abs(t.e),
            crs_wkt=wkt,
            geographic=bool(file.crs.is_geographic),
            units=said if units is None else units,
            nodata=self._nodata,
            attributes=kept_attributes(tags),
        )

    def _open(self) -> Any:
        rasterio = geo_module("rasterio")
        try:
            with warnings.catch_warnings():
                # A file without a place is refused above, in our words.
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                file = rasterio.open(self._path)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{self.name}: cannot be read as a raster ({' '.join(str(error).split())})") from None
        self._files.append(file)
        return file

    def _warped(self, file: Any) -> Any:
        rasterio = geo_module("rasterio")
        assert self._warp is not None
        try:
            view = self._warp(file, self._band)
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
            raise DataError(f"{self.name}: cannot be reprojected ({' '.join(str(error).split())})") from None
        self._files.append(view)
        return view

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (rows, columns) from north to south, NaN where there is no value.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        row, column, rows, columns = window = self.georeference.check(window)
        if self._flipped:
            row = self.georeference.rows - row - rows
        at = ((row, row + rows), (column, column + columns))
        try:
            with gdal():
                if not self._files:
                    opened = self._open()
                    if self._warp is not None:
                        self._warped(opened)
                file = self._files[-1]
                stored = file.read(self._band, window=at)
                void = file.read_masks(self._band, window=at) == 0 if self._masked else None
        except DataError:
            raise
        except Exception as error:  # GDAL has many errors for a damaged block
            raise unreadable(self.name, window, error) from error
        values = physical(stored, () if self._nodata is None else (self._nodata,), self._scale, self._offset)
        if void is not None:
            values[void] = np.nan
        return np.ascontiguousarray(values[::-1]) if self._flipped else values

    def release(self) -> None:
        """Close the file until the next read."""
        while self._files:
            self._files.pop().close()

    def close(self) -> None:
        """Close the file."""
        self.release()


def _band_of(file: Any, band: int | None, name: str) -> int:
    bands = [
        number + 1
        for number, colour in enumerate(file.colorinterp)
        if colour.name != "alpha" or file.count == 1  # alpha is a mask, no values
    ]
    if band is None and len(bands) != 1:
        raise DataError(f"{name}: has {len(bands)} bands, expected one; gdal_translate -b 1 IN OUT.tif takes one out")
    if band is not None and not 1 <= band <= file.count:
        raise DataError(f"{name}: has no band {band}, it has {file.count}; they count from 1")
    return bands[0] if band is None else band

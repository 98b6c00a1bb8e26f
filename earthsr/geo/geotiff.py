"""GeoTIFF, and whatever else GDAL opens as one raster file, read as it lies or through a view."""

from __future__ import annotations

import contextlib
import html
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, geo_module
from earthsr.geo.crs import crs_name, gdal, wkt_of
from earthsr.geo.grid import Window, columns_once
from earthsr.geo.raster import Codes, Georeference, samples
from earthsr.geo.values import Categories, Packing, Voids, categories_of, kept_attributes, unreadable, voids_of
from earthsr.store.untrusted import require_own_raster

#: What to do about a file without a CRS; ``rio`` comes with rasterio.
SET_CRS: Final = "rio edit-info --crs EPSG:4326 FILE sets it if it is that (rio comes with rasterio)"
#: A VRT that is larger is left to GDAL.
_VRT_BYTES: Final = 2**26
_VRT_FILE: Final = re.compile(r'<SourceFilename(?:\s+relativeToVRT="([01])"|[^>])*>([^<]*)</SourceFilename>')


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep off standard error what rasterio cannot pass on of GDAL's messages: they quote bytes of damaged files."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


class GdalSource:
    """One band of a raster file.

    GDAL gives files whose pixels are points the transform of the areas around them, so nothing is shifted here.
    """

    def __init__(
        self,
        path: Path,
        nodata: Voids = None,
        units: str | None = None,
        band: int | None = None,
        warp: Callable[[Any, int], Any] | None = None,
        prefer: Sequence[str] = (),
    ) -> None:
        self._path, self._band, self._warp = path, 1, warp
        self._prefer = prefer
        self._files: list[Any] = []
        self._masked, self._flipped, self.packing = False, False, Packing()
        self.name = path.name
        self.categories: Categories | None = None
        """What codes stand for; None where nothing says that these are codes."""
        try:
            with gdal():
                self.georeference = self._describe(nodata, units, band)
        except BaseException:
            self.close()
            raise

    def _describe(self, nodata: Voids, units: str | None, band: int | None) -> Georeference:
        name = self.name
        file = self._open()
        self._band = _band_of(file, band, name, self._prefer)
        index = self._band - 1
        if not file.crs:
            raise DataError(f"{name}: has no CRS; {SET_CRS}")
        if np.dtype(file.dtypes[index]).kind not in "iuf":
            raise DataError(f"{name}: holds {file.dtypes[index]}, expected real numbers")
        tags = {**file.tags(), **file.tags(self._band)}
        units_text = file.units[index] or tags.get("units") or ""
        masks = [flag.name for flag in file.mask_flag_enums[index]]
        self._masked = "per_dataset" in masks
        scale, offset = float(file.scales[index]), float(file.offsets[index])
        if not scale or not np.isfinite([scale, offset]).all():
            raise DataError(
                f"{name}: scale is {scale:g} and offset {offset:g}, expected numbers and no scale of 0; python -c "
                "\"import rasterio; f = rasterio.open('FILE', 'r+'); f.scales, f.offsets = [1], [0]\" takes them out"
            )
        self.packing = Packing(voids_of(file.nodatavals[index]) + voids_of(nodata), scale, offset)
        self.categories = categories_of(tags, _names_beside(self._path, self._band), _colours(file, self._band))
        if self._warp is not None:
            file = self._warped(file)
        wkt = wkt_of(file.crs)
        t = file.transform
        if t.b or t.d or t.a <= 0 or not t.e:
            raise DataError(
                f"{name}: the grid is rotated or mirrored, expected north up; rio warp IN OUT.tif --dst-crs "
                f"{crs_name(wkt)} turns it"
            )
        if t.is_identity:
            raise DataError(
                f"{name}: has a CRS and no place on it; rio edit-info --transform "
                "'[WIDTH, 0, WEST, 0, -HEIGHT, NORTH]' FILE sets it, with width and height of a cell"
            )
        self._flipped = t.e > 0
        geographic = bool(file.crs.is_geographic)
        return Georeference(
            rows=file.height,
            columns=columns_once(file.width, t.a) if geographic else file.width,
            west=t.c,
            north=t.f + t.e * file.height if self._flipped else t.f,
            cell_x=t.a,
            cell_y=abs(t.e),
            crs_wkt=wkt,
            geographic=geographic,
            units=units_text if units is None else units,
            nodata=self.packing.nodata[0] if self.packing.nodata else None,
            attributes=kept_attributes(tags),
        )

    def _open(self) -> Any:
        rasterio = geo_module("rasterio")
        require_own_raster(self._path)
        _require_tiles(self._path)
        try:
            with warnings.catch_warnings(), _unheard():
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

    @property
    def packed(self) -> bool:
        """Whether values are stored numbers times a scale, or with an offset."""
        return (self.packing.scale, self.packing.offset) != (1.0, 0.0)

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (rows, columns) from north to south, NaN where there is no value.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        stored, masked = self._stored(window)
        values = self.packing.decode(stored)
        if masked is not None:
            values[masked] = np.nan
        return values

    def codes(self, window: Window) -> Codes:
        """Read stored numbers as they are, and which of them are values.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        stored, masked = self._stored(window)
        void = self.packing.void(stored)
        return Codes(stored, ~(void if masked is None else void | masked))

    def sampled(self, window: Window, step: int, kind: str = "read", layer: int = 0) -> Any:
        """Read every so many cells, from an overview where the file has one; see :func:`earthsr.geo.raster.sampled`."""
        stored, masked = self._stored(window, step)
        if kind == "codes":
            void = self.packing.void(stored)
            return Codes(stored, ~(void if masked is None else void | masked))
        values = self.packing.decode(stored)
        if masked is not None:
            values[masked] = np.nan
        return values

    def _stored(self, window: Window, step: int = 1) -> tuple[NDArray, NDArray[np.bool_] | None]:
        """Read stored numbers (rows, columns) from north to south, and what a mask of the file's takes out."""
        row, column, rows, columns = window = self.georeference.check(window)
        shape = samples(rows, step), samples(columns, step)
        if step > 1:
            # GDAL takes the middle of each block of cells that becomes one, and the window's first cell is a middle.
            row, column = max(row - step // 2, 0), max(column - step // 2, 0)
            rows = min(shape[0] * step, self.georeference.rows - row)
            columns = min(shape[1] * step, self.georeference.columns - column)
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
                stored = file.read(self._band, window=at, out_shape=shape)
                void = file.read_masks(self._band, window=at, out_shape=shape) == 0 if self._masked else None
        except DataError:
            raise
        except Exception as error:  # GDAL has many errors for a damaged block
            _require_tiles(self._path)
            raise unreadable(self.name, window, error) from error
        if self._flipped:
            stored, void = np.ascontiguousarray(stored[::-1]), None if void is None else void[::-1]
        return stored, void

    def release(self) -> None:
        """Close the file until the next read."""
        while self._files:
            self._files.pop().close()

    def close(self) -> None:
        """Close the file."""
        self.release()


def _colours(file: Any, band: int) -> dict[int, str]:
    """Colours of a band's table by code, without those that are not seen; none where it has no table."""
    try:
        table = file.colormap(band)
    except ValueError:
        return {}
    return {code: f"#{red:02x}{green:02x}{blue:02x}" for code, (red, green, blue, alpha) in table.items() if alpha}


def _names_beside(path: Path, band: int) -> dict[int, str]:
    """Names of categories by code that GDAL and QGIS keep beside a raster, in ``NAME.tif.aux.xml``."""
    beside = path.with_name(f"{path.name}.aux.xml")
    try:
        if beside.stat().st_size > _VRT_BYTES:
            return {}
        text = beside.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    of_band = re.search(rf'<PAMRasterBand band="{band}">(.*?)</PAMRasterBand>', text, re.DOTALL)
    listed = re.findall(r"<Category(?:>([^<]*)</Category>|\s*/>)", of_band[1]) if of_band else []
    return {code: html.unescape(name) for code, name in enumerate(listed) if name.strip()}


def _require_tiles(path: Path) -> None:
    """Raise a :class:`DataError` where a file that a VRT is made of is missing: GDAL only says that reading failed."""
    try:
        with path.open("rb") as handle:
            start = handle.read(64).lstrip()
            if not start.startswith(b"<VRTDataset") or path.stat().st_size > _VRT_BYTES:
                return
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for relative, name in _VRT_FILE.findall(text):
        name = html.unescape(name)
        if not name or name.startswith(("/vsi", "<")) or "://" in name or (":" in name and not Path(name).suffix):
            continue  # no plain file: GDAL's own places, and parts of files
        tile = path.parent / name if relative == "1" else Path(name)
        if not tile.exists():
            raise DataError(
                f"{path.name}: its tile {tile} is missing; put it back, or make the VRT again of the files that are "
                "there (gdalbuildvrt), or name them one after the other instead of the VRT"
            )


def _band_of(file: Any, band: int | None, name: str, prefer: Sequence[str] = ()) -> int:
    bands = [
        number + 1
        for number, colour in enumerate(file.colorinterp)
        if colour.name != "alpha" or file.count == 1  # alpha is a mask, no values
    ]
    if band is None and len(bands) > 1:
        # Bands that are named, as those of elevation and spread are.
        band = next((number for number in bands if file.descriptions[number - 1] in prefer), None)
    if band is None and len(bands) != 1:
        raise DataError(f"{name}: has {len(bands)} bands, expected one; rio stack IN --bidx 1 OUT.tif takes one out")
    if band is not None and not 1 <= band <= file.count:
        raise DataError(f"{name}: has no band {band}, it has {file.count}; they count from 1")
    return bands[0] if band is None else band

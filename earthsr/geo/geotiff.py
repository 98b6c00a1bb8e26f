"""GeoTIFF: read, with whatever else GDAL opens as one raster file, as it lies or through a view; and written as COG."""

from __future__ import annotations

import contextlib
import html
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from earthsr.errors import DataError, EarthsrError, InputError, geo_module
from earthsr.geo.cf_write import plain_attributes
from earthsr.geo.crs import crs_name, gdal, parse_crs, wkt_of
from earthsr.geo.grid import Grid, Window, columns_once
from earthsr.geo.raster import Codes, FileSink, Georeference
from earthsr.geo.values import Packing, Voids, kept_attributes, unreadable, voids_of
from earthsr.store import cannot_write
from earthsr.store.untrusted import require_own_raster

#: Blocks go into a plain tiled file first: a COG wants its overviews before its data. Not compressed, it takes
#: blocks of any size in any order and no tile is compressed twice: 105 Mpx in blocks of 1280 x 1280 took 0.5 s on one
#: core against 6 s (deflate 1) or 3 s (zstd 1), and made the COG in 20 s against 25; in return it needs 4 bytes
#: a cell of disk for a while.
_TILE: Final = 256
_COG: Final[dict[str, Any]] = {
    "COMPRESS": "DEFLATE",
    "BLOCKSIZE": 512,
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": min(4, os.cpu_count() or 1),
}
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
    ) -> None:
        self._path, self._band, self._warp = path, 1, warp
        self._files: list[Any] = []
        self._masked, self._flipped, self.packing = False, False, Packing()
        self.name = path.name
        try:
            with gdal():
                self.georeference = self._describe(nodata, units, band)
        except BaseException:
            self.close()
            raise

    def _describe(self, nodata: Voids, units: str | None, band: int | None) -> Georeference:
        name = self.name
        file = self._open()
        self._band = _band_of(file, band, name)
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
        if self._warp is not None:
            file = self._warped(file)
        wkt = wkt_of(file.crs)
        t = file.transform
        if t.b or t.d or t.a <= 0 or not t.e:
            raise DataError(
                f"{name}: the grid is rotated or mirrored, expected north up; rio warp IN OUT.tif --dst-crs "
                f"{crs_name(wkt)} (or gdalwarp -t_srs) turns it"
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

    def _stored(self, window: Window) -> tuple[NDArray, NDArray[np.bool_] | None]:
        """Read stored numbers (rows, columns) from north to south, and what a mask of the file's takes out."""
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


def _band_of(file: Any, band: int | None, name: str) -> int:
    bands = [
        number + 1
        for number, colour in enumerate(file.colorinterp)
        if colour.name != "alpha" or file.count == 1  # alpha is a mask, no values
    ]
    if band is None and len(bands) != 1:
        raise DataError(f"{name}: has {len(bands)} bands, expected one; rio stack IN --bidx 1 OUT.tif takes one out")
    if band is not None and not 1 <= band <= file.count:
        raise DataError(f"{name}: has no band {band}, it has {file.count}; they count from 1")
    return bands[0] if band is None else band


class GeoTiffSink(FileSink):
    """A GeoTIFF of float32."""

    void: ClassVar[float] = -9999.0  # NaN is legal, and many tools do not know it

    def _begin(self, target: Path) -> None:
        self._cog = CogFile(self.path, target, self.georeference, np.float32, self.nodata, len(self.bands))

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        with self._cog.errors():
            self._cog.file.write(values, window=((row, row + rows), (column, column + columns)))

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        g, file = self.georeference, self._cog.file
        tags = {key: value for key, value in g.attributes.items() if key not in ("long_name", "standard_name")}
        with self._cog.errors():
            file.update_tags(**plain_attributes({**tags, **attributes, "AREA_OR_POINT": "Area"}))
            file.descriptions = self.bands
            file.units = (g.units,) * len(self.bands)
            names = {key: g.attributes[key] for key in ("long_name", "standard_name") if key in g.attributes}
            if names:
                file.update_tags(1, **plain_attributes(names))
        self._cog.finish(PREDICTOR="FLOATING_POINT", OVERVIEW_RESAMPLING="AVERAGE")

    def _drop(self) -> None:
        # It is not there where creating it went wrong.
        with contextlib.suppress(Exception):
            self._cog.close()


class CogFile:
    """A cloud-optimised GeoTIFF in the making: a plain file that takes cells in any order, copied when it is whole.

    Parameters
    ----------
    path : Path
        Name that it will have, for messages.
    target : Path
        Where it is written; the plain file lies beside it.
    grid : Grid
        Where its cells lie.
    dtype : dtype
        Of its cells.
    nodata : float
        What stands for no value.
    bands : int
        How many.
    **profile
        Further options of the plain file, which go into the COG as well.

    Raises
    ------
    InputError
        If the disk is too small.
    """

    def __init__(
        self, path: Path, target: Path, grid: Grid, dtype: DTypeLike, nodata: float, bands: int = 1, **profile: Any
    ) -> None:
        rasterio = geo_module("rasterio")
        self._path, self._target, self._blocks = path, target, target.with_name("blocks.tif")
        tiles = -(-grid.rows // _TILE) * -(-grid.columns // _TILE) * bands
        self._bytes = tiles * _TILE**2 * np.dtype(dtype).itemsize
        free = shutil.disk_usage(target.parent).free
        if free < self._bytes:
            raise cannot_write(path, f"its cells need {_size(self._bytes)} while it is made and {_size(free)} are free")
        with self.errors():
            self.file = rasterio.open(
                self._blocks,
                "w",
                driver="GTiff",
                width=grid.columns,
                height=grid.rows,
                count=bands,
                dtype=np.dtype(dtype).name,
                crs=parse_crs(grid.crs_wkt, path.name) if grid.crs_wkt else None,
                transform=rasterio.Affine(*grid.transform),
                nodata=nodata,
                tiled=True,
                blockxsize=_TILE,
                blockysize=_TILE,
                interleave="band",
                BIGTIFF="YES",
                **profile,
            )
            """Of rasterio, to be written within :meth:`errors`."""

    def finish(self, **options: Any) -> None:
        """Copy the plain file into the COG, whose ``options`` are GDAL's.

        Raises
        ------
        InputError
            If the disk is full.
        """
        with self.errors():
            self.file.close()
            # GDAL keeps silent about what it could not write when it closes a file.
            if self._blocks.stat().st_size < self._bytes:
                raise cannot_write(self._path, "No space left on device")
            geo_module("rasterio.shutil").copy(self._blocks, self._target, driver="COG", **_COG, **options)
            self._blocks.unlink()
            if not is_whole(self._target):
                raise cannot_write(self._path, "No space left on device")

    def close(self) -> None:
        """Close the plain file, whatever its state."""
        with gdal():
            self.file.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """GDAL's settings; what it cannot write in our words, for it does not hand down the system's reason."""
        try:
            with gdal():
                yield
        except EarthsrError:
            raise
        except OSError as error:
            if error.errno is not None:  # GDAL's own errors are of this kind too, and have none
                raise
            raise self._failed(error) from error
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> InputError:
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        free = shutil.disk_usage(self._blocks.parent).free
        return cannot_write(self._path, f"GDAL gave up with {_size(free)} free ({reason})")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def is_whole(path: Path) -> bool:
    """Whether every tile of a COG and of its overviews can be read.

    On a full disk GDAL may say that all is well and leave a tile out; reading costs a tenth of the time of making.
    """
    rasterio = geo_module("rasterio")
    step = 4 * int(_COG["BLOCKSIZE"])
    try:
        with rasterio.open(path) as file:
            levels = len(file.overviews(1))
        for level in range(-1, levels):
            with rasterio.open(path, **({"overview_level": level} if level >= 0 else {})) as file:
                for row in range(0, file.height, step):
                    for column in range(0, file.width, step):
                        bottom, right = min(row + step, file.height), min(column + step, file.width)
                        file.read(window=((row, bottom), (column, right)))
    except rasterio.errors.RasterioError:
        return False
    return True

"""Cloud-optimised GeoTIFF, written from blocks in any order."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import EarthsrError, InputError
from earthsr.geo.cf_write import plain_attributes
from earthsr.geo.crs import gdal, parse_crs
from earthsr.geo.lonlat_rasters import geo_module
from earthsr.geo.parts import cannot_write
from earthsr.geo.sinks import FileSink
from earthsr.geo.window import Window

#: Blocks go into a plain tiled file first: a COG wants its overviews before its data. Not compressed, it takes
#: blocks of any size in any order and no tile is compressed twice: 105 Mpx in blocks of 1280 x 1280 took 0.5 s on one
#: core against 6 s (deflate 1) or 3 s (zstd 1), and made the COG in 20 s against 25; in return it needs 4 bytes
#: a cell of disk for a while.
_TILE: Final = 256
_COG: Final[dict[str, Any]] = {
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "FLOATING_POINT",
    "BLOCKSIZE": 512,
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": min(4, os.cpu_count() or 1),
}


class GeoTiffSink(FileSink):
    """A GeoTIFF of float32."""

    void: ClassVar[float] = -9999.0  # NaN is legal, and many tools do not know it

    def _begin(self, target: Path) -> None:
        rasterio = geo_module("rasterio")
        g = self.georeference
        self._blocks = target.with_name("blocks.tif")
        tiles = -(-g.rows // _TILE) * -(-g.columns // _TILE) * len(self.bands)
        self._bytes = tiles * _TILE**2 * 4
        free = shutil.disk_usage(target.parent).free
        if free < self._bytes:
            raise cannot_write(
                self.path, f"its cells need {_size(self._bytes)} while it is made and {_size(free)} are free"
            )
        with self._errors():
            self._file = rasterio.open(
                self._blocks,
                "w",
                driver="GTiff",
                width=g.columns,
                height=g.rows,
                count=len(self.bands),
                dtype="float32",
                crs=parse_crs(g.crs_wkt, self.path.name) if g.crs_wkt else None,
                transform=rasterio.Affine(*g.transform),
                nodata=self.nodata,
                tiled=True,
                blockxsize=_TILE,
                blockysize=_TILE,
                interleave="band",
                BIGTIFF="YES",
            )

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        with self._errors():
            self._file.write(values, window=((row, row + rows), (column, column + columns)))

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        copying = geo_module("rasterio.shutil")
        g, file = self.georeference, self._file
        said = {key: value for key, value in g.attributes.items() if key not in ("long_name", "standard_name")}
        with self._errors():
            file.update_tags(**plain_attributes({**said, **attributes, "AREA_OR_POINT": "Area"}))
            file.descriptions = self.bands
            file.units = (g.units,) * len(self.bands)
            names = {key: g.attributes[key] for key in ("long_name", "standard_name") if key in g.attributes}
            if names:
                file.update_tags(1, **plain_attributes(names))
            file.close()
            # GDAL keeps silent about what it could not write when it closes a file.
            if self._blocks.stat().st_size < self._bytes:
                raise cannot_write(self.path, "No space left on device")
            copying.copy(self._blocks, target, driver="COG", **_COG)
            self._blocks.unlink()
            if not is_whole(target):
                raise cannot_write(self.path, "No space left on device")

    def _drop(self) -> None:
        with contextlib.suppress(Exception), gdal():
            self._file.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
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
        return cannot_write(self.path, f"GDAL gave up with {_size(free)} free ({reason})")


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

"""Rasters written block by block, in the format that a name stands for: NetCDF and Zarr with CF metadata, GeoTIFF."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from earthsr.errors import EarthsrError, InputError, geo_module
from earthsr.geo.cf_write import (
    CRS_VARIABLE,
    axis_attributes,
    axis_names,
    conventions,
    crs_attributes,
    netcdf_attributes,
    plain_attributes,
    value_attributes,
    write_place,
)
from earthsr.geo.cog import describe_bands
from earthsr.geo.crs import gdal, parse_crs
from earthsr.geo.grid import Grid, Window
from earthsr.geo.raster import FileSink, Georeference, Sink
from earthsr.store import cannot_write
from earthsr.store.disk import GuardedFile

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


class NetCdfSink(FileSink):
    """A NetCDF-4 file: one variable of float32 a band, in compressed chunks of the size of a block."""

    def _begin(self, target: Path) -> None:
        h5netcdf = geo_module("h5netcdf")
        g = self.georeference
        self._handle = GuardedFile(target)
        self._file = h5netcdf.File(self._handle, "w")
        y, x = write_place(self._file, g)
        self._variables = []
        for number, band in enumerate(self.bands):
            variable = self._file.create_variable(
                band,
                (y, x),
                np.float32,
                chunks=(min(self.block[0], g.rows), min(self.block[1], g.columns)),
                compression="gzip",
                compression_opts=4,
                shuffle=True,
                fillvalue=np.float32(self.nodata),
            )
            variable.attrs.update(netcdf_attributes(plain_attributes(value_attributes(g, band, number == 0))))
            self._variables.append(variable)
        self._handle.check()

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        for variable, band in zip(self._variables, values, strict=True):
            variable[row : row + rows, column : column + columns] = band
        self._handle.check()

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        attributes = {"Conventions": conventions(np.float32), **plain_attributes(attributes)}
        self._file.attrs.update(netcdf_attributes(attributes))
        self._file.close()
        self._handle.close()
        self._handle.check()

    def _drop(self) -> None:
        # Not all of it is there where creating it went wrong.
        with contextlib.suppress(Exception):
            self._file.close()
        with contextlib.suppress(Exception):
            self._handle.close()


class ZarrSink(FileSink):
    """A Zarr store as xarray writes it: one array of float32 a band, in compressed chunks of the size of a block."""

    store: ClassVar[bool] = True

    def _begin(self, target: Path) -> None:
        self._group = make_store(target, self.georeference, self.bands, self.block, self.nodata)
        self._arrays = [self._group[band] for band in self.bands]

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        for array, band in zip(self._arrays, values, strict=True):
            array[row : row + rows, column : column + columns] = band

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        finish_store(target, attributes)

    def _drop(self) -> None:
        """Nothing stays open."""


def make_store(
    target: Path, georeference: Georeference, bands: Sequence[str], block: tuple[int, int], nodata: float
) -> Any:
    """Make a Zarr store of float32 without a chunk, as xarray writes it; gives its group."""
    zarr = geo_module("zarr")
    codecs = geo_module("zarr.codecs")
    g = georeference
    group = zarr.open_group(target, mode="w", zarr_format=3)
    y, x = axis_names(g)
    for name, centres, axis in zip((y, x), (g.y(), g.x()), axis_attributes(g), strict=True):
        group.create_array(name, data=centres, chunks=centres.shape, dimension_names=(name,), attributes=axis)
    if g.crs_wkt:
        crs = np.array(0, np.int32)
        group.create_array(CRS_VARIABLE, data=crs, dimension_names=(), attributes=crs_attributes(g))
    # xarray's way to say it in JSON, which has no NaN.
    fill = base64.standard_b64encode(struct.pack("<d", nodata)).decode()
    for number, band in enumerate(bands):
        group.create_array(
            band,
            shape=(g.rows, g.columns),
            chunks=(min(block[0], g.rows), min(block[1], g.columns)),
            dtype=np.float32,
            fill_value=np.float32(nodata),
            dimension_names=(y, x),
            compressors=codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            attributes={**plain_attributes(value_attributes(g, band, number == 0)), "_FillValue": fill},
        )
    return group


def finish_store(target: Path, attributes: Mapping[str, Any]) -> None:
    """Write provenance into a Zarr store, and its metadata once more in one place."""
    zarr = geo_module("zarr")
    group = zarr.open_group(target, mode="r+")
    group.attrs.update({"Conventions": conventions(np.float32), **plain_attributes(attributes)})
    with warnings.catch_warnings():
        # Version 3 does not describe it yet, and readers that do not know it do without.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(group.store)


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
        with self._cog.errors():
            describe_bands(self._cog.file, self.georeference, self.bands, attributes)
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
            if not is_whole(self._target, self._blocks):
                raise cannot_write(self._path, "what is read again is not what was written (a full or damaged disk?)")
            self._blocks.unlink()

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


def is_whole(path: Path, original: Path) -> bool:
    """Whether a COG has every cell of the raster that it was made of, and overviews that can be read.

    On a full disk GDAL may say that all is well and leave a tile out; and what is damaged within a tile may still be
    unpacked to something. Reading costs a tenth of the time of making.

    Parameters
    ----------
    path : Path
        The COG.
    original : Path
        What it was copied from.
    """
    rasterio = geo_module("rasterio")
    step = 4 * int(_COG["BLOCKSIZE"])
    try:
        with rasterio.open(path) as file, rasterio.open(original) as source:
            levels = len(file.overviews(1))
            for window in _windows(file.height, file.width, step):
                if not np.array_equal(file.read(window=window), source.read(window=window), equal_nan=True):
                    return False
        for level in range(levels):
            with rasterio.open(path, overview_level=level) as file:
                for window in _windows(file.height, file.width, step):
                    file.read(window=window)
    except rasterio.errors.RasterioError:
        return False
    return True


def _windows(height: int, width: int, step: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for row in range(0, height, step):
        for column in range(0, width, step):
            yield (row, min(row + step, height)), (column, min(column + step, width))


#: Formats of output by suffix.
SINKS: Final[dict[str, type[FileSink]]] = {
    ".tif": GeoTiffSink,
    ".tiff": GeoTiffSink,
    ".nc": NetCdfSink,
    ".zarr": ZarrSink,
}


def open_sink(
    path: str | Path,
    georeference: Georeference,
    bands: Sequence[str] = ("elevation",),
    block: tuple[int, int] = (1280, 1280),
    overwrite: bool = False,
) -> Sink:
    """Begin a raster file: cloud-optimised GeoTIFF (.tif, .tiff), NetCDF-4 with CF metadata (.nc) or Zarr (.zarr).

    Parameters
    ----------
    path : str or Path
        Destination; nothing of this name is there before the sink is finished.
    georeference : Georeference
        Grid of what is written.
    bands : sequence of str
        Names of the bands; the first has the input's long name and standard name.
    block : tuple of int
        Rows and columns of the blocks that will be written; chunks of NetCDF and Zarr are as large.
    overwrite : bool
        Whether a file that is there is replaced, in the end.

    Returns
    -------
    Sink
        Takes blocks in any order, each cell once; cells that are never written have no value. Voids are the input's
        nodata where float32 has it, else -9999 in GeoTIFF and NaN in NetCDF and Zarr.

    Raises
    ------
    InputError
        If the suffix is another one, the file is there and is not to be replaced, its folder cannot be written, or
        the disk is too small.
    """
    path = Path(path)
    sink = SINKS.get(path.suffix.lower())
    if sink is None:
        raise InputError(f"{path.name}: suffix {path.suffix!r} is no format of output; {', '.join(SINKS)} are")
    if not bands or len(set(bands)) != len(bands):
        raise InputError(f"{path.name}: bands are {', '.join(bands) or 'none'}, expected different names")
    return sink(path, georeference, bands, block, overwrite)

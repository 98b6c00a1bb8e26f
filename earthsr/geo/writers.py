"""Rasters written block by block, in the format that a name stands for: NetCDF and Zarr with CF metadata, GeoTIFF."""

from __future__ import annotations

import base64
import contextlib
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError, geo_module
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
from earthsr.geo.geotiff import GeoTiffSink
from earthsr.geo.grid import Window
from earthsr.geo.raster import FileSink, Georeference, Sink


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


class GuardedFile:
    """A file for HDF5 that keeps the first error for us.

    HDF5 itself loses a block that a full disk does not take without a word, and crashes when it closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of it, or nothing more after an error."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while len(left) and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return count

    def truncate(self, size: int) -> int:
        """Set the length."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return size

    def read(self, size: int = -1) -> bytes:
        """Read back."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read back into a buffer."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Say where we are."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ZarrSink(FileSink):
    """A Zarr store as xarray writes it: one array of float32 a band, in compressed chunks of the size of a block."""

    store: ClassVar[bool] = True

    def _begin(self, target: Path) -> None:
        zarr = geo_module("zarr")
        codecs = geo_module("zarr.codecs")
        g = self.georeference
        self._group = zarr.open_group(target, mode="w", zarr_format=3)
        y, x = axis_names(g)
        for name, centres, axis in zip((y, x), (g.y(), g.x()), axis_attributes(g), strict=True):
            self._group.create_array(name, data=centres, chunks=centres.shape, dimension_names=(name,), attributes=axis)
        if g.crs_wkt:
            crs = np.array(0, np.int32)
            self._group.create_array(CRS_VARIABLE, data=crs, dimension_names=(), attributes=crs_attributes(g))
        # xarray's way to say it in JSON, which has no NaN.
        fill = base64.standard_b64encode(struct.pack("<d", self.nodata)).decode()
        self._arrays = [
            self._group.create_array(
                band,
                shape=(g.rows, g.columns),
                chunks=(min(self.block[0], g.rows), min(self.block[1], g.columns)),
                dtype=np.float32,
                fill_value=np.float32(self.nodata),
                dimension_names=(y, x),
                compressors=codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                attributes={**plain_attributes(value_attributes(g, band, number == 0)), "_FillValue": fill},
            )
            for number, band in enumerate(self.bands)
        ]

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        for array, band in zip(self._arrays, values, strict=True):
            array[row : row + rows, column : column + columns] = band

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        zarr = geo_module("zarr")
        self._group.attrs.update({"Conventions": conventions(np.float32), **plain_attributes(attributes)})
        with warnings.catch_warnings():
            # Version 3 does not describe it yet, and readers that do not know it do without.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self._group.store)

    def _drop(self) -> None:
        """Nothing stays open."""


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

"""NetCDF-4 with CF metadata, written block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.cf_write import axis_attributes, crs_attributes, plain_attributes, value_attributes
from earthsr.geo.lonlat_rasters import geo_module
from earthsr.geo.sinks import FileSink
from earthsr.geo.window import Window


class NetCdfSink(FileSink):
    """A NetCDF-4 file: one variable of float32 a band, in compressed chunks of the size of a block."""

    def _begin(self, target: Path) -> None:
        h5netcdf = geo_module("h5netcdf")
        g = self.georeference
        self._handle = GuardedFile(target)
        self._file = h5netcdf.File(self._handle, "w")
        y, x = ("lat", "lon") if g.geographic else ("y", "x")
        self._file.dimensions = {y: g.rows, x: g.columns}
        for name, centres, said in zip((y, x), (g.y(), g.x()), axis_attributes(g), strict=True):
            self._file.create_variable(name, (name,), np.float64, data=centres).attrs.update(said)
        if g.crs_wkt:
            self._file.create_variable("crs", (), np.int32, data=np.int32(0)).attrs.update(crs_attributes(g))
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
            variable.attrs.update(plain_attributes(value_attributes(g, band, number == 0)))
            self._variables.append(variable)
        self._handle.check()

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        for variable, band in zip(self._variables, values, strict=True):
            variable[row : row + rows, column : column + columns] = band
        self._handle.check()

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        self._file.attrs.update({"Conventions": "CF-1.8", **plain_attributes(attributes)})
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

"""Writing rasters block by block: which format a name stands for, and what all formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.georeference import Georeference
from earthsr.geo.grid import Window
from earthsr.store import Part, disk_errors


class FileSink(ABC):
    """A raster file that is being written; it gets its name when it is finished.

    Parameters
    ----------
    path : Path
        Destination.
    georeference : Georeference
        Grid of what is written; its nodata is the file's where float32 has it, else the format's own.
    bands : sequence of str
        Their names.
    block : tuple of int
        Rows and columns of a block as it is written.
    overwrite : bool
        Whether what is there is replaced.
    """

    store: ClassVar[bool] = False
    """Whether the format is a folder."""
    void: ClassVar[float] = float("nan")
    """What stands for no value where the input does not say."""

    def __init__(
        self,
        path: Path,
        georeference: Georeference,
        bands: Sequence[str],
        block: tuple[int, int],
        overwrite: bool = False,
    ) -> None:
        self.path, self.georeference, self.bands, self.block = path, georeference, tuple(bands), block
        self.nodata = _representable(georeference.nodata, self.void)
        self._part = Part(path, overwrite, self.store)
        try:
            with disk_errors(path):
                self._begin(self._part.target)
        except BaseException:
            self.abort()
            raise

    @abstractmethod
    def _begin(self, target: Path) -> None:
        """Create the file."""

    @abstractmethod
    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        """Write (bands, rows, columns) as they are stored."""

    @abstractmethod
    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        """Write what comes last and close the file."""

    @abstractmethod
    def _drop(self) -> None:
        """Close the file, whatever its state; what goes wrong is of no interest."""

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write (bands, rows, columns) with its first cell at ``row``, ``column``; NaN where there is no value.

        Raises
        ------
        InputError
            If the disk is full; nothing is left then.
        """
        window = self.georeference.check(Window(row, column, *block.shape[1:]))
        if len(block) != len(self.bands):
            raise ValueError(f"block has shape {block.shape}, expected {len(self.bands)} bands")
        try:
            with disk_errors(self.path):
                self._put(window, stored(block, self.nodata))
        except BaseException:
            self.abort()
            raise

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write provenance, and give the file its final name.

        Raises
        ------
        InputError
            If the disk is full; nothing is left then.
        """
        try:
            with disk_errors(self.path):
                self._end(self._part.target, attributes)
            self._part.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        if self._part.open:
            self._drop()
            self._part.discard()


def _representable(nodata: float | None, otherwise: float) -> float:
    if nodata is None:
        return otherwise
    with np.errstate(over="ignore"):
        single = float(np.float32(nodata))
    return single if np.isnan(single) or (np.isfinite(single) and single == nodata) else otherwise


def stored(block: NDArray[np.float32], nodata: float) -> NDArray[np.float32]:
    """Put a number in the place of NaN; a value that happens to be this number moves to the next one of float32."""
    values = np.ascontiguousarray(block, np.float32)
    if np.isnan(nodata):
        return values
    number = np.float32(nodata)
    taken, void = values == number, np.isnan(values)
    if taken.any() or void.any():
        values = values.copy()
        values[taken] = np.nextafter(number, np.float32(np.inf))
        values[void] = number
    return values

"""Rasters in memory, read and written as files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthsr.errors import DataError
from earthsr.geo.georeference import Georeference
from earthsr.geo.values import physical
from earthsr.geo.window import Window


class ArraySource:
    """An array with its place; :func:`array_source` makes it."""

    def __init__(self, values: NDArray, georeference: Georeference, name: str) -> None:
        self._values, self.georeference, self.name = values, georeference, name

    def read(self, window: Window) -> NDArray[np.float32]:
        """Copy (rows, columns); NaN where there is no value."""
        row, column, rows, columns = self.georeference.check(window)
        nodata = self.georeference.nodata
        return physical(self._values[row : row + rows, column : column + columns], () if nodata is None else (nodata,))

    def close(self) -> None:
        """Let the array go."""
        self._values = np.empty((0, 0), np.float32)


def array_source(values: ArrayLike, georeference: Georeference, name: str = "array") -> ArraySource:
    """Read an array as a raster.

    Parameters
    ----------
    values : array_like of shape (rows, columns)
        From north to south; NaN and the georeference's nodata are no values.
    georeference : Georeference
        Its place.
    name : str
        For messages.

    Raises
    ------
    DataError
        If the shape is not that of the grid, or these are no numbers.
    """
    array = np.asarray(values)
    expected = (georeference.rows, georeference.columns)
    if array.shape != expected or array.dtype.kind not in "iuf":
        raise DataError(f"{name}: has shape {array.shape} of {array.dtype}, expected numbers of shape {expected}")
    return ArraySource(array, georeference, name)


class MemorySink:
    """Collects what is written in an array.

    Parameters
    ----------
    georeference : Georeference
        Of what is written.
    bands : sequence of str
        Names of the bands.
    """

    def __init__(self, georeference: Georeference, bands: Sequence[str] = ("elevation",)) -> None:
        self.georeference, self.bands = georeference, tuple(bands)
        self.values = np.full((len(self.bands), georeference.rows, georeference.columns), np.nan, np.float32)
        """(bands, rows, columns), NaN where nothing was written."""
        self.attributes: dict[str, Any] = {}
        """As given to :meth:`finish`."""

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write a ``block`` (bands, rows, columns) with its first cell at ``row``, ``column``."""
        window = self.georeference.check(Window(row, column, *block.shape[1:]))
        self.values[:, row : row + window.rows, column : column + window.columns] = block

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Keep ``attributes``, the provenance."""
        self.attributes = dict(attributes)

    def abort(self) -> None:
        """Let the array go."""
        self.values = self.values[:, :0, :0]

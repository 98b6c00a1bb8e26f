"""Rasters of longitude and latitude as land use reads them: columns from -180, and a layer a year."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.crs import crs_name, parse_crs
from earthsr.geo.elevations import elevations
from earthsr.geo.fields import FieldSource
from earthsr.geo.grid import Window, pieces, westward
from earthsr.geo.raster import Codes, Source, read_window
from earthsr.geo.readers import open_layers, split_variable


class LonLatRaster:
    """A raster of longitude and latitude whose columns count from -180, with a layer for each year where it has time.

    Parameters
    ----------
    source : Source
        What is read.
    path : Path
        Its file.

    Raises
    ------
    DataError
        If it is on a projection, or its layers have no years.
    """

    def __init__(self, source: Source, path: Path) -> None:
        self._source, self.path, self.name = source, path, source.name
        place = source.georeference
        if not place.geographic:
            raise DataError(
                f"{self.name}: CRS is {crs_name(place.crs_wkt)}, expected longitude and latitude; gdalwarp -t_srs "
                "EPSG:4326 -r near IN OUT.tif"
            )
        self.units, self.crs = place.units, _crs_text(place.crs_wkt)
        # The CRS of land use is a text beside the grid.
        self.grid, self._shift = westward(replace(place.grid, crs_wkt=""))
        self.years: tuple[int, ...] | None = source.years() if isinstance(source, FieldSource) else None
        """Of the layers; None where the file has no time."""
        self.check: Callable[[NDArray[np.float32]], None] | None = None
        """Looks at every window of values that is read, and raises what is wrong with them."""

    @property
    def packed(self) -> bool:
        """Whether values are stored numbers times a scale, or with an offset."""
        return bool(getattr(self._source, "packed", False))

    def read(self, window: Window, layer: int = 0) -> NDArray[np.float32]:
        """Read values in their units, (rows, columns), NaN where there is none.

        Columns of a global grid may be negative or go beyond the last one.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        values = read_window(self._source, self._shifted(window), self._reader("read", layer))
        if self.check is not None:
            self.check(values)
        return values

    def codes(self, window: Window, layer: int = 0) -> Codes:
        """Read stored numbers as they are, and which of them are values; windows as those of :meth:`read`.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        window, read = self._shifted(window), self._reader("codes", layer)
        grid = self._source.georeference
        parts = [(place, read(place.part)) for place in pieces(window, grid.rows, grid.columns, grid.periodic)]
        if len(parts) == 1 and parts[0][0].part[2:] == window[2:]:
            return parts[0][1]
        stored = np.zeros((window.rows, window.columns), parts[0][1].stored.dtype if parts else np.uint8)
        valid = np.zeros(stored.shape, bool)
        for (part, down, across), codes in parts:
            inside = (slice(down, down + part.rows), slice(across, across + part.columns))
            stored[inside], valid[inside] = codes.stored, codes.valid
        return Codes(stored, valid)

    def _shifted(self, window: Window) -> Window:
        return window._replace(column=window.column + self._shift)

    def _reader(self, kind: Literal["read", "codes"], layer: int) -> Callable[[Window], Any]:
        source = self._source
        if kind == "codes" and not hasattr(source, "codes"):  # a format of somebody's own

            def exact(window: Window) -> Codes:
                values = source.read(window)
                return Codes(values, np.isfinite(values))

            return exact
        method = getattr(source, kind)
        return functools.partial(method, layer=layer) if isinstance(source, FieldSource) else method

    def take_for_elevations(self) -> list[str]:
        """Read it as elevations in metres from now on: positive up, possible on Earth, fill values looked for.

        Returns
        -------
        list of str
            What was assumed.

        Raises
        ------
        DataError
            If nothing says whether its values are heights or depths.
        """
        self._source = source = elevations(self._source, option=None)
        return source.notes

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def open_lonlat(text: str | Path, prefer: str = "") -> LonLatRaster:
    """Open a raster of longitude and latitude; NetCDF and Zarr may have a layer a year.

    Parameters
    ----------
    text : str or Path
        As in :func:`open_source`.
    prefer : str
        Variable to take where several are there and none is named.

    Raises
    ------
    DataError
        As :func:`open_source`, or if it is on a projection, or its layers have no years.
    """
    source = open_layers(text, prefer)
    try:
        return LonLatRaster(source, split_variable(text)[0])
    except BaseException:
        source.close()
        raise


def _crs_text(wkt: str) -> str:
    """Write a CRS as short as its readers understand it."""
    if not wkt:
        return "EPSG:4326"
    crs = parse_crs(wkt, "raster")
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else " ".join(crs.to_string().split())

"""Rasters as land use reads them: longitude and latitude, columns from -180, a layer a year; and class maps of years.

Which file has which year, and class indices window by window.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.cf import require_yearly, spans
from earthsr.geo.crs import crs_name, parse_crs, same_crs
from earthsr.geo.elevations import elevations
from earthsr.geo.fields import FieldSource
from earthsr.geo.grid import Grid, Window, difference, pieces, westward
from earthsr.geo.raster import Codes, Source, read_window
from earthsr.geo.readers import open_layers, split_variable
from earthsr.landuse.classes import NODATA, ClassTable


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
                f"{self.name}: CRS is {crs_name(place.crs_wkt)}, expected longitude and latitude; rio warp IN OUT.tif "
                "--dst-crs EPSG:4326 --resampling nearest"
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


#: Neighbouring tiles share blocks; those that were read last are kept, as bytes of class indices.
_BLOCK: Final = 512
_CACHE_BYTES: Final = 256 * 2**20

_GIVEN_YEAR = re.compile(r"^(\d{1,4})=(.+)$", re.DOTALL)
#: Index that no class has, in tables of what bytes mean.
_UNKNOWN: Final = 254
_YEAR_IN_NAME = re.compile(r"(?<!\d)(1[5-9]\d\d|2[0-4]\d\d|2500)(?!\d)")


class _Layer(NamedTuple):
    raster: LonLatRaster
    number: int


def year_of_name(path: Path) -> int:
    """Read the year from a file's name; dates of eight digits are passed over.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    years = _YEAR_IN_NAME.findall(path.stem)
    if len(years) != 1:
        what = f"the years {', '.join(years)}" if years else "no year"
        raise InputError(f"{path.name}: the name has {what}, expected one of 1500 to 2500; write YEAR={path.name}")
    return int(years[0])


class ClassMaps:
    """Class rasters, read as class indices.

    Parameters
    ----------
    specs : sequence of str
        ``PATH`` or ``YEAR=PATH``.
    table : ClassTable
        What codes mean.
    pick : bool
        ``YEAR=`` takes one year of a raster of several; without this it is refused there.

    Raises
    ------
    InputError, DataError
        If rasters are of the same year, on other grids, or not of class codes.
    """

    def __init__(self, specs: Sequence[str], table: ClassTable, pick: bool = False) -> None:
        self.table = table
        self._pick = pick
        self._meanings: dict[np.dtype, NDArray[np.uint8]] = {}
        self._rasters: list[LonLatRaster] = []
        self._layers: dict[int, _Layer] = {}
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()
        try:
            for spec in specs:
                self._add(spec)
        except BaseException:
            self.close()
            raise
        if not self._rasters:
            raise InputError("no class raster is given; give one a year with --classes")

    def _add(self, spec: str) -> None:
        match = _GIVEN_YEAR.match(spec)
        given = int(match[1]) if match else None
        raster = open_lonlat(match[2] if match else spec, prefer="LULC_states")
        self._rasters.append(raster)
        first = self._rasters[0]
        differs = difference(raster.grid, first.grid)
        if differs is None and not same_crs(raster.crs, first.crs):
            differs = f"CRS {raster.crs} against {first.crs}"
        if differs is not None:
            raise DataError(
                f"{raster.name} is not on the grid of {first.name}: {differs}; rio warp IN OUT.tif --like {first.name} "
                "--resampling nearest brings it there"
            )
        if raster.packed:
            raise DataError(f"{raster.name}: is packed with a scale, expected codes of classes")
        for year, number in self._years(raster, given).items():
            if year in self._layers:
                raise InputError(f"{raster.name} and {self._layers[year].raster.name} are both of {year}; give one")
            self._layers[year] = _Layer(raster, number)

    def _years(self, raster: LonLatRaster, given: int | None) -> dict[int, int]:
        """Number of the layer of each year."""
        if raster.years is None:
            return {year_of_name(raster.path) if given is None else given: 0}
        if given is not None and len(raster.years) == 1:
            return {given: 0}
        if given is not None and not self._pick:
            raise InputError(f"{raster.name} has the years {spans(raster.years)}; give it without {given}=")
        wanted = [year for year in raster.years if given in (None, year)]
        if not wanted:
            raise InputError(f"{raster.name} has no map of {given}; it has {spans(raster.years)}")
        # Of maps every tenth year one can be taken, of twelve maps a year none.
        if not self._pick or len(set(wanted)) < len(wanted):
            require_yearly(wanted, raster.name)
        return {year: number for number, year in enumerate(raster.years) if year in wanted}

    @property
    def grid(self) -> Grid:
        """Grid of all rasters."""
        return self._rasters[0].grid

    @property
    def crs(self) -> str:
        """CRS of all rasters."""
        return self._rasters[0].crs

    @property
    def years(self) -> tuple[int, ...]:
        """Years that have a map."""
        return tuple(sorted(self._layers))

    def paths(self, years: Sequence[int]) -> list[Path]:
        """Files that the maps of some years come from."""
        return list(dict.fromkeys(self._layers[year].raster.path for year in sorted(years)))

    def read(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a year; 255 = nodata.

        Raises
        ------
        DataError
            If a code is in no class; the message names file, year and cell.
        """
        # Of larger windows the next one shares little, and what is kept would be the whole map.
        if window.rows * window.columns > _BLOCK**2:
            return self.indices(year, window)
        indices = np.empty((window.rows, window.columns), np.uint8)
        bottom, right = window.row + window.rows, window.column + window.columns
        for i in range(window.row // _BLOCK, -(-bottom // _BLOCK)):
            for j in range(window.column // _BLOCK, -(-right // _BLOCK)):
                block = self._block(year, i, j)
                top, left = max(window.row, i * _BLOCK), max(window.column, j * _BLOCK)
                low, far = min(bottom, (i + 1) * _BLOCK), min(right, (j + 1) * _BLOCK)
                indices[top - window.row : low - window.row, left - window.column : far - window.column] = block[
                    top - i * _BLOCK : low - i * _BLOCK, left - j * _BLOCK : far - j * _BLOCK
                ]
        return indices

    def mask(self, year: int) -> NDArray[np.bool_]:
        """Cells (rows, columns) of the whole grid that have a class in a year."""
        inside = np.empty((self.grid.rows, self.grid.columns), bool)
        for window in self.bands():
            inside[window.row : window.row + window.rows] = self.indices(year, window) != NODATA
        return inside

    def bands(self) -> list[Window]:
        """Windows of the grid's whole width that together are the grid."""
        rows, columns = self.grid.rows, self.grid.columns
        return [Window(row, 0, min(_BLOCK, rows - row), columns) for row in range(0, rows, _BLOCK)]

    def _block(self, year: int, i: int, j: int) -> NDArray[np.uint8]:
        key = (year, i, j)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        rows, columns = min(_BLOCK, self.grid.rows - i * _BLOCK), min(_BLOCK, self.grid.columns - j * _BLOCK)
        block = self.indices(year, Window(i * _BLOCK, j * _BLOCK, rows, columns))
        self._cache[key] = block
        while len(self._cache) * _BLOCK**2 > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return block

    def indices(self, year: int, window: Window) -> NDArray[np.uint8]:
        """As :meth:`read`, keeping nothing."""
        raster, layer = self._layers[year]
        stored, valid = raster.codes(window, layer)
        if stored.dtype.kind in "iu" and stored.dtype.itemsize == 1:
            indices = self._meaning(stored.dtype)[stored.view(np.uint8)]
            indices[~valid] = NODATA
            if not (indices == _UNKNOWN).any():
                return indices
        return self.table.index(stored, f"{raster.name} ({year})", valid, (window.row, window.column))

    def _meaning(self, kind: np.dtype) -> NDArray[np.uint8]:
        """Class index of each byte: looking it up takes a tenth of the time of comparing with every code."""
        if kind not in self._meanings:
            meaning = np.full(256, _UNKNOWN, np.uint8)
            for byte in range(256):
                code = np.full((1, 1), byte, np.uint8).view(kind)
                with contextlib.suppress(DataError):
                    meaning[byte] = self.table.index(code, "")[0, 0]
            self._meanings[kind] = meaning
        return self._meanings[kind]

    def close(self) -> None:
        """Close all files."""
        for raster in self._rasters:
            raster.close()


def open_anchor(spec: str, table: ClassTable) -> tuple[ClassMaps, int]:
    """Open the class raster that a rollout begins with.

    Parameters
    ----------
    spec : str
        ``PATH`` or ``YEAR=PATH``; a raster of several years needs the year.
    table : ClassTable
        What codes mean.

    Returns
    -------
    tuple
        Maps of one year, and the year.

    Raises
    ------
    InputError
        If it has several years and none is named, or not the one that is.
    DataError
        If it cannot be read.
    """
    maps = ClassMaps([spec], table, pick=True)
    if len(maps.years) > 1:
        maps.close()
        path = maps.paths(maps.years)[0]
        raise InputError(f"{path.name} has the years {spans(maps.years)}; write YEAR={path.name} to take one as anchor")
    return maps, maps.years[0]

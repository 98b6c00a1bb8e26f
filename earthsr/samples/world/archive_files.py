"""Files of synthetic archives: class rasters, static fields and fractions, in the forms that archives are read in.

Everything is written band by band, so that a source may be larger than memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import geo_module
from earthsr.geo.cf_write import CRS_VARIABLE, conventions, netcdf_attributes, plain_attributes, write_place
from earthsr.geo.crs import gdal, parse_crs, wkt_of
from earthsr.geo.geotiff import is_whole
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import FineSource
from earthsr.landuse.sources.scenario_files import variable_name
from earthsr.store import atomic_file, cannot_write

#: Cells per side of a GeoTIFF's tile and of a chunk, and rows that are made at a time.
_BLOCK: Final = 256
#: Coarse rows that are made at a time and lie in one chunk.
_COARSE_ROWS: Final = 16
#: Value of the sea in LUH2's files.
_FILL: Final = np.float32(1e20)
_FILTER: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_STANDARD_NAMES: Final = {"elevation": "surface_altitude", "latitude": "latitude"}


class Fractions(NamedTuple):
    """Coarse fractions that are made row by row."""

    grid: Grid
    channels: tuple[str, ...]
    read: Callable[[Sequence[int], int, int], NDArray[np.float32]]
    """Fractions (Y, C, rows, columns) of the whole coarse cells, of some years, from a first row, so many rows."""


def write_class_map(path: Path, source: FineSource, year: int) -> None:
    """Write the classes of a year as GeoTIFF: one byte a cell, the table's codes, 255 where there is no class.

    Parameters
    ----------
    path : Path
        File to write.
    source : FineSource
        Whose table has codes of 0 to 254.
    year : int
        One of its years.

    Raises
    ------
    InputError
        If rasterio is not installed, or the disk is full.
    """
    rasterio = geo_module("rasterio")
    grid, table = source.grid, source.table
    codes = np.full(NODATA + 1, NODATA, np.uint8)
    codes[: len(table)] = [land_class.code for land_class in table.classes]
    colours = {land_class.code: (*bytes.fromhex(land_class.colour[1:]), 255) for land_class in table.classes}
    meanings = ", ".join(f"{land_class.code} {land_class.name}" for land_class in table.classes)
    with atomic_file(path) as temporary, gdal():
        with rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            width=grid.columns,
            height=grid.rows,
            count=1,
            dtype="uint8",
            crs=parse_crs(source.crs, path.name),
            transform=rasterio.Affine(*grid.transform),
            nodata=NODATA,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            compress="DEFLATE",
            photometric="palette",
            BIGTIFF="IF_SAFER",
        ) as file:
            # Before the first cell: GDAL puts a table that comes later into a file of its own.
            file.write_colormap(1, {**colours, NODATA: (0, 0, 0, 0)})
            file.update_tags(AREA_OR_POINT="Area", year=year, classes=meanings, **plain_attributes(_said(source)))
            for band in _bands(grid):
                window = ((band.row, band.row + band.rows), (0, grid.columns))
                file.write(codes[source.classes(year, band)], 1, window=window)
        # GDAL keeps silent about what it could not write when it closes a file.
        if not is_whole(temporary):
            raise cannot_write(path, "No space left on device")


def write_static(path: Path, source: FineSource) -> None:
    """Write the static fields as NetCDF: one variable of float32 a field, in its units, on the fine grid.

    Raises
    ------
    InputError
        If h5netcdf or rasterio is not installed, or the disk is full.
    """
    h5netcdf = geo_module("h5netcdf")
    grid = source.grid
    place = replace(grid, crs_wkt=wkt_of(parse_crs(source.crs, path.name)))
    with atomic_file(path) as temporary, h5netcdf.File(temporary, "w") as file:
        write_place(file, place, (grid.latitudes(), grid.longitudes()))
        variables = []
        for channel in source.static_channels:
            variable = file.create_variable(
                variable_name(channel.name),
                ("lat", "lon"),
                np.float32,
                chunks=(min(_BLOCK, grid.rows), min(_BLOCK, grid.columns)),
                fillvalue=np.float32(np.nan),
                **_FILTER,
            )
            named = {"standard_name": _STANDARD_NAMES[channel.name]} if channel.name in _STANDARD_NAMES else {}
            long_name = channel.name.replace("_", " ")
            attributes = {**named, "long_name": long_name, "units": channel.units, "grid_mapping": CRS_VARIABLE}
            variable.attrs.update(netcdf_attributes(attributes))
            variables.append(variable)
        for band in _bands(grid):
            for variable, values in zip(variables, source.static(band), strict=True):
                variable[band.row : band.row + band.rows] = values
        attributes = {
            "Conventions": conventions(np.float32),
            "title": "static fields of a synthetic world",
            **_said(source),
        }
        file.attrs.update(netcdf_attributes(plain_attributes(attributes)))


def write_scenario(path: Path, source: FineSource, fractions: Fractions, years: Sequence[int]) -> None:
    """Write the fractions of some years in the form of LUH2's ``states.nc``.

    Time counts years since the first one; cells in which no class has a share have no value, as LUH2's oceans.

    Parameters
    ----------
    path : Path
        File to write.
    source : FineSource
        What the fractions are of.
    fractions : Fractions
        On the coarse grid.
    years : sequence of int
        One after another.

    Raises
    ------
    InputError
        If h5netcdf is not installed, or the disk is full.
    """
    h5netcdf = geo_module("h5netcdf")
    grid = fractions.grid
    rows = min(_COARSE_ROWS, grid.rows)
    with atomic_file(path) as temporary, h5netcdf.File(temporary, "w") as file:
        file.dimensions = {"time": len(years)}
        time = file.create_variable("time", ("time",), np.float64, data=np.asarray(years, np.float64) - years[0])
        # The words of LUH2: a year is one of 365 days, whatever its length.
        since = f"years since {years[0]}-01-01 0:0:0"
        attributes = {"units": since, "calendar": "365_day", "standard_name": "time", "axis": "T"}
        time.attrs.update(netcdf_attributes(attributes))
        write_place(file, grid, (grid.latitudes(), grid.longitudes()))
        variables = []
        for channel in fractions.channels:
            variable = file.create_variable(
                variable_name(channel),
                ("time", "lat", "lon"),
                np.float32,
                chunks=(1, rows, grid.columns),
                fillvalue=_FILL,
                **_FILTER,
            )
            attributes = {
                "long_name": f"share of the cell that is {channel}",
                "units": "1",
                "cell_methods": "time: mean",
            }
            variable.attrs.update(netcdf_attributes({**attributes, "missing_value": _FILL}))
            variables.append(variable)
        for first in range(0, grid.rows, rows):
            count = min(rows, grid.rows - first)
            values = fractions.read(years, first, count)
            values = np.where(values.sum(axis=1, keepdims=True) > 0, values, _FILL)
            for c, variable in enumerate(variables):
                variable[:, first : first + count] = values[:, c]
        attributes = {
            "Conventions": conventions(np.float32),
            "title": "land-use fractions of a synthetic world",
            **_said(source),
        }
        file.attrs.update(netcdf_attributes(plain_attributes(attributes)))


def _bands(grid: Grid) -> Iterator[Window]:
    """Windows of the whole width."""
    for row in range(0, grid.rows, _BLOCK):
        yield Window(row, 0, min(_BLOCK, grid.rows - row), grid.columns)


def _said(source: FineSource) -> dict[str, Any]:
    """What every file says of where it comes from."""
    return {"source": source.description, "provenance": json.dumps(source.attributes)}

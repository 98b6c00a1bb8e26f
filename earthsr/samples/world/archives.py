"""A synthetic world as archives: what ``earthsr reconstruct`` takes, and a text that says what it is.

The files have the forms of real archives: a class raster a year as of HILDA+, static fields on the same grid, and
fractions in two files that share a year as those of LUH2 do.
"""

from __future__ import annotations

import json
import shlex
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from earthsr.errors import InputError, geo_module
from earthsr.geo.cf_write import CRS_VARIABLE, conventions, netcdf_attributes, plain_attributes, write_place
from earthsr.geo.crs import gdal, parse_crs, wkt_of
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.fields import FineSource
from earthsr.landuse.sources.scenario_files import variable_name
from earthsr.store import atomic_file, cannot_write, make_folder, write_text

_STATIC: Final = "static.nc"
_SCENARIO: Final = ("scenario_historical.nc", "scenario_future.nc")
_TABLE: Final = "classes.yaml"
_README: Final = "README.txt"
#: All that is written into a folder of archives, and the words by which the folder is known.
_OURS: Final = ("landuse_*.tif", _STATIC, *_SCENARIO, _TABLE, _README)
_TITLE: Final = "Archives of a world that is synthetic."
#: Name of the store that the commands write.
OUTPUT: Final = "maps.zarr"

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
            file.update_tags(
                AREA_OR_POINT="Area", year=year, classes=meanings, **plain_attributes(_description(source))
            )
            sums = {}
            for band in _bands(grid):
                window = ((band.row, band.row + band.rows), (0, grid.columns))
                stored = codes[source.classes(year, band)]
                file.write(stored, 1, window=window)
                sums[window] = zlib.crc32(stored.tobytes())
        # GDAL keeps silent about what it could not write when it closes a file.
        try:
            with rasterio.open(temporary) as file:
                reread = {window: zlib.crc32(file.read(1, window=window).tobytes()) for window in sums}
            whole = reread == sums
        except rasterio.errors.RasterioError:
            whole = False
        if not whole:
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
            **_description(source),
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
            **_description(source),
        }
        file.attrs.update(netcdf_attributes(plain_attributes(attributes)))


def _bands(grid: Grid) -> Iterator[Window]:
    """Windows of the whole width."""
    for row in range(0, grid.rows, _BLOCK):
        yield Window(row, 0, min(_BLOCK, grid.rows - row), grid.columns)


def _description(source: FineSource) -> dict[str, Any]:
    """What every file says of where it comes from."""
    return {"source": source.description, "provenance": json.dumps(source.attributes)}


@dataclass(frozen=True)
class Archives:
    """What was written."""

    folder: Path
    anchor_year: int
    """Year from which a reconstruction starts."""
    map_years: tuple[int, ...]
    """Years that have a class raster."""
    years: tuple[int, int]
    """First and last year of the scenario."""
    static: tuple[str, ...]
    """Names of the static fields."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files."""
        return (*(map_name(year) for year in self.map_years), _STATIC, *_SCENARIO, _TABLE, _README)

    def command(self, folder: Path, output: Path) -> list[str]:
        """Words of the command that reconstructs every year from the anchor; its model is for the user to name.

        Parameters
        ----------
        folder : Path
            Where the archives are, as seen from where the command is called.
        output : Path
            Store to write.
        """
        words = ["earthsr", "reconstruct", "CHECKPOINT"]
        words += [word for name in _SCENARIO for word in ("--scenario", str(folder / name))]
        words += [word for name in self.static for word in ("--static", f"{name}={folder / _STATIC}")]
        words += ["--anchor", f"{self.anchor_year}={folder / map_name(self.anchor_year)}"]
        return [*words, "--years", f"{self.years[0]}:{self.years[1]}", "--output", str(output)]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "anchor_year": self.anchor_year,
            "command": shlex.join(self.command(self.folder, self.folder.parent / OUTPUT)),
        }


def map_name(year: int) -> str:
    """Name of the class raster of a year."""
    return f"landuse_{year}.tif"


def check_archives(coarse: Grid) -> None:
    """Check that archives can be written and read again, before a world is made.

    Raises
    ------
    InputError
        If a package is missing, or the coarse grid is too small to be described by its coordinates.
    """
    geo_module("rasterio")
    geo_module("h5netcdf")
    if min(coarse.rows, coarse.columns) < 2:
        raise InputError(
            f"the world has {coarse.rows} x {coarse.columns} coarse cells of {coarse.cell_y:g} degrees, archives "
            "need at least 2 x 2; give more or larger cells (--rows, --columns, --cell)"
        )


def write_archives(
    folder: str | Path, source: FineSource, fractions: Fractions, anchor_year: int, map_years: Sequence[int]
) -> Archives:
    """Write class rasters, static fields, two scenario files, a class table and a text into a folder.

    Parameters
    ----------
    folder : str or Path
        Where; files of the same names are replaced.
    source : FineSource
        A synthetic world.
    fractions : Fractions
        Its coarse fractions, of all its years.
    anchor_year : int
        Where the scenario is cut: both files have this year.
    map_years : sequence of int
        Years whose classes are written; the anchor's always are.

    Raises
    ------
    InputError
        If the folder cannot be written, or the disk is full.
    """
    check_archives(fractions.grid)
    folder = make_folder(Path(folder))
    years = source.years
    maps = tuple(sorted({*map_years, anchor_year}))
    static = tuple(channel.name for channel in source.static_channels)
    written = Archives(folder, anchor_year, maps, (years[0], years[-1]), static)
    for year in maps:
        write_class_map(folder / map_name(year), source, year)
    write_static(folder / _STATIC, source)
    parts = [year for year in years if year <= anchor_year], [year for year in years if year >= anchor_year]
    for name, part in zip(_SCENARIO, parts, strict=True):
        write_scenario(folder / name, source, fractions, part)
    write_text(folder / _TABLE, _table_text(source.table, fractions.channels))
    write_text(folder / _README, _readme(written, source, fractions))
    return written


def archives_in(folder: Path) -> list[Path]:
    """Return what :func:`write_archives` wrote into a folder; nothing of a folder without our text, another's."""
    readme = folder / _README
    if not readme.is_file() or not readme.read_bytes().startswith(_TITLE.encode()):
        return []
    return [path for pattern in _OURS for path in folder.glob(pattern)]


def _table_text(table: ClassTable, channels: Sequence[str]) -> str:
    """Class table whose classes are tied to the variables of the scenario, as YAML."""
    classes = [
        {
            "name": land_class.name,
            "codes": list(land_class.codes),
            "colour": land_class.colour,
            "forcing": [variable_name(land_class.name)] if land_class.name in channels else [],
        }
        for land_class in table.classes
    ]
    values = {"name": table.name, "nodata_codes": list(table.nodata_codes), "classes": classes}
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def _readme(written: Archives, source: FineSource, fractions: Fractions) -> str:
    anchor, (first, last) = written.anchor_year, written.years
    codes = ", ".join(f"{land_class.code} {land_class.name}" for land_class in source.table.classes)
    fields = ", ".join(f"{channel.name} ({channel.units})" for channel in source.static_channels)
    cell = f"{fractions.grid.cell_y:g}"
    renamed = [f"{name} as {variable_name(name)}" for name in fractions.channels if variable_name(name) != name]
    lines = [f"{_TITLE} Nothing in them was observed: {source.description}.", ""]
    for year in written.map_years:
        what = "the anchor: a reconstruction starts from it" if year == anchor else "to compare a reconstruction with"
        lines.append(f"{map_name(year)}: classes of {year}, {what}")
    lines += [
        f"    Codes: {codes}; 255 is the sea.",
        f"{_STATIC}: {fields}, on the same grid",
        f"{_SCENARIO[0]}: shares of classes in cells of {cell} degrees, {first} to {anchor}",
        f"{_SCENARIO[1]}: the same, {anchor} to {last}; both have {anchor}, as LUH2's history and scenarios share 2015",
        "    Aggregated from the synthetic maps of all years; shares are of the whole cell, the sea included.",
        *([f"    Names that a variable cannot have: {', '.join(renamed)}."] if renamed else []),
        f"{_TABLE}: table of classes tied to the variables of the scenario, for earthsr prepare landuse --table",
        "",
        f"Maps of all years, forwards and backwards from that of {anchor}, when called in this folder; CHECKPOINT is",
        "the run folder of a model that was trained on files with the same static fields and fractions:",
        "",
        shell_text(written.command(Path(), Path(OUTPUT))),
        "",
    ]
    return "\n".join(lines)


def shell_text(words: Sequence[str]) -> str:
    """Write a command in lines that a shell takes as one, an option each."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)

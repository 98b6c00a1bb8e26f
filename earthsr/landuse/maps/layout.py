"""What annual maps hold, and their variables with CF attributes: the same in the Zarr store and in NetCDF.

A map is of 1 January of its year, and holds until the next one. Probabilities are a byte each; a map lies in chunks,
whole windows of the grid.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.cf_write import CRS_VARIABLE, axis_attributes, conventions, crs_attributes, plain_attributes
from earthsr.geo.crs import crs_name, parse_crs, wkt_of
from earthsr.geo.grid import Grid, Window
from earthsr.geo.raster import Georeference
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.store.untrusted import parse_json

SCHEMA_VERSION: Final = 1

#: Root attributes that are ours: the description, and whether all maps are there.
DESCRIPTION: Final = "earthsr_maps"
COMPLETE: Final = "earthsr_complete"

LAYERS: Final = ("land_use", "confidence", "probabilities")


@dataclass(frozen=True)
class MapsSpec:
    """Grid, years, classes and layers of annual maps.

    Raises
    ------
    InputError
        If years are not ascending, a layer is not known, or a class's code does not fit into a byte.
    """

    grid: Grid
    """Fine grid, longitude and latitude."""
    crs: str
    """A code such as ``EPSG:4326``, or WKT; geographic."""
    years: tuple[int, ...]
    """Ascending; gaps are allowed."""
    table: ClassTable
    """Maps on disk hold each class's first code."""
    chunk: tuple[int, int]
    """Rows and columns that are written at once, and lie in one file."""
    layers: tuple[str, ...] = ("land_use",)
    """``land_use`` always; by choice ``confidence`` (largest probability) and ``probabilities`` (one a class)."""

    def __post_init__(self) -> None:
        years = self.years
        if not years or any(later <= earlier for earlier, later in itertools.pairwise(years)):
            raise InputError(f"maps: years are {_listed(years)}, expected at least one, ascending")
        if years[0] < 1 or years[-1] > 9998:
            raise InputError(f"maps: years are {years[0]} to {years[-1]}, expected years from 1 to 9998")
        if len(self.chunk) != 2 or min(self.chunk) < 1:
            raise InputError(f"maps: chunk is {self.chunk}, expected rows and columns of 1 and more")
        if self.grid.rows < 1 or self.grid.columns < 1:
            raise InputError(f"maps: grid has {self.grid.rows} x {self.grid.columns} cells, expected 1 and more")
        unknown = [layer for layer in self.layers if layer not in LAYERS]
        if unknown or LAYERS[0] not in self.layers or len(set(self.layers)) != len(self.layers):
            raise InputError(
                f"maps: layers are {_listed(self.layers)}, expected land_use and, by choice, {' and '.join(LAYERS[1:])}"
            )
        for land_class in self.table.classes:
            if not 0 <= land_class.code < NODATA:
                raise InputError(
                    f"class table {self.table.name}: code {land_class.code} of {land_class.name} cannot be written "
                    f"into maps, expected 0 to {NODATA - 1}; give the class a first code in this range"
                )

    def shape(self, layer: str) -> tuple[int, ...]:
        """Shape of a layer: (time, lat, lon), or (time, class, lat, lon) for probabilities."""
        classes = (len(self.table),) if layer == "probabilities" else ()
        return (len(self.years), *classes, self.grid.rows, self.grid.columns)

    def chunk_shape(self, layer: str) -> tuple[int, ...]:
        """Shape of what lies in one file of ``layer``: one year, and all classes."""
        shape = self.shape(layer)
        rows, columns = self.chunk
        return (1, *shape[1:-2], min(rows, shape[-2]), min(columns, shape[-1]))

    def to_json(self) -> str:
        """Return the text of the root attribute ``earthsr_maps``."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "grid": self.grid.lonlat,
                "crs": self.crs,
                "years": [int(year) for year in self.years],
                "classes": json.loads(self.table.to_json()),
                "chunk": [int(side) for side in self.chunk],
                "layers": self.layers,
            }
        )

    @classmethod
    def from_json(cls, text: Any, source: str) -> MapsSpec:
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        text : Any
            The attribute as it was read.
        source : str
            Where, for messages.

        Raises
        ------
        DataError
            If it is damaged, or of a later version.
        """
        try:
            values = parse_json(text)
            version = int(values["schema_version"])
            if version > SCHEMA_VERSION:
                raise DataError(f"{source}: schema version {version}, expected {SCHEMA_VERSION}; update earthsr")
            return cls(
                Grid.from_lonlat(values["grid"]),
                str(values["crs"]),
                tuple(int(year) for year in values["years"]),
                ClassTable.from_mapping(values["classes"], source),
                (int(values["chunk"][0]), int(values["chunk"][1])),
                tuple(str(layer) for layer in values["layers"]),
            )
        except DataError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{source}: attribute {DESCRIPTION} is damaged ({reason}); make the maps anew") from None


def _listed(values: tuple[Any, ...]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-2:]]) or "none"


_EPOCH: Final = date(1850, 1, 1)
_TIME: Final = {
    "standard_name": "time",
    "long_name": "time",
    "units": f"days since {_EPOCH.isoformat()}",
    "calendar": "proleptic_gregorian",
    "axis": "T",
    "bounds": "time_bnds",
}
#: What CF allows in a word of ``flag_meanings``, beside letters and digits.
_NO_WORD: Final = re.compile(r"[^A-Za-z0-9_\-.+@]+")

#: Bytes a unit of probability: 0 to 1 become 0 to 250, and a byte is 0.004.
STEPS: Final = 250
SCALE: Final = 1 / STEPS

#: No table has that many classes: what a code that is in no class becomes.
_UNKNOWN: Final = 254

_PROBABILITIES: Final = np.where(np.arange(256) <= STEPS, np.arange(256) / STEPS, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Coordinate:
    """A variable that is written once, whole."""

    name: str
    dimensions: tuple[str, ...]
    values: NDArray
    """Numbers, or texts (of type object)."""
    attributes: dict[str, Any] = field(default_factory=dict)


def georeference(spec: MapsSpec) -> Georeference:
    """Grid of the maps, as rasters have it.

    Raises
    ------
    InputError
        If the CRS is not understood, or is not one of longitude and latitude.
    """
    crs = parse_crs(spec.crs, "maps")
    wkt = wkt_of(crs)
    if not crs.is_geographic:
        raise InputError(f"maps: CRS is {crs_name(wkt)}, expected one of longitude and latitude, such as EPSG:4326")
    return Georeference.of(replace(spec.grid, crs_wkt=wkt), units="1", nodata=float(NODATA))


def coordinates(spec: MapsSpec) -> list[Coordinate]:
    """All variables that are no layer: time with its bounds, year, lat, lon, crs, and classes for probabilities."""
    place = georeference(spec)
    y, x = axis_attributes(place)
    starts = [_day(year) for year in spec.years]
    bounds = [(start, _day(year + 1)) for start, year in zip(starts, spec.years, strict=True)]
    years = {"long_name": "calendar year", "units": "1"}
    variables = [
        Coordinate("time", ("time",), np.array(starts, np.int32), dict(_TIME)),
        Coordinate("time_bnds", ("time", "bnds"), np.array(bounds, np.int32)),
        Coordinate("year", ("time",), np.array(spec.years, np.int32), years),
        Coordinate("lat", ("lat",), spec.grid.latitudes(), dict(y)),
        Coordinate("lon", ("lon",), spec.grid.longitudes(), dict(x)),
        Coordinate(CRS_VARIABLE, (), np.array(0, np.int32), crs_attributes(place)),
    ]
    if "probabilities" in spec.layers:
        names = {"long_name": "name of land-use class"}
        variables += [
            Coordinate("class", ("class",), codes(spec), {"long_name": "code of land-use class", **flags(spec)}),
            Coordinate("class_name", ("class",), np.array(spec.table.names, object), names),
        ]
    return variables


def layer_dimensions(layer: str) -> tuple[str, ...]:
    """Names of the dimensions of a layer."""
    return ("time", "class", "lat", "lon") if layer == "probabilities" else ("time", "lat", "lon")


def layer_attributes(spec: MapsSpec, layer: str) -> dict[str, Any]:
    """Attributes of a layer but for ``_FillValue``, for which every format has its own place."""
    common = {"units": "1", "grid_mapping": CRS_VARIABLE, "coordinates": "year"}
    if layer == "land_use":
        return {"long_name": "land-use class", **common, **flags(spec)}
    packed = {"scale_factor": SCALE, "valid_range": np.array([0, STEPS], np.uint8)}
    if layer == "confidence":
        return {"long_name": "largest probability of a land-use class", **common, **packed}
    common["coordinates"] = "year class_name"
    return {"long_name": "probability of land-use class", **common, **packed}


def codes(spec: MapsSpec) -> NDArray[np.uint8]:
    """Codes of the classes in the order of their indices, (K,)."""
    return np.array([land_class.code for land_class in spec.table.classes], np.uint8)


def flags(spec: MapsSpec) -> dict[str, Any]:
    """Attributes that say what the codes mean and how they are drawn."""
    return {
        "flag_values": codes(spec),
        "flag_meanings": " ".join(_NO_WORD.sub("_", name) for name in spec.table.names),
        "flag_colors": " ".join(spec.table.colours),
    }


def root_attributes(spec: MapsSpec, attributes: Mapping[str, Any], complete: bool) -> dict[str, Any]:
    """Attributes of the whole, plain JSON; what the caller says, and ours, which win.

    None is a boolean: NetCDF has none, and a copy of the store by xarray would stop there.
    """
    given = plain_attributes({key: _finite(value) for key, value in attributes.items()})
    ours = {"Conventions": conventions(np.uint8), DESCRIPTION: spec.to_json(), COMPLETE: int(complete)}
    return {"title": "Annual land-use maps", **given, **ours}


def _finite(value: Any) -> Any:
    """Put None in the place of NaN and infinity, for which JSON has no word, at any depth."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _day(year: int) -> int:
    return (date(int(year), 1, 1) - _EPOCH).days


def to_codes(classes: NDArray, table: ClassTable) -> NDArray[np.uint8]:
    """Turn class indices into each class's first code; 255 stays.

    Raises
    ------
    ValueError
        If the array is not of uint8, or an index is beyond the table.
    """
    if classes.dtype != np.uint8:
        raise ValueError(f"classes are of type {classes.dtype}, expected uint8")
    beyond = (classes >= len(table)) & (classes != NODATA)
    if beyond.any():
        raise ValueError(
            f"classes have the index {classes[beyond][0]}, expected 0 to {len(table) - 1}, or {NODATA} for no class"
        )
    codes = np.full(256, NODATA, np.uint8)
    codes[: len(table)] = [land_class.code for land_class in table.classes]
    return codes[classes]


def to_classes(codes: NDArray[np.uint8], table: ClassTable, source: str) -> NDArray[np.uint8]:
    """Turn codes into class indices; 255 stays.

    Raises
    ------
    DataError
        If a code is none of the table's first codes.
    """
    indices = np.full(256, _UNKNOWN, np.uint8)
    indices[NODATA] = NODATA
    for index, land_class in enumerate(table.classes):
        indices[land_class.code] = index
    classes = indices[codes]
    unknown = classes == _UNKNOWN
    if unknown.any():
        raise DataError(
            f"{source}: code {codes[unknown][0]} is in no class of table {table.name}; the maps were changed by "
            "something else: make them anew"
        )
    return classes


def to_bytes(probabilities: NDArray) -> NDArray[np.uint8]:
    """Turn probabilities, 0 to 1, into bytes of 0.004; NaN becomes 255.

    Raises
    ------
    ValueError
        If the array is not of floats, or a probability is outside 0 to 1 by more than half a byte.
    """
    if probabilities.dtype.kind != "f":
        raise ValueError(f"probabilities are of type {probabilities.dtype}, expected float32")
    # One map at a time: float32 for all classes at once would be the largest array of a run.
    maps = probabilities.reshape((-1, *probabilities.shape[-2:]))
    packed = np.empty(maps.shape, np.uint8)
    for values, stored in zip(maps, packed, strict=True):
        steps = np.rint(values * np.float32(STEPS))
        void = np.isnan(steps)
        bad = ~(void | ((steps >= 0) & (steps <= STEPS)))
        if bad.any():
            raise ValueError(f"a probability is {values[bad][0]:g}, expected 0 to 1, or NaN where there is none")
        steps[void] = NODATA
        stored[...] = steps
    return packed.reshape(probabilities.shape)


def to_probabilities(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn bytes into probabilities; 255 becomes NaN."""
    return _PROBABILITIES[stored]


def chunk_window(row: int, column: int, grid: Grid, chunk: tuple[int, int]) -> Window:
    """Cells of a chunk, given by its place among the chunks; the last ones are smaller."""
    top, left = row * chunk[0], column * chunk[1]
    return Window(top, left, min(chunk[0], grid.rows - top), min(chunk[1], grid.columns - left))


def chunks_of(window: Window, chunk: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Places of the chunks that a window inside the grid touches, row by row."""
    for row in range(window.row // chunk[0], -(-(window.row + window.rows) // chunk[0])):
        for column in range(window.column // chunk[1], -(-(window.column + window.columns) // chunk[1])):
            yield row, column


def all_chunks(grid: Grid, chunk: tuple[int, int]) -> Iterator[Window]:
    """Cells of each chunk of a grid, row by row."""
    for row, column in chunks_of(Window(0, 0, grid.rows, grid.columns), chunk):
        yield chunk_window(row, column, grid, chunk)

"""What a map is made from and where it goes, in memory: with the faces of the stores that a reconstruction has.

A state becomes a Dataset here, for the program that asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.errors import geo_module
from earthsr.geo.areas import cells_of, fill
from earthsr.geo.cf_write import CRS_VARIABLE, axis_attributes, conventions, crs_attributes
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.emulator.forcing import MemoryScenario
from earthsr.landuse.emulator.maps import CRS
from earthsr.landuse.maps import MapsSpec
from earthsr.landuse.maps.layout import codes, flags, georeference, to_codes
from earthsr.landuse.reconstruct.chunk import FREE, VOID

_MAY: Final = {
    "long_name": "whether the class of a cell may change",
    "units": "1",
    "flag_values": np.array([0, 1], np.uint8),
    "flag_meanings": "keeps_its_class_or_has_none may_change",
    "grid_mapping": CRS_VARIABLE,
}


@dataclass(frozen=True, eq=False)
class MapState:
    """A year's map, and which of its cells may change."""

    year: int
    classes: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    free: NDArray[np.bool_]
    """(rows, columns): mapped anew each year; others keep their class, or have none."""

    @property
    def marks(self) -> NDArray[np.float32]:
        """Marks of the cells, as :mod:`earthsr.landuse.reconstruct.chunk` has them."""
        kept = np.where(self.classes == NODATA, VOID, self.classes).astype(np.float32)
        return np.where(self.free, np.float32(FREE), kept)


@dataclass(frozen=True, eq=False)
class MemoryWorld:
    """Grid, classes and forcing."""

    grid: Grid
    table: ClassTable
    scenario: MemoryScenario


class MemoryFields:
    """Static fields, normalised, and the marks of a step as the last channel.

    Parameters
    ----------
    grid : Grid
        Of the maps.
    static : ndarray of shape (C, rows, columns)
        Normalised.
    """

    def __init__(self, grid: Grid, static: NDArray[np.float32]) -> None:
        self._grid = grid
        self._values = np.concatenate([static, np.zeros((1, grid.rows, grid.columns), np.float32)])

    def mark(self, marks: NDArray[np.float32]) -> None:
        """Take the marks (rows, columns) of a step."""
        self._values[-1] = marks

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window, (C + 1, rows, columns); NaN beyond the grid."""
        row, column, rows, columns = window
        if row >= 0 and column >= 0 and row + rows <= self._grid.rows and column + columns <= self._grid.columns:
            return self._values[:, row : row + rows, column : column + columns]
        values = np.full((len(self._values), rows, columns), np.nan, np.float32)
        return fill(values, self._grid, window, lambda w: _part(self._values, w))


class MemoryMaps:
    """Maps of the years of a step.

    Parameters
    ----------
    grid : Grid
        Of the maps.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.arrays: dict[tuple[str, int], NDArray[Any]] = {}
        """By layer and year, (rows, columns)."""

    def read(self, layer: str, year: int, window: Window) -> NDArray[Any]:
        """Read a window of a map; 255 beyond the grid."""
        values = np.full((window.rows, window.columns), NODATA, np.uint8)
        return fill(values, self._grid, window, lambda w: _part(self.arrays[layer, year], w))

    def write(self, layer: str, year: int, window: Window, values: NDArray) -> None:
        """Write a chunk."""
        key = (layer, year)
        if key not in self.arrays:
            self.arrays[key] = np.empty((self._grid.rows, self._grid.columns), values.dtype)
        _part(self.arrays[key], window)[...] = values


def _part(values: NDArray[Any], window: Window) -> NDArray[Any]:
    row, column, rows, columns = window
    return values[..., row : row + rows, column : column + columns]


def areas_km2(classes: NDArray[np.uint8], k: int, fine: Grid, coarse: Grid) -> NDArray[np.float64]:
    """Area of each class in each coarse cell, (K, h, w), km2; a fine cell counts where its centre lies.

    Cells are counted by row, as whole numbers, and rows weighed after that, so that the sums do not depend on order.
    """
    rows, columns = cells_of(coarse, fine, Window(0, 0, fine.rows, fine.columns))
    area = row_areas(fine)
    areas = np.zeros((k, coarse.rows, coarse.columns))
    for i in np.unique(rows[rows >= 0]):
        lines = np.flatnonzero(rows == i)
        key = (np.arange(len(lines))[:, None] * coarse.columns + columns) * (k + 1) + np.minimum(classes[lines], k)
        count = np.bincount(key.ravel(), minlength=len(lines) * coarse.columns * (k + 1))
        count = count.reshape(len(lines), coarse.columns, k + 1)[..., :k]
        areas[:, i] = np.einsum("n,nwk->kw", area[lines], count)
    return areas


def dataset_of(
    state: MapState,
    table: ClassTable,
    fine: Grid,
    coarse: Grid,
    confidence: NDArray[np.float32] | None,
    attributes: Mapping[str, Any],
    counted: NDArray[np.uint8] | None = None,
) -> Any:
    """Make the Dataset of a year.

    Parameters
    ----------
    state : MapState
        Classes and which may change.
    table : ClassTable
        What they mean.
    fine, coarse : Grid
        Of the maps and of the areas.
    confidence : ndarray of shape (rows, columns), optional
        Largest probability, NaN where nothing was predicted.
    attributes : mapping
        Of the Dataset, beside title and conventions.
    counted : ndarray of shape (rows, columns), optional
        Classes whose areas are told; those of the state where absent.
    """
    xarray = geo_module("xarray")
    spec = MapsSpec(fine, CRS, (state.year,), table, (fine.rows, fine.columns), ("land_use",))
    place = georeference(spec)
    y, x = axis_attributes(place)
    fine_axes, coarse_axes = ("lat", "lon"), ("coarse_lat", "coarse_lon")
    class_attributes = flags(spec)
    variables: dict[str, Any] = {
        "land_use": (
            fine_axes,
            to_codes(state.classes, table),
            {"long_name": "land-use class", "units": "1", "grid_mapping": CRS_VARIABLE, **class_attributes},
            {"_FillValue": NODATA},
        ),
        "may_change": (fine_axes, state.free.astype(np.uint8), _MAY),
        "area": (
            ("class", *coarse_axes),
            areas_km2(state.classes if counted is None else counted, len(table), fine, coarse),
            {
                "long_name": "area of land-use class in coarse cell",
                "units": "km2",
                "cell_methods": "class: coarse_lat: coarse_lon: sum",
            },
        ),
    }
    if confidence is not None:
        attributes_of_confidence = {
            "long_name": "largest probability of a land-use class",
            "units": "1",
            "grid_mapping": CRS_VARIABLE,
        }
        variables["confidence"] = (fine_axes, confidence, attributes_of_confidence)
    coordinates = {
        "lat": ("lat", fine.latitudes(), y),
        "lon": ("lon", fine.longitudes(), x),
        "coarse_lat": ("coarse_lat", coarse.latitudes(), {**y, "long_name": "latitude of coarse cell"}),
        "coarse_lon": ("coarse_lon", coarse.longitudes(), {**x, "long_name": "longitude of coarse cell"}),
        "class": ("class", codes(spec), {"long_name": "code of land-use class", **class_attributes}),
        "class_name": ("class", np.array(table.names), {"long_name": "name of land-use class"}),
        "year": ((), np.int32(state.year), {"long_name": "calendar year", "units": "1"}),
        CRS_VARIABLE: ((), np.int32(0), crs_attributes(place)),
    }
    title = {"title": f"Land use in {state.year}", "Conventions": conventions(np.uint8)}
    source = f"earthsr {earthsr.__version__}, U-Net"
    return xarray.Dataset(variables, coordinates, {**title, "source": source, **attributes})

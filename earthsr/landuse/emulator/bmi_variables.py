"""Grids and variables of the Basic Model Interface: their names, units and arrays.

Rows go from south to north here, for that is how the interface counts on a uniform rectilinear grid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import cell_areas
from earthsr.landuse.classes import NODATA
from earthsr.landuse.emulator.emulator import Emulator

#: Numbers of the two grids.
FINE: Final = 0
COARSE: Final = 1

CLASS: Final = "land_surface__land_use_class_code"
CONFIDENCE: Final = "land_surface__land_use_class_probability"
CELL_AREA: Final = "land_surface_grid_cell__area"


class NotDefinedError(InputError, NotImplementedError):
    """Something that the interface does not define for grids of this type."""


@dataclass(frozen=True)
class Variable:
    """One variable."""

    name: str
    units: str
    """As UDUNITS writes them."""
    grid: int
    values: NDArray[Any]
    """(rows, columns), south to north; the same array from the beginning to the end."""
    is_input: bool = False

    @property
    def reference(self) -> NDArray[Any]:
        """The values, flat and without a copy; those of an output cannot be written to."""
        flat = self.values.reshape(-1)
        flat.flags.writeable = self.is_input
        return flat


@dataclass(frozen=True)
class UniformGrid:
    """A grid as the interface has it: cells stand for nodes at their centres."""

    grid: Grid

    @property
    def shape(self) -> NDArray[np.int64]:
        """Rows and columns."""
        return np.array([self.grid.rows, self.grid.columns])

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Degrees between rows and between columns."""
        return np.array([self.grid.cell_y, self.grid.cell_x])

    @property
    def origin(self) -> NDArray[np.float64]:
        """Latitude and longitude of the south-western node, degrees."""
        return np.array([self.y[0], self.x[0]])

    @property
    def x(self) -> NDArray[np.float64]:
        """Longitudes of the columns, west to east, degrees."""
        return self.grid.longitudes()

    @property
    def y(self) -> NDArray[np.float64]:
        """Latitudes of the rows, south to north, degrees."""
        return self.grid.latitudes()[::-1].copy()


def fraction_name(channel: str) -> str:
    """Name of the variable that takes a channel's fractions: ``land_surface_grass-shrub__area_fraction``."""
    return f"land_surface_{_word(channel)}__area_fraction"


def area_name(class_name: str) -> str:
    """Name of the variable that gives a class's areas: ``land_surface_cropland__area``."""
    return f"land_surface_{_word(class_name)}__area"


def _word(text: str) -> str:
    """A word as CSDMS's names have them: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def variables_of(emulator: Emulator) -> dict[str, Variable]:
    """Make the variables of an emulator, inputs first, in the order of its channels and classes.

    Raises
    ------
    InputError
        If two channels or classes have one name.
    """
    fine, coarse = emulator.grid, emulator.forcing_grid
    shapes = (fine.rows, fine.columns), (coarse.rows, coarse.columns)
    _require_apart(emulator.channels)
    _require_apart(emulator.table.names)
    variables = [
        Variable(fraction_name(channel), "1", COARSE, np.full(shapes[1], np.nan), True) for channel in emulator.channels
    ]
    variables.append(Variable(CLASS, "1", FINE, np.full(shapes[0], NODATA, np.uint8)))
    variables.append(Variable(CONFIDENCE, "1", FINE, np.full(shapes[0], np.nan, np.float32)))
    variables.append(Variable(CELL_AREA, "km2", FINE, cell_areas(fine)[::-1].copy()))
    variables += [Variable(area_name(name), "km2", COARSE, np.zeros(shapes[1])) for name in emulator.table.names]
    return {variable.name: variable for variable in variables}


def _require_apart(names: Sequence[str]) -> None:
    words: dict[str, str] = {}
    for name in names:
        if _word(name) in words:
            raise InputError(f"{name} and {words[_word(name)]} have one name in the Basic Model Interface; rename one")
        words[_word(name)] = name

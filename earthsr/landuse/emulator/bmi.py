"""The emulator behind the Basic Model Interface, version 2 (Hutton et al., 2020), which couplers of the field drive.

A coupler sets the fractions of the year that comes, calls ``update``, and reads classes and areas. Time counts calendar
years; a step is one year, forwards or, where the end lies before the anchor, backwards. What is opened a configuration
file says, YAML that is checked before anything is opened.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError, geo_module, install_hint
from earthsr.geo.grid import Grid
from earthsr.landuse.emulator.bmi_description import (
    CLASS,
    COARSE,
    CONFIDENCE,
    FINE,
    BmiConfig,
    NotDefinedError,
    UniformGrid,
    Variable,
    area_name,
    fraction_name,
    variables_of,
)
from earthsr.landuse.emulator.emulator import Emulator
from earthsr.landuse.emulator.forcing import require_year
from earthsr.landuse.fields import FRACTION_SLACK

_TYPE: Final = "uniform_rectilinear"


def _bmipy() -> Any:
    try:
        return importlib.import_module("bmipy")
    except ImportError:
        raise InputError(f"the Basic Model Interface needs the package bmipy: {install_hint('bmi')}") from None


class EarthsrBmi(_bmipy().Bmi):  # type: ignore[misc]
    """Land use of a region, year by year.

    Notes
    -----
    Names are of the form of CSDMS's Standard Names, object and quantity; CF has no name for a class of land use, and
    one, ``area_fraction``, for all its fractions. Grid 0 is that of the maps, grid 1 the coarse one: cells of the
    forcing that the region touches and one around them.

    Inputs keep their values until they are set again. Errors are :class:`earthsr.errors.EarthsrError`; after one, time
    and all variables are as they were.
    """

    def __init__(self) -> None:
        self._running: Emulator | None = None
        self._variables: dict[str, Variable] = {}
        self._start = self._end = self._now = 0

    # Begin, step, end.

    def initialize(self, config_file: str) -> None:
        """Open checkpoint, static fields and anchor, as a YAML file says; see :class:`BmiConfig`."""
        if self._running is not None:
            raise InputError("initialize: is initialised already; call finalize first")
        self._open(BmiConfig.read(config_file))

    def _open(self, config: BmiConfig) -> None:
        end = require_year(config.end_year)
        emulator = Emulator.load(config.checkpoint, **config.options)
        state = emulator.start(config.anchor, config.start_year)
        variables = variables_of(emulator)
        start = int(emulator.year or 0)
        self._running, self._variables = emulator, variables
        self._start, self._now, self._end = start, start, end
        self._take(state)

    def update(self) -> None:
        """Make the map of the next year from the fractions that are set."""
        self._emulator("update")
        if self._now == self._end:
            raise InputError(f"update: the run ends with {self._end}; a later end_year in the configuration goes on")
        self._advance(1)

    def update_until(self, time: float) -> None:
        """Step to a year; fractions that are set hold for all years on the way."""
        self._emulator("update_until")
        ahead = (time - self._now) * self._direction
        if not np.isfinite(time) or time != int(time) or ahead < 0 or (self._end - time) * self._direction < 0:
            raise InputError(
                f"update_until({time!r}): expected a whole year from {self._now} (now) to {self._end} (the end)"
            )
        if ahead:
            self._advance(int(ahead))

    def finalize(self) -> None:
        """Let go of everything; references to variables are not updated any more."""
        self._running, self._variables = None, {}

    # What the model is.

    def get_component_name(self) -> str:
        """Name of the model."""
        return "earthsr land-use emulator"

    def get_input_item_count(self) -> int:
        """Number of inputs."""
        return len(self.get_input_var_names())

    def get_output_item_count(self) -> int:
        """Number of outputs."""
        return len(self.get_output_var_names())

    def get_input_var_names(self) -> tuple[str, ...]:
        """Fractions, one a channel of the model."""
        self._emulator("get_input_var_names")
        return tuple(name for name, variable in self._variables.items() if variable.is_input)

    def get_output_var_names(self) -> tuple[str, ...]:
        """Classes, their probability, areas of fine cells, and areas of classes in coarse cells."""
        self._emulator("get_output_var_names")
        return tuple(name for name, variable in self._variables.items() if not variable.is_input)

    # Variables.

    def get_var_grid(self, name: str) -> int:
        """Number of a variable's grid: 0 fine, 1 coarse."""
        return self._variable(name).grid

    def get_var_type(self, name: str) -> str:
        """Type of a variable's items, as NumPy names it."""
        return str(self._variable(name).values.dtype)

    def get_var_units(self, name: str) -> str:
        """Units, as UDUNITS writes them."""
        return self._variable(name).units

    def get_var_itemsize(self, name: str) -> int:
        """Bytes of an item."""
        return int(self._variable(name).values.itemsize)

    def get_var_nbytes(self, name: str) -> int:
        """Bytes of a variable."""
        return int(self._variable(name).values.nbytes)

    def get_var_location(self, name: str) -> str:
        """Where values lie: at nodes, which are the centres of cells."""
        self._variable(name)
        return "node"

    def get_value(self, name: str, dest: NDArray[Any]) -> NDArray[Any]:
        """Copy a variable into a flat array; rows from south to north."""
        values = self._variable(name).values
        return _fill(dest, values, f"get_value({name})")

    def get_value_ptr(self, name: str) -> NDArray[Any]:
        """Give a flat reference to a variable, valid until ``finalize``; that of an output cannot be written to."""
        return self._variable(name).reference

    def get_value_at_indices(self, name: str, dest: NDArray[Any], inds: NDArray[np.int_]) -> NDArray[Any]:
        """Copy some items, by their place in the flat array."""
        values = self._variable(name).values.reshape(-1)
        return _fill(dest, values[_places(inds, values.size, name)], f"get_value_at_indices({name})")

    def set_value(self, name: str, src: NDArray[Any]) -> None:
        """Set an input, NaN where there is no land; it is checked as a whole by ``update``."""
        target = self._input(name)
        numbers = _codes if target.is_exchanged else _numbers
        target.values[...] = numbers(src, target.values.size, f"set_value({name})").reshape(target.values.shape)

    def set_value_at_indices(self, name: str, inds: NDArray[np.int_], src: NDArray[Any]) -> None:
        """Set some items of an input, by their place in the flat array."""
        target = self._input(name)
        places = _places(inds, target.values.size, name)
        numbers = _codes if target.is_exchanged else _numbers
        target.values.reshape(-1)[places] = numbers(src, places.size, f"set_value_at_indices({name})")

    # Time.

    def get_start_time(self) -> float:
        """Year of the anchor."""
        self._emulator("get_start_time")
        return float(self._start)

    def get_current_time(self) -> float:
        """Year of the map."""
        self._emulator("get_current_time")
        return float(self._now)

    def get_end_time(self) -> float:
        """Last year."""
        self._emulator("get_end_time")
        return float(self._end)

    def get_time_step(self) -> float:
        """One year; -1 where the run goes backwards."""
        self._emulator("get_time_step")
        return float(self._direction)

    def get_time_units(self) -> str:
        """Give the units of time: times are calendar years."""
        return "year"

    # Grids.

    def get_grid_rank(self, grid: int) -> int:
        """Number of dimensions."""
        self._grid(grid)
        return 2

    def get_grid_size(self, grid: int) -> int:
        """Number of cells."""
        return int(self._grid(grid).shape.prod())

    def get_grid_type(self, grid: int) -> str:
        """Kind of grid: both are regular in latitude and longitude."""
        self._grid(grid)
        return _TYPE

    def get_grid_shape(self, grid: int, shape: NDArray[np.int_]) -> NDArray[np.int_]:
        """Rows and columns."""
        return _fill(shape, self._grid(grid).shape, "get_grid_shape")

    def get_grid_spacing(self, grid: int, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height and width of a cell, degrees."""
        return _fill(spacing, self._grid(grid).spacing, "get_grid_spacing")

    def get_grid_origin(self, grid: int, origin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latitude and longitude of the centre of the south-western cell, degrees."""
        return _fill(origin, self._grid(grid).origin, "get_grid_origin")

    def get_grid_x(self, grid: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Longitudes of the columns, degrees; across the dateline they count on."""
        return _fill(x, self._grid(grid).x, "get_grid_x")

    def get_grid_y(self, grid: int, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latitudes of the rows, south to north, degrees."""
        return _fill(y, self._grid(grid).y, "get_grid_y")

    def get_grid_z(self, grid: int, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raise: there is no third dimension."""
        raise self._undefined(grid, "get_grid_z", "has no third dimension")

    def get_grid_node_count(self, grid: int) -> int:
        """Number of nodes: cells, of which they are the centres."""
        return self.get_grid_size(grid)

    def get_grid_edge_count(self, grid: int) -> int:
        """Raise: only unstructured grids have edges."""
        raise self._undefined(grid, "get_grid_edge_count")

    def get_grid_face_count(self, grid: int) -> int:
        """Raise: only unstructured grids have faces."""
        raise self._undefined(grid, "get_grid_face_count")

    def get_grid_edge_nodes(self, grid: int, edge_nodes: NDArray[np.int_]) -> NDArray[np.int_]:
        """Raise: only unstructured grids have edges."""
        raise self._undefined(grid, "get_grid_edge_nodes")

    def get_grid_face_edges(self, grid: int, face_edges: NDArray[np.int_]) -> NDArray[np.int_]:
        """Raise: only unstructured grids have faces."""
        raise self._undefined(grid, "get_grid_face_edges")

    def get_grid_face_nodes(self, grid: int, face_nodes: NDArray[np.int_]) -> NDArray[np.int_]:
        """Raise: only unstructured grids have faces."""
        raise self._undefined(grid, "get_grid_face_nodes")

    def get_grid_nodes_per_face(self, grid: int, nodes_per_face: NDArray[np.int_]) -> NDArray[np.int_]:
        """Raise: only unstructured grids have faces."""
        raise self._undefined(grid, "get_grid_nodes_per_face")

    # Inside.

    @property
    def _direction(self) -> int:
        return 1 if self._end >= self._start else -1

    def _emulator(self, method: str) -> Emulator:
        if self._running is None:
            raise InputError(f"{method}: is not initialised; call initialize(CONFIG.yaml) first")
        return self._running

    def _variable(self, name: str) -> Variable:
        self._emulator(name)
        if name not in self._variables:
            raise InputError(f"no variable {name!r}; there are {', '.join(self._variables)}")
        return self._variables[name]

    def _input(self, name: str) -> Variable:
        variable = self._variable(name)
        if not (variable.is_input or variable.is_exchanged):
            raise InputError(f"{name} is an output; inputs are {', '.join(self.get_input_var_names())}")
        return variable

    def _grid(self, number: int) -> UniformGrid:
        emulator = self._emulator(f"grid {number}")
        grids: dict[int, Grid] = {FINE: emulator.grid, COARSE: emulator.forcing_grid}
        if number not in grids:
            raise InputError(f"no grid {number}; {FINE} is that of the maps, {COARSE} the coarse one")
        return UniformGrid(grids[number])

    def _undefined(self, grid: int, method: str, why: str = "has none; get_grid_shape describes it") -> NotDefinedError:
        self._grid(grid)
        return NotDefinedError(f"{method}: grid {grid} is {_TYPE} and {why}")

    def _advance(self, count: int) -> None:
        """Step some years, all of them or none."""
        emulator = self._emulator("update")
        years = [self._now + self._direction * (step + 1) for step in range(count)]
        unset = [
            name for name, variable in self._variables.items() if variable.is_input and np.isnan(variable.values).all()
        ]
        if unset:
            raise InputError(f"update to {years[0]}: {', '.join(unset)} was not set; call set_value first")
        if emulator.share is not None:
            emulator.exchange(self._variables[CLASS].values[::-1])
        self._take(emulator.step(self._forcing(emulator).expand_dims(year=years), years[-1]))
        self._now = years[-1]

    def _forcing(self, emulator: Emulator) -> Any:
        grid = UniformGrid(emulator.forcing_grid)
        values = np.stack([self._variables[fraction_name(channel)].values for channel in emulator.channels])
        coordinates = {"channel": list(emulator.channels), "lat": grid.y, "lon": grid.x}
        return geo_module("xarray").DataArray(values, coordinates, ("channel", "lat", "lon"), attrs={"units": "1"})

    def _take(self, state: Any) -> None:
        """Bring a state into the variables' own arrays, which references point to."""
        self._variables[CLASS].values[...] = state["land_use"].values[::-1]
        if "confidence" in state:
            self._variables[CONFIDENCE].values[...] = state["confidence"].values[::-1]
        for name, areas in zip(state["class_name"].values, state["area"].values, strict=True):
            self._variables[area_name(str(name))].values[...] = areas[::-1]


def _fill(target: NDArray[Any], values: NDArray[Any], what: str) -> NDArray[Any]:
    """Copy values into an array of the caller's."""
    if not isinstance(target, np.ndarray) or target.size != values.size:
        given = f"{target.size} items" if isinstance(target, np.ndarray) else type(target).__name__
        raise InputError(f"{what}: the array to be filled has {given}, expected a NumPy array of {values.size}")
    if not np.can_cast(values.dtype, target.dtype, "same_kind"):
        raise InputError(f"{what}: the array to be filled is of {target.dtype}, expected {values.dtype}")
    target[...] = values.reshape(target.shape)
    return target


def _places(indices: Any, size: int, name: str) -> NDArray[np.int64]:
    places = np.asarray(indices).reshape(-1)
    if places.dtype.kind not in "iu" or (places.size and (places.min() < 0 or places.max() >= size)):
        range_text = (
            f"{places.min()} to {places.max()}" if places.size and places.dtype.kind in "iu" else str(places.dtype)
        )
        raise InputError(f"{name}: indices are {range_text}, expected whole numbers from 0 to {size - 1}")
    return places.astype(np.int64)


def _codes(values: Any, size: int, what: str) -> NDArray[np.uint8]:
    """Codes of classes, flat, of which there have to be so many."""
    codes = np.asarray(values)
    if codes.dtype.kind not in "iu" or codes.size != size or (size and not 0 <= codes.min() <= codes.max() <= 255):
        raise InputError(f"{what}: {codes.size} items of {codes.dtype}, expected {size} codes of 0 to 255")
    return codes.astype(np.uint8).reshape(-1)


def _numbers(values: Any, size: int, what: str) -> NDArray[np.float64]:
    """Fractions, flat, of which there have to be so many."""
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iuf" or numbers.size != size:
        raise InputError(f"{what}: {numbers.size} items of {numbers.dtype}, expected {size} numbers")
    numbers = numbers.astype(np.float64).reshape(-1)
    if ((numbers < -FRACTION_SLACK) | (numbers > 1 + FRACTION_SLACK)).any():
        bad = numbers[(numbers < -FRACTION_SLACK) | (numbers > 1 + FRACTION_SLACK)][0]
        raise InputError(f"{what}: {bad:g} is no fraction of 0 to 1 (units 1); is it in percent, or a fill value?")
    return numbers

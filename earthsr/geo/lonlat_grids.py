"""Grids of archives: axes read from files, what differs between two grids, and the part of one that another needs.

Longitudes of two archives may count from -180 or from 0: places are found whatever they count from.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.areas import Grid
from earthsr.geo.window import Window

#: Share of a cell by which grids that are meant to be the same may differ: coordinates kept as float32, and printed
#: cell sizes such as 0.0099999, are off by less.
_SAME = 0.02


class Axis(NamedTuple):
    """A regular axis: centre of the first cell, signed distance to the next one (degrees), number of cells."""

    first: float
    step: float
    cells: int


class Cut(NamedTuple):
    """A part of a grid."""

    window: Window
    """Columns may be negative or go beyond the last one where the grid is periodic."""
    grid: Grid
    """Of the part, with longitudes that count as those it was cut for."""


class Box(NamedTuple):
    """Edges of a region, degrees."""

    west: float
    east: float
    south: float
    north: float


def box_of(grid: Grid, window: Window | None = None) -> Box:
    """Edges of a grid, or of a window of it."""
    row, column, rows, columns = window or Window(0, 0, grid.rows, grid.columns)
    west, north = grid.west_deg + column * grid.cell_lon_deg, grid.north_deg - row * grid.cell_lat_deg
    return Box(west, west + columns * grid.cell_lon_deg, north - rows * grid.cell_lat_deg, north)


def part_of(grid: Grid, window: Window) -> Grid:
    """Return the grid of a window."""
    box = box_of(grid, window)
    return replace(grid, west_deg=box.west, north_deg=box.north, rows=window.rows, columns=window.columns)


def regular_axis(centres: NDArray, name: str, source: str) -> Axis:
    """Describe an axis by its first centre and its step.

    Parameters
    ----------
    centres : ndarray of shape (n,)
        Degrees.
    name, source : str
        Of the axis and its file, for errors.

    Raises
    ------
    DataError
        If the distances differ, or there are fewer than two cells.
    """
    values = np.asarray(centres, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise DataError(f"{source}: {name} has shape {values.shape}, expected one axis of two and more finite degrees")
    step = float(values[-1] - values[0]) / (len(values) - 1)
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(values).max())
    steps = np.diff(values)
    if step == 0 or np.abs(steps - step).max() > _SAME * abs(step) + rounding:
        raise DataError(
            f"{source}: {name} is not regular, its steps are {steps.min():g} to {steps.max():g} degrees; resample the "
            "file onto a regular grid of longitude and latitude first (cdo remapnn, gdalwarp -t_srs EPSG:4326)"
        )
    first = float(values[0])
    if np.array_equal(values.astype(np.float32), values):
        first, step = _rounded(first, step)
    return Axis(first, step, len(values))


def _rounded(first: float, step: float) -> tuple[float, float]:
    """Undo the rounding of float32: cells of 1/n degrees, edges on multiples of half a cell, where they nearly are."""
    per_degree = round(1 / step) or 1
    if abs(step * per_degree - 1) < 1e-4:
        step = 1 / per_degree
    halves = round(first / step * 2)
    return (halves * step / 2 if abs(halves / 2 - first / step) < _SAME else first), step


def westward(grid: Grid) -> tuple[Grid, int]:
    """Count longitudes from -180.

    Returns
    -------
    tuple
        The grid, and the column of the given one that is its first: columns of a global grid are rolled by so many.
    """
    if grid.periodic:
        shift = math.floor((180 - grid.west_deg) / grid.cell_lon_deg + 0.5) % grid.columns
        west = grid.west_deg + shift * grid.cell_lon_deg
        west -= 360 * math.floor((west + 180 + grid.cell_lon_deg) / 360)
        return replace(grid, west_deg=west), shift
    past = grid.west_deg >= 180 - _SAME * grid.cell_lon_deg
    return (replace(grid, west_deg=grid.west_deg - 360) if past else grid), 0


def difference(first: Grid, second: Grid) -> str | None:
    """Say how two grids differ, or None where they are the same.

    The text reads "<first> against <second>".
    """
    if (first.rows, first.columns) != (second.rows, second.columns):
        return f"{first.rows} x {first.columns} cells against {second.rows} x {second.columns}"
    here, there = box_of(first), box_of(second)
    slack = _SAME * min(first.cell_lon_deg, first.cell_lat_deg)
    for edge, a, b in zip(("western", "eastern", "southern", "northern"), here, there, strict=True):
        if abs(a - b) > slack:
            return f"{edge} edge at {a:.6g} against {b:.6g} degrees"
    return None


def _turns(grid: Grid, box: Box) -> int:
    """Whole turns that bring the grid's longitudes nearest to a box's."""
    here = box_of(grid)
    return round(((box.west + box.east) - (here.west + here.east)) / 720)


def covers(grid: Grid, box: Box) -> bool:
    """Whether every point of a box lies in the grid."""
    here, slack = box_of(grid), 1e-6
    if here.south > box.south + slack or here.north < box.north - slack:
        return False
    turn = 360 * _turns(grid, box)
    return grid.periodic or (here.west + turn <= box.west + slack and here.east + turn >= box.east - slack)


def cut(grid: Grid, box: Box, margin: int = 0) -> Cut | None:
    """Part of a grid that touches a box, with a margin of cells; None where nothing does."""
    slack = 1e-6
    top = math.floor((grid.north_deg - box.north) / grid.cell_lat_deg + slack) - margin
    bottom = math.ceil((grid.north_deg - box.south) / grid.cell_lat_deg - slack) + margin
    top, bottom = max(top, 0), min(bottom, grid.rows)
    turn = 0 if grid.periodic else 360 * _turns(grid, box)
    left = math.floor((box.west - grid.west_deg - turn) / grid.cell_lon_deg + slack) - margin
    right = math.ceil((box.east - grid.west_deg - turn) / grid.cell_lon_deg - slack) + margin
    if not grid.periodic:
        left, right = max(left, 0), min(right, grid.columns)
    if top >= bottom or left >= right:
        return None
    window = Window(top, left, bottom - top, right - left)
    part = part_of(grid, window)
    return Cut(window, replace(part, west_deg=part.west_deg + turn))

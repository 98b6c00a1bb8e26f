"""The grid that maps are made on: that of the anchor, with cells of another size, or a part of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from earthsr.errors import InputError
from earthsr.geo.grid import Bounds, Grid, cut
from earthsr.geo.window import Window, warn_of_rest

#: West, south, east, north, degrees.
BBox = tuple[float, float, float, float]

#: Relative rounding of a cell size that is written in a few digits (0.0083333).
_ROUNDING: Final = 1e-6


def output_grid(anchor: Grid, cell_size_deg: float | None = None, bbox: BBox | None = None) -> Grid:
    """Grid of the maps.

    Parameters
    ----------
    anchor : Grid
        Of the anchor map.
    cell_size_deg : float, optional
        Side of a cell; the anchor's cells where absent. The western and the northern edge stay where they are.
    bbox : tuple of float, optional
        West, south, east, north in degrees; cells that it touches are the grid. Its longitudes are contiguous (170 to
        190), from a western edge that counts as the anchor's.

    Raises
    ------
    InputError
        If the cells do not divide the anchor's extent, or the box is none or lies outside.
    """
    grid = anchor if cell_size_deg is None else _resized(anchor, cell_size_deg)
    return grid if bbox is None else grid.part(touched(grid, bbox))


def _resized(grid: Grid, cell_deg: float) -> Grid:
    if not (math.isfinite(cell_deg) and cell_deg > 0):
        raise InputError(f"--cell-size is {cell_deg:g} degrees, expected more than 0")
    height, width = grid.rows * grid.cell_y, grid.columns * grid.cell_x
    rows, columns = round(height / cell_deg), round(width / cell_deg)
    for found, whole in ((height / cell_deg, rows), (width / cell_deg, columns)):
        if whole < 1 or abs(found - whole) > _ROUNDING * whole:
            raise InputError(
                f"--cell-size: cells of {cell_deg:g} degrees do not divide the anchor's {height:g} x {width:g} degrees "
                f"({height / cell_deg:.6g} x {width / cell_deg:.6g} cells); take one that does, or cut the anchor"
            )
    # What is divided stays whole: 43,200 columns of 0.0083333 degrees would not close upon themselves.
    return replace(grid, cell_y=height / rows, cell_x=width / columns, rows=rows, columns=columns)


def touched(grid: Grid, bbox: BBox) -> Window:
    """Cells that a box touches, as far as there are cells.

    Parameters
    ----------
    grid : Grid
        Of the whole raster.
    bbox : tuple of float
        West, south, east, north in degrees. West above east goes across the dateline.

    Returns
    -------
    Window
        Its first column lies within the grid; on a periodic grid its last may count on beyond. A box that touches all
        columns of a periodic grid is the grid's whole width, from its own first column.

    Raises
    ------
    InputError
        If it is empty, or lies outside.
    """
    west, south, east, north = bbox
    said, here = f"--bbox {west:g},{south:g},{east:g},{north:g}", grid.bounds
    across = west > east
    if across:
        east += 360
    if not (all(map(math.isfinite, bbox)) and south < north and west < east):
        raise InputError(f"{said}: expected finite numbers, south < north, west < east (or > across the dateline)")
    if across and not grid.periodic and here.east <= 180:
        raise InputError(f"{said}: west > east is a box across the dateline, which the anchor does not reach")
    found = cut(grid, Bounds(west, south, east, north))
    if found is None:
        raise InputError(
            f"{said} lies outside the anchor, which covers {here.west:g},{here.south:g},{here.east:g},{here.north:g} "
            "(west, south, east, north)"
        )
    window = found.window
    part, cell = found.grid.bounds, (grid.cell_x, grid.cell_y)
    warn_of_rest(
        (west, south, east, north), (part.west, part.south, part.east, part.north), cell, "the anchor", grid.periodic
    )
    if not grid.periodic:
        return window
    if window.columns >= grid.columns:
        return window._replace(column=0, columns=grid.columns)
    return window._replace(column=window.column % grid.columns)

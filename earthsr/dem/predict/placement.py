"""Where a coarse raster really lies: moved by what is given, or by what is measured against a finer one.

Products differ by half a pixel where one file calls its pixels points and they are areas; a prediction of such a raster
is terrain in the wrong place. Nothing is moved that was not asked for, and what was moved is written with the result.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

from earthsr.dem.prepare.pairs import align, overlap, require_ratio
from earthsr.dem.prepare.register import measure, measure_sea
from earthsr.errors import DataError, InputError
from earthsr.geo import Georeference, open_source, same_crs
from earthsr.geo.crs import crs_name, metres_per_unit
from earthsr.geo.elevations import Elevations, elevations

#: Standard error of a measured offset, fine cells, above which it tells nothing that is worth a move.
_SURE: Final = 0.1
#: Mean radius of WGS 84, metres.
_EARTH_RADIUS_M: Final = 6_371_008.8


def offset_of(text: str, grid: Georeference, scale: int) -> tuple[float, float]:
    """Read ``EAST,NORTH`` as fine cells.

    Parameters
    ----------
    text : str
        Two numbers, of fine cells; of metres where each ends with ``m``, as ``46m,46m``.
    grid : Georeference
        Of the coarse raster; metres are taken at its middle latitude.
    scale : int
        Fine cells per coarse cell and axis.

    Raises
    ------
    InputError
        If it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    in_metres = [part.endswith("m") for part in parts]
    try:
        east, north = (float(part.removesuffix("m")) for part in parts)
    except ValueError:
        east = north = math.nan
    if not (math.isfinite(east) and math.isfinite(north)) or in_metres[0] != in_metres[-1]:
        raise InputError(
            f"--offset is {text!r}, expected EAST,NORTH in fine cells, such as 0.5,0.5, or in metres, such as 46m,46m"
        )
    if not in_metres[0]:
        return east, north
    if grid.geographic:
        degree = math.radians(1) * _EARTH_RADIUS_M
        middle = math.radians(grid.north - grid.rows * grid.cell_y / 2)
        size = grid.cell_x * degree * math.cos(middle), grid.cell_y * degree
    else:
        unit = metres_per_unit(grid.crs_wkt) if grid.crs_wkt else 1.0
        size = grid.cell_x * unit, grid.cell_y * unit
    return east * scale / size[0], north * scale / size[1]


def measured_offset(raster: Elevations, reference: str | Path, scale: int) -> tuple[float, float, str]:
    """Measure by how much a coarse raster has to move to lie on a finer one of the same ground.

    Parameters
    ----------
    raster : Elevations
        The coarse one.
    reference : str or Path
        The finer one, of ``scale`` times as many cells per axis, that overlaps.
    scale : int
        Fine cells per coarse cell and axis.

    Returns
    -------
    tuple of float, float, str
        Fine cells to the east and to the north, and a sentence for the provenance.

    Raises
    ------
    InputError, DataError
        If the two cannot be compared, or what is measured is not known well.
    """
    fine = elevations(open_source(reference))
    try:
        lr, hr = raster.georeference, fine.georeference
        if not same_crs(lr.crs_wkt, hr.crs_wkt):
            raise InputError(
                f"--register {fine.name}: is in {crs_name(hr.crs_wkt)}, {raster.name} in {crs_name(lr.crs_wkt)}; warp "
                "one of them first (rio warp --dst-crs)"
            )
        require_ratio(hr, lr, scale, fine.name, raster.name)
        if not overlap(hr, lr):
            raise InputError(f"--register {fine.name}: shares no ground with {raster.name}")
        flat_sea = measure_sea(fine, raster, scale).is_flat
        measured = measure(fine, raster, align(hr, lr, scale), scale, flat_sea)
    finally:
        fine.close()
    error = max(measured.rows_error, measured.columns_error)
    if not error <= _SURE:
        raise DataError(
            f"--register {fine.name}: the offset of {raster.name} is not known to {_SURE:g} fine cells from "
            f"{measured.cells} cells of common ground (standard error {error:.2g}); give a reference with more relief, "
            "or the offset itself with --offset EAST,NORTH"
        )
    words = f"measured against {fine.name} over {measured.cells} coarse cells, standard error {error:.3f} fine cells"
    return -measured.columns, measured.rows, words


def move(raster: Elevations, east_cells: float, north_cells: float, scale: int, words: str) -> None:
    """Move a raster by fine cells: its values stay, its place changes, and its notes say so.

    Raises
    ------
    InputError
        If it would reach beyond a pole by more than it does where it is.
    """
    grid = raster.georeference
    east, north = east_cells * grid.cell_x / scale, north_cells * grid.cell_y / scale
    placed = replace(grid, west=grid.west + east, north=grid.north + north)
    if grid.geographic and max(placed.north, -placed.bounds[1]) > max(90.0, grid.north, -grid.bounds[1]) + 1e-9:
        raise InputError(
            f"{raster.name}: {north_cells:+.3f} fine cells to the north would put it beyond a pole; enlarge a part of "
            "it that is moved (rio clip)"
        )
    raster.georeference = placed
    raster.notes.append(
        f"{raster.name}: moved by {east_cells:+.3f} fine cells east and {north_cells:+.3f} north, {words}"
    )

"""Where the cells of a raster lie: one grid for every workload, windows of it, and what is asked of both.

A grid may go once round the globe, and longitudes may count from -180 or from 0: places are found all the same. Windows
may be any integers: once around the Earth where it goes, and nothing beyond the edges, for every workload alike.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import EarthsrWarning, InputError


class Window(NamedTuple):
    """A rectangle of cells."""

    row: int
    column: int
    rows: int
    columns: int


class Piece(NamedTuple):
    """Part of a window that lies inside the raster."""

    part: Window
    """Its cells."""
    down: int
    """Its first row and column in the window that was asked for."""
    across: int


def pieces(window: Window, rows: int, columns: int, periodic: bool) -> Iterator[Piece]:
    """Divide a window into parts inside a raster; what lies beyond the raster is in none.

    Parameters
    ----------
    window : Window
        Any integers; its rows and columns are not negative.
    rows, columns : int
        Of the raster.
    periodic : bool
        Whether columns wrap around, as often as the window is wider than the raster.
    """
    first, start, height, width = window
    if height < 0 or width < 0:
        raise ValueError(f"window has {height} rows and {width} columns, expected none or more")
    top, bottom = max(first, 0), min(first + height, rows)
    left, right = start, start + width
    if not periodic:
        left, right = max(left, 0), min(right, columns)
    while top < bottom and left < right:
        place = left % columns
        count = min(right - left, columns - place)
        yield Piece(Window(top, place, bottom - top, count), top - first, left - start)
        left += count


def warn_of_rest(
    bbox: tuple[float, float, float, float],
    covered: tuple[float, float, float, float],
    cell: tuple[float, float],
    what: str,
    round_the_globe: bool = False,
) -> None:
    """Warn of a box that reaches beyond what there is, by a cell or more: what comes out is smaller than asked for.

    Parameters
    ----------
    bbox, covered : tuple of float
        West, south, east, north of the box, and of the cells that it touches.
    cell : tuple of float
        Width and height of a cell, in the same units.
    what : str
        What has an edge there, for the message.
    round_the_globe : bool
        Whether there is none in the west and the east.
    """
    over_x = 0.0 if round_the_globe else max(covered[0] - bbox[0], bbox[2] - covered[2])
    over_y = max(covered[1] - bbox[1], bbox[3] - covered[3])
    if over_x >= cell[0] or over_y >= cell[1]:
        asked, got = (",".join(f"{value:g}" for value in box) for box in (bbox, covered))
        warnings.warn(
            f"--bbox {asked} reaches beyond {what}; what comes out covers {got}", EarthsrWarning, stacklevel=4
        )


def dateline(west: float, cell: float, columns: int) -> int:
    """First column east of longitude 180: the same place on Earth, whichever longitude a periodic raster begins with.

    Where the meridian cuts a cell, that cell or the next one, always the same of the two.
    """
    # Grids have the meridian on an edge or a centre: a quarter of a cell keeps rounding away from either.
    return math.floor((180 - west) / cell + 0.25) % columns


#: Share of a cell by which grids that are meant to be the same may differ: coordinates kept as float32, and printed
#: cell sizes such as 0.0099999, are off by less.
_SAME: Final = 0.02
#: Cells of longitude and latitude are 1e-4 degrees and larger; coordinates that differ by less are the same.
_SAME_DEG: Final = 1e-6
#: Keys of a grid of longitude and latitude in files.
_KEYS: Final = {"west_deg": "west", "north_deg": "north", "cell_lon_deg": "cell_x", "cell_lat_deg": "cell_y"}


class Bounds(NamedTuple):
    """Edges of a region, in units of its CRS."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True)
class Grid:
    """A north-up grid: cells are areas, rows go from north to south and columns from west to east."""

    west: float
    """Western edge of the first column, in units of the CRS: degrees, metres, …"""
    north: float
    """Northern edge of the first row."""
    cell_x: float
    """Width of a cell, positive."""
    cell_y: float
    """Height of a cell, positive."""
    rows: int
    columns: int
    crs_wkt: str = ""
    """WKT 2; empty where nobody said, as for bare arrays."""
    geographic: bool = True
    """Whether coordinates are longitude and latitude in degrees."""

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + e * row + f."""
        return (self.cell_x, 0.0, self.west, 0.0, -self.cell_y, self.north)

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north."""
        south, east = self.north - self.rows * self.cell_y, self.west + self.columns * self.cell_x
        return Bounds(self.west, south, east, self.north)

    @property
    def periodic(self) -> bool:
        """Whether the columns go once round the globe, so that the last one has the first as neighbour."""
        # Cell sizes are often written with six digits: 43,200 cells of 0.00833333 degrees lack a fiftieth of a cell.
        slack = max(self.cell_x / 20, 360 * _SAME_DEG)
        return self.geographic and math.isclose(self.columns * self.cell_x, 360.0, rel_tol=0, abs_tol=slack)

    @property
    def dateline(self) -> int:
        """First column east of longitude 180."""
        return dateline(self.west, self.cell_x, self.columns)

    def latitude_edges(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Edges of ``count`` rows from ``start`` on, north to south, (count + 1,), in units of the CRS."""
        count = self.rows - start if count is None else count
        return self.north - self.cell_y * np.arange(start, start + count + 1, dtype=np.float64)

    def longitude_edges(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Edges of ``count`` columns from ``start`` on, west to east, (count + 1,), in units of the CRS."""
        count = self.columns - start if count is None else count
        return self.west + self.cell_x * np.arange(start, start + count + 1, dtype=np.float64)

    def latitudes(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Centres of ``count`` rows from ``start`` on, north to south, (count,), in units of the CRS."""
        return self.latitude_edges(start, count)[:-1] - self.cell_y / 2

    def longitudes(self, start: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Centres of ``count`` columns from ``start`` on, west to east, (count,), in units of the CRS."""
        return self.longitude_edges(start, count)[:-1] + self.cell_x / 2

    def x(self) -> NDArray[np.float64]:
        """Centres of the columns, of shape (columns,), in units of the CRS."""
        return self.west + (np.arange(self.columns) + 0.5) * self.cell_x

    def y(self, row: int = 0, rows: int | None = None) -> NDArray[np.float64]:
        """Centres of ``rows`` rows from ``row`` on, from north to south, of shape (rows,), in units of the CRS."""
        count = self.rows - row if rows is None else rows
        return self.north - (np.arange(row, row + count) + 0.5) * self.cell_y

    def refined(self, scale: int) -> Self:
        """Grid of the cells divided by ``scale`` along each axis; the corner stays where it is."""
        return replace(
            self,
            rows=self.rows * scale,
            columns=self.columns * scale,
            cell_x=self.cell_x / scale,
            cell_y=self.cell_y / scale,
        )

    def part(self, window: Window) -> Self:
        """Grid of a window."""
        return replace(
            self,
            rows=window.rows,
            columns=window.columns,
            west=self.west + window.column * self.cell_x,
            north=self.north - window.row * self.cell_y,
        )

    def check(self, window: Window) -> Window:
        """Give a window back as plain integers; one that lies beyond an edge is a ValueError, a fault of the caller."""
        window = Window(*map(int, window))
        if not (
            0 <= window.row <= window.row + window.rows <= self.rows
            and 0 <= window.column <= window.column + window.columns <= self.columns
        ):
            raise ValueError(f"{window} lies outside the raster of {self.rows} x {self.columns} cells")
        return window

    def window(self, bbox: tuple[float, float, float, float]) -> Window:
        """Cells that a box touches.

        Parameters
        ----------
        bbox : tuple of float
            West, south, east, north in units of the CRS. On a periodic grid west > east is a box across the dateline,
            and longitudes may count otherwise than the grid's, from -360 to 540.

        Returns
        -------
        Window
            On a periodic grid its columns may be negative or lie beyond the last one: neighbours follow each other, and
            :meth:`part` gives the box's own longitudes, 170 to 190 for 170 to -170. It never has more than a turn.

        Raises
        ------
        InputError
            If it is empty or lies outside.
        """
        west, south, east, north = bbox
        around = self.periodic and west > east
        if not (all(map(math.isfinite, bbox)) and (west < east or around) and south < north):
            crosses = self.geographic and not self.periodic and -360 <= east < west <= 540
            hint = "; a box across the dateline needs a raster that goes once round the globe" if crosses else ""
            raise InputError(
                f"--bbox is {west:g},{south:g},{east:g},{north:g}, expected finite numbers, west < east, south < north"
                f"{hint}"
            )
        # A box on the cells' edges takes these cells and no more, whatever its digits.
        slack = 1e-6
        end = east + 360 if around else east
        left = math.floor((west - self.west) / self.cell_x + slack)
        right = math.ceil((end - self.west) / self.cell_x - slack)
        if not self.periodic:
            left, right = max(left, 0), min(right, self.columns)
        elif end - west >= 360 + self.cell_x:
            left, right = 0, self.columns
        elif west >= -360 and end <= 540:
            right = min(right, left + self.columns)
        else:
            left = right
        top = max(math.floor((self.north - north) / self.cell_y + slack), 0)
        bottom = min(math.ceil((self.north - south) / self.cell_y - slack), self.rows)
        if left >= right or top >= bottom:
            covered = ", ".join(f"{value:g}" for value in self.bounds)
            raise InputError(
                f"--bbox {west:g},{south:g},{east:g},{north:g} lies outside the raster, which covers {covered} (west, "
                "south, east, north)"
            )
        cells = Window(top, left, bottom - top, right - left)
        warn_of_rest(bbox, self.part(cells).bounds, (self.cell_x, self.cell_y), "the raster", self.periodic)
        return cells

    def coarse(self, cell_deg: float) -> Grid:
        """Return the grid of square cells of ``cell_deg``, whose edges are multiples of it, that covers this one."""
        south = self.north - self.rows * self.cell_y
        east = self.west + self.columns * self.cell_x
        slack = _SAME_DEG / cell_deg
        top = math.ceil(self.north / cell_deg - slack)
        left = math.floor(self.west / cell_deg + slack)
        rows = top - math.floor(south / cell_deg + slack)
        columns = math.ceil(east / cell_deg - slack) - left
        return Grid(left * cell_deg, top * cell_deg, cell_deg, cell_deg, rows, columns)

    @property
    def lonlat(self) -> dict[str, Any]:
        """Place and size of a grid of longitude and latitude, in plain values as files keep them."""
        place = {key: getattr(self, name) for key, name in _KEYS.items()}
        return {**place, "rows": self.rows, "columns": self.columns}

    @classmethod
    def from_lonlat(cls, values: Mapping[str, Any]) -> Self:
        """Make a grid of ``values`` that :attr:`lonlat` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing, or is no number.
        """
        west, north, width, height = (float(values[key]) for key in _KEYS)
        return cls(west, north, width, height, int(values["rows"]), int(values["columns"]))


def columns_once(columns: int, cell_x: float) -> int:
    """Columns of a grid of longitudes without one that repeats the first.

    Grids whose cells are nodes have a row on each pole, and once round the globe their last column lies where the first
    one does, as in ETOPO's files of 10,801 x 21,601.

    Parameters
    ----------
    columns : int
        Of a file.
    cell_x : float
        Their width in degrees.
    """
    whole = columns > 2 and math.isclose((columns - 1) * cell_x, 360.0, rel_tol=0, abs_tol=cell_x / 20)
    return columns - 1 if whole else columns


class Cut(NamedTuple):
    """A part of a grid."""

    window: Window
    """Columns may be negative or go beyond the last one where the grid is periodic."""
    grid: Grid
    """Of the part, with longitudes that count as those it was cut for."""


def westward(grid: Grid) -> tuple[Grid, int]:
    """Count longitudes from -180.

    Returns
    -------
    tuple
        The grid, and the column of the given one that is its first: columns of a global grid are rolled by so many.
    """
    if grid.periodic:
        shift = math.floor((180 - grid.west) / grid.cell_x + 0.5) % grid.columns
        west = grid.west + shift * grid.cell_x
        west -= 360 * math.floor((west + 180 + grid.cell_x) / 360)
        return replace(grid, west=west), shift
    past = grid.west >= 180 - _SAME * grid.cell_x
    return (replace(grid, west=grid.west - 360) if past else grid), 0


def difference(first: Grid, second: Grid) -> str | None:
    """Say how two grids differ, or None where they are the same.

    The text reads "<first> against <second>".
    """
    if (first.rows, first.columns) != (second.rows, second.columns):
        return f"{first.rows} x {first.columns} cells against {second.rows} x {second.columns}"
    ours, theirs = first.bounds, second.bounds
    slack = _SAME * min(first.cell_x, first.cell_y)
    for edge in ("west", "east", "south", "north"):
        a, b = getattr(ours, edge), getattr(theirs, edge)
        if abs(a - b) > slack:
            return f"{edge}ern edge at {a:.6g} against {b:.6g} degrees"
    return None


def _turns(grid: Grid, box: Bounds) -> int:
    """Whole turns that bring the grid's longitudes nearest to a box's."""
    edges = grid.bounds
    return round(((box.west + box.east) - (edges.west + edges.east)) / 720)


def covers(grid: Grid, box: Bounds) -> bool:
    """Whether every point of a box lies in the grid."""
    edges, slack = grid.bounds, 1e-6
    if edges.south > box.south + slack or edges.north < box.north - slack:
        return False
    turn = 360 * _turns(grid, box)
    return grid.periodic or (edges.west + turn <= box.west + slack and edges.east + turn >= box.east - slack)


def cut(grid: Grid, box: Bounds, margin: int = 0) -> Cut | None:
    """Part of a grid that touches a box, with a margin of cells; None where nothing does."""
    slack = 1e-6
    top = math.floor((grid.north - box.north) / grid.cell_y + slack) - margin
    bottom = math.ceil((grid.north - box.south) / grid.cell_y - slack) + margin
    top, bottom = max(top, 0), min(bottom, grid.rows)
    turn = 0 if grid.periodic else 360 * _turns(grid, box)
    left = math.floor((box.west - grid.west - turn) / grid.cell_x + slack) - margin
    right = math.ceil((box.east - grid.west - turn) / grid.cell_x - slack) + margin
    if not grid.periodic:
        left, right = max(left, 0), min(right, grid.columns)
    if top >= bottom or left >= right:
        return None
    window = Window(top, left, bottom - top, right - left)
    part = grid.part(window)
    return Cut(window, replace(part, west=part.west + turn))


def centres_of(grid: Grid) -> Bounds:
    """Outermost centres of a grid: what an interpolation onto it must reach."""
    box, half_lon, half_lat = grid.bounds, grid.cell_x / 2, grid.cell_y / 2
    return Bounds(box.west + half_lon, box.south + half_lat, box.east - half_lon, box.north - half_lat)

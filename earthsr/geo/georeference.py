"""Where the cells of a raster lie, what its values mean, and what reads and writes them window by window.

Formats live beside this file; nothing here needs a geospatial package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.window import Window, dateline, warn_of_rest


@dataclass(frozen=True)
class Georeference:
    """A north-up grid: cells are areas, rows go from north to south and columns from west to east."""

    rows: int
    columns: int
    west: float
    """Western edge of the first column, in units of the CRS."""
    north: float
    """Northern edge of the first row."""
    cell_x: float
    """Width of a cell, positive."""
    cell_y: float
    """Height of a cell, positive."""
    crs_wkt: str = ""
    """WKT 2; empty where nobody said, as for bare arrays."""
    geographic: bool = True
    """Whether coordinates are longitude and latitude in degrees."""
    units: str = "m"
    """Of the values."""
    nodata: float | None = None
    """What stands for no value in the file; NaN in memory."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a file says besides, such as its vertical datum; carried to what is made from it."""

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + e * row + f."""
        return (self.cell_x, 0.0, self.west, 0.0, -self.cell_y, self.north)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        return (
            self.west,
            self.north - self.rows * self.cell_y,
            self.west + self.columns * self.cell_x,
            self.north,
        )

    @property
    def periodic(self) -> bool:
        """Whether the columns go once round the globe."""
        return self.geographic and abs(self.columns * self.cell_x - 360) < 1e-6 * 360

    @property
    def dateline(self) -> int:
        """First column east of longitude 180."""
        return dateline(self.west, self.cell_x, self.columns)

    def x(self) -> NDArray[np.float64]:
        """Centres of the columns, of shape (columns,), in units of the CRS."""
        return self.west + (np.arange(self.columns) + 0.5) * self.cell_x

    def y(self, row: int = 0, rows: int | None = None) -> NDArray[np.float64]:
        """Centres of ``rows`` rows from ``row`` on, from north to south, of shape (rows,), in units of the CRS."""
        count = self.rows - row if rows is None else rows
        return self.north - (np.arange(row, row + count) + 0.5) * self.cell_y

    def refined(self, scale: int) -> Georeference:
        """Grid of the cells divided by ``scale`` along each axis; the corner stays where it is."""
        return replace(
            self,
            rows=self.rows * scale,
            columns=self.columns * scale,
            cell_x=self.cell_x / scale,
            cell_y=self.cell_y / scale,
        )

    def part(self, window: Window) -> Georeference:
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
            here = ", ".join(f"{value:g}" for value in self.bounds)
            raise InputError(
                f"--bbox {west:g},{south:g},{east:g},{north:g} lies outside the raster, which covers {here} (west, "
                "south, east, north)"
            )
        found = Window(top, left, bottom - top, right - left)
        warn_of_rest(bbox, self.part(found).bounds, (self.cell_x, self.cell_y), "the raster", self.periodic)
        return found


class Source(Protocol):
    """A raster that is read window by window. Reads may come from another thread than opening did, one at a time."""

    georeference: Georeference
    name: str
    """Of the file, for messages."""

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window (rows, columns) in the units of the georeference, NaN where there is no value."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class Sink(Protocol):
    """A raster that is written block by block, each block once and in any order."""

    georeference: Georeference

    def write(self, row: int, column: int, block: NDArray[np.float32]) -> None:
        """Write a ``block`` (bands, rows, columns) with its first cell at ``row``, ``column``; NaN for no value."""
        ...

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write ``attributes``, the provenance, with what else stands at the end, and give the file its final name."""
        ...

    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        ...

"""The synthetic world as a source of land-use files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.fields import Channel, ContinuousField
from earthsr.samples.world.climate import MONTHS, Climate, make_climate
from earthsr.samples.world.growth import grow
from earthsr.samples.world.leaf_area import leaf_area, seasons
from earthsr.samples.world.terrain import Terrain, make_terrain

#: Sixteen fine cells to a side of a coarse cell of 0.25 degrees.
DEFAULT_CELL_DEG = 0.25 / 16

#: Increased whenever the same seed gives another world.
WORLD_VERSION = 1

#: Cells per side below which there is no room for a landscape.
_LEAST_CELLS = 32


@dataclass(frozen=True)
class WorldSpec:
    """What decides a synthetic world: the same values give the same world, byte by byte, with one NumPy."""

    rows: int = 384
    """Fine cells from north to south."""
    columns: int = 960
    """Fine cells from west to east."""
    cell_deg: float = DEFAULT_CELL_DEG
    """Size of a fine cell, degrees."""
    west_deg: float = -8.0
    """Western edge, degrees."""
    north_deg: float = 48.0
    """Northern edge, degrees."""
    years: tuple[int, ...] = tuple(range(1970, 2000))
    """One after another."""
    seed: int = 9
    """With the default every class has at least 1.9 % of the land in the bands that train, validate and test."""

    def check(self) -> None:
        """Check sizes, place and years.

        Raises
        ------
        InputError
            If a synthetic world cannot be made of them.
        """
        if min(self.rows, self.columns) < _LEAST_CELLS:
            raise InputError(
                f"a synthetic world of {self.rows} x {self.columns} cells is too small, expected at least "
                f"{_LEAST_CELLS} rows and columns"
            )
        if not 0 < self.cell_deg <= 1:
            raise InputError(f"cell size is {self.cell_deg:g} degrees, expected more than 0 and at most 1")
        south, width = self.north_deg - self.rows * self.cell_deg, self.columns * self.cell_deg
        if self.north_deg > 85 or south < -85 or width > 360:
            raise InputError(
                f"a synthetic world of {self.rows} x {self.columns} cells of {self.cell_deg:g} degrees reaches from "
                f"{self.north_deg:g} to {south:g} N and is {width:g} degrees wide, expected at most 85 N, at least -85 "
                "N and at most 360 degrees; take fewer or smaller cells"
            )
        if len(self.years) < 2 or any(b - a != 1 for a, b in zip(self.years, self.years[1:], strict=False)):
            raise InputError(f"years are {self.years}, expected at least two, one after another")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or more")

    @property
    def grid(self) -> Grid:
        """The fine grid."""
        return Grid(self.west_deg, self.north_deg, self.cell_deg, self.cell_deg, self.rows, self.columns)


class SyntheticWorld:
    """A made-up region with a fine truth for every year; a :class:`~earthsr.landuse.fields.FineSource`.

    Parameters
    ----------
    spec : WorldSpec
        What to make. It is made when it is first read, and classes of all years stay in memory: rows x columns x
        years bytes.

    Raises
    ------
    InputError
        If the spec does not fit.
    """

    crs = "EPSG:4326"
    table = HILDA_PLUS
    static_channels = (
        Channel("elevation", "m"),
        Channel("slope", "degrees"),
        Channel("soil", "1"),
        Channel("distance_to_water", "km"),
        Channel("latitude", "degrees_north"),
    )
    continuous = (ContinuousField("lai", "m2 m-2", MONTHS, 0.04),)

    def __init__(self, spec: WorldSpec) -> None:
        spec.check()
        self.spec, self.grid, self.years = spec, spec.grid, spec.years
        self._seasons: tuple[Window, NDArray[np.float32]] | None = None
        self.description = (
            f"synthetic world of earthsr (version {WORLD_VERSION}, seed {spec.seed}): made by rules, not observed"
        )
        self.attributes: dict[str, Any] = {
            "synthetic": True,
            "version": WORLD_VERSION,
            "numpy": np.__version__,
            **asdict(spec),
            "years": [spec.years[0], spec.years[-1]],
        }

    @cached_property
    def terrain(self) -> Terrain:
        """Fixed fields, made when they are first asked for."""
        return make_terrain(self.grid, self.spec.seed)

    @cached_property
    def climate(self) -> Climate:
        """Temperature and rain, made when they are first asked for."""
        return make_climate(self.terrain, self.grid.latitudes())

    @cached_property
    def maps(self) -> NDArray[np.uint8]:
        """Classes (Y, H, W) of all years, made when they are first asked for."""
        return grow(self.terrain, self.climate, self.grid, self.years, self.spec.seed)

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (5, rows, columns) of a window in their units.

        The sea has elevation, slope, soil and distance 0.
        """
        part = _part(window)
        latitude = self.grid.latitudes(window.row, window.rows)[:, None]
        terrain = self.terrain
        return np.stack(
            [
                terrain.elevation_m[part],
                terrain.slope_deg[part],
                terrain.soil[part],
                terrain.to_water_km[part],
                np.broadcast_to(latitude, (window.rows, window.columns)).astype(np.float32),
            ]
        )

    def classes(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a window in a year; 255 in the sea."""
        return self.maps[(self.years.index(year), *_part(window))]

    def continuous_field(self, name: str, year: int, window: Window) -> NDArray[np.float32]:
        """Field ``name`` of a window in a year: leaf area index (12, rows, columns), m2 m-2.

        NaN in the sea, 0 on rivers and lakes.

        Raises
        ------
        InputError
            If the world has no field of that name.
        """
        if name != "lai":
            raise InputError(f"the synthetic world has no field {name}, only lai")
        # Tiles are read year after year, and the climate is the same in all of them.
        if self._seasons is None or self._seasons[0] != window:
            leaf_seasons = seasons(self.climate.window(*window), self.terrain.soil[_part(window)])
            self._seasons = (window, leaf_seasons)
        return leaf_area(self.classes(year, window), self._seasons[1])


def _part(window: Window) -> tuple[slice, slice]:
    return (
        slice(window.row, window.row + window.rows),
        slice(window.column, window.column + window.columns),
    )

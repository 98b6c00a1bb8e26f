"""The synthetic world as a source of land-use files, and its monthly leaf area index.

Leaf area follows from the class of a cell and its climate, through warmth and water of each month.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.landuse.fields import Channel, ContinuousField
from earthsr.samples.world.climate import MONTHS, Climate, make_climate, potential_evaporation
from earthsr.samples.world.growth import CROPLAND, FOREST, GRASS, PASTURE, SPARSE, URBAN, WATER, grow
from earthsr.samples.world.terrain import Terrain, make_terrain

#: Sixteen fine cells to a side of a coarse cell of 0.25 degrees.
DEFAULT_CELL_DEG = 0.25 / 16

#: Increased whenever the same seed gives another world.
WORLD_VERSION = 1

#: Cells per side below which there is no room for a landscape.
_LEAST_CELLS = 32

#: Leaf area index (m2 m-2) of each class in full leaf on the best soil, and the share of it that stays in winter.
_FULL = {URBAN: 1.3, CROPLAND: 5.0, PASTURE: 3.4, FOREST: 6.8, GRASS: 2.4, SPARSE: 0.5, WATER: 0.0}
_KEPT = {URBAN: 0.35, CROPLAND: 0.06, PASTURE: 0.3, FOREST: 0.15, GRASS: 0.25, SPARSE: 0.3, WATER: 0.0}
#: Months after the middle of summer from which fields are bare, and how long the harvest takes.
_HARVEST, _HARVEST_MONTHS = 1.0, 1.5


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


def seasons(climate: Climate, soil: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leaf area index that every class would have, (K, 12, H, W), m2 m-2.

    Parameters
    ----------
    climate : Climate
        (H, W).
    soil : ndarray of shape (H, W)
        Index, 0 to 1.
    """
    temperature, rain = climate.monthly()
    warmth = np.clip((temperature - 3.0) / 14.0, 0.0, 1.0)
    water = rain / potential_evaporation(temperature, 1.0)
    # Soil holds back what fell in the months before.
    stored = 0.5 * water + 0.3 * np.roll(water, 1, axis=0) + 0.2 * np.roll(water, 2, axis=0)
    growing = warmth * np.clip(stored / 0.75, 0.0, 1.0)
    leaf = growing * (1.6 - 0.6 * growing)
    fertile = 0.6 + 0.4 * np.clip(soil / 0.8, 0.0, 1.0)
    fertile = fertile * np.clip(0.35 + 0.65 * climate.moisture / 0.8, 0.35, 1.0)
    # Trees that keep their leaves grow where it is cold and where winters are mild.
    mild = np.clip((climate.temperature_degc - np.abs(climate.swing_degc) - 3.0) / 6.0, 0.0, 1.0)
    evergreen = np.maximum(np.clip((8.0 - climate.temperature_degc) / 6.0, 0.0, 0.6), mild)
    standing = _standing(climate)
    by_class = np.zeros((max(_FULL) + 1, *leaf.shape), np.float32)
    for index, full in _FULL.items():
        kept = _KEPT[index] + (0.55 * evergreen if index == FOREST else 0.0)
        grown = leaf * standing if index == CROPLAND else leaf
        by_class[index] = full * fertile * (kept + (1.0 - kept) * grown)
    return by_class


def leaf_area(classes: NDArray[np.uint8], seasons_of_class: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leaf area index (12, H, W), m2 m-2, of classes (H, W); NaN where there is no class.

    Parameters
    ----------
    classes : ndarray of shape (H, W)
        Indices.
    seasons_of_class : ndarray of shape (K, 12, H, W)
        Of :func:`seasons`.
    """
    void = classes == NODATA
    chosen = np.where(void, 0, classes)[None, None]
    leaf_area_index = np.take_along_axis(seasons_of_class, chosen.astype(np.intp), axis=0)[0]
    leaf_area_index[:, void] = np.nan
    return leaf_area_index


def _standing(climate: Climate) -> NDArray[np.float32]:
    """Share of crops that is not harvested, (12, H, W)."""
    north = np.arange(12) + 0.5 - 6.5
    south = (np.arange(12) + 0.5 - 0.5 + 6) % 12 - 6
    after = np.where(climate.swing_degc[None] < 0, south[:, None, None], north[:, None, None])
    return np.clip(1.0 - (after - _HARVEST) / _HARVEST_MONTHS, 0.15, 1.0).astype(np.float32)

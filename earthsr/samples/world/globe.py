"""A synthetic globe for measurements of memory and tests of seams: waves that close upon themselves at the dateline.

It is no landscape: land is where a wave is high, a use is where its own wave is higher than a border that moves with
the years. But every cell is a function of its place and the year alone, so that a band of rows is made without the
others, at 30 arc-seconds too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.areas import overlap
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.landuse.fields import COARSE_CELL_DEG, ContinuousField
from earthsr.samples.world.archives import Archives, Fractions, check_archives, write_archives
from earthsr.samples.world.fields import generator
from earthsr.samples.world.growth import CROPLAND, FOREST, GRASS, PASTURE, SPARSE, URBAN, WATER, wanted_share
from earthsr.samples.world.world import SyntheticWorld

#: Waves of one field, and fine cells of the shortest.
_WAVES: Final = 12
_SHORTEST_CELLS: Final = 24
#: Of amplitude against wave number, by field; larger is smoother.
_EXPONENTS: Final = {"height": 0.5, "moisture": 0.4, "cropland": 0.15, "pasture": 0.15, "urban": 0.1, "lakes": 0.1}
#: Standard deviations of the height above which there is land, and around 0 of the lakes' field where there is a lake.
_SEA_LEVEL, _LAKE = 0.3, 0.012
#: Years in which a border goes to and fro, and how far, in standard deviations.
_SWING_YEARS, _SWING = 23.0, 0.1
_USES: Final = {"pasture": PASTURE, "cropland": CROPLAND, "urban": URBAN}
#: Rows that are added up at a time: what they need stays in the processor's cache.
_ROWS: Final = 8


@dataclass(frozen=True)
class GlobeSpec:
    """What decides a synthetic globe."""

    cell_deg: float
    years: tuple[int, ...]
    """One after another."""
    seed: int = 0
    coarse_deg: float = COARSE_CELL_DEG
    south_deg: float = -90.0
    north_deg: float = 90.0

    def check(self) -> None:
        """Check cells, latitudes and years.

        Raises
        ------
        InputError
            If the cells do not close around the Earth, coarse ones do not hold fine ones whole, or latitudes or years
            do not fit.
        """
        for name, turn, cell in (
            ("fine cells around the Earth", 360.0, self.cell_deg),
            ("coarse cells around the Earth", 360.0, self.coarse_deg),
            ("fine cells in a coarse one", self.coarse_deg, self.cell_deg),
        ):
            if not cell > 0 or round(turn / cell) < 1 or abs(turn / cell - round(turn / cell)) > 1e-6 * turn / cell:
                raise InputError(
                    f"there are {turn:g} / {cell:g} {name}, expected a whole number; take cells such as 1/120 degree"
                )
        rows = (self.north_deg - self.south_deg) / self.cell_deg
        if not (-90 <= self.south_deg < self.north_deg <= 90) or abs(rows - round(rows)) > 1e-4:
            raise InputError(
                f"latitudes are {self.south_deg:g} to {self.north_deg:g} N, {rows:g} cells, expected -90 to 90 and a "
                "whole number of cells"
            )
        if len(self.years) < 2 or any(b - a != 1 for a, b in zip(self.years, self.years[1:], strict=False)):
            raise InputError(f"years are {self.years}, expected at least two, one after another")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or more")

    @property
    def grid(self) -> Grid:
        """The fine grid, once around the Earth."""
        columns = round(360 / self.cell_deg)
        rows = round((self.north_deg - self.south_deg) / self.cell_deg)
        return Grid(-180.0, self.north_deg, 360 / columns, 360 / columns, rows, columns)


class Globe:
    """A :class:`~earthsr.landuse.fields.FineSource` of the whole globe, or of a belt of it.

    Static fields are those of :class:`~earthsr.samples.world.SyntheticWorld` by name and unit, rounded so that files
    stay small; slope and distance to water are waves of their own.

    Parameters
    ----------
    spec : GlobeSpec
        What to make. Windows are made when they are read; the last one's fields stay in memory.

    Raises
    ------
    InputError
        If the spec does not fit.
    """

    crs = "EPSG:4326"
    table = HILDA_PLUS
    static_channels = SyntheticWorld.static_channels
    continuous: tuple[ContinuousField, ...] = ()

    def __init__(self, spec: GlobeSpec) -> None:
        spec.check()
        self.spec, self.grid, self.years = spec, spec.grid, spec.years
        self.description = f"synthetic globe of earthsr (seed {spec.seed}): waves and thresholds, not observed"
        self.attributes: dict[str, Any] = {
            "synthetic": True,
            "numpy": np.__version__,
            "seed": spec.seed,
            "cell_deg": self.grid.cell_x,
            "years": [spec.years[0], spec.years[-1]],
        }
        self._last: tuple[Window, dict[str, NDArray[np.float32]]] | None = None

    @cached_property
    def _waves(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """By field: waves along rows (M, H), with their amplitudes, and along columns (M, W)."""
        latitudes, longitudes = np.deg2rad(self.grid.latitudes()), np.deg2rad(self.grid.longitudes())
        highest = max(2, self.grid.columns // _SHORTEST_CELLS)
        parts = {}
        for name, exponent in _EXPONENTS.items():
            rng = generator(self.spec.seed, f"globe {name}")
            # Whole numbers around the Earth: no seam. Between the poles nothing has to close.
            spread = np.geomspace(1.5, highest, _WAVES)
            around = np.unique(np.rint(spread * rng.uniform(0.8, 1.2, _WAVES)).clip(1, highest))
            along = around * rng.uniform(0.6, 1.4, len(around))
            amplitude = around**-exponent
            amplitude *= 2.0 / np.sqrt(np.square(amplitude).sum())  # a product of two waves has a variance of 1/4
            phases = rng.uniform(0, 2 * np.pi, (2, len(around), 1))
            rows = amplitude[:, None] * np.cos(along[:, None] * latitudes + phases[0])
            columns = np.cos(around[:, None] * longitudes + phases[1])
            parts[name] = (rows.astype(np.float32), columns.astype(np.float32))
        return parts

    def _field(self, name: str, window: Window) -> NDArray[np.float32]:
        """Sum of waves (rows, columns), of zero mean and a variance of about 1.

        Added up element by element and not as a product of matrices, whose rounding depends on their shape: a cell has
        the same value in every window.
        """
        along, around = self._waves[name]
        along = along[:, window.row : window.row + window.rows]
        around = np.ascontiguousarray(around[:, window.column : window.column + window.columns])
        field = np.empty((window.rows, window.columns), np.float32)
        part = np.empty((_ROWS, window.columns), np.float32)
        for row in range(0, window.rows, _ROWS):
            total = field[row : row + _ROWS]
            some = part[: len(total)]
            np.multiply(along[0, row : row + _ROWS, None], around[0], out=total)
            for rows, columns in zip(along[1:], around[1:], strict=True):
                np.multiply(rows[row : row + _ROWS, None], columns, out=some)
                total += some
        return field

    def _fields(self, window: Window) -> dict[str, NDArray[np.float32]]:
        """All fields of a window, and the temperature (degrees Celsius). Years are asked for one after another."""
        if self._last is None or self._last[0] != window:
            self._last = None  # let go before as much is made again
            fields = {name: self._field(name, window) for name in _EXPONENTS}
            latitudes = self.grid.latitudes(window.row, window.rows)[:, None]
            warmth = (44.0 * np.cos(np.deg2rad(latitudes)) - 16.0).astype(np.float32)
            fields["temperature"] = warmth - 6.0 * np.maximum(fields["height"] - _SEA_LEVEL, 0)
            self._last = (window, fields)
        return self._last[1]

    def classes(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a year; 255 in the sea."""
        fields = self._fields(window)
        natural = np.where(fields["moisture"] > 0, np.uint8(FOREST), np.uint8(GRASS))
        bare = (fields["temperature"] < -4) | (fields["moisture"] < -1.3)
        natural[bare] = SPARSE
        for use, index in _USES.items():
            natural[(fields[use] > self._border(use, year)) & ~bare] = index
        natural[np.abs(fields["lakes"]) < _LAKE] = WATER
        natural[fields["height"] <= _SEA_LEVEL] = NODATA
        return natural

    def _border(self, use: str, year: int) -> np.float32:
        """Value of a use's field above which it is in a year: what is wanted, and a slow to and fro."""
        phase = 2 * np.pi * (year / _SWING_YEARS + list(_USES).index(use) / len(_USES))
        return np.float32(NormalDist().inv_cdf(1 - wanted_share(use, year)) + _SWING * np.sin(phase))

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (5, rows, columns) in their units; the sea has elevation, slope, soil and distance 0."""
        fields = self._fields(window)
        statics = np.empty((len(self.static_channels), window.rows, window.columns), np.float32)
        np.rint(700.0 * (fields["height"] - _SEA_LEVEL), out=statics[0])
        np.rint(12.0 * np.abs(fields["pasture"]), out=statics[1])
        statics[1] /= 4
        np.rint(32.0 + 16.0 * fields["cropland"], out=statics[2])
        np.clip(statics[2] / 64, 0, 1, out=statics[2])
        np.rint(40.0 * np.maximum(np.abs(fields["lakes"]) - _LAKE, 0), out=statics[3])
        statics[3] /= 2
        statics[:4, fields["height"] <= _SEA_LEVEL] = 0
        statics[4] = self.grid.latitudes(window.row, window.rows)[:, None]
        return statics

    def continuous_field(self, name: str, year: int, window: Window) -> NDArray[np.float32]:
        """Refuse: there is none."""
        raise InputError(f"the synthetic globe has no field {name}")

    def fractions(self) -> Fractions:
        """Fractions of all classes on the coarse grid, of the area that the fine grid covers of each coarse cell."""
        coarse = self.grid.coarse(self.spec.coarse_deg)

        def read(years: Sequence[int], row: int, rows: int) -> NDArray[np.float32]:
            fractions = np.empty((len(years), len(self.table), rows, coarse.columns), np.float32)
            for i in range(rows):
                fractions[:, :, i] = self._coarse_row(coarse, row + i, years)
            return fractions

        return Fractions(coarse, self.table.names, read)

    def _coarse_row(self, coarse: Grid, row: int, years: Sequence[int]) -> NDArray[np.float64]:
        """Fractions (Y, C, w) of one row of coarse cells, whose columns hold whole fine ones."""
        edges = [np.sin(np.deg2rad(np.clip(e, -90, 90))) for e in (coarse.latitude_edges(row, 1), self._edges)]
        shared = overlap(*edges)[0]
        touched = np.nonzero(shared)[0]
        window = Window(int(touched[0]), 0, int(touched[-1] - touched[0] + 1), self.grid.columns)
        weights = shared[window.row : window.row + window.rows]
        classes = len(self.table)
        # Cells of one class in one coarse cell, counted row by row; the last place is for those without a class.
        place = (classes + 1) * (np.arange(self.grid.columns) // (self.grid.columns // coarse.columns))
        areas = np.zeros((len(years), coarse.columns * (classes + 1)))
        for y, year in enumerate(years):
            for weight, line in zip(weights, np.minimum(self.classes(year, window), classes), strict=True):
                areas[y] += weight * np.bincount(place + line, minlength=areas.shape[1])
        areas /= weights.sum() * (self.grid.columns // coarse.columns)
        return areas.reshape(len(years), coarse.columns, -1).transpose(0, 2, 1)[:, :classes]

    @cached_property
    def _edges(self) -> NDArray[np.float64]:
        return self.grid.latitude_edges()


def write_global_archives(
    folder: str | Path,
    cell_deg: float,
    years: Sequence[int],
    seed: int = 0,
    *,
    anchor_year: int | None = None,
    map_years: Sequence[int] = (),
    coarse_deg: float = COARSE_CELL_DEG,
    south_deg: float = -90.0,
    north_deg: float = 90.0,
) -> Archives:
    """Write archives of a synthetic globe: what a reconstruction of the whole Earth takes, at any cell size.

    Parameters
    ----------
    folder : str or Path
        Where; files of the same names are replaced.
    cell_deg : float
        Fine cells: 1/120 for 30 arc-seconds (43,200 columns), 0.01, or a few degrees for a test.
    years : sequence of int
        One after another.
    seed : int
        The same seed gives the same globe.
    anchor_year : int, optional
        The middle one where absent.
    map_years : sequence of int
        Years whose classes are written beside the anchor's.
    coarse_deg : float
        Cells of the scenario, a whole multiple of ``cell_deg``.
    south_deg, north_deg : float
        A belt of the globe: 34 degrees are 4,096 rows of 30 arc-seconds.

    Raises
    ------
    InputError
        If sizes or years do not fit, or the folder cannot be written.
    """
    globe = Globe(GlobeSpec(cell_deg, tuple(years), seed, coarse_deg, south_deg, north_deg))
    anchor = globe.years[len(globe.years) // 2] if anchor_year is None else anchor_year
    absent = sorted({anchor, *map_years} - set(globe.years))
    if absent:
        raise InputError(f"maps are wanted of {absent}, expected years of {globe.years[0]} to {globe.years[-1]}")
    fractions = globe.fractions()
    check_archives(fractions.grid)
    return write_archives(folder, globe, fractions, anchor, map_years)

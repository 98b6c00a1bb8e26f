"""What land-use files are made from: fine fields read window by window, and a coarse forcing beside them.

What is known of the training tiles, their statistics, is summed up here too.

Archives and the synthetic world both give a :class:`FineSource`; :mod:`earthsr.landuse.write` makes files of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import DataError
from earthsr.geo.areas import class_areas, overlaps
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import NODATA, ClassTable

ForcingKind = Literal["scenario", "oracle"]

#: Cell size of LUH2's grid.
COARSE_CELL_DEG: Final = 0.25

#: Rounding that fractions may show beyond 0 and 1; LUH2's own sums reach 1 + 1e-6.
FRACTION_SLACK: Final = 1e-4


@dataclass(frozen=True)
class Channel:
    """Name and unit of one static or continuous field."""

    name: str
    units: str


@dataclass(frozen=True)
class ContinuousField:
    """A continuous field that a ``head: continuous`` predicts, such as leaf area index by month."""

    name: str
    units: str
    channels: tuple[str, ...]
    """For example the months."""
    scale_factor: float
    """Unit of the stored bytes: value = byte * scale_factor, 255 = no value."""


@dataclass(frozen=True)
class Forcing:
    """Coarse fractions of every year."""

    kind: ForcingKind
    """``oracle``: aggregated from the fine truth itself."""
    grid: Grid
    channels: tuple[str, ...]
    years: tuple[int, ...]
    fractions: NDArray[np.float32]
    """(Y, C, h, w), 0 to 1, of the area of the coarse cell; NaN where the scenario has no value."""
    of_class: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Channels that add up to a class, by the class's name; classes that the forcing does not know are left out."""

    def check(self, source: str) -> None:
        """Check shape and values.

        Raises
        ------
        DataError
            If a fraction is outside 0 to 1, or those of a cell add up to more; the message names variable, cell and
            year.
        """
        expected = (len(self.years), len(self.channels), self.grid.rows, self.grid.columns)
        if self.fractions.shape != expected:
            raise DataError(f"{source}: forcing has shape {self.fractions.shape}, expected {expected}")
        for y, year in enumerate(self.years):
            values = self.fractions[y]
            bad = (values < -FRACTION_SLACK) | (values > 1 + FRACTION_SLACK)
            if bad.any():
                c, i, j = (int(k) for k in np.argwhere(bad)[0])
                raise DataError(
                    f"{source}: {self.channels[c]} is {values[c, i, j]:g} in {year} at {self._cell(i, j)}, expected a "
                    "fraction of 0 to 1; is it in percent, or a fill value?"
                )
            total = np.nansum(values, axis=0)
            if (total > 1 + 10 * FRACTION_SLACK).any():
                i, j = (int(k) for k in np.argwhere(total > 1 + 10 * FRACTION_SLACK)[0])
                raise DataError(
                    f"{source}: the fractions {', '.join(self.channels)} add up to {total[i, j]:g} in {year} at "
                    f"{self._cell(i, j)}, expected at most 1"
                )

    def _cell(self, row: int, column: int) -> str:
        latitude, longitude = self.grid.latitudes()[row], self.grid.longitudes()[column]
        return f"{abs(latitude):g} {'NS'[int(latitude < 0)]}, {abs(longitude):g} {'EW'[int(longitude < 0)]}"


class FineSource(Protocol):
    """Fine fields on one grid, read by windows so that nothing larger than a window need be in memory."""

    @property
    def grid(self) -> Grid:
        """The fine grid."""
        ...

    @property
    def crs(self) -> str:
        """Coordinate reference system, such as ``EPSG:4326``."""
        ...

    @property
    def years(self) -> tuple[int, ...]:
        """Years, ascending."""
        ...

    @property
    def table(self) -> ClassTable:
        """What class indices mean."""
        ...

    @property
    def static_channels(self) -> tuple[Channel, ...]:
        """Names and units of the static fields."""
        ...

    @property
    def continuous(self) -> tuple[ContinuousField, ...]:
        """Continuous fields, none as a rule."""
        ...

    @property
    def description(self) -> str:
        """One line: what the data are and where they come from; says synthetic where they are."""
        ...

    @property
    def attributes(self) -> dict[str, Any]:
        """JSON-able provenance: sources, checksums, parameters, seed."""
        ...

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (C_s, rows, columns) in their units; NaN where there is no value."""
        ...

    def classes(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a year; 255 = nodata."""
        ...

    def continuous_field(self, name: str, year: int, window: Window) -> NDArray[np.float32]:
        """Continuous field (M, rows, columns) of a year in its units; NaN where there is no value."""
        ...


def aggregate(source: FineSource, cell_deg: float = COARSE_CELL_DEG) -> Forcing:
    """Fractions of all classes on a coarse grid, aggregated from the fine classes: an oracle forcing.

    A fraction is the class's area over the area that the fine grid covers of the coarse cell, cells without a class
    included, as LUH2's fractions include water and ice. One row of coarse cells is in memory at a time.
    """
    grid = source.grid.coarse(cell_deg)
    k, years = len(source.table), source.years
    fractions = np.zeros((len(years), k, grid.rows, grid.columns), np.float32)
    fine_rows, fine_columns = overlaps(grid, source.grid)
    for i in range(grid.rows):
        touched = np.nonzero(fine_rows[i])[0]
        if not touched.size:
            continue
        window = Window(int(touched[0]), 0, int(touched[-1] - touched[0] + 1), source.grid.columns)
        weights = fine_rows[i : i + 1, window.row : window.row + window.rows]
        for y, year in enumerate(years):
            areas, covered = class_areas(source.classes(year, window), k, weights, fine_columns)
            fractions[y, :, i] = (areas / np.maximum(covered, 1e-30))[:, 0]
    names = source.table.names
    return Forcing("oracle", grid, names, years, fractions, {name: (name,) for name in names})


@dataclass(frozen=True)
class LandUseStatistics:
    """Of the training tiles in the years that are not held out."""

    static_mean: tuple[float, ...]
    static_std: tuple[float, ...]
    """Per static channel, in its units; 1 where a channel is flat."""
    class_counts: tuple[int, ...]
    """Cells of every class over all years."""
    changed: float
    """Share of cells whose class differs from the year before in the file."""
    continuous: dict[str, tuple[float, float]]
    """Mean and standard deviation of every continuous field over all its channels."""
    first_year: int
    last_year: int

    def fits(self, channels: int, classes: int, fields: Iterable[str]) -> bool:
        """Whether they are of that many static channels and classes and of those fields, finite, deviations above 0."""
        spread = (*self.static_std, *(std for _, std in self.continuous.values()))
        values = (*self.static_mean, *spread, *(mean for mean, _ in self.continuous.values()))
        counts = len(self.static_mean) == len(self.static_std) == channels and len(self.class_counts) == classes
        known = set(fields) <= set(self.continuous)
        return counts and known and all(map(math.isfinite, values)) and all(std > 0 for std in spread)

    def normalisation(self, target: str | None) -> ChannelNormalisation:
        """Return what takes fields to the network; ``target`` names a continuous field, None stands for classes."""
        offset, scale = (0.0, 1.0) if target is None else self.continuous[target]
        return ChannelNormalisation(self.static_mean, self.static_std, offset, scale)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LandUseStatistics:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a value is missing or of the wrong type.
        """
        return cls(
            static_mean=tuple(float(v) for v in values["static_mean"]),
            static_std=tuple(float(v) for v in values["static_std"]),
            class_counts=tuple(int(v) for v in values["class_counts"]),
            changed=float(values["changed"]),
            continuous={str(k): (float(m), float(s)) for k, (m, s) in values["continuous"].items()},
            first_year=int(values["first_year"]),
            last_year=int(values["last_year"]),
        )


class RunningStatistics:
    """Adds up tile by tile, in float64."""

    def __init__(self, source: FineSource, years: tuple[int, ...]) -> None:
        self.source, self.years = source, years
        channels = len(source.static_channels)
        self._static = np.zeros((3, channels))
        self._continuous = {field.name: np.zeros(3) for field in source.continuous}
        self._counts = np.zeros(len(source.table), np.int64)
        self._changed, self._pairs = 0, 0

    def add(self, window: Window) -> None:
        """Add one tile."""
        fields = self.source.static(window).astype(np.float64)
        valid = np.isfinite(fields)
        filled = np.where(valid, fields, 0.0)
        self._static += np.stack([valid.sum((1, 2)), filled.sum((1, 2)), np.square(filled).sum((1, 2))])
        before = None
        for year in self.years:
            classes = self.source.classes(year, window)
            self._counts += np.bincount(classes.ravel(), minlength=256)[: len(self._counts)]
            if before is not None:
                both = (classes != NODATA) & (before != NODATA)
                self._pairs += int(both.sum())
                self._changed += int((both & (classes != before)).sum())
            before = classes
            for name, sums in self._continuous.items():
                values = self.source.continuous_field(name, year, window).astype(np.float64)
                values = values[np.isfinite(values)]
                sums += (values.size, values.sum(), np.square(values).sum())

    def result(self) -> LandUseStatistics:
        """Return the statistics of all tiles so far."""
        mean, std = _moments(self._static)
        continuous = {name: tuple(float(v) for v in _moments(sums)) for name, sums in self._continuous.items()}
        return LandUseStatistics(
            static_mean=tuple(mean.tolist()),
            static_std=tuple(std.tolist()),
            class_counts=tuple(self._counts.tolist()),
            changed=self._changed / max(self._pairs, 1),
            continuous=continuous,  # type: ignore[arg-type]
            first_year=self.years[0],
            last_year=self.years[-1],
        )


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, total, squares = sums
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - np.square(mean), 0)
    # A variance that is only the rounding of a large mean is none.
    flat = variance <= 1e-12 * np.square(mean)
    return mean, np.where(flat, 1.0, np.sqrt(np.where(flat, 1.0, variance)))

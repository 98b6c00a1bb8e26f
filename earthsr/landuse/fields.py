"""What land-use files are made from: fine fields read window by window, and a coarse forcing beside them.

What is known of the training tiles, their statistics, is summed up here too.

Archives and the synthetic world both give a :class:`FineSource`; :mod:`earthsr.landuse.write` makes files of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Coarse fractions by year, read or made when they are asked for: those of all years may be larger than memory."""

    kind: ForcingKind
    """``oracle``: aggregated from the fine truth itself."""
    grid: Grid
    channels: tuple[str, ...]
    years: tuple[int, ...]
    read: Callable[[int], NDArray[np.float32]]
    """Fractions (C, h, w) of a year, 0 to 1, of the area of the coarse cell; NaN where the scenario has no value."""
    of_class: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Channels that add up to a class, by the class's name; classes that the forcing does not know are left out."""
    notes: list[str] = field(default_factory=list)
    """What provenance should say of the years that have been read."""

    def of_year(self, year: int, source: str) -> NDArray[np.float32]:
        """Fractions (C, h, w) of a year.

        Raises
        ------
        DataError
            If they have another shape or are no fractions (:func:`require_fractions`); the message begins with
            ``source``.
        """
        values = self.read(year)
        expected = (len(self.channels), self.grid.rows, self.grid.columns)
        if values.shape != expected:
            raise DataError(f"{source}: forcing has shape {values.shape} in {year}, expected {expected}")
        require_fractions(values, self.channels, self.grid, year, source)
        return values


def require_fractions(values: NDArray[np.float32], channels: Sequence[str], grid: Grid, year: int, source: str) -> None:
    """Check the fractions (C, h, w) of a year.

    Raises
    ------
    DataError
        If a fraction is outside 0 to 1, or those of a cell add up to more; the message begins with ``source`` and names
        variable, cell and year.
    """

    def place(row: int, column: int) -> str:
        latitude, longitude = grid.latitudes()[row], grid.longitudes()[column]
        return f"{abs(latitude):g} {'NS'[int(latitude < 0)]}, {abs(longitude):g} {'EW'[int(longitude < 0)]}"

    bad = (values < -FRACTION_SLACK) | (values > 1 + FRACTION_SLACK)
    if bad.any():
        c, i, j = (int(k) for k in np.argwhere(bad)[0])
        raise DataError(
            f"{source}: {channels[c]} is {values[c, i, j]:g} in {year} at {place(i, j)}, expected a fraction of 0 to "
            "1; is it in percent, or a fill value?"
        )
    total = np.nansum(values, axis=0)
    if (total > 1 + 10 * FRACTION_SLACK).any():
        i, j = (int(k) for k in np.argwhere(total > 1 + 10 * FRACTION_SLACK)[0])
        raise DataError(
            f"{source}: the fractions {', '.join(channels)} add up to {total[i, j]:g} in {year} at {place(i, j)}, "
            "expected at most 1"
        )


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
    grid, k, names = source.grid.coarse(cell_deg), len(source.table), source.table.names
    fine_rows, fine_columns = overlaps(grid, source.grid)

    def read(year: int) -> NDArray[np.float32]:
        fractions = np.zeros((k, grid.rows, grid.columns), np.float32)
        for i in range(grid.rows):
            touched = np.nonzero(fine_rows[i])[0]
            if not touched.size:
                continue
            window = Window(int(touched[0]), 0, int(touched[-1] - touched[0] + 1), source.grid.columns)
            weights = fine_rows[i : i + 1, window.row : window.row + window.rows]
            areas, covered = class_areas(source.classes(year, window), k, weights, fine_columns)
            fractions[:, i] = (areas / np.maximum(covered, 1e-30))[:, 0]
        return fractions

    return Forcing("oracle", grid, names, source.years, read, {name: (name,) for name in names})


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


@dataclass(frozen=True)
class TileSums:
    """Sums over training tiles, in float64; ``a + b`` adds up."""

    static: NDArray[np.float64]
    """(3, C_s): values, their sum and the sum of their squares."""
    continuous: Mapping[str, NDArray[np.float64]]
    """(3,) by field."""
    classes: NDArray[np.int64]
    """(K,), cells of every class over all years."""
    changed: int = 0
    """Cells whose class differs from the year before."""
    pairs: int = 0
    """Cells that have a class in a year and in the year before."""

    @classmethod
    def none(cls, channels: int, classes: int, continuous: Iterable[str]) -> TileSums:
        """Sums over no tile."""
        return cls(np.zeros((3, channels)), {name: np.zeros(3) for name in continuous}, np.zeros(classes, np.int64))

    @classmethod
    def of(
        cls,
        static: NDArray[np.float32],
        maps: NDArray[np.uint8],
        continuous: Mapping[str, NDArray[np.float32]],
        classes: int,
    ) -> TileSums:
        """Sum up a tile: static fields (C_s, P, P), class indices (Y, P, P), continuous fields (Y, M, P, P)."""
        before, after = maps[:-1], maps[1:]
        both = (after != NODATA) & (before != NODATA)
        return cls(
            np.stack([_sums(field) for field in static], axis=1),
            {name: _sums(values) for name, values in continuous.items()},
            np.bincount(maps.ravel(), minlength=256)[:classes].astype(np.int64),
            int((both & (after != before)).sum()),
            int(both.sum()),
        )

    def __add__(self, other: TileSums) -> TileSums:
        return TileSums(
            self.static + other.static,
            {name: sums + other.continuous[name] for name, sums in self.continuous.items()},
            self.classes + other.classes,
            self.changed + other.changed,
            self.pairs + other.pairs,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description, exact to the last bit."""
        continuous = {name: sums.tolist() for name, sums in self.continuous.items()}
        return {
            **asdict(self),
            "static": self.static.tolist(),
            "continuous": continuous,
            "classes": self.classes.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TileSums:
        """Read what :meth:`to_dict` gave."""
        continuous = {name: np.array(sums, np.float64) for name, sums in values["continuous"].items()}
        static, classes = np.array(values["static"], np.float64), np.array(values["classes"], np.int64)
        return cls(static, continuous, classes, values["changed"], values["pairs"])

    def statistics(self, years: tuple[int, ...]) -> LandUseStatistics:
        """Return the statistics of the tiles, which are of some ``years``."""
        mean, std = _moments(self.static)
        continuous = {name: tuple(float(v) for v in _moments(sums)) for name, sums in self.continuous.items()}
        return LandUseStatistics(
            static_mean=tuple(mean.tolist()),
            static_std=tuple(std.tolist()),
            class_counts=tuple(self.classes.tolist()),
            changed=self.changed / max(self.pairs, 1),
            continuous=continuous,  # type: ignore[arg-type]
            first_year=years[0],
            last_year=years[-1],
        )


def _sums(values: NDArray[np.float32]) -> NDArray[np.float64]:
    known = values[np.isfinite(values)].astype(np.float64)
    return np.array([known.size, known.sum(), np.square(known).sum()])


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, total, squares = sums
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - np.square(mean), 0)
    # A variance that is only the rounding of a large mean is none.
    flat = variance <= 1e-12 * np.square(mean)
    return mean, np.where(flat, 1.0, np.sqrt(np.where(flat, 1.0, variance)))

"""What land-use files are made from: fine fields read window by window, and a coarse forcing beside them.

Archives and the synthetic world both give a :class:`FineSource`; :mod:`earthsr.landuse.write` makes files of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.geo.areas import class_areas, overlaps
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.classes import ClassTable

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


def class_fractions(
    values: NDArray[np.float32], channels: Sequence[str], of_class: Mapping[str, Sequence[str]], names: Sequence[str]
) -> NDArray[np.float32]:
    """Fractions of classes, the sums of those of their channels.

    Parameters
    ----------
    values : ndarray of shape (..., C, h, w)
        Of the channels.
    channels, names : sequence of str
        Of the C channels and the K classes.
    of_class : mapping
        Channels of each class that the forcing knows.

    Returns
    -------
    ndarray of shape (..., K, h, w)
        NaN for classes that the forcing does not know.
    """
    found = np.full((*values.shape[:-3], len(names), *values.shape[-2:]), np.nan, np.float32)
    for k, name in enumerate(names):
        places = [channels.index(channel) for channel in of_class.get(name, ())]
        if places:
            found[..., k, :, :] = values[..., places, :, :].sum(axis=-3)
    return found


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

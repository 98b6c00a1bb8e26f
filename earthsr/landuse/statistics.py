"""Statistics of the training tiles of a land-use data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from earthsr.data.normalise import ChannelNormalisation
from earthsr.geo.window import Window
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import FineSource


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
        self._continuous = {each.name: np.zeros(3) for each in source.continuous}
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

"""Class rasters and static fields of archives as one source of fine fields."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.errors import InputError
from earthsr.geo.times import spans
from earthsr.geo.window import Window
from earthsr.landuse.fields import ContinuousField
from earthsr.landuse.sources.class_maps import ClassMaps
from earthsr.landuse.sources.statics import StaticField, StaticFields
from earthsr.store import fingerprint

#: Attributes of HDF5 hold 64 KB; beyond so many files one checksum stands for all.
_MOST_FILES: Final = 200


class ArchiveSource:
    """Fine fields of archives, as :class:`earthsr.landuse.fields.FineSource` has them.

    Parameters
    ----------
    maps : ClassMaps
        Class rasters.
    statics : StaticFields
        Static fields on their grid.
    years : sequence of int
        Years of the maps that are taken.
    """

    def __init__(self, maps: ClassMaps, statics: StaticFields, years: Sequence[int]) -> None:
        absent = sorted(set(years) - set(maps.years))
        if absent:
            raise InputError(f"no class map for {spans(absent)}; there are maps for {spans(maps.years)}")
        self._maps, self._statics = maps, statics
        self.grid, self.crs, self.table = maps.grid, maps.crs, maps.table
        self.years = tuple(sorted(years))
        self.static_channels = tuple(each.channel for each in statics.fields)
        self.continuous: tuple[ContinuousField, ...] = ()
        files = [path.name for path in maps.paths(self.years)]
        some = ", ".join(files) if len(files) <= 3 else f"{files[0]} and {len(files) - 1} more files"
        self.description = f"classes {self.table.name} of {spans(self.years)} from {some}"
        self.attributes: dict[str, Any] = {}

    def static(self, window: Window) -> NDArray[np.float32]:
        """Static fields (C_s, rows, columns) in their units; NaN where there is no value."""
        return np.stack([each.read(window) for each in self._statics.fields])

    def classes(self, year: int, window: Window) -> NDArray[np.uint8]:
        """Class indices (rows, columns) of a year; 255 = nodata."""
        return self._maps.read(year, window)

    def continuous_field(self, name: str, year: int, window: Window) -> NDArray[np.float32]:
        """Refuse: archives of classes hold no continuous field."""
        raise InputError(f"{self.description}: holds no continuous field {name}")

    def check(self) -> None:
        """Read every map of every year once.

        Raises
        ------
        DataError
            If a block is damaged or a code is in no class; the message names file, year and cell.
        """
        bands = self._maps.bands()
        work = [(year, band) for year in self.years for band in bands]
        cells = len(self.years) * self.grid.rows * self.grid.columns
        for year, band in tqdm(work, desc="check classes", disable=True if cells < 10**8 else None):
            self._maps.indices(year, band)

    def describe(self, scenario: Iterable[Path], parameters: dict[str, Any], notes: list[str]) -> None:
        """Write the provenance: files by name, checksum and size, parameters, and what was assumed."""
        self.attributes = {
            "classes": _fingerprints(self._maps.paths(self.years)),
            "static": describe_statics(self._statics.fields),
            "scenario": _fingerprints(scenario),
            "parameters": parameters,
            "notes": notes,
        }


def describe_statics(fields: Iterable[StaticField]) -> list[dict[str, Any]]:
    """Name, units, file and how it was made, of each static field."""
    fields = list(fields)
    # Several fields may come from one large file.
    files = {path: fingerprint(path) for path in {each.path for each in fields} if path is not None}
    return [
        {"name": each.channel.name, "units": each.channel.units}
        | ({"file": files[each.path]} if each.path is not None else {})
        | ({"note": each.note} if each.note else {})
        for each in fields
    ]


def _fingerprints(paths: Iterable[Path]) -> list[dict[str, Any]]:
    found = [fingerprint(path) for path in paths]
    if len(found) <= _MOST_FILES:
        return found
    digest = hashlib.sha256("".join(each["sha256"] for each in found).encode()).hexdigest()
    first, last = found[0]["name"], found[-1]["name"]
    whole = sum(each["bytes"] for each in found)
    return [{"name": f"{first} to {last}", "files": len(found), "bytes": whole, "sha256_of_sha256": digest}]

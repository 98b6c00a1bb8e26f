"""The rasters of a preparation: which files make which region, opened, checked, and fingerprinted.

Files are opened when their region is worked on, and closed after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.dem.prepare.pairs import TOLERANCE, overlap, require_ratio
from earthsr.errors import DataError, EarthsrWarning, InputError, listed
from earthsr.geo import (
    Georeference,
    Source,
    crs_name,
    mosaic,
    open_source,
    reprojected,
    same_crs,
)
from earthsr.geo.crs import parse_crs, wkt_of
from earthsr.geo.elevations import Elevations, Positive, elevations
from earthsr.geo.geotiff import SET_CRS
from earthsr.store import fingerprint


@dataclass(frozen=True)
class Region:
    """Rasters of one place."""

    name: str
    hr: tuple[str, ...]
    lr: tuple[str, ...] = ()
    """Of the coarse product; empty where coarse cells are block means."""


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    nodata: tuple[float, ...] = ()
    """Stored numbers of fine rasters that stand for no value, besides those that the files name."""
    lr_nodata: tuple[float, ...] = ()
    units: str | None = None
    """In place of what the files say."""
    positive: Positive | None = None
    """Which way values of fine rasters count, in place of what the files say."""
    lr_positive: Positive | None = None
    keep: tuple[float, ...] = ()
    """Stored numbers that are ground although they are repeated and stand alone."""
    crs: str | None = None
    """To reproject to."""


class Archive:
    """Regions and their rasters.

    Parameters
    ----------
    hr, lr : sequence of str or Path
        ``[REGION=]PATH``. Fine rasters of one region are one mosaic; coarse ones without a region serve all regions
        that have none of their own, wherever they overlap.
    reading : Reading
        How files are read.
    scale : int
        Fine cells per coarse cell and axis.

    Raises
    ------
    InputError
        If a file is given twice, or a coarse raster is of no region.
    DataError
        If a raster cannot be used; the message names it.
    """

    def __init__(self, hr: Sequence[str | Path], lr: Sequence[str | Path], reading: Reading, scale: int) -> None:
        self._reading, self._scale = reading, scale
        self._assumed: dict[str, None] = {}
        """What was warned of while rasters were opened."""
        self.silent: list[str] = []
        """Files that do not say their units."""
        self._wkt = "" if reading.crs is None else wkt_of(parse_crs(reading.crs, "--crs"))
        self._lattice: tuple[tuple[float, float], tuple[float, float]] | None = None
        self.resampled: list[str] = []
        """Files that are read on the grid of another CRS."""
        fine = _grouped(hr)
        if not fine:
            raise InputError("no raster is given; name one or more files with fine elevations")
        coarse: dict[str | None, list[str]] = {}
        for text in lr:
            name, path = _named(text)
            if name is not None and name not in fine:
                raise InputError(f"--lr {text}: no such region; there are {listed(list(fine))}")
            coarse.setdefault(name, []).append(path)
        _require_once([path for paths in fine.values() for path in paths], "")
        _require_once([path for paths in coarse.values() for path in paths], "--lr ")
        self.regions: dict[str, Region] = {}
        """In the order in which they were given."""
        self.grids: dict[str, Georeference] = {}
        """Of the fine cells."""
        self.coarse: dict[str, Georeference] = {}
        """Of the coarse product; empty where coarse cells are block means."""
        for name, paths in fine.items():
            self.regions[name] = Region(name, tuple(paths))
            with self._fine(name) as source:
                self.grids[name] = source.georeference
        self.wkt = self._wkt
        """The one CRS of all."""
        if lr:
            for name in fine:
                self.regions[name] = self._with_coarse(name, coarse)

    @property
    def geographic(self) -> bool:
        """Whether coordinates are degrees."""
        return next(iter(self.grids.values())).geographic

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Source, Source | None]]:
        """Open the rasters of a region: fine elevations, and the coarse product where there is one."""
        region = self.regions[name]
        with ExitStack() as stack:
            hr = stack.enter_context(self._fine(name))
            lr = None
            if region.lr:
                lr = mosaic(self._coarse(text, hr.georeference) for text in region.lr)
                stack.callback(lr.close)
                require_ratio(hr.georeference, lr.georeference, self._scale, hr.name, lr.name)
            yield hr, lr

    def names(self, texts: Sequence[str]) -> list[str]:
        """Names of files, without the folders that they lie in."""
        return [path_of(text).name for text in texts]

    def notes(self) -> list[str]:
        """What is noteworthy about the rasters."""
        notes = []
        if self.resampled:
            files = listed(self.names(self.resampled))
            notes.append(f"interpolated from another CRS onto {crs_name(self.wkt)}: {files}")
        uneven = [name for name, grid in self.grids.items() if abs(grid.cell_x / grid.cell_y - 1) > TOLERANCE]
        if uneven:
            grid = self.grids[uneven[0]]
            notes.append(
                f"cells of {listed(uneven)} are not square in units of the CRS ({uneven[0]}: {grid.cell_x:.6g} x "
                f"{grid.cell_y:.6g}); the size that the files give is from north to south"
            )
        return notes

    def warnings(self) -> list[str]:
        """What was assumed."""
        silent = [f"{listed(self.silent)}: has no units; metres are assumed (--units m says so)"] if self.silent else []
        return [*silent, *self._assumed]

    def files(self) -> list[dict[str, Any]]:
        """Name, size and SHA-256 of every file, with its region and part; those that serve several come once."""
        files: dict[str, dict[str, Any]] = {}
        for region in self.regions.values():
            for part, texts in (("fine", region.hr), ("coarse", region.lr)):
                for text in texts:
                    if text in files:
                        files[text]["region"] = None  # of several
                        continue
                    files[text] = {"region": region.name, "part": part, **_fingerprint(text)}
        return list(files.values())

    @contextmanager
    def _fine(self, name: str) -> Iterator[Source]:
        source = mosaic(self._one(text) for text in self.regions[name].hr)
        try:
            yield source
        finally:
            source.close()

    def _one(self, text: str) -> Source:
        """Open a fine raster, in the CRS of all."""
        reading = self._reading
        with self._noting():
            opened = open_source(text, nodata=reading.nodata, units=reading.units)
        source = self._checked(opened, text)
        grid = source.georeference
        self._wkt = self._wkt or grid.crs_wkt
        if same_crs(grid.crs_wkt, self._wkt):
            # One size of cells for all, on one lattice: tiles that touch fit together.
            self._lattice = self._lattice or ((grid.cell_x, grid.cell_y), (grid.west, grid.north))
            return source
        self._before_warping(source, text)
        if reading.crs is None:
            raise DataError(
                f"{source.name}: CRS is {crs_name(grid.crs_wkt)}, that of the rasters before it "
                f"{crs_name(self._wkt)}; --crs CRS reprojects all to one"
            )
        if text not in self.resampled:
            self.resampled.append(text)
        if self._lattice is None:
            warped = reprojected(path_of(text), self._wkt, nodata=reading.nodata, units=reading.units)
            warped.close()
            self._lattice = ((warped.georeference.cell_x, warped.georeference.cell_y), (0.0, 0.0))
        size, corner = self._lattice
        warped = reprojected(
            path_of(text), self._wkt, resolution=size, anchor=corner, nodata=reading.nodata, units=reading.units
        )
        return self._checked(warped, text)

    def _with_coarse(self, name: str, given: dict[str | None, list[str]]) -> Region:
        """Choose the coarse rasters of a region, and see that they can be opened and fit."""
        region, grid = self.regions[name], self.grids[name]
        own = given.get(name, [])
        texts = own or given.get(None, [])
        if not texts:
            raise DataError(f"region {name} has no coarse raster, others have: --lr {name}=PATH, or --lr PATH for all")
        chosen = []
        for text in texts:
            source = self._coarse(text, grid)
            source.close()
            if overlap(grid, source.georeference):
                chosen.append(text)
        if not chosen:
            where = ", ".join(f"{value:g}" for value in grid.bounds)
            raise DataError(
                f"{listed(self.names(texts))}: does not overlap region {name}, which covers {where} (west, south, "
                "east, north); give a coarse raster of that place"
            )
        self.regions[name] = region = Region(name, region.hr, tuple(chosen))
        with self.open(name) as (_, lr):
            assert lr is not None
            self.coarse[name] = lr.georeference
        return region

    def _coarse(self, text: str, grid: Georeference) -> Source:
        """Open a coarse raster for fine cells of a grid."""
        reading = self._reading
        with self._noting():
            opened = open_source(text, nodata=reading.lr_nodata, units=reading.units)
        source = self._checked(opened, text, "lr-")
        if same_crs(source.georeference.crs_wkt, grid.crs_wkt):
            return source
        self._before_warping(source, text)
        if reading.crs is None:
            raise DataError(
                f"{source.name}: CRS is {crs_name(source.georeference.crs_wkt)}, that of the fine rasters "
                f"{crs_name(grid.crs_wkt)}; --crs CRS reprojects all to one"
            )
        if text not in self.resampled:
            self.resampled.append(text)
        # On blocks of fine cells: it is interpolated once, and not again.
        warped = reprojected(
            path_of(text),
            grid.crs_wkt,
            resolution=(grid.cell_x * self._scale, grid.cell_y * self._scale),
            anchor=(grid.west, grid.north),
            resampling="cubic",
            nodata=reading.lr_nodata,
            units=reading.units,
        )
        return self._checked(warped, text, "lr-")

    def _checked(self, source: Source, text: str, prefix: str = "") -> Elevations:
        """Give a raster back that says where it is and holds elevations; a prefix is that of its options."""
        reading = self._reading
        try:
            if not source.georeference.crs_wkt:
                raise DataError(f"{source.name}: has no CRS; {SET_CRS}")
            with self._noting():
                raster = elevations(
                    source,
                    positive=reading.lr_positive if prefix else reading.positive,
                    keep=reading.keep,
                    option=f"--{prefix}nodata",
                    warn_of_units=False,
                )
        except InputError:
            source.close()
            raise
        if raster.assumed_metres and (name := path_of(text).name) not in self.silent:
            self.silent.append(name)
        return raster

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep what is warned of: a raster is opened several times, and all is said once, in the end."""
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always", EarthsrWarning)
            yield
        for warning in noted:
            self._assumed.setdefault(str(warning.message))

    def _before_warping(self, source: Elevations, text: str) -> None:
        """Close a raster that will be read on the grid of another CRS, where a fill value would be interpolated."""
        try:
            if self._reading.crs is not None and text not in self.resampled:
                source.require_no_fills()
        finally:
            source.close()


def require_one_size(grids: dict[str, Georeference]) -> None:
    """Raise a :class:`DataError` where regions have cells of different sizes, by more than 1 %."""
    (first, grid), *others = grids.items()
    for name, other in others:
        ratios = (other.cell_x / grid.cell_x, other.cell_y / grid.cell_y)
        if any(abs(ratio - 1) > TOLERANCE for ratio in ratios):
            raise DataError(
                f"region {name} has cells of {other.cell_x:.6g} x {other.cell_y:.6g}, region {first} of "
                f"{grid.cell_x:.6g} x {grid.cell_y:.6g} (x, y, in units of the CRS), expected one size within 1 %; "
                "--mix-cell-sizes takes them all the same"
            )


def path_of(text: str) -> Path:
    """Path of ``PATH`` or ``PATH:VARIABLE``."""
    path = Path(text)
    if not path.exists():
        head, colon, tail = text.rpartition(":")
        if colon and tail.isidentifier() and Path(head).exists():
            return Path(head)
    return path


def _named(text: str | Path) -> tuple[str | None, str]:
    """Split ``REGION=PATH``; an equals sign that belongs to a file's own name stays there."""
    whole = str(text)
    name, sign, path = whole.partition("=")
    if not sign or Path(whole).exists() or "/" in name:
        return None, whole
    if not name or not path:
        raise InputError(f"{whole}: expected REGION=PATH or PATH")
    return name, path


def _grouped(texts: Sequence[str | Path]) -> dict[str, list[str]]:
    """Files of each region; one without a name is called as its file."""
    named = [_named(text) for text in texts]
    own: dict[str, str] = {}
    for stem in {path_of(path).stem for name, path in named if name is None}:
        own |= _told_apart([path for name, path in named if name is None and path_of(path).stem == stem])
    grouped: dict[str, list[str]] = {}
    for name, path in named:
        grouped.setdefault(name or own[path], []).append(path)
    return grouped


def _told_apart(paths: Sequence[str]) -> dict[str, str]:
    """Names of files of one stem: with as many folders as differ, else with the suffix or the variable."""
    files = {path: path_of(path) for path in paths}
    if len(files) == 1:
        return {path: file.stem for path, file in files.items()}
    parts = {path: file.absolute().with_suffix("").parts[1:] for path, file in files.items()}
    for depth in range(2, max(map(len, parts.values())) + 1):
        names = {path: "-".join(part[-depth:]) for path, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    ends = {path: file.suffix[1:] if str(file) == path else path.rpartition(":")[2] for path, file in files.items()}
    return {path: f"{file.stem}-{ends[path]}" for path, file in files.items()}


def _require_once(texts: Sequence[str], option: str) -> None:
    seen: set[tuple[Path, str]] = set()
    for text in texts:
        key = (path_of(text).resolve(), text.rpartition(":")[2] if not Path(text).exists() else "")
        if key in seen:
            raise InputError(f"{option}{text} is given twice; a raster belongs to one region")
        seen.add(key)


def _fingerprint(text: str) -> dict[str, Any]:
    """Name, size and SHA-256 of a file, or of all files of a Zarr store; the variable where one is named."""
    path = path_of(text)
    variable = {} if path == Path(text) else {"variable": text.rpartition(":")[2]}
    return {**fingerprint(path), **variable}

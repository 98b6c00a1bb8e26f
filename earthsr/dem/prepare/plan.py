"""How terrain is divided: regions given to splits whole, the others cut into blocks, and patches laid out in these.

Nothing here reads a file: rows and columns are coarse cells of a region's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

import numpy as np

from earthsr.dem.degradation import Degradation
from earthsr.dem.prepare.pairs import FLAT_SEA, Alignment, FlatSea, align, own_blocks
from earthsr.dem.prepare.sources import Archive
from earthsr.errors import DataError, InputError, listed
from earthsr.geo import Georeference
from earthsr.geo.grid import Window


@dataclass(frozen=True)
class Ground:
    """What a split takes of a region."""

    region: str
    split: str
    bounds: tuple[float, float, float, float]
    """West, south, east, north, in units of the CRS."""
    cell: float
    """Size of a fine cell."""


def require_apart(grounds: Sequence[Ground], buffer: float, geographic: bool) -> list[str]:
    """Refuse regions of different splits that overlap; returns a note where some lie closer than the buffer.

    Parameters
    ----------
    grounds : sequence of Ground
        All of them.
    buffer : float
        In fine cells.
    geographic : bool
        Whether longitudes go round.

    Raises
    ------
    DataError
        If half a fine cell and more is in two splits.
    """
    bounds = np.array([ground.bounds for ground in grounds])
    if geographic:
        # Rasters may count longitudes from -180 or from 0; one may lie across either.
        turned = np.floor((bounds[:, 0] + 180) / 360) * 360
        bounds[:, [0, 2]] -= turned[:, None]
    splits = np.array([ground.split for ground in grounds])
    regions = np.array([ground.region for ground in grounds])
    cells = np.array([ground.cell for ground in grounds])
    close: list[tuple[str, str]] = []
    for i, ground in enumerate(grounds):
        others = np.flatnonzero((splits != ground.split) & (regions != ground.region) & (np.arange(len(grounds)) > i))
        if not len(others):
            continue
        shared = np.full(len(others), -np.inf)
        for turn in (-360, 0, 360) if geographic else (0,):
            west, east = bounds[others, 0] + turn, bounds[others, 2] + turn
            wide = np.minimum(east, bounds[i, 2]) - np.maximum(west, bounds[i, 0])
            high = np.minimum(bounds[others, 3], bounds[i, 3]) - np.maximum(bounds[others, 1], bounds[i, 1])
            shared = np.maximum(shared, np.minimum(wide, high))
        size = np.minimum(cells[others], ground.cell)
        overlapping = others[shared > 0.5 * size]
        if len(overlapping):
            other = grounds[overlapping[0]]
            raise DataError(
                f"regions {ground.region} ({ground.split}) and {other.region} ({other.split}) overlap: the same ground "
                "would be in two splits; give both to one split, or join them by giving them one name"
            )
        close += [(ground.region, grounds[j].region) for j in others[shared > -buffer * size]]
    if not close:
        return []
    first, second = close[0]
    more = f" (and {len(close) - 1} more pairs)" if len(close) > 1 else ""
    return [f"regions {first} and {second} are in different splits and lie side by side{more}: terrain goes on across"]


@dataclass(frozen=True)
class Layout:
    """What is cut where."""

    alignments: dict[str, Alignment]
    """Of every region."""
    blocks: dict[str, dict[Split, Window]]
    """Coarse cells of every split in every region."""
    jobs: dict[Split, list[Job]]
    """Windows to read, in the order of the files; of the splits that are written."""
    notes: list[str]


def lay_out(archive: Archive, plan: DemPlan, corrections: Mapping[str, tuple[float, float]] | None = None) -> Layout:
    """Align blocks, cut regions into splits, and see that no ground is in two of these.

    Parameters
    ----------
    archive : Archive
        The rasters.
    plan : DemPlan
        How they are divided.
    corrections : mapping, optional
        Per region, how far the coarse product lies to the south and to the east of where its file says, fine cells.

    Raises
    ------
    InputError, DataError
        If something does not fit.
    """
    given = plan.assign(list(archive.regions))
    alignments, blocks = {}, {}
    grounds: list[Ground] = []
    for name, grid in archive.grids.items():
        coarse = archive.coarse.get(name)
        if coarse is None:
            alignment = own_blocks(grid, plan.scale)
        else:
            alignment = align(grid, coarse, plan.scale, (corrections or {}).get(name, (0.0, 0.0)))
        alignments[name] = alignment
        blocks[name] = plan.blocks(name, alignment.rows.blocks, alignment.columns.blocks, given[name])
        for split, block in blocks[name].items():
            grounds.append(Ground(name, split, outer(grid, alignment, plan.scale, block), grid.cell_y))
    notes = require_apart(grounds, plan.buffer * plan.scale, archive.geographic)
    jobs: dict[Split, list[Job]] = {}
    for split in SPLITS:
        jobs_of_split = [
            job for name, own in blocks.items() if split in own for job in plan.jobs(name, split, own[split])
        ]
        if jobs_of_split:
            jobs[split] = jobs_of_split
    return Layout(alignments, blocks, jobs, notes)


def outer(grid: Georeference, alignment: Alignment, scale: int, window: Window) -> tuple[float, float, float, float]:
    """West, south, east and north edge of a window of blocks, in units of the CRS."""
    fine = Window(
        alignment.rows.first + scale * window.row,
        alignment.columns.first + scale * window.column,
        scale * window.rows,
        scale * window.columns,
    )
    return grid.part(fine).bounds


Split = Literal["train", "valid", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "valid", "test")

#: Coarse cells at each edge of a patch that scores leave out: so far patches of validation and test overlap.
BORDER: Final = 1

#: Fine cells that are read at a time; 16 MB, and some times as much while they are worked on.
_MOST_CELLS: Final = 2**22


@dataclass(frozen=True)
class DemPlan:
    """What patches are made, and where.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.DemPlan(scale=5, patch=32, buffer=8).shares
    (0.7, 0.1, 0.2)
    """

    scale: int = 5
    """Fine cells per coarse cell and axis."""
    patch: int = 32
    """Coarse cells per patch side."""
    stride: int | None = None
    """Most coarse cells between training patches; the patch size where absent."""
    axis: Literal["rows", "columns"] = "columns"
    """``columns``: blocks from west to east; ``rows``: blocks from south to north. Training is first."""
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test of a region that is cut; 0 leaves a split out, and a split that has a
    share is at least a patch wide."""
    buffer: int = 4
    """Coarse cells between blocks. Bicubic interpolation reads two to each side."""
    train_regions: tuple[str, ...] = ()
    """Names, or patterns such as ``N4*``, of regions that go into training whole."""
    valid_regions: tuple[str, ...] = ()
    """The same for validation."""
    test_regions: tuple[str, ...] = ()
    """The same for the test."""
    minimum_valid: float = 0.5
    """Patches with a smaller share of valid fine cells are left out, and always those that have none."""
    coast: tuple[float, float] = (0.05, 0.95)
    """Share of valid fine cells at or below 0 m from which on a patch is coast, and above which it is ocean. Land
    below the sea counts as sea, for elevation alone does not tell them apart."""
    flat_sea: FlatSea = "mask"
    """What becomes of fine cells at exactly 0 m where an independent coarse product has the floor of the sea: left
    out, filled with that product, or kept as they are."""
    mix_cell_sizes: bool = False
    """Allow regions of different cell sizes."""
    degradation: str = "block_mean"
    """What makes coarse cells of fine ones where there is no coarse product; see
    :meth:`earthsr.dem.degradation.Degradation.parse`."""
    fit_degradation: bool = False
    """Fit what makes the coarse product of the terrain, and write it beside the files."""

    def check(self) -> None:
        """Check numbers that can be checked without data.

        Raises
        ------
        InputError
            If one is out of range; the message says what is in it.
        """
        if not 2 <= self.scale <= 10:
            raise InputError(f"--scale is {self.scale}, expected 2 to 10 fine cells per coarse cell")
        Degradation.parse(self.degradation, self.scale)
        if self.patch < 4:
            raise InputError(f"--patch is {self.patch}, expected at least 4 coarse cells")
        if self.stride is not None and self.stride < 1:
            raise InputError(f"--stride is {self.stride}, expected at least 1 coarse cell")
        if self.axis not in ("rows", "columns"):
            raise InputError(f"--split-axis is {self.axis!r}, expected columns or rows")
        if not all(0 <= share <= 1 for share in self.shares) or not 0 < sum(self.shares) <= 1 + 1e-9:
            raise InputError(f"--shares are {_numbers(self.shares)}, expected three of 0 to 1, at most 1 together")
        if self.buffer < 0:
            raise InputError(f"--buffer is {self.buffer}, expected 0 or more coarse cells")
        if not 0 <= self.minimum_valid <= 1:
            raise InputError(f"--minimum-valid is {self.minimum_valid:g}, expected a share of 0 to 1")
        if self.flat_sea not in FLAT_SEA:
            raise InputError(f"--flat-sea is {self.flat_sea!r}, expected {', '.join(FLAT_SEA)}")
        if not 0 <= self.coast[0] <= self.coast[1] <= 1:
            raise InputError(f"--coast is {_numbers(self.coast)}, expected two shares of 0 to 1, the lower one first")

    def assign(self, regions: Sequence[str]) -> dict[str, Split | None]:
        """Split of every region that goes into one whole; None for those that are cut into blocks.

        Raises
        ------
        InputError
            If a pattern is no region's, or a region is asked for in two splits.
        """
        split_of: dict[str, Split | None] = dict.fromkeys(regions)
        patterns = (self.train_regions, self.valid_regions, self.test_regions)
        for split, wanted in zip(SPLITS, patterns, strict=True):
            for pattern in wanted:
                matching = [name for name in regions if fnmatchcase(name, pattern)]
                if not matching:
                    raise InputError(f"--{split}-region {pattern}: no such region; there are {listed(regions)}")
                for name in matching:
                    other = split_of[name]
                    if other not in (None, split):
                        raise InputError(f"region {name} is asked for in {other} and in {split}; give it to one")
                    split_of[name] = split
        whole = [split for split, share in zip(SPLITS, self.shares, strict=True) if share > 0]
        # One split has all the shares: there is nothing to cut.
        return {name: split or (whole[0] if len(whole) == 1 else None) for name, split in split_of.items()}

    def blocks(self, region: str, rows: int, columns: int, split: Split | None) -> dict[Split, Window]:
        """Coarse cells of every split in a region.

        Parameters
        ----------
        region : str
            For messages.
        rows, columns : int
            Coarse cells of the region.
        split : str or None
            Takes all; None cuts the region into blocks.

        Raises
        ------
        DataError
            If patches do not fit.
        """
        fine = f"{rows * self.scale} x {columns * self.scale} fine cells"
        if min(rows, columns) < self.patch:
            raise DataError(
                f"region {region} has {rows} x {columns} coarse cells ({fine}), smaller than a patch of {self.patch} x "
                f"{self.patch}; take smaller patches (--patch), or join neighbours by giving them one name"
            )
        if split is not None:
            return {split: Window(0, 0, rows, columns)}
        along = columns if self.axis == "columns" else rows
        wanted = [(name, share) for name, share in zip(SPLITS, self.shares, strict=True) if share > 0]
        room = along - self.buffer * (len(wanted) - 1)
        whole = sum(share for _, share in wanted)
        widths = [max(round(room * share / whole), self.patch) for _, share in wanted]
        largest = max(range(len(wanted)), key=lambda i: wanted[i][1])
        widths[largest] = room - sum(widths[:largest] + widths[largest + 1 :])
        if widths[largest] < self.patch:
            raise DataError(
                f"region {region} has {along} coarse {self.axis}, too few for {len(wanted)} blocks of a patch of "
                f"{self.patch} each with a buffer of {self.buffer} between them; take smaller patches (--patch), or "
                "give regions whole (--train-region, --valid-region, --test-region)"
            )
        blocks: dict[Split, Window] = {}
        start = 0
        for (name, _), width in zip(wanted, widths, strict=True):
            if self.axis == "columns":
                blocks[name] = Window(0, start, rows, width)
            else:
                blocks[name] = Window(rows - start - width, 0, width, columns)
            start += width + self.buffer
        return blocks

    def step(self, split: Split) -> int:
        """Most coarse cells from one patch of ``split`` to the next."""
        if split == "train":
            return self.stride or self.patch
        return self.patch - 2 * BORDER

    def jobs(self, region: str, split: Split, block: Window) -> Iterator[Job]:
        """Rows of patches that cover a block of ``region`` for ``split``.

        Evenly spaced, as pieces that fit into memory.
        """
        step = self.step(split)
        side = self.patch * self.scale
        across = max(_MOST_CELLS // side // self.scale, self.patch)
        columns = starts(block.column, block.columns, self.patch, step)
        for row in starts(block.row, block.rows, self.patch, step):
            piece: list[int] = []
            for column in columns:
                if piece and column + self.patch - piece[0] > across:
                    yield Job(region, split, row, tuple(piece))
                    piece = []
                piece.append(column)
            yield Job(region, split, row, tuple(piece))


@dataclass(frozen=True)
class Job:
    """Patches side by side, read as one window."""

    region: str
    split: Split
    row: int
    """First coarse row of all of them."""
    columns: tuple[int, ...]
    """First coarse column of each."""


def starts(first: int, length: int, patch: int, step: int) -> list[int]:
    """Evenly spaced first cells of patches that cover ``length`` cells with at most ``step`` from one to the next."""
    room = length - patch
    count = math.ceil(room / step) + 1
    return [first + int(i) for i in np.round(np.linspace(0, room, count))]


def shards(jobs: Sequence[Job], patches: int) -> list[list[Job]]:
    """Divide jobs, in their order, into pieces of work with at least so many patches each, but for the last."""
    pieces: list[list[Job]] = []
    held = patches
    for job in jobs:
        if held >= patches:
            pieces.append([])
            held = 0
        pieces[-1].append(job)
        held += len(job.columns)
    return pieces


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)

"""Patches cut from windows, and the folder in which a preparation keeps what is finished, so that a killed one goes on.

``DIR/.prepare-<hash>/`` holds ``plan.json``, shards of some hundred patches each, then ``summary.json``, then whole
files; every one is written beside its name and renamed, so that what has its name is whole. The hash is that of all
parameters and of the sources' checksums: shards of another plan are never taken for one's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.degradation import Degradation
from earthsr.dem.prepare.pairs import Alignment, Pair
from earthsr.dem.prepare.plan import DemPlan, Job, outer
from earthsr.dem.prepare.sources import Archive, Reading
from earthsr.dem.write import Split
from earthsr.errors import InputError, geo_module
from earthsr.geo.crs import gdal, parse_crs
from earthsr.geo.grid import Window
from earthsr.inference.journal import Journal, Written
from earthsr.inference.pieces import Place
from earthsr.store import WorkFolder, atomic_file, place_together, remove_leftovers, require_room

LAND, COAST, OCEAN = 0, 1, 2


@dataclass(frozen=True)
class CutPatches:
    """What was cut from one window."""

    patches: Split
    left_out: int
    """Patches with too few valid cells."""
    valid: int
    """Valid fine cells of the window."""


def cut(pair: Pair, job: Job, plan: DemPlan) -> CutPatches:
    """Cut the patches of a job that have enough valid cells.

    Fine cells are NaN where the mask is 0, and only there.
    """
    p, s = plan.patch, plan.scale
    first, last = job.columns[0], job.columns[-1]
    coarse, fine = pair.read(Window(job.row, first, p, last + p - first))
    kept, coarse_patches, fine_patches, surfaces = [], [], [], []
    for column in job.columns:
        left = column - first
        truth = fine[:, left * s : (left + p) * s]
        valid = ~np.isnan(truth)
        share = float(valid.mean())
        if not share or share < plan.minimum_valid:
            continue
        kept.append(column)
        coarse_patches.append(coarse[:, left : left + p])
        fine_patches.append(truth)
        surfaces.append(surface_of(truth[valid], plan.coast))
    count, q, grid = len(kept), p * s, pair.hr.georeference
    corners = [outer(grid, pair.alignment, s, Window(job.row, column, p, p)) for column in kept]
    corner = np.array([(west, north) for west, _, _, north in corners], np.float64).reshape(count, 2)
    columns = {"cell_size": np.full(count, grid.cell_y)}
    if not grid.geographic:
        columns["origin_xy"] = corner
        corner = degrees_of(corner, grid.crs_wkt)
    truth = np.stack(fine_patches) if kept else np.empty((0, q, q), np.float32)
    patches = Split(
        coarse=(np.stack(coarse_patches) if kept else np.empty((0, p, p), np.float32))[:, None],
        fine=truth[:, None],
        origin=corner,
        surface=np.array(surfaces, np.uint8),
        region=np.full(count, job.region, object),
        mask=(~np.isnan(truth[:, None])).astype(np.uint8),
        columns=columns,
    )
    return CutPatches(patches, len(job.columns) - count, int((~np.isnan(fine)).sum()))


def surface_of(valid: NDArray[np.float32], coast: tuple[float, float]) -> int:
    """Say what a patch is by the share of its valid cells at or below 0 m: 0 land, 1 coast, 2 ocean."""
    sea = float((valid <= 0).mean())
    return LAND if sea < coast[0] else OCEAN if sea > coast[1] else COAST


def degrees_of(corners: NDArray[np.float64], wkt: str) -> NDArray[np.float64]:
    """Longitude and latitude (N, 2) on WGS 84 of points (N, 2) of a projection."""
    warp = geo_module("rasterio.warp")
    if not len(corners):
        return corners
    with gdal():
        longitude, latitude = warp.transform(parse_crs(wkt, "raster"), "EPSG:4326", corners[:, 0], corners[:, 1])
    return np.stack([longitude, latitude], axis=1)


_PREFIX = ".prepare-"

#: Bytes of names and headers in a shard.
_OVERHEAD = 2**16


class Shards(WorkFolder):
    """Finished pieces of a preparation.

    Parameters
    ----------
    root : Path
        Where the training files will be.
    key : str
        Hash of plan and sources.
    """

    def __init__(self, root: Path, key: str) -> None:
        super().__init__(root / f"{_PREFIX}{key[:16]}")

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Make the folder.

        Raises
        ------
        InputError
            If the folder cannot be made, or holds what an earlier preparation left and it is not said what to do.
        """
        root = self.path.parent
        mine = self.path.is_dir()
        if mine and not resume and not overwrite:
            raise InputError(f"{root} holds an unfinished preparation: --resume carries it on, --overwrite begins anew")
        others = [path for path in leftovers(root) if path != self.path]
        if others and not overwrite:
            raise InputError(
                f"{root} holds an unfinished preparation of another plan or of other files ({others[0].name}): "
                "--overwrite removes it; --resume carries it on with the same arguments and files"
            )
        for path in others:
            shutil.rmtree(path)
        if mine and not resume:
            shutil.rmtree(self.path)
        self.make()
        remove_leftovers(self.path)

    @property
    def committing(self) -> bool:
        """Whether files are on their way to their places."""
        return (self.path / "commit.json").is_file()

    def shard(self, split: str, number: int) -> Path:
        """Path of a shard."""
        return self.path / f"{split}-{number:06d}.npz"

    def journal(self) -> Journal:
        """Records of the shards that are written."""
        return Journal(self.path / "shards", self.path)

    def file(self, split: str) -> Path:
        """Path of a whole file, before it is moved to its place."""
        return self.path / f"{split}.h5"

    def remove_shards(self, split: str) -> None:
        """Remove the shards of a split, whose file is whole."""
        for path in self.path.glob(f"{split}-*.npz"):
            path.unlink()


def leftovers(root: Path) -> list[Path]:
    """Folders of preparations that did not end."""
    return sorted(root.glob(f"{_PREFIX}*")) if root.is_dir() else []


def write_shard(path: Path, cuts: Sequence[CutPatches]) -> None:
    """Write the patches of some jobs, atomically; masks are the NaN of the truth and are not written."""
    arrays: dict[str, NDArray] = {
        "left_out": np.array([window.left_out for window in cuts], np.int64),
        "valid": np.array([window.valid for window in cuts], np.int64),
    }
    for name in ("coarse", "fine", "origin", "surface"):
        arrays[name] = np.concatenate([getattr(window.patches, name) for window in cuts])
    arrays["region"] = np.concatenate([window.patches.region for window in cuts]).astype(str)
    for name in cuts[0].patches.columns:
        arrays[f"column_{name}"] = np.concatenate([window.patches.columns[name] for window in cuts])
    require_room(path.parent, sum(array.nbytes for array in arrays.values()) + _OVERHEAD)
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)


def read_shard(path: Path) -> tuple[Split, NDArray[np.int64], NDArray[np.int64]]:
    """Read a shard: its patches, and for every job those left out and the valid fine cells of its window."""
    with np.load(path, allow_pickle=False) as arrays:
        fine = arrays["fine"]
        prefix = "column_"
        columns = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
        patches = Split(
            coarse=arrays["coarse"],
            fine=fine,
            origin=arrays["origin"],
            surface=arrays["surface"],
            region=arrays["region"],
            mask=(~np.isnan(fine)).astype(np.uint8),
            columns=columns,
        )
        return patches, arrays["left_out"], arrays["valid"]


#: Split, number and windows of a shard.
ShardItem = tuple[str, int, list[Job]]


@dataclass(frozen=True)
class ShardRecipe:
    """How a worker opens what it cuts patches from: names of files, and the plan."""

    hr: tuple[str, ...]
    lr: tuple[str, ...]
    reading: Reading
    plan: DemPlan
    alignments: Mapping[str, Alignment]
    flat: frozenset[str]
    """Regions whose fine product has no sea floor."""
    key: str
    root: Path

    def open(self, place: Place) -> ShardStages:
        """Open the rasters; where it works makes no difference."""
        archive = Archive(self.hr, self.lr, self.reading, self.plan.scale)
        return ShardStages(archive, self, Shards(self.root, self.key))


class ShardStages:
    """Cuts the patches of a shard, and writes them.

    Parameters
    ----------
    archive : Archive
        The rasters.
    recipe : ShardRecipe
        How they are cut.
    work : Shards
        Where shards are kept.
    """

    def __init__(self, archive: Archive, recipe: ShardRecipe, work: Shards) -> None:
        self._archive, self._recipe, self._work = archive, recipe, work
        self._degradation = Degradation.parse(recipe.plan.degradation, recipe.plan.scale)
        self._stack, self._region = ExitStack(), ""
        self._pair: Pair | None = None

    def read(self, item: ShardItem) -> list[CutPatches]:
        """Read windows, and cut them."""
        return [cut(self._pair_of(job.region), job, self._recipe.plan) for job in item[2]]

    def compute(self, item: ShardItem, values: list[CutPatches]) -> list[CutPatches]:
        """Pass on what was cut: reading is the work."""
        return values

    def write(self, item: ShardItem, made: list[CutPatches]) -> Written:
        """Write the shard."""
        path = self._work.shard(item[0], item[1])
        write_shard(path, made)
        return Written((path.name,))

    def close(self) -> None:
        """Close the rasters."""
        self._stack.close()

    def _pair_of(self, region: str) -> Pair:
        if self._pair is None or self._region != region:
            self._stack.close()
            hr, lr = self._stack.enter_context(self._archive.open(region))
            plan, recipe = self._recipe.plan, self._recipe
            sea = plan.flat_sea if region in recipe.flat else "keep"
            self._pair = Pair(hr, lr, recipe.alignments[region], plan.scale, sea, self._degradation)
            self._region = region
        return self._pair


def move_into_place(work: Shards, splits: Sequence[str], all_splits: Sequence[str]) -> None:
    """Give files their final names, remove those of splits that other data had, and the work folder.

    A kill in between is made up for by a resumed preparation, which finds ``commit.json`` and goes on here.
    """
    moves = {f"{work.path.name}/{split}.h5": f"{split}/{split}.h5" for split in splits}
    gone = [f"{split}/{split}.h5" for split in all_splits if split not in splits]
    place_together(work.path.parent, moves, gone, "start the same command again with --resume")
    work.remove(last=("commit.json",))

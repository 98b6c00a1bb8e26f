"""The folder in which a preparation keeps what is finished, so that a killed one goes on.

``DIR/.prepare-<hash>/`` holds ``plan.json``, shards of some hundred patches each, then ``summary.json``, then whole
files; every one is written beside its name and renamed, so that what has its name is whole. The hash is that of all
parameters and of the sources' checksums: shards of another plan are never taken for one's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.prepare.patches import CutPatches
from earthsr.dem.prepare.problems import require_room
from earthsr.dem.write import Split
from earthsr.errors import InputError
from earthsr.store import atomic_file, make_folder, write_json

_PREFIX = ".prepare-"

#: Bytes of names and headers in a shard.
_OVERHEAD = 2**16


class WorkFolder:
    """Finished pieces of a preparation.

    Parameters
    ----------
    root : Path
        Where the training files will be.
    key : str
        Hash of plan and sources.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.path = root / f"{_PREFIX}{key[:16]}"
        self._made: list[Path] = []

    def begin(self, resume: bool, overwrite: bool) -> bool:
        """Make the folder; returns whether pieces of this very preparation are there.

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
            mine = False
        missing = self.path
        while not missing.exists():
            self._made.append(missing)
            missing = missing.parent
        make_folder(self.path)
        return mine

    @property
    def committing(self) -> bool:
        """Whether files are on their way to their places."""
        return (self.path / "commit.json").is_file()

    def clear(self) -> None:
        """Remove what a preparation left that was killed when all was done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def forget(self) -> None:
        """Remove the folder, and those above it, as far as this preparation made them."""
        for folder in self._made:
            if folder == self.path:
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def remove(self) -> None:
        """Remove the folder: all is done. What says so goes last."""
        last = self.path / "commit.json"
        for path in self.path.iterdir():
            if path != last:
                path.unlink()
        last.unlink()
        self.path.rmdir()

    def read(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file; None where it is not there."""
        path = self.path / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file."""
        write_json(self.path / f"{name}.json", values)

    def shard(self, split: str, number: int) -> Path:
        """Path of a shard."""
        return self.path / f"{split}-{number:06d}.npz"

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
        "left_out": np.array([each.left_out for each in cuts], np.int64),
        "valid": np.array([each.valid for each in cuts], np.int64),
    }
    for name in ("coarse", "fine", "origin", "surface"):
        arrays[name] = np.concatenate([getattr(each.patches, name) for each in cuts])
    arrays["region"] = np.concatenate([each.patches.region for each in cuts]).astype(str)
    for name in cuts[0].patches.columns:
        arrays[f"column_{name}"] = np.concatenate([each.patches.columns[name] for each in cuts])
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


def move_into_place(work: WorkFolder, splits: Sequence[str], all_splits: Sequence[str]) -> None:
    """Give files their final names, remove those of splits that other data had, and the work folder.

    A kill in between is made up for by a resumed preparation, which finds ``commit.json`` and goes on here.
    """
    root = work.path.parent
    for split in splits:
        if work.file(split).is_file():
            make_folder(root / split)
            os.replace(work.file(split), root / split / f"{split}.h5")
    for split in set(all_splits) - set(splits):
        (root / split / f"{split}.h5").unlink(missing_ok=True)
        folder = root / split
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    work.remove()

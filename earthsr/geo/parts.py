"""What a sink writes beside its destination, and how it gets its final name.

A folder whose name begins with a dot holds everything that is begun, also what GDAL leaves beside its files; it
goes when the sink is done, fails or is forgotten, and after a kill it is all that is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from earthsr.errors import InputError, already_there
from earthsr.store import flush_folder, make_folder


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store, of version 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray"))


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say in one line that a disk is full or not to be written on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            raise cannot_write(path, os.strerror(error.errno)) from error
        raise


def cannot_write(path: Path, reason: str) -> InputError:
    """Make the error for a destination that cannot be written."""
    return InputError(f"cannot write {path}: {reason}; free some space or choose another place")


class Part:
    """A file or a folder that is being written beside its destination.

    Raises
    ------
    InputError
        If the destination is there and may not be replaced, or its folder cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool, store: bool = False) -> None:
        if path.exists() and not overwrite:
            raise already_there(path)
        if path.is_dir() and not (store and (is_store(path) or not any(path.iterdir()))):
            raise InputError(f"{path} is a folder of something else and is not replaced; choose another name")
        if store and path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file where a folder is to be; choose another name")
        self.path = path
        made = [folder for folder in path.absolute().parents if not folder.exists()]
        make_folder(path.parent)
        try:
            with disk_errors(path):
                self.folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
        except BaseException:
            _remove_empty(made)
            raise
        self.target = self.folder / path.name
        """Where to write."""
        self._remove = weakref.finalize(self, _forget, self.folder, made)

    @property
    def open(self) -> bool:
        """Whether it is neither committed nor discarded."""
        return self._remove.alive

    def commit(self) -> None:
        """Give what was written its final name."""
        with disk_errors(self.path):
            for file in self.target.rglob("*") if self.target.is_dir() else (self.target,):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            previous = self.folder / "previous"
            if self.path.is_dir():
                os.replace(self.path, previous)  # a folder that is not empty is never replaced in one step
            try:
                os.replace(self.target, self.path)
            except OSError:
                if previous.exists():
                    os.replace(previous, self.path)
                raise
            flush_folder(self.path.parent)
        self.discard()

    def discard(self) -> None:
        """Remove what was begun."""
        self._remove()


def _forget(folder: Path, made: Sequence[Path]) -> None:
    """Remove what was begun, and the folders above it that were made for it, as far as nothing is in them."""
    shutil.rmtree(folder, ignore_errors=True)
    _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:  # the deepest one first
        with contextlib.suppress(OSError):
            folder.rmdir()

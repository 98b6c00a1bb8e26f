"""Files and folders that are there whole or not at all.

Everything is written beside its destination, under a name that begins with a dot and holds the writer's process, and
gets its name in one step. What a killed writer leaves is removed by the next one of the same name.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import secrets
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError, already_there
from earthsr.store.disk import disk_errors, exchange, make_folder, missing_folders, remove_empty, rename_new
from earthsr.store.lock import Lock, marked_ended, process_mark

_logger = logging.getLogger("earthsr")

#: Bytes of a name that leave room for what is added, within the 255 that file systems allow.
_MOST_BYTES: Final = 160


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store, of version 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray"))


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename is lost in a power cut before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Bring a file, or all files of a folder, to the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _stem(path: Path) -> str:
    """Beginning of the names of what is written for ``path`` and not finished."""
    name = path.name
    if len(name.encode()) > _MOST_BYTES:
        name = f"{name.encode()[:_MOST_BYTES].decode(errors='ignore')}~{zlib.crc32(name.encode()):08x}"
    return f".{name}"


def part_name(path: Path) -> str:
    """Return a name for something that will be ``path``."""
    return f"{_stem(path)}.part-{process_mark()}-{secrets.token_hex(3)}"


def work_name(path: Path) -> Path:
    """Where long work on an output grows: beside it."""
    return path.with_name(f"{_stem(path)}.work")


def previous_name(path: Path) -> Path:
    """Where a folder lies while another takes its place, on disks that cannot exchange the two."""
    return path.with_name(f"{_stem(path)}.previous")


def lock_name(path: Path) -> Path:
    """Where the lock of an output lies: beside it."""
    return path.with_name(f"{_stem(path)}.lock")


@contextlib.contextmanager
def owned(path: str | Path, inside: bool = False) -> Iterator[None]:
    """Keep other processes from an output, and clear away what killed ones left of it.

    Parameters
    ----------
    path : str or Path
        A file, or a folder.
    inside : bool
        Whether it is a folder into which files are written; it is made, and is gone after the block if it is empty.

    Raises
    ------
    InputError
        If another process writes it.
    """
    path = Path(path)
    lock = Lock(path / ".lock" if inside else lock_name(path), path)
    try:
        restore(path)
        if inside:
            remove_leftovers(path)
        else:
            remove_leftovers(path.parent, path.name)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    Parameters
    ----------
    path : Path or str
        The file's final place; its folder is made where it is not there.

    Yields
    ------
    Path
        Where to write, with the suffix of ``path``.

    Raises
    ------
    InputError
        If the folder is not writable or the disk is full; nothing is left behind.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise InputError(f"cannot write {path}: there is a folder in its place; choose another")
    temporary = path.with_name(part_name(path) + path.suffix)
    try:
        with disk_errors(path):
            yield temporary
            temporary.chmod(0o644)  # safetensors makes files that only their owner reads
            flush(temporary)
            os.replace(temporary, path)
            flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that replaces ``path`` when the block ends without an error.

    Parameters
    ----------
    path : Path or str
        The folder's final place.

    Yields
    ------
    Path
        An empty folder to write into.

    Raises
    ------
    InputError
        If the folder around it is not writable or the disk is full; nothing is left behind.
    """
    path = Path(path)
    part = Part(path, overwrite=True, replaced=lambda _: True, lock=False)
    try:
        with disk_errors(path):
            part.target.mkdir()
            yield part.target
        part.commit()
    finally:
        part.discard()


def require_replaceable(
    path: Path, overwrite: bool, store: bool = False, replaced: Callable[[Path], bool] | None = None
) -> None:
    """Check that a destination is not there, or may be replaced; parameters are those of :class:`Part`.

    Raises
    ------
    InputError
        If it may not.
    """
    restore(path)
    if path.exists() and not overwrite:
        raise already_there(path)
    may = replaced or (lambda folder: store and (is_zarr(folder) or not any(folder.iterdir())))
    if path.is_dir() and not may(path):
        raise InputError(f"{path} is a folder of something else and is not replaced; choose another name")
    if (store or replaced) and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file where a folder is to be; choose another name")


class Part:
    """A file or a folder that is being written in a folder of its own beside its destination.

    That folder also holds what GDAL leaves beside its files; it goes when the writer is done, fails or is forgotten,
    and after a kill it is all that is left, until the next writer of the same name removes it.

    Parameters
    ----------
    path : Path
        The destination.
    overwrite : bool
        Whether what is there is replaced.
    store : bool
        Whether it is a folder; a Zarr store or an empty folder is what may be replaced then.
    replaced : callable, optional
        Says which folder may be replaced, in place of that.
    lock : bool
        Keep other processes from the same destination.

    Raises
    ------
    InputError
        If the destination is there and may not be replaced, another process writes it, or its folder cannot be
        written.
    """

    def __init__(
        self,
        path: Path,
        overwrite: bool,
        store: bool = False,
        replaced: Callable[[Path], bool] | None = None,
        lock: bool = True,
    ) -> None:
        require_replaceable(path, overwrite, store, replaced)
        self.path, self._overwrite = path, overwrite
        new_folders = missing_folders(path.parent)
        make_folder(path.parent)
        held = None
        try:
            held = Lock(lock_name(path), path) if lock else None
            remove_leftovers(path.parent, path.name)
            with disk_errors(path):
                self.folder = path.parent / part_name(path)
                self.folder.mkdir()
        except BaseException:
            _forget(None, new_folders, held, os.getpid())
            raise
        self.target = self.folder / path.name
        """Where to write."""
        self._remove = weakref.finalize(self, _forget, self.folder, new_folders, held, os.getpid())

    @property
    def open(self) -> bool:
        """Whether it is neither committed nor discarded."""
        return self._remove.alive

    def commit(self) -> None:
        """Give what was written its final name.

        Raises
        ------
        InputError
            If the disk does not take it, or another process was faster where nothing may be replaced.
        """
        with disk_errors(self.path):
            flush(self.target)
            place(self.target, self.path, self._overwrite)
        self.discard()

    def discard(self) -> None:
        """Remove what was begun."""
        self._remove()


def _forget(folder: Path | None, made: Sequence[Path], held: Lock | None, pid: int) -> None:
    """Remove what was begun, and the folders above it that were made for it, as far as nothing is in them."""
    if folder is not None and pid == os.getpid():  # else of a forked process, whose parent goes on
        shutil.rmtree(folder, ignore_errors=True)
    if held is not None:
        held.release()
    remove_empty(made)


def place(new: Path, path: Path, overwrite: bool) -> None:
    """Give a file or a folder its final name; where it replaces a folder, that one then lies where the new one was.

    A kill at any moment leaves the old one or the new one under the name, or, where a disk cannot exchange folders,
    :func:`restore` brings the old one back.

    Raises
    ------
    InputError
        If something is there that may not be replaced.
    """
    if not overwrite:
        rename_new(new, path)
    elif not path.is_dir():
        os.replace(new, path)
    elif not exchange(new, path):
        previous = previous_name(path)
        os.replace(path, previous)  # a folder that is not empty is never replaced in one step
        try:
            os.replace(new, path)
        except OSError:
            os.replace(previous, path)
            raise
        os.replace(previous, new)
    flush_folder(path.parent)


def remove_whole(path: Path) -> None:
    """Remove a folder so that a kill leaves it as it was or nothing under its name."""
    going = path.with_name(part_name(path))
    try:
        os.replace(path, going)
    except FileNotFoundError:
        return
    shutil.rmtree(going, ignore_errors=True)


def restore(path: Path) -> None:
    """Bring back a folder whose replacement was killed between two renames; does nothing where none was."""
    previous = previous_name(path)
    if not previous.is_dir():
        return
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):  # another process restores it too
            os.replace(previous, path)
            _logger.warning("%s: restored; a process that was replacing it has been killed", path)


def remove_leftovers(folder: Path, name: str | None = None, everybodys: bool = False) -> list[str]:
    """Remove what killed processes began to write in ``folder`` and did not finish, and say so.

    Parameters
    ----------
    folder : Path
        Where to look.
    name : str, optional
        Of what they were writing; everything where absent.
    everybodys : bool
        Also what processes write that live or are on other machines, and the lock: none of them does any more.

    Returns
    -------
    list of str
        Names of what was removed. What a process writes that lives, or that is on another machine, stays.
    """
    stem = glob.escape(_stem(folder / name)) if name is not None else ".*"
    removed = []
    for leftover in sorted(folder.glob(f"{stem}.part-*")):
        mark = leftover.name.rpartition(".part-")[2].partition(".")[0]
        if everybodys or marked_ended(mark.rpartition("-")[0] or mark):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
            removed.append(leftover.name)
    if everybodys and name is not None:
        lock_name(folder / name).unlink(missing_ok=True)
    if removed:
        shown = ", ".join(removed[:3]) + (f" and {len(removed) - 3} more" if len(removed) > 3 else "")
        _logger.info("%s: removed what killed processes left unfinished (%s)", folder, shown)
    return removed


def write_text(path: str | Path, text: str) -> Path:
    """Write text as UTF-8, whole or not at all.

    Parameters
    ----------
    path : Path or str
        The file.
    text : str
        All that it will hold.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write indented JSON, whole or not at all.

    Parameters
    ----------
    path : Path or str
        The file.
    value : dict, list, str, number or None
        What JSON can say: NaN is refused.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is a NaN or an infinity in it.
    """
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

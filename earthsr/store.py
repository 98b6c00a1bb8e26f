"""Writing files so that a kill at any moment leaves the previous version whole.

Everything is written beside its destination and renamed into place; what was begun and not finished never
carries the final name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earthsr.errors import InputError


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename is lost in a power cut before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create ``folder`` and its parents.

    Raises
    ------
    InputError
        If it cannot be created; the message names the folder and the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"cannot create folder {folder}: there is a file in its place; choose another") from None
    except OSError as error:
        raise InputError(
            f"cannot create folder {folder}: {error.strerror or error}; choose a writable place"
        ) from error
    return folder


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    Raises
    ------
    InputError
        If the folder is not writable or the disk is full; nothing is left behind.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors makes files that only their owner reads
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EISDIR):
            raise InputError(
                f"cannot write {path}: {error.strerror}; free some space or choose another place"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that replaces ``path`` when the block ends without an error."""
    path = Path(path)
    make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in (each for each in temporary.rglob("*") if each.is_file()):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise InputError(
                f"cannot write {path}: {error.strerror}; free some space or choose another place"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8, atomically."""
    path = Path(path)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, atomically. NaN is refused: JSON has no word for it."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove what earlier, killed processes began to write in ``folder`` and did not finish."""
    for leftover in folder.glob(".*.part-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)

"""What a disk says that takes no more or may not be written on, in one line; asked before long work where it can be."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from earthsr.errors import EarthsrError, InputError

#: EFBIG comes from limits on the size of files.
_REFUSALS: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)


def cannot_write(path: Path, reason: str) -> InputError:
    """Make the error for a destination that cannot be written."""
    return InputError(f"cannot write {path}: {reason}; free some space or choose another place")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full disk or a read-only folder raises into an :class:`InputError` that names ``path``."""
    try:
        yield
    except EarthsrError:
        raise
    except (OSError, RuntimeError) as error:
        code = _refusal(error)
        if code is None:
            raise
        raise cannot_write(path, os.strerror(code)) from error


def _refusal(error: BaseException) -> int | None:
    """Number of the system's error at the bottom of another one, if it is a disk's.

    HDF5 wraps it into a text of its own, and may fail again when the file is closed.
    """
    chain: BaseException | None = error
    while chain is not None:
        number, text = getattr(chain, "errno", None), str(chain)
        for code in _REFUSALS:
            if number == code or f"errno = {code}," in text:
                return code
        chain = chain.__cause__ or chain.__context__
    return None


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


def missing_folders(folder: Path) -> list[Path]:
    """Return what has to be made for ``folder`` to be there, the deepest one first."""
    return [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those folders that nothing is in; the deepest one first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def require_writable(root: Path) -> None:
    """Raise an :class:`InputError` where a folder can be neither made nor written into, before long work."""
    above = root
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise InputError(f"cannot write {root}: there is a file in its place; choose another")
    # The effective user is whose rights count, where the system can tell.
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(f"cannot write {root}: {os.strerror(errno.EACCES)}; choose a writable place")


def require_room(folder: Path, size: int) -> None:
    """Raise an :class:`OSError` where a file of so many bytes does not fit.

    HDF5 crashes on a full disk, so it is asked before.
    """
    if not hasattr(os, "posix_fallocate"):
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    with tempfile.TemporaryFile(dir=folder) as handle:
        os.posix_fallocate(handle.fileno(), 0, size)

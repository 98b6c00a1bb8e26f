"""What a disk says that takes no more or may not be written on, in one line; asked before long work where it can be.

And renaming as disks do it: unless something has the name, or in exchange with what has it; and a file that keeps
in mind what the disk said while a library wrote through it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from earthsr.errors import EarthsrError, InputError, already_there

#: EFBIG comes from limits on the size of files.
_REFUSALS: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)

#: Of renameat2 (Linux) and renamex_np (macOS).
_NOREPLACE, _EXCHANGE, _AT_FDCWD = (1, 2, -100) if sys.platform != "darwin" else (4, 2, 0)


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


def rename_new(new: Path, path: Path) -> None:
    """Rename, unless something has the name.

    Raises
    ------
    InputError
        If something has it.
    """
    try:
        if not _rename_with(new, path, _NOREPLACE):
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise already_there(path)
            os.rename(new, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise already_there(path) from None
        raise


def exchange(new: Path, path: Path) -> bool:
    """Let two paths change names in one step; returns whether system and disk can do it."""
    return _rename_with(new, path, _EXCHANGE)


def _rename_with(new: Path, path: Path, flag: int) -> bool:
    """Rename in a way that POSIX does not have; returns whether system and disk can do it."""
    rename = _rename2()
    if rename is None:
        return False
    if rename(os.fsencode(new), os.fsencode(path), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(path))


@functools.cache
def _rename2() -> Callable[[bytes, bytes, int], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        own = getattr(library, "renamex_np", None)
        return None if own is None else lambda old, new, flag: own(old, new, ctypes.c_uint(flag))
    linux = getattr(library, "renameat2", None)  # glibc has it from 2.28 on
    if linux is None:
        return None
    return lambda old, new, flag: linux(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(flag))


class GuardedFile:
    """A file for HDF5 that keeps the first error for us.

    HDF5 itself loses a block that a full disk does not take without a word, and crashes when it closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of it, or nothing more after an error."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while len(left) and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return count

    def truncate(self, size: int) -> int:
        """Set the length."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return size

    def read(self, size: int = -1) -> bytes:
        """Read back."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read back into a buffer."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Say where we are."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

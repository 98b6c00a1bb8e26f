"""Words and error messages that several parts of the preparation share."""

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

#: What a disk says that takes no more. EFBIG comes from limits on the size of files.
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)

_MOST_NAMES: Final = 8


def names(values: Sequence[str]) -> str:
    """Some names for a message, the rest counted."""
    shown = ", ".join(values[:_MOST_NAMES])
    return shown if len(values) <= _MOST_NAMES else f"{shown} and {len(values) - _MOST_NAMES} more"


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what a full disk or a read-only folder raises into an :class:`InputError` of one line."""
    try:
        yield
    except EarthsrError:
        raise
    except (OSError, RuntimeError) as error:
        # HDF5 wraps the system's error into a text of its own, and may fail again when the file is closed.
        chain: BaseException | None = error
        while chain is not None:
            text = str(chain)
            number = getattr(chain, "errno", None)
            for code in (*_NO_ROOM, *_NOT_ALLOWED):
                if number == code or f"errno = {code}," in text:
                    what = "no space is left" if code in _NO_ROOM else "not allowed"
                    raise InputError(
                        f"cannot write {place}: {what} ({os.strerror(code)}); free some space or choose another place"
                    ) from error
            chain = chain.__cause__ or chain.__context__
        raise


def require_place(root: Path, splits: Sequence[str]) -> None:
    """Raise an :class:`InputError` where a folder can be neither made nor written into, before long work."""
    above = root
    while not above.exists() and above != above.parent:
        above = above.parent
    taken = [root / split for split in splits if (root / split).exists() and not (root / split).is_dir()]
    taken += [path for split in splits if (path := root / split / f"{split}.h5").is_dir()]
    if not above.is_dir() or taken:
        what = "a folder" if taken and taken[0].is_dir() else "a file"
        raise InputError(f"cannot write {(taken or [root])[0]}: there is {what} in its place; choose another")
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

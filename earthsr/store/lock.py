"""Locks that say who holds them: one process at a time writes an output, and a dead one keeps nobody away.

A lock is a small file of JSON (host, process, start, time) which the system locks for as long as the process lives.
Disks that have no such locks go by what the file says. Whether its process still lives is found out here too.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import re
import socket
import sys
import time
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError
from earthsr.store.disk import disk_errors, make_folder, missing_folders, remove_empty

_MARK = re.compile(r"^(\d+)-(\w*)-([0-9a-f]{8})$")


@dataclass(frozen=True)
class Process:
    """A process on some machine."""

    host: str
    pid: int
    start: str
    """When it started, as its system counts; a number of a process is given again. Empty where the system is silent."""
    time: float
    """When it began to write, seconds since the epoch."""
    job: str
    """Of the queueing system; a job that was queued again has ended where it ran before. Empty where there is none."""
    command: str

    @classmethod
    def this(cls) -> Process:
        """Return this process."""
        pid = os.getpid()
        words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
        return cls(socket.gethostname(), pid, _start_of(pid), time.time(), os.environ.get("SLURM_JOB_ID", ""), words)

    @classmethod
    def from_dict(cls, values: Any) -> Process | None:
        """Read what :meth:`to_dict` gave; None where it is something else."""
        try:
            return cls(
                str(values["host"]),
                int(values["pid"]),
                str(values["start"]),
                float(values["time"]),
                str(values.get("job", "")),
                str(values.get("command", "")),
            )
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)

    @property
    def local(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def ended(self) -> bool:
        """Whether it certainly has: on this machine, or as a job that was queued again."""
        if self.local:
            return not lives(self.pid, self.start)
        return bool(self.job) and self.job == os.environ.get("SLURM_JOB_ID")

    def words(self) -> str:
        """Say who it is, and since when it writes."""
        age = max(time.time() - self.time, 0.0)
        span = f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} min" if age < 7200 else f"{age / 3600:.1f} h"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        return f"process {self.pid} on {self.host}, since {since} ({span} ago; {self.command})"


def _start_of(pid: int) -> str:
    """Start of a process in ticks since the machine's; empty where not known, ``ended`` where it is but a name."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]


def lives(pid: int, start: str) -> bool:
    """Whether a process of this machine still lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    now = _start_of(pid)
    return not now or not start or now == start


@functools.cache
def _host_mark() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


@functools.cache
def _mark_of(pid: int) -> str:
    return f"{pid}-{_start_of(pid)}-{_host_mark()}"


def process_mark() -> str:
    """Return what names of unfinished files hold of this process."""
    return _mark_of(os.getpid())


def marked_ended(text: str) -> bool:
    """Whether the process of a :func:`process_mark` has ended; what is no mark is of nobody who lives.

    Of another machine's process nothing is known: it may live.
    """
    match = _MARK.match(text)
    if match is None:
        return True
    return match.group(3) == _host_mark() and not lives(int(match.group(1)), match.group(2))


_logger = logging.getLogger("earthsr")

#: What a disk without locks says.
_NO_LOCKS: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

#: Seconds in which a process that has just taken a lock says who it is, and forked ones end with their parent.
_GRACE_S: Final = 1.0


class Lock:
    """A lock that this process holds until :meth:`release`; it goes with the process in any case.

    Parameters
    ----------
    file : Path
        The lock's file; its folder is made.
    subject : Path
        What is locked, for messages.

    Raises
    ------
    InputError
        If a process that lives holds it, or one on another machine did not release it: the message says who, since
        when, and what to do; or if the disk takes no file.
    """

    def __init__(self, file: Path, subject: Path) -> None:
        new_folders = missing_folders(file.parent)
        with disk_errors(subject):
            handle = _acquire(file, subject)
            try:
                owner = _owner(handle)
                if owner is not None and not owner.ended:
                    raise _held(file, subject, owner)
                text = json.dumps(Process.this().to_dict()).encode()
                os.ftruncate(handle, 0)
                os.pwrite(handle, text, 0)
                if owner is not None:
                    _logger.info("%s: %s has ended without finishing it", subject, owner.words())
            except BaseException as error:
                if not isinstance(error, InputError):
                    file.unlink(missing_ok=True)
                os.close(handle)
                remove_empty(new_folders)
                raise
        self._release = weakref.finalize(self, _let_go, file, handle, new_folders, os.getpid())

    def release(self) -> None:
        """Let others have it; does nothing a second time."""
        self._release()


def _let_go(file: Path, handle: int, made: Sequence[Path], pid: int) -> None:
    if pid != os.getpid():
        return  # a forked process, whose parent goes on
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(file)):
            file.unlink()
    os.close(handle)
    remove_empty(made)


def _acquire(file: Path, subject: Path) -> int:
    """Open and lock the file that has the name now: whoever had it may have removed it meanwhile."""
    import fcntl

    began = time.monotonic()
    while True:
        make_folder(file.parent)
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # its folder was removed just now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            late = time.monotonic() - began > _GRACE_S
            if late and owner is not None and owner.local and owner.ended:
                file.unlink(missing_ok=True)  # a process that it forked has the file open, and does not write
            elif late or (owner is not None and not owner.ended):
                raise _held(file, subject, owner) from None
            time.sleep(0.05)
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        os.close(handle)


def _owner(handle: int) -> Process | None:
    """Read who holds, or held, a lock; None where that is not said."""
    try:
        return Process.from_dict(json.loads(os.pread(handle, 2**16, 0)))
    except ValueError:
        return None


def _held(file: Path, subject: Path, owner: Process | None) -> InputError:
    who = "another process" if owner is None else owner.words()
    if owner is None or owner.local:
        return InputError(f"{subject}: is being written by {who}; wait until it ends, or choose another output")
    return InputError(
        f"{subject}: was begun by {who}, on another machine, which has not ended it; if it does not run there any "
        f"more, remove the lock: rm {file}"
    )

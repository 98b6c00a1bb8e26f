"""Which process this is, and whether another one still lives."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


def mark() -> str:
    """Return what names of unfinished files hold of this process."""
    return _mark_of(os.getpid())


def marked_ended(text: str) -> bool:
    """Whether the process of a :func:`mark` has ended; what is no mark is of nobody who lives.

    Of another machine's process nothing is known: it may live.
    """
    match = _MARK.match(text)
    if match is None:
        return True
    return match.group(3) == _host_mark() and not lives(int(match.group(1)), match.group(2))

"""Running stages one by one, each command in a process of its own, so that a kill at any moment costs little.

What is known of a stage lies in ``stages/NAME.json``: under which key it was begun, and whether it is done. A stage
that was begun under the same key carries on; one whose key has changed begins anew. Several runs may share a folder:
each takes what no other works at.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from earthsr.errors import EarthsrError, InputError
from earthsr.store import make_folder, write_json

from .stages import Command, Stage

#: Seconds between records of how long a stage has run: as much is lost of its time, not of its work, by a kill.
HEARTBEAT_S = 10.0

#: Seconds between looks at a stage that another run works at.
POLL_S = 0.5


# Opened here: between fork and exec of a command there is no time for loading libraries.
_LIBRARY = ctypes.CDLL(None)


@dataclass(frozen=True)
class Record:
    """What is known of a stage."""

    name: str
    key: str
    state: str
    """``begun``, ``failed`` or ``done``."""
    attempts: int = 0
    seconds: float = 0.0
    """Of all attempts."""
    peak_mib: float = 0.0
    """Largest resident memory of a process."""
    commands: tuple[str, ...] = ()
    threads: int = 1
    error: str = ""


class Records:
    """The records of an output folder."""

    def __init__(self, output: Path) -> None:
        self.folder = output / "stages"

    def path(self, name: str) -> Path:
        """File of a stage's record."""
        return self.folder / f"{name.replace('/', '__')}.json"

    def read(self, name: str) -> Record | None:
        """The record of a stage; None where there is none that can be read."""
        try:
            values = json.loads(self.path(name).read_text(encoding="utf-8"))
            return Record(**{**values, "commands": tuple(values["commands"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: Record) -> None:
        """Write a record, atomically."""
        write_json(self.path(record.name), {**asdict(record), "commands": list(record.commands)})

    def state(self, stage: Stage, key: str) -> str:
        """``done``, ``begun``, ``failed``, ``other`` (done or begun as something else than is asked for) or ``-``."""
        record = self.read(stage.name)
        if record is None:
            return "-"
        if record.key != key:
            return "other"
        return "lost" if record.state == "done" and not stage.result.exists() else record.state


@contextlib.contextmanager
def held(output: Path, name: str) -> Iterator[int | None]:
    """Hold a stage; gives a descriptor that commands inherit, and hold it with, or None where another run has it."""
    folder = output / ".locks"
    make_folder(folder)
    handle = os.open(folder / name.replace("/", "__"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield handle
    finally:
        os.close(handle)


def die_with_parent() -> None:
    """Ask Linux to end this process softly when the one that started it dies: training then writes a checkpoint."""
    if sys.platform == "linux":
        _LIBRARY.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Runner:
    """Runs stages.

    Parameters
    ----------
    output : Path
        Folder of the benchmark.
    threads : int
        Threads of each command.
    say : callable
        Where progress goes.
    """

    def __init__(self, output: Path, threads: int, say: Callable[[str], None]) -> None:
        self.output = output
        self.threads = threads
        self.say = say
        self.records = Records(output)

    def run(self, stages: Sequence[Stage], keys: Mapping[str, str], after: Callable[[], None]) -> list[str]:
        """Run what is not done, in order; returns the names of stages that failed or could not begin.

        A stage that fails does not stop those that do not need it; one that another run works at is passed over, and
        looked at again until it is done. ``after`` is called after each that ran.
        """
        bad: list[str] = []
        told: set[str] = set()
        pending = {stage.name: (number, stage) for number, stage in enumerate(stages, start=1)}
        while pending:
            before = len(pending)
            for number, stage in list(pending.values()):
                if any(name in pending for name in stage.needs):
                    continue
                title = f"[{number}/{len(stages)}] {stage.name}"
                missing = [name for name in stage.needs if name in bad]
                if missing:
                    self.say(f"{title}: left out, {missing[0]} failed")
                    bad.append(stage.name)
                    del pending[stage.name]
                    continue
                with held(self.output, stage.name) as lock:
                    if lock is None:
                        if stage.name not in told:
                            self.say(f"{title}: another run works at it")
                            told.add(stage.name)
                        continue
                    del pending[stage.name]
                    if not self._ran(stage, keys[stage.name], title, lock):
                        continue
                    if self.records.state(stage, keys[stage.name]) != "done":
                        bad.append(stage.name)
                after()
            if len(pending) == before:
                time.sleep(POLL_S)
        return bad

    def _ran(self, stage: Stage, key: str, title: str, lock: int) -> bool:
        """Run a stage where it is not done; returns whether it was run."""
        state = self.records.state(stage, key)
        if state == "done":
            self.say(f"{title}: done before")
            return False
        changed = "" if state != "other" else ": was made from other inputs or settings, begins anew"
        self.say(f"{title}{changed}")
        record = self._stage(stage, key, lock)
        if record.state == "done":
            self.say(f"    {duration(record.seconds)}, at most {record.peak_mib:,.0f} MiB")
        else:
            self.say(f"    failed: {record.error}")
        return True

    def _stage(self, stage: Stage, key: str, lock: int) -> Record:
        before = self.records.read(stage.name)
        carry_on = before is not None and before.key == key and before.state != "done"
        record = Record(stage.name, key, "begun", threads=self.threads)
        if carry_on and before is not None:
            record = replace(before, state="begun", error="", threads=self.threads)
        elif stage.result.is_file():
            # What an earlier stage of this name left would look like this one's.
            stage.result.unlink()
        record = replace(record, attempts=record.attempts + 1, commands=())
        for command in stage.commands:
            words = (*command.words, *(command.carry_on if carry_on else command.begin))
            record = replace(record, commands=(*record.commands, shlex.join(words)))
            self.records.write(record)
            self.say(f"    $ {shlex.join(words)}")
            record, code, last = self._command(Command(words), record, lock)
            if code != 0:
                record = replace(record, state="failed", error=last or f"exit code {code}")
                self.records.write(record)
                return record
        try:
            if stage.check is not None:
                stage.check()
            if not stage.result.exists():
                raise InputError(f"{stage.result} is not there, though every command ended well")
        except EarthsrError as error:
            record = replace(record, state="failed", error=str(error))
        else:
            record = replace(record, state="done")
        self.records.write(record)
        return record

    def _command(self, command: Command, record: Record, lock: int) -> tuple[Record, int, str]:
        """Run one command to its end; returns the record with its time and memory, its exit code, its last line."""
        log = self.output / "logs" / f"{record.name.replace('/', '__')}.log"
        make_folder(log.parent)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        begun, spent, beat = time.monotonic(), record.seconds, 0.0
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(command.words)}\n".encode())
            out.flush()
            process = subprocess.Popen(
                executable(command.words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                # Ctrl-C on a terminal shall reach this process alone, which then asks the command once to end.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            try:
                code, peak, pause = None, record.peak_mib, 0.01
                while code is None:
                    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                    now = time.monotonic() - begun
                    if pid:
                        code = process.returncode = os.waitstatus_to_exitcode(status)
                        # Linux counts in KiB, macOS in bytes.
                        peak = max(peak, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
                    elif now - beat > HEARTBEAT_S:
                        beat = now
                        self.records.write(replace(record, seconds=spent + now, peak_mib=peak))
                    else:
                        time.sleep(pause)
                        pause = min(2 * pause, 0.5)
            except BaseException:
                # It shall not go on alone; training writes a checkpoint before it ends.
                if process.returncode is None:
                    process.terminate()
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(process.pid, 0)
                    process.returncode = -signal.SIGTERM
                self.records.write(replace(record, seconds=spent + time.monotonic() - begun))
                raise
        record = replace(record, seconds=spent + time.monotonic() - begun, peak_mib=peak)
        return record, code, "" if code == 0 else last_line(log)


def executable(words: Sequence[str]) -> list[str]:
    """The process that a command line stands for: this interpreter's own ``earthsr`` and ``python``."""
    if words[0] == "earthsr":
        return [sys.executable, "-m", "earthsr", *words[1:]]
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return list(words)


def last_line(log: Path) -> str:
    """Last line of a log that says something; of several errors in a row, the last."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def times(output: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Wall time, peak memory and commands of all stages that have run, for ``times.json``."""
    records = [record for stage in stages if (record := Records(output).read(stage.name)) is not None]
    return {
        "total_seconds": sum(record.seconds for record in records),
        "peak_mib": max((record.peak_mib for record in records), default=0.0),
        "stages": {record.name: {k: v for k, v in asdict(record).items() if k != "name"} for record in records},
    }

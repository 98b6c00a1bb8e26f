"""Running command lines in children of this process, which has imported everything: a case takes a part of a second."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.hardening_parts.outcomes import Outcome

#: Limits of a case. Memory is what it may take beyond what this process has mapped already.
SECONDS = 20.0
MEMORY_BYTES = 3 << 30


def warm() -> None:
    """Import what commands need, and compute nothing: what has begun threads cannot be forked."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    for name in ("rasterio", "xarray", "zarr", "h5netcdf", "scipy.io", "torch", "onnxruntime", "earthsr_torch"):
        with contextlib.suppress(ImportError):
            __import__(name)


def in_child(work: Callable[[], int], seconds: float = SECONDS, memory: int | None = MEMORY_BYTES) -> Outcome:
    """Run a function in a child, and say how it ended; the child is killed when its time is over."""
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            if memory is not None:
                mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = 70
            try:
                code = work()
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 70
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        timed_out, end = False, time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                timed_out = True
                try:
                    os.killpg(child, signal.SIGKILL)
                except ProcessLookupError:  # killed so early that it leads no group yet
                    os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        texts = []
        for file in (err, out):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return Outcome(os.waitstatus_to_exitcode(status), texts[0], texts[1], timed_out)


def earthsr(*words: object, cwd: Path | None = None, seconds: float = SECONDS) -> Outcome:
    """Run a command line of earthsr."""

    def work() -> int:
        from earthsr.cli import main

        if cwd is not None:
            os.chdir(cwd)
        return main([str(word) for word in words])

    return in_child(work, seconds)

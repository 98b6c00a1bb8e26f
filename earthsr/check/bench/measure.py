"""Timing steps and the loader with a clock on the host, and the memory that the process took."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from earthsr.backend import Engine
from earthsr.check.bench.result import Loader
from earthsr.check.bench.source import Loaded
from earthsr.data.batch import Batch

#: The loader alone is read for so long at most, and for so long at least where an epoch is shorter.
LOADER_S, SHORTEST_S = 2.0, 0.2


def time_steps(
    engine: Engine, stream: Iterator[Batch], rates: Sequence[float], accumulate: int, group: int
) -> tuple[float, float]:
    """Make steps as training does, and read losses once per group of them.

    Parameters
    ----------
    engine : Engine
        Prepared for training.
    stream : iterator of Batch
        At least ``len(rates) * accumulate`` batches.
    rates : sequence of float
        Learning rate of each step.
    accumulate : int
        Batches per step.
    group : int
        Steps between two reads. A device that computes beside the host is waited for there alone, as in training.

    Returns
    -------
    tuple of float
        Median over groups of the seconds of a step, and mean seconds that a step waited for its batches.
    """
    seconds: list[float] = []
    waited = 0.0
    for start in range(0, len(rates), group):
        end = min(start + group, len(rates))
        begun = time.perf_counter()
        pending = []
        for place in range(start, end, engine.steps_per_call):
            some = rates[place : min(place + engine.steps_per_call, end)]
            before = time.perf_counter()
            batches = [next(stream) for _ in range(len(some) * accumulate)]
            waited += time.perf_counter() - before
            pending.append(engine.run(batches, some))
        for values in pending:
            values.result()
        seconds.append((time.perf_counter() - begun) / (end - start))
    return statistics.median(seconds), waited / len(rates)


def time_loader(source: Loaded) -> Loader:
    """Read and prepare batches with nobody who computes: whole epochs, or as many batches as go into two seconds."""
    samples = 0
    begun = time.perf_counter()
    for epoch in range(sys.maxsize):
        for batch in source.epoch(epoch):
            samples += batch.size
            if time.perf_counter() - begun >= LOADER_S:
                break
        if time.perf_counter() - begun >= SHORTEST_S:
            break
    return Loader(samples, samples / (time.perf_counter() - begun), source.dataset.num_workers)


def peak_memory_mib() -> float:
    """Largest resident memory of this process since it began, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB on Linux, bytes on macOS.
    return largest / (2**20 if platform.system() == "Darwin" else 1024)

"""Reading, computing and writing at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tqdm import tqdm

from earthsr.data.dataset import ahead

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")


@dataclass
class FlowTimes:
    """Seconds of a flow, as the thread that computes sees them."""

    waited_for_reads: float = 0.0
    computed: float = 0.0
    waited_for_writes: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.waited_for_reads + self.computed + self.waited_for_writes


def flow(
    items: Sequence[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read], Made],
    write: Callable[[Item, Made], Any],
    *,
    depth: int = 2,
    label: str = "",
    unit: str = "chunk",
) -> FlowTimes:
    """Read, compute and write items in their order, each stage in a thread of its own.

    Parameters
    ----------
    items : sequence
        What is worked on.
    read, compute, write : callable
        The stages. One item is read and one written at a time; computing stays in the calling thread.
    depth : int
        Items that may wait between two stages: memory holds so many on either side.
    label, unit : str
        Of the progress bar, which shows on a terminal alone.

    Returns
    -------
    FlowTimes
        Where the time went.
    """
    times = FlowTimes()
    pending: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="earthsr-writer") as pool:
        # Threads of a reader end with its generator, also where a later stage fails.
        stream = ahead([partial(read, item) for item in items], 1, depth)
        try:
            for item in tqdm(items, desc=label or None, unit=unit, disable=None if label else True):
                began = time.perf_counter()
                values = next(stream)
                ready = time.perf_counter()
                result = compute(item, values)
                done = time.perf_counter()
                pending.append(pool.submit(write, item, result))
                while len(pending) > depth:
                    pending.popleft().result()
                times.waited_for_reads += ready - began
                times.computed += done - ready
                times.waited_for_writes += time.perf_counter() - done
            began = time.perf_counter()
            while pending:
                pending.popleft().result()
            times.waited_for_writes += time.perf_counter() - began
        finally:
            stream.close()  # type: ignore[attr-defined]
            for future in pending:
                future.cancel()
    return times

"""Which chunks are a process's own.

Processes need no connection: they share a folder. So anything that starts several copies of one command will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial


def shares(costs: Sequence[float], of: int) -> list[int]:
    """Rank of each chunk: the dearest first, each to whom has least (Graham, 1969).

    Chunks that cost nothing are given out in turn.
    """
    loads = [0.0] * of
    held = [0] * of
    found = [0] * len(costs)
    for chunk in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(of), key=partial(_burden, loads, held, costs[chunk]))
        found[chunk] = rank
        loads[rank] += costs[chunk]
        held[rank] += 1
    return found


def _burden(loads: Sequence[float], held: Sequence[int], cost: float, rank: int) -> tuple[float, int, int]:
    return loads[rank] if cost else 0.0, held[rank], rank

"""Which of several processes this one is, as launchers say it, and which chunks are its own.

Processes need no connection: they share a folder. So anything that starts several copies of one command will do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from earthsr.errors import InputError

#: Variables of rank and number of processes, and what is counted from: ``torchrun``, ``msrun``, a SLURM step, and an
#: array of SLURM jobs, whose numbers may begin anywhere.
_LAUNCHERS: Final = (
    ("RANK", "WORLD_SIZE", None),
    ("RANK_ID", "MS_WORKER_NUM", None),
    ("RANK_ID", "RANK_SIZE", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
)


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the work."""

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1 or not 0 <= self.number < self.of:
            raise InputError(f"rank {self.number} of {self.of}: expected 0 to {max(self.of - 1, 0)}")


def rank_of(environment: Mapping[str, str] | None = None) -> Rank:
    """Read the rank from what a launcher sets; the only process where none does.

    Raises
    ------
    InputError
        If a variable is no number, or the rank is not below the number of processes.
    """
    known = os.environ if environment is None else environment
    for rank, size, least in _LAUNCHERS:
        if rank in known and size in known:
            names = (rank, size) if least is None or least not in known else (rank, size, least)
            try:
                number, of, *first = (int(known[name]) for name in names)
            except ValueError:
                said = ", ".join(f"{name}={known[name]}" for name in names)
                raise InputError(f"{said}: expected whole numbers, as a launcher sets them") from None
            return Rank(number - sum(first), of)
    return Rank()


def device_of(device: str, environment: Mapping[str, str] | None = None) -> str:
    """Give the processes of one machine a GPU each, where ``torchrun`` says which of them this is."""
    local = (os.environ if environment is None else environment).get("LOCAL_RANK", "0")
    shared = local.isdigit() and int(local) > 0 and device in ("auto", "gpu", "cuda")
    return f"{device}:{local}" if shared else device


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

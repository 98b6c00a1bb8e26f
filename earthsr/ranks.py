"""Which of several processes that work together this one is, as launchers say it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from earthsr.errors import InputError

#: Variables of rank and number of processes that ``torchrun`` and ``msrun`` set.
_LAUNCHERS: Final = (("RANK", "WORLD_SIZE"), ("RANK_ID", "MS_WORKER_NUM"), ("RANK_ID", "RANK_SIZE"))


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the work."""

    number: int = 0
    """From 0 on."""
    of: int = 1
    """How many there are."""

    def __post_init__(self) -> None:
        if self.of < 1 or not 0 <= self.number < self.of:
            raise InputError(f"rank {self.number} of {self.of}: expected 0 to {max(self.of - 1, 0)}")


ALONE: Final = Rank()


def launched_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Rank among processes that a launcher has started to compute together; None where none says so.

    Raises
    ------
    InputError
        If a variable is no number, or the rank is not below the number of processes.
    """
    known = os.environ if environment is None else environment
    for rank, size in _LAUNCHERS:
        if rank in known and size in known:
            return Rank(_whole(known, rank), _whole(known, size))
    return None


def _whole(known: Mapping[str, str], name: str) -> int:
    try:
        return int(known[name])
    except ValueError:
        raise InputError(f"{name}={known[name]}: expected a whole number, as a launcher sets it") from None


def device_of(device: str, environment: Mapping[str, str] | None = None) -> str:
    """Give the processes of one machine a GPU each, where ``torchrun`` or ``srun`` says which of them this is.

    Parameters
    ----------
    device : str
        As the command line takes it.
    environment : mapping, optional
        Variables of the launcher; those of this process where absent.

    Returns
    -------
    str
        The device with its number, such as ``gpu:1``, or ``device`` as it is.
    """
    known = os.environ if environment is None else environment
    local = known.get("LOCAL_RANK", known.get("SLURM_LOCALID", "0"))
    shared = local.isdigit() and int(local) > 0 and device in ("auto", "gpu", "cuda")
    return f"{device}:{local}" if shared else device

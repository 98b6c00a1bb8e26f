"""What the processes of one training agree on: who writes, when to stop, and what a score over all of them is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from earthsr.backend import TrainingEngine
from earthsr.config import Config
from earthsr.errors import ConfigError, TrainingError
from earthsr.ranks import Rank, launched_rank

T = TypeVar("T")

#: Signals that end a run, by number; 0 is none.
_NONE: Final = 0


def require_launch(config: Config) -> None:
    """Check that the processes that a launcher has started can train together.

    Raises
    ------
    ConfigError
        If a launcher has started several, and the configuration does not say that they belong together; or if they
        cannot share a batch.
    """
    rank = launched_rank() or Rank()
    if rank.of > 1 and not config.train.distribute:
        raise ConfigError(
            f"{rank.of} processes were started, and train.distribute is false: each would train the same run into the "
            "same folder; set it to true"
        )
    if config.data.batch_size % rank.of:
        raise ConfigError(
            f"data.batch_size is {config.data.batch_size}, over all ranks, which {rank.of} ranks cannot share evenly; "
            f"take a multiple of {rank.of}"
        )


def restarted() -> bool:
    """Whether ``torchrun --max-restarts`` has started this process again, after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0


def agreed_signal(engine: TrainingEngine, name: str | None) -> str | None:
    """Name of a signal that any rank has got; all ranks ask together."""
    if engine.world_size == 1:
        return name
    own = _NONE if name is None else int(signal.Signals[name])
    first = int(engine.gather(np.array([own], np.float64)).max())
    return None if first == _NONE else signal.Signals(first).name


def require_same(engine: TrainingEngine, value: int, words: str) -> None:
    """Check that all ranks found the same.

    Raises
    ------
    TrainingError
        If they did not.
    """
    values = engine.gather(np.array([value], np.float64)).ravel()
    if (values != values[0]).any():
        listed = ", ".join(f"{int(seen)} on rank {number}" for number, seen in enumerate(values))
        raise TrainingError(f"{words}: {listed}; all ranks have to see the same folder")


def on_first(engine: TrainingEngine, work: Callable[[], T]) -> T | None:
    """Let rank 0 do something alone, and all ranks go on when it is done.

    Raises
    ------
    TrainingError
        On the other ranks, if it failed; rank 0 raises what went wrong.
    """
    if engine.world_size == 1:
        return work()
    result, failed = None, None
    if engine.rank == 0:
        try:
            result = work()
        except Exception as error:
            failed = error
    went_wrong = engine.gather(np.array([failed is not None], np.float64)).any()
    if failed is not None:
        raise failed
    if went_wrong:
        raise TrainingError("rank 0 failed; its own message says why")
    return result

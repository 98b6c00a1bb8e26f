"""The parts of the hot loop beside its course: rates, whole steps of batches, losses read late, signals.

The learning rate is a function of the step, computed on the host in float64.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending, StepValues, TrainingEngine
from earthsr.config import Config, OptimizerSection
from earthsr.data.batch import Batch
from earthsr.errors import TrainingError
from earthsr.models import NetworkSpec, OptimizerSpec


def filled_batches(
    dataset: Any, normalisation: Any, engine: TrainingEngine, epoch: int, start: int, count: int
) -> Generator[Batch, None, None]:
    """Batches ``start`` to ``count`` of an epoch; empty ones (weight 0) fill up where the split has fewer."""
    batches = start
    last: Batch | None = None
    for last in dataset.training_batches(
        epoch, normalisation, start=start, rank=engine.rank, world_size=engine.world_size
    ):
        batches += 1
        yield last
    while last is not None and batches < count:
        batches += 1
        yield Batch(last.inputs, last.target, last.mask, np.zeros_like(last.sample_weight))


#: Training in normalised units keeps weights near 1; from here on products of two layers leave float32.
LARGEST_WEIGHT: Final = 1e15

REMEDY: Final = (
    "lower optimizer.learning_rate, set optimizer.clip_norm, or use train.amp_level O0; checkpoints so far are whole"
)


def diverged_weight(weights: Mapping[str, NDArray[np.float32]]) -> str | None:
    """Say which weight no training that goes well has; None where there is none.

    Parameters
    ----------
    weights : mapping of str to ndarray
        By canonical name.
    """
    for name, values in weights.items():
        largest = float(np.abs(values).max(initial=0))
        if not largest < LARGEST_WEIGHT:
            return f"{name} holds {'NaN' if math.isnan(largest) else format(largest, '.3g')}"
    return None


@dataclass
class Unread:
    """Steps whose losses nobody has waited for yet."""

    calls: list[tuple[Pending[StepValues], list[float]]] = field(default_factory=list)

    def add(self, values: Pending[StepValues], rates: list[float]) -> None:
        """Remember a call of the engine and its learning rates."""
        self.calls.append((values, rates))

    def read(self, step: int) -> tuple[list[float], dict[str, Any]]:
        """Wait for all of them.

        Parameters
        ----------
        step : int
            The last step that was made.

        Returns
        -------
        tuple
            The losses in order, and a record of the last step.

        Raises
        ------
        TrainingError
            If a loss is not finite; the message names the step.
        """
        calls, self.calls = self.calls, []
        current = step - sum(len(rates) for _, rates in calls)
        losses: list[float] = []
        record: dict[str, Any] = {}
        for pending, rates in calls:
            values = pending.result()
            for loss, norm, rate in zip(values.losses, values.gradient_norms, rates, strict=True):
                current += 1
                if not math.isfinite(loss):
                    raise TrainingError(f"training diverged: the loss is {loss} at step {current}; {REMEDY}")
                losses.append(float(loss))
                record = {
                    "step": current,
                    "loss": float(loss),
                    "learning_rate": rate,
                    "gradient_norm": float(norm) if math.isfinite(norm) else None,
                }
        return losses, record


def optimizer_spec(config: Config, spec: NetworkSpec) -> OptimizerSpec:
    """Return the optimiser that a configuration describes, the frozen layer groups of the network resolved.

    Parameters
    ----------
    config : Config
        ``optimizer`` and ``train.freeze`` are read.
    spec : NetworkSpec
        The network.

    Raises
    ------
    ConfigError
        If ``train.freeze`` names no layer group of the network.
    """
    o = config.optimizer
    return OptimizerSpec(
        name=o.name,
        beta1=o.beta1,
        beta2=o.beta2,
        eps=o.eps,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
        frozen=spec.select(config.train.freeze),
    )


def learning_rate(optimizer: OptimizerSection, base: float, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Rate of one step.

    Parameters
    ----------
    optimizer : OptimizerSection
        ``schedule``, ``decay_rate``, ``warmup_steps`` and ``final_lr_fraction`` are read.
    base : float
        The rate before warm-up and decay.
    step : int
        Steps made before this one, from 0.
    steps_per_epoch : int
        Optimiser steps per epoch; the exponential schedule decays once per epoch's worth of steps, continuously.
    total_steps : int
        Optimiser steps of the whole run; where the cosine ends.

    Returns
    -------
    float
        ``base * decay_rate ** (step / steps_per_epoch)`` for ``exponential``; half a cosine from ``base`` to
        ``final_lr_fraction * base`` for ``cosine`` (Loshchilov and Hutter, 2017, without restarts); ``base`` for
        ``constant``. During the first ``warmup_steps`` the rate also rises linearly from ``base / warmup_steps``.
    """
    warm = min(1.0, (step + 1) / optimizer.warmup_steps) if optimizer.warmup_steps else 1.0
    if optimizer.schedule == "exponential":
        return warm * base * optimizer.decay_rate ** (step / max(steps_per_epoch, 1))
    if optimizer.schedule == "cosine":
        start = optimizer.warmup_steps
        progress = min(max((step - start) / max(total_steps - start, 1), 0.0), 1.0)
        floor = optimizer.final_lr_fraction
        return warm * base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
    return warm * base


class StopRequest:
    """While open, SIGTERM and SIGINT set :attr:`name` instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # Handlers can be set in the main thread alone; elsewhere the process's own handlers stay.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _notice(self, number: int, _: FrameType | None) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

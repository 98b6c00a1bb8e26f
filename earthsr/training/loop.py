"""The parts of the hot loop that decide nothing: batches made up to whole steps, and losses read late."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending, StepValues, TrainingEngine
from earthsr.data.batch import Batch
from earthsr.errors import TrainingError


def filled_batches(
    dataset: Any, normalisation: Any, engine: TrainingEngine, epoch: int, start: int, count: int
) -> Generator[Batch, None, None]:
    """Batches ``start`` to ``count`` of an epoch; empty ones (weight 0) fill up where the split has fewer."""
    made = start
    last: Batch | None = None
    for last in dataset.training_batches(
        epoch, normalisation, start=start, rank=engine.rank, world_size=engine.world_size
    ):
        made += 1
        yield last
    while last is not None and made < count:
        made += 1
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
        made = step - sum(len(rates) for _, rates in calls)
        losses: list[float] = []
        record: dict[str, Any] = {}
        for pending, rates in calls:
            values = pending.result()
            for loss, norm, rate in zip(values.losses, values.gradient_norms, rates, strict=True):
                made += 1
                if not math.isfinite(loss):
                    raise TrainingError(f"training diverged: the loss is {loss} at step {made}; {REMEDY}")
                losses.append(float(loss))
                record = {
                    "step": made,
                    "loss": float(loss),
                    "learning_rate": rate,
                    "gradient_norm": float(norm) if math.isfinite(norm) else None,
                }
        return losses, record

"""Where a run stands: the few numbers that, beside the engine's state, make it resume exactly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.errors import CheckpointError


@dataclass
class Progress:
    """Position in the order of samples, the epoch's running loss, and early stopping's memory."""

    step: int = 0
    """Optimiser steps made."""
    epoch: int = 0
    """Epochs completed, their evaluation included."""
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    """Sum of this epoch's losses so far."""
    best_score: float | None = None
    """Best score of the validation split so far."""
    best_step: int | None = None
    evaluations_without_gain: int = 0
    records: int = 0
    """Lines of metrics.jsonl; resuming cuts the file back to them."""
    finished: bool = False

    def judge(self, score: float | None, better: Callable[[float | None, float | None], bool]) -> bool:
        """Take the score of an evaluation; return whether it is the best so far, and count those that are not."""
        if better(score, self.best_score):
            self.best_score, self.best_step = score, self.step
            self.evaluations_without_gain = 0
            return True
        self.evaluations_without_gain += 1
        return False

    def finish(self, epochs: int, patience: int | None) -> None:
        """Decide whether the run is at its end: all ``epochs`` made, or ``patience`` evaluations without a gain."""
        tired = patience is not None and self.evaluations_without_gain >= patience
        self.finished = tired or self.epoch >= epochs

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; floats survive exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Progress:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        CheckpointError
            If a key is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise CheckpointError(f"{source}: its progress is damaged ({error}); use an earlier checkpoint") from None


class MetricsFile:
    """``metrics.jsonl``: one JSON object per logged step or epoch, appended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")

    def cut(self, records: int) -> None:
        """Keep the first ``records`` lines."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as handle:
            for _ in range(records):
                if not handle.readline():
                    break
            handle.truncate()

    def read(self) -> list[dict[str, Any]]:
        """Read all whole records; a last line that a kill cut off is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

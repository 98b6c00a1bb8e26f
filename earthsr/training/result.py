"""How a call of the trainer ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """How a call of :meth:`Trainer.train` ended."""

    folder: Path
    """The run folder."""
    steps: int
    """Updates of the weights, earlier calls included."""
    epochs: int
    """Whole passes over the training split."""
    best_score: float | None
    """Best score of the validation split."""
    score_name: str
    """Which: ``rmse_m`` (lowest, metres), ``miou`` (highest), ``rmse`` (lowest, of a field)."""
    words: str
    """The same for people."""
    stopped_early: bool
    """Whether no better score came for ``train.early_stopping_patience`` evaluations."""
    interrupted_by: str | None
    """Name of the signal that ended the run before its time, or None."""

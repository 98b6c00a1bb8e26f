"""The training loop, its schedule and its callbacks; the same on every backend."""

from earthsr.training.callbacks import Callback, Validation
from earthsr.training.loop import learning_rate
from earthsr.training.state import TrainingResult, initial_model
from earthsr.training.trainer import Trainer

__all__ = ["Callback", "Trainer", "TrainingResult", "Validation", "initial_model", "learning_rate"]

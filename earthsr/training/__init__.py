"""The training loop, its schedule and its callbacks; the same on every backend."""

from earthsr.training.callbacks import Callback, Validation
from earthsr.training.initial_model import initial_model
from earthsr.training.loop import learning_rate
from earthsr.training.state import TrainingResult
from earthsr.training.trainer import Trainer

__all__ = ["Callback", "Trainer", "TrainingResult", "Validation", "initial_model", "learning_rate"]

"""The training loop, its schedule and its callbacks; the same on every backend."""

from earthsr.training.callbacks import Callback, EvaluateCallBack
from earthsr.training.result import TrainingResult
from earthsr.training.schedule import learning_rate
from earthsr.training.trainer import Trainer

__all__ = ["Callback", "EvaluateCallBack", "Trainer", "TrainingResult", "learning_rate"]

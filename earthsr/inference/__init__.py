"""Using a trained model, whatever its workload: windows, blending, evaluation of a split, and long work in pieces."""

from earthsr.inference.evaluate import Evaluation, evaluate_split
from earthsr.inference.journal import Journal, Key, Written
from earthsr.inference.pieces import Piece, Place, Recipe, Scheduler, Stages, WorkTimes
from earthsr.inference.scheduler import make_scheduler

__all__ = [
    "Evaluation",
    "Journal",
    "Key",
    "Piece",
    "Place",
    "Recipe",
    "Scheduler",
    "Stages",
    "WorkTimes",
    "Written",
    "evaluate_split",
    "make_scheduler",
]

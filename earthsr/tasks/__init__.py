"""What is learnt: fields, spec, objective, scores and figures of each workload."""

from __future__ import annotations

from typing import Any

from earthsr.config import Config, UNetModel
from earthsr.tasks.base import Task
from earthsr.tasks.dem_sr import DemSR, Scores
from earthsr.tasks.land_field import LandField
from earthsr.tasks.land_use import LandUse

__all__ = ["DemSR", "LandField", "LandUse", "Scores", "Task", "task_for"]


def task_for(config: Config) -> Any:
    """Return the task that ``model.name`` (and the head of a U-Net) chooses."""
    if isinstance(config.model, UNetModel):
        return LandUse(config) if config.model.head == "classes" else LandField(config)
    return DemSR(config)

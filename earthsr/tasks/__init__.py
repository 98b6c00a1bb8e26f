"""What is learnt: fields, spec, objective, scores and figures of each workload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from earthsr.config import Config
from earthsr.dem.task import DemSR, Scores
from earthsr.landuse.field_task import LandField
from earthsr.landuse.task import LandUse
from earthsr.tasks.base import Task

__all__ = ["TASKS", "DemSR", "LandField", "LandUse", "Scores", "Task", "task_for"]


def _of_land_use(config: Config) -> Task:
    return LandUse(config) if config.unet.head == "classes" else LandField(config)


#: What makes the task of a configuration, by ``model.name``.
TASKS: Final[dict[str, Callable[[Config], Task]]] = {
    "demsrnet": DemSR,
    "DEMNet": DemSR,
    "unet": _of_land_use,
}


def task_for(config: Config) -> Any:
    """Return the task that ``model.name`` (and the head of a U-Net) chooses.

    Parameters
    ----------
    config : Config
        A whole configuration.

    Returns
    -------
    DemSR, LandUse or LandField
        The task.
    """
    return TASKS[config.model.name](config)

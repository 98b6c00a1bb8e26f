"""What is learnt: the interface of a workload's task, and the task of a configuration.

Workloads are found through the entry points ``earthsr.tasks``; this room names none.
"""

from __future__ import annotations

from earthsr.config import Config, workload_of
from earthsr.errors import ConfigError
from earthsr.tasks.base import Findings, Predictor, Task, TaskScores

__all__ = ["Findings", "Predictor", "Task", "TaskScores", "task_for"]


def task_for(config: Config) -> Task:
    """Return the task that ``model.name`` chooses.

    Parameters
    ----------
    config : Config
        A whole configuration.

    Returns
    -------
    Task
        The task of the configuration's workload.

    Raises
    ------
    ConfigError
        If the configuration's workload is not installed, or gives no task.
    """
    workload = workload_of(config)
    task = workload.task(config)
    if not isinstance(task, Task):
        raise ConfigError(f"workload {workload.name}: gives a {type(task).__name__}, expected an earthsr.tasks.Task")
    return task

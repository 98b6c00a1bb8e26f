"""What is learnt: the interface of a workload's task, and the task of a configuration.

Workloads are found through the entry points ``earthsr.tasks``; this room names none.
"""

from __future__ import annotations

from earthsr.tasks.base import Findings, Predictor, Task, TaskScores, task_for

__all__ = ["Findings", "Predictor", "Task", "TaskScores", "task_for"]

"""What is learnt: fields, spec, objective, scores and figures of each workload."""

from earthsr.tasks.dem_sr import DemSR, Scores, task_for

__all__ = ["DemSR", "Scores", "task_for"]

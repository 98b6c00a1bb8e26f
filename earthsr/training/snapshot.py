"""What a checkpoint says beside the numbers: enough to predict, and enough to resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import earthsr
from earthsr.backend import Model
from earthsr.config import Config
from earthsr.tasks import Task
from earthsr.training.progress import Progress

#: What is true of the weights that a run began with, and not of those that it makes.
_OF_THE_PARENT = ("source", "scores", "about")


def weights_metadata(task: Task, model: Model, dataset: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what travels with the weights: normalisation, units and cell sizes, and ``record`` of their training."""
    return {
        **{key: value for key, value in model.metadata.items() if key not in _OF_THE_PARENT},
        "task": task.name,
        **task.metadata(dataset),
        "training": dict(record),
        "earthsr_version": earthsr.__version__,
    }


def run_notes(
    config: Config, model: Model, dataset: Any, progress: Progress, fingerprint: str | None
) -> dict[str, Any]:
    """Return the contents of ``state.json`` but for the engine's counters."""
    return {
        "progress": progress.to_dict(),
        "spec": model.spec.to_dict(),
        "config": config.model_dump(mode="json"),
        "backend": {
            "name": model.backend.name,
            "version": model.backend.version(),
            "device": model.engine.device,
            "precision": model.engine.precision,
        },
        "earthsr_version": earthsr.__version__,
        "sampler": {
            "seed": dataset.seed,
            "epoch": progress.epoch,
            "step_in_epoch": progress.step_in_epoch,
            "batch_size": dataset.batch_size,
            "accumulate": config.optimizer.accumulate,
            "samples": len(dataset),
            **dataset.order,
        },
        "data_fingerprint": fingerprint,
    }

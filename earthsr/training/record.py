"""What a weights file says of its own training: enough for its model card once it has left the run folder.

No paths: files travel, and folders of one machine mean nothing on another.
"""

from __future__ import annotations

from typing import Any

from earthsr.backend import Model
from earthsr.data.dataset import SampleSet
from earthsr.tasks import Task
from earthsr.training.progress import Progress


def training_record(
    task: Task, model: Model, dataset: SampleSet, progress: Progress, fingerprint: str | None, loss: str
) -> dict[str, Any]:
    """Return the data, the settings, how far training went, and the best validation score so far.

    Parameters
    ----------
    task : Task
        Of the run, with its configuration.
    model : Model
        The model that trains.
    dataset : SampleSet
        Of the training split.
    progress : Progress
        Where the run stands.
    fingerprint : str or None
        Of the training split's file; None where samples come from a generator of one's own.
    loss : str
        Name of the objective that trains.
    """
    config, optimizer = task.config, task.config.optimizer
    return {
        "name": config.train.name,
        "data": {
            "name": config.data.name,
            "fingerprint": fingerprint,
            "samples": len(dataset),
            "patch_size": config.data.patch_size,
            **dataset.about(),
        },
        "settings": {
            "loss": loss,
            "optimizer": optimizer.name,
            "learning_rate": config.learning_rate,
            "schedule": optimizer.schedule,
            "batch_size": config.data.batch_size * optimizer.accumulate,
            "augmented": config.data.augment,
            **task.settings(),
            "frozen": list(config.train.freeze),
            "fine_tuned": config.train.load_ckpt or config.train.run_mode == "finetune",
            "amp_level": config.train.amp_level,
            "seed": config.train.seed,
        },
        "epoch": progress.epoch,
        "epochs": config.epochs,
        "step": progress.step,
        "backend": f"{model.backend.name} {model.backend.version()}",
        "device": model.engine.device,
        "precision": model.engine.precision,
        "validation": {"score": task.best, "value": progress.best_score, "step": progress.best_step},
    }

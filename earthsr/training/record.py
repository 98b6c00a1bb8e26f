"""What a weights file says of its own training: enough for its model card once it has left the run folder.

No paths: files travel, and folders of one machine mean nothing on another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from earthsr.backend import Model
from earthsr.config import Config
from earthsr.dem.split import DemData
from earthsr.landuse.split import LandUseData
from earthsr.tasks import task_for
from earthsr.training.progress import Progress


def training_record(
    config: Config, model: Model, dataset: Any, progress: Progress, fingerprint: str | None, loss: str
) -> dict[str, Any]:
    """Return the data, the settings, how far training went, and the best validation score so far.

    Parameters
    ----------
    config : Config
        Of the run.
    model : Model
        The model that trains.
    dataset : Dataset or LandUseDataset
        Of the training split.
    progress : Progress
        Where the run stands.
    fingerprint : str or None
        Of the training split's file; None where samples come from a generator of one's own.
    loss : str
        Name of the objective that trains.
    """
    task, optimizer = task_for(config), config.optimizer
    return {
        "name": config.train.name,
        "data": {
            "name": config.data.name,
            "fingerprint": fingerprint,
            "samples": len(dataset),
            "patch_size": config.data.patch_size,
            **_source(dataset.generator),
        },
        "settings": {
            "loss": loss,
            "optimizer": optimizer.name,
            "learning_rate": config.learning_rate,
            "schedule": optimizer.schedule,
            "batch_size": config.data.batch_size * optimizer.accumulate,
            "augmented": config.data.augment,
            **({"shifted": True} if config.data.shift else {}),
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


def _source(generator: Any) -> dict[str, Any]:
    """Where samples come from, as far as their file says."""
    if isinstance(generator, DemData):
        attributes = generator.layout.attributes
        return {"source": attributes.get("source"), "crs": attributes.get("crs"), "regions": _regions(attributes)}
    if isinstance(generator, LandUseData):
        layout, fine = generator.layout, generator.layout.fine
        south, east = fine.north - fine.rows * fine.cell_y, fine.west + fine.columns * fine.cell_x
        return {
            "source": layout.source,
            "crs": layout.crs,
            "years": list(layout.years),
            "held_out_years": list(layout.held_out_years),
            "bounds_deg": [fine.west, south, east, fine.north],
        }
    return {"source": "a generator of one's own"}


def _regions(attributes: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """Regions by split, where ``earthsr prepare dem`` wrote the file."""
    try:
        regions = json.loads(attributes["provenance"])["result"]["regions"]
        return {str(split): [str(name) for name in names] for split, names in regions.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None

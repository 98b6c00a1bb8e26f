"""Whether a checkpoint belongs to the run that wants to carry it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from earthsr.config import Config
from earthsr.errors import CheckpointError
from earthsr.models import Checkpoint, NetworkSpec, require_same_spec


def check_same_run(
    checkpoint: Checkpoint, spec: NetworkSpec, config: Config, order: Mapping[str, Any], fingerprint: str | None
) -> None:
    """Compare model, order of samples and data; what only changes the future (rates, epochs) may differ.

    ``order`` is what the data set's order depends on beside the configuration's seed and batch.

    Raises
    ------
    CheckpointError
        If they differ; the message names what.
    """
    folder, notes = checkpoint.folder, checkpoint.notes
    require_same_spec(checkpoint.weights.spec, spec, str(folder))
    sampler = notes.get("sampler") or {}
    here = {
        "seed": config.train.seed,
        "batch_size": config.data.batch_size,
        "accumulate": config.optimizer.accumulate,
        **order,
    }
    for key, value in here.items():
        if sampler.get(key) != value:
            raise CheckpointError(
                f"{folder}: was written with {key} {sampler.get(key)}, the configuration says {value}; the order of "
                "samples would change: restore the setting, or start a new run with train.load_ckpt"
            )
    theirs_print = notes.get("data_fingerprint")
    if theirs_print is not None and fingerprint is not None and theirs_print != fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on other data (fingerprint {theirs_print}, here {fingerprint}); point "
            "data.root_dir at the same data, or start a new run with train.load_ckpt"
        )

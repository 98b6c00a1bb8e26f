"""What a training begins with: a model with weights from spec and seed, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earthsr.backend import Backend, Model, choose_backend
from earthsr.config import Config
from earthsr.errors import ConfigError
from earthsr.models import Precision, initial_weights, read_weights, require_same_spec, resolve_checkpoint
from earthsr.tasks import Task, task_for


def initial_model(
    config: Config,
    backend: str | Backend | None = None,
    device: str | None = None,
    kind: type[Model] = Model,
    *,
    task: Task | None = None,
) -> Model:
    """Make the model that a configuration describes.

    With ``train.load_ckpt`` (or ``run_mode: test``) the weights, and with them the normalisation, come from
    ``summary.ckpt_path``, taken relative to ``summary.summary_dir`` where it exists there; else from spec and seed.

    Parameters
    ----------
    config : Config
        A whole configuration.
    backend : str or Backend, optional
        Goes before the configuration's.
    device : str, optional
        Goes before the configuration's.
    kind : type
        Class of the model.
    task : Task, optional
        What is learnt; the configuration's where absent.

    Returns
    -------
    Model
        With weights, ready for a :class:`Trainer`.

    Raises
    ------
    BackendError
        If the backend is not there.
    CheckpointError
        If the checkpoint is missing or of another model.
    ConfigError
        If keys contradict each other, or ``run_mode`` is test and no checkpoint is named.
    """
    config.check()
    chosen = choose_backend(backend, config.backend)
    spec = (task or task_for(config)).spec()
    metadata: dict[str, Any] = {}
    if config.train.load_ckpt or (config.train.run_mode == "test" and config.summary.ckpt_path):
        written = Path(config.summary.ckpt_path or "")
        inside = Path(config.summary.summary_dir) / written
        file = read_weights(resolve_checkpoint(inside if inside.exists() else written))
        require_same_spec(file.spec, spec, str(file.path))
        weights, metadata = file.weights, {**file.metadata, "source": str(file.path)}
    elif config.train.run_mode == "test":
        raise ConfigError("train.run_mode is test, which needs weights: set summary.ckpt_path")
    else:
        weights = initial_weights(spec, config.train.seed)
    precision = Precision(config.train.amp_level, config.train.amp_dtype)
    place, distribute = device or config.train.device, config.train.distribute
    return kind(
        spec,
        weights,
        metadata,
        backend=chosen,
        # The launcher says which device is this process's own.
        device=place if distribute else f"{place}:{config.train.device_id}",
        precision=precision,
        graph=config.train.graph,
        distribute=distribute,
    )

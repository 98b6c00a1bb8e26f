"""What a run begins with and where it stands, what a checkpoint says of it, and whether one belongs to a run.

That is what makes resuming exact. What a weights file says of its own training names no paths: files travel, and
folders of one machine mean nothing on another.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import earthsr
from earthsr.backend import Backend, Model, choose_backend
from earthsr.config import Config
from earthsr.data.dataset import SampleSet
from earthsr.errors import CheckpointError, ConfigError, EarthsrWarning
from earthsr.models import (
    Checkpoint,
    NetworkSpec,
    Precision,
    RunFolder,
    initial_weights,
    read_checkpoint,
    read_weights,
    require_same_spec,
    resolve_checkpoint,
)
from earthsr.tasks import Task, task_for
from earthsr.training.loop import diverged_weight


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


@dataclass
class Progress:
    """Position in the order of samples, the epoch's running loss, and early stopping's memory."""

    step: int = 0
    """Optimiser steps made."""
    epoch: int = 0
    """Epochs completed, their evaluation included."""
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    """Sum of this epoch's losses so far."""
    best_score: float | None = None
    """Best score of the validation split so far."""
    best_step: int | None = None
    evaluations_without_gain: int = 0
    records: int = 0
    """Lines of metrics.jsonl; resuming cuts the file back to them."""
    finished: bool = False

    def judge(self, score: float | None, better: Callable[[float | None, float | None], bool]) -> bool:
        """Take the score of an evaluation; return whether it is the best so far, and count those that are not."""
        if better(score, self.best_score):
            self.best_score, self.best_step = score, self.step
            self.evaluations_without_gain = 0
            return True
        self.evaluations_without_gain += 1
        return False

    def finish(self, epochs: int, patience: int | None) -> None:
        """Decide whether the run is at its end: all ``epochs`` made, or ``patience`` evaluations without a gain."""
        tired = patience is not None and self.evaluations_without_gain >= patience
        self.finished = tired or self.epoch >= epochs

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; floats survive exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Progress:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        CheckpointError
            If a key is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise CheckpointError(f"{source}: its progress is damaged ({error}); use an earlier checkpoint") from None


class MetricsFile:
    """``metrics.jsonl``: one JSON object per logged step or epoch, appended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")

    def cut(self, records: int) -> None:
        """Keep the first ``records`` lines."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as handle:
            for _ in range(records):
                if not handle.readline():
                    break
            handle.truncate()

    def read(self) -> list[dict[str, Any]]:
        """Read all whole records; a last line that a kill cut off is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records


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
    configured = {
        "seed": config.train.seed,
        "batch_size": config.data.batch_size,
        "accumulate": config.optimizer.accumulate,
        **order,
    }
    for key, value in configured.items():
        if sampler.get(key) != value:
            raise CheckpointError(
                f"{folder}: was written with {key} {sampler.get(key)}, the configuration says {value}; the order of "
                "samples would change: restore the setting, or start a new run with train.load_ckpt"
            )
    trained_on = notes.get("data_fingerprint")
    if trained_on is not None and fingerprint is not None and trained_on != fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on other data (fingerprint {trained_on}, here {fingerprint}); point "
            "data.root_dir at the same data, or start a new run with train.load_ckpt"
        )


def newest_converged(run: RunFolder, newest: Path) -> Checkpoint:
    """Read the newest checkpoint whose weights training can go on from; warn of those that are passed over.

    Raises
    ------
    CheckpointError
        If every checkpoint of the run has diverged; ``newest`` is named.
    """
    for step in reversed(run.steps()):
        checkpoint = read_checkpoint(run.folder(step))
        weight = diverged_weight(checkpoint.state.weights)
        if weight is None:
            return checkpoint
        warnings.warn(
            f"{run.folder(step)}: {weight}, as a training that diverged has it; not resumed from",
            EarthsrWarning,
            stacklevel=2,
        )
    raise CheckpointError(
        f"{newest}: every checkpoint of the run has diverged; begin anew with --overwrite, and a lower "
        "optimizer.learning_rate"
    )


def mend(run: RunFolder, metrics: MetricsFile, progress: Progress, keep: int, logger: logging.Logger) -> None:
    """Bring the files that lie beside a checkpoint to where it is; of older checkpoints ``keep`` stay with it."""
    interrupted = run.interrupted()
    if interrupted is not None:
        logger.info(f"the run was interrupted by {interrupted}")
        run.interrupted_file.unlink()
    metrics.cut(progress.records)
    if progress.best_step in run.steps():
        # A kill between a checkpoint's renaming and its pointers leaves them one behind, and what was to go in place;
        # the last checkpoint of a run has none after it that would make up for that.
        run.point("best", progress.best_step)
    if progress.step in run.steps():
        run.point("latest", progress.step)
    run.prune(keep)


@dataclass(frozen=True)
class TrainingResult:
    """How a call of :meth:`Trainer.train` ended."""

    folder: Path
    """The run folder."""
    steps: int
    """Updates of the weights, earlier calls included."""
    epochs: int
    """Whole passes over the training split."""
    best_score: float | None
    """Best score of the validation split."""
    score_name: str
    """Which: ``rmse_m`` (lowest, metres), ``miou`` (highest), ``rmse`` (lowest, of a field)."""
    words: str
    """The same for people."""
    stopped_early: bool
    """Whether no better score came for ``train.early_stopping_patience`` evaluations."""
    interrupted_by: str | None
    """Name of the signal that ended the run before its time, or None."""

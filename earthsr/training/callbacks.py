"""What happens beside the loop: evaluation, monitors, progress bar, TensorBoard and MLflow.

A callback may be slow; it is called at log points and ends of epochs, never inside the hot loop.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from earthsr.backend import Model
from earthsr.config import Config
from earthsr.errors import InputError, install_hint
from earthsr.evaluation.statistics import over_ranks
from earthsr.ranks import Rank
from earthsr.tasks import Task, task_for


class Callback:
    """Override what you need; ``trainer`` carries configuration, model and progress."""

    def begin(self, trainer: Any) -> None:
        """Before the first step of ``trainer``."""

    def log(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """After a logged step of ``trainer``; ``record`` is the line of ``metrics.jsonl``."""

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """After an epoch of ``trainer`` and its evaluation; scores are under ``record["valid"]``."""

    def end(self, trainer: Any) -> None:
        """After the last step of ``trainer``, also when interrupted."""


class Validation(Callback):
    """Scores the model on a split in physical units.

    Every sample counts once and batches of any size merge exactly; the baselines are scored once. Several ranks share
    the samples out, and all of them get the scores of the whole.

    Parameters
    ----------
    model : Model
        The model that trains.
    valid_dataset : SampleSet
        What it is scored on.
    config : Config
        ``summary.valid_frequency`` says how often, in epochs.
    logger : logging.Logger, optional
        Where :meth:`evaluate` reports.
    task : Task, optional
        How it is scored; the configuration's where absent.
    """

    def __init__(
        self,
        model: Model,
        valid_dataset: Any,
        config: Config,
        logger: logging.Logger | None = None,
        task: Task | None = None,
    ) -> None:
        self.model = model
        self.valid_dataset = valid_dataset
        self.config = config
        self.logger = logger or logging.getLogger("earthsr")
        self.frequency = config.summary.valid_frequency
        self._task = task or task_for(config)
        self._reference: dict[str, float | None] = {}

    def due(self, epoch: int) -> bool:
        """Whether the split is scored after this epoch (counted from 1)."""
        return epoch % self.frequency == 0

    def scores(self, baselines: bool = True) -> Any:
        """Statistics of the model, and of the baselines where asked for."""
        engine = self.model.training_engine
        share = Rank(engine.rank, engine.world_size, engine.gather)
        scores: Any = self._task.watch(self.model, self.valid_dataset, baselines, share)
        return scores if share.of == 1 else replace(scores, total=over_ranks(scores.total, engine.gather))

    def evaluate(self) -> dict[str, float | None]:
        """Scores of the model, and those of the baselines that it has to beat (``bicubic_rmse``)."""
        scores = self.scores(baselines=not self._reference)
        self._reference = scores.reference() or self._reference
        return {**scores.headline(), **self._reference}


class LossMonitor(Callback):
    """Reports each epoch's loss and scores."""

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Log one line."""
        valid = record.get("valid")
        score = f", valid {trainer.task.describe_validation(valid)}" if valid else ""
        trainer.logger.info(
            f"epoch {record['epoch']}/{trainer.epochs}, step {record['step']}: loss {record['loss']:.3e}{score}"
        )


class TimeMonitor(Callback):
    """Reports each epoch's time, and the time per step, evaluation included."""

    def __init__(self) -> None:
        self._start, self._step = 0.0, 0

    def begin(self, trainer: Any) -> None:
        """Start the clock."""
        self._start, self._step = time.perf_counter(), trainer.progress.step

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Log one line."""
        now = time.perf_counter()
        steps = max(record["step"] - self._step, 1)
        spent = now - self._start
        trainer.logger.info(f"epoch time {spent:.1f} s, {1000 * spent / steps:.1f} ms per step")
        self._start, self._step = now, record["step"]


class ProgressBar(Callback):
    """Samples done, samples/s and time left on standard error; only on a terminal, only on rank 0."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def begin(self, trainer: Any) -> None:
        """Open the bar where the run stands."""
        if sys.stderr.isatty() and trainer.model.training_engine.rank == 0:
            size = trainer.step_size
            self._bar = tqdm(
                total=trainer.total_steps * size,
                initial=trainer.progress.step * size,
                unit=" samples",
                unit_scale=True,
                desc="train",
                file=sys.stderr,
            )

    def log(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update(record["step"] * trainer.step_size - self._bar.n)
            self._bar.set_postfix(loss=f"{record['loss']:.2e}", refresh=False)

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Move on to the end of the epoch."""
        self.log(trainer, record)

    def end(self, trainer: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    flat = {k: float(v) for k, v in record.items() if isinstance(v, (int, float)) and k not in ("step", "epoch")}
    for name, value in (record.get("valid") or {}).items():
        if value is not None:
            flat[f"valid/{name}"] = float(value)
    return flat


def require_trackers(config: Config) -> None:
    """Raise an :class:`InputError` where a tracker that the ``summary`` section asks for is not installed."""
    for key, module, package in (("tensorboard", "tensorboard", "tensorboard"), ("mlflow", "mlflow", "mlflow-skinny")):
        if config.summary[key] and importlib.util.find_spec(module) is None:
            raise InputError(
                f"summary.{key} needs the package {package}: {install_hint('logging')}, or set it to false"
            )


class TensorBoard(Callback):
    """Writes event files into ``tensorboard/`` of the run folder."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder / "tensorboard"))

    def log(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Write the scalars."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(f"step/{name}", value, record["step"])

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Write the scalars."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(f"epoch/{name}", value, record["step"])
        self._writer.flush()

    def end(self, trainer: Any) -> None:
        """Close the file."""
        self._writer.close()


class MLflow(Callback):
    """Tracks the run with MLflow, where ``MLFLOW_TRACKING_URI`` points, else in ``mlruns/`` of the run folder.

    The run's identity is kept in ``mlflow-run``, so that a resumed run goes on in the same record.
    """

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        if "MLFLOW_TRACKING_URI" in os.environ:
            self._client = MlflowClient()
        else:
            # A folder is enough for one run; MLflow asks for this consent since it prefers databases.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self._client = MlflowClient(tracking_uri=(folder / "mlruns").resolve().as_uri())
        self._identity = folder / "mlflow-run"
        self._run_id = ""

    def begin(self, trainer: Any) -> None:
        """Open the record, or the earlier one of a resumed run."""
        if trainer.progress.step and self._identity.is_file():
            self._run_id = self._identity.read_text(encoding="utf-8").strip()
            return
        existing = self._client.get_experiment_by_name("earthsr")
        experiment = existing.experiment_id if existing else self._client.create_experiment("earthsr")
        self._run_id = self._client.create_run(experiment, run_name=trainer.config.train.name).info.run_id
        self._identity.write_text(self._run_id + "\n", encoding="utf-8")
        for section in ("model", "data", "optimizer", "train"):
            for key, value in trainer.config[section].items():
                self._client.log_param(self._run_id, f"{section}.{key}", value)

    def log(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Send the scalars."""
        for name, value in _scalars(record).items():
            self._client.log_metric(self._run_id, f"step/{name}", value, step=record["step"])

    def epoch(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """Send the scalars."""
        for name, value in _scalars(record).items():
            self._client.log_metric(self._run_id, f"epoch/{name}", value, step=record["step"])

    def end(self, trainer: Any) -> None:
        """Close the record."""
        done = trainer.progress.finished
        self._client.set_terminated(self._run_id, status="FINISHED" if done else "KILLED")


def default_callbacks(config: Config, folder: Path) -> list[Callback]:
    """Monitors and progress bar, and the trackers that the ``summary`` section asks for."""
    callbacks: list[Callback] = [LossMonitor(), TimeMonitor(), ProgressBar()]
    if config.summary.tensorboard:
        callbacks.append(TensorBoard(folder))
    if config.summary.mlflow:
        callbacks.append(MLflow(folder))
    return callbacks

"""The trainer: one loop for every backend, resumable after any step.

What decides a run's numbers (order of samples, augmentation, normalisation, rates, early stopping) is decided here
or below; an engine does the tensors.
"""

from __future__ import annotations

import logging
import time
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.backend.interface import NativeLoss
from earthsr.config import Config, to_yaml
from earthsr.data.dataset import SampleSet
from earthsr.errors import EarthsrWarning, InputError, TrainingError
from earthsr.evaluation.figures import loss_curves, save
from earthsr.models import Objective, OptimizerSpec, RunFolder, read_checkpoint
from earthsr.ranks import Rank
from earthsr.store import require_other, write_text
from earthsr.tasks import Task, task_for
from earthsr.training.callbacks import Callback, Validation, default_callbacks, require_trackers
from earthsr.training.distributed import agreed_signal, on_first, require_launch, require_same, restarted
from earthsr.training.loop import (
    REMEDY,
    StopRequest,
    Unread,
    diverged_weight,
    filled_batches,
    learning_rate,
    optimizer_spec,
)
from earthsr.training.state import (
    MetricsFile,
    Progress,
    TrainingResult,
    check_same_run,
    mend,
    newest_converged,
    run_notes,
    training_record,
    weights_metadata,
)


class Trainer:
    """Trains a model as a configuration says.

    Override ``get_dataset``, ``get_optimizer``, ``get_validation`` or ``get_callbacks`` to change what is trained on,
    how, what decides which checkpoint is best, and what is watched; then call :meth:`train`.

    Parameters
    ----------
    config : Config
        All five sections.
    model : Model
        Weights and backend; its normalisation, if it has one (fine-tuning), is kept.
    loss_fn : Objective or callable
        ``MSELoss()`` or another objective spec, or a loss written in the model's framework.
    logger : logging.Logger, optional
        Where the monitors report.
    task : Task, optional
        What is learnt; the configuration's where absent.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        loss_fn: Objective | NativeLoss,
        logger: logging.Logger | None = None,
        *,
        task: Task | None = None,
    ) -> None:
        config.check()
        require_launch(config)
        require_trackers(config)
        self.config = config
        self.model = model
        self.loss_fn = loss_fn
        self.logger = logger or logging.getLogger("earthsr")
        self.run = RunFolder(config.summary.summary_dir)
        self.progress = Progress()
        self.task = task or task_for(config)
        self.train_dataset, self.valid_dataset = self.get_dataset()
        samples, size = len(self.train_dataset), self.train_dataset.batch_size
        if size > samples:
            warnings.warn(
                f"data.batch_size is {size}, but the training split has {samples} samples: the rest of every batch is "
                "padding; take a smaller batch",
                EarthsrWarning,
                stacklevel=2,
            )
        self.optimizer = self.get_optimizer()
        self.validation = self.get_validation()

    # What a subclass may override

    def get_dataset(self) -> tuple[SampleSet, SampleSet]:
        """Training and validation data."""
        return self.task.dataset("train"), self.task.dataset("valid")

    def get_optimizer(self) -> OptimizerSpec:
        """Return the optimiser's spec, the frozen layer groups resolved.

        Raises
        ------
        ConfigError
            If ``train.freeze`` names no layer group of the network.
        """
        return optimizer_spec(self.config, self.model.spec)

    def get_validation(self) -> Validation | None:
        """Return what scores the model after epochs; early stopping and ``best`` follow it, and None has neither."""
        return Validation(self.model, self.valid_dataset, self.config, self.logger, self.task)

    def get_callbacks(self) -> list[Callback]:
        """Return what watches the run on every rank, beside validation and the monitors: nothing."""
        return []

    # Sizes

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.config.epochs

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return -(-self.train_dataset.get_dataset_size() // self.config.optimizer.accumulate)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def step_size(self) -> int:
        """Samples per optimiser step, over all ranks."""
        return self.train_dataset.batch_size * self.config.optimizer.accumulate

    # The run

    def train(self, resume: bool = False, overwrite: bool = False) -> TrainingResult:
        """Train to the end, to early stopping, or to a signal.

        Parameters
        ----------
        resume : bool
            Carry on from the run folder's newest checkpoint; from the beginning where there is none.
        overwrite : bool
            Replace a run that the folder holds already.

        Raises
        ------
        InputError
            If the folder holds a run and neither is asked for, or the checkpoint belongs to another run.
        TrainingError
            If the loss is not finite.
        """
        # A launcher that starts processes again after one of them died repeats the command.
        resume = resume or restarted()
        newest = self.run.newest()
        if newest is not None and not (resume or overwrite):
            raise InputError(
                f"{self.run.path} holds a run already; use --resume to carry it on, --output for another folder, "
                "or --overwrite (in Python resume=True, summary.summary_dir, overwrite=True)"
            )
        if overwrite and newest is not None and not resume:
            # Weights to begin with that lie in the folder would go with the run that is replaced.
            require_other([self.run.checkpoints], [self.model.metadata.get("source")])
        self._normalise(resume and newest is not None)
        engine = self.model.training_engine
        train, accumulate = self.config.train, self.config.optimizer.accumulate
        engine.prepare_training(self.loss_fn, self.optimizer, accumulate, train.recompute, train.sync_batch_norm)
        step = 0 if newest is None else int(newest.name.rpartition("-")[2])
        require_same(engine, step, f"{self.run.path}: newest checkpoints are of different steps")
        # Whatever may be refused has been asked for by now; from here on something is written.
        lock = on_first(engine, lambda: self.run.lock(newest))
        try:
            return self._train(newest, resume)
        finally:
            if lock is not None:
                lock.release()

    def _train(self, newest: Path | None, resume: bool) -> TrainingResult:
        engine = self.model.training_engine
        on_first(engine, self.run.create)
        self.metrics = MetricsFile(self.run.metrics_file)
        if resume and newest is not None:
            self._restore(newest)
        else:
            if resume:
                self.logger.warning(f"{self.run.path} holds no checkpoint to resume from: starting at the beginning")
            on_first(engine, self.run.clear)
            self.progress = Progress()
        on_first(engine, lambda: write_text(self.run.config_file, to_yaml(self.config)))
        own: list[Callback] = [] if self.validation is None else [self.validation]
        self.callbacks = [
            *own,
            *self.get_callbacks(),
            *(default_callbacks(self.config, self.run.path) if self._writes else []),
        ]
        ranks = f", {engine.world_size} ranks together" * (engine.world_size > 1)
        self.logger.info(
            f"training on {self.model.backend.name} ({engine.device}, {engine.precision}): {self.epochs} epochs of "
            f"{self.steps_per_epoch} steps of {self.step_size} samples, "
            f"{self.model.spec.parameter_count:,} parameters{ranks}"
            + (
                f", {len(self.optimizer.frozen)} of {len(self.model.spec.parameters)} tensors frozen"
                * bool(self.optimizer.frozen)
            )
        )
        with StopRequest() as stop:
            for callback in self.callbacks:
                callback.begin(self)
            try:
                stopped_early = self._loop(stop)
            finally:
                for callback in self.callbacks:
                    callback.end(self)
        return self._finish(stop, stopped_early)

    def _normalise(self, resuming: bool) -> None:
        """Choose the normalisation where the model has none, and look for values that no mask covers."""
        if resuming:
            return
        engine = self.model.training_engine
        share = Rank(engine.rank, engine.world_size, engine.gather)
        for dataset in (self.train_dataset, self.valid_dataset):
            dataset.scan(share)
        if self.model.metadata.get("normalisation") is not None:
            self.task.require_fitting(self.model, self.train_dataset)
            self.logger.info(f"normalisation of {self.model.metadata.get('source', 'the model')} is kept")
        else:
            self.model.normalisation = self.task.normalisation(self.train_dataset)

    def _restore(self, folder: Path) -> None:
        checkpoint = newest_converged(self.run, folder)
        check_same_run(checkpoint, self.model.spec, self.config, self.train_dataset.order, self._fingerprint)
        self.model.metadata.update(checkpoint.weights.metadata)
        self.model.training_engine.load_state(checkpoint.state)
        self.progress = Progress.from_dict(checkpoint.notes["progress"], str(folder))
        keep = self.config.summary.keep_checkpoint_max
        on_first(self.model.training_engine, lambda: mend(self.run, self.metrics, self.progress, keep, self.logger))
        # Epochs and patience may have been raised since.
        self.progress.finish(self.epochs, self.config.train.early_stopping_patience)
        if self.progress.finished:
            self.logger.warning(
                f"the run ended at step {self.progress.step} (epoch {self.progress.epoch}): nothing to do; raise "
                "optimizer.epochs or train.early_stopping_patience to carry it on"
            )
        else:
            self.logger.info(f"resuming at step {self.progress.step} (epoch {self.progress.epoch + 1})")

    @property
    def _writes(self) -> bool:
        """Whether files are this process's to write."""
        return self.model.training_engine.rank == 0

    def _loop(self, stop: StopRequest) -> bool:
        """Run epochs; return whether early stopping ended them."""
        progress, patience = self.progress, self.config.train.early_stopping_patience
        while not progress.finished:
            if self._epoch(stop):
                self._save()
                return False
            self._end_of_epoch()
            if patience is not None and progress.evaluations_without_gain >= patience:
                self.logger.info(f"no gain in {patience} evaluations: stopping early")
                return True
        return False

    def _epoch(self, stop: StopRequest) -> bool:
        """Make the steps of an epoch that are left; return whether a signal ended it before its time.

        Ranks ask each other for signals where they read losses, and wait for each other anyway.
        """
        progress, summary = self.progress, self.config.summary
        engine, every = self.model.training_engine, self.config.summary.log_every
        accumulate = self.config.optimizer.accumulate
        stream = filled_batches(
            self.train_dataset,
            self.model.normalisation,
            engine,
            progress.epoch,
            start=progress.step_in_epoch * accumulate,
            count=self.steps_per_epoch * accumulate,
        )
        unread = Unread()
        clock, clock_step = time.perf_counter(), progress.step
        save_every = summary.save_checkpoint_steps
        alone, stopped = engine.world_size == 1, False
        while progress.step_in_epoch < self.steps_per_epoch and not stopped:
            ends = [self.steps_per_epoch - progress.step_in_epoch, every - progress.step % every]
            if save_every:
                ends.append(save_every - progress.step % save_every)
            count = min(engine.steps_per_call, *ends)
            rates = [self._rate(progress.step + i) for i in range(count)]
            batches = [next(stream) for _ in range(count * accumulate)]
            unread.add(engine.run(batches, rates), rates)
            progress.step += count
            progress.step_in_epoch += count
            whole_epoch = progress.step_in_epoch == self.steps_per_epoch
            save_now = bool(save_every) and progress.step % (save_every or 1) == 0 and not whole_epoch
            if progress.step % every == 0 or whole_epoch or save_now or (alone and stop.name):
                stop.name = agreed_signal(engine, stop.name)
                stopped = stop.name is not None
                rate = (progress.step - clock_step) * self.step_size
                last = self._read(unread)
                if progress.step % every == 0:
                    now = time.perf_counter()
                    self._record({**last, "samples_per_s": round(rate / (now - clock), 2)}, "log")
                    clock, clock_step = now, progress.step
            if save_now and not stopped:
                self._save()
            # A signal may have come while something was written.
            stopped = stopped or (alone and stop.name is not None)
        self._read(unread)
        stream.close()
        return stopped

    def _rate(self, step: int) -> float:
        return learning_rate(
            self.config.optimizer, self.config.learning_rate, step, self.steps_per_epoch, self.total_steps
        )

    def _read(self, unread: Unread) -> dict[str, Any]:
        """Wait for losses, add them to the epoch's sum one by one, and describe the last step."""
        losses, record = unread.read(self.progress.step)
        for loss in losses:
            self.progress.loss_sum += loss
        return {**record, "epoch": self.progress.epoch + 1}

    def _record(self, record: dict[str, Any], event: str) -> None:
        if self._writes:
            self.metrics.append(record)
        self.progress.records += 1
        for callback in self.callbacks:
            getattr(callback, event)(self, record)

    def _end_of_epoch(self) -> None:
        progress, summary = self.progress, self.config.summary
        record: dict[str, Any] = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "loss": progress.loss_sum / self.steps_per_epoch,
            "learning_rate": self._rate(progress.step - 1),
        }
        last = progress.epoch + 1 == self.epochs
        gained = False
        if self.validation is not None and (self.validation.due(progress.epoch + 1) or last):
            record["valid"] = self.validation.evaluate()
            if record["valid"].get(self.task.best) is None:
                raise TrainingError(
                    f"training diverged: {self.task.best} of the validation split is no finite number at step "
                    f"{progress.step}; {REMEDY}"
                )
            gained = progress.judge(record["valid"].get(self.task.best), self.task.better)
        progress.epoch += 1
        progress.step_in_epoch = 0
        progress.loss_sum = 0.0
        progress.finish(self.epochs, self.config.train.early_stopping_patience)
        self._record(record, "epoch")
        by_epoch = summary.save_checkpoint_epochs and progress.epoch % summary.save_checkpoint_epochs == 0
        by_step = summary.save_checkpoint_steps and progress.step % summary.save_checkpoint_steps == 0
        if gained or by_epoch or by_step or progress.finished:
            self._save(best=gained)

    # Checkpoints

    @cached_property
    def _fingerprint(self) -> str | None:
        return self.train_dataset.fingerprint()

    def _save(self, best: bool = False) -> None:
        about = (self.model, self.train_dataset, self.progress, self._fingerprint)
        record = training_record(self.task, *about, loss=getattr(self.loss_fn, "name", "a function of one's own"))
        metadata = weights_metadata(self.task, self.model, self.train_dataset, record)
        notes = run_notes(self.config, *about)
        state = self.model.training_engine.export_state()
        weight = diverged_weight(state.weights)
        if weight is not None:
            raise TrainingError(f"training diverged: {weight} at step {self.progress.step}; {REMEDY}")

        def write() -> None:
            self.run.save(self.progress.step, self.model.spec, state, metadata, notes)
            if best:
                self.run.point("best", self.progress.step)
            self.run.prune(self.config.summary.keep_checkpoint_max)

        on_first(self.model.training_engine, write)

    def _finish(self, stop: StopRequest, stopped_early: bool) -> TrainingResult:
        if stop.name and not self.progress.finished:
            words = f"{stop.name} at step {self.progress.step} of {self.total_steps}\n"
            on_first(self.model.training_engine, lambda: write_text(self.run.interrupted_file, words))
            self.logger.info(f"stopped by {stop.name} at step {self.progress.step}; --resume carries on from here")
        else:
            best = self.run.pointed("best")
            if best is not None:
                self.model.load_weights(read_checkpoint(best).weights.weights)
        records = self.metrics.read() if self._writes else []
        if any("loss" in record for record in records):
            save(loss_curves(records, self.task.best, self.task.score_label), self.run.figures / "loss.png")
        return TrainingResult(
            folder=self.run.path,
            steps=self.progress.step,
            epochs=self.progress.epoch,
            best_score=self.progress.best_score,
            score_name=self.task.best + ("_m" if self.task.units == "m" else ""),
            words=self.task.describe_validation({self.task.best: self.progress.best_score}),
            stopped_early=stopped_early,
            interrupted_by=None if self.progress.finished else stop.name,
        )

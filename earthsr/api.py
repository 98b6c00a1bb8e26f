"""The library in plain calls, of both workloads: train, evaluate, open a model.

Verbs of one workload are in its wing: ``earthsr.dem.api`` and ``earthsr.landuse.api``; pictures are in
``earthsr.drawing``.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earthsr.backend import Model, choose_backend, choose_runner, is_exported, read_model
from earthsr.check.card import card_markdown, metrics_beside, model_card
from earthsr.config import Config, find_workload, from_mapping, load_yaml_config
from earthsr.errors import CheckpointError, ConfigError, EarthsrWarning, InputError
from earthsr.evaluation.metrics import installed_metrics
from earthsr.inference.evaluate import Evaluation, evaluate_split
from earthsr.inference.pieces import Scheduler
from earthsr.models import (
    Precision,
    resolve_checkpoint,
)
from earthsr.models.checkpoint import STATE, WEIGHTS, evaluation_folder, is_pretrained
from earthsr.models.hub import PREFIX, looks_like_repository, upload
from earthsr.models.weights import write_weights
from earthsr.tasks import task_for
from earthsr.training import Trainer, TrainingResult, initial_model


@dataclass(frozen=True)
class Run:
    """A run folder after training.

    Examples
    --------
    >>> import earthsr
    >>> run = earthsr.train("configs/dem_srnet_demo.yaml", backend="torch", overwrite=True)
    >>> run.best.parent.name
    'checkpoints'
    >>> run.model.spec.scale
    5
    """

    folder: Path
    result: TrainingResult
    """How the training ended."""
    backend: str | None = None
    """Which backend trained it."""

    @property
    def best(self) -> Path:
        """Checkpoint folder with the best validation score, else the newest.

        Raises
        ------
        CheckpointError
            If the run wrote no checkpoint.
        """
        return resolve_checkpoint(self.folder).parent

    @property
    def model(self) -> Model:
        """The best model, in float32, on the backend that trained it."""
        return Model.from_checkpoint(self.best, backend=self.backend)


def train(
    config: Config | str | Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    logger: logging.Logger | None = None,
) -> Run:
    """Train as a configuration says.

    Parameters
    ----------
    config : Config or path
        A configuration or its YAML file.
    backend, device : str, optional
        Go before the configuration's.
    resume : bool
        Carry on from the run folder's newest checkpoint, whichever backend wrote it.
    overwrite : bool
        Replace a run that the folder holds already.
    logger : logging.Logger, optional
        Where progress is reported.

    Returns
    -------
    Run
        ``Run.best`` is the checkpoint folder with the lowest validation RMSE.

    Raises
    ------
    ConfigError
        If the configuration is wrong, or its ``run_mode`` is test.
    DataError
        If data are missing or damaged.
    BackendError
        If the backend or device is not there.
    TrainingError
        If the loss is no longer finite.

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> config["summary"]["summary_dir"] = "runs/first"
    >>> run = earthsr.train(config, backend="torch", overwrite=True)
    >>> run.result.score_name
    'rmse_m'
    """
    if not isinstance(config, Config):
        config = load_yaml_config(config)
    if config.train.run_mode == "test":
        raise ConfigError("train.run_mode is test: use earthsr evaluate, or set it to train or finetune")
    task = task_for(config)
    model = initial_model(config, backend, device, task=task)
    trainer = Trainer(config, model, task.objective(), logger, task=task)
    return Run(trainer.run.path, trainer.train(resume=resume, overwrite=overwrite), model.backend.name)


def from_pretrained(
    path: str | Path, *, backend: str | None = None, device: str = "auto", precision: Precision | None = None
) -> Model:
    """Open a run folder (its best), a checkpoint folder, a weights file or an exported model, ready to predict.

    Parameters
    ----------
    path : str or Path
        What to open, such as ``runs/first``; or the name of a model that travels with the package, ``demo-dem``; or
        ``owner/name`` of the Hugging Face Hub, where nothing is at that path (extra ``hub``; everywhere else, on the
        command line too, ``hf:owner/name``).
    backend : str, optional
        The backend that computes; the only one installed where absent.
    device : str
        ``auto``, ``cpu``, ``gpu`` or ``ascend``.
    precision : Precision, optional
        Float32 where absent.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    BackendError
        If the backend or device is not there.

    Examples
    --------
    >>> import earthsr
    >>> model = earthsr.from_pretrained("demo-dem", backend="torch")
    >>> model.spec.scale
    5
    """
    if looks_like_repository(path):
        path = f"{PREFIX}{path}"
    return Model.from_checkpoint(path, backend=backend, device=device, precision=precision)


def push_to_hub(checkpoint: str | Path, name: str, *, private: bool = False) -> str:
    """Put a model into a repository of the Hugging Face Hub: its weights, and its card as ``README.md``.

    Parameters
    ----------
    checkpoint : str or Path
        A run folder, a checkpoint folder, a weights file, or what :meth:`Model.save` wrote.
    name : str
        ``owner/name``; made where it is not there.
    private : bool
        Whether a new repository is hidden from others.

    Returns
    -------
    str
        Where it is; :func:`from_pretrained` takes ``name``.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it is an exported model.
    InputError
        If the name is none, the extra ``hub`` is not installed, or the Hub does not take it.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.push_to_hub("demo-dem", "a name without an owner")
    Traceback (most recent call last):
    earthsr.errors.InputError: 'a name without an owner' is no name of a repository, expected owner/name
    """
    weights = resolve_checkpoint(checkpoint)
    if is_exported(weights):
        raise CheckpointError(f"{weights}: is an exported model; name the checkpoint that it was exported from")
    model = read_model(weights)
    card = model_card(model.spec, model.metadata, name=name, metrics=metrics_beside(weights))
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / WEIGHTS, model.spec, model.weights, model.metadata)
        (Path(folder) / "README.md").write_text(card_markdown(card), encoding="utf-8")
        return upload(Path(folder), name, private=private, message="Weights and card by earthsr")


def config_of(checkpoint: str | Path, data: str | Path | None = None) -> Config:
    """Return the configuration that a checkpoint was trained with; from its spec alone where none lies beside it.

    Parameters
    ----------
    checkpoint : str or Path
        A run folder, a checkpoint folder, a weights file or an exported model.
    data : str or Path, optional
        Data folder that goes before the one it was trained on.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or neither it nor ``data`` says where data are.
    """
    weights = resolve_checkpoint(checkpoint)
    notes = weights.parent / STATE
    if notes.is_file():
        try:
            config = from_mapping(json.loads(notes.read_text(encoding="utf-8"))["config"], source=str(notes))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise CheckpointError(f"{notes}: is damaged ({error!r}); use another checkpoint") from None
    else:
        file = read_model(weights)
        spec = file.spec.to_dict()
        if data is None:
            raise CheckpointError(f"{weights}: does not say where its data are; name the folder with --data")
        workload, name = find_workload(spec.pop("kind"))
        values = workload.data_keys(spec, file.metadata, Path(data))
        config = from_mapping({"model": {"name": name, **spec}, "data": values})
    if data is not None:
        config.data.root_dir = str(data)
    return config


def evaluate(
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    backend: str | None = None,
    device: str = "auto",
    output: str | Path | None = None,
    amp_level: str | None = None,
    metrics: Sequence[str] = (),
    scheduler: Scheduler | None = None,
) -> Evaluation:
    """Score a checkpoint on a split and write ``metrics.json``, figures and ``report.html``.

    Parameters
    ----------
    checkpoint : str or Path
        A run folder, a checkpoint folder, a weights file or an exported model.
    data : str or Path, optional
        Data folder; the one it was trained on where absent.
    split : {"train", "valid", "test"}
        What to score.
    backend, device : str, optional
        Where to compute.
    output : str or Path, optional
        Folder to write into; where absent ``evaluation/`` in the run folder, or ``NAME-evaluation/`` beside a file
        ``NAME.safetensors`` or ``NAME.onnx`` that lies in none.
    amp_level : str, optional
        Precision; that of training where absent, so that scores agree with those seen then. An exported model has
        its own, O0.
    metrics : sequence of str
        Scores of installed packages (:mod:`earthsr.evaluation.metrics`), added to those of ``summary.metrics``.
    scheduler : Scheduler, optional
        Who scores the pieces of the split (:func:`earthsr.inference.make_scheduler`): this process where absent.

    Returns
    -------
    Evaluation
        Scores (``metrics``) and the files that were written.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it does not say where its data are.
    DataError
        If the split is missing or damaged.
    BackendError
        If the backend or device is not there.
    InputError
        If the model is part of the package and ``output`` names no folder to write into.

    Examples
    --------
    >>> import earthsr
    >>> evaluation = earthsr.evaluate("runs/demo", backend="torch")
    >>> sorted(evaluation.metrics["scores"])
    ['bicubic', 'bilinear', 'conservative', 'model', 'nearest']
    >>> evaluation.report.name
    'report.html'
    """
    config = config_of(checkpoint, data)
    absent = [name for name in config.summary.metrics if name not in installed_metrics()]
    if absent:
        warnings.warn(
            f"summary.metrics: {', '.join(absent)} left out, not installed here", EarthsrWarning, stacklevel=2
        )
    config.summary.metrics = [*(name for name in config.summary.metrics if name not in absent), *metrics]
    weights = resolve_checkpoint(checkpoint)
    # An exported model computes in its own precision and on what runs it, whatever the run was trained in and on.
    exported = is_exported(weights)
    chosen = choose_runner(weights, backend) if exported else choose_backend(backend, config.backend)
    level = amp_level or ("O0" if exported else config.train.amp_level)
    precision = Precision(level, config.train.amp_dtype)  # type: ignore[arg-type]
    model = Model.from_checkpoint(checkpoint, backend=chosen, device=device, precision=precision)
    if output is None:
        if is_pretrained(weights):
            raise InputError(
                f"{checkpoint} is part of the package, where nothing is written; name a folder with --output"
            )
        output = evaluation_folder(weights)
    return evaluate_split(model, config, split, Path(output), scheduler)

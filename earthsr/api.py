"""The library in plain calls: make a model, train, evaluate, predict."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from earthsr.backend import Model, choose_backend, choose_runner, is_exported, read_model
from earthsr.config import Config, find_workload, from_mapping, load_yaml_config
from earthsr.dem.predict.arrays import predict_array
from earthsr.dem.predict.enlarge import PredictOptions
from earthsr.dem.predict.rasters import predict_dataarray
from earthsr.errors import CheckpointError, ConfigError, InputError
from earthsr.inference.evaluate import Evaluation, evaluate_split
from earthsr.models import (
    Precision,
    resolve_checkpoint,
)
from earthsr.models.checkpoint import STATE, evaluation_folder, is_pretrained
from earthsr.tasks import task_for
from earthsr.training import Trainer, TrainingResult, initial_model


@dataclass(frozen=True)
class Run:
    """A run folder after training."""

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
        What to open, such as ``runs/first``; or the name of a model that travels with the package, ``demo-dem``.
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
    """
    return Model.from_checkpoint(path, backend=backend, device=device, precision=precision)


def predict(model: Model, elevation: Any, **options: Any) -> Any:
    """Enlarge elevations by the model's scale.

    Parameters
    ----------
    model : Model
        Trained or loaded.
    elevation : ndarray or xarray.DataArray
        Metres, NaN where there is no value. An array (H, W), (N, H, W) or (N, C, H, W) is predicted in one piece; a
        DataArray on axes of latitude and longitude, or of y and x, window by window.
    **options
        Of a DataArray: ``mode`` (``"gaussian"`` or ``"exact"``), ``tile``, ``overlap``, ``symmetries``, ``conserve``,
        ``batch_size``, as :class:`earthsr.inference.Options` has them, and ``bbox`` (west, south, east, north).

    Returns
    -------
    ndarray, xarray.DataArray or xarray.Dataset
        As the input: a DataArray keeps the names of its axes, its CRS, units, long and standard name and vertical
        datum, is called ``elevation``, and says in further attributes how it was made. A Dataset of ``elevation`` and
        ``spread`` where ``symmetries`` are averaged.

    Raises
    ------
    InputError
        If the input or an option does not fit.
    """
    if hasattr(elevation, "dims"):
        bbox = options.pop("bbox", None)
        unknown = sorted(set(options) - {field.name for field in fields(PredictOptions)})
        if unknown:
            known = ", ".join([*(field.name for field in fields(PredictOptions)), "bbox"])
            raise InputError(f"predict has no option {', '.join(unknown)}; it has {known}")
        return predict_dataarray(model, elevation, PredictOptions(**options), bbox=bbox)
    if options:
        raise InputError(f"{', '.join(options)}: options of a DataArray; a bare array is predicted in one piece")
    return predict_array(model, elevation)


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
    """
    config = config_of(checkpoint, data)
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
    return evaluate_split(model, config, split, Path(output))

"""The library in plain calls, of both workloads: train, evaluate, open a model, draw a raster.

Verbs of one workload are in its wing: ``earthsr.dem.api`` and ``earthsr.landuse.api``.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.backend import Model, choose_backend, choose_runner, is_exported, read_model
from earthsr.check.card import card_markdown, metrics_beside, model_card
from earthsr.config import Config, find_workload, from_mapping, installed_workloads, load_yaml_config
from earthsr.errors import CheckpointError, ConfigError, InputError, already_there
from earthsr.evaluation.maps import PAGE, SUFFIXES, Box, MapRequest, require_ffmpeg, write_drawing
from earthsr.evaluation.page.write import require_bokeh, write_page
from earthsr.geo.readers import open_layers, split_variable
from earthsr.inference.evaluate import Evaluation, evaluate_split
from earthsr.inference.pieces import Scheduler
from earthsr.models import (
    Precision,
    resolve_checkpoint,
)
from earthsr.models.checkpoint import STATE, WEIGHTS, evaluation_folder, is_pretrained
from earthsr.models.hub import PREFIX, looks_like_repository, upload
from earthsr.models.weights import write_weights
from earthsr.store import Part, require_other
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


#: Pixels of a picture's long side.
_SIZES = (100, 8000)


def plot(
    source: str | Path,
    output: str | Path | None = None,
    *,
    bbox: Box | None = None,
    size: int = 1200,
    contours: float | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    years: Sequence[int] | None = None,
    areas: bool = False,
    scenario: str | Path | Sequence[str | Path] = (),
    relief: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw a raster: elevation in colours over hillshade, land use in the colours of its classes.

    Large rasters are read at the size of the picture, GeoTIFF from its overviews. No backend is needed.

    Parameters
    ----------
    source : str or Path
        GeoTIFF, NetCDF or Zarr; ``FILE.nc:VARIABLE`` names a variable.
    output : str or Path, optional
        ``.png``; ``.html`` for a page to pan, zoom and slide in, which needs no network and, to be written, the extra
        ``page``; of a raster of several years also ``.gif`` and ``.mp4`` (with ffmpeg); of classes ``.csv``, a table of
        areas. Where absent ``NAME.png`` in the working directory.
    bbox : tuple of float, optional
        West, south, east, north in units of the CRS: the part to draw; west > east goes across the dateline.
    size : int
        Pixels of the map's long side.
    contours : float, optional
        Metres between contours of elevation; none where absent.
    beside : str or Path, or sequence of these
        A second raster of elevation, drawn on the same scale, with the difference from the first one; on a page
        several.
    years : sequence of int, optional
        Of a raster of several years; nine spread evenly where absent, or all in an animation or a table.
    areas : bool
        Add up the areas of classes by year, km2: on the sphere, over every cell of the part.
    scenario : str or Path, or sequence of these
        For a page of maps: files of the scenario that they should follow, as ``reconstruct`` takes them.
    relief : str or Path, optional
        For a page of maps: a raster of elevation whose hillshade lies over them.
    overwrite : bool
        Replace an output that is there.

    Returns
    -------
    dict
        ``output``, ``kind`` (elevation, classes or field), and what is shown: bounds, cells, years, classes, range and
        units, areas.

    Raises
    ------
    InputError
        If the output is there, or is the input, or has another suffix; or what is asked for is not there: a year, an
        overlap.
    DataError
        If a raster is missing or damaged, or its values are not what they should be.

    Examples
    --------
    >>> import earthsr
    >>> shown = earthsr.plot("runs/landuse-data/archives/landuse_1989.tif", "landuse.png", overwrite=True)
    >>> shown["kind"]
    'classes'
    """
    path, variable = split_variable(source)
    target = Path(f"{path.stem}_{variable}.png" if variable else f"{path.stem}.png") if output is None else Path(output)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{target}: suffix {target.suffix!r} is none of a picture; {', '.join(SUFFIXES)} are")
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise InputError(f"--size is {size}, expected {_SIZES[0]} to {_SIZES[1]} pixels")
    others, files = _texts(beside), _texts(scenario)
    require_other([target], [source, *others, *files, relief])
    if target.exists() and not overwrite:
        raise already_there(target)
    require_ffmpeg(target)
    require_bokeh(target)
    request = MapRequest(
        str(source),
        bbox,
        size,
        contours,
        others,
        None if years is None else tuple(years),
        suffix,
        areas,
        files,
        None if relief is None else str(relief),
    )
    workloads = installed_workloads().values()
    raster = open_layers(source, [name for workload in workloads for name in workload.variables])
    try:
        workload = next((workload for workload in workloads if workload.draws(raster)), None)
        if workload is None:
            raise InputError(
                f"{raster.name}: holds values in {raster.georeference.units or 'no unit'}, which none of the workloads "
                f"that are installed draws ({', '.join(workload.title for workload in workloads) or 'there is none'})"
            )
        drawing = workload.draw(raster, request)
    finally:
        raster.close()
    if suffix == ".csv" and not drawing.table:
        raise InputError(f"{target}: .csv is a table of the areas of classes, and {source} holds none; name a .png")
    if suffix == PAGE and drawing.page is None:
        raise InputError(
            f"{target}: the workload that draws {source} makes no pages; name {target.with_suffix('.png')}"
        )
    part = Part(target, overwrite)
    try:
        if suffix == PAGE:
            write_page(drawing.page, part.target)
        else:
            write_drawing(drawing, part.target)
        part.commit()
    finally:
        part.discard()
    return {"output": str(target), "source": str(source), "kind": drawing.kind, **drawing.facts}


def _texts(files: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """One file, or several."""
    return (str(files),) if isinstance(files, str | Path) else tuple(map(str, files or ()))

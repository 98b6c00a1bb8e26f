"""MindEarth's names, all of them: its DEM super-resolution scripts in its own words, on any backend.

Nothing else in earthsr knows these names. What is the same there and here (``DemData``, ``Dataset``, ``MSELoss``,
``load_yaml_config``) is only named again; the rest is written in terms of the rooms below.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Backend, Model
from earthsr.backend.interface import NativeLoss
from earthsr.config import Config, load_yaml_config
from earthsr.data.dataset import Dataset, SampleSet
from earthsr.dem.split import DemData
from earthsr.errors import ConfigError, EarthsrWarning, InputError
from earthsr.evaluation.figures import ELEVATION_COLOURS
from earthsr.log import set_up_logger
from earthsr.models import MSELoss, Objective, OptimizerSpec, read_weights, resolve_checkpoint
from earthsr.models.weights import Weights
from earthsr.ranks import Rank, launched_rank
from earthsr.store import make_folder
from earthsr.tasks import task_for
from earthsr.training import Callback, TrainingResult, Validation, initial_model
from earthsr.training import Trainer as _Trainer

__all__ = [
    "Dataset",
    "DemData",
    "DemSrTrainer",
    "EvaluateCallBack",
    "InferenceModule",
    "MSELoss",
    "Trainer",
    "create_logger",
    "init_data_parallel",
    "init_model",
    "load_checkpoint",
    "load_param_into_net",
    "load_yaml_config",
    "plt_dem_data",
    "update_config",
]

# Configuration and log


#: Options of MindEarth's command line, and the keys that they are written to.
_KEYS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "distribute": (("train", "distribute"),),
    "device_target": (("train", "device"),),
    "device_id": (("train", "device_id"),),
    "amp_level": (("train", "amp_level"),),
    "run_mode": (("train", "run_mode"),),
    "load_ckpt": (("train", "load_ckpt"),),
    "num_workers": (("data", "num_workers"),),
    # Training reads optimizer.epochs where a file has it, and MindEarth's has.
    "epochs": (("data", "epochs"), ("optimizer", "epochs")),
    "valid_frequency": (("summary", "valid_frequency"),),
    "ckpt_path": (("summary", "ckpt_path"),),
}

#: A folder's name may not be longer than 255 bytes.
_LONGEST_NAME: Final = 200


def update_config(opt: argparse.Namespace, config: Config) -> None:
    """Write the options of MindEarth's command line into a configuration.

    Unlike MindEarth's, ``epochs`` counts: it becomes ``optimizer.epochs``; and ``device_target`` is ``train.device``.

    Parameters
    ----------
    opt : argparse.Namespace
        ``output_dir``, and any of ``device_target``, ``device_id``, ``distribute``, ``amp_level``, ``run_mode``,
        ``load_ckpt``, ``num_workers``, ``epochs``, ``valid_frequency`` and ``ckpt_path``; others are the script's own.
    config : Config
        What is changed. The run folder becomes ``output_dir/NAME``, with the network's keys in ``NAME``.

    Raises
    ------
    ConfigError
        If a value does not fit its key.

    Examples
    --------
    >>> import earthsr
    >>> import argparse
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_mindearth.yaml")
    >>> earthsr.update_config(argparse.Namespace(output_dir="summary", epochs=20), config)
    >>> config["optimizer"]["epochs"]
    20
    >>> config["summary"]["summary_dir"]
    'summary/DEMNet_scale_5_out_channels_256_kernel_size_3_in_channels_1_adam_oop'
    """
    for option, keys in _KEYS.items():
        if hasattr(opt, option):
            for section, key in keys:
                config[section][key] = getattr(opt, option)
    if config.train.run_mode == "test":
        config.train.load_ckpt = True
    model = config.model
    words = [f"{key}_{model[key]}" for key in model.keys() if key != "name" and key in model.model_fields_set]  # noqa: SIM118
    name = "_".join([model.name, *words, config.optimizer.name, config.train.name])
    config.summary.summary_dir = str(Path(opt.output_dir) / name[:_LONGEST_NAME])
    make_folder(Path(config.summary.summary_dir))


def create_logger(path: str | Path | None = None, level: int = logging.INFO) -> logging.Logger:
    """Set up the logger ``earthsr``: messages on standard error, and in a file where ``path`` is given.

    In a notebook they go to standard output, since it shows standard error on red.

    Parameters
    ----------
    path : str or Path, optional
        File for the same messages; its folder is made.
    level : int
        Of :mod:`logging`; messages below it are dropped.

    Returns
    -------
    logging.Logger
        The logger ``earthsr``.

    Examples
    --------
    >>> import earthsr
    >>> logger = earthsr.create_logger("runs/first/results.log")
    >>> logger.name
    'earthsr'
    """
    return set_up_logger(path, level)


def init_data_parallel(use_ascend: bool = True) -> None:
    """Check that a launcher has started this process; each model makes its own group of processes, on its device.

    Parameters
    ----------
    use_ascend : bool
        Accepted for MindEarth's scripts, not used: ``train.device`` says on what.

    Raises
    ------
    ConfigError
        If no launcher has.

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_mindearth.yaml")
    >>> if config["train"]["distribute"]:
    ...     earthsr.init_data_parallel(use_ascend=True)
    """
    if (launched_rank() or Rank()).of < 2:
        raise ConfigError(
            "train.distribute is true, and no launcher has started several processes: run the script under torchrun or "
            "msrun, or set train.distribute to false"
        )


# Model and weights


class _Network(Model):
    """A model that has an answer to what scripts ask of MindSpore's cells."""

    def trainable_params(self) -> NoReturn:
        """Say that an optimiser is described here, not made.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(
            "trainable_params: the backend makes the optimiser of all parameters but those of train.freeze; let "
            'get_optimizer return earthsr.OptimizerSpec(name="adam") in place of nn.Adam(…)'
        )


def init_model(config: Config, backend: str | Backend | None = None, device: str | None = None) -> Model:
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

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> model = earthsr.init_model(config, backend="torch")
    >>> model.spec.scale
    5
    """
    return initial_model(config, backend, device, _Network)


class Parameters(dict[str, NDArray[np.float32]]):
    """Weights under canonical names, with the metadata that their file carries."""

    def __init__(self, weights: Weights, metadata: dict[str, Any]) -> None:
        super().__init__(weights)
        self.metadata = metadata


def load_checkpoint(path: str | Path) -> Parameters:
    """Read the weights of a run folder, a checkpoint folder or a weights file.

    Parameters
    ----------
    path : str or Path
        What to read; or the name of a model that travels with the package.

    Returns
    -------
    dict of str to ndarray
        Float32 weights under canonical names, with ``metadata``, for :func:`load_param_into_net`.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.

    Examples
    --------
    >>> import earthsr
    >>> params = earthsr.load_checkpoint("demo-dem")
    >>> params["head.weight"].shape
    (32, 1, 3, 3)
    """
    file = read_weights(resolve_checkpoint(path))
    return Parameters(file.weights, {**file.metadata, "source": str(file.path)})


def load_param_into_net(model: Model, params: Weights) -> list[str]:
    """Load weights into a model, strictly.

    Parameters
    ----------
    model : Model
        Takes the weights over.
    params : dict of str to ndarray
        Under canonical names, in the shapes of the model's spec.

    Returns
    -------
    list of str
        Names that were not loaded: always empty, since loading is strict.

    Raises
    ------
    CheckpointError
        If a name or shape does not fit.

    Examples
    --------
    >>> import earthsr
    >>> model = earthsr.from_pretrained("runs/demo", backend="torch")
    >>> earthsr.load_param_into_net(model, earthsr.load_checkpoint("runs/demo"))
    []
    """
    model.load_weights(params)
    if isinstance(params, Parameters):
        model.metadata.update(params.metadata)
    return []


# Training


class EvaluateCallBack(Validation):
    """Scores the model on a split in physical units after every ``summary.valid_frequency`` epochs.

    Early stopping and ``best`` follow it. Every sample counts once and batches of any size merge exactly; the
    baselines are scored once. Several ranks share the samples out, and all of them get the scores of the whole.

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

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> data = earthsr.Dataset(earthsr.DemData(config["data"], "valid"), shuffle=False).create_dataset(4)
    >>> model = earthsr.from_pretrained("runs/demo", backend="torch")
    >>> scores = earthsr.EvaluateCallBack(model, data, config).evaluate()
    >>> sorted(name for name in scores if name.endswith("rmse"))
    ['bicubic_rmse', 'rmse']
    """


#: What scripts may set on their trainer and the configuration decides: attribute, and the keys that count.
_DECIDED: Final = {
    "epochs": "optimizer.epochs",
    "step_size": "data.batch_size and optimizer.accumulate",
    "steps_per_epoch": "data.batch_size and optimizer.accumulate, with the number of samples,",
    "total_steps": "optimizer.epochs, data.batch_size and optimizer.accumulate",
}

#: MindSpore's own callbacks that a script hands to the solver, by the name of their class: what they do is done here.
_DONE_HERE: Final = ("LossMonitor", "ModelCheckpoint", "TimeMonitor")


class Solver:
    """What ``get_solver`` gives: the trainer's own loop under the name that MindEarth's scripts call.

    Parameters
    ----------
    trainer : Trainer
        Whose loop it is.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"solver has no {name}: there is no mindspore.Model here. Training is Trainer.train(), scores are "
            "InferenceModule.eval(), predictions InferenceModule.forecast()"
        )

    def train(
        self,
        epoch: int | None = None,
        train_dataset: Any = None,
        callbacks: Sequence[Any] | None = None,
        dataset_sink_mode: bool = False,
    ) -> TrainingResult:
        """Train as :meth:`Trainer.train` does.

        Parameters
        ----------
        epoch : int, optional
            As the configuration has it.
        train_dataset : Dataset, optional
            The trainer's own.
        callbacks : sequence, optional
            Callbacks of earthsr. MindSpore's ``LossMonitor``, ``TimeMonitor`` and ``ModelCheckpoint`` are left out,
            since the loop does what they do.
        dataset_sink_mode : bool
            Accepted for MindEarth's scripts, not used: ``train.graph`` and the backend decide.

        Raises
        ------
        InputError
            If the arguments ask for another training than the configuration does.
        """
        trainer = self._trainer
        if epoch not in (None, trainer.epochs):
            raise InputError(
                f"solver.train: epoch is {epoch}, and optimizer.epochs is {trainer.epochs}; set the latter"
            )
        if train_dataset is not None and train_dataset is not trainer.train_dataset:
            raise InputError("solver.train: train_dataset is not the trainer's; return it from get_dataset()")
        own: list[Callback] = []
        for callback in callbacks or ():
            if isinstance(callback, Callback):
                own += [] if callback is trainer.pred_cb else [callback]
            elif callback is not None and type(callback).__name__ not in _DONE_HERE:
                raise InputError(
                    f"solver.train: {type(callback).__name__} is no callback of earthsr; make it a subclass of "
                    "earthsr.training.Callback"
                )
        trainer.solver_callbacks = own
        # Not trainer.train, which may be the script's own, and call this.
        return Trainer.train(trainer)


class Trainer(_Trainer):
    """Trains a model as a configuration says.

    Override ``get_dataset``, ``get_optimizer`` or ``get_callback`` to change what is trained on, how, and what is
    watched; then call :meth:`train`.

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
    weather_data_source : str, optional
        ``"DemSR"``, the only one of MindEarth's that is there.
    loss_scale : object, optional
        Warned of and left out: the backend scales losses, as ``train.amp_level`` says.

    Raises
    ------
    ConfigError
        If keys of the configuration contradict each other.
    InputError
        If ``weather_data_source`` is another one, or a subclass decides what the configuration does.

    Examples
    --------
    >>> import earthsr
    >>> class MyTrainer(earthsr.Trainer):
    ...     def get_optimizer(self):
    ...         self.steps_per_epoch = self.train_dataset.get_dataset_size()
    ...         return earthsr.OptimizerSpec(name="adamw", weight_decay=0.01)
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> model = earthsr.init_model(config, backend="torch")
    >>> trainer = MyTrainer(config, model, earthsr.MSELoss())
    >>> result = trainer.train(overwrite=True)
    >>> result.steps == 2 * trainer.steps_per_epoch
    True
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        loss_fn: Objective | NativeLoss,
        logger: logging.Logger | None = None,
        weather_data_source: str | None = None,
        loss_scale: object = None,
    ) -> None:
        if weather_data_source not in (None, "DemSR"):
            raise InputError(
                f"weather_data_source is {weather_data_source!r}, expected 'DemSR'; for data of your own override "
                "get_dataset()"
            )
        if loss_scale is not None:
            warnings.warn(
                "loss_scale is left out: the backend scales the loss where the precision needs it; train.amp_level and "
                "train.amp_dtype choose that",
                EarthsrWarning,
                stacklevel=2,
            )
        self.model_params, self.data_params = config.model, config.data
        self.optimizer_params, self.callback_params = config.optimizer, config.summary
        self.train_params = config.train
        self.pred_cb: Callback | None = None
        self.ckpt_cb = None
        self.solver_callbacks: list[Callback] = []
        super().__init__(config, model, loss_fn, logger)
        self._require_spec()
        self.solver = self.get_solver()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _DECIDED:
            super().__setattr__(name, value)
            return
        actual = getattr(self, name)
        # Batches are what MindEarth counts; with optimizer.accumulate there are several to a step.
        batches = self.train_dataset.get_dataset_size() if name == "steps_per_epoch" else actual
        if value not in (actual, batches):
            raise InputError(
                f"{type(self).__name__} sets {name} to {value}, and it is {actual}: {_DECIDED[name]} decide it; change "
                "those instead"
            )

    def get_callback(self) -> Callback | None:
        """Return the callback that evaluates; early stopping and ``best`` follow an :class:`EvaluateCallBack`."""
        return EvaluateCallBack(self.model, self.valid_dataset, self.config, self.logger)

    def get_validation(self) -> Validation | None:
        """Return what ``get_callback`` gives, where it scores the model."""
        self.pred_cb = self.get_callback()
        return self.pred_cb if isinstance(self.pred_cb, Validation) else None

    def get_callbacks(self) -> list[Callback]:
        """Return what ``get_callback`` gives, where it only watches, and what the solver was given."""
        watching = [] if self.pred_cb is None or isinstance(self.pred_cb, Validation) else [self.pred_cb]
        return [*watching, *self.solver_callbacks]

    def get_checkpoint(self) -> None:
        """Return None: checkpoints are the trainer's, and ``summary`` says when."""
        return None

    def get_solver(self) -> Solver:
        """Return the trainer's own loop under MindEarth's name; :meth:`Solver.train` runs it."""
        return Solver(self)

    def _get_dataset(self) -> tuple[Any, Any]:
        """Return ``get_dataset()``; some of MindEarth's scripts have it under this name."""
        return self.get_dataset()

    def _get_solver(self) -> Solver:
        """Return ``get_solver()``; some of MindEarth's scripts have it under this name."""
        return self.get_solver()

    def _require_spec(self) -> None:
        if not isinstance(self.optimizer, OptimizerSpec):
            raise InputError(
                f"get_optimizer gave a {type(self.optimizer).__name__}, expected a description that both frameworks "
                'understand: earthsr.OptimizerSpec(name="adam"); rates are the optimizer section\'s'
            )

    def train(self, resume: bool = False, overwrite: bool = False) -> TrainingResult:
        """Train to the end, to early stopping, or to a signal.

        Parameters
        ----------
        resume : bool
            Carry on from the run folder's newest checkpoint; from the beginning where there is none.
        overwrite : bool
            Replace a run that the folder holds already.

        Returns
        -------
        TrainingResult
            How it ended.

        Raises
        ------
        InputError
            If the folder holds a run and neither is asked for, the checkpoint belongs to another run, or
            ``get_optimizer`` gave something else than an :class:`earthsr.OptimizerSpec`.
        TrainingError
            If the loss is not finite.
        """
        self._require_spec()
        return super().train(resume, overwrite)


class DemSrTrainer(Trainer):
    """The trainer of MindEarth's DEM super-resolution: a :class:`Trainer` of ``weather_data_source="DemSR"``.

    Parameters
    ----------
    config : Config
        All five sections.
    model : Model
        Weights and backend.
    loss_fn : Objective or callable
        ``MSELoss()`` or another objective spec, or a loss written in the model's framework.
    logger : logging.Logger, optional
        Where the monitors report.

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> model = earthsr.init_model(config, backend="torch")
    >>> trainer = earthsr.DemSrTrainer(config, model, earthsr.MSELoss(), earthsr.create_logger())
    >>> trainer.train(overwrite=True).epochs
    2
    """

    def __init__(
        self, config: Config, model: Model, loss_fn: Objective | NativeLoss, logger: logging.Logger | None = None
    ) -> None:
        super().__init__(config, model, loss_fn, logger, weather_data_source="DemSR")


# Evaluation and pictures


class InferenceModule:
    """Forecasts and scores with a trained model.

    Parameters
    ----------
    model : Model
        Trained or loaded.
    config : Config
        The model section gives the scale.
    logger : logging.Logger, optional
        Where :meth:`eval` reports.

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    >>> model = earthsr.from_pretrained("runs/demo", backend="torch")
    >>> data = earthsr.Dataset(earthsr.DemData(config["data"], "test"), shuffle=False).create_dataset(4)
    >>> inference = earthsr.InferenceModule(model, config)
    >>> inference.forecast(next(data.create_dict_iterator())["inputs"]).shape
    (4, 1, 80, 80)
    """

    def __init__(self, model: Model, config: Config, logger: logging.Logger | None = None) -> None:
        self.model = model
        self.config = config
        self.logger = logger or logging.getLogger("earthsr")

    def forecast(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge elevations by the model's scale.

        Parameters
        ----------
        inputs : ndarray of shape (N, C, h, w)
            Elevation in metres.

        Returns
        -------
        ndarray of shape (N, C, h * scale, w * scale)
            Elevation in metres.
        """
        return self.model.submit(np.asarray(inputs, np.float32)).result()

    def eval(self, dataset: SampleSet) -> dict[str, Any]:
        """Score the model and the baselines over all of ``dataset``; returns the contents of ``metrics.json``."""
        task = task_for(self.config)
        metrics: dict[str, Any] = task.score(self.model, dataset).to_dict()
        for method, values in metrics["scores"].items():
            self.logger.info(f"{metrics['split']}: {method} {task.describe_scores(values)}")
        return metrics


def plt_dem_data(
    image_array: NDArray[np.floating], title: str, unit: str = "m", limits: tuple[float, float] | None = None
) -> None:
    """Draw an elevation array on pyplot's current axes, as they stand.

    Parameters
    ----------
    image_array : ndarray of shape (H, W)
        Elevation.
    title : str
        Title above the picture.
    unit : str
        Label of the colour bar.
    limits : tuple of float, optional
        Lowest and highest value of the colours; give several pictures the same to compare them.

    Examples
    --------
    >>> import earthsr
    >>> coarse, _ = earthsr.DemData({"root_dir": "runs/demo-data", "patch_size": 16}, "test")[0]
    >>> earthsr.plt_dem_data(coarse[0], "Low resolution", limits=(200, 900))
    """
    from matplotlib import pyplot as plt

    low, high = limits or (None, None)
    plt.imshow(image_array, cmap=ELEVATION_COLOURS, vmin=low, vmax=high)
    plt.axis("off")
    plt.title(title, fontsize=10)
    plt.colorbar(fraction=0.046, pad=0.04).set_label(unit)

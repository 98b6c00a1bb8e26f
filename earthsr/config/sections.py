"""Sections of the configuration: read and set like a dictionary, checked when set; and the keys of every workload.

A workload's own keys live with the workload, in subclasses of these sections. Key names follow MindEarth's
``DEM-SRNet.yaml``; keys that it does not have are ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from earthsr.config.workloads import section_classes, whose
from earthsr.errors import ConfigError


def unknown_key(key: str, known: Iterable[str], section: str) -> str:
    """Text for a key that a section does not have: whose it is, or the nearest key that the section has."""
    known = list(known)
    where = f"{section}.{key}" if section else key
    foreign = whose(section, key)
    if foreign is not None:
        return f"{foreign}, which this configuration is not of: leave it out"
    lowered = {name.lower(): name for name in known}
    word = str(key).lower()
    initials = [name for name in lowered if "_" in name and word == "".join(part[:1] for part in name.split("_"))]
    near = difflib.get_close_matches(word, list(lowered), n=1, cutoff=0.5) or initials[:1]
    hint = f"did you mean {lowered[near[0]]}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where}; {hint}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> Iterable[str]:
    """Field names of the section that ``location`` (a pydantic error location without its last item) leads to."""
    current: Any = model
    for item in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and item in current.model_fields:
            current = current.model_fields[item].annotation
            continue
        for member in get_args(current):
            if isinstance(member, type) and issubclass(member, BaseModel):
                names = get_args(member.model_fields["name"].annotation) if "name" in member.model_fields else ()
                if item in names:
                    current = member
                    break
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current.model_fields.keys()
    return ()


def _model_names(model: type[BaseModel]) -> list[str]:
    """Names that the model section answers to."""
    members = section_classes(model, "model")
    return [name for member in members for name in get_args(member.model_fields["name"].annotation)]


def config_error(error: ValidationError, model: type[BaseModel], where: str, source: str | None = None) -> ConfigError:
    """Make a :class:`ConfigError` of the first problem that pydantic found, and count the others."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    location = tuple(problem["loc"])
    names = set(_model_names(model))
    # pydantic puts the tag of a discriminated union into the path; the YAML file has no such level.
    shown = ".".join(str(item) for i, item in enumerate(location) if not (i == 1 and item in names))
    path = ".".join(part for part in (where, shown) if part)
    if problem["type"] == "extra_forbidden":
        section = path.rpartition(".")[0]
        text = unknown_key(str(location[-1]), _fields_at(model, location[:-1]), section)
    elif problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        name = problem["input"].get("name") if isinstance(problem["input"], dict) else problem["input"]
        text = f"{path}.name is {name!r}, expected one of: {', '.join(_model_names(model))}"
    elif problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
    else:
        message = problem["msg"]
        text = f"{path} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    prefix = f"{source}: " if source else ""
    return ConfigError(f"{prefix}{text}{more}")


class Section(BaseModel):
    """A part of the configuration that can be read and set like a dictionary; values are checked when set."""

    section: ClassVar[str] = ""
    """Name of the section that a class describes, as it stands in the YAML file; empty for the whole."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)

    def __getitem__(self, key: str) -> Any:
        self._known(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._known(key)
        before = self.__dict__.copy()
        try:
            setattr(self, key, value)
        except ValidationError as error:
            # A model validator that fails after the assignment leaves the new value behind; take it back.
            self.__dict__.update(before)
            raise config_error(error, type(self), where=self.section) from None

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields

    def _known(self, key: str) -> None:
        if key not in type(self).model_fields:
            raise UnknownKey(key, type(self).model_fields, self.section)

    def keys(self) -> Iterable[str]:
        """Names of the keys, in the schema's order."""
        return type(self).model_fields.keys()

    def values(self) -> list[Any]:
        """Values, in the schema's order."""
        return [getattr(self, key) for key in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of key and value, in the schema's order."""
        return [(key, getattr(self, key)) for key in self.keys()]

    def get(self, key: str, default: Any = None) -> Any:
        """Value of ``key``, or ``default`` where the schema has no such key."""
        return getattr(self, key) if key in self else default

    def update(self, values: dict[str, Any]) -> None:
        """Set several keys, each one checked."""
        for key, value in values.items():
            self[key] = value


class UnknownKey(ConfigError, KeyError):
    """A key that the section does not have; also a ``KeyError``, as a dictionary's user expects."""

    def __init__(self, key: str, known: Iterable[str], section: str) -> None:
        self.message = unknown_key(key, known, section)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


def lower(value: Any) -> Any:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def none_if_blank(value: Any) -> Any:
    """None for text of nothing but spaces, as MindEarth's files have it."""
    return None if isinstance(value, str) and not value.strip() else value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
OddKernel = Annotated[int, Field(ge=1, le=15, description="odd side of every convolution kernel, in cells")]


class ModelSection(Section):
    """The network; its keys are the fields of the network's spec, and ``name`` chooses the workload."""

    section: ClassVar[str] = "model"

    name: str = Field(description="which network")


class DataSection(Section):
    """Where the patches are and how they are read. MindEarth's ``epochs`` and ``epoch_size`` are read, see there."""

    section: ClassVar[str] = "data"

    name: str = Field("dem", description="free label of the data set")
    root_dir: str = Field("dataset", description="folder with {train,valid,test}/{train,valid,test}.h5")
    patch_size: int = Field(
        32, ge=4, le=4096, description="coarse cells per patch side; land use: fine cells per tile side"
    )
    batch_size: int = Field(64, ge=1, le=65536, description="global batch, over all ranks")
    num_workers: int = Field(1, ge=0, le=64, description="threads that read and prepare batches; 0 reads in the loop")
    epochs: Count | None = Field(None, description="MindEarth's; used where optimizer.epochs is absent")
    epoch_size: Count | None = Field(None, description="MindEarth's; used where both other epochs keys are absent")
    augment: bool = Field(True, description="the eight symmetries of the square, training split only")
    prefetch_batches: int = Field(4, ge=1, le=256, description="batches prepared ahead")


class OptimizerSection(Section):
    """Adam and its schedule. The rate is a function of the step alone, computed on the host."""

    section: ClassVar[str] = "optimizer"

    name: Annotated[Literal["adam", "adamw"], BeforeValidator(lower)] = Field("adam", description="the optimiser")
    learning_rate: Positive = Field(1e-4, description="rate per step at the start, after the warm-up")
    finetune_lr: Positive = Field(1e-5, description="rate used instead when train.run_mode is finetune")
    eps: Positive = Field(1e-8, description="Adam: added to the root of the second moment")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam: decay of the first moment per step")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam: decay of the second moment per step")
    weight_decay: NonNegative = Field(0.0, description="coupled for adam, decoupled for adamw")
    epochs: Count | None = Field(None, description="passes over the training split; 100 where no key gives it")
    schedule: Literal["constant", "exponential", "cosine"] = Field(
        "constant", description="course of the rate over the steps"
    )
    decay_rate: float = Field(0.97, gt=0, le=1, description="exponential: factor on the rate per epoch")
    warmup_steps: int = Field(0, ge=0, description="linear warm-up, any schedule")
    final_lr_fraction: float = Field(0.0, ge=0, le=1, description="cosine: last rate over the first")
    clip_norm: Positive | None = Field(None, description="largest norm of the gradient over all parameters")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")


class SummarySection(Section):
    """What a run writes, where, and how often."""

    section: ClassVar[str] = "summary"

    summary_dir: str = Field("runs/dem_srnet", description="the run folder, or MindEarth's summary folder")
    save_checkpoint_epochs: Count | None = Field(1, description="epochs between checkpoints; null: by steps alone")
    save_checkpoint_steps: Count | None = Field(None, description="steps between checkpoints; null: by epochs alone")
    keep_checkpoint_max: int = Field(3, ge=1, description="newest checkpoints kept; best and latest always are")
    valid_frequency: int = Field(1, ge=1, description="epochs between evaluations of the validation split")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl and reads of the loss")
    ckpt_path: Annotated[str | None, BeforeValidator(none_if_blank)] = Field(
        None, description="checkpoint to start from with train.load_ckpt; relative to summary_dir or as it stands"
    )
    tensorboard: bool = Field(
        False, description="also write losses and scores for TensorBoard; needs the extra [logging]"
    )
    metrics: list[str] = Field(
        [], description="scores of installed packages that evaluations add to the workload's own, by name"
    )
    mlflow: bool = Field(False, description="also write losses and scores for MLflow; needs the extra [logging]")


class TrainSection(Section):
    """How the run is carried out."""

    section: ClassVar[str] = "train"

    name: str = Field("oop", description="free label of the run")
    run_mode: Literal["train", "finetune", "test"] = Field(
        "train",
        description="finetune: from weights, at optimizer.finetune_lr; test: evaluation and prediction alone",
    )
    distribute: bool = Field(False, description="train with all processes that torchrun or msrun started")
    device: Annotated[Literal["auto", "cpu", "gpu", "cuda", "ascend"], BeforeValidator(lower)] = Field(
        "auto", description="what computes; cuda is another word for gpu, auto takes the best that is there"
    )
    device_id: int = Field(0, ge=0, description="which of several devices; not with train.distribute")
    amp_level: Literal["O0", "O1", "O2", "O3"] = Field(
        "O0", description="precision: O0 float32, O1 and O2 mixed, O3 weights in the low precision with float32 masters"
    )
    amp_dtype: Literal["auto", "bfloat16", "float16"] = Field("auto", description="low precision of O1 to O3")
    graph: bool | None = Field(
        None,
        description="compile steps into graphs (mindspore: false is PyNative; torch has none); the backend's own way "
        "if null",
    )
    sync_batch_norm: bool = Field(
        False, description="train.distribute, torch: batch norm over the batches of all ranks, not of each alone"
    )
    recompute: bool = Field(
        False,
        description="compute the inside of blocks again for the gradient: a third more work, a fraction of the memory",
    )
    loss: Literal["auto", "mse", "l1", "huber", "cross_entropy"] = Field(
        "auto", description="cross_entropy for classes, mse for elevations and continuous fields"
    )
    huber_delta: Positive = Field(1.0, description="huber: where it turns linear, in normalised units")
    load_ckpt: bool = Field(False, description="start from the weights of summary.ckpt_path")
    freeze: list[str] = Field(
        default_factory=list, description="layer groups that do not learn, e.g. [head, blocks] or [blocks.0]"
    )
    early_stopping_patience: int | None = Field(
        6, ge=1, description="evaluations without a better score before training ends; null never ends it early"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of initial weights, order of samples, augmentation")

    @model_validator(mode="after")
    def _finetune_needs_weights(self) -> Self:
        if self.run_mode == "finetune" and not self.load_ckpt:
            raise ValueError("train.run_mode is finetune, which starts from weights: set train.load_ckpt to true")
        return self


class Config(Section):
    """What every workload's configuration has: ``model``, ``data``, ``optimizer``, ``summary``, ``train``, ``backend``.

    A workload's own class (:attr:`earthsr.config.Workload.config`) gives the first two and ``train`` its keys.

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet.yaml")
    >>> isinstance(config, earthsr.Config)
    True
    >>> config["optimizer"]["learning_rate"] = 1e-3
    """

    backend: str | None = Field(None, description="torch or mindspore; --backend goes before it")
    model: ModelSection = Field(description="the network, by ``name``, which also chooses the workload")
    data: DataSection = Field(default_factory=DataSection, description="where the samples are and how they are read")
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection, description="Adam and its schedule")
    summary: SummarySection = Field(default_factory=SummarySection, description="what a run writes, and where")
    train: TrainSection = Field(default_factory=TrainSection, description="how the run is carried out")

    @model_validator(mode="after")
    def _checkpoint_is_named(self) -> Self:
        if self.train.load_ckpt and not self.summary.ckpt_path:
            raise ValueError("train.load_ckpt is true but summary.ckpt_path names no checkpoint")
        return self

    def check(self) -> None:
        """Check the configuration as a whole again, after keys were set one by one.

        Raises
        ------
        ConfigError
            If two keys contradict each other; the message names both.
        """
        try:
            type(self).model_validate(self.model_dump())
        except ValidationError as error:
            raise config_error(error, type(self), where="") from None

    @property
    def epochs(self) -> int:
        """Epochs to train: ``optimizer.epochs``, else ``data.epochs``, else ``data.epoch_size``, else 100."""
        return self.optimizer.epochs or self.data.epochs or self.data.epoch_size or 100

    @property
    def learning_rate(self) -> float:
        """The rate at the start: the fine-tuning rate when fine-tuning."""
        return self.optimizer.finetune_lr if self.train.run_mode == "finetune" else self.optimizer.learning_rate

"""What every workload answers: which network, which data, which loss, and how it is scored; and finding its task.

This room calls no framework. Whoever has an engine hands in functions that predict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.config import Config, workload_of
from earthsr.data.normalise import AnyNormalisation
from earthsr.errors import ConfigError
from earthsr.evaluation.figures import new_figure, save
from earthsr.evaluation.report import Columns, score_table
from earthsr.models import NetworkSpec, Objective
from earthsr.ranks import ALONE, Rank
from earthsr.tasks.batches import ParityBatches, synthetic_patches

Pictures = list[tuple[Path, str]]
"""Files and their captions."""
Tables = list[tuple[str, str]]
"""Headings and HTML."""


@dataclass(frozen=True)
class Findings:
    """What an evaluation gives, for ``metrics.json`` and ``report.html``."""

    title: str
    """Of the report."""
    metrics: dict[str, Any]
    """The contents of ``metrics.json`` but for the provenance."""
    provenance: dict[str, Any]
    """Where the numbers come from."""
    headline: str
    """What was found, in a sentence or two."""
    columns: Columns
    """Scores that a table of the methods shows."""
    tables: Tables
    """Of the report, by their headings."""
    draw: Callable[[Path], tuple[Pictures, Tables]]
    """Draws into a folder; returns the pictures, the most telling first, and tables that only drawing finds."""
    curves: str = "Training loss and learning rate by step; validation score by epoch."
    """Caption of the run's curves."""
    protocol: Mapping[str, Any] | None = None
    """What else the report says of how the numbers were made."""
    terms: Mapping[str, str] | None = None
    """What the rows of its tables are, a sentence each."""


def model_provenance(model: Model) -> dict[str, str]:
    """Checkpoint and backend, in words."""
    return {
        "checkpoint": str(model.metadata.get("source", "in memory")),
        "backend": model.computed_by,
    }


def provenance_of(model: Model, file: Any, origin: str) -> dict[str, str]:
    """Checkpoint, data and backend, in words; ``file`` is the split's, ``origin`` what it says of its source."""
    of_model = model_provenance(model)
    return {
        "checkpoint": of_model["checkpoint"],
        "data": str(file.path),
        "data fingerprint": file.fingerprint(),
        "data source": origin,
        "backend": of_model["backend"],
    }


def score_bars(scores: Mapping[str, Mapping[str, Any]], key: str, units: str, title: str, path: Path) -> Path:
    """Draw one score of every method as bars; returns the file."""
    shown = {name: values[key] for name, values in scores.items() if values.get(key) is not None}
    figure = new_figure(6.0, 1.2 + 0.4 * len(shown))
    axes = figure.subplots()
    colours = ["tab:blue" if name == "model" else "tab:gray" for name in shown]
    bars = axes.barh(list(shown), list(shown.values()), color=colours)
    axes.bar_label(bars, fmt="%.4g", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"{key} ({units})")
    axes.set_title(title, fontsize=11)
    return save(figure, path)


class PendingArray(Protocol):
    """A prediction that may still be computing."""

    def result(self) -> NDArray[np.float32]:
        """Wait for it."""
        ...


class Predictor(Protocol):
    """The part of a model that scoring needs."""

    def submit(self, coarse: NDArray[np.float32], pad_to: int | None = None) -> PendingArray:
        """Start a prediction of ``coarse`` (N, C, h, w) in physical units, run as a batch of ``pad_to``."""
        ...

    def submit_fields(self, inputs: Mapping[str, NDArray], pad_to: int | None = None) -> PendingArray:
        """Start a forward pass on the network's own ``inputs`` (N, …), run as a batch of ``pad_to``."""
        ...

    @property
    def normalisation(self) -> AnyNormalisation:
        """The numbers that the weights were trained with."""
        ...

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """What the weights' file says beside them; empty for a model that was not trained yet."""
        ...


class TaskScores(Protocol):
    """Scores of a model and its baselines over a split."""

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        ...

    @property
    def total(self) -> Mapping[str, Any]:
        """Statistics of every method, which add up (:func:`earthsr.evaluation.over_ranks`)."""
        ...

    def headline(self) -> dict[str, float | None]:
        """Scores of the model in one flat table: those that training watches."""
        ...

    def reference(self) -> dict[str, float | None]:
        """Scores of the baseline that the model has to beat; empty where baselines were not scored."""
        ...


class Task(ABC):
    """A workload.

    Parameters
    ----------
    config : Config
        What to learn, and from which data.
    """

    name: ClassVar[str]
    best: ClassVar[str]
    """Score of the validation split by which the best checkpoint is chosen and training stops early."""
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[str]
    score_label: ClassVar[str]
    """Of the axis of :attr:`best` in the curves of training."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def spec(self) -> NetworkSpec:
        """Return the network that the ``model`` section describes."""

    @abstractmethod
    def objective(self) -> Objective:
        """Return what is minimised."""

    def synthetic_objective(self) -> Objective:
        """Return what is minimised on synthetic batches: the same, but for what would follow from data."""
        return self.objective()

    @abstractmethod
    def dataset(self, split: str) -> Any:
        """Return the batches of a split, an :class:`earthsr.data.dataset.SampleSet`.

        Raises
        ------
        DataError
            If files and configuration do not fit; the message names key and shape.
        """

    @abstractmethod
    def normalisation(self, dataset: Any) -> AnyNormalisation:
        """Choose the normalisation from a training ``dataset``."""

    @abstractmethod
    def score(self, model: Predictor | None, dataset: Any, baselines: bool = True) -> TaskScores:
        """Score a model and the baselines over all of ``dataset``; None scores the baselines alone."""

    @abstractmethod
    def watch(self, model: Predictor, dataset: Any, baselines: bool = True, share: Rank = ALONE) -> TaskScores:
        """Score what training watches, which may be less than a whole evaluation, over a rank's share of the data.

        Parameters
        ----------
        model : Predictor
            With the weights of now.
        dataset : SampleSet
            Of the validation split.
        baselines : bool
            Score the baselines too.
        share : Rank
            Which share of the data, of several ranks.
        """

    def require_fitting(self, model: Predictor, dataset: Any) -> None:
        """Check that a model was trained on fields of the same meaning as those of ``dataset``.

        Counts are checked elsewhere.

        Raises
        ------
        CheckpointError
            If names differ; the message lists both.
        """
        return

    @abstractmethod
    def metadata(self, dataset: Any) -> dict[str, Any]:
        """Return what travels with the weights beside the normalisation: units, cell sizes, class table.

        Parameters
        ----------
        dataset : SampleSet
            Of the training split.
        """

    def settings(self) -> dict[str, Any]:
        """Return settings of this workload that the record of a training names beside the common ones."""
        return {}

    def synthetic_batches(self, count: int) -> ParityBatches:
        """Return ``count`` synthetic batches that are the same on every machine: terrain, where a task has no own."""
        data = self.config.data
        return synthetic_patches(self.spec(), data.patch_size, data.batch_size, count)

    @abstractmethod
    def read_batches(self, count: int) -> ParityBatches:
        """Return ``count`` batches of the training split, the same ones every time."""

    def scored(self, split: str) -> Any:
        """Return a split as it is scored, a :class:`earthsr.data.dataset.SampleSet`: nothing is shuffled or augmented.

        Raises
        ------
        DataError
            If the split is missing or damaged.
        """
        return self.dataset(split)

    def batches_scored(self, dataset: Any) -> int:
        """Batches of a ``dataset`` that :meth:`tally` shares out; 1 where it takes no share but the whole."""
        return 1

    def tally(self, model: Model, dataset: Any, share: Rank = ALONE) -> Any:
        """Count what :meth:`findings` tells of.

        Tallies of the shares of a split add up with ``+``, and travel between processes.

        Parameters
        ----------
        model : Model
            With weights and normalisation.
        dataset : SampleSet
            A split, from :meth:`scored`.
        share : Rank
            Every n-th of :meth:`batches_scored` alone.

        Raises
        ------
        DataError
            If the split is damaged.
        ConfigError
            If the configuration asks for metrics that this task does not count.
        """
        if self.config.summary.metrics:
            raise ConfigError(f"summary.metrics: the task {self.name} has its own scores alone; leave it empty")
        return self.score(model, dataset)

    def findings(self, model: Model, dataset: Any, tally: Any) -> Findings:
        """Say for ``metrics.json`` and a report what was counted; nothing is written.

        A task without findings of its own gets its scores in a table, and bars of the one that training watches.

        Parameters
        ----------
        model : Model
            With weights and normalisation.
        dataset : SampleSet
            What was scored, from :meth:`scored`.
        tally : object
            From :meth:`tally`, of all of it.
        """
        metrics = tally.to_dict()
        scores: dict[str, dict[str, Any]] = metrics["scores"]
        columns: Columns = tuple(
            (key, key.replace("_", " "), ".4f")
            for key, value in scores["model"].items()
            if isinstance(value, (int, float))
        )
        value = scores["model"][self.best]
        shown = "–" if value is None else f"{value:.4g} {self.units}"
        words = f"{metrics.get('split', 'scored')} split"

        def draw(folder: Path) -> tuple[Pictures, Tables]:
            bars = score_bars(scores, self.best, self.units, words, folder / "scores.png")
            return [(bars, f"{self.best} of the model and of what it is measured against.")], []

        return Findings(
            title=f"{self.name}: evaluation",
            metrics=metrics,
            provenance={**model_provenance(model), "data": self.config.data.root_dir},
            headline=f"{self.name}: {self.best} {shown} on the {words}",
            columns=columns,
            tables=[("Scores", score_table(scores, columns))],
            draw=draw,
        )

    def describe_validation(self, valid: Mapping[str, float | None]) -> str:
        """Return one phrase on ``valid``, the scores of the validation split, for people."""
        value = valid.get(self.best)
        return "no score" if value is None else f"{self.best} {value:.4g}"

    def describe_scores(self, scores: Mapping[str, Any]) -> str:
        """Return one phrase on the scores of one method, for people."""
        return self.describe_validation(scores)

    def better(self, score: float | None, than: float | None) -> bool:
        """Whether a score is better than another; none is worse than any."""
        if score is None or than is None:
            return score is not None
        return score > than if self.higher_is_better else score < than


def task_for(config: Config) -> Task:
    """Return the task that ``model.name`` chooses.

    Parameters
    ----------
    config : Config
        A whole configuration.

    Returns
    -------
    Task
        The task of the configuration's workload.

    Raises
    ------
    ConfigError
        If the configuration's workload is not installed, or gives no task.
    """
    workload = workload_of(config)
    task = workload.task(config)
    if not isinstance(task, Task):
        raise ConfigError(f"workload {workload.name}: gives a {type(task).__name__}, expected an earthsr.tasks.Task")
    return task

"""What every workload answers: which network, which data, which loss, and how it is scored.

This room calls no framework. Whoever has an engine hands in functions that predict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.config import Config
from earthsr.data.dataset import Dataset
from earthsr.data.normalise import Normalisation
from earthsr.landuse.dataset import LandUseDataset
from earthsr.landuse.normalise import ChannelNormalisation
from earthsr.models import NetworkSpec, Objective
from earthsr.ranks import ALONE, Rank
from earthsr.tasks.batches import ParityBatches
from earthsr.tasks.synthetic_batches import made_batches

AnyDataset = Dataset | LandUseDataset
AnyNormalisation = Normalisation | ChannelNormalisation


class PendingArray(Protocol):
    """A prediction that may still be computing."""

    def result(self) -> NDArray[np.float32]:
        """Wait for it."""
        ...


class Predictor(Protocol):
    """The part of a model that scoring needs."""

    def submit(self, coarse: NDArray[np.float32], pad_to: int | None = None) -> PendingArray:
        """Start a prediction of elevations: metres in, metres out."""
        ...

    def submit_fields(self, inputs: Mapping[str, NDArray], pad_to: int | None = None) -> PendingArray:
        """Start a forward pass on the network's own input fields."""
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

    def made_objective(self) -> Objective:
        """Return what is minimised on made batches: the same, but for what would follow from data."""
        return self.objective()

    @abstractmethod
    def dataset(self, split: str) -> Any:
        """Return the batches of a split.

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
        dataset : Dataset or LandUseDataset
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
        dataset : Dataset or LandUseDataset
            Of the training split.
        """

    def made_batches(self, count: int) -> ParityBatches:
        """Return ``count`` synthetic batches that are the same on every machine."""
        data = self.config.data
        made = made_batches(self.spec(), data.patch_size, data.batch_size, count)
        return replace(made, made=True)

    @abstractmethod
    def read_batches(self, count: int) -> ParityBatches:
        """Return ``count`` batches of the training split, the same ones every time."""

    def words(self, valid: Mapping[str, float | None]) -> str:
        """Return one phrase on ``valid``, the scores of the validation split, for people."""
        value = valid.get(self.best)
        return "no score" if value is None else f"{self.best} {value:.4g}"

    def row_words(self, scores: Mapping[str, Any]) -> str:
        """Return one phrase on the scores of one method, for people."""
        return self.words(scores)

    def better(self, score: float | None, than: float | None) -> bool:
        """Whether a score is better than another; none is worse than any."""
        if score is None or than is None:
            return score is not None
        return score > than if self.higher_is_better else score < than

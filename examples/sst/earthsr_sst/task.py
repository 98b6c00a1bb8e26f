"""Sea-surface temperature: fields of degrees Celsius enlarged with DEM-SRNet's network, scored over water alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from earthsr.config import Workload
from earthsr.data.batch import make_batch
from earthsr.data.dataset import Dataset
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.evaluation.statistics import baseline
from earthsr.models import DemSRNetSpec, HuberLoss, Objective
from earthsr.ranks import ALONE, Rank
from earthsr.tasks import Predictor, Task
from earthsr.tasks.batches import ParityBatches
from earthsr_sst.config import SstConfig
from earthsr_sst.fields import SstFields


@dataclass(frozen=True)
class Misfit:
    """Sums over cells of water. Sums add up, so scores are exact whatever batches and ranks they came from."""

    count: float = 0.0
    square: float = 0.0
    close: float = 0.0

    def __add__(self, other: Misfit) -> Misfit:
        return Misfit(self.count + other.count, self.square + other.square, self.close + other.close)

    def scores(self) -> dict[str, float | None]:
        """``rmse`` in kelvin, and the share of cells near the truth."""
        if not self.count:
            return {"rmse": None, "share_within": None}
        return {"rmse": math.sqrt(self.square / self.count), "share_within": self.close / self.count}


@dataclass(frozen=True)
class SstScores:
    """Scores of a split; see :class:`earthsr.tasks.TaskScores`."""

    split: str
    within_k: float
    total: dict[str, Misfit]

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        scores = {name: misfit.scores() for name, misfit in self.total.items()}
        return {"task": "sst", "split": self.split, "units": "K", "within_k": self.within_k, "scores": scores}

    def headline(self) -> dict[str, float | None]:
        """Return what training watches."""
        return self.total["model"].scores()

    def reference(self) -> dict[str, float | None]:
        """Return what the model has to beat."""
        return {"bicubic_rmse": self.total["bicubic"].scores()["rmse"]} if "bicubic" in self.total else {}


class SeaSurfaceTemperature(Task):
    """Enlarge fields of sea-surface temperature."""

    name: ClassVar[str] = "sst"
    best: ClassVar[str] = "rmse"
    units: ClassVar[str] = "K"
    score_label: ClassVar[str] = "validation RMSE (K)"
    config: SstConfig

    def spec(self) -> DemSRNetSpec:
        """DEM-SRNet, whose one input keeps its name ``elevation``."""
        return DemSRNetSpec(**self.config.model.model_dump(exclude={"name"}), residual_over="bicubic")

    def objective(self) -> Objective:
        """Huber: clouds that slipped through the satellite's mask count linearly."""
        return HuberLoss(self.config.train.huber_delta)

    def dataset(self, split: str) -> Dataset:
        """Shuffled and turned for training, in the file's order otherwise."""
        data, train = self.config.data, split == "train"
        fields = SstFields(data, split, self.config.model.scale)
        samples = Dataset(fields, shuffle=train, augment=train and data.augment, seed=self.config.train.seed)
        return samples.create_dataset(data.batch_size)

    def normalisation(self, dataset: Dataset) -> Normalisation:
        """By ``data.normalisation``; the checkpoint owns the numbers."""
        return Normalisation.choose(self.config.data.normalisation, Statistics.of(dataset.patches()))

    def metadata(self, dataset: Dataset) -> dict[str, Any]:
        """What travels with the weights beside the normalisation."""
        return {"units": "degC"}

    def score(
        self, model: Predictor | None, dataset: Dataset, baselines: bool = True, share: Rank = ALONE
    ) -> SstScores:
        """Score in kelvin over a rank's share; the model takes and gives degrees Celsius."""
        within, total = self.config.train.within_k, dict[str, Misfit]()
        for patches in dataset.patches(share=share):
            fine = {"bicubic": baseline(patches.coarse, self.config.model.scale, "bicubic")} if baselines else {}
            if model is not None:
                fine["model"] = model.submit(patches.coarse, pad_to=dataset.batch_size).result()
            for name, field in fine.items():
                gap = (field.astype(np.float64) - patches.fine)[patches.mask.astype(bool)]
                sums = Misfit(gap.size, float(np.square(gap).sum()), float((np.abs(gap) <= within).sum()))
                total[name] = total.get(name, Misfit()) + sums
        return SstScores(dataset.generator.split, within, total)

    def watch(self, model: Predictor, dataset: Dataset, baselines: bool = True, share: Rank = ALONE) -> SstScores:
        """All of it is watched."""
        return self.score(model, dataset, baselines, share)

    def read_batches(self, count: int) -> ParityBatches:
        """Batches on which ``earthsr parity`` compares backends, and how their output is read."""
        dataset = self.dataset("train")
        normalisation = self.normalisation(dataset)
        fields = list(itertools.islice(itertools.cycle(dataset.patches()), count))
        batches = [make_batch(patches, normalisation, dataset.batch_size) for patches in fields]
        offsets = normalisation.offsets(fields[0].coarse)
        return ParityBatches(batches, dataset.source, lambda out: ({"sst_degC": normalisation.undo(out, offsets)}, {}))


class SstWorkload(Workload):
    """What the entry point names: the configuration, and the task of one."""

    name: ClassVar[str] = "sst"
    title: ClassVar[str] = "sea-surface temperature"
    config: ClassVar[type[SstConfig]] = SstConfig

    def task(self, config: SstConfig) -> SeaSurfaceTemperature:
        """See the base class."""
        return SeaSurfaceTemperature(config)

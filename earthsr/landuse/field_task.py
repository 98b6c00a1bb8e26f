"""The task of a continuous field of the land surface, such as leaf area index: from batches to scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.errors import DataError
from earthsr.evaluation.metrics import Metric, MetricSums, find_metrics, metric_sums
from earthsr.evaluation.statistics import ErrorStatistics, add_up, patch_statistics
from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
from earthsr.landuse.evaluate import field_findings
from earthsr.landuse.scores import FieldScores
from earthsr.landuse.split import LandUseData
from earthsr.landuse.tile_task import TileTask, field_values
from earthsr.models import MSELoss, Objective
from earthsr.ranks import ALONE, Rank
from earthsr.tasks.base import Findings, Predictor
from earthsr.tasks.batches import ParityBatches


class LandField(TileTask):
    """The task of a continuous head: this year's classes, forcing and static fields to a field of several channels."""

    name: ClassVar[str] = "land_field"
    best: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[str] = "of the field"
    score_label: ClassVar[str] = "validation RMSE (unit of the field)"

    def objective(self) -> Objective:
        """Mean squared error over cells with a value, or what ``train.loss`` names, in normalised units."""
        train = self.config.train
        return MSELoss() if train.loss == "auto" else Objective(train.loss, delta=train.huber_delta)

    def data(self, split: str) -> LandUseData:
        """See the base class; the field's channels have to be the model's outputs.

        Raises
        ------
        DataError
            If the file holds no such field, or one of another number of channels.
        """
        source = super().data(split)
        field = source.field(self._target(source))
        if len(field.channels) != self.config.model.out_channels:
            raise DataError(
                f"{source.path}: {field.name} has {len(field.channels)} channels, model.out_channels is "
                f"{self.config.model.out_channels}; set it to {len(field.channels)}"
            )
        return source

    def _target(self, source: LandUseData) -> str:
        if self.config.data.target is not None:
            return self.config.data.target
        if not source.layout.continuous:
            raise DataError(f"{source.path}: holds no continuous field, which model.head continuous learns")
        return source.layout.continuous[0].name

    def options(self, source: LandUseData) -> LandUseOptions:
        """See the base class; ``source`` is the split's file."""
        return replace(super().options(source), target=self._target(source))

    def metadata(self, dataset: LandUseDataset) -> dict[str, Any]:
        """See the base class; with the name of the ``dataset``'s field, unit and channels."""
        field = dataset.generator.field(str(dataset.options.target))
        return {
            **super().metadata(dataset),
            "units": field.units,
            "field": field.name,
            "field_channels": list(field.channels),
        }

    def batches_scored(self, dataset: LandUseDataset) -> int:
        """See the base class: batches of tiles and years."""
        source = dataset.generator
        years = source.scored_years or source.layout.years
        return -(-source.layout.tiles * len(years) // dataset.batch_size)

    def tally(self, model: Model, dataset: LandUseDataset, share: Rank = ALONE) -> FieldScores:
        """See the base class."""
        return self.score(model, dataset, share=share, metrics=self._metrics())

    def findings(self, model: Model, dataset: LandUseDataset, tally: FieldScores) -> Findings:
        """See the base class; with a map of the field."""
        return field_findings(self, model, dataset, tally, self._target(dataset.generator), self._metrics())

    def _metrics(self) -> dict[str, Metric]:
        return find_metrics(self.config.summary.metrics, "values")

    def describe_validation(self, valid: Mapping[str, float | None]) -> str:
        """RMSE beside that of the baselines."""
        if valid.get("rmse") is None:
            return "no score"
        beside = [
            f"{k.removesuffix('_rmse')} {v:.4g}" for k, v in valid.items() if k.endswith("_rmse") and v is not None
        ]
        return f"RMSE {valid['rmse']:.4g}" + (f" ({', '.join(beside)})" if beside else "")

    def score(
        self,
        model: Predictor | None,
        dataset: LandUseDataset,
        baselines: bool = True,
        share: Rank = ALONE,
        metrics: Mapping[str, Metric] | None = None,
    ) -> FieldScores:
        """Score a model over the scored years of all tiles, beside the mean of the training split.

        Of several ranks each scores every n-th batch.

        Parameters
        ----------
        model : Predictor or None
            Starts predictions; None scores the baselines alone.
        dataset : LandUseDataset
            In its own order.
        baselines : bool
            Score the training split's mean too.
        share : Rank
            Score every n-th batch alone.
        metrics : mapping of str to Metric, optional
            Scores of one's own, whose sums over all channels are counted too.
        """
        source, target = dataset.generator, str(dataset.options.target)
        layout = source.layout
        field = source.field(target)
        mean = layout.statistics.continuous[target][0]
        years = source.scored_years or layout.years
        wanted = [*(["model"] if model is not None else []), *(["training_mean"] if baselines else [])]
        total = {name: ErrorStatistics() for name in wanted}
        own: MetricSums = {name: {} for name in metrics or {}}
        composer = None
        if model is not None:
            self.require_fitting(model, dataset)
            composer = self.composer(model, source)
        pairs = [(tile, year) for tile in range(layout.tiles) for year in years]
        size = dataset.batch_size
        for start in range(share.number * size, len(pairs), share.of * size):
            chunk = pairs[start : start + size]
            truth = np.stack([source.continuous(target, tile, year) for tile, year in chunk])
            mask = np.isfinite(truth).all(axis=1, keepdims=True).astype(np.uint8)
            filled = np.nan_to_num(truth, nan=0.0)
            predictions: dict[str, NDArray[np.float32]] = {}
            if model is not None and composer is not None:
                samples = [composer.fields(t, year, composer.truth(t, year), 0) for t, year in chunk]
                inputs = {name: np.stack([sample[name] for sample in samples]) for name in self.field_names}
                predictions["model"] = composer.normalisation.undo(model.submit_fields(inputs, size).result())
            if baselines:
                predictions["training_mean"] = np.full_like(filled, mean)
            for name, values in predictions.items():
                statistics = patch_statistics(values, filled, mask, border=0, value_range=0.0, cell_size_m=None)
                total[name] = sum(statistics, total[name])
            if metrics:
                maps = {name: values.reshape(-1, *values.shape[-2:]) for name, values in predictions.items()}
                valid = np.repeat(mask[:, 0].astype(bool), filled.shape[1], axis=0)
                of_batch = metric_sums(metrics, maps, filled.reshape(-1, *filled.shape[-2:]), valid)
                own = {name: add_up(sums, of_batch[name]) for name, sums in own.items()}
        return FieldScores(source.split, layout, target, field.units, total, own)

    def watch(
        self, model: Predictor, dataset: LandUseDataset, baselines: bool = True, share: Rank = ALONE
    ) -> FieldScores:
        """See the base class."""
        return self.score(model, dataset, baselines, share)

    def read_batches(self, count: int) -> ParityBatches:
        """See the base class."""
        batches, source = self.first_batches(count)
        normalisation = self.normalisation(self.dataset("train"))
        return ParityBatches(batches, source, lambda output: field_values(output, batches[0], normalisation))

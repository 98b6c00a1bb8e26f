"""Land use: forcing, static fields and last year's map to this year's classes, under a protocol that cannot flatter.

The headline is the rollout: from an anchor year on the model sees its own maps alone, in blocks and years that training
has not seen. Beside it stand the same model without a prior and with true priors, and baselines from the same anchor
and the same fractions.

A continuous field of the land surface is a task of its own (:mod:`earthsr.landuse.field_task`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.config import Workload
from earthsr.errors import DataError
from earthsr.evaluation.maps import PAGE, Drawing, MapRequest, holds_codes
from earthsr.evaluation.metrics import Metric, find_metrics, metric_sums
from earthsr.evaluation.statistics import add_up
from earthsr.geo.raster import Source
from earthsr.geo.values import is_metres
from earthsr.landuse.class_areas import AreaStatistics
from earthsr.landuse.config import LandUseConfig
from earthsr.landuse.dataset import LandUseDataset
from earthsr.landuse.evaluate import map_findings
from earthsr.landuse.field_task import LandField
from earthsr.landuse.rollout import BASELINES, ROWS, ForcedRegion, Row, baseline_maps, path_of, predict_maps, region_of
from earthsr.landuse.scores import LandUseScores, MapStatistics, flicker_statistics
from earthsr.landuse.split import LandUseData
from earthsr.landuse.split_file import tile_size_of
from earthsr.landuse.tile_task import TileTask, probabilities
from earthsr.models import CrossEntropyLoss, Objective
from earthsr.ranks import ALONE, Rank
from earthsr.tasks.base import Findings, Predictor
from earthsr.tasks.batches import ParityBatches


class LandUse(TileTask):
    """The task of mapping land-use classes from coarse fractions."""

    name: ClassVar[str] = "land_use"
    best: ClassVar[str] = "miou"
    higher_is_better: ClassVar[bool] = True
    units: ClassVar[str] = "class"
    score_label: ClassVar[str] = "validation mIoU (rollout)"

    def __init__(self, config: LandUseConfig) -> None:
        super().__init__(config)
        self._regions: WeakKeyDictionary[LandUseDataset, ForcedRegion] = WeakKeyDictionary()

    def data(self, split: str) -> LandUseData:
        """See the base class; validation and test splits need a year to score.

        Raises
        ------
        DataError
            If they have none: said here, so that training does not find it out after its first epoch.
        """
        source = super().data(split)
        if split != "train":
            _require_scored_years(source)
        return source

    def objective(self) -> Objective:
        """Cross entropy, weighted by class as ``train.class_weights`` says; needs the training split where it counts.

        Raises
        ------
        DataError
            If the weights follow from frequencies, and the training split is not there.
        """
        train = self.config.train
        weights: Sequence[float] | None = None
        if isinstance(train.class_weights, list):
            weights = train.class_weights
        elif train.class_weights != "none":
            counts = self.data("train").layout.statistics.class_counts
            weights = frequency_weights(counts, -0.5 if train.class_weights == "sqrt" else -1.0)
        return CrossEntropyLoss(None if weights is None else tuple(weights), train.label_smoothing, train.dice)

    def synthetic_objective(self) -> Objective:
        """See the base class: synthetic batches have no frequencies of classes."""
        train = self.config.train
        weights = tuple(train.class_weights) if isinstance(train.class_weights, list) else None
        return CrossEntropyLoss(weights, train.label_smoothing, train.dice)

    def batches_scored(self, dataset: LandUseDataset) -> int:
        """See the base class: batches of tiles."""
        return -(-dataset.generator.layout.tiles // dataset.batch_size)

    def tally(self, model: Model, dataset: LandUseDataset, share: Rank = ALONE) -> LandUseScores:
        """See the base class."""
        return self.score(model, dataset, share=share, metrics=self._metrics())

    def findings(self, model: Model, dataset: LandUseDataset, tally: LandUseScores) -> Findings:
        """See the base class; with maps, confusion, areas, and the scores of every year."""
        return map_findings(self, model, dataset, tally, self._metrics())

    def _metrics(self) -> dict[str, Metric]:
        return find_metrics(self.config.summary.metrics, "classes")

    def describe_validation(self, valid: Mapping[str, float | None]) -> str:
        """Rollout's mIoU and figure of merit beside the baselines'."""
        if valid.get("miou") is None:
            return "no score"
        text = f"rollout mIoU {valid['miou']:.4f}"
        if valid.get("persistence_miou") is not None:
            text += f" (persistence {valid['persistence_miou']:.4f})"
        if valid.get("figure_of_merit") is not None:
            text += f", figure of merit {valid['figure_of_merit']:.3f}"
            if valid.get("baseline_figure_of_merit") is not None:
                text += f" (best baseline {valid['baseline_figure_of_merit']:.3f})"
        return text

    def describe_scores(self, scores: Mapping[str, Any]) -> str:
        """See the base class."""
        return ", ".join(f"{key} {scores[key]:.4f}" for key in ("miou", "accuracy") if scores.get(key) is not None)

    def score(
        self,
        model: Predictor | None,
        dataset: LandUseDataset,
        baselines: bool = True,
        rows: Sequence[Row] = ROWS,
        areas: bool = True,
        share: Rank = ALONE,
        metrics: Mapping[str, Metric] | None = None,
    ) -> LandUseScores:
        """Score a model's rollout, and the baselines, over all tiles of a split.

        ``rows`` are those of the model; ``areas`` are summed for each row where tiles do not overlap. Of several ranks
        each scores every n-th batch of tiles.

        Parameters
        ----------
        model : Predictor or None
            Starts predictions; None scores the baselines alone.
        dataset : LandUseDataset
            Tiles of the split.
        baselines : bool
            Score persistence, argmax and allocation of the fractions too.
        rows : sequence of str
            What of the model is scored.
        areas : bool
            Sum up the areas of classes.
        share : Rank
            Score every n-th batch of tiles alone.
        metrics : mapping of str to Metric, optional
            Scores of one's own, whose sums over the scored years are counted too.

        Raises
        ------
        DataError
            If the split has no year to score beside its anchor.
        """
        source = dataset.generator
        _require_scored_years(source)
        layout, path = source.layout, path_of(source)
        # The headline of a running training asks for neither areas nor, after the first time, baselines.
        if (areas or baselines) and dataset not in self._regions:
            self._regions[dataset] = region_of(source)
        region = self._regions[dataset] if areas or baselines else None
        k, places = len(layout.table), source.places
        whole = (path.anchor, *path.years)
        order = [layout.years.index(year) for year in whole]
        chosen = (*(rows if model is not None else ()), *(BASELINES if baselines else ()))
        scores = LandUseScores(source.split, layout, path, {name: MapStatistics.empty(k) for name in chosen})
        scores.years = {year: {name: MapStatistics.empty(k) for name in chosen} for year in path.scored}
        if region is not None and areas and region.separate:
            scores.areas = {name: AreaStatistics.empty(region.grid, len(whole), k) for name in (*chosen, "truth")}
            if share.number == 0:  # once for all shares: it is large
                known = {name: i for i, name in enumerate(layout.table.names) if region.known[i]}
                scores.forcing = {name: region.fractions[order, i] for name, i in known.items()}
        composer = None
        if model is not None:
            self.require_fitting(model, dataset)
            composer = self.composer(model, source)
        size = dataset.batch_size
        for start in range(share.number * size, layout.tiles, share.of * size):
            tiles = range(start, min(start + size, layout.tiles))
            truth = np.stack([[source.classes(tile, year) for tile in tiles] for year in whole])
            maps: dict[str, NDArray[np.uint8]] = {}
            if model is not None and composer is not None:
                maps.update(predict_maps(model, composer, tiles, path, self.field_names, rows, pad_to=size).items())
            if region is not None and baselines:
                by_tile = [baseline_maps(truth[0, i], region, source, places[t], order) for i, t in enumerate(tiles)]
                maps |= {name: np.stack([of_tile[name] for of_tile in by_tile], axis=1) for name in BASELINES}
            self._add(scores, maps, truth, [places[tile] for tile in tiles])
            for year in path.scored if metrics else ():
                at = path.years.index(year)
                fields = {name: predicted[at] for name, predicted in maps.items()}
                of_year = metric_sums(metrics or {}, fields, truth[1 + at], truth[1 + at] < k)
                scores.metrics = {name: add_up(scores.metrics.get(name, {}), sums) for name, sums in of_year.items()}
        return scores

    def watch(
        self, model: Predictor, dataset: LandUseDataset, baselines: bool = True, share: Rank = ALONE
    ) -> LandUseScores:
        """Score the rollout alone, which is the headline."""
        return self.score(model, dataset, baselines, rows=("rollout",), areas=False, share=share)

    def _add(
        self,
        scores: LandUseScores,
        maps: Mapping[str, NDArray[np.uint8]],
        truth: NDArray[np.uint8],
        places: Sequence[NDArray[np.int64]],
    ) -> None:
        """Add the maps (Y, N, P, P) of some tiles; ``truth`` (1 + Y, N, P, P) begins with the anchor."""
        k, path = len(scores.names), scores.path
        for name, predicted in maps.items():
            for y, year in enumerate(path.years):
                if year in path.scored:
                    of_year = MapStatistics.of(truth[1 + y], predicted[y], truth[0], k)
                    scores.total[name] += of_year
                    scores.years[year][name] += of_year
            series = np.concatenate([truth[:1], predicted])
            scores.total[name] += flicker_statistics(series, k, truth)
        if scores.areas:
            everything = {
                **{name: np.concatenate([truth[:1], predicted]) for name, predicted in maps.items()},
                "truth": truth,
            }
            for name, series in everything.items():
                for i, (row, column) in enumerate(places):
                    scores.areas[name].add(series[:, i], scores.layout.fine, int(row), int(column))

    def read_batches(self, count: int) -> ParityBatches:
        """See the base class; priors are hidden as in training."""
        batches, source = self.first_batches(count)
        return ParityBatches(batches, source, lambda output: probabilities(output, batches[0]))


def _require_scored_years(source: LandUseData) -> None:
    if not source.scored_years:
        raise DataError(
            f"{source.path}: has no year after its anchor {source.anchor_year}, so nothing can be scored; hold fewer "
            "years out, or add years"
        )


def frequency_weights(counts: Sequence[int], power: float) -> tuple[float, ...]:
    """Weights by the classes' frequency to a power, with mean 1 over cells; classes that do not occur get 0."""
    share = np.asarray(counts, np.float64) / max(sum(counts), 1)
    raw = np.where(share > 0, np.maximum(share, 1e-12) ** power, 0.0)
    return tuple(float(w) for w in raw / max(float((share * raw).sum()), 1e-12))


class LandUseWorkload(Workload):
    """Land use: maps of classes, and continuous fields of the land surface."""

    name: ClassVar[str] = "landuse"
    title: ClassVar[str] = "land use"
    config: ClassVar[type[LandUseConfig]] = LandUseConfig
    variables: ClassVar[tuple[str, ...]] = ("land_use", "LULC_states")

    def task(self, config: LandUseConfig) -> TileTask:
        """See the base class: the head of the network says which of the two."""
        return LandUse(config) if config.model.head == "classes" else LandField(config)

    def data_keys(self, spec: Mapping[str, Any], metadata: Mapping[str, Any], root: Path) -> dict[str, Any]:
        """See the base class: the tiles' size, and how samples were made."""
        names = {"coarse_interpolation": "coarse_interpolation", "target": "field"}
        kept = {key: metadata[name] for key, name in names.items() if metadata.get(name)}
        return {"patch_size": tile_size_of(root), **kept}

    def draws(self, source: Source) -> bool:
        """See the base class: codes of classes, and fields in any unit but metres."""
        units = source.georeference.units.strip()
        return holds_codes(source) or bool(units and not is_metres(units))

    def draw(self, source: Source, request: MapRequest) -> Drawing:
        """See the base class."""
        from earthsr.landuse.page import draw_land_page
        from earthsr.landuse.plot import draw_land

        return (draw_land_page if request.suffix == PAGE else draw_land)(source, request)

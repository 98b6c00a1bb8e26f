"""Scores of land use over a split: mergeable counts of cells of class maps, every row of maps, and continuous fields.

Counts are integers: those of tiles, years and ranks add up to those of the whole exactly. A cell counts as one,
wherever it lies; :mod:`earthsr.landuse.class_areas` measures areas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.metrics import MetricSums
from earthsr.evaluation.statistics import ErrorStatistics, add_up
from earthsr.landuse.class_areas import AreaStatistics
from earthsr.landuse.rollout import BASELINES, RolloutYears
from earthsr.landuse.split_file import LandUseLayout

#: What :func:`change_categories` writes for a cell that has no class in the truth or at the anchor.
NOT_COMPARED: Final = 255

#: What became of a cell since the anchor, in the order of the codes of :func:`change_categories`.
CHANGE_CATEGORIES: Final = ("correct rejection", "hit", "wrong hit", "miss", "false alarm")


def change_categories(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], anchor: NDArray[np.uint8], k: int
) -> NDArray[np.uint8]:
    """What became of every cell since the anchor, in truth and in prediction (Pontius et al., 2008).

    A prediction without a class is a change to a wrong class: to say nothing never pays.

    Parameters
    ----------
    truth, prediction, anchor : ndarray of shape (..., H, W)
        Class indices; those of ``k`` and more (255 is nodata) are no class. Shapes may broadcast.
    k : int
        Number of classes.

    Returns
    -------
    ndarray of shape (..., H, W)
        Indices of :data:`CHANGE_CATEGORIES`: 0 neither changed, 1 both changed and to the same class, 2 both changed
        and to different ones, 3 only the truth changed, 4 only the prediction changed; 255 where the truth or the
        anchor has no class.
    """
    truth, prediction, anchor = np.broadcast_arrays(truth, prediction, anchor)
    changed, moved = truth != anchor, prediction != anchor
    categories = np.where(changed, np.where(moved, np.where(prediction == truth, 1, 2), 3), np.where(moved, 4, 0))
    return np.where((truth < k) & (anchor < k), categories, NOT_COMPARED).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class MapStatistics:
    """Counts of cells; ``a + b`` merges, exactly."""

    confusion: NDArray[np.int64]
    """(K, K), rows truth, columns prediction; only cells with a class in both."""
    unpredicted: NDArray[np.int64]
    """(K,) cells without a class in the prediction, by their class in the truth."""
    hits: int = 0
    """Cells that changed since the anchor in truth and prediction, to the same class."""
    wrong_hits: int = 0
    """Both changed, to different classes (or the prediction has none)."""
    misses: int = 0
    """The truth changed, the prediction did not."""
    false_alarms: int = 0
    """The prediction changed (or has no class), the truth did not."""
    correct_rejections: int = 0
    """Neither changed."""
    flicker: int = 0
    """Cells of the prediction whose class leaves and is back in three maps that follow each other."""
    triples: int = 0
    """Cells of all such triples of maps that ``flicker`` looks at."""
    truth_flicker: int = 0
    """The same in the truth: what the observations flicker by themselves."""
    truth_triples: int = 0

    def __add__(self, other: MapStatistics) -> MapStatistics:
        if self.confusion.shape != other.confusion.shape:
            raise ValueError(
                f"statistics of {len(self.unpredicted)} and of {len(other.unpredicted)} classes cannot merge"
            )
        return MapStatistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def empty(cls, k: int) -> MapStatistics:
        """Return statistics of no cell, for ``k`` classes."""
        return cls(np.zeros((k, k), np.int64), np.zeros(k, np.int64))

    @classmethod
    def of(
        cls, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], anchor: NDArray[np.uint8] | None, k: int
    ) -> MapStatistics:
        """Count the cells of maps.

        Parameters
        ----------
        truth, prediction : ndarray of shape (..., H, W)
            Class indices; those of ``k`` and more (255 is nodata) are no class.
        anchor : ndarray of shape (..., H, W) or None
            Map from which change is counted; it may broadcast, as one map against many years. None counts no change.
        k : int
            Number of classes K.

        Raises
        ------
        ValueError
            If truth and prediction differ in shape.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape} and prediction {prediction.shape}, expected the same")
        valid = truth < k
        # One column more than classes: cells that the prediction leaves without one.
        pairs = truth[valid].astype(np.int64) * (k + 1) + np.minimum(prediction[valid], k)
        table = np.bincount(pairs, minlength=k * (k + 1)).reshape(k, k + 1).astype(np.int64)
        counted = cls(table[:, :k].copy(), table[:, k].copy())
        if anchor is None:
            return counted
        became = np.bincount(change_categories(truth, prediction, anchor, k).ravel(), minlength=256)
        rejections, hits, wrong_hits, misses, false_alarms = (int(n) for n in became[: len(CHANGE_CATEGORIES)])
        return replace(
            counted,
            hits=hits,
            wrong_hits=wrong_hits,
            misses=misses,
            false_alarms=false_alarms,
            correct_rejections=rejections,
        )

    def scores(self, names: Sequence[str]) -> dict[str, Any]:
        """Scores as numbers that JSON can hold; None where a score has no value.

        Cells without a class in the prediction count as wrong in ``accuracy`` and ``kappa``, as missed truth in IoU,
        recall and F1, and as wrong changes: no score is higher than if they had been left out. (A class that would
        have been wrongly predicted there is spared a false positive; ``unpredicted_percent`` says how often.)

        Parameters
        ----------
        names : sequence of str
            Names of the K classes.

        Returns
        -------
        dict
            ``cells`` scored, ``unpredicted_percent`` of them;
            ``miou``, the mean IoU of the classes that occur in truth or prediction, and ``iou`` by class (None where
            it occurs in neither); ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that occur in the
            truth); ``f1_macro``, over the same classes as ``miou``, and ``f1`` by class; ``kappa`` (Cohen, 1960;
            chance agreement from the cells with a prediction);
            ``change``: ``hits``, ``wrong_hits``, ``misses``, ``false_alarms``, ``figure_of_merit`` (Pontius et al.,
            2008: hits over hits, wrong hits, misses and false alarms), ``precision`` and ``recall`` of change to the
            right class, ``changed_truth_percent`` and ``changed_prediction_percent`` of the cells compared with the
            anchor; ``flicker_percent`` and ``truth_flicker_percent`` of the triples. Without a unit where the name has
            no ``percent``: 0 to 1, kappa -1 to 1.

        References
        ----------
        Pontius, R. G., et al. (2008). Comparing the input, output, and validation maps for several models of land
        change. The Annals of Regional Science 42(1), 11-37.
        """
        if len(names) != len(self.unpredicted):
            raise ValueError(f"{len(names)} names for {len(self.unpredicted)} classes")
        right = np.diagonal(self.confusion)
        truth = self.confusion.sum(axis=1) + self.unpredicted
        predicted = self.confusion.sum(axis=0)
        both = truth + predicted - right
        iou = {name: _ratio(right[i], both[i]) for i, name in enumerate(names)}
        f1 = {name: _ratio(2 * right[i], truth[i] + predicted[i]) for i, name in enumerate(names)}
        cells = int(truth.sum())
        accuracy = _ratio(right.sum(), cells)
        return {
            "cells": cells,
            "unpredicted_percent": _percent(self.unpredicted.sum(), cells),
            "miou": _mean(iou.values()),
            "iou": iou,
            "accuracy": accuracy,
            "balanced_accuracy": _mean(_ratio(right[i], truth[i]) for i in range(len(names))),
            "f1_macro": _mean(f1.values()),
            "f1": f1,
            "kappa": self._kappa(accuracy),
            "change": self._change(),
            "flicker_percent": _percent(self.flicker, self.triples),
            "truth_flicker_percent": _percent(self.truth_flicker, self.truth_triples),
        }

    def _kappa(self, accuracy: float | None) -> float | None:
        cells = int(self.confusion.sum())
        if accuracy is None or not cells:
            return None
        # With the chance of the predicted cells alone, silence lowers kappa; as a class of its own it could raise it.
        chance = float(self.confusion.sum(axis=0) / cells @ (self.confusion.sum(axis=1) / cells))
        # One class alone in both: any agreement is chance.
        return (accuracy - chance) / (1 - chance) if 1 - chance > 1e-12 else None

    def _change(self) -> dict[str, int | float | None]:
        hits, wrong = self.hits, self.wrong_hits
        compared = hits + wrong + self.misses + self.false_alarms + self.correct_rejections
        changed, moved = hits + wrong + self.misses, hits + wrong + self.false_alarms
        return {
            "hits": hits,
            "wrong_hits": wrong,
            "misses": self.misses,
            "false_alarms": self.false_alarms,
            "figure_of_merit": _ratio(hits, changed + self.false_alarms),
            "precision": _ratio(hits, moved),
            "recall": _ratio(hits, changed),
            "changed_truth_percent": _percent(changed, compared),
            "changed_prediction_percent": _percent(moved, compared),
        }


def flicker_statistics(prediction: NDArray[np.uint8], k: int, truth: NDArray[np.uint8] | None = None) -> MapStatistics:
    """Count cells that leave their class and are back in it two maps later; add the result to others.

    Parameters
    ----------
    prediction : ndarray of shape (Y, ..., H, W)
        Class indices of maps that follow each other.
    k : int
        Number of classes; indices of ``k`` and more (255 is nodata) are no class.
    truth : ndarray of shape (Y, ..., H, W), optional
        Of the same years. The prediction is then looked at where the truth has a class in all three maps, and no class
        counts as one more class; else where the prediction itself has classes.

    Returns
    -------
    MapStatistics
        With ``flicker``, ``triples``, ``truth_flicker`` and ``truth_triples`` alone.
    """
    if truth is not None and truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape} and prediction {prediction.shape}, expected the same")
    flicker, triples = _flicker(prediction, (prediction if truth is None else truth) < k)
    counted = replace(MapStatistics.empty(k), flicker=flicker, triples=triples)
    if truth is None:
        return counted
    flicker, triples = _flicker(truth, truth < k)
    return replace(counted, truth_flicker=flicker, truth_triples=triples)


def _flicker(series: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[int, int]:
    before, middle, after = series[:-2], series[1:-1], series[2:]
    seen = valid[:-2] & valid[1:-1] & valid[2:]
    return int(((before == after) & (middle != before) & seen).sum()), int(seen.sum())


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _percent(part: int, whole: int) -> float | None:
    return float(100 * part / whole) if whole else None


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass
class LandUseScores:
    """Statistics of every row over a split."""

    split: str
    layout: LandUseLayout
    path: RolloutYears
    total: dict[str, MapStatistics]
    """By row: the model's three, then baselines."""
    years: dict[int, dict[str, MapStatistics]] = field(default_factory=dict)
    areas: dict[str, AreaStatistics] = field(default_factory=dict)
    """By row, and the truth's; anchor first, then the years of the path. Empty where tiles overlap."""
    forcing: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Fractions of the classes that the forcing knows (Y, h, w), for the same years."""
    metrics: MetricSums = field(default_factory=dict)
    """Of scores of one's own, over all scored years."""

    def __add__(self, other: LandUseScores) -> LandUseScores:
        years = {year: add_up(rows, other.years[year]) for year, rows in self.years.items()}
        metrics = {name: add_up(sums, other.metrics[name]) for name, sums in self.metrics.items()}
        areas = add_up(self.areas, other.areas)
        return replace(self, total=add_up(self.total, other.total), years=years, areas=areas, metrics=metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.layout.table.names

    def row(self, name: str) -> dict[str, Any]:
        """Scores of one row, agreement of areas included."""
        scores = self.total[name].scores(self.names)
        if name in self.areas and self.forcing:
            scored = [1 + self.path.years.index(year) for year in self.path.scored]
            part = AreaStatistics(self.areas[name].coarse, self.areas[name].areas[scored], self.areas[name].covered)
            forcing = {key: values[scored] for key, values in self.forcing.items()}
            scores["area_agreement"] = part.agreement(forcing, self.names)
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        short = ("miou", "accuracy", "balanced_accuracy", "kappa")

        def brief(statistics: MapStatistics) -> dict[str, float | None]:
            scores = statistics.scores(self.names)
            return {**{k: scores[k] for k in short}, "figure_of_merit": scores["change"]["figure_of_merit"]}

        tiles = self.layout.tiles
        return {
            "task": "land_use",
            "split": self.split,
            "units": "class",
            "samples": tiles * len(self.path.scored),
            "tiles": tiles,
            "classes": list(self.names),
            "forcing": self.layout.forcing,
            "source": self.layout.source,
            "protocol": {
                "anchor_year": self.path.anchor,
                "rollout_years": list(self.path.years),
                "scored_years": list(self.path.scored),
                "held_out_years": list(self.layout.held_out_years),
                "direction": "forwards" if self.path.direction > 0 else "backwards",
                "rollout": "the model's own maps as priors from the anchor on",
                "no_prior": "no map at all, the anchor neither",
                "true_prior": "the truth of the year before as prior, which no projection has: an upper bound",
                "persistence": "the anchor's map",
                "coarse_argmax": "the class with the largest fraction in the coarse cell, the anchor's where none",
                "allocation": "the anchor changed to meet the fractions, in parts of coarse cells by their change, "
                "nearest to a class first",
            },
            "scores": {name: self.row(name) for name in self.total},
            "groups": {
                str(year): {"samples": tiles, "scores": {name: brief(row) for name, row in rows.items()}}
                for year, rows in self.years.items()
            },
        }

    def headline(self) -> dict[str, float | None]:
        """Scores of the rollout."""
        scores = self.total["rollout"].scores(self.names)
        return {
            **{key: scores[key] for key in ("miou", "accuracy", "balanced_accuracy", "f1_macro", "kappa")},
            "figure_of_merit": scores["change"]["figure_of_merit"],
            "flicker_percent": scores["flicker_percent"],
        }

    def reference(self) -> dict[str, float | None]:
        """Scores of the baselines: mIoU of each, and the largest figure of merit."""
        rows = {name: self.total[name].scores(self.names) for name in BASELINES if name in self.total}
        miou = {f"{name}_miou": scores["miou"] for name, scores in rows.items()}
        merits = [scores["change"]["figure_of_merit"] or 0.0 for scores in rows.values()]
        return {**miou, "baseline_figure_of_merit": max(merits)} if rows else {}


@dataclass
class FieldScores:
    """Errors of the model and of the training mean, in the field's unit."""

    split: str
    layout: LandUseLayout
    field: str
    units: str
    total: dict[str, ErrorStatistics]
    metrics: MetricSums = dataclasses.field(default_factory=dict)
    """Of scores of one's own."""

    def __add__(self, other: FieldScores) -> FieldScores:
        metrics = {name: add_up(sums, other.metrics[name]) for name, sums in self.metrics.items()}
        return replace(self, total=add_up(self.total, other.total), metrics=metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        return {
            "task": "land_field",
            "split": self.split,
            "field": self.field,
            "units": self.units,
            "samples": int(next(iter(self.total.values())).samples),
            "source": self.layout.source,
            "forcing": self.layout.forcing,
            "scores": {name: _errors(errors) for name, errors in self.total.items()},
            "groups": {},
        }

    def headline(self) -> dict[str, float | None]:
        """Errors of the model."""
        return _errors(self.total["model"])

    def reference(self) -> dict[str, float | None]:
        """Root mean square error of the baselines."""
        return {f"{name}_rmse": _errors(errors)["rmse"] for name, errors in self.total.items() if name != "model"}


def _errors(statistics: ErrorStatistics) -> dict[str, float | None]:
    scores = statistics.scores(0.0)
    return {key: scores[key] for key in ("rmse", "mae", "bias")}

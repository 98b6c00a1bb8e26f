"""Scores of land use over a split: of every row of maps, and of continuous fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.statistics import ErrorStatistics
from earthsr.landuse.class_areas import AreaStatistics
from earthsr.landuse.map_scores import MapStatistics
from earthsr.landuse.rollout import BASELINES, RolloutYears
from earthsr.landuse.split_file import LandUseLayout


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
                str(year): {"samples": tiles, "scores": {name: brief(each) for name, each in rows.items()}}
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

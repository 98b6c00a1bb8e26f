"""Scores in physical units: mergeable statistics, metrics, baselines, figures and reports."""

from earthsr.evaluation.baselines import BASELINES, baseline
from earthsr.evaluation.figures import plt_dem_data
from earthsr.evaluation.statistics import ErrorStatistics, over_ranks, patch_statistics

__all__ = ["BASELINES", "ErrorStatistics", "baseline", "over_ranks", "patch_statistics", "plt_dem_data"]

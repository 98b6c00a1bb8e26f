"""Scores in physical units: mergeable statistics, baselines, figures and reports."""

from earthsr.evaluation.metrics import Metric
from earthsr.evaluation.statistics import BASELINES, ErrorStatistics, baseline, over_ranks, patch_statistics

__all__ = ["BASELINES", "ErrorStatistics", "Metric", "baseline", "over_ranks", "patch_statistics"]

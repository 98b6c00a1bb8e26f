"""Scores of one's own: found by name among the installed packages, and reported beside those of the workload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import ConfigError

#: Entry points of packages that bring scores.
GROUP: Final = "earthsr.metrics"

Kind = Literal["values", "classes"]
#: Sums by metric and by method.
MetricSums = dict[str, dict[str, NDArray[np.float64]]]


class Metric(ABC):
    """A score that is a function of sums, so that parts of the data add up to the whole.

    A package names an instance of it, or a class without arguments, under the entry points ``earthsr.metrics``.

    Examples
    --------
    >>> class WithinTenMetres(Metric):
    ...     of = "values"
    ...     units = "%"
    ...
    ...     def sums(self, prediction, truth, valid):
    ...         near = np.abs(prediction - truth) < 10
    ...         return np.array([(near & valid).sum(), valid.sum()], float)
    ...
    ...     def score(self, sums):
    ...         return float(100 * sums[0] / sums[1])
    >>> metric, truth = WithinTenMetres(), np.zeros((1, 2, 2))
    >>> metric.score(metric.sums(np.array([[[3.0, 4.0], [5.0, 60.0]]]), truth, truth == 0))
    75.0
    """

    of: ClassVar[Kind] = "values"
    """``values``: prediction and truth are float32 in the unit of the data; ``classes``: indices, uint8."""
    units: ClassVar[str] = ""
    """Of the score, for tables."""

    @abstractmethod
    def sums(self, prediction: NDArray, truth: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sums over some fields.

        Parameters
        ----------
        prediction, truth : ndarray of shape (N, H, W)
            Of one batch; values that are not valid may be anything.
        valid : ndarray of bool, shape (N, H, W)
            Cells that count.

        Returns
        -------
        ndarray of shape (n,)
            Always of the same length.
        """

    @abstractmethod
    def score(self, sums: NDArray[np.float64]) -> float | None:
        """Return the score of ``sums`` (n,) over all batches; None where it has no value."""


def installed_metrics() -> set[str]:
    """Names of the scores that installed packages bring."""
    return {entry.name for entry in entry_points(group=GROUP)}


def find_metrics(names: Iterable[str], kind: Kind) -> dict[str, Metric]:
    """Find scores by their names.

    Parameters
    ----------
    names : iterable of str
        As entry points name them.
    kind : {"values", "classes"}
        What the workload predicts.

    Raises
    ------
    ConfigError
        If one is not installed, cannot be loaded, or is of what the workload does not predict.
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    metrics = {}
    for name in dict.fromkeys(names):
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            raise ConfigError(
                f"summary.metrics: no metric {name} is installed, there are: {known}; packages bring them under the "
                f"entry points {GROUP}"
            )
        try:
            loaded = installed[name].load()
            metric = loaded() if isinstance(loaded, type) else loaded
        except Exception as error:  # a plug-in may fail in any way
            raise ConfigError(f"summary.metrics: {name} ({installed[name].value}) cannot be loaded: {error}") from error
        if not isinstance(metric, Metric):
            raise ConfigError(
                f"summary.metrics: {name} ({installed[name].value}) is a {type(metric).__name__}, expected an "
                "earthsr.evaluation.Metric"
            )
        if metric.of != kind:
            raise ConfigError(f"summary.metrics: {name} is a score of {metric.of}, and this model predicts {kind}")
        metrics[name] = metric
    return metrics


def metric_sums(
    metrics: Mapping[str, Metric],
    predictions: Mapping[str, NDArray],
    truth: NDArray,
    valid: NDArray[np.bool_],
) -> MetricSums:
    """Sums of every metric and method over a batch.

    Parameters
    ----------
    metrics : mapping of str to Metric
        From :func:`find_metrics`.
    predictions : mapping of str to ndarray of shape (N, H, W)
        By method.
    truth : ndarray of shape (N, H, W)
        In the same unit.
    valid : ndarray of bool, shape (N, H, W)
        Cells that count.

    Raises
    ------
    ConfigError
        If a metric fails.
    """
    sums: MetricSums = {name: {} for name in metrics}
    for name, metric in metrics.items():
        for method, prediction in predictions.items():
            try:
                sums[name][method] = np.asarray(metric.sums(prediction, truth, valid), np.float64)
            except Exception as error:  # a plug-in may fail in any way
                raise ConfigError(f"summary.metrics: the sums of {name} failed for {method}: {error!r}") from error
    return sums


def add_scores(
    scores: Mapping[str, dict[str, object]], sums: MetricSums, metrics: Mapping[str, Metric]
) -> list[tuple[str, str, str]]:
    """Add the scores of metrics to those of each method, in place.

    Raises
    ------
    ConfigError
        If one has the name of a score that is there, or fails.

    Returns
    -------
    list of tuple
        Columns that show them in a table: key, heading, format.
    """
    for name, by_method in sums.items():
        for method, values in by_method.items():
            if name in scores[method]:
                raise ConfigError(f"summary.metrics: {name} is a score of the workload already; name yours otherwise")
            try:
                score = metrics[name].score(values)
                # As the workload's scores: no number is none in JSON.
                scores[method][name] = float(score) if score is not None and np.isfinite(score) else None
            except Exception as error:  # a plug-in may fail in any way
                raise ConfigError(f"summary.metrics: the score of {name} failed for {method}: {error!r}") from error
    return [(name, f"{name} ({m.units})" if m.units else name, ".4g") for name, m in metrics.items()]

"""Mergeable statistics of errors, the scores that are functions of them, and baselines to score beside models.

A statistic is a set of sums over valid cells. Sums of parts add up to the sums of the whole, so scores are exact
whatever the batches, groups, ranks or tiles were (the idea of WeatherBench-X).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.resample import Method, interpolate
from earthsr.geo.terrain import slope_degrees, ssim_map
from earthsr.geo.voids import fill_voids

#: In the order of tables and figures. Where coarse cells are means of the truth, a surface that keeps these means
#: (bicubic, and what it lacks of them) is the strongest of the four: what a network learns, it learns beyond that.
BASELINES: Final[tuple[Method, ...]] = ("nearest", "bilinear", "bicubic", "conservative")


def baseline(coarse: NDArray[np.float32], scale: int, method: Method) -> NDArray[np.float32]:
    """Interpolate coarse patches, half-pixel centres, edges replicated.

    A cell without a value is filled as it is for the model: from its neighbours, else with its patch's mean.

    Parameters
    ----------
    coarse : ndarray of shape (N, C, p, p)
        Metres; may hold NaN.
    scale : int
        Fine cells per coarse cell and axis.
    method : {"nearest", "bilinear", "bicubic", "conservative"}

    Returns
    -------
    ndarray of shape (N, C, p * scale, p * scale)
        Metres.
    """
    coarse = fill_voids(coarse)
    missing = np.isnan(coarse)
    if missing.any():
        count = np.maximum((~missing).sum(axis=(1, 2, 3), keepdims=True), 1)
        mean = np.where(missing, 0, coarse).sum(axis=(1, 2, 3), keepdims=True) / count
        coarse = np.where(missing, mean, coarse).astype(np.float32)
    return interpolate(coarse, scale, method)


Statistics = TypeVar("Statistics", bound=Any)

#: Window of SSIM (Wang et al., 2004): side in cells.
SSIM_WINDOW = 11


@dataclass(frozen=True)
class ErrorStatistics:
    """Sums over valid cells; ``a + b`` merges."""

    count: float = 0.0
    """Valid cells."""
    error: float = 0.0
    """Prediction minus truth, metres."""
    absolute: float = 0.0
    """Its absolute value, metres."""
    square: float = 0.0
    """Its square, square metres."""
    slope_count: float = 0.0
    """Cells whose slope, and that of the truth, is known."""
    slope_square: float = 0.0
    """Square of the difference of slopes, square degrees."""
    ssim_count: float = 0.0
    """Cells whose whole window is valid."""
    ssim: float = 0.0
    """Structural similarity, no unit."""
    samples: float = 0.0
    """Patches."""

    def __add__(self, other: ErrorStatistics) -> ErrorStatistics:
        return ErrorStatistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def scores(self, value_range: float) -> dict[str, float | None]:
        """Scores in the unit of the data; None where a score has no value.

        Parameters
        ----------
        value_range : float
            Truth's maximum minus minimum over the split, for PSNR (SSIM has used it already).

        Returns
        -------
        dict
            ``rmse``, ``mae``, ``bias`` (prediction minus truth) in metres, ``psnr`` in dB, ``ssim``,
            ``slope_rmse_deg`` in degrees.
        """
        if not self.count:
            return dict.fromkeys(("rmse", "mae", "bias", "psnr", "ssim", "slope_rmse_deg"))
        mse = self.square / self.count
        scores = {
            "rmse": math.sqrt(mse),
            "mae": self.absolute / self.count,
            "bias": self.error / self.count,
            "psnr": 10 * math.log10(value_range**2 / mse) if 0 < mse < math.inf and value_range > 0 else None,
            "ssim": self.ssim / self.ssim_count if self.ssim_count else None,
            "slope_rmse_deg": math.sqrt(self.slope_square / self.slope_count) if self.slope_count else None,
        }
        # Predictions of a diverged model overflow, and neither infinity nor NaN is a number of JSON.
        return {key: value if value is not None and math.isfinite(value) else None for key, value in scores.items()}


def add_up(a: Mapping[str, Statistics], b: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Add what two parts of the data gave, name by name; either may lack some.

    Examples
    --------
    >>> add_up({"model": 2, "nearest": 5}, {"model": 1})
    {'model': 3, 'nearest': 5}
    """
    return {
        name: a[name] + b[name] if name in a and name in b else (a if name in a else b)[name] for name in {**a, **b}
    }


def over_ranks(
    total: Mapping[str, Statistics], gather: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> dict[str, Statistics]:
    """Add up what each rank has of statistics; all ranks have them under the same names, and get the same.

    Parameters
    ----------
    total : mapping
        Frozen dataclasses of sums, numbers and arrays.
    gather : callable
        Gives the values (n,) of every rank, (ranks, n).

    Returns
    -------
    dict of str to statistics
        Sums over all ranks.
    """
    parts = [np.asarray(getattr(statistics, f.name)) for statistics in total.values() for f in fields(statistics)]
    # Whole numbers are exact up to 2**53, a million times the cells of a global map.
    flat = np.concatenate([part.astype(np.float64).ravel() for part in parts])
    sums = np.split(gather(flat).sum(axis=0), np.cumsum([part.size for part in parts])[:-1])
    whole = iter(
        statistics.reshape(part.shape).astype(part.dtype) for statistics, part in zip(sums, parts, strict=True)
    )
    merged = {}
    for name, statistics in total.items():
        values = {f.name: next(whole) for f in fields(statistics)}
        merged[name] = replace(
            statistics, **{key: value if value.ndim else value.item() for key, value in values.items()}
        )
    return merged


def patch_statistics(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    mask: NDArray[np.uint8],
    *,
    border: int,
    value_range: float,
    cell_size_m: NDArray[np.float64] | None,
) -> list[ErrorStatistics]:
    """Statistics of each patch.

    Parameters
    ----------
    prediction, truth : ndarray of shape (N, C, H, W)
        Elevation in metres.
    mask : ndarray of shape (N, 1, H, W)
        1 = valid.
    border : int
        Fine cells left out at every edge.
    value_range : float
        Truth's range over the split in metres, for SSIM's constants.
    cell_size_m : ndarray of shape (N, 2) or None
        Fine cell size north-south and east-west; None leaves slopes out.

    Returns
    -------
    list of ErrorStatistics
        One of each patch, to be added up.
    """
    inner = (..., slice(border, prediction.shape[-2] - border), slice(border, prediction.shape[-1] - border))
    p, t = prediction[inner].astype(np.float64), truth[inner].astype(np.float64)
    valid = np.broadcast_to(mask[inner].astype(bool), p.shape)
    difference = np.where(valid, p - t, 0.0)
    axes = (1, 2, 3)
    columns = {
        "count": valid.sum(axes).astype(np.float64),
        "error": difference.sum(axes),
        "absolute": np.abs(difference).sum(axes),
        "square": np.square(difference).sum(axes),
        "samples": np.ones(len(p)),
    }
    if cell_size_m is not None and min(p.shape[-2:]) >= 3:
        gap, whole = _slope_gap(p, t, valid, cell_size_m)
        columns["slope_count"] = whole.sum(axes).astype(np.float64)
        columns["slope_square"] = np.square(gap).sum(axes)
    if min(p.shape[-2:]) >= SSIM_WINDOW and value_range > 0:
        filled_p, filled_t = np.where(valid, p, 0.0), np.where(valid, t, 0.0)
        similarity = ssim_map(filled_p, filled_t, value_range, SSIM_WINDOW)
        whole = _whole_windows(valid, SSIM_WINDOW)
        columns["ssim_count"] = whole.sum(axes).astype(np.float64)
        columns["ssim"] = np.where(whole, similarity, 0.0).sum(axes)
    return [ErrorStatistics(**{name: float(values[i]) for name, values in columns.items()}) for i in range(len(p))]


def _whole_windows(valid: NDArray[np.bool_], window: int) -> NDArray[np.bool_]:
    """Whether every cell of the window around each inner cell is valid, (..., H - window + 1, W - window + 1)."""
    rows = np.lib.stride_tricks.sliding_window_view(valid, window, axis=-2).all(axis=-1)
    return np.lib.stride_tricks.sliding_window_view(rows, window, axis=-1).all(axis=-1)


def _slope_gap(
    p: NDArray[np.float64], t: NDArray[np.float64], valid: NDArray[np.bool_], cell_size_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    dy, dx = (cell_size_m[:, i, None, None, None] for i in (0, 1))
    whole = _whole_windows(valid, 3)
    filled_p, filled_t = np.where(valid, p, 0.0), np.where(valid, t, 0.0)
    gap = slope_degrees(filled_p, dy, dx) - slope_degrees(filled_t, dy, dx)
    return np.where(whole, gap, 0.0), whole

"""Interpolation by an integer factor, written as small convolution kernels, and its inverse, the block mean.

Every method here is linear, translation invariant on the coarse grid and reads a few coarse cells per axis
(:func:`reach`). So one array of kernels, one for each of the ``scale x scale`` fine pixels of a coarse cell, describes
it completely: baselines apply it in NumPy, and networks that learn a residual apply the same numbers as a convolution
followed by a pixel shuffle. Edges are replicated.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["nearest", "bilinear", "bicubic", "conservative", "mean_preserving", "bilinear_asymmetric"]

#: Coarse cells that Keys' kernel reads to each side of the cell that a fine pixel lies in.
REACH: Final = 2

#: Coarse cells to each side of the filter that gives bicubic interpolation its block means. It decays by a factor of 5
#: a cell; what is cut off changes means by 1e-4 of the coarse values' differences at most.
_FILTER_REACH: Final = 6

#: Cubic convolution parameter of Keys (1981), "Cubic convolution interpolation for digital image processing",
#: IEEE Trans. ASSP 29(6), eq. 15: third-order accurate. (PyTorch's bicubic uses -3/4, and is not.)
KEYS_A: Final = -0.5


def keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of cubic convolution at distances in cells."""
    x = np.abs(distance)
    near = (KEYS_A + 2) * x**3 - (KEYS_A + 3) * x**2 + 1
    far = KEYS_A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def reach(method: Method) -> int:
    """Coarse cells that a method reads to each side of the cell that a fine pixel lies in."""
    return REACH + _FILTER_REACH if method == "mean_preserving" else REACH


def axis_kernel(method: Method, scale: int) -> NDArray[np.float64]:
    """Weights along one axis.

    Returns
    -------
    ndarray of shape (scale, 2 * reach(method) + 1)
        Row ``r`` holds the weights of coarse cells ``-reach … reach``, counted from the cell that contains fine
        pixel ``r``.
    """
    if method == "mean_preserving":
        bicubic = axis_kernel("bicubic", scale)
        return np.stack([np.convolve(weights, _mean_filter(bicubic)) for weights in bicubic])
    phase = np.arange(scale)
    # Position of each fine pixel in units of coarse cells, relative to its own cell's centre.
    position = phase / scale if method == "bilinear_asymmetric" else (phase + 0.5) / scale - 0.5
    distance = position[:, None] - np.arange(-REACH, REACH + 1)[None, :]
    if method == "nearest":
        return (np.abs(np.arange(-REACH, REACH + 1)) == 0)[None, :].repeat(scale, axis=0).astype(np.float64)
    if method in ("bilinear", "bilinear_asymmetric"):
        return np.clip(1 - np.abs(distance), 0, None)
    if method in ("bicubic", "conservative"):
        return keys(distance)
    raise ValueError(f"unknown interpolation method {method!r}")


def _mean_filter(bicubic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coarse filter that undoes what block means of a bicubic surface do to its coarse values, along one axis.

    The inverse of a symmetric filter of five taps, cut off where it has decayed, with a sum of 1.
    """
    taps = bicubic.mean(axis=0)
    # Long enough for the inverse of the circulant matrix to know nothing of its ends.
    size = 8 * _FILTER_REACH
    row = np.zeros(size)
    row[np.arange(-REACH, REACH + 1)] = taps
    inverse = np.fft.ifft(1 / np.fft.fft(row)).real[np.arange(-_FILTER_REACH, _FILTER_REACH + 1)]
    return inverse / inverse.sum()


def polyphase_kernel(method: Method, scale: int) -> NDArray[np.float64]:
    """Kernels of shape (scale, scale, k, k): fine pixel (row, column) in its cell, then the coarse cells it reads.

    ``k`` is ``2 * reach(method) + 1``. ``conservative`` is bicubic corrected by the difference between each coarse
    cell's value and the mean of its fine pixels, so that block means return the coarse values exactly (up to rounding);
    the correction is constant in a cell and jumps at its edges. ``mean_preserving`` is bicubic interpolation of
    filtered coarse values, whose block means are the coarse values to 1e-4 of their differences, and as smooth as
    bicubic is (the direct B-spline transform of Unser et al., IEEE Trans. Signal Processing 41(2), 1993, with means
    in place of samples).
    """
    along = axis_kernel(method, scale)
    kernel = np.einsum("ri,sj->rsij", along, along)
    if method == "conservative":
        kernel = kernel - kernel.mean(axis=(0, 1))
        kernel[:, :, REACH, REACH] += 1.0
    return kernel


def _correlate_axis(field: NDArray[np.float64], weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Interpolate the given axis by the polyphase ``weights`` of shape (scale, k)."""
    field = np.moveaxis(field, axis, -1)
    side = weights.shape[1] // 2
    padded = np.pad(field, [(0, 0)] * (field.ndim - 1) + [(side, side)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[1], axis=-1)
    fine = windows @ weights.T  # (..., n, scale)
    return np.moveaxis(fine.reshape(*field.shape[:-1], -1), -1, axis)


def interpolate(field: NDArray[np.floating], scale: int, method: Method) -> NDArray[np.floating]:
    """Interpolate the last two axes to ``scale`` times as many cells.

    Parameters
    ----------
    field : ndarray of shape (..., H, W)
        Values on the coarse grid, in any unit.
    scale : int
        Fine cells per coarse cell and axis.
    method : {"nearest", "bilinear", "bicubic", "conservative", "mean_preserving", "bilinear_asymmetric"}
        ``bicubic`` is cubic convolution with a = -1/2; all but ``bilinear_asymmetric`` use half-pixel centres.

    Returns
    -------
    ndarray of shape (..., H * scale, W * scale)
        In the dtype of ``field``; sums are made in float64.
    """
    wide = np.asarray(field, dtype=np.float64)
    if method == "nearest":
        return np.asarray(field).repeat(scale, axis=-2).repeat(scale, axis=-1)
    base: Method = "bicubic" if method == "conservative" else method
    weights = axis_kernel(base, scale)
    fine = _correlate_axis(_correlate_axis(wide, weights, -1), weights, -2)
    if method == "conservative":
        fine = fine + (wide - block_mean(fine, scale)).repeat(scale, axis=-2).repeat(scale, axis=-1)
    return fine.astype(field.dtype, copy=False)


def block_mean(field: NDArray[np.floating], scale: int) -> NDArray[np.floating]:
    """Mean over blocks of ``scale x scale`` cells of the last two axes, (..., H * scale, W * scale) to (..., H, W).

    A block that touches a NaN has no value: it becomes NaN.

    Raises
    ------
    ValueError
        If the last two axes are not multiples of ``scale``.
    """
    *lead, height, width = field.shape
    if height % scale or width % scale:
        raise ValueError(f"a field of {height} x {width} cells cannot be cut into blocks of {scale} x {scale}")
    blocks = field.reshape(*lead, height // scale, scale, width // scale, scale)
    return blocks.mean(axis=(-3, -1), dtype=np.float64).astype(field.dtype, copy=False)

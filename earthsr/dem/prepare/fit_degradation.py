"""How a coarse product comes from the terrain under it: a kernel fitted to pairs, and how far simpler ones are off.

The weights along rows and along columns are least squares, one after the other until neither changes. They add up to 1,
so that heights take no part. The product's own cells are compared, not what is interpolated between them; where they
lie off the blocks, so do the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.degradation import Degradation
from earthsr.dem.prepare.pairs import Alignment, BlockAxis, read_padded
from earthsr.errors import DataError, geo_module
from earthsr.evaluation.figures import new_figure, save
from earthsr.geo import Source

#: Fine cells beyond a block that may have a weight: at 48 degrees a bell of GEBCO's has 3e-3 of it beyond these.
_REACH: Final = 6

#: Windows of so many coarse cells per side that are fitted to at most, spread over the region: a million cells tell 34
#: numbers as well as all of them.
_SIDE: Final = 120
_WINDOWS: Final = 64

#: Fits along one axis after the other; the third changes weights by less than 1e-6.
_ROUNDS: Final = 8

#: Coarse cells without which nothing is fitted: some thirty for each weight.
_LEAST_CELLS: Final = 1000


class _Piece(NamedTuple):
    """Terrain and product over some blocks, metres."""

    fine: NDArray[np.float64]
    """(h * scale + 2 * reach, w * scale + 2 * reach), NaN for voids."""
    coarse: NDArray[np.float64]
    """(h, w)."""


@dataclass(frozen=True)
class FittedDegradation:
    """What makes a coarse product of a region out of its terrain; residuals are root mean squares in metres."""

    kernel: Degradation
    residual_m: float
    """Of the product without what the kernel makes of the terrain."""
    bell_sigma: tuple[float, float]
    """Of the bell that comes nearest to the product, along rows and columns, fine cells."""
    bell_offset: tuple[float, float]
    """Of its centre from the blocks', southwards and eastwards, fine cells."""
    bell_m: float
    block_mean_m: float
    cells: int
    """Coarse cells that were compared."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FittedDegradation:
        """Read what :meth:`to_dict` wrote."""
        kernel, bell = values["kernel"], values["bell"]
        return cls(
            Degradation(tuple(kernel["rows"]), tuple(kernel["columns"]), tuple(kernel["first"]), "kernel"),
            values["residual_m"],
            (bell["sigma"][0], bell["sigma"][1]),
            (bell["south"], bell["east"]),
            values["bell_residual_m"],
            values["block_mean_residual_m"],
            values["cells"],
        )

    def words(self, region: str) -> str:
        """One line for people."""
        (south, east), (high, wide) = self.bell_offset, self.bell_sigma
        return (
            f"region {region}: the coarse product is made of the terrain by a kernel to {self.residual_m:.2f} m, by a "
            f"bell of sigma {high:.2f} x {wide:.2f} fine cells (rows, columns; {south:+.2f} south, {east:+.2f} east of "
            f"the blocks) to {self.bell_m:.2f} m, as block means to {self.block_mean_m:.2f} m ({self.cells} cells)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "kernel": self.kernel.to_dict(),
            "residual_m": self.residual_m,
            "bell": {"sigma": list(self.bell_sigma), "south": self.bell_offset[0], "east": self.bell_offset[1]},
            "bell_residual_m": self.bell_m,
            "block_mean_residual_m": self.block_mean_m,
            "cells": self.cells,
        }


def fit_degradation(
    region: str, hr: Source, lr: Source, alignment: Alignment, scale: int, flat_sea: bool = False
) -> FittedDegradation:
    """Fit weights along rows and columns to a coarse product and the terrain under it.

    Parameters
    ----------
    region : str
        For messages.
    hr, lr : Source
        Fine and coarse elevations, metres, in one CRS.
    alignment : Alignment
        Where the blocks lie, as registered.
    scale : int
        Fine cells per coarse cell and axis.
    flat_sea : bool
        Whether the truth's sea is at exactly 0 m, where the coarse product's is not: it is left out then.

    Raises
    ------
    DataError
        If the two share too few cells with values.
    """
    pieces = _pieces(hr, lr, alignment, scale, flat_sea)
    cells = sum(int(_known(piece, scale).sum()) for piece in pieces)
    if cells < _LEAST_CELLS:
        raise DataError(
            f"region {region}: {cells} coarse cells with terrain all around, expected {_LEAST_CELLS} to fit to: "
            "take more of the product, or leave --fit-degradation out"
        )
    taps = scale + 2 * _REACH
    rows = columns = np.where(np.abs(np.arange(taps) - (taps - 1) / 2) < scale / 2, 1 / scale, 0.0)
    for _ in range(_ROUNDS):
        rows = _solve(pieces, columns, scale)
        columns = _solve([_Piece(piece.fine.T, piece.coarse.T) for piece in pieces], rows, scale)
    first = (-_REACH, -_REACH)
    kernel = Degradation(tuple(rows.tolist()), tuple(columns.tolist()), first, "kernel")
    sigma, offset, bell_m = _nearest_bell(pieces, kernel, scale)
    return FittedDegradation(
        kernel, _residual(pieces, kernel, scale), sigma, offset, bell_m,
        _residual(pieces, Degradation.block_mean(scale), scale), cells,
    )  # fmt: skip


def mean_kernel(fits: Sequence[FittedDegradation]) -> Degradation:
    """Mean of the kernels of some regions, by the cells that each was fitted to."""
    share = np.array([fit.cells for fit in fits]) / sum(fit.cells for fit in fits)
    rows, columns = (share @ np.array([getattr(fit.kernel, name) for fit in fits]) for name in ("rows", "columns"))
    return replace(fits[0].kernel, rows=tuple(rows.tolist()), columns=tuple(columns.tolist()))


def _pieces(hr: Source, lr: Source, alignment: Alignment, scale: int, flat_sea: bool) -> list[_Piece]:
    rows, columns = alignment.rows, alignment.columns
    corners = [(row, column) for row in range(0, rows.blocks, _SIDE) for column in range(0, columns.blocks, _SIDE)]
    chosen = np.unique(np.linspace(0, len(corners) - 1, min(_WINDOWS, len(corners))).round().astype(int))
    pieces = []
    for row, column in (corners[i] for i in chosen):
        height, width = min(_SIDE, rows.blocks - row), min(_SIDE, columns.blocks - column)
        top, left = rows.first + scale * row - _REACH, columns.first + scale * column - _REACH
        bottom, right = top + scale * height + 2 * _REACH - 1, left + scale * width + 2 * _REACH - 1
        fine = read_padded(hr, top, bottom, left, right)
        if flat_sea:
            fine[fine == 0] = np.nan
        coarse = read_padded(lr, *_cells(rows, row, height), *_cells(columns, column, width))
        pieces.append(_Piece(fine, coarse[:height, :width]))
    return pieces


def _cells(axis: BlockAxis, start: int, count: int) -> tuple[int, int]:
    """First and last cell of the product nearest to some blocks; cell sizes agree to 1 % and windows are short."""
    first = round(float(axis.positions(start, 1)[0]))
    return first, first + count - 1


def _known(piece: _Piece, scale: int) -> NDArray[np.bool_]:
    """Coarse cells that have a value and terrain under every weight."""
    void = np.isnan(piece.fine)
    height, width = piece.coarse.shape
    windows = np.lib.stride_tricks.sliding_window_view(void, (scale + 2 * _REACH,) * 2)[::scale, ::scale]
    return ~windows[:height, :width].any(axis=(-2, -1)) & np.isfinite(piece.coarse)


def _solve(pieces: Sequence[_Piece], across: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Weights along rows, least squares, with a sum of 1, where those along columns are given."""
    taps = len(across)
    normal, right = np.zeros((taps, taps)), np.zeros(taps)
    for piece in pieces:
        known = _known(piece, scale)
        height, width = piece.coarse.shape
        fine = np.nan_to_num(piece.fine)
        narrow = sum(weight * fine[:, tap : tap + scale * width : scale] for tap, weight in enumerate(across))
        columns = np.stack([narrow[tap : tap + scale * height : scale][known] for tap in range(taps)], axis=1)
        # Less the middle one: with a sum of 1, heights cancel, and the fit is of differences.
        middle = columns[:, taps // 2].copy()
        columns -= middle[:, None]
        normal += columns.T @ columns
        right += columns.T @ (piece.coarse[known] - middle)
    # Lagrange's multiplier for the sum; a trace of ridge, for what flat ground does not tell.
    system = np.ones((taps + 1, taps + 1))
    system[:taps, :taps] = normal + 1e-9 * np.trace(normal) * np.eye(taps)
    system[taps, taps] = 0
    weights: NDArray[np.float64] = np.linalg.solve(system, np.append(right, 1.0))[:taps]
    return weights / weights.sum()


def _residual(pieces: Sequence[_Piece], degradation: Degradation, scale: int) -> float:
    """Root mean square of what a degradation leaves of the product, metres, without its mean."""
    total = squares = 0.0
    count = 0
    for piece in pieces:
        height, width = piece.coarse.shape
        known = _known(piece, scale)
        left = piece.coarse - degradation.coarse(piece.fine, scale, (_REACH, _REACH), (height, width))
        values = left[known & np.isfinite(left)]
        total, squares, count = total + float(values.sum()), squares + float(values @ values), count + values.size
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) if count else math.nan


def _nearest_bell(
    pieces: Sequence[_Piece], kernel: Degradation, scale: int
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Width and offset of the bell with the least residual, fine cells, and that residual, metres."""
    optimize = geo_module("scipy.optimize")
    places = np.arange(len(kernel.rows)) + kernel.first[0] - (scale - 1) / 2
    offset = [min(max(float(np.dot(axis, places)), -2.0), 2.0) for axis in (kernel.rows, kernel.columns)]

    def residual(values: NDArray[np.float64]) -> float:
        high, wide, south, east = (float(value) for value in values)
        return _residual(pieces, _within(Degradation.bell(scale, (high, wide), (south, east)), scale), scale)

    bounds = [(0.3, float(scale))] * 2 + [(value - 1, value + 1) for value in offset]
    # Four numbers that hardly depend on each other: a simplex finds them to a thousandth in some hundred looks.
    start, options = [0.37 * scale, 0.37 * scale, *offset], {"xatol": 1e-3, "fatol": 1e-4}
    best = optimize.minimize(residual, start, method="Nelder-Mead", bounds=bounds, options=options)
    high, wide, south, east = (float(value) for value in best.x)
    return (high, wide), (south, east), float(best.fun)


def _within(degradation: Degradation, scale: int) -> Degradation:
    """Cut a degradation off where pieces end, with sums of 1."""
    axes = []
    for weights, first in zip((degradation.rows, degradation.columns), degradation.first, strict=True):
        inside = {first + tap: weight for tap, weight in enumerate(weights) if -_REACH <= first + tap < scale + _REACH}
        total = sum(inside.values())
        axes.append((min(inside), tuple(weight / total for weight in inside.values())))
    return replace(degradation, rows=axes[0][1], columns=axes[1][1], first=(axes[0][0], axes[1][0]))


def draw_degradations(fits: Mapping[str, FittedDegradation], scale: int, path: Path) -> Path:
    """Draw the weights along rows and columns, region by region, beside a block mean's and the nearest bell's."""
    figure = new_figure(10, 2.6 * len(fits), gap=0.05)
    grid = figure.subplots(len(fits), 2, squeeze=False, sharey=True)
    for axes_of_region, (region, fit) in zip(grid, fits.items(), strict=True):
        bell = Degradation.bell(scale, fit.bell_sigma, fit.bell_offset)
        for number, (axes, name) in enumerate(zip(axes_of_region, ("rows", "columns"), strict=True)):
            weights, first = getattr(fit.kernel, name), fit.kernel.first[number]
            cells = np.arange(len(weights)) + first
            axes.bar(cells, weights, 0.75, color="#7aa6c2", label=f"fitted, {fit.residual_m:.2f} m")
            axes.step(
                np.arange(-1, scale + 2) - 0.5, [0.0, *[1 / scale] * scale, 0.0, 0.0], where="post", color="#444444",
                linewidth=1, label=f"block mean, {fit.block_mean_m:.2f} m",
            )  # fmt: skip
            bell_cells = np.arange(len(getattr(bell, name))) + bell.first[number]
            inside = (bell_cells >= cells[0]) & (bell_cells <= cells[-1])
            axes.plot(
                bell_cells[inside], np.array(getattr(bell, name))[inside], "o-", color="#c2553a", markersize=3,
                linewidth=1, label=f"bell of sigma {fit.bell_sigma[number]:.2f}, {fit.bell_m:.2f} m",
            )  # fmt: skip
            axes.set_title(f"{region}: weights along {name}", fontsize=9)
            axes.set_xlabel("fine cell, counted from the first of the block " + ("(southwards)", "(eastwards)")[number])
            axes.set_ylabel("weight" if number == 0 else "")
            axes.axhline(0, color="black", linewidth=0.5)
            axes.margins(y=0.3)
            axes.legend(fontsize=7, frameon=False)
    return save(figure, path)

"""Enlarging a raster of elevation: what is read, predicted, blended, made to add up, and written, chunk by chunk.

Two modes. *Exact*: windows with a halo that is cut off and one normalisation for the whole raster: what a prediction in
one piece would give, up to float32's rounding. *Gaussian*: overlapping windows, normalised as training patches were,
blended with bell-shaped weights. Memory follows the chunk and the window, not the raster.

In both, windows of a raster that goes once round the globe go round too, and it does not matter with which longitude
its columns begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.ensemble import Member
from earthsr.dem.predict.plan import EnlargePlan
from earthsr.errors import InputError, ResultError
from earthsr.geo import Georeference, Sink
from earthsr.geo.elevations import PLAUSIBLE_M, first_implausible
from earthsr.geo.grid import Window
from earthsr.geo.raster import read_window
from earthsr.geo.resample import interpolate
from earthsr.inference.pipeline import FlowTimes, flow
from earthsr.inference.tiling import ChunkSums, Tile, Tiles, batches, covering, fill, slices


def area_weights(coarse: Georeference, row: int, rows: int, scale: int) -> NDArray[np.float64]:
    """Share of a coarse cell's area in each of its rows of fine cells.

    Parameters
    ----------
    coarse : Georeference
        The coarse grid.
    row, rows : int
        Its first row that is wanted, and their number.
    scale : int
        Fine cells per coarse cell and axis.

    Returns
    -------
    ndarray of shape (rows, scale)
        Rows add up to 1. On a grid of longitude and latitude the sphere's areas, differences of the sine of latitude;
        equal ones on a projected grid.
    """
    if not coarse.geographic:
        return np.full((rows, scale), 1 / scale)
    edges = coarse.north - (row + np.arange(rows * scale + 1) / scale) * coarse.cell_y
    sines = np.sin(np.deg2rad(np.clip(edges, -90, 90)))
    areas = (sines[:-1] - sines[1:]).reshape(rows, scale)
    total = areas.sum(axis=1, keepdims=True)
    # A row beyond a pole has no area; its cells count alike.
    return np.where(total > 0, areas / np.where(total > 0, total, 1), 1 / scale)


def area_mean(fine: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area mean over each coarse cell, (rows * scale, columns * scale) to (rows, columns), in float64."""
    # Whole rows and columns at a time: several times faster than a reduction over axes as short as the scale.
    scale = weights.shape[1]
    rows = weights[:, :1] * fine[::scale]
    for k in range(1, scale):
        rows += weights[:, k, None] * fine[k::scale]
    total = rows[:, ::scale].copy()
    for k in range(1, scale):
        total += rows[:, k::scale]
    return total / scale


def conserved(
    fine: NDArray[np.float32], coarse: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Shift a fine field so that its area mean over each coarse cell is the coarse value.

    What is missing is added as a smooth surface of the same means, which has no step where coarse cells meet; what that
    leaves, 1e-4 of it and the difference between area means and plain ones, is added per cell.

    Parameters
    ----------
    fine : ndarray of shape (rows * scale, columns * scale)
        Without NaN.
    coarse : ndarray of shape (rows, columns)
        NaN where there is no value: nothing is asked for there.
    weights : ndarray of shape (rows, scale)
        Of :func:`area_weights`.
    """
    scale = weights.shape[1]
    missing = np.where(np.isfinite(coarse), coarse - area_mean(fine, weights), 0.0)
    shifted = fine + interpolate(missing, scale, "mean_preserving")
    rest = np.where(np.isfinite(coarse), coarse - area_mean(shifted, weights), 0.0)
    return (shifted + rest.repeat(scale, axis=0).repeat(scale, axis=1)).astype(np.float32)


@dataclass(frozen=True)
class Residual:
    """Sums of the area mean minus the coarse value over coarse cells; ``a + b`` merges."""

    count: int = 0
    total: float = 0.0
    square: float = 0.0
    largest: float = 0.0

    def __add__(self, other: Residual) -> Residual:
        return Residual(
            self.count + other.count,
            self.total + other.total,
            self.square + other.square,
            max(self.largest, other.largest),
        )

    @classmethod
    def of(cls, fine: NDArray[np.float32], coarse: NDArray[np.float32], weights: NDArray[np.float64]) -> Residual:
        """Compare a fine field with its coarse values; cells without one do not count."""
        valid = np.isfinite(coarse)
        gaps = (area_mean(fine, weights) - coarse)[valid]
        if not gaps.size:
            return cls()
        return cls(int(gaps.size), float(gaps.sum()), float(np.square(gaps).sum()), float(np.abs(gaps).max()))

    def to_dict(self) -> dict[str, float | None]:
        """Return ``mean``, ``rms`` and ``largest`` in the values' unit."""
        if not self.count:
            return {"mean": None, "rms": None, "largest": None}
        return {
            "mean": self.total / self.count,
            "rms": float(np.sqrt(self.square / self.count)),
            "largest": self.largest,
        }


@dataclass
class EnlargeResult:
    """What came out of a prediction."""

    valid: int = 0
    """Fine cells with a value."""
    minimum: float = math.inf
    maximum: float = -math.inf
    before: Residual = field(default_factory=Residual)
    """Area mean minus coarse value of what the model gave."""
    after: Residual = field(default_factory=Residual)
    """The same of what was written."""
    difference: float | None = None
    """Gaussian: largest difference from the exact prediction, metres, where the two were compared."""
    compared: int = 0
    """Coarse cells over which they were."""
    clipped: int = 0
    """Fine cells whose prediction was beyond all elevations on Earth."""
    times: FlowTimes = field(default_factory=FlowTimes)

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what was counted in a chunk."""
        self.valid += counts["valid"]
        self.clipped += counts["clipped"]
        if counts["span"]:
            self.minimum = min(self.minimum, counts["span"][0])
            self.maximum = max(self.maximum, counts["span"][1])
        self.before, self.after = self.before + Residual(*counts["before"]), self.after + Residual(*counts["after"])
        if counts["difference"] is not None:
            self.difference = max(self.difference or 0.0, counts["difference"])
            self.compared += counts["compared"]


@dataclass(frozen=True)
class _ChunkInput:
    """What is read for a chunk."""

    area: Window
    tiles: list[Tile]
    cover: Window
    values: NDArray[np.float32]
    sample: Window | None
    """Coarse cells over which the Gaussian prediction is compared with the exact one."""
    kept: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    """Elevations of finer rasters on the fine cells of the area, and which they are of; None where there are none."""


@dataclass(frozen=True)
class ChunkResult:
    """A chunk of the output, and what was counted in it."""

    bands: NDArray[np.float32]
    before: Residual
    after: Residual
    difference: float | None
    compared: int
    clipped: int = 0

    def counts(self) -> dict[str, Any]:
        """What was counted, JSON-able; :meth:`EnlargeResult.add` takes it."""
        elevation = self.bands[0]
        if not np.isfinite(elevation.sum(dtype=np.float64)):
            elevation = elevation[np.isfinite(elevation)]
        span = [float(elevation.min()), float(elevation.max())] if elevation.size else None
        return {
            "valid": int(elevation.size),
            "span": span,
            "before": list(astuple(self.before)),
            "after": list(astuple(self.after)),
            "difference": self.difference,
            "compared": self.compared,
            "clipped": self.clipped,
        }


class ChunkStages:
    """Reads what a chunk needs, and computes it; what becomes of it is others' business.

    Parameters
    ----------
    plan : EnlargePlan
        Of :func:`make_plan`.
    offset : float, optional
        Mean of the whole raster, metres (:func:`survey`); the exact mode of a model that takes off each patch's own
        mean needs it.
    compare : bool
        Gaussian: compare with the exact prediction at some places, or everywhere as the options say.
    """

    def __init__(self, plan: EnlargePlan, offset: float | None = None, compare: bool = True) -> None:
        self._plan, self._offset = plan, offset
        self._samples = plan.samples() if compare else {}

    def read(self, chunk: Window) -> _ChunkInput:
        """Read the input around a chunk, and the finer rasters that stay there."""
        plan = self._plan
        kept, area = None, plan.area(chunk)
        if plan.kept is not None:
            wide = plan.area(chunk, plan.kept.margin(plan.scale))
            around = plan.kept.read(plan.source, wide, plan.scale)
            if around is not None:
                kept, area = around, wide
        tiles = list(plan.tiles.tiles(area))
        wanted = [*tiles, Tile(area, area)]
        sample = self._samples.get(chunk)
        if sample is not None:
            wanted += list(plan.exact.tiles(sample))
        cover = covering(wanted)
        return _ChunkInput(area, tiles, cover, read_window(plan.source, cover), sample, kept)

    def compute(self, chunk: Window, piece: _ChunkInput) -> ChunkResult:
        """Predict a chunk.

        Raises
        ------
        ResultError
            If a cell would be no elevation on Earth.
        """
        made = _compute(self._plan, chunk, piece, self._offset)
        if self._plan.options.clip:
            low, high = PLAUSIBLE_M
            beyond = (made.bands[0] < low) | (made.bands[0] > high)
            np.clip(made.bands[0], low, high, out=made.bands[0])
            return replace(made, clipped=int(beyond.sum()))
        _require_possible(made.bands[0], self._plan, chunk.row, chunk.column)
        return made


def enlarge(
    plan: EnlargePlan, sink: Sink, offset: float | None = None, label: str = "predict", compare: bool = True
) -> EnlargeResult:
    """Enlarge a raster into a sink, which stays to be finished.

    Parameters
    ----------
    plan : EnlargePlan
        Of :func:`make_plan`.
    sink : Sink
        On the grid of ``plan.output`` with the bands of ``plan.bands``.
    offset : float, optional
        Mean of the whole raster, metres (:func:`survey`).
    label : str
        Of the progress bar.
    compare : bool
        Gaussian: compare with the exact prediction at some places, or everywhere as the options say.

    Raises
    ------
    DataError
        If a value is no elevation, or the raster cannot be read.
    """
    outcome, stages = EnlargeResult(), ChunkStages(plan, offset, compare)

    def write(chunk: Window, made: ChunkResult) -> None:
        sink.write(chunk.row, chunk.column, made.bands)
        outcome.add(made.counts())

    outcome.times = flow(plan.chunks, stages.read, stages.compute, write, label=label)
    return outcome


def _require_possible(elevation: NDArray[np.float32], plan: EnlargePlan, row: int, column: int) -> None:
    """Hold what is written to what is read.

    Raises
    ------
    ResultError
        If a cell would be no elevation on Earth.
    """
    place = first_implausible(elevation)
    if place is None:
        return
    output, source = plan.output, plan.source
    i, j = row + place[0], column + place[1]
    x, y = output.west + (j + 0.5) * output.cell_x, output.north - (i + 0.5) * output.cell_y
    coarse = Window((i + plan.beyond_poles[0]) // plan.scale, j // plan.scale, 1, 1)
    coarse = coarse._replace(row=coarse.row + plan.wanted.row, column=coarse.column + plan.wanted.column)
    given = float(read_window(source, coarse)[0, 0])
    low, high = PLAUSIBLE_M
    raise ResultError(
        f"{source.name}: the prediction is {elevation[place]:.0f} m at {x:.6g}, {y:.6g} (row {i}, column {j} of the "
        f"output), and elevations are {low:,} to {high:,} m; the input there is {given:.6g} m (row {coarse.row}, "
        f"column {coarse.column % source.georeference.columns}): name a fill value around it with --nodata, take "
        "another model, or let --clip write the bound there, and carry on"
    )


def _compute(plan: EnlargePlan, chunk: Window, piece: _ChunkInput, offset: float | None) -> ChunkResult:
    scale, area = plan.scale, piece.area
    coarse = piece.values[slices(area, piece.cover)]
    void = ~np.isfinite(coarse)
    ground = plan.ground(chunk)
    inside, cut = slices(ground, area), plan.inside(chunk, area)
    if (void if piece.kept is not None else void[inside]).all():
        # Finer rasters that stay have nothing to be blended with.
        empty = np.full((len(plan.bands), chunk.rows, chunk.columns), np.nan, np.float32)
        if piece.kept is not None:
            empty[0], empty[-1] = (part[cut] for part in piece.kept)
        return ChunkResult(empty, Residual(), Residual(), None, 0)
    exact = plan.options.mode == "exact"
    # One member's field at a time (Welford, 1962): memory does not grow with the ensemble.
    mean = np.zeros((area.rows * scale, area.columns * scale), np.float32)
    spread = np.zeros_like(mean) if len(plan.group) > 1 else None
    for count, member in enumerate(plan.group, start=1):
        taken = _offset(member, offset) if exact else None
        field = _predict(plan, member, plan.tiles, area, piece, piece.tiles, taken, plan.batch_size)
        if spread is None:
            mean = field
            break
        step = field - mean
        mean += step / count
        spread += step * (field - mean)
    difference, compared = None, 0
    if piece.sample is not None:
        difference = _difference(plan, piece, mean, offset)
        compared = piece.sample.rows * piece.sample.columns
    weights = area_weights(plan.source.georeference, area.row, area.rows, scale)
    before = after = _residual(plan, chunk, area, mean, coarse, weights)
    if plan.options.conserve:
        mean = conserved(mean, coarse, weights)
        after = _residual(plan, chunk, area, mean, coarse, weights)
    if piece.kept is not None:
        assert plan.kept is not None
        if void.any():
            np.copyto(mean, np.nan, where=void.repeat(scale, axis=0).repeat(scale, axis=1))
        first = area.row * scale, area.column * scale
        elevation, source = plan.kept.merged(mean, *piece.kept, first)
        spreads = [] if spread is None else [np.sqrt(spread[cut] / len(plan.group))]
        if spreads:
            spreads[0][source[cut] != 0] = np.nan
        return ChunkResult(np.stack([elevation[cut], *spreads, source[cut]]), before, after, difference, compared)
    bands = [mean[cut]]
    if spread is not None:
        bands.append(np.sqrt(spread[cut] / len(plan.group)))
    if plan.kept is not None:
        bands.append(np.zeros_like(bands[0]))
    # Arrays of this size are slow when they are new: nothing is copied that need not be.
    layers = np.stack(bands) if len(bands) > 1 else bands[0][None]
    if void[inside].any():
        np.copyto(layers, np.nan, where=void.repeat(scale, axis=0).repeat(scale, axis=1)[cut])
    return ChunkResult(layers, before, after, difference, compared)


def _residual(
    plan: EnlargePlan,
    chunk: Window,
    area: Window,
    fine: NDArray[np.float32],
    coarse: NDArray[np.float32],
    weights: NDArray[np.float64],
) -> Residual:
    """Compare with the coarse values of the cells that are the chunk's own."""
    rows, columns = plan.own(chunk)
    ground = plan.ground(chunk)
    down, across = ground.row - area.row, ground.column - area.column
    own = Window(rows.start + down, columns.start + across, rows.stop - rows.start, columns.stop - columns.start)
    origin = Window(0, 0, 0, 0)
    place = slices(own, origin)
    return Residual.of(fine[slices(own, origin, plan.scale)], coarse[place], weights[place[0]])


def _offset(member: Member, offset: float | None) -> float | None:
    """Offset of the whole raster, for a model that takes off each patch's own mean; others know theirs."""
    normalisation = member.model.normalisation
    assert isinstance(normalisation, Normalisation)
    if normalisation.kind == "patch" and offset is None:
        raise InputError("an exact prediction of a model that takes off each patch's mean needs the raster's mean")
    return offset if normalisation.kind == "patch" else None


def _predict(
    plan: EnlargePlan,
    member: Member,
    tiles: Tiles,
    area: Window,
    piece: _ChunkInput,
    wanted: list[Tile],
    offset: float | None,
    size: int,
) -> NDArray[np.float32]:
    """One member's prediction of an area, metres; 0 where no window of it has a value."""
    sums = ChunkSums(tiles, area, plan.scale)

    def started() -> Iterator[tuple[list[Tile], Pending[NDArray[np.float32]]]]:
        for group in batches([tile for tile in wanted if _any(piece, tile)], size):
            windows = np.stack([piece.values[slices(tile.window, piece.cover)] for tile in group])[:, None]
            yield group, member.start(windows, offset, size)

    fill(sums, started())
    return sums.values[0]


def _any(piece: _ChunkInput, tile: Tile) -> bool:
    return bool(np.isfinite(piece.values[slices(tile.window, piece.cover)]).any())


def _difference(plan: EnlargePlan, piece: _ChunkInput, mean: NDArray[np.float32], offset: float | None) -> float | None:
    """Largest difference of a Gaussian prediction from the exact one over the sampled cells, metres."""
    assert piece.sample is not None
    sample = piece.sample
    valid = np.isfinite(piece.values[slices(sample, piece.cover)])
    if not valid.any():
        return None
    tiles = list(plan.exact.tiles(sample))
    # Exact windows are larger by their halo than those that a batch was sized for, and a sample is one of them.
    fields = [
        _predict(plan, member, plan.exact, sample, piece, tiles, _offset(member, offset), 1) for member in plan.group
    ]
    exact = np.mean(fields, axis=0, dtype=np.float64)
    gap = np.abs(mean[slices(sample, piece.area, plan.scale)] - exact)
    return float(gap[valid.repeat(plan.scale, axis=0).repeat(plan.scale, axis=1)].max())

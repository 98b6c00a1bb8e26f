"""Enlarging a raster of elevation: what is read, predicted, blended, made to add up, and written, chunk by chunk.

Two modes. *Exact*: windows with a halo that is cut off and one normalisation for the whole raster: what a prediction in
one piece would give, up to float32's rounding. *Gaussian*: overlapping windows, normalised as training patches were,
blended with bell-shaped weights. Memory follows the chunk and the window, not the raster.

In both, windows of a raster that goes once round the globe go round too, and it does not matter with which longitude
its columns begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model, Pending
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.conserve import Residual, area_weights, conserved
from earthsr.dem.predict.ensemble import Member, ensemble, halo_of
from earthsr.errors import InputError, ResultError
from earthsr.geo import Georeference, Sink, Source
from earthsr.geo.elevations import PLAUSIBLE_M, Elevations, elevations, first_implausible
from earthsr.geo.georeference import read_window
from earthsr.geo.window import Window
from earthsr.inference.blend import ChunkSums, batch_size, batches, fill
from earthsr.inference.pipeline import FlowTimes, flow
from earthsr.inference.tiling import BlendedTiles, ExactTiles, Tile, Tiles, chunks, covering, grown, slices

Mode = Literal["gaussian", "exact"]

#: Coarse cells per side of a chunk. Windows that touch two are predicted for both, so that no chunk waits for another:
#: with Gaussian windows of 128 cells that overlap by a quarter that is a third more work, and three quarters more with
#: chunks of 256.
CHUNK: Final = 512
#: Coarse cells per side that are kept of an exact window: halos of 60 to 120 cells cost little then.
EXACT_TILE: Final = 256
#: Coarse cells per side of a Gaussian window.
TILE: Final = 128
#: Coarse cells that a batch of windows holds at most, where it holds more than one.
BATCH_CELLS: Final = 32_768
#: Coarse cells around a chunk that the conserving surface reads.
RING: Final = 2
#: Places where a Gaussian prediction is compared with the exact one, and cells per side of each.
SAMPLES: Final = 9
SAMPLE_CELLS: Final = 64


@dataclass(frozen=True)
class PredictOptions:
    """How a raster is enlarged."""

    mode: Mode = "gaussian"
    """``gaussian``: windows that are blended; ``exact``: windows with a halo that is cut off."""
    tile: int | None = None
    """Coarse cells per side of a window (Gaussian), or of what is kept of one (exact)."""
    overlap: float = 0.25
    """Gaussian: share of its side that a window has in common with the next."""
    symmetries: bool = False
    """Mean over the eight symmetries of the square."""
    conserve: bool = False
    """Shift the result so that its area mean over each coarse cell is that cell's value."""
    batch_size: int | None = None
    """Windows at once; chosen by their size where absent."""
    compare: bool = False
    """Gaussian: compare with the exact prediction everywhere, not at some places."""


@dataclass(frozen=True)
class EnlargePlan:
    """What will be done."""

    group: tuple[Member, ...]
    source: Elevations
    options: PredictOptions
    wanted: Window
    """Coarse cells that are enlarged; on a periodic raster its columns may be negative or beyond the last one."""
    tiles: Tiles
    exact: ExactTiles
    """Windows of the exact mode, whichever mode is taken."""
    chunks: tuple[Window, ...]
    scale: int
    batch_size: int

    @property
    def beyond_poles(self) -> tuple[int, int]:
        """Rows of fine cells whose centres lie beyond the north and the south pole.

        Where cells are nodes, those of the first and the last row lie on the poles, and half of each cell beyond.
        """
        whole = self.source.georeference.part(self.wanted).refined(self.scale)
        if not whole.geographic:
            return 0, 0
        south = whole.north - whole.rows * whole.cell_y
        rows = [math.ceil(over / whole.cell_y - 0.5 - 1e-6) for over in (whole.north - 90, -90 - south)]
        return max(rows[0], 0), max(rows[1], 0)

    @property
    def output(self) -> Georeference:
        """Grid of the result: the input's cells divided by the scale, without those beyond a pole."""
        whole, (top, bottom) = self.source.georeference.part(self.wanted).refined(self.scale), self.beyond_poles
        return whole.part(Window(top, 0, whole.rows - top - bottom, whole.columns)) if top or bottom else whole

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of what is written."""
        return ("elevation", "spread") if len(self.group) > 1 else ("elevation",)

    @property
    def windows(self) -> int:
        """Windows that are predicted, over all chunks and members, where no cell is without a value."""
        return len(self.group) * sum(sum(1 for _ in self.tiles.tiles(self.area(chunk))) for chunk in self.chunks)

    def area(self, chunk: Window) -> Window:
        """Coarse cells that are predicted for a chunk."""
        grid = self.source.georeference
        return grown(chunk, RING, grid.rows, grid.columns, grid.periodic) if self.options.conserve else chunk


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
    times: FlowTimes = field(default_factory=FlowTimes)


def make_plan(
    models: Sequence[Model],
    source: Source,
    options: PredictOptions | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> EnlargePlan:
    """Decide how a raster is cut.

    Parameters
    ----------
    models : sequence of Model
        One, or several whose mean is taken.
    source : Source
        Elevation in metres.
    options : PredictOptions, optional
        The mode and its sizes.
    bbox : tuple of float, optional
        West, south, east, north in units of the CRS; cells that it touches are enlarged, and others around it read.
        West > east is a box across the dateline of a raster that goes once round the globe: see
        :meth:`earthsr.geo.Georeference.window`.

    Raises
    ------
    InputError
        If the models do not go together, sizes make no sense, or the box lies outside.
    """
    options, source = options or PredictOptions(), elevations(source)
    if options.mode not in get_args(Mode):
        raise InputError(f"mode is {options.mode!r}, expected {' or '.join(map(repr, get_args(Mode)))}")
    group = ensemble(models, options.symmetries)
    grid = source.georeference
    wanted = Window(0, 0, grid.rows, grid.columns) if bbox is None else grid.window(bbox)
    halo = halo_of(group)
    if options.mode == "exact":
        # The cells around a chunk that conserving reads shall not ask for more windows.
        whole = math.ceil((CHUNK + 2 * RING * options.conserve) / math.ceil(CHUNK / EXACT_TILE))
        side = whole if options.tile is None else options.tile
    else:
        side = EXACT_TILE if options.compare else SAMPLE_CELLS
    exact = ExactTiles(grid.rows, grid.columns, side, halo, grid.periodic)
    tiles: Tiles = exact
    if options.mode == "gaussian":
        blended = TILE if options.tile is None else options.tile
        tiles = BlendedTiles(
            grid.rows, grid.columns, blended, options.overlap, periodic=grid.periodic, origin=grid.dateline
        )
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}, expected 1 or more windows")
    parts = tuple(chunks(wanted, CHUNK))
    size = options.batch_size or _batch_size(tiles, parts)
    return EnlargePlan(group, source, options, wanted, tiles, exact, parts, group[0].model.spec.scale, size)


def _batch_size(tiles: Tiles, parts: Sequence[Window]) -> int:
    """Windows at once: few enough for memory, and such that the batches of a chunk are full."""
    most = max(1, BATCH_CELLS // math.prod(tiles.shape))
    return batch_size(max(sum(1 for _ in tiles.tiles(part)) for part in (parts[0], parts[len(parts) // 2])), most)


@dataclass(frozen=True)
class _ChunkInput:
    """What is read for a chunk."""

    area: Window
    tiles: list[Tile]
    cover: Window
    values: NDArray[np.float32]
    sample: Window | None
    """Coarse cells over which the Gaussian prediction is compared with the exact one."""


@dataclass(frozen=True)
class _ChunkResult:
    bands: NDArray[np.float32]
    before: Residual
    after: Residual
    difference: float | None
    compared: int


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
        Mean of the whole raster, metres (:func:`survey`); the exact mode of a model that takes off each patch's own
        mean needs it.
    label : str
        Of the progress bar.
    compare : bool
        Gaussian: compare with the exact prediction at some places, or everywhere as the options say.

    Raises
    ------
    DataError
        If a value is no elevation, or the raster cannot be read.
    """
    outcome = EnlargeResult()
    sampled = _sampled(plan) if compare else {}

    def read(chunk: Window) -> _ChunkInput:
        area = plan.area(chunk)
        tiles = list(plan.tiles.tiles(area))
        wanted = [*tiles, Tile(area, area)]
        sample = sampled.get(chunk)
        if sample is not None:
            wanted += list(plan.exact.tiles(sample))
        cover = covering(wanted)
        values = read_window(plan.source, cover)
        return _ChunkInput(area, tiles, cover, values, sample)

    def compute(chunk: Window, piece: _ChunkInput) -> _ChunkResult:
        return _compute(plan, chunk, piece, offset)

    beyond, output = plan.beyond_poles[0], plan.output

    def write(chunk: Window, made: _ChunkResult) -> None:
        row, column = (chunk.row - plan.wanted.row) * plan.scale, (chunk.column - plan.wanted.column) * plan.scale
        first = max(beyond - row, 0)
        row += first - beyond
        bands = made.bands[:, first : first + output.rows - row]
        _require_possible(bands[0], plan, row, column)
        sink.write(row, column, bands)
        elevation = bands[0]
        if not np.isfinite(elevation.sum(dtype=np.float64)):
            elevation = elevation[np.isfinite(elevation)]
        outcome.valid += elevation.size
        if elevation.size:
            outcome.minimum = min(outcome.minimum, float(elevation.min()))
            outcome.maximum = max(outcome.maximum, float(elevation.max()))
        outcome.before, outcome.after = outcome.before + made.before, outcome.after + made.after
        if made.difference is not None:
            outcome.difference = max(outcome.difference or 0.0, made.difference)
            outcome.compared += made.compared

    outcome.times = flow(plan.chunks, read, compute, write, label=label)
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
        f"column {coarse.column % source.georeference.columns}): name a fill value around it with --nodata, or take "
        "another model; nothing was written"
    )


def _sampled(plan: EnlargePlan) -> dict[Window, Window]:
    """Cells of chunks over which the Gaussian prediction is compared with the exact one."""
    if plan.options.mode != "gaussian":
        return {}
    if plan.options.compare:
        return {chunk: chunk for chunk in plan.chunks}
    spread = np.unique(np.linspace(0, len(plan.chunks) - 1, SAMPLES).round().astype(int))
    samples = {}
    for chunk in (plan.chunks[i] for i in spread):
        rows, columns = min(SAMPLE_CELLS, chunk.rows), min(SAMPLE_CELLS, chunk.columns)
        top, left = chunk.row + (chunk.rows - rows) // 2, chunk.column + (chunk.columns - columns) // 2
        samples[chunk] = Window(top, left, rows, columns)
    return samples


def _compute(plan: EnlargePlan, chunk: Window, piece: _ChunkInput, offset: float | None) -> _ChunkResult:
    scale, area = plan.scale, piece.area
    coarse = piece.values[slices(area, piece.cover)]
    void = ~np.isfinite(coarse)
    inside = slices(chunk, area)
    kept = coarse[inside]
    if void[inside].all():
        empty = np.full((len(plan.bands), chunk.rows * scale, chunk.columns * scale), np.nan, np.float32)
        return _ChunkResult(empty, Residual(), Residual(), None, 0)
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
    fine_inside = slices(chunk, area, scale)
    before = Residual.of(mean[fine_inside], kept, weights[inside[0]])
    after = before
    if plan.options.conserve:
        mean = conserved(mean, coarse, weights)
        after = Residual.of(mean[fine_inside], kept, weights[inside[0]])
    bands = [mean[fine_inside]]
    if spread is not None:
        bands.append(np.sqrt(spread[fine_inside] / len(plan.group)))
    # Arrays of this size are slow when they are new: nothing is copied that need not be.
    layers = np.stack(bands) if len(bands) > 1 else bands[0][None]
    if void[inside].any():
        np.copyto(layers, np.nan, where=void[inside].repeat(scale, axis=0).repeat(scale, axis=1))
    return _ChunkResult(layers, before, after, difference, compared)


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

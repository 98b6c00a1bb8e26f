"""How a raster is cut into chunks and windows, and a first look at it: its mean, its range, whether it is elevation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from tqdm import tqdm

from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.ensemble import Member, ensemble, halo_of, takes_patch_means
from earthsr.dem.predict.keep import Kept
from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.geo import Georeference, Source
from earthsr.geo.crs import metres_per_unit
from earthsr.geo.elevations import Elevations, elevations
from earthsr.geo.grid import Window
from earthsr.geo.raster import SOURCE_BAND, read_window
from earthsr.geo.resample import reach
from earthsr.inference.tiling import BlendedTiles, ExactTiles, Tiles, batch_size, chunks, grown
from earthsr.models import DemSRNetSpec

Mode = Literal["gaussian", "exact"]

#: Coarse cells per side of a chunk, about. Windows that touch two are predicted for both, so that no chunk waits for
#: another: with Gaussian windows of 128 cells that overlap by a quarter that is a third more work, and three quarters
#: more with chunks of 256.
CHUNK: Final = 512
#: Coarse cells per side that are kept of an exact window: halos of 60 to 120 cells cost little then.
EXACT_TILE: Final = 256
#: Coarse cells per side of a Gaussian window.
TILE: Final = 128
#: Coarse cells that a batch of windows holds at most, where it holds more than one.
BATCH_CELLS: Final = 32_768
#: Coarse cells around a chunk that the conserving surface reads.
RING: Final = reach("mean_preserving")
#: Places where a Gaussian prediction is compared with the exact one, and cells per side of each.
SAMPLES: Final = 9
SAMPLE_CELLS: Final = 64
#: Rows and columns that a first look reads at once.
_BLOCK: Final = 1024


#: Training patches lie about their own mean within some four times their relief; twice that was not learnt.
_FAR: Final = 8.0
#: Of a degree of latitude on the sphere of WGS 84's mean radius.
_METRES_PER_DEGREE: Final = math.pi * 6_371_008.8 / 180


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
    clip: bool = False
    """Write the bound, -12,000 or 9,500 m, where a prediction is beyond it, and count such cells; else an error."""


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
    """What is computed, written and restarted at once: cells of the output. Columns of a periodic raster may lie beyond
    its last one."""
    scale: int
    batch_size: int
    kept: Kept | None = None
    """Finer rasters that stay."""

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
    def side(self) -> int:
        """Cells of the output per side of a chunk, about."""
        return CHUNK * self.scale

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of what is written."""
        spread = ("spread",) if len(self.group) > 1 else ()
        return ("elevation", *spread, *((SOURCE_BAND,) if self.kept is not None else ()))

    @property
    def windows(self) -> int:
        """Windows that are predicted, over all chunks and members, where no cell is without a value."""
        return len(self.group) * sum(sum(1 for _ in self.tiles.tiles(self.area(chunk))) for chunk in self.chunks)

    def ground(self, chunk: Window) -> Window:
        """Coarse cells that a chunk touches."""
        (first, last), (start, end) = (
            (low // self.scale, -(-high // self.scale))
            for low, high in (
                (chunk.row + self.beyond_poles[0], chunk.row + self.beyond_poles[0] + chunk.rows),
                (chunk.column, chunk.column + chunk.columns),
            )
        )
        return Window(self.wanted.row + first, self.wanted.column + start, last - first, end - start)

    def inside(self, chunk: Window, area: Window) -> tuple[slice, slice]:
        """Place of a chunk in the fine cells of an area around it."""
        row = chunk.row + self.beyond_poles[0] + (self.wanted.row - area.row) * self.scale
        column = chunk.column + (self.wanted.column - area.column) * self.scale
        return slice(row, row + chunk.rows), slice(column, column + chunk.columns)

    def own(self, chunk: Window) -> tuple[slice, slice]:
        """Coarse cells of a chunk's ground whose middles are in the chunk: each is that of one chunk."""
        ground = self.ground(chunk)
        middle, scale = self.scale // 2, self.scale
        down, across = (
            slice(-(-(part.start - middle) // scale), -(-(part.stop - middle) // scale))
            for part in self.inside(chunk, ground)
        )
        return down, across

    def area(self, chunk: Window, margin: int = 0) -> Window:
        """Coarse cells that are predicted for a chunk, with a margin around it."""
        grid = self.source.georeference
        margin = max(margin, RING * self.options.conserve)
        ground = self.ground(chunk)
        return grown(ground, margin, grid.rows, grid.columns, grid.periodic) if margin else ground

    def recut(self, windows: Iterable[Window]) -> EnlargePlan:
        """Return the plan with other chunks, windows of the output."""
        plan = replace(self, chunks=tuple(windows))
        size = self.options.batch_size or _batch_size(self.tiles, [plan.ground(chunk) for chunk in plan.chunks])
        return replace(plan, batch_size=size)

    def samples(self) -> dict[Window, Window]:
        """Coarse cells of chunks over which the Gaussian prediction is compared with the exact one."""
        if self.options.mode != "gaussian":
            return {}
        if self.options.compare:
            return {chunk: self.ground(chunk) for chunk in self.chunks}
        spread = np.unique(np.linspace(0, len(self.chunks) - 1, SAMPLES).round().astype(int))
        samples = {}
        for chunk in (self.chunks[i] for i in spread):
            ground = self.ground(chunk)
            rows, columns = min(SAMPLE_CELLS, ground.rows), min(SAMPLE_CELLS, ground.columns)
            top, left = ground.row + (ground.rows - rows) // 2, ground.column + (ground.columns - columns) // 2
            samples[chunk] = Window(top, left, rows, columns)
        return samples


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
    scale = group[0].model.spec.scale
    plan = EnlargePlan(group, source, options, wanted, tiles, exact, (), scale, options.batch_size or 1)
    return plan.recut(chunks(Window(0, 0, plan.output.rows, plan.output.columns), plan.side))


def _batch_size(tiles: Tiles, parts: Sequence[Window]) -> int:
    """Windows at once: few enough for memory, and such that the batches of a chunk are full."""
    most = max(1, BATCH_CELLS // math.prod(tiles.shape))
    return batch_size(max(sum(1 for _ in tiles.tiles(part)) for part in (parts[0], parts[len(parts) // 2])), most)


@dataclass(frozen=True)
class Survey:
    """What a first pass over a raster found."""

    valid: int
    mean: float
    minimum: float
    maximum: float


def survey(source: Source, window: Window | None = None) -> Survey:
    """Read a raster of elevation once: its mean and its range.

    Raises
    ------
    DataError
        If no cell has a value, or one is no elevation (:func:`earthsr.geo.elevations.elevations`).
    """
    source = elevations(source)
    grid = source.georeference
    blocks = chunks(window or Window(0, 0, grid.rows, grid.columns), _BLOCK)
    count, total, low, high = 0, 0.0, math.inf, -math.inf
    shown = None if len(blocks) > 16 else True
    for block in tqdm(blocks, desc="survey", unit="block", disable=shown):
        values = read_window(source, block)
        valid = values[np.isfinite(values)]
        if valid.size:
            count += valid.size
            total += float(valid.sum(dtype=np.float64))
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    if not count:
        raise DataError(f"{source.name}: no cell has a value where it is wanted; check its nodata value and --bbox")
    return Survey(count, total / count, low, high)


def surveyed_mean(plan: EnlargePlan) -> float:
    """Look at what will be enlarged, and give its mean, metres.

    The exact mode of a model to which the mean matters looks at the whole raster, so that a part comes out as in the
    whole. To others it does not matter, and a part of a global raster is not worth reading all of it.
    """
    models = [member.model for member in plan.group if _minds_the_mean(member.model)]
    if plan.options.mode == "gaussian" or not models:
        return survey(plan.source, plan.wanted).mean
    stats = survey(plan.source)
    _warn_of_relief({id(model): model for model in models}.values(), stats.mean, stats.minimum, stats.maximum)
    return stats.mean


def _minds_the_mean(model: Model) -> bool:
    """Whether a constant added to the input is more than a constant added to the output."""
    absorbed = isinstance(model.spec, DemSRNetSpec) and model.spec.local_mean > 0
    return takes_patch_means(model) and not absorbed


def _warn_of_relief(models: Iterable[Model], mean: float, low: float, high: float) -> None:
    """Warn where a model that knows patches about their own mean is shown heights far from the raster's."""
    for model in models:
        normalisation = model.normalisation
        assert isinstance(normalisation, Normalisation)
        away = max(high - mean, mean - low) / normalisation.scale
        if away > _FAR:
            warnings.warn(
                f"the exact mode takes one mean ({mean:.0f} m) off the whole raster, whose heights go to {away:.0f} "
                "times the relief of the training patches away from it: the model has seen no such numbers; use the "
                "Gaussian mode, or a model with local_mean",
                EarthsrWarning,
                stacklevel=5,
            )


def warn_of_cells(model: Model, raster: Source) -> None:
    """Warn where cells are of another size than those that the model was trained on."""
    trained, grid = model.metadata.get("input_cell_size_deg"), raster.georeference
    if not trained or not (grid.crs_wkt or grid.geographic):
        return
    cell = grid.cell_y if grid.geographic else grid.cell_y * metres_per_unit(grid.crs_wkt) / _METRES_PER_DEGREE
    if not 0.8 < cell / trained < 1.25:
        warnings.warn(
            f"{raster.name}: cells of {cell:.6g} degrees; the model was trained on {trained:.6g}",
            EarthsrWarning,
            stacklevel=4,
        )

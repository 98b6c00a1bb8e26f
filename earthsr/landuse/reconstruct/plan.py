"""What a reconstruction will do: from which inputs, which years in which order, cut into which chunks and windows.

Nothing here depends on how many processes share the work, so that their maps are those of one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import CheckpointError, InputError
from earthsr.geo.areas import cells_of
from earthsr.geo.cf import spans
from earthsr.geo.grid import Grid, Window, dateline, pieces
from earthsr.inference.tiling import BlendedTiles, batch_size
from earthsr.landuse.class_tables import class_table
from earthsr.landuse.classes import ClassTable, class_fractions
from earthsr.landuse.maps.layout import chunk_window, chunks_of
from earthsr.landuse.sources.world_inputs import Inputs, WorldInputs, open_world
from earthsr.models import UNetSpec

_logger = logging.getLogger("earthsr")

#: Fine cells per side of a chunk, about. Windows that touch two chunks are predicted for both, which costs a fifth more
#: with windows of 256 cells that overlap by a quarter; memory is about a gigabyte.
CHUNK: Final = 2048
#: Fine cells per side of a window where the checkpoint does not say what it was trained on.
TILE: Final = 256
#: Fine cells that a batch of windows holds at most, where it holds more than one.
BATCH_CELLS: Final = 8 * 256**2


class Chunk(NamedTuple):
    """Row and column of a chunk on the lattice of chunks."""

    i: int
    j: int


@dataclass(frozen=True)
class Options:
    """How maps are made."""

    tile: int | None = None
    """Fine cells per side of a window; that of training where absent."""
    overlap: float = 0.25
    """Share of its side that a window has in common with the next."""
    chunk: int = CHUNK
    """Fine cells per side of what is computed, written and restarted at once, about: whole coarse cells are taken."""
    batch_size: int | None = None
    """Windows at once; chosen by their size where absent."""
    match_areas: bool = False
    """Make the class areas of each coarse cell those of the scenario."""
    fixed: tuple[str, ...] = ()
    """Classes whose cells at the anchor keep their class."""
    keep: tuple[str, ...] = ()
    """``confidence``, ``probabilities``: written beside the classes."""


@dataclass(frozen=True)
class Step:
    """One map."""

    year: int
    before: int | None
    """Year of the map that is its prior; None for the anchor, which is given."""
    earlier: int | None
    """Year of the prior's own prior."""

    @property
    def direction(self) -> int:
        """1 forwards, -1 backwards in time."""
        return 1 if self.before is None or self.year > self.before else -1


def steps_of(anchor: int, first: int, last: int) -> tuple[Step, ...]:
    """Maps in the order in which they are made: the anchor, years after it, years before it.

    Years between the anchor and a span that does not hold it are made too: each map needs the one before it.
    """
    steps = [Step(anchor, None, None)]
    for years in (range(anchor + 1, last + 1), range(anchor - 1, first - 1, -1)):
        before, earlier = anchor, None
        for year in years:
            steps.append(Step(year, before, earlier))
            before, earlier = year, before
    return tuple(steps)


class ScenarioFractions(Protocol):
    """A scenario's fractions of classes, by year."""

    @property
    def grid(self) -> Grid:
        """Grid of the fractions."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the C channels."""
        ...

    @property
    def years(self) -> tuple[int, ...]:
        """Years that there are."""
        ...

    @property
    def of_class(self) -> Mapping[str, tuple[str, ...]]:
        """Channels that add up to a class, by its name."""
        ...

    def fractions(self, year: int) -> NDArray[np.float32]:
        """Fractions of a year, (C, h, w), 0 to 1."""
        ...


class World(Protocol):
    """What a year's map is made for: a grid, its classes and a scenario, whether in files or in memory."""

    @property
    def grid(self) -> Grid:
        """Grid of the maps."""
        ...

    @property
    def table(self) -> ClassTable:
        """What class indices mean."""
        ...

    @property
    def scenario(self) -> ScenarioFractions:
        """Forcing."""
        ...


@dataclass(frozen=True)
class Method:
    """How the map of any year is made, chunk by chunk."""

    model: Model
    world: World
    options: Options
    tiles: BlendedTiles
    side: tuple[int, int]
    """Rows and columns of a chunk; those at the end are smaller."""
    batch_size: int

    @property
    def grid(self) -> Grid:
        """Grid of the maps."""
        return self.world.grid

    @property
    def table(self) -> ClassTable:
        """What class indices mean."""
        return self.world.table

    @property
    def normalisation(self) -> ChannelNormalisation:
        """The model's own."""
        normalisation = self.model.normalisation
        assert isinstance(normalisation, ChannelNormalisation)
        return normalisation

    @cached_property
    def lattice(self) -> tuple[Chunk, ...]:
        """All chunks, row by row."""
        rows, columns = -(-self.grid.rows // self.side[0]), -(-self.grid.columns // self.side[1])
        return tuple(Chunk(i, j) for i in range(rows) for j in range(columns))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(K,): whether the scenario knows the class."""
        return np.array([name in self.world.scenario.of_class for name in self.table.names])

    @cached_property
    def fixed(self) -> NDArray[np.uint8]:
        """Indices of classes whose cells keep their class."""
        names = self.table.names
        return np.array([names.index(name) for name in self.options.fixed], np.uint8)

    @property
    def whole(self) -> Window:
        """Cells of all chunks."""
        return Window(0, 0, self.grid.rows, self.grid.columns)

    def window(self, chunk: Chunk) -> Window:
        """Cells of a chunk."""
        return chunk_window(chunk.i, chunk.j, self.grid, self.side)

    def area(self, chunk: Chunk) -> Window:
        """Cells that are predicted for a chunk: with areas to be met, all of the coarse cells that it touches.

        The two are the same where cells of the one grid are whole multiples of the other's and begin together.
        """
        window = self.window(chunk)
        if not self.options.match_areas:
            return window
        rows, columns = cells_of(self.world.scenario.grid, self.grid, self._around(window))
        top, height = _whole(rows, self._around(window).row, window.row, window.rows)
        if window.columns == self.grid.columns:
            return Window(top, window.column, height, window.columns)
        left, width = _whole(columns, self._around(window).column, window.column, window.columns)
        return Window(top, left, height, width)

    def _around(self, window: Window) -> Window:
        """A window with a coarse cell around it, as far as the grid goes."""
        coarse, fine = self.world.scenario.grid, self.grid
        down, across = (
            math.ceil(large / small) + 1
            for large, small in ((coarse.cell_y, fine.cell_y), (coarse.cell_x, fine.cell_x))
        )
        top, bottom = max(window.row - down, 0), min(window.row + window.rows + down, fine.rows)
        left, right = window.column - across, window.column + window.columns + across
        if not fine.periodic:
            left, right = max(left, 0), min(right, fine.columns)
        return Window(top, left, bottom - top, right - left)

    def touched(self, window: Window) -> tuple[Chunk, ...]:
        """Chunks that a window touches, once around the Earth where the grid is."""
        inside = pieces(window, self.grid.rows, self.grid.columns, self.grid.periodic)
        return tuple(sorted({Chunk(i, j) for part, _, _ in inside for i, j in chunks_of(part, self.side)}))

    def fractions(self, coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fractions (K, h, w) of the classes from those of the scenario's channels (C, h, w)."""
        scenario = self.world.scenario
        return class_fractions(coarse, scenario.channels, scenario.of_class, self.table.names)


def _whole(cells: NDArray[np.int64], origin: int, first: int, count: int) -> tuple[int, int]:
    """First cell and number of cells of a run that is grown to whole coarse cells along one axis."""
    low, high = cells[first - origin], cells[first - origin + count - 1]
    start, end = first - origin, first - origin + count
    while start > 0 and low >= 0 and cells[start - 1] == low:
        start -= 1
    while end < len(cells) and high >= 0 and cells[end] == high:
        end += 1
    return origin + start, end - start


@dataclass(frozen=True)
class Plan(Method):
    """What will be done."""

    world: WorldInputs
    steps: tuple[Step, ...]

    @property
    def years(self) -> tuple[int, ...]:
        """Years of all maps, ascending."""
        return tuple(sorted(step.year for step in self.steps))


def open_inputs(model: Model, inputs: Inputs) -> WorldInputs:
    """Open all files and check them against the model.

    Raises
    ------
    InputError, DataError, CheckpointError
        If something is missing or does not fit; the message names file, channel and year.
    """
    require_land_use(model)
    source = str(model.metadata.get("source", "the model"))
    if inputs.table is None:
        table = ClassTable.from_json(model.metadata["class_table"], source)
    else:
        table = class_table(inputs.table)
        trained = ClassTable.from_json(model.metadata["class_table"], source).names
        if table.names != trained:
            raise InputError(
                f"{inputs.table}: has the classes {', '.join(table.names)}; {source} was trained on "
                f"{', '.join(trained)}"
            )
    world = open_world(
        inputs,
        table,
        static_names=tuple(model.metadata["static_channels"]),
        coarse_channels=tuple(model.metadata["coarse_channels"]),
    )
    warn_of_cells(model, world.grid)
    return world


def warn_of_cells(model: Model, grid: Grid) -> None:
    """Say where cells are of another size than those that a model was trained on."""
    trained_deg = model.metadata.get("output_cell_size_deg")
    cells = (grid.cell_y, grid.cell_x)
    if trained_deg and any(abs(a / b - 1) > 0.01 for a, b in zip(cells, trained_deg, strict=True)):
        _logger.warning(
            "cells are %.6g x %.6g degrees, the model was trained on %.6g x %.6g: maps may be worse than its scores",
            *cells,
            *trained_deg,
        )


def make_plan(model: Model, world: WorldInputs, years: tuple[int, int], options: Options) -> Plan:
    """Decide how the years and the grid are cut.

    Raises
    ------
    InputError
        If years, sizes or classes do not fit; the message says what is there.
    CheckpointError
        If the checkpoint is not of land use.
    """
    require_land_use(model)
    first, last = years
    steps = steps_of(world.anchor_year, first, last)
    missing = [step.year for step in steps[1:] if step.year not in world.scenario.years]
    if missing:
        raise InputError(
            f"--years {first}:{last} from the anchor {world.anchor_year} needs fractions of {spans(missing)}, which "
            f"the scenario does not have (it has {spans(world.scenario.years)}); give --scenario a file with them"
        )
    method = make_method(model, world, options)
    return Plan(model, world, options, method.tiles, method.side, method.batch_size, steps)


def make_method(model: Model, world: World, options: Options) -> Method:
    """Decide how a grid is cut into chunks and windows.

    Raises
    ------
    InputError
        If sizes or classes do not fit; the message says what is there.
    CheckpointError
        If the checkpoint is not of land use.
    """
    spec = require_land_use(model)
    for name in options.fixed:
        if name not in world.table.names:
            raise InputError(f"--fixed {name}: no such class; the checkpoint knows {', '.join(world.table.names)}")
    for layer in options.keep:
        if layer not in ("confidence", "probabilities"):
            raise InputError(f"--keep {layer}: expected confidence or probabilities")
    tile = options.tile or int(model.metadata.get("tile_size", TILE))
    if tile < 1 or tile % spec.multiple:
        raise InputError(
            f"--tile is {tile}, expected a multiple of {spec.multiple} cells (a U-Net of depth {spec.depth})"
        )
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}, expected 1 or more windows")
    if options.chunk < 1:
        raise InputError(f"--chunk is {options.chunk}, expected 1 or more fine cells")
    grid, coarse = world.grid, world.scenario.grid
    # Windows go around from the dateline, whatever longitude the raster begins with.
    origin = dateline(grid.west, grid.cell_x, grid.columns) if grid.periodic else 0
    tiles = BlendedTiles(
        grid.rows, grid.columns, tile, options.overlap, periodic=grid.periodic, whole=True, origin=origin
    )
    side = (
        chunk_side(options.chunk, grid.rows, coarse.cell_y / grid.cell_y),
        chunk_side(options.chunk, grid.columns, coarse.cell_x / grid.cell_x),
    )
    count = sum(1 for _ in tiles.tiles(Window(0, 0, *side)))
    # Of a small grid no more than there are: what a batch lacks is computed for nothing.
    size = options.batch_size or batch_size(count, max(1, min(count, BATCH_CELLS // tile**2)))
    return Method(model, world, options, tiles, side, size)


def require_land_use(model: Model) -> UNetSpec:
    """Check that a model maps land-use classes.

    Raises
    ------
    CheckpointError
        If it does something else, or its weights do not say which classes and channels it knows.
    """
    source = model.metadata.get("source", "the model")
    if not isinstance(model.spec, UNetSpec) or model.spec.head != "classes":
        raise CheckpointError(f"{source}: reconstruct takes a model of land-use classes; this one is of something else")
    for key in ("class_table", "static_channels", "coarse_channels"):
        if key not in model.metadata:
            raise CheckpointError(f"{source}: does not say its {key}; train it with earthsr train, or convert it again")
    return model.spec


def chunk_side(wanted: int, extent: int, ratio: float) -> int:
    """Cells of a chunk along one axis: nearly all of one size, and whole coarse cells where these are whole fine cells.

    Parameters
    ----------
    wanted : int
        About so many; a tenth more where that saves a chunk.
    extent : int
        Cells of the axis.
    ratio : float
        Fine cells in a coarse one.
    """
    count = max(1, math.ceil(extent / wanted - 0.1))
    whole = round(ratio)
    if whole < 1 or abs(ratio - whole) > 1e-6 * ratio:
        whole = 1
    return min(math.ceil(extent / count / whole) * whole, extent)

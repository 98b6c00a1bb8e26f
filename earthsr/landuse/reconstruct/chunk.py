"""One chunk of one year: what is read for it, what the network makes of it, and the classes that follow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.areas import Interpolation, cells_of, window_matrix, window_size
from earthsr.geo.grid import Grid, Window
from earthsr.inference.tiling import ChunkSums, Tile, batches, covering, fill, slices
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.classes import NODATA
from earthsr.landuse.match_areas import match_areas
from earthsr.landuse.reconstruct.ledger import count
from earthsr.landuse.reconstruct.plan import Chunk, Method, Step
from earthsr.landuse.samples import Fields, scalars, stack

#: Marks in the scratch's last channel: a cell that may take any class, and one that has none.
FREE: Final = 255.0
VOID: Final = -1.0


@dataclass(frozen=True)
class ChunkInputs:
    """What is read for a chunk."""

    area: Window
    """Cells that are predicted."""
    tiles: list[Tile]
    """Windows that have a cell to be predicted."""
    ground: WindowGround | None
    """None where there is no such window."""
    marks: NDArray[np.float32]
    """(rows, columns) of the area: the class that a cell keeps, :data:`FREE` or :data:`VOID`."""
    before: NDArray[np.uint8]
    """(rows, columns) of the chunk: the prior."""
    earlier: NDArray[np.uint8] | None
    """The same a year before it."""


@dataclass(frozen=True)
class ChunkMaps:
    """What came out of a chunk."""

    classes: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    layers: dict[str, NDArray[np.float32]]
    """Others that are kept."""
    record: dict[str, Any]
    """What was counted."""


class MapStore(Protocol):
    """Where maps of years lie: on disk, or in memory."""

    def read(self, layer: str, year: int, window: Window) -> NDArray[Any]:
        """Read a window, once around the Earth where the grid goes; what lies beyond the grid has no value."""
        ...

    def write(self, layer: str, year: int, window: Window, values: NDArray) -> None:
        """Write a chunk."""
        ...


class FieldStore(Protocol):
    """Where static fields lie, normalised, and the marks as the last channel."""

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window, (C, rows, columns), once around the Earth where the grid goes; NaN beyond the grid."""
        ...


class Maker:
    """Makes one year's map of one area: read, compute, write.

    Parameters
    ----------
    plan : Method
        How it is made.
    maps : MapStore
        Where the prior lies, and where the map is written.
    scratch : FieldStore
        Where static fields lie: the world's channels, normalised, then the marks.
    """

    def __init__(self, plan: Method, maps: MapStore, scratch: FieldStore) -> None:
        self.plan, self.maps, self.scratch = plan, maps, scratch
        method = plan.model.metadata.get("coarse_interpolation", "bilinear")
        names = tuple(field.name for field in plan.model.spec.inputs)
        self._memory: NDArray[np.float32] | None = None
        self._fields = WindowFields(plan.grid, plan.world.scenario.grid, plan.tiles.tile, method, names)

    def read(self, step: Step, chunk: Chunk) -> ChunkInputs:
        """Read what a chunk of a year needs; its neighbours' maps of the year before have to be there."""
        plan, window, area = self.plan, self.plan.window(chunk), self.plan.area(chunk)
        assert step.before is not None
        tiles = list(plan.tiles.tiles(area))
        cover = covering(tiles)
        fields = self.scratch.read(cover)
        marks = fields[-1][slices(area, cover)]
        beyond = not plan.grid.periodic or cover.row < 0 or cover.row + cover.rows > plan.grid.rows
        free = marks == FREE
        wanted = [tile for tile in tiles if free[slices(tile.keep, area)].any()]
        prior = self.maps.read("land_use", step.before, cover)
        ground = None
        if wanted:
            # Beyond the grid there is no value, for which the mean stands.
            static = np.nan_to_num(fields[:-1], nan=0.0) if beyond else fields[:-1]
            ground = WindowGround(cover, static, prior, plan.world.scenario.fractions(step.year))
        earlier = None if step.earlier is None else self.maps.read("land_use", step.earlier, window)
        return ChunkInputs(area, wanted, ground, marks, prior[slices(window, cover)], earlier)

    def compute(self, step: Step, chunk: Chunk, piece: ChunkInputs) -> ChunkMaps:
        """Predict, blend and decide."""
        plan, began, inside = self.plan, time.perf_counter(), self._inside(chunk)
        kept = np.where(piece.marks == VOID, np.float32(NODATA), piece.marks).astype(np.uint8)
        free = piece.marks == FREE
        plain, layers, probabilities = kept, {}, None
        if piece.ground is not None:
            probabilities = self._probabilities(step, piece)
            plain = np.where(free, likeliest(probabilities), kept)
            layers = self._layers(probabilities, free, inside)
        classes, decoded = plain, None
        if plan.options.match_areas:
            matched, decoded = self._matched(step, chunk, piece, probabilities, kept)
            classes = np.where(free, matched, kept)
        counts = self._counts(chunk, classes, piece.before, piece.earlier, step.year)
        record = {**counts, "windows": len(piece.tiles), "seconds": time.perf_counter() - began}
        if decoded is not None:
            without = self._counts(chunk, plain, None, None, step.year)
            record["decoder"] = {
                "cells_changed": int((classes != plain)[inside].sum()),
                **decoded,
                "difference_km2_before": without["difference_km2"],
            }
        return ChunkMaps(classes[inside], layers, record)

    def write(self, step: Step, chunk: Chunk, made: ChunkMaps) -> None:
        """Write a chunk; what it holds is there when this returns."""
        window = self.plan.window(chunk)
        self.maps.write("land_use", step.year, window, made.classes)
        for name, values in made.layers.items():
            self.maps.write(name, step.year, window, values)

    def _probabilities(self, step: Step, piece: ChunkInputs) -> NDArray[np.float32]:
        """Blended probabilities (K, rows, columns) of an area, until the next call; 0 where no window was predicted."""
        assert step.before is not None
        plan = self.plan
        sums = ChunkSums(plan.tiles, piece.area, 1, len(plan.known), self._memory)
        if self._memory is None or sums.values.size > self._memory.size:
            self._memory = sums.values.reshape(-1)
        size = plan.batch_size
        fill(sums, ((group, plan.model.submit_fields(f, pad_to=size)) for group, f in self.inputs(step, piece)))
        return sums.values

    def inputs(self, step: Step, piece: ChunkInputs) -> Iterator[tuple[list[Tile], Fields]]:
        """Batches of a chunk's windows: always the same ones, so that results do not depend on who computes them."""
        assert step.before is not None
        if piece.ground is None:
            return
        scalars = scalars_of(step.year, step.before)
        for group in batches(piece.tiles, self.plan.batch_size):
            yield group, stack([self._fields.of(tile.window, piece.ground, scalars) for tile in group])

    def _matched(
        self,
        step: Step,
        chunk: Chunk,
        piece: ChunkInputs,
        probabilities: NDArray[np.float32] | None,
        kept: NDArray[np.uint8],
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Classes whose areas are the scenario's, and how many of the chunk's coarse cells have not got them."""
        plan, area = self.plan, piece.area
        if probabilities is None:  # no cell may change
            probabilities = np.broadcast_to(np.float32(0), (len(plan.known), *kept.shape))
        cells, fractions = self.cells(area, plan.world.scenario.fractions(step.year))
        index = _index(cells, fractions)
        matched = match_areas(
            probabilities,
            fractions,
            np.where(piece.marks == VOID, -1, index),
            plan.known,
            fixed=kept,
            pixel_area=row_areas(plan.grid, area.row, area.rows),
        )
        # Those at the chunk's border are decoded for the chunks beside it too, and counted once.
        own = begun_in(self._inside(chunk), index, piece.marks != VOID, fractions[0].size)
        unmet = asks_nothing(matched.classes, index, fractions, plan.known)
        unmet[matched.unmet] = True
        return matched.classes, {"coarse_cells": int(own.sum()), "coarse_cells_unmet": int((own & unmet).sum())}

    def cells(
        self, window: Window, coarse: NDArray[np.float32]
    ) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]:
        """Coarse row (rows,) and column (columns,) of a window's cells, -1 for none, and their fractions (K, h, w).

        They are numbered among those that the window touches.
        """
        places, picked = [], []
        for axis in cells_of(self.plan.world.scenario.grid, self.plan.grid, window):
            touched, place = np.unique(axis, return_inverse=True)
            outside = int(touched[0] < 0)
            places.append(place - outside)
            picked.append(touched[outside:])
        return (places[0], places[1]), self.plan.fractions(coarse[:, picked[0][:, None], picked[1]])

    def _layers(
        self, probabilities: NDArray[np.float32], free: NDArray[np.bool_], inside: tuple[slice, slice]
    ) -> dict[str, NDArray[np.float32]]:
        """What is kept beside classes, NaN where nothing was predicted."""
        layers: dict[str, NDArray[np.float32]] = {}
        blank = ~free[inside]
        if "confidence" in self.plan.options.keep:
            layers["confidence"] = np.where(blank, np.float32(np.nan), probabilities.max(axis=0)[inside])
        if "probabilities" in self.plan.options.keep:
            layers["probabilities"] = np.where(blank, np.float32(np.nan), probabilities[(slice(None), *inside)])
        return layers

    def _inside(self, chunk: Chunk) -> tuple[slice, slice]:
        """Place of a chunk in its area."""
        return slices(self.plan.window(chunk), self.plan.area(chunk))

    def _counts(
        self,
        chunk: Chunk,
        classes: NDArray[np.uint8],
        before: NDArray[np.uint8] | None,
        earlier: NDArray[np.uint8] | None,
        year: int,
    ) -> dict[str, Any]:
        """Count a map of an area in its chunk; against the scenario where the year is one of it.

        Where the area holds coarse cells whole that the chunk's border cuts, they are compared whole, and once.
        """
        plan, scenario, k = self.plan, self.plan.world.scenario, len(self.plan.known)
        window, area, inside = plan.window(chunk), plan.area(chunk), self._inside(chunk)
        cells, fractions = None, None
        if year in scenario.years and (classes != NODATA).any():
            cells, fractions = self.cells(area, scenario.fractions(year))
        areas = row_areas(plan.grid, area.row, area.rows)
        if area == window:
            return count(classes, k, areas, plan.known, cells, fractions, before, earlier).to_dict()
        own_ledger = count(classes[inside], k, areas[inside[0]], plan.known, before=before, earlier=earlier)
        if cells is None:
            return own_ledger.to_dict()
        assert fractions is not None
        own = begun_in(inside, _index(cells, fractions), classes != NODATA, fractions[0].size)
        told = count(classes, k, areas, plan.known, cells, np.where(own.reshape(fractions.shape[1:]), fractions, 0))
        whole = {key: getattr(told, key) for key in ("forcing_km2", "difference_km2", "covered_km2")}
        return replace(own_ledger, **whole).to_dict()


def marks_of(classes: NDArray[np.uint8], keeps: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Marks of cells (rows, columns) from their classes and from which of them keep these."""
    marks = np.where(keeps, classes, FREE).astype(np.float32)
    marks[classes == NODATA] = VOID
    return marks


def _index(cells: tuple[NDArray[np.int64], NDArray[np.int64]], fractions: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number of the coarse cell of every cell (rows, columns), -1 for none."""
    rows, columns = cells
    return np.where((rows < 0)[:, None] | (columns < 0), -1, rows[:, None] * fractions.shape[2] + columns)


def asks_nothing(
    classes: NDArray[np.uint8], index: NDArray[np.int64], fractions: NDArray[np.float32], known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Coarse cells that have fine cells of classes which the scenario knows, and of which it says nothing."""
    told = np.zeros(256, bool)
    told[: len(known)] = known
    with_land = np.bincount(index[(index >= 0) & told[classes]], minlength=fractions[0].size) > 0
    return with_land & ~(np.nan_to_num(fractions) > 0).any(axis=0).ravel()


def begun_in(
    part: tuple[slice, slice], index: NDArray[np.int64], valid: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """Which of ``count`` coarse cells have their first cell with a class in a part: those of several chunks in one."""
    places = np.flatnonzero(valid & (index >= 0))[::-1]
    first = np.full(count, -1)
    first[index.ravel()[places]] = places  # of several the last one stays
    row, column = np.divmod(first, index.shape[1])
    rows, columns = part
    return (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)


def likeliest(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Class of the largest probability (rows, columns), the first of equal ones; in bands that stay in the cache."""
    classes = np.empty(probabilities.shape[1:], np.uint8)
    for top in range(0, len(classes), 32):
        classes[top : top + 32] = probabilities[:, top : top + 32].argmax(axis=0)
    return classes


class WindowGround(NamedTuple):
    """What was read for the windows of a chunk."""

    cover: Window
    """Cells that the arrays hold."""
    static: NDArray[np.float32]
    """(C_s, rows, columns), normalised."""
    prior: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    coarse: NDArray[np.float32]
    """(C_c, h, w): the scenario's whole grid."""


class WindowFields:
    """Makes the input fields of windows.

    Parameters
    ----------
    fine, coarse : Grid
        Of the maps, and of the scenario.
    tile : int
        Fine cells per side of a window.
    method : {"bilinear", "nearest"}
        How the forcing comes onto the fine cells; as in training.
    names : tuple of str
        Fields that the network takes.
    """

    def __init__(self, fine: Grid, coarse: Grid, tile: int, method: Interpolation, names: tuple[str, ...]) -> None:
        self._fine, self._coarse, self._tile, self._method, self._names = fine, coarse, tile, method, names
        self._cells = max(
            window_size(tile, fine.cell_y, coarse.cell_y),
            window_size(tile, fine.cell_x, coarse.cell_x),
        )
        # Windows lie on a lattice: those of one row share a matrix.
        self._rows = lru_cache(maxsize=64)(self._rows_of)
        self._columns = lru_cache(maxsize=512)(self._columns_of)

    def _rows_of(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        coarse = self._coarse
        south = coarse.north - coarse.rows * coarse.cell_y
        # Windows that reach beyond a pole or the raster see the outermost cells there, where nothing is kept.
        centres = np.clip(self._fine.latitudes(row, self._tile), south, coarse.north)
        first = float(coarse.latitudes(0, 1)[0])
        return window_matrix(centres, first, -coarse.cell_y, coarse.rows, self._cells, self._method)

    def _columns_of(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        coarse = self._coarse
        centres = self._fine.longitudes(column, self._tile)
        if not coarse.periodic:
            centres = np.clip(centres, coarse.west, coarse.west + coarse.columns * coarse.cell_x)
        first = float(coarse.longitudes(0, 1)[0])
        return window_matrix(centres, first, coarse.cell_x, coarse.columns, self._cells, self._method, coarse.periodic)

    def of(self, window: Window, ground: WindowGround, scalars: NDArray[np.float32]) -> Fields:
        """Fields of one window.

        Parameters
        ----------
        window : Window
            Inside ``ground.cover``.
        ground : WindowGround
            What was read.
        scalars : ndarray of shape (3,)
            Year, step and direction, as the normalisation makes them.
        """
        rows, wy = self._rows(window.row)
        columns, wx = self._columns(window.column)
        inside = slices(window, ground.cover)
        prior = ground.prior[inside]
        fields = {
            "coarse": ground.coarse[:, rows[:, None], columns],
            "wy": wy,
            "wx": wx,
            "static": ground.static[(slice(None), *inside)],
            "prior": prior,
            "prior_mask": (prior != NODATA).astype(np.uint8),
            "scalars": scalars,
        }
        return {name: fields[name] for name in self._names}


def scalars_of(year: int, before: int) -> NDArray[np.float32]:
    """Scalars of a step from one year's map to another's."""
    return scalars(year, abs(year - before), 1 if year > before else -1)

"""One chunk of one year: what is read for it, what the network makes of it, and the classes that follow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Pending
from earthsr.data.classes import NODATA
from earthsr.data.landuse_samples import Fields, stack
from earthsr.data.maps import Maps, Scratch
from earthsr.data.rasters import Window
from earthsr.inference.blend import ChunkSums, batches
from earthsr.inference.reconstruct.counts import Ledger, count
from earthsr.inference.reconstruct.plan import Plan, Step, area_km2, cells_of, fractions_of_classes
from earthsr.inference.reconstruct.progress import Chunk
from earthsr.inference.reconstruct.windows import Ground, WindowFields, scalars_of
from earthsr.inference.tiling import Tile, covering, slices
from earthsr.match_areas import match_areas

#: Marks in the scratch's last channel: a cell that may take any class, and one that has none.
FREE: Final = 255.0
VOID: Final = -1.0


@dataclass(frozen=True)
class Piece:
    """What is read for a chunk."""

    area: Window
    """Cells that are predicted."""
    tiles: list[Tile]
    """Windows that have a cell to be predicted."""
    ground: Ground | None
    """None where there is no such window."""
    marks: NDArray[np.float32]
    """(rows, columns) of the area: the class that a cell keeps, :data:`FREE` or :data:`VOID`."""
    before: NDArray[np.uint8]
    """(rows, columns) of the chunk: the prior."""
    earlier: NDArray[np.uint8] | None
    """The same a year before it."""


@dataclass(frozen=True)
class Made:
    """What came out of a chunk."""

    classes: NDArray[np.uint8]
    """(rows, columns), class indices; 255 where there is none."""
    layers: dict[str, NDArray[np.float32]]
    """Others that are kept."""
    record: dict[str, Any]
    """What was counted."""


class Worker:
    """Reads, computes and writes chunks.

    Parameters
    ----------
    plan : Plan
        What is done.
    maps : Maps
        Where maps lie.
    scratch : Scratch
        Where static fields lie that were read once: the world's channels, then the marks.
    """

    def __init__(self, plan: Plan, maps: Maps, scratch: Scratch) -> None:
        self.plan, self.maps, self.scratch = plan, maps, scratch
        method = plan.model.metadata.get("coarse_interpolation", "bilinear")
        names = tuple(each.name for each in plan.model.spec.inputs)
        self._fields = WindowFields(plan.grid, plan.world.scenario.grid, plan.tiles.tile, method, names)

    def needs(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """Chunks whose maps of the year before a chunk reads."""
        tiles = list(self.plan.tiles.tiles(self.plan.area(chunk)))
        return self.plan.touched(covering(tiles))

    def begin(self, chunk: Chunk) -> Made:
        """Take over the anchor's classes, and keep the static fields for all years."""
        world, window, began = self.plan.world, self.plan.window(chunk), time.perf_counter()
        classes = world.anchor(window)
        self.scratch.write(chunk.i, chunk.j, np.concatenate([world.static(window), self._marks(window, classes)[None]]))
        ledger = self._ledger(window, classes, None, None, None)
        return Made(classes, {}, {**ledger.to_dict(), "windows": 0, "seconds": time.perf_counter() - began})

    def _marks(self, window: Window, classes: NDArray[np.uint8]) -> NDArray[np.float32]:
        keeps = self.plan.world.protected(window) | np.isin(classes, self.plan.fixed)
        marks = np.where(keeps, classes, FREE).astype(np.float32)
        marks[classes == NODATA] = VOID
        return marks

    def read(self, step: Step, chunk: Chunk) -> Piece:
        """Read what a chunk of a year needs; its neighbours' maps of the year before have to be there."""
        plan, window, area = self.plan, self.plan.window(chunk), self.plan.area(chunk)
        assert step.before is not None
        tiles = list(plan.tiles.tiles(area))
        cover = covering(tiles)
        fields = self.scratch.read(cover)
        marks = fields[-1][slices(area, cover)]
        free = marks == FREE
        wanted = [tile for tile in tiles if free[slices(tile.keep, area)].any()]
        prior = self.maps.read("land_use", step.before, cover)
        ground = None
        if wanted:
            static = plan.normalisation.static(fields[:-1])
            ground = Ground(cover, static, prior, plan.world.scenario.fractions(step.year))
        earlier = None if step.earlier is None else self.maps.read("land_use", step.earlier, window)
        return Piece(area, wanted, ground, marks, prior[slices(window, cover)], earlier)

    def compute(self, step: Step, chunk: Chunk, piece: Piece) -> Made:
        """Predict, blend and decide."""
        plan, window, began = self.plan, self.plan.window(chunk), time.perf_counter()
        inside = slices(window, piece.area)
        kept = np.where(piece.marks == VOID, np.float32(NODATA), piece.marks).astype(np.uint8)
        free = piece.marks == FREE
        classes, layers, decoded = kept[inside], {}, None
        if piece.ground is not None:
            probabilities = self._probabilities(step, piece)
            found = probabilities.argmax(axis=0).astype(np.uint8)
            plain = np.where(free, found, kept)
            if plan.options.match_areas:
                found, decoded = self._matched(piece, probabilities, kept)
            classes = np.where(free, found, kept)[inside]
            layers = self._layers(probabilities, free, inside)
        ledger = self._ledger(window, classes, piece.before, piece.earlier, step.year)
        record = {**ledger.to_dict(), "windows": len(piece.tiles), "seconds": time.perf_counter() - began}
        if decoded is not None:
            before = self._ledger(window, plain[inside], piece.before, None, step.year)
            record["decoder"] = {**decoded, "difference_km2_before": before.to_dict()["difference_km2"]}
        return Made(classes, layers, record)

    def write(self, step: Step, chunk: Chunk, made: Made) -> None:
        """Write a chunk; what it holds is there when this returns."""
        window = self.plan.window(chunk)
        self.maps.write("land_use", step.year, window, made.classes)
        for name, values in made.layers.items():
            self.maps.write(name, step.year, window, values)

    def _probabilities(self, step: Step, piece: Piece) -> NDArray[np.float32]:
        """Blended probabilities (K, rows, columns) of an area; 0 where no window was predicted."""
        assert step.before is not None
        plan = self.plan
        sums = ChunkSums(plan.tiles, piece.area, 1, len(plan.world.table))
        waiting: deque[tuple[list[Tile], Pending[NDArray[np.float32]]]] = deque()

        def take() -> None:
            group, pending = waiting.popleft()
            for tile, prediction in zip(group, pending.result(), strict=True):
                sums.add(tile, prediction)

        for group, fields in self.inputs(step, piece):
            waiting.append((group, plan.model.submit_fields(fields, pad_to=plan.batch_size)))
            # A batch is started before the one before it is waited for.
            if len(waiting) > 1:
                take()
        while waiting:
            take()
        return sums.values

    def inputs(self, step: Step, piece: Piece) -> Iterator[tuple[list[Tile], Fields]]:
        """Batches of a chunk's windows: always the same ones, so that results do not depend on who computes them."""
        assert step.before is not None
        if piece.ground is None:
            return
        scalars = scalars_of(self.plan.normalisation, step.year, step.before)
        for group in batches(piece.tiles, self.plan.batch_size):
            yield group, stack([self._fields.of(tile.window, piece.ground, scalars) for tile in group])

    def _matched(
        self, piece: Piece, probabilities: NDArray[np.float32], kept: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Classes whose areas are the scenario's, and what that took."""
        assert piece.ground is not None
        plan, area = self.plan, piece.area
        index, fractions = self.cells(area, piece.ground.coarse)
        found = match_areas(
            probabilities,
            fractions,
            np.where(piece.marks == VOID, -1, index),
            plan.known,
            fixed=kept,
            pixel_area=area_km2(plan.grid, area),
        )
        return found.classes, {
            "cells_changed": found.statistics.changed,
            "coarse_cells": found.statistics.coarse_cells,
            "coarse_cells_unmet": found.statistics.unmet,
        }

    def cells(self, window: Window, coarse: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Index (rows, columns) into the flat coarse cells that a window touches, and their fractions (K, h, w)."""
        i, j = cells_of(self.plan.world.scenario.grid, self.plan.grid, window)
        rows, i = np.unique(i, return_inverse=True)
        columns, j = np.unique(j, return_inverse=True)
        fractions = fractions_of_classes(self.plan, coarse[:, rows[:, None], columns])
        index = i[:, None] * len(columns) + j
        outside = (rows < 0)[i][:, None] | (columns < 0)[j]
        return np.where(outside, -1, index), fractions

    def _layers(
        self, probabilities: NDArray[np.float32], free: NDArray[np.bool_], inside: tuple[slice, slice]
    ) -> dict[str, NDArray[np.float32]]:
        """What is kept beside classes, NaN where nothing was predicted."""
        found: dict[str, NDArray[np.float32]] = {}
        blank = ~free[inside]
        if "confidence" in self.plan.options.keep:
            found["confidence"] = np.where(blank, np.float32(np.nan), probabilities.max(axis=0)[inside])
        if "probabilities" in self.plan.options.keep:
            found["probabilities"] = np.where(blank, np.float32(np.nan), probabilities[(slice(None), *inside)])
        return found

    def _ledger(
        self,
        window: Window,
        classes: NDArray[np.uint8],
        before: NDArray[np.uint8] | None,
        earlier: NDArray[np.uint8] | None,
        year: int | None,
    ) -> Ledger:
        """Count a map; against the scenario where the year is one of it."""
        plan, scenario = self.plan, self.plan.world.scenario
        index, fractions = None, None
        if (classes != NODATA).any():
            at = plan.world.anchor_year if year is None else year
            if at in scenario.years:
                index, fractions = self.cells(window, scenario.fractions(at))
        areas = area_km2(plan.grid, window)
        return count(classes, len(plan.world.table), areas, plan.known, index, fractions, before, earlier)

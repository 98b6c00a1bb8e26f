"""A reconstruction as pieces of work: which chunk of which year comes after which, and what a worker does with one.

Whoever computes a chunk computes the same: neither windows nor batches depend on how many workers there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from earthsr.inference.journal import Key, Sums, Written
from earthsr.inference.pieces import ModelFile, Piece, Place
from earthsr.inference.tiling import covering
from earthsr.landuse.maps import Maps, Scratch, open_maps
from earthsr.landuse.reconstruct.chunk import ChunkInputs, ChunkMaps, Maker, marks_of
from earthsr.landuse.reconstruct.folder import RolloutFolder
from earthsr.landuse.reconstruct.plan import Chunk, Options, Plan, make_plan, open_inputs
from earthsr.landuse.sources.world_inputs import Inputs

#: Files of other chunks that one reads: their maps and static fields, and no confidence.
_READ: Final = ("maps.zarr/land_use/", "static/")

#: Year, row and column of a chunk, as a piece of work has them.
Item = tuple[int, int, int]


def key_of(year: int, chunk: Chunk) -> Key:
    """Name of a chunk of a year: years are the shards of the records."""
    return Key(str(year), f"{chunk.i:03d}-{chunk.j:03d}")


class RolloutPieces(Mapping[Key, Piece]):
    """All chunks of all years, made when they are asked for.

    A chunk comes after the chunks of the year before that its windows touch, whose maps are its prior, after the static
    fields of the same, and after its own map of two years before, against which changes back are counted.

    Parameters
    ----------
    plan : Plan
        What is done.
    empty : set of Chunk
        Chunks without a cell that has a class: in all years but the anchor's there is nothing to do.
    """

    def __init__(self, plan: Plan, empty: frozenset[Chunk]) -> None:
        self._plan, self._empty = plan, empty
        self._steps = {step.year: step for step in plan.steps}
        self._needs = lru_cache(maxsize=None)(self._touched)

    def __iter__(self) -> Iterator[Key]:
        return (key_of(step.year, chunk) for step in self._plan.steps for chunk in self._plan.lattice)

    def __len__(self) -> int:
        return len(self._plan.steps) * len(self._plan.lattice)

    def __getitem__(self, key: Key) -> Piece:
        step, chunk = self._steps[int(key.shard)], _chunk_of(key)
        item: Item = (step.year, *chunk)
        if step.before is None:
            return Piece(key, item)
        anchor, needs = self._plan.world.anchor_year, self._needs(chunk)
        after = [key_of(year, other) for year in dict.fromkeys((step.before, anchor)) for other in needs]
        if step.earlier is not None and step.earlier != anchor:
            after.append(key_of(step.earlier, chunk))
        return Piece(key, item, tuple(after), _READ)

    def assumed(self, maps: Maps, root: Path, key: Key) -> Sums | None:
        """What the files of a chunk hold that has nothing to do: there are none."""
        chunk = _chunk_of(key)
        if chunk not in self._empty or int(key.shard) == self._plan.world.anchor_year:
            return None
        return tuple((name, None) for name in files_of(maps, root, int(key.shard), chunk))

    def _touched(self, chunk: Chunk) -> tuple[Chunk, ...]:
        return self._plan.touched(covering(list(self._plan.tiles.tiles(self._plan.area(chunk)))))


def _chunk_of(key: Key) -> Chunk:
    row, _, column = key.name.partition("-")
    return Chunk(int(row), int(column))


def files_of(maps: Maps, root: Path, year: int, chunk: Chunk) -> tuple[str, ...]:
    """Files of a chunk of a year in the store of maps, below the root."""
    return tuple(maps.file(layer, year, *chunk).relative_to(root).as_posix() for layer in maps.spec.layers)


class Worker(Maker):
    """Makes the maps of a reconstruction, the anchor's first.

    Parameters
    ----------
    plan : Plan
        What is done.
    maps : Maps
        Where maps lie.
    scratch : Scratch
        Where static fields are kept that were read once.
    """

    plan: Plan
    maps: Maps
    scratch: Scratch

    def __init__(self, plan: Plan, maps: Maps, scratch: Scratch) -> None:
        super().__init__(plan, maps, scratch)

    def begin(self, chunk: Chunk) -> ChunkMaps:
        """Take over the anchor's classes, and keep the static fields for all years."""
        world, window, began = self.plan.world, self.plan.window(chunk), time.perf_counter()
        around = world.anchor(self.plan.area(chunk))
        classes = around[self._inside(chunk)]
        keeps = world.protected(window) | np.isin(classes, self.plan.fixed)
        marks = marks_of(classes, keeps)
        static = self.plan.normalisation.static(world.static(window))
        self.scratch.write(chunk.i, chunk.j, np.concatenate([static, marks[None]]))
        counts = self._counts(chunk, around, None, None, world.anchor_year)
        return ChunkMaps(classes, {}, {**counts, "windows": 0, "seconds": time.perf_counter() - began})


class RolloutStages:
    """What a worker does with a chunk of a year.

    Parameters
    ----------
    worker : Worker
        Makes maps.
    folder : RolloutFolder
        Where they are made.
    begun : float
        Of the manifest there.
    """

    def __init__(self, worker: Worker, folder: RolloutFolder, begun: float) -> None:
        self._worker, self._folder, self._begun = worker, folder, begun
        self._steps = {step.year: step for step in worker.plan.steps}

    def read(self, item: Item) -> ChunkInputs | None:
        """Read priors, static fields and the scenario; of the anchor nothing beforehand."""
        step = self._steps[item[0]]
        return None if step.before is None else self._worker.read(step, Chunk(*item[1:]))

    def compute(self, item: Item, values: ChunkInputs | None) -> ChunkMaps:
        """Predict, blend and decide."""
        chunk = Chunk(*item[1:])
        return (
            self._worker.begin(chunk) if values is None else self._worker.compute(self._steps[item[0]], chunk, values)
        )

    def write(self, item: Item, made: ChunkMaps) -> Written:
        """Write maps, where this reconstruction is still the one that is made."""
        (year, i, j), worker, root = item, self._worker, self._folder.path
        step, chunk = self._steps[year], Chunk(i, j)
        self._folder.require_current(self._begun)
        worker.write(step, chunk, made)
        files = files_of(worker.maps, root, year, chunk)
        if step.before is None:
            files += (worker.scratch.file(i, j).relative_to(root).as_posix(),)
        engine = worker.plan.model.computed_by if made.record["windows"] else ""
        return Written(files, made.record, engine)


def open_stages(plan: Plan, folder: RolloutFolder, begun: float) -> RolloutStages:
    """Open what a worker needs beside its plan.

    Raises
    ------
    DataError
        If the store of maps is damaged or gone, or the scenario says nothing of the land.
    """
    world = plan.world
    share = np.load(folder.land) if folder.land.exists() else world.forced_land(map(plan.window, plan.lattice))
    world.require_forcing(share, [step.year for step in plan.steps[1:]])
    scratch = Scratch.create_or_open(folder.scratch, plan.grid, len(world.static_channels) + 1, plan.side)
    return RolloutStages(Worker(plan, open_maps(folder.maps), scratch), folder, begun)


@dataclass(frozen=True)
class RolloutRecipe:
    """What a worker needs to take part in a reconstruction: names of files, and options."""

    model: ModelFile
    inputs: Inputs
    years: tuple[int, int]
    options: Options
    """With the sides of windows and batches that were chosen."""
    target: Path
    begun: float

    @classmethod
    def of(cls, plan: Plan, years: tuple[int, int], target: Path, begun: float) -> RolloutRecipe:
        """Describe a plan.

        Raises
        ------
        InputError
            If the model lies in no file that a worker could open.
        """
        return cls(
            ModelFile.of(plan.model),
            plan.world.inputs.absolute(),
            years,
            replace(plan.options, tile=plan.tiles.tile, batch_size=plan.batch_size),
            target.absolute(),
            begun,
        )

    def open(self, place: Place) -> RolloutStages:
        """Load the model and open the inputs."""
        model = self.model.open(place)
        plan = make_plan(model, open_inputs(model, self.inputs), self.years, self.options)
        return open_stages(plan, RolloutFolder(self.target), self.begun)

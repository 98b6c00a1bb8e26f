"""A reconstruction from beginning to end: begun or carried on, shared among processes, put into its final form."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from earthsr.backend import Model
from earthsr.errors import DataError, InputError, WorkError
from earthsr.inference.pipeline import FlowTimes, flow
from earthsr.inference.tiling import covering, slices
from earthsr.landuse.classes import NODATA
from earthsr.landuse.maps import Maps, MapsSpec, Scratch, create_maps, open_maps
from earthsr.landuse.reconstruct.chunk import ChunkInputs, ChunkMaps, Maker, marks_of
from earthsr.landuse.reconstruct.output import KINDS, files_of, finish, require_free
from earthsr.landuse.reconstruct.plan import Options, Plan, Step, make_plan, open_inputs
from earthsr.landuse.reconstruct.progress import Chunk, ChunkProgress, Present, SharedFolder, shares
from earthsr.landuse.sources.world_inputs import Inputs
from earthsr.ranks import Rank
from earthsr.store import fingerprint, require_other

_logger = logging.getLogger("earthsr")

#: Seconds to wait for a chunk of another process.
PATIENCE_S = 3600.0


def identity_of(plan: Plan) -> dict[str, Any]:
    """What decides the maps: a reconstruction is carried on by a command with the same of all these."""
    provenance = json.dumps(plan.world.provenance, sort_keys=True, default=str)
    return {
        "checkpoint": fingerprint(Path(str(plan.model.metadata["source"])))["sha256"],
        "inputs": hashlib.sha256(provenance.encode()).hexdigest(),
        "grid": plan.grid.lonlat,
        "years": list(plan.years),
        "anchor": plan.world.anchor_year,
        "options": {**asdict(plan.options), "tile": plan.tiles.tile, "batch_size": plan.batch_size},
        "backend": plan.model.backend.name,
        "precision": str(plan.model.precision),
        "bbox": plan.world.provenance["bbox"],
        "table": json.loads(plan.table.to_json()),
    }


def survey_anchor(plan: Plan) -> tuple[list[int], list[bool]]:
    """Windows that each chunk predicts a year, and whether it has a cell with a class; reads the anchor once."""
    windows, valid = [], []
    for chunk in tqdm(plan.lattice, desc="survey", unit="chunk", disable=None):
        area = plan.area(chunk)
        classes = plan.world.anchor(area)
        has = classes != NODATA
        valid.append(bool(has[slices(plan.window(chunk), area)].any()))
        free = has & ~np.isin(classes, plan.fixed) & ~plan.world.protected(area)
        tiles = plan.tiles.tiles(area) if free.any() else ()
        windows.append(sum(bool(free[slices(tile.keep, area)].any()) for tile in tiles))
    return windows, valid


@dataclass(frozen=True)
class Share:
    """What one process does."""

    plan: Plan
    rank: Rank
    work: SharedFolder
    manifest: Mapping[str, Any]

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Its chunks, row by row."""
        return tuple(c for c, owner in zip(self.plan.lattice, self.owners, strict=True) if owner == self.rank.number)

    @property
    def owners(self) -> list[int]:
        """Rank of each chunk of the lattice."""
        return shares(self.manifest["windows"], self.rank.of)

    @property
    def empty(self) -> frozenset[Chunk]:
        """Chunks without a cell that has a class: nothing is computed for them."""
        return frozenset(c for c, has in zip(self.plan.lattice, self.manifest["valid"], strict=True) if not has)

    def progress(self, patience_s: float) -> ChunkProgress:
        """Return the markers that all processes share."""
        owner = dict(zip(self.plan.lattice, self.owners, strict=True))

        def words(chunk: Chunk) -> str:
            return f"rank {owner[chunk]} of {self.rank.of}"

        return ChunkProgress(self.work.done, words, patience_s, self.plan.world.anchor_year, self.empty)


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
    scratch: Scratch

    def __init__(self, plan: Plan, maps: Maps, scratch: Scratch) -> None:
        super().__init__(plan, maps, scratch)

    def needs(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """Chunks whose maps of the year before a chunk reads."""
        tiles = list(self.plan.tiles.tiles(self.plan.area(chunk)))
        return self.plan.touched(covering(tiles))

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


def reconstruct(
    model: Model,
    inputs: Inputs,
    years: tuple[int, int],
    target: str | Path,
    options: Options | None = None,
    *,
    rank: Rank | None = None,
    patience_s: float = PATIENCE_S,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Roll a land-use model out over years and write the maps.

    The same call carries on after a kill, and several processes share the work when each is told its rank.

    Parameters
    ----------
    model : Model
        Of land-use classes.
    inputs : Inputs
        Anchor, scenario and static fields.
    years : tuple of int
        First and last year; those between them and the anchor are made too.
    target : str or Path
        ``.zarr``, ``.nc``, or ``.tif`` (one file a year, ``NAME_YEAR.tif``).
    options : Options, optional
        Windows, chunks, decoder.
    rank : Rank, optional
        Which of several processes this is.
    patience_s : float
        Seconds to wait for a chunk of another process.
    overwrite : bool
        Replace an output that is there, and what was begun for it from other inputs.

    Returns
    -------
    dict
        What was done, and, from the process that finished, figures by year and decade.

    Raises
    ------
    InputError
        If files, years or options do not fit; nothing is written then.
    WorkError
        If another process does not give what is waited for.
    """
    began, rank, work, options = time.perf_counter(), rank or Rank(), SharedFolder(Path(target)), options or Options()
    # What was there before is not what --overwrite asks for; what another process has finished since then is.
    since = time.time() if overwrite else -math.inf
    require_kind(work.target, options)
    world = open_inputs(model, inputs)
    try:
        plan = make_plan(model, world, years, options)
        require_other(files_of(work.target, plan), inputs.paths())
        _warn(plan)
        identity = identity_of(plan)
        names = [path.name for path in files_of(work.target, plan)]
        done_before = not work.path.exists() and work.finished(identity, names, since)
        manifest = None if done_before else _begun(plan, work, identity, overwrite, since)
        if manifest is None:
            return {"output": str(target), "finished": True, "carried_on": True, "chunks": 0, "seconds": 0.0}
        share = Share(plan, rank, work, manifest)
        with work.own(rank):
            times, done = _roll_out(share, patience_s)
        result: dict[str, Any] = {
            "output": str(target),
            "rank": rank.number,
            "world_size": rank.of,
            "chunks": done,
            "seconds": time.perf_counter() - began,
            "seconds_waiting_for_reads": times.waited_for_reads,
            "seconds_computing": times.computed,
            "seconds_waiting_for_writes": times.waited_for_writes,
        }
        return {**result, **_finished(share, overwrite)}
    finally:
        world.close()


def _warn(plan: Plan) -> None:
    """Say what the model has not learnt."""
    trained = plan.model.metadata.get("directions")
    for direction, word in ((1, "forwards"), (-1, "backwards")):
        asked = [step.year for step in plan.steps[1:] if step.direction == direction]
        if asked and trained is not None and word not in trained:
            _logger.warning(
                "%d maps are rolled out %s in time, which the model was not trained to do (data.directions is %s): "
                "expect drift, and see the report",
                len(asked),
                word,
                ", ".join(trained),
            )


def require_kind(target: Path, options: Options) -> None:
    """Check the suffix of an output.

    Raises
    ------
    InputError
        If it is of no known kind, or of one that does not hold what is to be kept.
    """
    if target.suffix.lower() not in KINDS:
        raise InputError(f"{target}: expected a name that ends in {', '.join(KINDS)}")
    if target.suffix.lower() == ".tif" and "probabilities" in options.keep:
        raise InputError(f"{target}: GeoTIFFs hold no probabilities; take .zarr or .nc, or --keep confidence")


def _begun(
    plan: Plan, work: SharedFolder, identity: Mapping[str, Any], overwrite: bool, since: float
) -> dict[str, Any] | None:
    """Make the shared folder, or find it made; None where everything is finished."""
    with work.locked():
        if overwrite:
            manifest = work.read_manifest()
            if manifest is not None and manifest["identity"] != json.loads(json.dumps(identity)):
                work.clear()
        manifest = work.require_same(identity)
        if manifest is not None:
            if not work.exporting.exists():
                require_free(work.target, plan, overwrite)
            return manifest
        try:
            if work.finished(identity, [path.name for path in files_of(work.target, plan)], since):
                work.remove()  # what the lock made, or a kill left
                return None
            require_free(work.target, plan, overwrite)
            work.clear()
            return _begin(plan, work, identity)
        except BaseException:
            work.remove()
            raise


def _begin(plan: Plan, work: SharedFolder, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Make everything that processes share."""
    windows, valid = survey_anchor(plan)
    share = plan.world.forced_land(map(plan.window, plan.lattice))
    gaps = plan.world.require_forcing(share, [step.year for step in plan.steps[1:]])
    if not any(valid):
        raise InputError(f"{plan.world.maps.paths([plan.world.anchor_year])[0]}: no cell of the maps has a class")
    layers = ("land_use", *plan.options.keep)
    spec = MapsSpec(plan.grid, plan.world.crs, plan.years, plan.table, plan.side, layers)
    create_maps(work.maps, spec, {"title": "earthsr reconstruct, not finished"})
    Scratch.create_or_open(work.scratch, plan.grid, len(plan.world.static_channels) + 1, plan.side)
    np.save(work.land, share)
    manifest = {"identity": dict(identity), "windows": windows, "valid": valid, "begun": time.time()}
    manifest["gaps"] = asdict(gaps)
    work.begin(manifest)
    written = work.read_manifest()
    assert written is not None
    return written


def _roll_out(share: Share, patience_s: float) -> tuple[FlowTimes, int]:
    """Do what is this process's to do."""
    plan, work, own, progress = share.plan, share.work, share.chunks, share.progress(patience_s)
    items = [(step, chunk) for step in plan.steps for chunk in own if not progress.done(step.year, chunk)]
    if not items:
        return FlowTimes(), 0  # others may be finishing, and have moved the maps
    windows = map(plan.window, plan.lattice)
    share_of_land = np.load(work.land) if work.land.exists() else plan.world.forced_land(windows)
    plan.world.require_forcing(share_of_land, [step.year for step in plan.steps[1:]])
    scratch = Scratch.create_or_open(work.scratch, plan.grid, len(plan.world.static_channels) + 1, plan.side)
    maps = open_maps(work.maps)
    worker, present = Worker(plan, maps, scratch), Present(progress, maps, scratch, plan.window)
    present.require(plan.years, own)

    def read(item: tuple[Step, Chunk]) -> ChunkInputs | None:
        step, chunk = item
        if step.before is None:
            return None
        needed = worker.needs(chunk)
        progress.wait(step.before, needed)
        present.require([step.before], needed)
        try:
            return worker.read(step, chunk)
        except DataError:
            present.require([plan.world.anchor_year, step.before, step.earlier or step.before], needed, readable=True)
            raise

    def compute(item: tuple[Step, Chunk], piece: ChunkInputs | None) -> ChunkMaps:
        step, chunk = item
        with progress.ends_waiting():
            return worker.begin(chunk) if piece is None else worker.compute(step, chunk, piece)

    def write(item: tuple[Step, Chunk], made: ChunkMaps) -> None:
        step, chunk = item
        with progress.ends_waiting():
            work.require_current(share.manifest)
            worker.write(step, chunk, made)
            kept = {name: 1 for name, values in made.layers.items() if np.isfinite(values).any()}
            progress.mark(step.year, chunk, {**made.record, "files": kept} if kept else made.record)

    label = "reconstruct" if share.rank.of == 1 else f"reconstruct {share.rank.number}/{share.rank.of}"
    return flow(items, read, compute, write, depth=1, label=label), len(items)


def _finished(share: Share, overwrite: bool) -> dict[str, Any]:
    """Put the maps into their final form, if nothing is missing."""
    plan, work = share.plan, share.work
    progress = share.progress(0.0)
    missing = sum(not progress.done(year, chunk) for year in plan.years for chunk in plan.lattice)
    # Whoever finishes removes the manifest before the markers.
    if missing and work.manifest.exists():
        return {"finished": False, "missing": missing}
    with work.locked():
        names = [path.name for path in files_of(work.target, plan)]
        there = work.finished(share.manifest["identity"], names)
        if not work.manifest.exists():
            work.remove()  # what the lock made
            if there:
                return {"finished": True, "by": "another process"}
            raise WorkError(f"{work.path}: was removed meanwhile; start the same command again to begin anew")
        # After a kill at the very end the maps are in their place already.
        moved = there if work.moved else {}
        figures = moved
        if not moved:
            maps = open_maps(work.maps)
            present = Present(progress, maps, None, plan.window)
            present.require(plan.years, plan.lattice)
            try:
                figures = finish(plan, maps, progress, work, share.manifest, overwrite)
            except DataError:
                present.require(plan.years, plan.lattice, readable=True)
                raise
        work.remove()
    return {"finished": True, **figures}

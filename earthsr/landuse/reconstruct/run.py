"""A reconstruction from beginning to end: begun or carried on, made chunk by chunk, put into its final form."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from earthsr.backend import Model
from earthsr.errors import DataError, InputError
from earthsr.inference.journal import Journal
from earthsr.inference.pieces import Scheduler, WorkTimes
from earthsr.inference.scheduler import LocalScheduler, make_all
from earthsr.inference.tiling import slices
from earthsr.landuse.classes import NODATA
from earthsr.landuse.maps import Maps, MapsSpec, Scratch, create_maps, open_maps
from earthsr.landuse.reconstruct.folder import RolloutFolder
from earthsr.landuse.reconstruct.output import KINDS, files_of, finish, require_free
from earthsr.landuse.reconstruct.plan import Options, Plan, make_plan, open_inputs
from earthsr.landuse.reconstruct.stages import RolloutPieces, RolloutRecipe, open_stages
from earthsr.landuse.sources.world_inputs import Inputs, WorldInputs
from earthsr.store import fingerprint, glance, require_other

_logger = logging.getLogger("earthsr")


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


def reconstruct(
    model: Model,
    inputs: Inputs,
    years: tuple[int, int],
    target: str | Path,
    options: Options | None = None,
    *,
    scheduler: Scheduler | None = None,
    overwrite: bool = False,
    full_hash: bool = False,
) -> dict[str, Any]:
    """Roll a land-use model out over years and write the maps.

    The same call carries on after a kill. What is done and is not as it was written is made again.

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
    scheduler : Scheduler, optional
        Who computes the chunks: this process where absent.
    overwrite : bool
        Replace an output that is there, and what was begun for it from other inputs.
    full_hash : bool
        Read all inputs again when carrying on, in place of their size, time and some of their blocks.

    Returns
    -------
    dict
        What was done, and figures by year and decade.

    Raises
    ------
    InputError
        If files, years or options do not fit, or another process writes the output; nothing is written then.
    WorkError
        If workers are lost.
    """
    began, work, options = time.perf_counter(), RolloutFolder(Path(target)), options or Options()
    require_kind(work.target, options)
    world = open_inputs(model, inputs)
    try:
        plan = make_plan(model, world, years, options)
        require_other(files_of(work.target, plan), inputs.paths())
        _warn(plan)
        seen = _seen(inputs)
        if not full_hash:
            _take_hashes(world, work, seen)
        identity = identity_of(plan)
        names = [path.name for path in files_of(work.target, plan)]
        done_before = not overwrite and not work.path.exists() and work.finished(identity, names)
        with contextlib.nullcontext() if done_before else work.owned(work.target):
            manifest = None if done_before else _begun(plan, work, identity, seen, overwrite)
            if manifest is None:
                return {"output": str(target), "finished": True, "carried_on": True, "chunks": 0, "seconds": 0.0}
            times, figures = _made(plan, years, work, manifest, scheduler or LocalScheduler(), overwrite)
        return {
            "output": str(target),
            "finished": True,
            "workers": times.workers,
            "chunks": times.pieces,
            "seconds": time.perf_counter() - began,
            "seconds_of_stages": {"read": times.reading, "compute": times.computing, "write": times.writing},
            **figures,
        }
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


def _seen(inputs: Inputs) -> dict[str, Any]:
    """What is asked for, and what its files look like at a glance."""
    files = [glance(text) for text in inputs.paths() if text is not None]
    seen: dict[str, Any] = json.loads(json.dumps({"inputs": asdict(inputs), "files": files}, default=str))
    return seen


def _take_hashes(world: WorldInputs, work: RolloutFolder, seen: Mapping[str, Any]) -> None:
    """Take the hashes of inputs over that look as they did when this was begun: 15 GB take half a minute to read."""
    manifest = work.read_manifest()
    if manifest is not None and manifest.get("seen") == seen:
        world.provenance = manifest["provenance"]


def _begun(
    plan: Plan, work: RolloutFolder, identity: Mapping[str, Any], seen: Mapping[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """Begin, or find it begun; None where everything is finished."""
    manifest = work.read_manifest()
    if overwrite and manifest is not None and manifest["identity"] != json.loads(json.dumps(identity)):
        work.clear()
    manifest = work.require_same(identity)
    if manifest is not None:
        if not work.exporting.exists():
            require_free(work.target, plan, overwrite)
        return manifest
    try:
        if not overwrite and work.finished(identity, [path.name for path in files_of(work.target, plan)]):
            work.remove()  # what a kill left
            return None
        require_free(work.target, plan, overwrite)
        work.clear()
        return _begin(plan, work, identity, seen)
    except BaseException:
        work.remove()
        raise


def _begin(plan: Plan, work: RolloutFolder, identity: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """Make what all workers read."""
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
    manifest |= {"seen": dict(seen), "provenance": plan.world.provenance}
    manifest["gaps"] = asdict(gaps)
    work.begin(manifest)
    written = work.read_manifest()
    assert written is not None
    return written


def _made(
    plan: Plan,
    years: tuple[int, int],
    work: RolloutFolder,
    manifest: Mapping[str, Any],
    scheduler: Scheduler,
    overwrite: bool,
) -> tuple[WorkTimes, Mapping[str, Any]]:
    """Make all chunks, and bring the maps into their final form."""
    names = [path.name for path in files_of(work.target, plan)]
    figures: Mapping[str, Any] = {}
    times = WorkTimes()
    if work.moved:
        # After a kill at the very end the maps are in their place already.
        figures = work.finished(manifest["identity"], names)
    if not figures:
        maps = _opened(work)
        empty = (chunk for chunk, valid in zip(plan.lattice, manifest["valid"], strict=True) if not valid)
        pieces = RolloutPieces(plan, frozenset(empty))
        journal = Journal(work.done, work.path, partial(pieces.assumed, maps, work.path))
        times = _roll_out(plan, years, work, manifest, pieces, journal, scheduler)
        figures = finish(plan, maps, journal, work, manifest, overwrite)
    work.remove()
    return times, figures


def _opened(work: RolloutFolder) -> Maps:
    try:
        return open_maps(work.maps)
    except DataError as error:
        raise DataError(f"{error}; to begin anew: rm -r {shlex.quote(str(work.path))}") from None


def _roll_out(
    plan: Plan,
    years: tuple[int, int],
    work: RolloutFolder,
    manifest: Mapping[str, Any],
    pieces: RolloutPieces,
    journal: Journal,
    scheduler: Scheduler,
) -> WorkTimes:
    """Make chunks until all are there and hold what was written."""
    recipe = stages = None
    if isinstance(scheduler, LocalScheduler):
        stages = open_stages(plan, work, manifest["begun"])
    else:
        recipe = RolloutRecipe.of(plan, years, work.target, manifest["begun"])
    return make_all(scheduler, recipe, pieces, journal, stages=stages, label="reconstruct", whole=False)

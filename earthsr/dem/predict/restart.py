"""Predictions that survive a kill: what grows beside the output, what is recorded of it, and how it becomes the output.

One piece of the output is one piece of work. Its values lie in a folder beside the target as they will be in the file
(:mod:`earthsr.geo.pieces`), its record says what they hold (:mod:`earthsr.inference.journal`), and whoever is asked for
the same prediction again does what is not there, or not as it was written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

import earthsr
from earthsr.backend import Model
from earthsr.dem.predict.enlarge import ChunkResult, ChunkStages, EnlargeResult
from earthsr.dem.predict.keep import KeepRequest, files_of, open_kept
from earthsr.dem.predict.placement import move
from earthsr.dem.predict.plan import EnlargePlan, PredictOptions, make_plan, surveyed_mean, warn_of_cells
from earthsr.dem.predict.provenance import describe, summary
from earthsr.errors import EarthsrWarning, InputError
from earthsr.geo import open_source
from earthsr.geo.elevations import PLAUSIBLE_M, Elevations, Positive, elevations
from earthsr.geo.grid import Window
from earthsr.geo.pieces import PieceStore, piece_store
from earthsr.geo.tiles import TilePieces
from earthsr.geo.values import Voids
from earthsr.inference.journal import Journal, Key, Written
from earthsr.inference.pieces import ModelFile, Piece, Place, Scheduler
from earthsr.inference.scheduler import LocalScheduler, make_all
from earthsr.store import WorkFolder, cannot_write, flush, glance, place, work_name

_logger = logging.getLogger("earthsr")

#: Names in the folder of work.
_MANIFEST: Final = "manifest"
_PLACING: Final = "placing"
_DONE: Final = "done"


@dataclass(frozen=True)
class RasterRequest:
    """What is to be predicted, as it is asked for; picklable."""

    source: str
    options: PredictOptions
    bbox: tuple[float, float, float, float] | None = None
    nodata: Voids = None
    units: str | None = None
    positive: Positive | None = None
    ground: tuple[float, ...] = ()
    """Stored numbers that are ground although they stand alone."""
    keep: KeepRequest | None = None
    full_hash: bool = False
    """Whether what is carried on is of the same inputs to the last byte, and not as far as a glance tells."""
    moved: tuple[float, float, str] | None = None
    """Fine cells east and north by which the input is moved, and why."""


def plan_of(
    request: RasterRequest, raster: Elevations, models: list[Model], known: list[dict[str, Any]] | None = None
) -> EnlargePlan:
    """Make the plan of a request.

    Parameters
    ----------
    request : RasterRequest
        What is wanted.
    raster : Elevations
        Its source; it is moved already.
    models : list of Model
        The model, or an ensemble.
    known : list of dict, optional
        What was measured of the rasters that stay.
    """
    raster.name_heights()
    plan = make_plan(models, raster, request.options, request.bbox)
    if known is None:
        warn_of_cells(models[0], raster)
    if request.keep is None:
        return plan
    return replace(plan, kept=open_kept(request.keep, raster, plan.scale, known or ()))


class _PieceStages(ChunkStages):
    """Reads, computes and writes a piece."""

    def __init__(self, plan: EnlargePlan, mean: float, store: PieceStore) -> None:
        super().__init__(plan, mean)
        self._store = store

    def read(self, item: tuple[int, ...]) -> Any:
        return super().read(Window(*item))

    def compute(self, item: tuple[int, ...], piece: Any) -> ChunkResult:
        return super().compute(Window(*item), piece)

    def write(self, item: tuple[int, ...], made: ChunkResult) -> Written:
        return Written(self._store.put(Window(*item), made.bands), made.counts())


@dataclass(frozen=True)
class PredictRecipe:
    """How a worker opens what it needs: the model, the input, the folder of work."""

    models: tuple[ModelFile, ...]
    request: RasterRequest
    mean: float
    known: tuple[dict[str, Any], ...]
    store: PieceStore

    def open(self, place: Place) -> _PieceStages:
        """Open it."""
        models = [file.open(place) for file in self.models]
        request = self.request
        raster = elevations(
            open_source(request.source, nodata=request.nodata, units=request.units),
            positive=request.positive,
            keep=request.ground,
        )
        if request.moved is not None:
            move(raster, *request.moved[:2], models[0].spec.scale, request.moved[2])
        plan = plan_of(request, raster, models, list(self.known))
        return _PieceStages(plan.recut(self.store.windows()), self.mean, self.store)


class PredictWork(WorkFolder):
    """One prediction that is made, or was begun.

    Parameters
    ----------
    target : Path
        The output.
    tiles : float or None
        Degrees of a tile, where the output is a folder of tiles.
    request : RasterRequest
        What is asked for.
    models : list of Model
        The model, or an ensemble.
    """

    def __init__(self, target: Path, tiles: float | None, request: RasterRequest, models: list[Model]) -> None:
        super().__init__(work_name(target))
        self.target, self.tiles, self.request, self.models = target, tiles, request, models
        self._manifest: dict[str, Any] = {}
        self._identity = json.loads(json.dumps(self._asked()))

    @staticmethod
    def placed(target: Path) -> bool:
        """Whether what lies at a target was made by a run that was killed as it had finished."""
        placing = WorkFolder(work_name(target)).read(_PLACING)
        try:
            return placing is not None and target.stat().st_ino == placing["inode"]
        except OSError:
            return False

    def _asked(self) -> dict[str, Any]:
        """What tells this prediction from others: inputs, model, options."""
        request, keep = self.request, self.request.keep
        kept = [] if keep is None else [file for text in keep.sources for file in files_of(text)]
        values: dict[str, Any] = {
            "earthsr version": earthsr.__version__,
            "input": glance(request.source, request.full_hash),
            "model": [_fingerprint(model) for model in self.models],
            "backend": self.models[0].computed_by,
            "bbox": request.bbox,
            "nodata": request.nodata if isinstance(request.nodata, float | int | None) else list(request.nodata),
            "units": request.units,
            "positive": request.positive,
            "numbers to keep": list(request.ground),
            "rasters to keep": [glance(file, request.full_hash) for file in kept],
            "feather": None if keep is None else keep.feather,
            "offset": None if request.moved is None else list(request.moved[:2]),
            "tiles": self.tiles,
        }
        options = asdict(request.options)
        del options["clip"]  # what is finished without it has no cell that it would change
        return {**values, **{name.replace("_", " "): value for name, value in options.items()}}

    def plan(self, raster: Elevations, overwrite: bool) -> EnlargePlan:
        """Make the plan, of what was measured when the work was begun where it was.

        Raises
        ------
        InputError
            If something else was begun for this target.
        """
        manifest = self.read(_MANIFEST)
        if manifest is not None:
            differs = [key for key, value in self._identity.items() if manifest["identity"].get(key) != value]
            if differs and not overwrite:
                raise InputError(
                    f"{self.target}: was begun with another {', '.join(differs)}; give the same to carry on, or "
                    f"--overwrite to begin anew ({self.path} holds what is finished)"
                )
            if differs:
                _logger.info("%s: was begun with another %s; begins anew", self.target, ", ".join(differs))
                self.remove((f"{_MANIFEST}.json",))
                manifest = None
        elif self.path.is_dir():
            self.remove()  # killed before it had begun
        plan = plan_of(self.request, raster, self.models, manifest["kept"] if manifest is not None else None)
        try:
            mean = surveyed_mean(plan) if manifest is None else manifest["mean"]
            self._manifest = manifest or {
                "identity": self._identity,
                "mean": mean,
                "kept": [] if plan.kept is None else plan.kept.measured(),
            }
            return plan.recut(self.store(plan, mean).windows())
        except BaseException:
            if plan.kept is not None:
                plan.kept.close()
            raise

    def store(self, plan: EnlargePlan, mean: float) -> PieceStore:
        """Where the pieces of a plan lie; ``mean`` is the raster's, for the provenance of tiles."""
        where = self.path.absolute(), self.target, plan.output, plan.bands, plan.side // 2, plan.side
        if self.tiles is None:
            return piece_store(*where)
        attributes = describe(plan, mean)
        when = self._identity["input"]["time_ns"] / 1e9
        return TilePieces(*where, degrees=self.tiles, attributes=attributes, when=when)

    def run(self, plan: EnlargePlan, scheduler: Scheduler, overwrite: bool) -> dict[str, Any]:
        """Do what is not done yet, and bring the output to its place.

        Raises
        ------
        InputError
            If the disk is too small, or full; what is finished stays.
        ResultError
            If a cell can be no elevation on Earth; what is finished stays.
        """
        placing = self.read(_PLACING)
        if placing is not None and self.placed(self.target):
            self.remove(last=(f"{_PLACING}.json",))
            return dict(placing["result"])
        began = time.perf_counter()
        store = self.store(plan, self._manifest["mean"])
        pieces = {
            Key(str(window.row), str(window.column)): Piece(Key(str(window.row), str(window.column)), tuple(window))
            for window in plan.chunks
        }
        journal: Journal | None = None
        try:
            self._begin(store, plan)
            journal = Journal(self.path / _DONE, self.path)
            times = self._done(plan, store, scheduler, journal, pieces)
            outcome = EnlargeResult()
            for shard in dict.fromkeys(key.shard for key in pieces):
                for counts in journal.counts(shard):
                    outcome.add(counts)
            if outcome.clipped:
                warnings.warn(
                    f"{self.target}: {outcome.clipped} cells were predicted beyond {PLAUSIBLE_M[0]:,} or "
                    f"{PLAUSIBLE_M[1]:,} m, and have the bound's value (--clip)",
                    EarthsrWarning,
                    stacklevel=4,
                )
            provenance = describe(plan, self._manifest["mean"], outcome)
            whole = store.finish(plan.chunks, provenance)
            flush(whole)
            seconds = time.perf_counter() - began
            result = {
                "output": str(self.target),
                **summary(plan, outcome, times, seconds),
                "provenance": provenance,
            }
            self.write(_PLACING, {"inode": whole.stat().st_ino, "result": result})
            # Before the file that they belong to, which says that all is done.
            for file, beside in store.companions().items():
                place(file, beside, overwrite=True)
            place(whole, self.target, overwrite)
            self.remove(last=(f"{_PLACING}.json",))
        except BaseException:
            done = len(journal) if journal is not None else 0
            if not done:
                self.remove((f"{_MANIFEST}.json",))
                self.forget()
            else:
                _logger.warning(
                    "%s: %d of %d pieces are finished and stay in %s; the same command carries on",
                    self.target,
                    done,
                    len(pieces),
                    self.path,
                )
            raise
        return result

    def _begin(self, store: PieceStore, plan: EnlargePlan) -> None:
        if self.read(_MANIFEST) is None:
            self.make()
            size = round(store.room * plan.output.rows * plan.output.columns * len(plan.bands))
            free = shutil.disk_usage(self.path).free
            if free < size:
                gib = size / 2**30, free / 2**30
                words = f"its cells need {gib[0]:.1f} GiB while it is made and {gib[1]:.1f} are free"
                raise cannot_write(self.target, words)
            store.create()
            self.write(_MANIFEST, self._manifest)
        else:
            store.create()

    def _done(
        self, plan: EnlargePlan, store: PieceStore, scheduler: Scheduler, journal: Journal, pieces: dict[Key, Piece]
    ) -> dict[str, float]:
        """Do the pieces; seconds of reading, computing and writing them."""
        recipe = None
        if not isinstance(scheduler, LocalScheduler):
            models, known = tuple(map(ModelFile.of, self.models)), tuple(self._manifest["kept"])
            recipe = PredictRecipe(models, self.request, self._manifest["mean"], known, store)
        stages = _PieceStages(plan, self._manifest["mean"], store)
        times = make_all(scheduler, recipe, pieces, journal, stages=stages, label="predict")
        return {name: getattr(times, name) for name in ("reading", "computing", "writing")}


def _fingerprint(model: Model) -> str:
    """What tells a model from others."""
    digest = hashlib.sha256()
    source = model.metadata.get("source")
    weights = model.weights if model.exported is None else {}
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    if not weights and source:
        digest.update(json.dumps(glance(str(source))).encode())
    digest.update(json.dumps(model.normalisation.to_dict(), sort_keys=True).encode())
    digest.update(repr(model.spec).encode())
    return digest.hexdigest()[:32]

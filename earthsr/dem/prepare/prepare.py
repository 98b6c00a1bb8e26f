"""From archives of elevation to training files: checked, registered, cut, and written so that a kill costs little.

Patches are cut in shards, which are pieces of work: one process reads the next while it writes the last, and workers of
Dask share them out. Whole files are put together by one process, since HDF5 has one writer.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from earthsr.dem.prepare.fit_degradation import FittedDegradation, draw_degradations, fit_degradation, mean_kernel
from earthsr.dem.prepare.output import Provenance, Summary, assemble, finished, notes_of, summarise
from earthsr.dem.prepare.pairs import SeaCells, align
from earthsr.dem.prepare.plan import SPLITS, DemPlan, Job, Split, lay_out, shards
from earthsr.dem.prepare.register import MODES, Mode, Registration, measure_sea, register_region
from earthsr.dem.prepare.shards import ShardItem, ShardRecipe, Shards, ShardStages, leftovers, move_into_place
from earthsr.dem.prepare.sources import Archive, Reading, require_one_size
from earthsr.errors import EarthsrWarning, InputError
from earthsr.geo.elevations import Positive
from earthsr.geo.values import Voids, voids_of
from earthsr.inference.journal import Key
from earthsr.inference.pieces import Piece, Scheduler
from earthsr.inference.scheduler import LocalScheduler, make_all
from earthsr.store import (
    absolute,
    disk_errors,
    finish_placing,
    owned,
    require_free,
    require_other,
    require_writable,
    write_json,
)

_logger = logging.getLogger("earthsr")

#: Fine and coarse rasters as they were named, and how they are read.
Sources = tuple[tuple[str, ...], tuple[str, ...], Reading]

#: Patches of a shard, and bytes of its fine cells: so much is done again after a kill, at most.
_SHARD_PATCHES: Final = 256
_SHARD_BYTES: Final = 2**25


@dataclass(frozen=True)
class PreparedDem:
    """What was written."""

    counts: dict[str, int]
    """Patches per split."""
    left_out: dict[str, int]
    """Patches per split with too few valid cells."""
    surfaces: dict[str, dict[str, int]]
    """Patches of land, coast and ocean per split."""
    regions: dict[str, list[str]]
    """Regions with patches per split."""
    registration: list[dict[str, Any]]
    """Per region, in fine cells; empty without a coarse product."""
    notes: list[str]
    """What was found, assumed or left out."""
    bytes_on_disk: int
    """Of all files together."""


def prepare_dem(
    root: str | Path,
    hr: Sequence[str | Path],
    lr: Sequence[str | Path] = (),
    *,
    plan: DemPlan | None = None,
    nodata: Voids = None,
    lr_nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    lr_positive: Positive | None = None,
    keep: Sequence[float] = (),
    crs: str | None = None,
    register: Mode = "auto",
    resume: bool = False,
    overwrite: bool = False,
    scheduler: Scheduler | None = None,
) -> PreparedDem:
    """Write ``{train,valid,test}/{train,valid,test}.h5`` of patches from rasters of elevation.

    Fine cells are the rasters' own. Coarse cells are means of blocks of ``scale x scale`` fine cells, or those of an
    independent product, interpolated (cubic convolution) at the centres of the blocks that lie nearest to its cells.

    Parameters
    ----------
    root : str or Path
        Folder to write into.
    hr : sequence of str or Path
        ``[REGION=]PATH`` of rasters with the fine cells, in metres; those of one region are one mosaic. The region is
        called as the file where no name is given, and with folders where several files are.
    lr : sequence of str or Path
        ``[REGION=]PATH`` of an independent coarse product.
    plan : DemPlan, optional
        Scale, patches and splits.
    nodata, lr_nodata : float or sequence of float, optional
        Stored numbers of fine and of coarse rasters that stand for no value, besides those that the files name.
    units : str, optional
        Of all rasters, in place of what the files say.
    positive, lr_positive : {"up", "down"}, optional
        Which way values of fine and of coarse rasters count, in place of what the files say; depths are turned into
        heights.
    keep : sequence of float
        Stored numbers that are ground although they are repeated and far from all their neighbours.
    crs : str, optional
        Reproject rasters that are in another CRS to this one; truth is then interpolated (bilinear), onto cells of
        the size that the first raster has there.
    register : {"auto", "report", "off"}
        What to do about an offset between the products: correct half a pixel and warn of others, only report, or not
        even measure.
    resume : bool
        Carry on what an earlier call with the same arguments and files began. The files are the same as without the
        interruption.
    overwrite : bool
        Replace data that the folder holds already.
    scheduler : Scheduler, optional
        Who cuts the patches (:func:`earthsr.inference.make_scheduler`): this process where absent.

    Returns
    -------
    PreparedDem
        What was written.

    Raises
    ------
    InputError, DataError
        If something does not fit; the message names file and cell, and the folder stays as it was.

    Notes
    -----
    A coarse cell has no value where its block touches a void, or where the product has none. Fine cells of such a
    block are masked with it: where nothing is known no claim is made, and neither loss nor score counts them. Fine
    values are NaN where the mask is 0.

    Training patches start every ``stride`` coarse cells. Patches of validation and test overlap by the border of one
    coarse cell at each edge that scores leave out. Of regions that are larger than some fifty million fine cells the
    offset is measured on windows that are spread over them.

    Examples
    --------
    >>> import earthsr
    >>> plan = earthsr.DemPlan(patch=16, shares=(0.6, 0.2, 0.2))
    >>> done = earthsr.prepare_dem("patches", ["elevation.tif"], plan=plan, units="m", overwrite=True)
    >>> sorted(done.counts)
    ['test', 'train', 'valid']
    """
    plan, root = plan or DemPlan(), Path(root)
    plan.check()
    if register not in MODES:
        raise InputError(f"--register is {register!r}, expected {', '.join(MODES)}")
    require_writable(root)
    _require_no_files(root)
    require_other([root / split / f"{split}.h5" for split in SPLITS], [*hr, *lr])
    if not resume and not leftovers(root):
        require_free(root, SPLITS, overwrite)
    _require_products(plan, lr)
    reading = Reading(voids_of(nodata), voids_of(lr_nodata), units, positive, lr_positive, tuple(keep), crs)
    archive = Archive(hr, lr, reading, plan.scale)
    if not plan.mix_cell_sizes:
        require_one_size(archive.grids)
    splits = list(lay_out(archive, plan).jobs)
    provenance = Provenance.of(archive, plan, reading, register)
    with owned(root, inside=True):
        document = _carried_out(
            root,
            archive,
            (tuple(map(absolute, hr)), tuple(map(absolute, lr)), reading),
            plan,
            register,
            provenance,
            splits,
            resume,
            overwrite,
            scheduler or LocalScheduler(),
        )
    for text in document["notes"]:
        _logger.info(text)
    for text in document["warnings"]:
        warnings.warn(text, EarthsrWarning, stacklevel=2)
    return PreparedDem(
        **document["result"],
        registration=document["registration"],
        notes=[*document["notes"], *document["warnings"]],
        bytes_on_disk=sum((root / split / f"{split}.h5").stat().st_size for split in splits),
    )


def _require_products(plan: DemPlan, lr: Sequence[str | Path]) -> None:
    """Raise an :class:`InputError` where it is not clear what coarse cells are made of, or nothing is there to fit."""
    if lr and plan.degradation != DemPlan.degradation:
        raise InputError(
            f"--degradation {plan.degradation} makes coarse cells of fine ones, and --lr {lr[0]} brings them: leave "
            "one of them out"
        )
    if plan.fit_degradation and not lr:
        raise InputError("--fit-degradation fits a kernel to a coarse product: name one with --lr")


def _require_no_files(root: Path) -> None:
    """Raise an :class:`InputError` where something else has the name of a folder or file that will be written."""
    for split in SPLITS:
        folder, path = root / split, root / split / f"{split}.h5"
        if folder.exists() and not folder.is_dir():
            raise InputError(f"cannot write {folder}: there is a file in its place; choose another")
        if path.is_dir():
            raise InputError(f"cannot write {path}: there is a folder in its place; choose another")


def _carried_out(
    root: Path,
    archive: Archive,
    sources: Sources,
    plan: DemPlan,
    register: Mode,
    provenance: Provenance,
    splits: Sequence[str],
    resume: bool,
    overwrite: bool,
    scheduler: Scheduler,
) -> dict[str, Any]:
    """Prepare anew, carry on, or find all done; returns what the files say of themselves."""
    work = Shards(root, provenance.key)
    if not work.committing:
        finish_placing(root)  # of another writer
    document = finished(root, provenance.key, splits) if resume and not work.committing else None
    if document is not None:
        shutil.rmtree(work.path, ignore_errors=True)  # left by a kill when all was done
        _logger.warning(f"{root}: is complete already")
        return document
    if not leftovers(root):
        require_free(root, SPLITS, overwrite)
    try:
        with disk_errors(root):
            work.begin(resume, overwrite)
            return _prepare(work, archive, sources, plan, register, provenance, scheduler)
    except InputError:
        work.forget()
        raise
    except KeyboardInterrupt:
        _logger.warning(f"{root}: what is finished is kept; --resume carries it on")
        raise


def _prepare(
    work: Shards,
    archive: Archive,
    sources: Sources,
    plan: DemPlan,
    mode: Mode,
    provenance: Provenance,
    scheduler: Scheduler,
) -> dict[str, Any]:
    """Go through all stages, or through those that are left; returns what the files say of themselves."""
    document = work.read("commit")
    if document is None:
        registered = work.read("registration")
        if registered is None:
            registered = _registered(archive, plan, mode)
            work.write("registration", registered)
        corrections = {
            row["region"]: (row["corrected"]["rows"], row["corrected"]["columns"]) for row in registered["registration"]
        }
        layout = lay_out(archive, plan, corrections)
        pieces = {split: shards(jobs, _patches_per_shard(plan)) for split, jobs in layout.jobs.items()}
        held = work.read("summary")
        # After a kill later on too: what the files are put together from is held to its records first.
        wanted = pieces if held is None else {s: own for s, own in pieces.items() if not work.file(s).is_file()}
        if wanted:
            flat = frozenset(row["region"] for row in registered["flat_sea"])
            recipe = ShardRecipe(*sources, plan, layout.alignments, flat, provenance.key, work.path.parent.absolute())
            _cut(work, archive, recipe, wanted, scheduler)
        if held is None:
            summary = summarise(work, plan, layout, pieces)
            work.write("summary", asdict(summary))
        else:
            summary = Summary(**held)
        rest = {
            "notes": [*registered["notes"], *layout.notes, *archive.notes(), *notes_of(summary, plan)],
            "warnings": [*registered["warnings"], *archive.warnings()],
            "flat_sea": registered["flat_sea"],
            "degradation": registered["degradation"],
            "result": summary.result(),
        }
        document = provenance.document(archive, registered["registration"], rest)
        for split, own in pieces.items():
            if not work.file(split).is_file():
                assemble(work, archive, plan, summary, split, len(own), provenance, document)
            work.remove_shards(split)
        work.write("commit", document)
    _write_degradation(work.path.parent, document["degradation"], plan.scale)
    move_into_place(work, list(document["result"]["counts"]), SPLITS)
    return document


def _write_degradation(root: Path, fits: Mapping[str, Any], scale: int) -> None:
    """Write the fitted kernels and their picture, or remove those of a preparation before this one."""
    kernels, picture = root / "degradation.json", root / "degradation.png"
    if not fits:
        kernels.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)
        return
    regions = {name: FittedDegradation.from_dict(fit) for name, fit in fits.items()}
    write_json(kernels, {"scale": scale, "kernel": mean_kernel(list(regions.values())).to_dict(), "regions": fits})
    draw_degradations(regions, scale, picture)


def _registered(archive: Archive, plan: DemPlan, mode: Mode) -> dict[str, Any]:
    """Measure how the coarse product lies in every region, and whether the truth has a sea floor where it has one."""
    registrations: list[Registration] = []
    flat: dict[str, SeaCells] = {}
    fits: dict[str, FittedDegradation] = {}
    if archive.coarse:
        for name in tqdm(archive.regions, desc="registration", disable=True if len(archive.regions) < 5 else None):
            with archive.open(name) as (hr, lr):
                assert lr is not None
                sea = measure_sea(hr, lr, plan.scale)
                if sea.is_flat:
                    flat[name] = sea
                registrations.append(register_region(name, hr, lr, plan.scale, mode, name in flat))
                if plan.fit_degradation:
                    alignment = align(hr.georeference, lr.georeference, plan.scale, registrations[-1].corrected)
                    fits[name] = fit_degradation(name, hr, lr, alignment, plan.scale, name in flat)
    return {
        "registration": [registration.to_dict() for registration in registrations],
        "flat_sea": [sea.to_dict(name, plan.flat_sea) for name, sea in flat.items()],
        "degradation": {name: fit.to_dict() for name, fit in fits.items()},
        "notes": [
            *(registration.words() for registration in registrations),
            *(fit.words(name) for name, fit in fits.items()),
        ],
        "warnings": [
            *(sea.warning(name, plan.flat_sea) for name, sea in flat.items()),
            *(text for registration in registrations if (text := registration.warning())),
        ],
    }


def _patches_per_shard(plan: DemPlan) -> int:
    return max(min(_SHARD_PATCHES, _SHARD_BYTES // (4 * (plan.patch * plan.scale) ** 2)), 1)


def _cut(
    work: Shards, archive: Archive, recipe: ShardRecipe, pieces: Mapping[Split, list[list[Job]]], scheduler: Scheduler
) -> None:
    """Write the shards that are not there yet, and those that are not what was written."""
    items: list[ShardItem] = [(split, n, jobs) for split, own in pieces.items() for n, jobs in enumerate(own)]
    keyed = {Key(split, f"{number:06d}"): (split, number, jobs) for split, number, jobs in items}
    with contextlib.closing(ShardStages(archive, recipe, work)) as stages:
        work_of_shards = {key: Piece(key, item) for key, item in keyed.items()}
        make_all(scheduler, recipe, work_of_shards, work.journal(), stages=stages, label="prepare")

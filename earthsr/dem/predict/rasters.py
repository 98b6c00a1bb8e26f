"""From raster to raster: files or DataArrays in, georeferenced files or DataArrays out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from earthsr.backend import Model
from earthsr.dem.predict.enlarge import enlarge
from earthsr.dem.predict.ensemble import Member
from earthsr.dem.predict.keep import FEATHER, KeepRequest, split_keep
from earthsr.dem.predict.placement import measured_offset, move, offset_of
from earthsr.dem.predict.plan import EnlargePlan, PredictOptions, surveyed_mean
from earthsr.dem.predict.provenance import describe, grids
from earthsr.dem.predict.restart import PredictWork, RasterRequest, plan_of
from earthsr.errors import InputError
from earthsr.geo import MemorySink, dataarray_source, open_source, to_dataarray
from earthsr.geo.elevations import Elevations, Positive, elevations
from earthsr.geo.tiles import is_tiles
from earthsr.geo.values import Voids
from earthsr.geo.writers import SINKS
from earthsr.inference.pieces import Scheduler
from earthsr.inference.scheduler import LocalScheduler
from earthsr.store import owned, require_other, require_replaceable

Box = tuple[float, float, float, float]


def predict_raster(
    models: Model | Sequence[Model],
    source: str | Path,
    target: str | Path,
    options: PredictOptions | None = None,
    *,
    bbox: Box | None = None,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    tiles: float | None = None,
    scheduler: Scheduler | None = None,
    overwrite: bool = False,
    full_hash: bool = False,
) -> dict[str, Any]:
    """Enlarge a raster file.

    What is finished lies beside the target while the work goes on, with a record of what each piece holds. After a kill
    the same call carries on, and gives what it would have given; a piece that is not as it was written is made again.

    Parameters
    ----------
    models : Model or sequence of Model
        One, or several whose mean is written, with their spread as a second band.
    source : str or Path
        GeoTIFF, NetCDF (``FILE.nc:VARIABLE`` names one of several fields) or Zarr, elevation in metres.
    target : str or Path
        ``.tif`` (Cloud Optimized GeoTIFF), ``.nc`` or ``.zarr``: the grid of the input with its cells divided by the
        scale. With ``tiles`` a folder.
    options : PredictOptions, optional
        Mode, windows, ensemble, conservation.
    bbox : tuple of float, optional
        West, south, east, north in units of the CRS; west > east goes across the dateline of a global raster, and the
        output's longitudes are then contiguous, such as 170 to 190.
    nodata : float or sequence of float, optional
        Stored numbers that stand for no value, besides those that the file names.
    units : str, optional
        In place of what the file says.
    positive : {"up", "down"}, optional
        Which way its values count, in place of what the file says; depths are turned into heights.
    keep : sequence of float, str or Path
        Numbers: stored numbers that are ground although they are repeated and far from all their neighbours. Names of
        finer rasters, or patterns of the tiles of one: where they have a value it stays, the model fills the rest, and
        a band ``source`` says which cell is from where. Where several have one the first one's stays.
    feather : int
        Cells of the output over which the model is shifted towards what is kept beside it.
    offset : str or tuple of float, optional
        Fine cells to the east and to the north by which the raster is moved before it is enlarged; a text may be of
        metres, such as ``"46m,46m"``.
    register : str or Path, optional
        A finer raster of some of the same ground, against which that offset is measured.
    tiles : float, optional
        Write a folder of GeoTIFFs of so many degrees a side, named by their south-western corners, with a VRT and a
        STAC catalogue over them.
    scheduler : Scheduler, optional
        Who does the work (:func:`earthsr.inference.scheduler.make_scheduler`); this process where absent.
    overwrite : bool
        Replace a target that is there, and what was begun for it with other options.
    full_hash : bool
        Hold inputs to their last byte when carrying on, in place of their size, time and some of their blocks.

    Returns
    -------
    dict
        What was done and found: grids, range, residuals, difference from the exact mode, times.

    Raises
    ------
    InputError
        If input, output or options do not fit; nothing is written then. If a disk is full what is finished stays, and
        the same call carries on.
    ResultError
        If a cell of the prediction can be no elevation on Earth; what is finished stays, and with ``clip`` the same
        call carries on.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    numbers, finer = split_keep(keep)
    request = RasterRequest(
        source=str(Path(source).absolute()),
        options=options or PredictOptions(),
        bbox=bbox,
        nodata=nodata,
        units=units,
        positive=positive,
        ground=numbers,
        keep=KeepRequest(tuple(str(Path(text).absolute()) for text in finer), feather) if finer else None,
        full_hash=full_hash,
    )
    path = Path(target)
    require_other([path], [source, *finer, register])
    _require_target(path, tiles, overwrite)
    with owned(path):
        raster = open_source(source, nodata=nodata, units=units)
        try:
            view = elevations(raster, positive=positive, keep=numbers)
            request = replace(request, moved=_placed(view, chosen, offset, register))
            work = PredictWork(path, tiles, request, chosen)
            plan = work.plan(view, overwrite)
            try:
                return work.run(plan, scheduler or LocalScheduler(), overwrite)
            finally:
                if plan.kept is not None:
                    plan.kept.close()
        finally:
            raster.close()


def _require_target(path: Path, tiles: float | None, overwrite: bool) -> None:
    if tiles is None and path.suffix.lower() not in SINKS:
        raise InputError(f"{path.name}: suffix {path.suffix!r} is no format of output; {', '.join(SINKS)} are")
    if tiles is not None and path.suffix:
        raise InputError(f"{path}: --tiles writes a folder of tiles; give a name without {path.suffix}")
    if PredictWork.placed(path):
        return
    store = tiles is None and SINKS[path.suffix.lower()].store
    require_replaceable(path, overwrite, store, is_tiles if tiles is not None else None)


def predict_dataarray(
    models: Model | Sequence[Model],
    array: Any,
    options: PredictOptions | None = None,
    *,
    bbox: Box | None = None,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
) -> Any:
    """Enlarge an ``xarray.DataArray`` of elevation in metres.

    Parameters
    ----------
    models : Model or sequence of Model
        One, or several whose mean is taken.
    array : xarray.DataArray
        On axes of latitude and longitude, or of y and x; read window by window.
    options : PredictOptions, optional
        Mode, windows, ensemble, conservation.
    bbox : tuple of float, optional
        West, south, east, north in units of the coordinates; west > east goes across the dateline of a global array,
        and the result's longitudes are then contiguous, such as 170 to 190.
    nodata, units, positive, keep, feather, offset, register : optional
        As in :func:`predict_raster`.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        On axes of the same names with ``scale`` times as many cells; a Dataset of ``elevation`` and ``spread`` for an
        ensemble, and of ``source`` where rasters are kept.

    Raises
    ------
    InputError
        If the array or the options do not fit.
    ResultError
        If a cell of the prediction can be no elevation on Earth.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    numbers, finer = split_keep(keep)
    raster = elevations(dataarray_source(array, nodata=nodata, units=units), positive=positive, keep=numbers)
    moved = _placed(raster, chosen, offset, register)
    kept = KeepRequest(finer, feather) if finer else None
    plan = plan_of(RasterRequest("", options or PredictOptions(), bbox, keep=kept, moved=moved), raster, chosen)
    mean = surveyed_mean(plan)
    sink = MemorySink(plan.output, plan.bands)
    outcome = enlarge(plan, sink, mean)
    attributes = describe(plan, mean, outcome)
    return to_dataarray(sink.values, sink.georeference, plan.bands, like=array, attributes=attributes)


def dry_run(
    models: Model | Sequence[Model],
    source: str | Path,
    target: str | Path,
    options: PredictOptions | None = None,
    *,
    bbox: Box | None = None,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    tiles: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Say what :func:`predict_raster` would do, after predicting one batch of windows for the time it takes.

    Parameters
    ----------
    models : Model or sequence of Model
        The model, or the members of an ensemble.
    source, target : str or Path
        The raster, and where the prediction would go.
    options : PredictOptions, optional
        How to predict.
    bbox : tuple of float, optional
        West, south, east, north, in units of the CRS.
    nodata : float or sequence of float, optional
        Stored numbers that stand for no value, besides those that the source names.
    units : str, optional
        Units of the source, in place of its own.
    positive, keep, feather, offset, register, tiles : optional
        As in :func:`predict_raster`.
    overwrite : bool
        Whether the target may be there already.

    Returns
    -------
    dict
        Grids, chunks and windows, estimated seconds of computing, bytes before compression, bytes free.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    path = Path(target)
    numbers, finer = split_keep(keep)
    _require_target(path, tiles, overwrite)
    raster = open_source(source, nodata=nodata, units=units)
    try:
        view = elevations(raster, positive=positive, keep=numbers)
        moved = _placed(view, chosen, offset, register)
        request = RasterRequest(
            str(source),
            options or PredictOptions(),
            bbox,
            nodata=nodata,
            keep=KeepRequest(finer, feather) if finer else None,
            moved=moved,
        )
        plan = plan_of(request, view, chosen)
        if plan.kept is not None:
            plan.kept.close()
        with owned(path):  # whether it can be written
            plan = plan.recut(PredictWork(path, tiles, request, chosen).store(plan, 0.0).windows())
        per_member = plan.windows / len(plan.group)
        size = min(plan.batch_size, max(1, int(per_member)))
        seconds = sum(_seconds(member, plan, size) for member in plan.group) * per_member / size
    finally:
        raster.close()
    cells = plan.output.rows * plan.output.columns
    folder = next(folder for folder in Path(target).absolute().parents if folder.is_dir())
    return {
        **grids(plan),
        "chunks": len(plan.chunks),
        "windows": plan.windows,
        "window_shape": list(plan.tiles.shape),
        "estimated_seconds": seconds,
        "bytes_uncompressed": 4 * cells * len(plan.bands),
        "bytes_free": shutil.disk_usage(folder).free,
    }


def _seconds(member: Member, plan: EnlargePlan, size: int) -> float:
    """Seconds of one batch; the first one, which compiles and warms up, does not count."""
    height, width = plan.tiles.shape
    noise = np.random.default_rng(0).normal(scale=100, size=(size, 1, height, width)).astype(np.float32)
    member.start(noise, None, size).result()
    began = time.perf_counter()
    member.start(noise, None, size).result()
    return time.perf_counter() - began


def _placed(
    raster: Elevations,
    models: Sequence[Model],
    offset: str | tuple[float, float] | None,
    register: str | Path | None,
) -> tuple[float, float, str] | None:
    """Move a raster to where it is said or measured to lie, and say by how much; it stays where nothing is asked."""
    if offset is not None and register is not None:
        raise InputError("--offset says how far to move, and --register measures it: give one of them")
    scale = models[0].spec.scale
    if register is not None:
        east, north, words = measured_offset(raster, register, scale)
    elif offset is not None:
        east, north = offset_of(offset, raster.georeference, scale) if isinstance(offset, str) else offset
        words = "as --offset says"
    else:
        return None
    move(raster, east, north, scale, words)
    return east, north, words

"""From raster to raster: files or DataArrays in, georeferenced files or DataArrays out."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import earthsr
from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.enlarge import EnlargeResult, enlarge
from earthsr.dem.predict.ensemble import Member, takes_patch_means
from earthsr.dem.predict.placement import measured_offset, move, offset_of
from earthsr.dem.predict.plan import CHUNK, EnlargePlan, PredictOptions, make_plan, survey
from earthsr.errors import EarthsrWarning, InputError
from earthsr.geo import (
    MemorySink,
    Sink,
    Source,
    dataarray_source,
    open_sink,
    open_source,
    to_dataarray,
)
from earthsr.geo.crs import metres_per_unit
from earthsr.geo.elevations import Elevations, Positive, elevations
from earthsr.geo.values import Voids
from earthsr.models import DemSRNetSpec
from earthsr.store import require_other


def describe(plan: EnlargePlan, offset: float | None, outcome: EnlargeResult) -> dict[str, Any]:
    """Provenance of a prediction: flat, of text and numbers, as attributes of files hold it."""
    options, first = plan.options, plan.group[0].model
    models = list({id(member.model): member.model for member in plan.group}.values())
    values: dict[str, Any] = {
        "earthsr_version": earthsr.__version__,
        "checkpoint": ", ".join(_checkpoint(model) for model in models),
        "backend": f"{first.backend.name} {first.backend.version()} ({first.engine.device}, {first.engine.precision})",
        "source": plan.source.name,
        "scale": plan.scale,
        "mode": options.mode,
        "window_cells": " x ".join(str(side) for side in plan.tiles.shape),
        "members": len(plan.group),
    }
    if plan.source.notes:
        values["input_notes"] = "; ".join(plan.source.notes)
    if options.mode == "gaussian":
        values["overlap"] = options.overlap
        if outcome.difference is not None:
            values["difference_from_exact_m"] = outcome.difference
            values["difference_from_exact_cells"] = outcome.compared
    elif offset is not None and any(takes_patch_means(model) for model in models):
        values["normalisation_offset_m"] = offset
    values["conserved"] = str(options.conserve).lower()
    for name, residual in (("before", outcome.before), ("after", outcome.after)):
        if name == "after" and not options.conserve:
            continue
        values |= {f"area_mean_residual_{name}_{key}_m": v for key, v in residual.to_dict().items() if v is not None}
    return values


def _checkpoint(model: Model) -> str:
    """Run, step and file of a checkpoint; where it lies is nobody's business."""
    source = model.metadata.get("source")
    return "/".join(Path(str(source)).parts[-4:]) if source else "in memory"


def summary(plan: EnlargePlan, outcome: EnlargeResult, seconds: float) -> dict[str, Any]:
    """What was done and found, for people and programs."""
    cells = plan.output.rows * plan.output.columns
    return {
        **grids(plan),
        "valid_cells": outcome.valid,
        "minimum": None if not outcome.valid else outcome.minimum,
        "maximum": None if not outcome.valid else outcome.maximum,
        "area_mean_residual_m": {
            "before": outcome.before.to_dict(),
            "after": outcome.after.to_dict() if plan.options.conserve else None,
        },
        "difference_from_exact_m": outcome.difference,
        "compared_coarse_cells": outcome.compared,
        "seconds": {"total": seconds, **asdict(outcome.times)},
        "output_megapixels_per_s": cells / 1e6 / seconds,
    }


def grids(plan: EnlargePlan) -> dict[str, Any]:
    """Grids of input and output."""
    grid, output = plan.source.georeference, plan.output
    return {
        "input_shape": [grid.rows, grid.columns],
        "output_shape": [output.rows, output.columns],
        "bands": list(plan.bands),
        "transform": list(output.transform),
        "bounds": list(output.bounds),
        "units": "m",
        "mode": plan.options.mode,
        "members": len(plan.group),
    }


Box = tuple[float, float, float, float]

#: Training patches lie about their own mean within some four times their relief; twice that was not learnt.
_FAR = 8.0
#: Of a degree of latitude on the sphere of WGS 84's mean radius.
_METRES_PER_DEGREE = math.pi * 6_371_008.8 / 180


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
    keep: Sequence[float] = (),
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Enlarge a raster file.

    Parameters
    ----------
    models : Model or sequence of Model
        One, or several whose mean is written, with their spread as a second band.
    source : str or Path
        GeoTIFF, NetCDF (``FILE.nc:VARIABLE`` names one of several fields) or Zarr, elevation in metres.
    target : str or Path
        ``.tif`` (Cloud Optimized GeoTIFF), ``.nc`` or ``.zarr``: the grid of the input with its cells divided by the
        scale.
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
    keep : sequence of float
        Stored numbers that are ground although they are repeated and far from all their neighbours.
    offset : str or tuple of float, optional
        Fine cells to the east and to the north by which the raster is moved before it is enlarged; a text may be of
        metres, such as ``"46m,46m"``.
    register : str or Path, optional
        A finer raster of some of the same ground, against which that offset is measured.
    overwrite : bool
        Replace a target that is there.

    Returns
    -------
    dict
        What was done and found: grids, range, residuals, difference from the exact mode, times.

    Raises
    ------
    InputError
        If input, output or options do not fit; nothing is written then.
    ResultError
        If a cell of the prediction can be no elevation on Earth; nothing is left then.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    require_other([target], [source])
    raster = open_source(source, nodata=nodata, units=units)
    try:
        view = elevations(raster, positive=positive, keep=keep)
        _place(view, chosen, offset, register)
        plan = _planned(chosen, view, options, bbox)
        sink = _sink(plan, target, overwrite)
        try:
            mean = _survey(plan)
            began = time.perf_counter()
            outcome = enlarge(plan, sink, mean)
            provenance = describe(plan, mean, outcome)
            sink.finish(provenance)
            seconds = time.perf_counter() - began
        except BaseException:
            sink.abort()
            raise
    finally:
        raster.close()
    return {"output": str(target), **summary(plan, outcome, seconds), "provenance": provenance}


def predict_dataarray(
    models: Model | Sequence[Model],
    array: Any,
    options: PredictOptions | None = None,
    *,
    bbox: Box | None = None,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float] = (),
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
    nodata, units, positive, keep, offset, register : optional
        As in :func:`predict_raster`.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        On axes of the same names with ``scale`` times as many cells; a Dataset of ``elevation`` and ``spread`` for an
        ensemble.

    Raises
    ------
    InputError
        If the array or the options do not fit.
    ResultError
        If a cell of the prediction can be no elevation on Earth.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    raster = elevations(dataarray_source(array, nodata=nodata, units=units), positive=positive, keep=keep)
    _place(raster, chosen, offset, register)
    plan = _planned(chosen, raster, options, bbox)
    mean = _survey(plan)
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
    keep: Sequence[float] = (),
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
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
    positive, keep, offset, register : optional
        As in :func:`predict_raster`.
    overwrite : bool
        Whether the target may be there already.

    Returns
    -------
    dict
        Grids, chunks and windows, estimated seconds of computing, bytes before compression, bytes free.
    """
    chosen = [models] if isinstance(models, Model) else list(models)
    raster = open_source(source, nodata=nodata, units=units)
    try:
        view = elevations(raster, positive=positive, keep=keep)
        _place(view, chosen, offset, register)
        plan = _planned(chosen, view, options, bbox)
        _sink(plan, target, overwrite).abort()
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


def _sink(plan: EnlargePlan, target: str | Path, overwrite: bool) -> Sink:
    side = CHUNK // 2 * plan.scale  # what a reader wants of a file at once; a chunk is four of these
    return open_sink(target, plan.output, plan.bands, (side, side), overwrite=overwrite)


def _place(
    raster: Elevations,
    models: Sequence[Model],
    offset: str | tuple[float, float] | None,
    register: str | Path | None,
) -> None:
    """Move a raster to where it is said or measured to lie; it stays where nothing is asked."""
    if offset is not None and register is not None:
        raise InputError("--offset says how far to move, and --register measures it: give one of them")
    scale = models[0].spec.scale
    if register is not None:
        east, north, words = measured_offset(raster, register, scale)
    elif offset is not None:
        east, north = offset_of(offset, raster.georeference, scale) if isinstance(offset, str) else offset
        words = "as --offset says"
    else:
        return
    move(raster, east, north, scale, words)


def _planned(models: list[Model], raster: Elevations, options: PredictOptions | None, bbox: Box | None) -> EnlargePlan:
    raster.name_heights()
    plan = make_plan(models, raster, options, bbox)
    _warn_of_cells(models[0], raster)
    return plan


def _warn_of_cells(model: Model, raster: Source) -> None:
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


def _survey(plan: EnlargePlan) -> float:
    """Look at what will be enlarged, and give its mean.

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

"""The verb predict: rasters or arrays of elevation in, finer ones out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthsr.cli.options import (
    Backend,
    Checkpoint,
    Device,
    FullHash,
    Json,
    SchedulerAddress,
    SchedulerKind,
    Workers,
    box_of,
    show,
)

if TYPE_CHECKING:
    from earthsr.backend import Model
    from earthsr.dem.predict.plan import PredictOptions

_INPUT = "Elevation in metres: GeoTIFF, NetCDF (FILE.nc:VARIABLE), Zarr; or .npz and .h5 of bare arrays."
_OUTPUT = "Where to write: .tif (Cloud Optimized GeoTIFF), .nc or .zarr; .npz or .h5 for arrays; with --tiles a folder."
_KEEP = (
    "Finer raster that stays where it has values, or a quoted pattern of its tiles; the model fills the rest, and a "
    "band says which cell is from where. A NUMBER is a repeated one that is ground and no undeclared fill value. May "
    "be repeated."
)
_FEATHER = "Cells of OUTPUT over which the model is shifted towards what is kept beside it; 32 where absent."
_TILES = "Write a folder of GeoTIFFs of so many degrees, N46E008.tif, with a VRT and a STAC catalogue over them."
_BBOX = "Part to enlarge, in units of the raster's CRS; of a global raster, W > E goes across the dateline."
_EXACT = "Windows with a halo, one normalisation for the whole raster: what a prediction in one piece gives."
_OFFSET = (
    "Move INPUT by so many fine cells (metres: 46m,46m) before it is enlarged, as prepare dem measures it; what was "
    "moved is written with OUTPUT."
)
_REGISTER = "Measure that offset against a finer raster of some of the same ground."
_ARRAYS = (".npz", ".h5", ".hdf5")


def predict(
    checkpoint: Checkpoint,
    source: Annotated[str, typer.Argument(metavar="INPUT", help=_INPUT)],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help=_OUTPUT)],
    bbox: Annotated[str | None, typer.Option("--bbox", metavar="W,S,E,N", help=_BBOX)] = None,
    exact: Annotated[bool, typer.Option("--exact", help=_EXACT)] = False,
    tile: Annotated[
        int | None, typer.Option("--tile", help="Coarse cells per window side; with --exact, kept of a window.")
    ] = None,
    overlap: Annotated[float, typer.Option("--overlap", help="Share of its side that a window shares.")] = 0.25,
    symmetries: Annotated[
        bool, typer.Option("--symmetries", help="Mean over the square's eight symmetries; spread as second band.")
    ] = False,
    ensemble: Annotated[
        list[Path] | None,
        typer.Option("--ensemble", metavar="CHECKPOINT", help="A further model of the ensemble; may be repeated."),
    ] = None,
    conserve: Annotated[
        bool, typer.Option("--conserve", help="Make the area mean over each coarse cell that cell's value.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare-exact", help="Compare with the exact mode everywhere, not at nine places.")
    ] = False,
    clip: Annotated[
        bool,
        typer.Option("--clip", help="Write -12,000 or 9,500 m where a prediction is beyond, and count them."),
    ] = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Windows at once.")] = None,
    nodata: Annotated[
        list[float] | None,
        typer.Option("--nodata", help="A further stored number that stands for no value in INPUT; may be repeated."),
    ] = None,
    units: Annotated[str | None, typer.Option("--units", help="Units of INPUT, in place of its own tag.")] = None,
    positive: Annotated[
        str | None,
        typer.Option("--positive", metavar="up|down", help="Which way values count, whatever it says; depths: down."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="FINER|NUMBER", help=_KEEP),
    ] = None,
    feather: Annotated[int | None, typer.Option("--feather", metavar="CELLS", help=_FEATHER)] = None,
    offset: Annotated[str | None, typer.Option("--offset", metavar="EAST,NORTH", help=_OFFSET)] = None,
    register: Annotated[str | None, typer.Option("--register", metavar="FINER", help=_REGISTER)] = None,
    tiles: Annotated[float | None, typer.Option("--tiles", metavar="DEGREES", help=_TILES)] = None,
    scheduler: SchedulerKind = None,
    scheduler_address: SchedulerAddress = None,
    workers: Workers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say tiles, time and disk space, and write nothing.")
    ] = False,
    backend: Backend = None,
    device: Device = None,
    amp_level: Annotated[str | None, typer.Option("--amp-level", help="O0 (float32) where absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT where it is there.")] = False,
    full_hash: FullHash = False,
    as_json: Json = False,
) -> None:
    """Enlarge a raster of elevation by the model's scale; its corner, CRS and units stay.

    Memory does not grow with the raster. Killed at any moment, the same command carries on: what is finished lies
    beside OUTPUT and is looked at before it is used. Windows overlap and are blended with bell-shaped weights, each
    normalised as training patches were; the largest difference from --exact is reported. A void stays one.

    INPUT may also be .npz or .h5 with elevation as (H, W), (N, H, W) or (N, C, H, W), NaN where there is no value;
    each field is predicted in one piece. Taken is the array named elevation, else the smallest "p_p" of a file of
    patches, else the only one.
    """
    from earthsr.backend import Model
    from earthsr.dem.predict.plan import PredictOptions
    from earthsr.errors import InputError
    from earthsr.inference.scheduler import make_scheduler
    from earthsr.log import set_up_logger
    from earthsr.models import Precision

    if amp_level not in (None, "O0", "O1", "O2", "O3"):
        raise InputError(f"--amp-level is {amp_level!r}, expected O0, O1, O2 or O3")
    set_up_logger()
    if compare and exact:
        raise InputError("--compare-exact compares the Gaussian mode with the exact one; leave --exact out")
    options = PredictOptions(
        mode="exact" if exact else "gaussian",
        tile=tile,
        overlap=overlap,
        symmetries=symmetries,
        conserve=conserve,
        batch_size=batch_size,
        compare=compare,
        clip=clip,
    )
    precision = Precision(amp_level or "O0")  # type: ignore[arg-type]
    place = device or "auto"
    models = [
        Model.from_checkpoint(path, backend=backend, device=place, precision=precision)
        for path in (checkpoint, *(ensemble or ()))
    ]
    if target.suffix.lower() in _ARRAYS or Path(source).suffix.lower() in _ARRAYS:
        other = [
            bbox,
            tile,
            ensemble or None,
            nodata or None,
            units,
            batch_size,
            positive,
            keep or None,
            feather,
            offset,
            register,
            tiles,
            scheduler,
            scheduler_address,
            workers,
        ]
        if (
            any(value is not None for value in other)
            or overlap != 0.25
            or exact
            or symmetries
            or conserve
            or compare
            or clip
            or full_hash
            or dry_run
        ):
            raise InputError(
                f"{source} to {target}: arrays are predicted in one piece, with --overwrite, --backend, --device and "
                "--amp-level alone; other options are of rasters (.tif, .nc, .zarr)"
            )
        _arrays(models[0], source, target, overwrite, as_json)
        return
    reading: dict[str, Any] = {"nodata": nodata, "units": units, "positive": positive, "keep": keep or ()}
    reading |= {"offset": offset, "register": register, "tiles": tiles}
    if feather is not None:
        reading["feather"] = feather
    with make_scheduler(scheduler, scheduler_address, workers) as who:
        reading |= {} if dry_run else {"scheduler": who, "full_hash": full_hash}
        _raster(models, source, target, options, box_of(bbox), reading, dry_run, overwrite, as_json)


def _arrays(model: Model, source: str, target: Path, overwrite: bool, as_json: bool) -> None:
    from earthsr.dem.predict.arrays import predict_file

    result = predict_file(model, source, target, overwrite=overwrite)
    text = f"{result['output']}: {tuple(result['input_shape'])} to {tuple(result['output_shape'])}, {_span(result)}"
    show(result, as_json, text)


def _raster(
    models: list[Model],
    source: str,
    target: Path,
    options: PredictOptions,
    bbox: tuple[float, float, float, float] | None,
    reading: dict[str, Any],
    dry: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    from earthsr.dem.predict.rasters import dry_run, predict_raster

    work = dry_run if dry else predict_raster
    result = work(models, source, target, options, bbox=bbox, overwrite=overwrite, **reading)
    show(result, as_json, "\n".join(_planned(result, target) if dry else _done(result)))


def _planned(result: dict[str, Any], target: Path) -> list[str]:
    rows, columns = result["output_shape"]
    windows = " x ".join(str(side) for side in result["window_shape"])
    return [
        f"{target}: {rows} x {columns} cells, {', '.join(result['bands'])} ({result['mode']})",
        f"{result['chunks']} chunks, {result['windows']} windows of {windows} coarse cells",
        f"about {_duration(result['estimated_seconds'])} on this device",
        f"{result['bytes_uncompressed'] / 1e9:.3f} GB before compression, {result['bytes_free'] / 1e9:.1f} GB free",
        "nothing was written (--dry-run)",
    ]


def _done(result: dict[str, Any]) -> list[str]:
    rows, columns = result["output_shape"]
    before, after = result["area_mean_residual_m"]["before"], result["area_mean_residual_m"]["after"]
    lines = [f"{result['output']}: {rows} x {columns} cells, {_span(result)}"]
    if before["rms"] is not None:
        text = f"area mean minus coarse value: rms {before['rms']:.3f} m, largest {before['largest']:.3f} m"
        text += (
            f"; conserved: largest {after['largest']:.2g} m" if after is not None else " (--conserve makes them equal)"
        )
        lines.append(text)
    if result["difference_from_exact_m"] is not None:
        lines.append(
            f"largest difference from --exact {result['difference_from_exact_m']:.3f} m, over "
            f"{result['compared_coarse_cells']} coarse cells"
        )
    seconds = result["seconds"]["total"]
    lines.append(f"{_duration(seconds)}, {result['output_megapixels_per_s']:.3f} output megapixels per second")
    return lines


def _span(result: dict[str, Any]) -> str:
    return "no value" if result["minimum"] is None else f"{result['minimum']:.1f} to {result['maximum']:.1f} m"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""The verb prepare: archives to HDF5."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Json, SchedulerAddress, SchedulerKind, Workers, show
from earthsr.errors import InputError

app = typer.Typer(help="Make training files from archives.", no_args_is_help=True, rich_markup_mode=None)

_HR = (
    "Rasters of the fine elevations in metres (GeoTIFF, NetCDF, Zarr; FILE:VARIABLE where there are several). Those of "
    "one REGION are one mosaic; a region without a name is called as its file, and with folders where several are."
)
_LR = (
    "Raster of an independent coarse product, for REGION or for all; repeat for its tiles. Without one, coarse cells "
    "are means of blocks of fine cells."
)
_SHARES = (
    "Shares of train, valid and test in a region that is cut; 0 leaves one out, and 1,0,0 gives whole regions to "
    "training. A split with a share is at least a patch wide."
)
_WHOLE = "Region, or pattern such as 'N4*', that goes whole into {}; may be repeated."
_REGISTER = (
    "Offset of the coarse product: auto corrects half a fine or half a coarse pixel and warns of other offsets above "
    "0.25 fine cells, report measures only, off does not measure."
)
_COAST = (
    "Shares of valid fine cells at or below 0 m: a patch with less than LOW is land, with more than HIGH ocean, "
    "between them coast."
)

_FLAT_SEA = (
    "Fine cells at exactly 0 m where --lr has the sea's floor, as SRTM beside GEBCO: mask leaves them out, fill takes "
    "the coarse product as truth, keep leaves 0 m."
)
_DEGRADATION = (
    "What makes coarse cells of fine ones without --lr: block_mean, bell:SIGMA in fine cells (GEBCO's over SRTM: "
    "bell:1.85), either with :SOUTH,EAST for an offset, or the degradation.json of a fitted one."
)
_FIT = "Fit what makes --lr of the terrain; write DIR/degradation.json and a picture of it."
_CLASSES = "Raster of class codes, GeoTIFF of one year (from its name) or NetCDF of several; repeat for more years."
_STATIC = (
    "Raster of a static field, averaged or interpolated onto the classes' grid; or latitude, longitude, "
    "distance_to_coast, or slope (of elevation), which need no file; repeat for more."
)
_FILL = "nearest: what the scenario lacks over land is that of the nearest coarse cell; an error where absent."
_TABLE = "What codes mean: hilda, esa-cci, modis-igbp, corine, or a YAML file with a class table."
_SCENARIO = (
    "states.nc of LUH2; repeat for files that follow each other. Without one, fractions are aggregated from the "
    "classes, and the files say forcing: oracle."
)


@app.callback()
def _prepare() -> None:
    """Make training files from archives."""


@app.command("dem")
def dem(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    hr: Annotated[list[str], typer.Argument(metavar="[REGION=]PATH...", help=_HR)],
    lr: Annotated[list[str] | None, typer.Option("--lr", metavar="[REGION=]PATH", help=_LR)] = None,
    scale: Annotated[int, typer.Option("--scale", help="Fine cells per coarse cell, 2 to 10.")] = 5,
    patch: Annotated[int, typer.Option("--patch", help="Coarse cells per patch side.")] = 32,
    stride: Annotated[
        int | None, typer.Option("--stride", help="Most coarse cells between training patches; else the patch size.")
    ] = None,
    split_axis: Annotated[
        str, typer.Option("--split-axis", help="columns: training in the west; rows: training in the south.")
    ] = "columns",
    shares: Annotated[str, typer.Option("--shares", metavar="A,B,C", help=_SHARES)] = "0.7,0.1,0.2",
    buffer: Annotated[int, typer.Option("--buffer", help="Coarse cells between the splits of a region.")] = 4,
    train_region: Annotated[
        list[str] | None, typer.Option("--train-region", metavar="NAME", help=_WHOLE.format("training"))
    ] = None,
    valid_region: Annotated[
        list[str] | None, typer.Option("--valid-region", metavar="NAME", help=_WHOLE.format("validation"))
    ] = None,
    test_region: Annotated[
        list[str] | None, typer.Option("--test-region", metavar="NAME", help=_WHOLE.format("test"))
    ] = None,
    minimum_valid: Annotated[
        float, typer.Option("--minimum-valid", help="Patches with a smaller share of valid fine cells are left out.")
    ] = 0.5,
    coast: Annotated[str, typer.Option("--coast", metavar="LOW,HIGH", help=_COAST)] = "0.05,0.95",
    flat_sea: Annotated[str, typer.Option("--flat-sea", metavar="mask|fill|keep", help=_FLAT_SEA)] = "mask",
    nodata: Annotated[
        list[float] | None,
        typer.Option("--nodata", help="A further stored number without a value in fine rasters; may be repeated."),
    ] = None,
    lr_nodata: Annotated[
        list[float] | None, typer.Option("--lr-nodata", help="The same of coarse rasters; may be repeated.")
    ] = None,
    units: Annotated[str | None, typer.Option("--units", help="Units of all rasters, whatever they say: m.")] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive", metavar="up|down", help="Which way fine rasters count, whatever they say; depths: down."
        ),
    ] = None,
    lr_positive: Annotated[
        str | None, typer.Option("--lr-positive", metavar="up|down", help="The same of coarse rasters.")
    ] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option("--keep", help="A repeated number that is ground and no undeclared fill value; may be repeated."),
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option("--crs", metavar="CRS", help="Interpolate rasters in another CRS to this one, as EPSG:32632."),
    ] = None,
    degradation: Annotated[str, typer.Option("--degradation", metavar="KIND", help=_DEGRADATION)] = "block_mean",
    fit_degradation: Annotated[bool, typer.Option("--fit-degradation", help=_FIT)] = False,
    mix_cell_sizes: Annotated[
        bool, typer.Option("--mix-cell-sizes", help="Take regions with cells of different sizes, as 3 and 15 seconds.")
    ] = False,
    register: Annotated[str, typer.Option("--register", metavar="auto|report|off", help=_REGISTER)] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on what the same command began and did not finish.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace data, finished or not, that DIR holds.")
    ] = False,
    scheduler: SchedulerKind = None,
    scheduler_address: SchedulerAddress = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Cut rasters of elevation into train, valid and test files of patches, coarse and fine.

    Fine cells stay as they are; voids are masked, and never averaged in. Regions are cut into blocks, or go whole into
    a split. Killed, it goes on with --resume and writes the same files.
    """
    from earthsr.dem.prepare import DemPlan, prepare_dem
    from earthsr.inference.scheduler import make_scheduler
    from earthsr.log import set_up_logger

    plan = DemPlan(
        scale=scale,
        patch=patch,
        stride=stride,
        axis=split_axis,  # type: ignore[arg-type]
        shares=_numbers("--shares", shares, "0.7,0.1,0.2"),  # type: ignore[arg-type]
        buffer=buffer,
        train_regions=tuple(train_region or ()),
        valid_regions=tuple(valid_region or ()),
        test_regions=tuple(test_region or ()),
        minimum_valid=minimum_valid,
        coast=_numbers("--coast", coast, "0.05,0.95"),  # type: ignore[arg-type]
        flat_sea=flat_sea,  # type: ignore[arg-type]
        mix_cell_sizes=mix_cell_sizes,
        degradation=degradation,
        fit_degradation=fit_degradation,
    )
    set_up_logger()
    # Tasks of a SLURM step that are workers do so here, and do not come back.
    with make_scheduler(scheduler, scheduler_address, workers) as chosen:
        done = prepare_dem(
            folder,
            hr,
            lr or (),
            plan=plan,
            nodata=nodata,
            lr_nodata=lr_nodata,
            units=units,
            positive=positive,  # type: ignore[arg-type]
            lr_positive=lr_positive,  # type: ignore[arg-type]
            keep=keep or (),
            crs=crs,
            register=register,  # type: ignore[arg-type]
            resume=resume,
            overwrite=overwrite,
            scheduler=chosen,
        )
    values = asdict(done)
    values["patches"], values["bytes"] = values.pop("counts"), values.pop("bytes_on_disk")
    lines = []
    for split, count in done.counts.items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in done.surfaces[split].items() if number)
        lines.append(
            f"{split:5}  {count} patches ({kinds}) of {len(done.regions[split])} regions; {done.left_out[split]} left "
            "out for voids"
        )
    lines.append(f"{folder}: {done.bytes_on_disk / 1e6:.2f} MB")
    show({"folder": str(folder), **values}, as_json, "\n".join(lines))


def _numbers(option: str, text: str, example: str) -> tuple[float, ...]:
    """Numbers of ``A,B`` or ``A,B,C``, as many as the example has."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(example.split(",")):
        raise InputError(f"{option} is {text!r}, expected numbers such as {example}")
    return numbers


@app.command("landuse")
def landuse(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    classes: Annotated[list[str], typer.Option("--classes", metavar="[YEAR=]PATH", help=_CLASSES)],
    static: Annotated[list[str], typer.Option("--static", metavar="NAME[:UNITS][=PATH]", help=_STATIC)],
    scenario: Annotated[list[Path] | None, typer.Option("--scenario", metavar="FILE", help=_SCENARIO)] = None,
    fill_scenario: Annotated[str | None, typer.Option("--fill-scenario", metavar="nearest", help=_FILL)] = None,
    table: Annotated[str, typer.Option("--table", metavar="NAME|YAML", help=_TABLE)] = "hilda",
    tile: Annotated[int, typer.Option("--tile", help="Fine cells per tile side.")] = 256,
    stride: Annotated[
        int | None, typer.Option("--stride", help="Fine cells between training tiles; else the tile size.")
    ] = None,
    split_axis: Annotated[
        str, typer.Option("--split-axis", help="columns: training in the west; rows: training in the south.")
    ] = "columns",
    shares: Annotated[
        str, typer.Option("--shares", metavar="A,B,C", help="Shares of train, valid and test; 0 leaves one out.")
    ] = "0.7,0.1,0.2",
    buffer: Annotated[int, typer.Option("--buffer", help="Fine cells between the splits.")] = 32,
    hold_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out", metavar="YEAR|A:B", help="Years that training never sees; may be repeated."),
    ] = None,
    years: Annotated[str | None, typer.Option("--years", metavar="A:B", help="First and last year to take.")] = None,
    coarse_cell: Annotated[
        float, typer.Option("--coarse-cell", help="Degrees per cell of fractions aggregated from the classes.")
    ] = 0.25,
    minimum_valid: Annotated[
        float, typer.Option("--minimum-valid", help="Tiles with a smaller share of cells with a class are left out.")
    ] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data that DIR holds.")] = False,
    scheduler: SchedulerKind = None,
    scheduler_address: SchedulerAddress = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Cut class rasters, static fields and scenario fractions into train, valid and test files of tiles.

    Rasters are on regular grids of longitude and latitude. Years that one source lacks are reported and left out.
    """
    from earthsr.errors import InputError
    from earthsr.geo.cf import spans
    from earthsr.inference.scheduler import make_scheduler
    from earthsr.landuse.class_tables import class_table
    from earthsr.landuse.prepare import prepare_landuse
    from earthsr.landuse.write import SplitPlan
    from earthsr.log import set_up_logger

    if split_axis not in ("columns", "rows"):
        raise InputError(f"--split-axis is {split_axis!r}, expected columns or rows")
    if buffer < 0:
        raise InputError(f"--buffer is {buffer}, expected 0 or more fine cells")
    if not 0 <= minimum_valid <= 1:
        raise InputError(f"--minimum-valid is {minimum_valid:g}, expected a share of 0 to 1")
    plan = SplitPlan(
        tile_size=tile,
        axis=split_axis,  # type: ignore[arg-type]
        shares=_shares(shares),
        buffer_cells=buffer,
        stride=stride,
        minimum_valid=minimum_valid,
    )
    set_up_logger()
    # Tasks of a SLURM step that are workers do so here, and do not come back.
    with make_scheduler(scheduler, scheduler_address, workers) as chosen:
        written = prepare_landuse(
            folder,
            classes,
            static,
            scenario=scenario or (),
            table=class_table(table),
            plan=plan,
            years=None if years is None else _span("--years", years),
            hold_out=[_span("--hold-out", text) for text in hold_out or ()],
            coarse_cell_deg=coarse_cell,
            overwrite=overwrite,
            fill_scenario=fill_scenario,  # type: ignore[arg-type]  # checked where it is read
            scheduler=chosen,
        )
    values = {
        "folder": str(folder),
        "tiles": written.counts,
        "years": {name: list(years) for name, years in written.years.items()},
        "skipped_tiles": written.skipped_tiles,
        "forcing": written.forcing,
        "bytes": written.bytes_on_disk,
    }
    lines = [f"{name:5}  {count} tiles, years {spans(written.years[name])}" for name, count in written.counts.items()]
    lines.append(f"forcing: {written.forcing}; {written.skipped_tiles} tiles with too few classes left out")
    lines.append(f"{folder}: {written.bytes_on_disk / 1e6:.2f} MB")
    show(values, as_json, "\n".join(lines))


def _shares(text: str) -> tuple[float, float, float]:
    from earthsr.errors import InputError

    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shares is {text!r}, expected three numbers such as 0.7,0.1,0.2") from None
    return first, second, third


def _span(option: str, text: str) -> tuple[int, int]:
    from earthsr.errors import InputError

    try:
        ends = [int(part) for part in text.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2) or ends[0] > ends[-1]:
        raise InputError(f"{option} is {text!r}, expected a year or FIRST:LAST")
    return ends[0], ends[-1]

"""The verb prepare dem: rasters of elevation to training files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Json, show
from earthsr.errors import InputError

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
    as_json: Json = False,
) -> None:
    """Cut rasters of elevation into train, valid and test files of patches, coarse and fine.

    Fine cells stay as they are; voids are masked, and never averaged in. Regions are cut into blocks, or go whole into
    a split. Killed, it goes on with --resume and writes the same files.
    """
    from earthsr.dem.prepare import DemPlan, prepare_dem
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
    )
    set_up_logger()
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

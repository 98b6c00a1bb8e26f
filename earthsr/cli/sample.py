"""The verb sample: writes embedded sample data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Json, show

app = typer.Typer(help="Write an embedded sample data set.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _sample() -> None:
    """Write an embedded sample data set."""


@app.command("dem")
def dem(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    patch_size: Annotated[int, typer.Option("--patch-size", help="Coarse cells per patch side.")] = 16,
    scale: Annotated[int, typer.Option("--scale", help="Fine cells per coarse cell, 2 to 10.")] = 5,
    stride: Annotated[int, typer.Option("--stride", help="Coarse cells between training patches.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data that DIR holds.")] = False,
    as_json: Json = False,
) -> None:
    """SRTM terrain of the Jacksboro fault (3 arc-seconds), which matplotlib ships, as train, valid and test blocks."""
    from earthsr.data.sample import write_sample_dem

    counts = write_sample_dem(folder, patch_size, scale, stride, overwrite)
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    show({"folder": str(folder), "patches": counts}, as_json, f"{folder}: {text} patches")

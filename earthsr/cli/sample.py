"""The verb sample: writes embedded or synthetic sample data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Json, show
from earthsr.errors import InputError

app = typer.Typer(
    help="Write a sample data set: embedded terrain, or synthetic land use.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_MOST_YEARS = 1000


@app.callback()
def _sample() -> None:
    """Write a sample data set: embedded terrain, or synthetic land use."""


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
    from earthsr.samples.dem import write_sample_dem

    counts = write_sample_dem(folder, patch_size, scale, stride, overwrite)
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    show({"folder": str(folder), "patches": counts}, as_json, f"{folder}: {text} patches")


@app.command("landuse")
def landuse(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    rows: Annotated[int, typer.Option("--rows", help="Fine cells from north to south.")] = 384,
    columns: Annotated[int, typer.Option("--columns", help="Fine cells from west to east.")] = 960,
    cell: Annotated[float, typer.Option("--cell", help="Size of a fine cell, degrees.")] = 0.25 / 16,
    years: Annotated[str, typer.Option("--years", metavar="A:B", help="First and last year.")] = "1970:1999",
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same synthetic world.")] = 9,
    tile: Annotated[int, typer.Option("--tile", help="Fine cells per tile side.")] = 64,
    stride: Annotated[
        int | None, typer.Option("--stride", help="Fine cells between training tiles; else no overlap.")
    ] = None,
    held_out_years: Annotated[
        int, typer.Option("--held-out-years", metavar="N", help="Years at the end that only the test file has.")
    ] = 10,
    archives: Annotated[
        bool,
        typer.Option("--archives", help="Write DIR/archives too: the world as rasters, for earthsr reconstruct."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data that DIR holds.")] = False,
    as_json: Json = False,
) -> None:
    """A synthetic world, made by rules and not observed: terrain, climate, land use that grows over years, leaf area.

    Coarse fractions of 0.25 degrees are aggregated from its fine maps.
    """
    from earthsr.samples.landuse import write_sample_landuse
    from earthsr.samples.world import WorldSpec
    from earthsr.samples.world.archives import OUTPUT, shell_text

    spec = WorldSpec(rows=rows, columns=columns, cell_deg=cell, years=_years(years), seed=seed)
    written = write_sample_landuse(
        folder, spec, tile, held_out_last=held_out_years, overwrite=overwrite, stride=stride, archives=archives
    )
    first, last = spec.years[0], spec.years[-1]
    counts = ", ".join(f"{count} {name}" for name, count in written.counts.items())
    held = f"{last - held_out_years + 1} to {last} held out" if held_out_years else "none held out"
    text = f"{folder}: synthetic world, {counts} tiles of {tile} x {tile}, years {first} to {last} ({held})"
    if written.archives is not None:
        archives_written = written.archives
        command = shell_text(archives_written.command(archives_written.folder, folder / OUTPUT))
        text += f"\n{archives_written.folder}: {', '.join(archives_written.files)}"
        text += f"\nnext, with the run folder of a model that was trained on {folder}:\n{command}"
    show({"folder": str(folder), "synthetic": True, "seed": seed, **written.to_dict()}, as_json, text)


def _years(text: str) -> tuple[int, ...]:
    """Years of ``A:B``, both included."""
    first, colon, last = text.partition(":")
    try:
        years = range(int(first), int(last) + 1)
    except ValueError:
        years = range(0)
    # Nobody means more; a slip of the finger would ask for as many maps.
    if not colon or not 2 <= len(years) <= _MOST_YEARS:
        raise InputError(
            f"--years is {text}, expected A:B with at least two and at most {_MOST_YEARS} years, as 1970:1999"
        )
    return tuple(years)

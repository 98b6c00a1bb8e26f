"""The verb prepare: archives to HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli import prepare_dem as dem_verb
from earthsr.cli.options import Json, show

app = typer.Typer(help="Make training files from archives.", no_args_is_help=True, rich_markup_mode=None)

_CLASSES = "Raster of class codes, GeoTIFF of one year (from its name) or NetCDF of several; repeat for more years."
_STATIC = (
    "Raster of a static field, averaged or interpolated onto the classes' grid; or latitude, longitude, "
    "distance_to_coast, or slope (of elevation), which need no file; repeat for more."
)
_FILL = "nearest: what the scenario lacks over land is that of the nearest coarse cell; an error where absent."
_SCENARIO = (
    "states.nc of LUH2; repeat for files that follow each other. Without one, fractions are aggregated from the "
    "classes, and the files say forcing: oracle."
)


@app.callback()
def _prepare() -> None:
    """Make training files from archives."""


app.command("dem")(dem_verb.dem)


@app.command("landuse")
def landuse(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    classes: Annotated[list[str], typer.Option("--classes", metavar="[YEAR=]PATH", help=_CLASSES)],
    static: Annotated[list[str], typer.Option("--static", metavar="NAME[:UNITS][=PATH]", help=_STATIC)],
    scenario: Annotated[list[Path] | None, typer.Option("--scenario", metavar="FILE", help=_SCENARIO)] = None,
    fill_scenario: Annotated[str | None, typer.Option("--fill-scenario", metavar="nearest", help=_FILL)] = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="YAML", help="Class table; else HILDA+'s.")] = None,
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
    as_json: Json = False,
) -> None:
    """Cut class rasters, static fields and scenario fractions into train, valid and test files of tiles.

    Rasters are on regular grids of longitude and latitude. Years that one source lacks are reported and left out.
    """
    from earthsr.errors import InputError
    from earthsr.geo.times import spans
    from earthsr.landuse.classes import HILDA_PLUS, ClassTable
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
    written = prepare_landuse(
        folder,
        classes,
        static,
        scenario=scenario or (),
        table=HILDA_PLUS if table is None else ClassTable.from_yaml(table),
        plan=plan,
        years=None if years is None else _span("--years", years),
        hold_out=[_span("--hold-out", text) for text in hold_out or ()],
        coarse_cell_deg=coarse_cell,
        overwrite=overwrite,
        fill_scenario=fill_scenario,  # type: ignore[arg-type]  # checked where it is read
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

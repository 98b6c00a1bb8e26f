"""The verb reconstruct: annual land-use maps of a whole grid from a scenario and an anchor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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

_SCENARIO = "states.nc of LUH2, or of its form; repeat for files that follow each other: the first has the overlap."
_FILL = "nearest: what the scenario lacks over land is that of the nearest coarse cell; an error where absent."
_FIXED = "Class whose cells never change; repeat for more."
_BBOX = "Part to map, degrees; W > E is across the dateline."
_TABLE = "Class table: hilda, esa-cci, modis-igbp, corine, or a YAML file; else the model's."
_STATIC = "Static field of the checkpoint, as in prepare landuse; repeat for each."
_ANCHOR = "Raster of class codes from which the rollout starts; its grid is that of the maps."
_YEARS = "First and last year; the rollout goes from the anchor's year forwards and backwards."
_OUTPUT = "maps.zarr, maps.nc, or maps.tif for one Cloud Optimized GeoTIFF a year (maps_YEAR.tif)."
_CHUNK = "Fine cells per side of what is computed, written and restarted at once: memory follows it."


def reconstruct(
    checkpoint: Checkpoint,
    scenario: Annotated[list[Path], typer.Option("--scenario", metavar="FILE", help=_SCENARIO)],
    static: Annotated[list[str], typer.Option("--static", metavar="NAME[:UNITS][=PATH]", help=_STATIC)],
    anchor: Annotated[str, typer.Option("--anchor", metavar="[YEAR=]PATH", help=_ANCHOR)],
    years: Annotated[str, typer.Option("--years", metavar="A:B", help=_YEARS)],
    output: Annotated[Path, typer.Option("--output", metavar="PATH", help=_OUTPUT)],
    bbox: Annotated[
        str | None,
        typer.Option("--bbox", metavar="W,S,E,N", help=_BBOX),
    ] = None,
    cell_size: Annotated[
        float | None, typer.Option("--cell-size", help="Degrees per cell of the maps; the anchor's where absent.")
    ] = None,
    match_areas: Annotated[
        bool, typer.Option("--match-areas", help="Make class areas of each coarse cell those of the scenario.")
    ] = False,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--fixed", metavar="CLASS", help=_FIXED),
    ] = None,
    protected: Annotated[
        list[str] | None,
        typer.Option("--protected", metavar="PATH", help="Raster, not 0 where cells never change; repeat for more."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="LAYER", help="confidence or probabilities, written too; may be repeated."),
    ] = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="NAME|YAML", help=_TABLE)] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Fine cells per window side; else as in training.")] = None,
    overlap: Annotated[float, typer.Option("--overlap", help="Share of its side that a window shares.")] = 0.25,
    chunk: Annotated[int, typer.Option("--chunk", help=_CHUNK)] = 2048,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Windows at once.")] = None,
    fill_scenario: Annotated[str | None, typer.Option("--fill-scenario", metavar="nearest", help=_FILL)] = None,
    scheduler: SchedulerKind = None,
    scheduler_address: SchedulerAddress = None,
    workers: Workers = None,
    rank: Annotated[str | None, typer.Option("--rank", hidden=True)] = None,
    world_size: Annotated[str | None, typer.Option("--world-size", hidden=True)] = None,
    patience: Annotated[str | None, typer.Option("--patience", hidden=True)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say windows, hours and disk, and write nothing.")] = False,
    backend: Backend = None,
    device: Device = None,
    amp_level: Annotated[str | None, typer.Option("--amp-level", help="O0 (float32) where absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there, and what was begun.")] = False,
    full_hash: FullHash = False,
    as_json: Json = False,
) -> None:
    """Map land use year by year from a scenario's fractions, each year's map the next one's prior.

    Memory follows the chunk, not the grid. After a kill the same command carries on from what lies in OUTPUT.work.
    Workers of Dask share the chunks, here (--workers), in a cluster (--scheduler-address) or in a SLURM step. Report
    and figures by year and decade are in OUTPUT's name with _report.
    """
    from earthsr.backend import Model
    from earthsr.errors import InputError
    from earthsr.inference.scheduler import make_scheduler
    from earthsr.landuse import reconstruct as work
    from earthsr.log import set_up_logger
    from earthsr.models import Precision

    if amp_level not in (None, "O0", "O1", "O2", "O3"):
        raise InputError(f"--amp-level is {amp_level!r}, expected O0, O1, O2 or O3")
    _require_no_ranks(rank, world_size, patience)
    set_up_logger()
    span = _years(years)
    inputs = work.Inputs(
        anchor,
        tuple(scenario),
        tuple(static),
        tuple(protected or ()),
        table,
        box_of(bbox),
        cell_size,
        fill_scenario,  # type: ignore[arg-type]  # checked where it is read
    )
    options = work.Options(tile, overlap, chunk, batch_size, match_areas, tuple(fixed or ()), tuple(keep or ()))
    precision = Precision(amp_level or "O0")  # type: ignore[arg-type]

    def opened() -> Model:
        return Model.from_checkpoint(checkpoint, backend=backend, device=device or "auto", precision=precision)

    if dry_run:
        planned = work.dry_run(opened(), inputs, span, output, options, workers=workers or 1, overwrite=overwrite)
        show(planned, as_json, "\n".join(_planned(planned, output)))
        return
    # Tasks of a SLURM step that are workers do so here, and do not come back.
    with make_scheduler(scheduler, scheduler_address, workers) as chosen:
        done = work.reconstruct(
            opened(), inputs, span, output, options, scheduler=chosen, overwrite=overwrite, full_hash=full_hash
        )
    show(done, as_json, "\n".join(_done(done, output)))


def _require_no_ranks(*given: str | None) -> None:
    """Say what to do in place of sharing the work by ranks.

    Raises
    ------
    InputError
        If an option of ranks is given, or a launcher has started several processes.
    """
    from earthsr.errors import InputError
    from earthsr.ranks import launched_rank

    for option, value in zip(("--rank", "--world-size", "--patience"), given, strict=True):
        if value is not None:
            raise InputError(
                f"{option} is gone: one command shares the chunks out and does again what is lost; say --workers N for "
                "N processes on this machine, --scheduler-address ADDRESS for a cluster of Dask, or --scheduler dask "
                "under srun"
            )
    launched = launched_rank()
    if launched is not None and launched.of > 1:
        raise InputError(
            f"a launcher has started {launched.of} processes of this command, which would write one output; start it "
            f"once, with --workers {launched.of} on this machine, or under srun with --scheduler dask"
        )


def _years(text: str) -> tuple[int, int]:
    from earthsr.errors import InputError

    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        first, last = 1, 0
    if first > last:
        raise InputError(f"--years is {text!r}, expected FIRST:LAST, such as 1850:2100")
    return first, last


def _planned(result: dict[str, Any], output: Path) -> list[str]:
    rows, columns = result["grid"]
    first, last = result["years"]
    height, width = result["chunk"]
    return [
        f"{output}: {result['maps']} maps of {rows} x {columns} cells, {first} to {last}, anchor {result['anchor']}",
        f"{result['chunks']} chunks of up to {height} x {width} cells; {result['windows_per_year']} windows of "
        f"{result['tile']} x {result['tile']} a year ({result['windows_computed_twice_percent']:.0f} % of them twice, "
        "for two chunks)",
        f"about {result['estimated_hours']:.3g} hours on each of {result['workers']} such device(s)",
        f"{result['bytes_maps_uncompressed'] / 1e9:.3g} GB of maps before compression, "
        f"{result['bytes_static'] / 1e9:.3g} GB of static fields while it runs, "
        f"{result['bytes_free'] / 1e9:.3g} GB free",
        "nothing was written (--dry-run)",
    ]


def _done(result: dict[str, Any], output: Path) -> list[str]:
    if result.get("carried_on"):
        return [f"{output}: was finished before, from the same inputs"]
    by = f" by {result['workers']} workers" if result["workers"] > 1 else ""
    lines = [f"{result['chunks']} chunks in {result['seconds']:.0f} s{by}"]
    for decade in result["decades"]:
        first, last = decade["years"]
        text = f"{first} to {last}: {decade['changed_percent']:.2f} % of the land changes a year"
        text += f", {decade['reverted_percent']:.2f} % changes back"
        if decade["area_error_percent"] is not None:
            text += f"; areas {decade['area_error_percent']:.2f} % off"
        if decade["area_error_percent_without_decoder"] is not None:
            text += f" ({decade['area_error_percent_without_decoder']:.2f} without the decoder)"
        lines.append(text)
    return [*lines, f"{output}, {output.with_name(output.stem + '_report')}/report.html"]

"""The verb plot: rasters as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earthsr.cli.options import Json, box_of, show

_INPUT = "Elevation or land use: GeoTIFF, NetCDF, Zarr; FILE.nc:VARIABLE names a variable."
_OUTPUT = (
    ".png; .html, a page to pan, zoom and slide in, without a network; of several years also .gif and .mp4 (needs "
    "ffmpeg), and .csv, a table of the areas of classes. NAME.png in the working directory where absent."
)
_BBOX = "Part to draw, in units of the raster's CRS; of a global raster, W > E goes across the dateline."
_BESIDE = "Elevation: draw this raster on the same scale, and INPUT minus it on its cells; on a page repeat for more."
_SCENARIO = (
    "Page of maps: the scenario that they should follow, to compare areas; repeat for files that follow each other."
)
_RELIEF = "Page of maps: elevation whose hillshade lies over them."
_YEARS = "Years to draw, such as 1850,1900,1950; nine spread evenly where absent, or all in an animation or a table."
_SCORES = {"mean": "mean", "RMSE": "rmse", "largest": "largest"}
_AREAS = "Print the area of every class in every year that is drawn, km2, from all cells."


def plot(
    source: Annotated[str, typer.Argument(metavar="INPUT", help=_INPUT)],
    output: Annotated[Path | None, typer.Argument(metavar="OUTPUT", help=_OUTPUT)] = None,
    bbox: Annotated[str | None, typer.Option("--bbox", metavar="W,S,E,N", help=_BBOX)] = None,
    size: Annotated[int, typer.Option("--size", metavar="PIXELS", help="Of the map's long side.")] = 1200,
    contours: Annotated[
        float | None, typer.Option("--contours", metavar="METRES", help="Elevation: contours so far apart.")
    ] = None,
    beside: Annotated[list[str] | None, typer.Option("--beside", metavar="OTHER", help=_BESIDE)] = None,
    years: Annotated[str | None, typer.Option("--years", metavar="YEAR,YEAR,...", help=_YEARS)] = None,
    areas: Annotated[bool, typer.Option("--areas", help=_AREAS)] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", metavar="FILE", help=_SCENARIO)] = None,
    relief: Annotated[str | None, typer.Option("--relief", metavar="FILE", help=_RELIEF)] = None,
    nodata: Annotated[
        list[float] | None, typer.Option("--nodata", help="A further stored number without a value; may be repeated.")
    ] = None,
    units: Annotated[str | None, typer.Option("--units", help="Units of INPUT, whatever it says: m.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT where it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a raster: elevation in colours over hillshade, land use in the colours of its classes with a legend.

    A raster of several years becomes maps beside each other, or an animation. Large rasters are read at the size of
    the picture, GeoTIFF from its overviews. No backend is needed.
    """
    from earthsr.drawing import plot as run

    result = run(
        source,
        output,
        bbox=box_of(bbox),
        size=size,
        contours=contours,
        beside=beside or (),
        years=_years_of(years),
        areas=areas,
        scenario=scenario or (),
        relief=relief,
        nodata=nodata,
        units=units,
        overwrite=overwrite,
    )
    show(result, as_json, _described(result))


def _years_of(text: str | None) -> list[int] | None:
    """Read years with commas between them."""
    from earthsr.errors import InputError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--years is {text!r}, expected years with commas between them, such as 1850,1900") from None


def _described(result: dict[str, Any]) -> str:
    """What was drawn, for people."""
    from earthsr.evaluation.maps import figure_text

    words = f"{result['output']}: {result['kind']}, {figure_text(result)}"
    if result.get("years"):
        words += f", {len(result['years'])} years" if len(result["years"]) > 1 else f", {result['years'][0]}"
    if "units" in result and result["minimum"] is not None:
        words += f", {result['minimum']:.6g} to {result['maximum']:.6g} {result['units']}"
    lines = [words]
    if "difference" in result:
        about = result["difference"]
        scores = ", ".join(f"{name} {about[key]:.3f} m" for name, key in _SCORES.items())
        lines.append(f"{about['what']}: {scores} ({about['how']})")
    table = result.get("areas_km2")
    if table:
        widest = max(map(len, table))
        heads = list(next(iter(table.values())))
        lines += ["", "  ".join([f"{'km2':<{widest}}", *(f"{head.removesuffix('_km2'):>14}" for head in heads)])]
        lines += [
            "  ".join([f"{name:<{widest}}", *(f"{value:>14,.1f}" for value in row.values())])
            for name, row in table.items()
        ]
    return "\n".join(lines)

"""The final form of a reconstruction: maps as tools of the field open them, figures by year, a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.errors import InputError, already_there
from earthsr.evaluation.figures import new_figure, save
from earthsr.evaluation.report import score_table, write_report
from earthsr.geo.grid import Window
from earthsr.inference.journal import Journal
from earthsr.landuse.classes import NODATA
from earthsr.landuse.figures import area_curves, class_maps
from earthsr.landuse.maps import Maps, export_geotiffs, export_netcdf
from earthsr.landuse.reconstruct.folder import RolloutFolder
from earthsr.landuse.reconstruct.ledger import add_up, by_decade, worst_years, yearly
from earthsr.landuse.reconstruct.plan import Plan
from earthsr.store import is_zarr, make_folder, place, remove_leftovers, write_json

KINDS: Final = (".zarr", ".nc", ".tif")

#: Cells per side of a map in the report, at most.
_DRAWN: Final = 700

_DECADES: Final = (
    ("changed_percent", "changed (% a year)", ".3f"),
    ("reverted_percent", "changed back (% a year)", ".3f"),
    ("area_error_percent", "area error (%)", ".3f"),
    ("area_error_percent_without_decoder", "without decoder (%)", ".3f"),
)


def files_of(target: Path, plan: Plan) -> list[Path]:
    """Files or folders that an output consists of."""
    if target.suffix.lower() != ".tif":
        return [target]
    layers = ("", "confidence_") if "confidence" in plan.options.keep else ("",)
    return [
        target.with_name(f"{target.stem}_{layer}{year:04d}{target.suffix}") for layer in layers for year in plan.years
    ]


def require_free(target: Path, plan: Plan, overwrite: bool) -> None:
    """Check that nothing is there that may not be replaced.

    Raises
    ------
    InputError
        If something is.
    """
    for path in files_of(target, plan):
        if path.exists() and not overwrite:
            raise already_there(path)
        store = path.suffix.lower() == ".zarr"
        if path.is_dir() and not (store and (is_zarr(path) or not any(path.iterdir()))):
            raise InputError(f"{path} is a folder of something else and is not replaced; choose another name")
        if store and path.is_file():
            raise InputError(f"{path} is a file where a folder is to be; choose another name")


def finish(
    plan: Plan,
    maps: Maps,
    journal: Journal,
    work: RolloutFolder,
    manifest: Mapping[str, Any],
    overwrite: bool,
) -> dict[str, Any]:
    """Write report and output.

    Returns
    -------
    dict
        Contents of ``reconstruct.json``.
    """
    # One record at a time: all of them, of a globe over centuries, are a gigabyte.
    totals = {year: add_up(journal.counts(str(year))) for year in plan.years}
    years = yearly(totals, plan.table.names)
    provenance = describe(plan, manifest["identity"]["checkpoint"], journal.engines)
    gaps = manifest.get("gaps", {})
    provenance["coarse_cells_filled"] = int(gaps.get("filled", 0))
    provenance["coarse_cells_without_scenario"] = int(gaps.get("left", 0))
    files = files_of(work.target, plan)
    report = {
        "task": "land_use",
        "files": [path.name for path in files],
        "classes": list(plan.table.names),
        "years": {str(year): values for year, values in years.items()},
        "decades": by_decade({year: figures for year, figures in years.items() if year != plan.world.anchor_year}),
        "years_with_most_change": worst_years(years),
        "joins": [asdict(join) for join in plan.world.scenario.joins],
        "windows": sum(total["windows"] for total in totals.values()),
        "seconds_computing": sum(total["seconds"] for total in totals.values()),
        "notes": plan.world.notes,
        "provenance": provenance,
        "identity": manifest["identity"],
    }
    maps.finish({**_described(plan), "provenance": provenance})
    make_folder(work.report)
    remove_leftovers(work.report)
    write_json(work.report / "reconstruct.json", report)
    _write_page(plan, maps, report, years, work.report)
    _put(plan, maps, work, overwrite)
    return report


def _described(plan: Plan) -> dict[str, Any]:
    """What CF asks of a file's own attributes."""
    first, last, anchor = plan.years[0], plan.years[-1], plan.world.anchor_year
    scenario = ", ".join(path.name for path in plan.world.inputs.scenario)
    return {
        "title": f"Annual land use {first} to {last}, reconstructed from the map of {anchor}",
        "source": f"earthsr {earthsr.__version__}, U-Net driven by {scenario}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} earthsr reconstruct",
        "references": "AI4Land, arXiv:2606.11793",
    }


def describe(plan: Plan, checkpoint_sha256: str, engines: Iterable[str]) -> dict[str, Any]:
    """Provenance: flat, of text and numbers, as attributes of files hold it."""
    model, options = plan.model, plan.options
    source = Path(str(model.metadata.get("source", "in memory")))
    return {
        "earthsr_version": earthsr.__version__,
        "checkpoint": "/".join(source.parts[-4:]),
        "checkpoint_sha256": checkpoint_sha256,
        "backend": ", ".join(sorted(engines)) or f"{model.backend.name} {model.backend.version()}",
        "precision": model.precision.level,
        "anchor_year": plan.world.anchor_year,
        "window_cells": plan.tiles.tile,
        "overlap": options.overlap,
        "chunk_cells": " x ".join(map(str, plan.side)),
        "windows_at_once": plan.batch_size,
        "areas_matched": str(options.match_areas).lower(),
        "fixed_classes": ", ".join(options.fixed),
        "inputs": plan.world.provenance,
        **_training_config(source),
    }


def _training_config(weights: Path) -> dict[str, str]:
    """Resolved configuration of the run that a checkpoint lies in; nothing where it lies alone."""
    path = weights.parent.parent.parent / "config.yaml"
    if weights.parent.parent.name != "checkpoints" or not path.is_file():
        return {}
    return {"training_config": path.read_text(encoding="utf-8")}


def _put(plan: Plan, maps: Maps, work: RolloutFolder, overwrite: bool) -> None:
    """Bring the maps to their place: in one step, or file by file."""
    if not work.exporting.exists():
        require_free(work.target, plan, overwrite)
        work.exporting.touch()
    for path in files_of(work.target, plan):
        # Of an export that was killed, wherever it ran: the folder is locked.
        remove_leftovers(path.parent, path.name, everybodys=True)
    kind = work.target.suffix.lower()
    if kind == ".nc":
        export_netcdf(maps, work.target, overwrite=True)
    elif kind == ".tif":
        export_geotiffs(maps, work.target, overwrite=True, journal=work.exporting)
    else:
        work.exporting.write_text(str(work.maps.stat().st_ino), encoding="utf-8")
        place(work.maps, work.target, overwrite=True)


def thinned(maps: Maps, year: int, windows: Iterable[Window], most: int = _DRAWN) -> NDArray[np.uint8]:
    """Every n-th cell of a map, read window by window: small enough to draw."""
    grid = maps.spec.grid
    step = max(1, -(-max(grid.rows, grid.columns) // most))
    rows, columns = (np.arange(step // 2, cells, step) for cells in (grid.rows, grid.columns))
    drawn = np.full((len(rows), len(columns)), NODATA, np.uint8)
    for window in windows:
        top, bottom = np.searchsorted(rows, (window.row, window.row + window.rows))
        left, right = np.searchsorted(columns, (window.column, window.column + window.columns))
        if top < bottom and left < right:
            values = maps.read("land_use", year, window)
            drawn[top:bottom, left:right] = values[
                np.ix_(rows[top:bottom] - window.row, columns[left:right] - window.column)
            ]
    return drawn


def _write_page(
    plan: Plan, maps: Maps, report: Mapping[str, Any], years: Mapping[int, Mapping[str, Any]], folder: Path
) -> None:
    names, colours = plan.table.names, plan.table.colours
    grid = plan.grid
    extent = (
        grid.west,
        grid.north - grid.rows * grid.cell_y,
        grid.west + grid.columns * grid.cell_x,
        grid.north,
    )
    shown = list(dict.fromkeys((plan.years[0], plan.world.anchor_year, plan.years[-1])))
    windows = [plan.window(chunk) for chunk in plan.lattice]
    panels = [
        (f"{year} (anchor, given)" if year == plan.world.anchor_year else str(year), thinned(maps, year, windows))
        for year in shown
    ]
    figures = [
        (
            save(class_maps(panels, names, colours, extent, "Land use"), folder / "maps.png"),
            "First and last year, and the anchor from which the maps were rolled out.",
        )
    ]
    order = sorted(years)
    curves = {"maps": {n: [years[y]["areas_km2"][n] for y in order] for n in names}}
    if any("scenario_km2" in figures_of for figures_of in years.values()):
        # The scenario as the third style of the three; cells that it says nothing of are in the maps alone.
        curves["scenario, same cells"] = {
            n: [years[y].get("scenario_km2", {}).get(n) for y in order]
            for n in names
            if n in plan.world.scenario.of_class
        }
    if len(order) > 1:
        figures += [
            (
                save(area_curves(order, curves, names, colours, "Areas"), folder / "areas.png"),
                "Areas of the classes, of the maps and as the scenario's fractions give them for the same cells.",
            ),
            (
                save(_drift_figure(years, plan), folder / "drift.png"),
                "Drift: cells that change, that change back a year later, and the error of areas.",
            ),
        ]
    first, last = plan.years[0], plan.years[-1]
    headline = (
        f"Land use {first} to {last} from the map of {plan.world.anchor_year}, {grid.rows} x {grid.columns} cells."
    )
    for join in report["joins"]:
        jump, ordinary = (max(join[key].values(), default=0.0) for key in ("jump", "ordinary"))
        headline += (
            f" Between {join['before']} and {join['after']} ({join['year']}) fractions jump by {jump:.2g} in the "
            f"channel that jumps most; from year to year it is {ordinary:.2g} elsewhere."
        )
    decades = {f"{figures_of['years'][0]} to {figures_of['years'][1]}": figures_of for figures_of in report["decades"]}
    columns = tuple(c for c in _DECADES if any(figures_of.get(c[0]) is not None for figures_of in decades.values()))
    table = score_table(decades, columns, best="", of="years") if decades else "<p>No year was made.</p>"
    shown_provenance = {k: v for k, v in report["provenance"].items() if k not in ("inputs", "training_config")}
    write_report(
        folder / "report.html", "Land use: reconstruction", headline, [("By decade", table)], figures, shown_provenance
    )


def _drift_figure(years: Mapping[int, Mapping[str, Any]], plan: Plan) -> Any:
    figure = new_figure(8.5, 5.5, gap=0.08)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for key, label, colour in (
        ("changed_percent", "changed since the year before", "#1b6ca8"),
        ("reverted_percent", "changed back", "#c8553d"),
    ):
        known = [year for year in sorted(years) if key in years[year]]
        upper.plot(known, [years[year][key] for year in known], label=label, color=colour)
    upper.set_ylabel("% of the land")
    for key, label, style in (
        ("area_error_percent", "areas against the scenario", "-"),
        ("area_error_percent_without_decoder", "without the decoder, same step", ":"),
    ):
        known = [year for year in sorted(years) if key in years[year]]
        if known:
            lower.plot(known, [years[year][key] for year in known], style, label=label, color="#3c6e47")
    lower.set_ylabel("mean |difference|, % of the cell")
    for axes in (upper, lower):
        axes.axvline(plan.world.anchor_year, color="0.6", lw=0.8)
        for join in plan.world.scenario.joins:
            axes.axvline(join.year, color="0.6", lw=0.8, ls="--")
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])  # a line at 0 shall be seen
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)
    lower.xaxis.get_major_locator().set_params(integer=True)  # years
    upper.set_title("Drift of the rollout (grey: the anchor; dashed: joins of the scenario)", fontsize=11)
    return figure

"""Scoring land use: the rollout and its rows, baselines, maps, confusion, areas; and continuous fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.evaluation.figures import new_figure, save
from earthsr.evaluation.metrics import Metric, add_scores
from earthsr.evaluation.report import MAPS, YEARS, field_columns, score_table
from earthsr.landuse.dataset import LandUseDataset
from earthsr.landuse.figures import area_curves, class_maps, confusion_figure, iou_bars, rollout_figure
from earthsr.landuse.rollout import predict_maps
from earthsr.landuse.scores import FieldScores, LandUseScores
from earthsr.landuse.split import LandUseData
from earthsr.landuse.tile_task import TileTask
from earthsr.tasks.base import Findings, Pictures, Tables, provenance_of

_ORACLE = (
    "The forcing is an oracle: fractions aggregated from the truth itself. With a scenario's own fractions scores are "
    "lower."
)


#: What stands in the rows; docs/landuse.md says the same.
_TERMS = {
    "rollout": "The model, from the truth of the anchor year on through its own maps alone: the headline.",
    "no_prior": "The model without any earlier map, the anchor's neither.",
    "true_prior": "The model with the truth of the year before, which no projection has: an upper bound.",
    "persistence": "The anchor's map, unchanged.",
    "coarse_argmax": "The class with the largest fraction in the coarse cell.",
    "allocation": "The anchor, changed just enough to have the fractions, nearest to a class first.",
}


def map_findings(
    task: TileTask, model: Model, dataset: LandUseDataset, scores: LandUseScores, own: Mapping[str, Metric]
) -> Findings:
    """What a split of land use shows: ``scores`` are the ``model``'s, ``own`` are metrics among them."""
    source = dataset.generator
    metrics = scores.to_dict()
    columns = [*MAPS, *add_scores(metrics["scores"], scores.metrics, own)]
    years = {str(year): score_table(of_year["scores"], YEARS, "rollout") for year, of_year in metrics["groups"].items()}
    return Findings(
        title="Land use: evaluation",
        metrics=metrics,
        provenance={
            **provenance_of(model, source, source.layout.source),
            "forcing": source.layout.forcing,
            "anchor": f"{scores.path.anchor}; the rollout goes to {scores.path.years[-1]}",
        },
        headline=_headline(metrics),
        columns=columns,
        tables=[("Scores over all scored years", score_table(metrics["scores"], columns, "rollout")), *years.items()],
        draw=lambda folder: (_figures(task, model, scores, source, folder), []),
        curves="Training loss and learning rate by step; mIoU of the rollout on the validation split.",
        protocol=metrics["protocol"],
        terms={row: text for row, text in _TERMS.items() if row in metrics["scores"]},
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _headline(metrics: dict[str, Any]) -> str:
    rollout, persistence = metrics["scores"]["rollout"], metrics["scores"]["persistence"]
    years = metrics["protocol"]["scored_years"]
    span = f"{years[0]}" if len(years) == 1 else f"{min(years)} to {max(years)}"
    text = (
        f"mIoU {_shown(rollout['miou'])} of the rollout over {metrics['tiles']} tiles of the {metrics['split']} split, "
        f"{span} (persistence {_shown(persistence['miou'])})."
    )
    merit = rollout["change"]["figure_of_merit"]
    if merit is not None:
        text += f" Figure of merit of change {merit:.4f}."
    if metrics["forcing"] == "oracle":
        text += f" {_ORACLE}"
    return text + (" The world is synthetic." if "synthetic" in metrics["source"] else "")


def _figures(
    task: TileTask, model: Model, scores: LandUseScores, source: LandUseData, folder: Path
) -> list[tuple[Path, str]]:
    layout, path = source.layout, scores.path
    names, colours = layout.table.names, layout.table.colours
    last = path.scored[-1]
    tile = _most_changed(source, path.anchor, last)
    composer = task.composer(model, source)
    maps = predict_maps(model, composer, [tile], path, task.field_names, pad_to=task.config.data.batch_size)
    at = path.years.index(last)
    anchor, truth = source.classes(tile, path.anchor), source.classes(tile, last)
    extent = _extent(source, tile)
    kind = "synthetic, " if "synthetic" in layout.source else ""
    where = f"{kind}{layout.forcing} forcing, {scores.split} tile {tile}"
    rollout = rollout_figure(
        anchor,
        truth,
        maps["rollout"][at, 0],
        anchor,
        names,
        colours,
        extent,
        f"{path.anchor} to {last} ({where})",
    )
    rows = class_maps(
        [("truth", truth), *((row.replace("_", " "), maps_of_row[at, 0]) for row, maps_of_row in maps.items())],
        names,
        colours,
        extent,
        f"{last} with three kinds of prior ({where})",
    )
    statistics = scores.total["rollout"]
    title = f"rollout, {scores.split} split, {min(path.scored)} to {max(path.scored)} ({kind}{layout.forcing} forcing)"
    drawn: list[tuple[Any, str, str]] = [
        (rollout, "rollout", "The tile that changes most: anchor, truth, rollout, and where each was right and wrong."),
        (rows, "priors", "The same tile and year with the model's own maps, none, and true ones as priors."),
        (
            confusion_figure(statistics.confusion, names, title, statistics.unpredicted),
            "confusion",
            "Confusion of the rollout: each row is a class of the truth.",
        ),
        (
            iou_bars({name: counted.scores(names) for name, counted in scores.total.items()}, names, title),
            "iou",
            "Intersection over union by class, of the model's rows and the baselines.",
        ),
    ]
    if scores.areas:
        drawn.append((_area_figure(scores, title), "areas", "Areas of the classes over all tiles of the split."))
    return [(save(figure, folder / f"{name}.png"), caption) for figure, name, caption in drawn]


def _area_figure(scores: LandUseScores, title: str) -> Any:
    whole = (scores.path.anchor, *scores.path.years)
    order = np.argsort(whole)

    def sorted_by_year(curves: dict[str, list[float]]) -> dict[str, list[float]]:
        return {name: [values[i] for i in order] for name, values in curves.items()}

    names = scores.names
    curves = {
        "truth": sorted_by_year(scores.areas["truth"].curves(names)),
        "rollout": sorted_by_year(scores.areas["rollout"].curves(names)),
        "forcing": sorted_by_year(scores.areas["truth"].forcing_curves(scores.forcing, names)),
    }
    return area_curves(sorted(whole), curves, names, scores.layout.table.colours, title, scores.layout.held_out_years)


def _most_changed(source: LandUseData, first: int, last: int) -> int:
    """Tile with the most cells that differ between two years."""
    changed = [int((source.classes(t, first) != source.classes(t, last)).sum()) for t in range(source.layout.tiles)]
    return int(np.argmax(changed))


def _extent(source: LandUseData, tile: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a tile in degrees."""
    fine, size = source.layout.fine, source.layout.tile_size
    row, column = (int(i) for i in source.places[tile])
    longitudes, latitudes = fine.longitude_edges(column, size), fine.latitude_edges(row, size)
    return float(longitudes[0]), float(latitudes[-1]), float(longitudes[-1]), float(latitudes[0])


def field_findings(
    task: TileTask,
    model: Model,
    dataset: LandUseDataset,
    scores: FieldScores,
    target: str,
    own: Mapping[str, Metric],
) -> Findings:
    """What a split shows of the field ``target``: ``scores`` are the ``model``'s, ``own`` are metrics among them."""
    source = dataset.generator
    metrics = scores.to_dict()
    units = metrics["units"]
    columns = [*field_columns(units), *add_scores(metrics["scores"], scores.metrics, own)]
    rmse, mean = metrics["scores"]["model"]["rmse"], metrics["scores"]["training_mean"]["rmse"]

    def draw(folder: Path) -> tuple[Pictures, Tables]:
        figure = save(_field_figure(task, model, source, target), folder / "field.png")
        return [(figure, "Truth, model, difference.")], []

    return Findings(
        title=f"{metrics['field']}: evaluation",
        metrics=metrics,
        provenance={**provenance_of(model, source, source.layout.source), "forcing": source.layout.forcing},
        headline=(
            f"RMSE {_shown(rmse)} {units} over {metrics['samples']} maps of the {source.split} split (training mean "
            f"{_shown(mean)}). Data: {metrics['source']}."
        ),
        columns=columns,
        tables=[("Scores", score_table(metrics["scores"], columns))],
        draw=draw,
        curves="Training loss and learning rate by step; validation error by epoch.",
    )


def _field_figure(task: TileTask, model: Model, source: LandUseData, target: str) -> Any:
    """Three channels spread over the field's own, for the first tile with the most values: truth, model, difference."""
    field = source.field(target)
    year = (source.scored_years or source.layout.years)[-1]
    counts = [int((source.classes(t, year) != 255).sum()) for t in range(source.layout.tiles)]
    tile = int(np.argmax(counts))
    composer = task.composer(model, source)
    sample = composer.fields(tile, year, composer.truth(tile, year), 0)
    inputs = {name: sample[name][None] for name in task.field_names}
    predicted = composer.normalisation.undo(model.submit_fields(inputs, task.config.data.batch_size).result())[0]
    truth = source.continuous(field.name, tile, year)
    chosen = np.unique(np.linspace(0, len(field.channels) - 1, min(3, len(field.channels)) + 1).astype(int)[:3])
    figure = new_figure(9.5, 2.9 * len(chosen) + 0.6, gap=0.05)
    kind = "synthetic, " if "synthetic" in source.layout.source else ""
    figure.suptitle(f"{field.name} ({field.units}), {year} ({kind}tile {tile})", fontsize=12)
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    west, south, east, north = _extent(source, tile)
    top = float(np.nanmax(truth)) if np.isfinite(truth).any() else 1.0
    for axes_row, c in zip(grid, chosen, strict=True):
        gap = predicted[c] - truth[c]
        widest = max(float(np.nanmax(np.abs(gap))) if np.isfinite(gap).any() else 1.0, 1e-6)
        panels: list[tuple[str, NDArray[np.float32], dict[str, Any]]] = [
            (f"truth, {field.channels[c]}", truth[c], {"cmap": "YlGn", "vmin": 0, "vmax": top}),
            ("model", np.where(np.isfinite(truth[c]), predicted[c], np.nan), {"cmap": "YlGn", "vmin": 0, "vmax": top}),
            ("model minus truth", gap, {"cmap": "RdBu_r", "vmin": -widest, "vmax": widest}),
        ]
        for axes, (title, values, style) in zip(axes_row, panels, strict=True):
            image = axes.imshow(values, extent=(west, east, south, north), interpolation="nearest", **style)
            axes.set_title(title, fontsize=10)
            axes.set_aspect(1 / max(np.cos(np.deg2rad((south + north) / 2)), 0.05))
            axes.tick_params(labelsize=7)
            figure.colorbar(image, ax=axes, shrink=0.85, label=field.units)
    return figure

"""Scoring a task that has no evaluation of its own: its scores as they are, one figure, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.evaluation.figures import new_figure, save
from earthsr.evaluation.report import Columns, score_table, write_report
from earthsr.inference.evaluation import Evaluation, run_curves
from earthsr.store import make_folder, write_json
from earthsr.tasks import Task


def evaluate_plain(task: Task, model: Model, split: str, output: Path) -> Evaluation:
    """Score a split and write ``metrics.json``, bars of the score that training watches, and ``report.html``.

    Parameters
    ----------
    task : Task
        Its scores are tables of numbers by method, in ``task.units``.
    model : Model
        With weights and normalisation.
    split : {"train", "valid", "test"}
        What to score.
    output : Path
        Folder to write into.

    Raises
    ------
    DataError
        If the split is missing or damaged; nothing is written then.
    """
    scores = task.score(model, task.dataset(split)).to_dict()
    engine, backend = model.engine, model.backend
    provenance = {
        "checkpoint": str(model.metadata.get("source", "in memory")),
        "data": task.config.data.root_dir,
        "backend": f"{backend.name} {backend.version()} ({engine.device}, {engine.precision})",
    }
    metrics: dict[str, Any] = {**scores, "provenance": provenance}
    columns: Columns = tuple(
        (key, key.replace("_", " "), ".4f")
        for key, value in metrics["scores"]["model"].items()
        if isinstance(value, (int, float))
    )
    make_folder(output)
    bars = save(_bars(task, metrics["scores"], f"{split} split"), output / "figures" / "scores.png")
    figures = [(bars, f"{task.best} of the model and of what it is measured against.")]
    curves = run_curves(model, output, task.best, task.score_label)
    if curves is not None:
        figures.append((curves, "Training loss and learning rate by step; validation score by epoch."))
    write_json(output / "metrics.json", metrics)
    value = metrics["scores"]["model"][task.best]
    shown = "–" if value is None else f"{value:.4g} {task.units}"
    headline = f"{task.name}: {task.best} {shown} on the {split} split"
    title, tables = f"{task.name}: evaluation", [("Scores", score_table(metrics["scores"], columns))]
    report = write_report(output / "report.html", title, headline, tables, figures, provenance)
    return Evaluation(metrics, output, [path for path, _ in figures], report, headline, columns)


def _bars(task: Task, scores: dict[str, Any], title: str) -> Any:
    """One bar a method."""
    shown = {name: values[task.best] for name, values in scores.items() if values.get(task.best) is not None}
    figure = new_figure(6.0, 1.2 + 0.4 * len(shown))
    axes = figure.subplots()
    colours = ["tab:blue" if name == "model" else "tab:gray" for name in shown]
    bars = axes.barh(list(shown), list(shown.values()), color=colours)
    axes.bar_label(bars, fmt="%.4g", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"{task.best} ({task.units})")
    axes.set_title(title, fontsize=11)
    return figure

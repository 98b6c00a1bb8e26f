"""Scoring a model on a split: ``metrics.json``, figures and ``report.html``, of whichever workload."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.config import Config
from earthsr.evaluation.figures import loss_curves, save
from earthsr.evaluation.page.write import PAGE
from earthsr.evaluation.report import Columns, write_report
from earthsr.store import owned, remove_leftovers, write_json
from earthsr.tasks import Task, task_for


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave and where it is."""

    metrics: dict[str, Any]
    """The contents of ``metrics.json``."""
    folder: Path
    """Where everything was written."""
    figures: list[Path]
    """Pictures, the first one the most telling."""
    report: Path
    """The page ``report.html``."""
    headline: str
    """What was found, in a sentence or two."""
    columns: Columns
    """Scores that a table of the methods shows."""
    page: Path | None = None
    """A page to slide from what went in to the truth in, where the workload makes one and Bokeh is installed."""


def evaluate_split(model: Model, config: Config, split: str, output: Path) -> Evaluation:
    """Score a split and write ``metrics.json``, figures and ``report.html``.

    Parameters
    ----------
    model : Model
        With weights and normalisation.
    config : Config
        Chooses the task; ``data`` says where the samples are.
    split : {"train", "valid", "test"}
        What to score.
    output : Path
        Folder to write into.

    Returns
    -------
    Evaluation
        Scores and the files that were written.

    Raises
    ------
    DataError
        If the split is missing or damaged; nothing is written then.
    InputError
        If another process writes into the folder.
    """
    task = task_for(config)
    with owned(output, inside=True):
        findings = task.findings(model, split)
        metrics = {**findings.metrics, "provenance": findings.provenance}
        remove_leftovers(output / "figures")
        (output / PAGE).unlink(missing_ok=True)  # of an evaluation before this one
        pictures, more_tables = findings.draw(output / "figures")
        curves = _run_curves(task, model, output / "figures" / "loss.png")
        if curves is not None:
            pictures = [*pictures, (curves, findings.curves)]
        page = output / PAGE if (output / PAGE).is_file() else None
        links = []
        if page is not None:
            words = "slide from the low resolution to the truth, pan, zoom, read heights"
            link = f'<p><a href="{PAGE}">{PAGE}</a>: {words}.</p>'
            links.append(("A page to look at", link))
        write_json(output / "metrics.json", metrics)
        report = write_report(
            output / "report.html",
            findings.title,
            findings.headline,
            [*links, *findings.tables, *more_tables],
            pictures,
            {**findings.provenance, **(findings.protocol or {})},
            findings.terms,
        )
    figures = [path for path, _ in pictures]
    return Evaluation(metrics, output, figures, report, findings.headline, findings.columns, page)


def _run_curves(task: Task, model: Model, target: Path) -> Path | None:
    """Draw the curves of the run that the checkpoint belongs to, where it lies in one."""
    weights = Path(str(model.metadata.get("source", "")))
    log = weights.parent.parent.parent / "metrics.jsonl"
    if weights.parent.parent.name != "checkpoints" or not log.is_file():
        return None
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    if not any("valid" in record for record in records):
        return None
    return save(loss_curves(records, task.best, task.score_label), target)

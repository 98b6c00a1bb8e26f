"""Scoring a model on a split: ``metrics.json``, figures and ``report.html``, of whichever workload."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from earthsr.backend import Model
from earthsr.config import Config, from_mapping
from earthsr.errors import ConfigError
from earthsr.evaluation.figures import loss_curves, save
from earthsr.evaluation.page.write import PAGE
from earthsr.evaluation.report import Columns, write_report
from earthsr.inference.journal import Journal, Key, Written
from earthsr.inference.pieces import ModelFile, Piece, Place, Scheduler
from earthsr.inference.scheduler import LocalScheduler, make_all
from earthsr.ranks import Rank
from earthsr.store import owned, part_name, remove_leftovers, write_json
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


#: Pieces into which a split is cut at most: few enough that each has work, many enough for a machine full of workers.
_MOST_PIECES: Final = 64


class _TallyStages:
    """Scores a share of a split, and hands back what was counted."""

    def __init__(self, task: Task, model: Model, dataset: Any, of: int) -> None:
        self._task, self._model, self._dataset, self._of = task, model, dataset, of

    def read(self, item: int) -> int:
        return item  # a share is read batch by batch while it is scored

    def compute(self, item: int, values: int) -> Any:
        return self._task.tally(self._model, self._dataset, Rank(item, self._of))

    def write(self, item: int, made: Any) -> Written:
        return Written(value=made)


@dataclass(frozen=True)
class _TallyRecipe:
    """How a worker opens what it needs: the model and the split."""

    model: ModelFile
    config: dict[str, Any]
    """Plain: its class may be made of what is installed."""
    split: str
    of: int

    def open(self, place: Place) -> _TallyStages:
        task = task_for(from_mapping(self.config))
        return _TallyStages(task, self.model.open(place), task.scored(self.split), self.of)


class _Sum:
    """Adds tallies up in the order of their pieces, whichever is done first."""

    def __init__(self) -> None:
        self.total: Any = None
        self._next, self._waiting = 0, {}  # type: ignore[var-annotated]

    def take(self, key: Key, tally: Any) -> None:
        self._waiting[int(key.name)] = tally
        while self._next in self._waiting:
            tally = self._waiting.pop(self._next)
            self.total = tally if self.total is None else self.total + tally
            self._next += 1


def _tallied(task: Task, model: Model, dataset: Any, split: str, folder: Path, scheduler: Scheduler) -> Any:
    """Count a split in pieces, which do not depend on who scores them: nor do the sums, to the last bit."""
    of = min(task.batches_scored(dataset), _MOST_PIECES)
    recipe = None
    if not isinstance(scheduler, LocalScheduler):
        values = task.config.model_dump(mode="json")
        values["data"]["root_dir"] = str(Path(values["data"]["root_dir"]).absolute())
        recipe = _TallyRecipe(ModelFile.of(model), values, split, of)
    keys = [Key("split", f"{item:03d}") for item in range(of)]
    pieces = {key: Piece(key, item) for item, key in enumerate(keys)}
    stages, tallies, journal = _TallyStages(task, model, dataset, of), _Sum(), Journal(folder / "done", folder)
    make_all(scheduler, recipe, pieces, journal, stages=stages, label="evaluate", take=tallies.take)
    return tallies.total


def evaluate_split(
    model: Model, config: Config, split: str, output: Path, scheduler: Scheduler | None = None
) -> Evaluation:
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
    scheduler : Scheduler, optional
        Who scores the pieces of the split: this process where absent.

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
    if len(inspect.signature(task.findings).parameters) != 3:
        raise ConfigError(
            f"task {task.name}: findings of {type(task).__name__} takes others than model, dataset, tally: the "
            "last two stand in the place of a split: see earthsr.tasks.Task"
        )
    with owned(output, inside=True):
        dataset = task.scored(split)
        folder = output / part_name(output / "tallies")
        folder.mkdir()
        try:
            tally = _tallied(task, model, dataset, split, folder, scheduler or LocalScheduler())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        findings = task.findings(model, dataset, tally)
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

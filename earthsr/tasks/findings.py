"""What a task finds in a split: scores, pictures and words, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.evaluation.figures import new_figure, save
from earthsr.evaluation.report import Columns

Pictures = list[tuple[Path, str]]
"""Files and their captions."""
Tables = list[tuple[str, str]]
"""Headings and HTML."""


@dataclass(frozen=True)
class Findings:
    """What an evaluation gives, for ``metrics.json`` and ``report.html``."""

    title: str
    """Of the report."""
    metrics: dict[str, Any]
    """The contents of ``metrics.json`` but for the provenance."""
    provenance: dict[str, Any]
    """Where the numbers come from."""
    headline: str
    """What was found, in a sentence or two."""
    columns: Columns
    """Scores that a table of the methods shows."""
    tables: Tables
    """Of the report, by their headings."""
    draw: Callable[[Path], tuple[Pictures, Tables]]
    """Draws into a folder; returns the pictures, the most telling first, and tables that only drawing finds."""
    curves: str = "Training loss and learning rate by step; validation score by epoch."
    """Caption of the run's curves."""
    protocol: Mapping[str, Any] | None = None
    """What else the report says of how the numbers were made."""


def model_provenance(model: Model) -> dict[str, str]:
    """Checkpoint and backend, in words."""
    return {
        "checkpoint": str(model.metadata.get("source", "in memory")),
        "backend": f"{model.backend.name} {model.backend.version()} ({model.engine.device}, {model.engine.precision})",
    }


def provenance_of(model: Model, file: Any, origin: str) -> dict[str, str]:
    """Checkpoint, data and backend, in words; ``file`` is the split's, ``origin`` what it says of its source."""
    of_model = model_provenance(model)
    return {
        "checkpoint": of_model["checkpoint"],
        "data": str(file.path),
        "data fingerprint": file.fingerprint(),
        "data source": origin,
        "backend": of_model["backend"],
    }


def score_bars(scores: Mapping[str, Mapping[str, Any]], key: str, units: str, title: str, path: Path) -> Path:
    """Draw one score of every method as bars; returns the file."""
    shown = {name: values[key] for name, values in scores.items() if values.get(key) is not None}
    figure = new_figure(6.0, 1.2 + 0.4 * len(shown))
    axes = figure.subplots()
    colours = ["tab:blue" if name == "model" else "tab:gray" for name in shown]
    bars = axes.barh(list(shown), list(shown.values()), color=colours)
    axes.bar_label(bars, fmt="%.4g", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"{key} ({units})")
    axes.set_title(title, fontsize=11)
    return save(figure, path)

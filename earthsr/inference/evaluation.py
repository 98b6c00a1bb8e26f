"""What every evaluation gives, and what it says of where its numbers come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.dem.split import DemData
from earthsr.evaluation.figures import loss_curves, save
from earthsr.evaluation.report import Columns
from earthsr.landuse.split import LandUseData


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


def provenance_of(model: Model, source: DemData | LandUseData, origin: str) -> dict[str, str]:
    """Checkpoint, data and backend, in words."""
    return {
        "checkpoint": str(model.metadata.get("source", "in memory")),
        "data": str(source.path),
        "data fingerprint": source.fingerprint(),
        "data source": origin,
        "backend": f"{model.backend.name} {model.backend.version()} ({model.engine.device}, {model.engine.precision})",
    }


def run_curves(model: Model, output: Path, score: str = "rmse", label: str = "validation RMSE (m)") -> Path | None:
    """Loss curves of the run that the checkpoint belongs to, where it lies in one."""
    weights = Path(str(model.metadata.get("source", "")))
    log = weights.parent.parent.parent / "metrics.jsonl"
    if weights.parent.parent.name != "checkpoints" or not log.is_file():
        return None
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    if not any("valid" in record for record in records):
        return None
    return save(loss_curves(records, score, label), output / "figures" / "loss.png")

"""What a prediction says of itself: provenance for files, and a report for people and programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import earthsr
from earthsr.backend import Model
from earthsr.dem.predict.enlarge import Outcome, Plan
from earthsr.dem.predict.ensemble import takes_patch_means


def describe(plan: Plan, offset: float | None, outcome: Outcome) -> dict[str, Any]:
    """Provenance of a prediction: flat, of text and numbers, as attributes of files hold it."""
    options, first = plan.options, plan.group[0].model
    models = list({id(member.model): member.model for member in plan.group}.values())
    values: dict[str, Any] = {
        "earthsr_version": earthsr.__version__,
        "checkpoint": ", ".join(_checkpoint(model) for model in models),
        "backend": f"{first.backend.name} {first.backend.version()} ({first.engine.device}, {first.engine.precision})",
        "source": plan.source.name,
        "scale": plan.scale,
        "mode": options.mode,
        "window_cells": " x ".join(str(side) for side in plan.tiles.shape),
        "members": len(plan.group),
    }
    if options.mode == "gaussian":
        values["overlap"] = options.overlap
        if outcome.difference is not None:
            values["difference_from_exact_m"] = outcome.difference
            values["difference_from_exact_cells"] = outcome.compared
    elif offset is not None and any(takes_patch_means(model) for model in models):
        values["normalisation_offset_m"] = offset
    values["conserved"] = str(options.conserve).lower()
    for name, residual in (("before", outcome.before), ("after", outcome.after)):
        if name == "after" and not options.conserve:
            continue
        values |= {f"area_mean_residual_{name}_{key}_m": v for key, v in residual.to_dict().items() if v is not None}
    return values


def _checkpoint(model: Model) -> str:
    """Run, step and file of a checkpoint; where it lies is nobody's business."""
    source = model.metadata.get("source")
    return "/".join(Path(str(source)).parts[-4:]) if source else "in memory"


def summary(plan: Plan, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """What was done and found, for people and programs."""
    cells = plan.output.rows * plan.output.columns
    return {
        **grids(plan),
        "valid_cells": outcome.valid,
        "minimum": None if not outcome.valid else outcome.minimum,
        "maximum": None if not outcome.valid else outcome.maximum,
        "area_mean_residual_m": {
            "before": outcome.before.to_dict(),
            "after": outcome.after.to_dict() if plan.options.conserve else None,
        },
        "difference_from_exact_m": outcome.difference,
        "compared_coarse_cells": outcome.compared,
        "seconds": {"total": seconds, **asdict(outcome.times)},
        "output_megapixels_per_s": cells / 1e6 / seconds,
    }


def grids(plan: Plan) -> dict[str, Any]:
    """Grids of input and output."""
    here, there = plan.source.georeference, plan.output
    return {
        "input_shape": [here.rows, here.columns],
        "output_shape": [there.rows, there.columns],
        "bands": list(plan.bands),
        "transform": list(there.transform),
        "bounds": list(there.bounds),
        "units": "m",
        "mode": plan.options.mode,
        "members": len(plan.group),
    }

"""What is said of a prediction: provenance for its file, a summary for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import earthsr
from earthsr.backend import Model
from earthsr.dem.predict.enlarge import EnlargeResult
from earthsr.dem.predict.ensemble import takes_patch_means
from earthsr.dem.predict.plan import EnlargePlan


def describe(plan: EnlargePlan, offset: float | None, outcome: EnlargeResult | None = None) -> dict[str, Any]:
    """Provenance of a prediction: flat, of text and numbers, as attributes of files hold it.

    Without an outcome it is what is known before anything is computed.
    """
    options, first = plan.options, plan.group[0].model
    models = list({id(member.model): member.model for member in plan.group}.values())
    values: dict[str, Any] = {
        "earthsr_version": earthsr.__version__,
        "checkpoint": ", ".join(_checkpoint(model) for model in models),
        "backend": first.computed_by,
        "source": plan.source.name,
        "scale": plan.scale,
        "mode": options.mode,
        "window_cells": " x ".join(str(side) for side in plan.tiles.shape),
        "members": len(plan.group),
    }
    if plan.source.notes:
        values["input_notes"] = "; ".join(plan.source.notes)
    if options.mode == "gaussian":
        values["overlap"] = options.overlap
        if outcome is not None and outcome.difference is not None:
            values["difference_from_exact_m"] = outcome.difference
            values["difference_from_exact_cells"] = outcome.compared
    elif offset is not None and any(takes_patch_means(model) for model in models):
        values["normalisation_offset_m"] = offset
    values["conserved"] = str(options.conserve).lower()
    if plan.kept is not None:
        values |= plan.kept.provenance()
    if outcome is None:
        return values
    if outcome.clipped:
        values["clipped_cells"] = outcome.clipped
    for name, residual in (("before", outcome.before), ("after", outcome.after)):
        if name == "after" and not options.conserve:
            continue
        values |= {f"area_mean_residual_{name}_{key}_m": v for key, v in residual.to_dict().items() if v is not None}
    return values


def _checkpoint(model: Model) -> str:
    """Run, step and file of a checkpoint; where it lies is nobody's business."""
    source = model.metadata.get("source")
    return "/".join(Path(str(source)).parts[-4:]) if source else "in memory"


def summary(plan: EnlargePlan, outcome: EnlargeResult, times: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """What was done and found, for people and programs."""
    cells = plan.output.rows * plan.output.columns
    return {
        **grids(plan),
        "valid_cells": outcome.valid,
        "clipped_cells": outcome.clipped,
        "minimum": None if not outcome.valid else outcome.minimum,
        "maximum": None if not outcome.valid else outcome.maximum,
        "area_mean_residual_m": {
            "before": outcome.before.to_dict(),
            "after": outcome.after.to_dict() if plan.options.conserve else None,
        },
        "difference_from_exact_m": outcome.difference,
        "compared_coarse_cells": outcome.compared,
        "seconds": {"total": seconds, **times},
        "output_megapixels_per_s": cells / 1e6 / seconds,
    }


def grids(plan: EnlargePlan) -> dict[str, Any]:
    """Grids of input and output."""
    grid, output = plan.source.georeference, plan.output
    return {
        "input_shape": [grid.rows, grid.columns],
        "output_shape": [output.rows, output.columns],
        "bands": list(plan.bands),
        "transform": list(output.transform),
        "bounds": list(output.bounds),
        "units": "m",
        "mode": plan.options.mode,
        "members": len(plan.group),
    }

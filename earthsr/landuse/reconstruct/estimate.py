"""What a reconstruction would take: windows, hours, disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earthsr.backend import Model
from earthsr.landuse.reconstruct.chunk import WindowFields, WindowGround, scalars_of
from earthsr.landuse.reconstruct.output import require_free
from earthsr.landuse.reconstruct.plan import Options, Plan, make_plan, open_inputs
from earthsr.landuse.reconstruct.run import require_kind, survey_anchor
from earthsr.landuse.samples import stack
from earthsr.landuse.sources.world_inputs import Inputs


def dry_run(
    model: Model,
    inputs: Inputs,
    years: tuple[int, int],
    target: str | Path,
    options: Options | None = None,
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Say what :func:`reconstruct` would do, after reading the anchor and predicting one batch for the time it takes.

    Parameters
    ----------
    model : Model
        Of land-use classes.
    inputs : Inputs
        Anchor, scenario and static fields.
    years : tuple of int
        First and last year.
    target : str or Path
        Where the maps would go.
    options : Options, optional
        How to roll out.
    workers : int
        That share the chunks.
    overwrite : bool
        Whether the target may be there already.

    Returns
    -------
    dict
        Grid, chunks, windows, estimated hours of each process, bytes before compression, bytes free.
    """
    path = Path(target)
    options = options or Options()
    require_kind(path, options)
    world = open_inputs(model, inputs)
    try:
        plan = make_plan(model, world, years, options)
        require_free(path, plan, overwrite)
        windows, _ = survey_anchor(plan)
        seconds = _seconds_per_window(plan) * sum(windows) * (len(plan.steps) - 1)
    finally:
        world.close()
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    return {
        **_described(plan, windows),
        "estimated_hours": seconds / 3600 / workers,
        "workers": workers,
        "bytes_free": shutil.disk_usage(folder).free,
    }


def _seconds_per_window(plan: Plan) -> float:
    """Seconds of one window in a full batch; the first batch, which compiles and warms up, does not count."""
    if len(plan.steps) < 2:
        return 0.0
    step = plan.steps[1]
    assert step.before is not None
    spec = plan.model.spec
    tile = next(iter(plan.tiles.tiles(plan.whole)))
    world = plan.world
    fields = WindowFields(
        plan.grid,
        world.scenario.grid,
        plan.tiles.tile,
        plan.model.metadata.get("coarse_interpolation", "bilinear"),
        tuple(field.name for field in spec.inputs),
    )
    static = plan.normalisation.static(world.static(tile.window))
    ground = WindowGround(tile.window, static, world.anchor(tile.window), world.scenario.fractions(step.year))
    scalars = scalars_of(step.year, step.before)
    batch = stack([fields.of(tile.window, ground, scalars)] * plan.batch_size)
    plan.model.submit_fields(batch, pad_to=plan.batch_size).result()
    began = time.perf_counter()
    plan.model.submit_fields(batch, pad_to=plan.batch_size).result()
    return (time.perf_counter() - began) / plan.batch_size


def _described(plan: Plan, windows: Sequence[int]) -> dict[str, Any]:
    """What a plan comes to, for people and programs."""
    cells = plan.grid.rows * plan.grid.columns
    layers = {"land_use": 1, "confidence": 1, "probabilities": len(plan.table)}
    kept = ("land_use", *plan.options.keep)
    # Windows that touch two chunks are predicted for both.
    once = sum(1 for _ in plan.tiles.tiles(plan.whole)) if len(plan.lattice) > 1 else None
    every = sum(sum(1 for _ in plan.tiles.tiles(plan.area(chunk))) for chunk in plan.lattice)
    return {
        "grid": [plan.grid.rows, plan.grid.columns],
        "years": [plan.years[0], plan.years[-1]],
        "anchor": plan.world.anchor_year,
        "maps": len(plan.years),
        "chunks": len(plan.lattice),
        "chunk": list(plan.side),
        "tile": plan.tiles.tile,
        "windows_per_year": sum(windows),
        "windows_computed_twice_percent": 0.0 if once is None else 100 * (every / once - 1),
        "bytes_maps_uncompressed": cells * len(plan.years) * sum(layers[name] for name in kept),
        "bytes_static": 4 * cells * (len(plan.world.static_channels) + 1),
    }

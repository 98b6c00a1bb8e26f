"""The verb evaluate: score a model beside its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Backend, Checkpoint, Device, Json, SchedulerAddress, SchedulerKind, Workers, show

AmpLevel = Annotated[str | None, typer.Option("--amp-level", help="O0 to O3; that of training where absent.")]


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder; else the one it was trained on.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, valid or test.")] = "test",
    backend: Backend = None,
    device: Device = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder; else evaluation/ in the run folder, or NAME-evaluation/ beside a file in none."
        ),
    ] = None,
    amp_level: AmpLevel = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="Also score this, of an installed package.")
    ] = None,
    scheduler: SchedulerKind = None,
    scheduler_address: SchedulerAddress = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Score a model and its baselines in physical units; write metrics.json, figures and report.html."""
    from earthsr.api import evaluate as run_evaluation
    from earthsr.errors import InputError
    from earthsr.evaluation.report import text_table
    from earthsr.inference.scheduler import make_scheduler
    from earthsr.log import set_up_logger

    if split not in ("train", "valid", "test"):
        raise InputError(f"--split is {split!r}, expected train, valid or test")
    if amp_level not in (None, "O0", "O1", "O2", "O3"):
        raise InputError(f"--amp-level is {amp_level!r}, expected O0, O1, O2 or O3")
    set_up_logger()
    # Tasks of a SLURM step that are workers do so here, and do not come back.
    with make_scheduler(scheduler, scheduler_address, workers) as chosen:
        result = run_evaluation(
            checkpoint,
            data=data,
            split=split,
            backend=backend,
            device=device or "auto",
            output=output,
            amp_level=amp_level,
            metrics=metric or (),
            scheduler=chosen,
        )
    metrics = result.metrics
    lines = [text_table(metrics["scores"], result.columns), result.headline]
    lines.append(f"picture {result.figures[0]} (and {len(result.figures) - 1} more beside it)")
    lines.append(f"report  {result.report}")
    if result.page is not None:
        lines.append(f"page    {result.page}: open it in a browser, and slide from the low resolution to the truth")
    show(metrics, as_json, "\n".join(lines))

"""The verbs that learn and score: train, evaluate."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Backend, Checkpoint, ConfigFile, Device, Json, Set, show

AmpLevel = Annotated[str | None, typer.Option("--amp-level", help="O0 to O3; that of training where absent.")]


def _precision(amp_level: str | None) -> None:
    from earthsr.errors import InputError

    if amp_level not in (None, "O0", "O1", "O2", "O3"):
        raise InputError(f"--amp-level is {amp_level!r}, expected O0, O1, O2 or O3")


def train(
    config: ConfigFile,
    backend: Backend = None,
    device: Device = None,
    output: Annotated[Path | None, typer.Option("--output", help="Run folder; else summary.summary_dir.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Carry on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that the folder holds.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Train into a run folder.

    Where train.distribute is true, all processes of a launcher (torchrun, msrun) train together.

    SIGTERM and Ctrl-C write a checkpoint and end the run; --resume then carries on exactly.
    """
    from earthsr.api import train as run_training
    from earthsr.config import load_yaml_config
    from earthsr.errors import EarthsrWarning, InputError
    from earthsr.log import create_logger
    from earthsr.ranks import ALONE, launched_rank

    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one of them")
    loaded = load_yaml_config(config, overrides or ())
    if output is not None:
        loaded.summary.summary_dir = str(output)
    # Of several ranks the first one speaks for all; what is wrong with another one it says itself.
    first = (launched_rank() or ALONE).number == 0
    logger = create_logger(level=logging.INFO if first else logging.ERROR)
    if not first:
        warnings.simplefilter("ignore", EarthsrWarning)
    run = run_training(loaded, backend=backend, device=device, resume=resume, overwrite=overwrite, logger=logger)
    result = run.result
    values = {
        "folder": str(result.folder),
        "steps": result.steps,
        "epochs": result.epochs,
        f"best_valid_{result.score_name}": result.best_score,
        "stopped_early": result.stopped_early,
        "interrupted_by": result.interrupted_by,
    }
    best = "" if result.best_score is None else f", best validation {result.words}"
    state = f"interrupted by {result.interrupted_by}" if result.interrupted_by else "done"
    if first:
        show(
            values, as_json, f"{state}: {result.steps} steps, {result.epochs} epochs{best}; run folder {result.folder}"
        )
    if result.interrupted_by == "SIGINT":
        raise typer.Exit(130)


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
    as_json: Json = False,
) -> None:
    """Score a model and its baselines in physical units; write metrics.json, figures and report.html."""
    from earthsr.api import evaluate as run_evaluation
    from earthsr.errors import InputError
    from earthsr.evaluation.report import text_table
    from earthsr.log import create_logger

    if split not in ("train", "valid", "test"):
        raise InputError(f"--split is {split!r}, expected train, valid or test")
    _precision(amp_level)
    create_logger()
    result = run_evaluation(
        checkpoint,
        data=data,
        split=split,
        backend=backend,
        device=device or "auto",
        output=output,
        amp_level=amp_level,
    )
    metrics = result.metrics
    lines = [text_table(metrics["scores"], result.columns), result.headline]
    lines.append(f"picture {result.figures[0]} (and {len(result.figures) - 1} more beside it)")
    lines.append(f"report  {result.report}")
    show(metrics, as_json, "\n".join(lines))

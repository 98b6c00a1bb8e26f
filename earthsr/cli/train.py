"""The verb train: learn into a run folder."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Backend, ConfigFile, Device, Json, Set, show


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
    from earthsr.log import set_up_logger
    from earthsr.ranks import ALONE, launched_rank

    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one of them")
    loaded = load_yaml_config(config, overrides or ())
    if output is not None:
        loaded.summary.summary_dir = str(output)
    # Of several ranks the first one speaks for all; what is wrong with another one it says itself.
    first = (launched_rank() or ALONE).number == 0
    logger = set_up_logger(level=logging.INFO if first else logging.ERROR)
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

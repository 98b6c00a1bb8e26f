"""The verb parity: whether two backends, or two machines, compute the same thing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Backend, ConfigFile, Device, Json, Set, show


def parity(
    config: ConfigFile,
    backends: Annotated[
        tuple[str, str] | None,
        typer.Option("--backends", metavar="A B", help="The two to compare; those installed where absent."),
    ] = None,
    backend: Backend = None,
    device: Device = None,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Write what one backend computes here.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Compare one backend with a record.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 20,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Made inputs, even where data.root_dir holds data.")
    ] = False,
    noise: Annotated[
        bool, typer.Option("--noise/--no-noise", help="Measure each backend's own noise, which doubles the time.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for parity.json and parity.png; else RUN-parity.")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Compare what two backends compute for a model: layers, gradients, optimiser, course of training.

    Both in one process, or with --record on one machine and --against on another. Everything is computed in strict
    float32. The exit code is 1 where a difference is larger than its tolerance.
    """
    from earthsr.check.parity import run_parity
    from earthsr.check.parity_compare import text_table
    from earthsr.config import load_yaml_config
    from earthsr.log import set_up_logger

    set_up_logger()
    loaded = load_yaml_config(config, overrides or ())
    result = run_parity(
        loaded,
        backends=backends,
        backend=backend,
        device=device,
        record=record,
        against=against,
        steps=steps,
        synthetic=synthetic,
        noise=noise,
        output=output,
    )
    if result.comparison is None:
        show(result.to_dict(), as_json, f"{record}: recorded {result.recorded[0].title}, {steps} steps")
        return
    lines = [text_table(result.comparison)]
    lines += [f"{kind:<7} {path}" for kind, path in result.files.items()]
    show(result.to_dict(), as_json, "\n".join(lines))
    if not result.comparison.agrees:
        raise typer.Exit(1)

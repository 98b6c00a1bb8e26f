"""The verb bench: how fast a configuration trains here, and how near that is to what the machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Backend, ConfigFile, Device, Json, Set, show


def bench(
    config: ConfigFile,
    backend: Backend = None,
    device: Device = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps that are timed.")] = 20,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Steps before them that are not.")] = 3,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Made batches, even where data.root_dir holds data.")
    ] = False,
    compare_plain: Annotated[
        bool, typer.Option("--compare-plain", help="Time float32 in the framework's default layout too.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the result as JSON too.")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Time training steps, their phases and the loader, and compare them with bare operators in the same process.

    One process on one device, whatever train.distribute says. Other work on the machine is measured with it.
    """
    from earthsr.check.bench import run_bench, text_table
    from earthsr.config import load_yaml_config
    from earthsr.errors import InputError
    from earthsr.log import set_up_logger
    from earthsr.store import require_other, write_json

    if output is not None and output.is_dir():
        raise InputError(f"--output {output} is a folder; name a file in it, such as {output / 'bench.json'}")
    if output is not None:
        require_other([output], [config])
    set_up_logger()
    loaded = load_yaml_config(config, overrides or ())
    result = run_bench(
        loaded,
        backend=backend,
        device=device,
        steps=steps,
        warmup=warmup,
        synthetic=synthetic,
        compare_plain=compare_plain,
    )
    # Shown first: what took minutes is not lost where it cannot be written.
    show(result.to_dict(), as_json, text_table(result))
    if output is not None:
        write_json(output, result.to_dict())

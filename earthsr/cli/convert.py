"""The verb convert: weights from one format into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Json, Set, show


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Weights file, run folder or checkpoint folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Destination: .safetensors, .ckpt, .pt or .pth.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="CONFIG", help="Describes the network, where IN does not say what it is."),
    ] = None,
    names: Annotated[str, typer.Option("--names", help="earthsr, or mindearth for its own variant.")] = "earthsr",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it is there.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Convert weights between safetensors, MindSpore's .ckpt and PyTorch's .pt and .pth; no number changes.

    MindEarth's DEMNet is recognised by its names; its scale is 5 unless CONFIG says otherwise. Nothing is unpickled
    but tensors. A file of a framework needs that framework; moments and counters of a trainer are left out.
    """
    from earthsr.check.convert import convert as run
    from earthsr.config import load_yaml_config
    from earthsr.errors import InputError

    if overrides and config is None:
        raise InputError("--set changes a configuration; name one with --config")
    loaded = None if config is None else load_yaml_config(config, overrides or ())
    result = run(source, target, config=loaded, names=names, overwrite=overwrite)
    left = f", {len(result['left_out'])} entries that are no weights left out" * bool(result["left_out"])
    text = f"{target}: {result['tensors']} tensors, {result['parameters']:,} parameters, from {result['kind']}{left}"
    show(result, as_json, text)

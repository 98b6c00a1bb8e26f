"""Options that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="torch, mindspore, or onnx for exported models; else the config's, EARTHSR_BACKEND, the only one.",
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, gpu or ascend.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set a key of the configuration; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration; configs/ has examples.")]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Run folder (its best), checkpoint folder, weights file, exported model, or name of a pretrained one.",
    ),
]


_SCHEDULER = "local, in this process, or dask; dask where one of the next two is given."
_ADDRESS = "Scheduler of Dask that runs: tcp://HOST:PORT, or the file that it wrote."
SchedulerKind = Annotated[str | None, typer.Option("--scheduler", metavar="local|dask", help=_SCHEDULER)]
SchedulerAddress = Annotated[str | None, typer.Option("--scheduler-address", metavar="ADDRESS", help=_ADDRESS)]
_FULL_HASH = "Carry on only where inputs are the same to the last byte; else size, time and some blocks decide."
FullHash = Annotated[bool, typer.Option("--full-hash", help=_FULL_HASH)]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes of Dask to start on this machine.")]


def show(result: Any, as_json: bool, text: str) -> None:
    """Print a result on standard output: JSON for programs, text for people."""
    from earthsr.errors import printable

    # JSON spells control characters out by itself.
    typer.echo(json.dumps(result, indent=2) if as_json else printable(text))


def box_of(text: str | None) -> tuple[float, float, float, float] | None:
    """Read W,S,E,N."""
    from earthsr.errors import InputError

    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        numbers = text.replace(",", " ").split()
        like = f": --bbox {','.join(numbers)}" if len(numbers) == 4 else ", such as --bbox 17,43,18,44"
        raise InputError(f"--bbox is {text!r}, expected west,south,east,north with commas between them{like}") from None
    return west, south, east, north


def as_lines(values: dict[str, Any], indent: str = "") -> str:
    """Values as lines of text for people, those inside others indented."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:")
            lines.append(as_lines(value, indent + "  "))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  " + ", ".join(f"{k} {_plain(v)}" for k, v in item.items()) for item in value]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{indent}{key}: {value}")
    return "\n".join(line for line in lines if line)


def _plain(value: Any) -> str:
    return "/".join(map(str, value)) or "none" if isinstance(value, list) else str(value)

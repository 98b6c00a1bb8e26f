"""The verbs info and doctor: what a file holds, what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earthsr.cli.options import Json, show


def _text(values: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:")
            lines.append(_text(value, indent + "  "))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  " + ", ".join(f"{k} {_plain(v)}" for k, v in each.items()) for each in value]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{indent}{key}: {value}")
    return "\n".join(line for line in lines if line)


def _plain(value: Any) -> str:
    return "/".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration, checkpoint, run folder or data file.")],
    as_json: Json = False,
) -> None:
    """Say what a configuration, checkpoint or data file holds."""
    from earthsr.describe import describe_file

    values = describe_file(file)
    show(values, as_json, _text(values))


def doctor(as_json: Json = False) -> None:
    """Say what this machine can do: backends, devices, precisions, packages; and what not, and why."""
    from earthsr.describe import describe_machine

    values = describe_machine()
    show(values, as_json, _text(values))

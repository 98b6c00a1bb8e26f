"""The verbs info and doctor: what a file holds, what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earthsr.cli.options import Json, show

_FILE = "Configuration, checkpoint, run folder, name of a pretrained model, or data file."


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
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_FILE)],
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE.md", help="Write the model card of a checkpoint as Markdown.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.md where it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a configuration, checkpoint or data file holds; of a checkpoint, its model card.

    The card says architecture, training data and their fingerprint, scores beside baselines, intended use, limits,
    licence and how to cite; what nobody recorded is said to be so. With --json everything that the file says.
    """
    from earthsr.check.info import describe_file, write_card
    from earthsr.errors import InputError

    if overwrite and card is None:
        raise InputError("--overwrite replaces the file that --card names; give --card FILE.md")
    values = describe_file(file)
    if card is not None:
        values["card_file"] = str(write_card(values, card, overwrite=overwrite))
    show(values, as_json, _described(values))


def _described(values: dict[str, Any]) -> str:
    from earthsr.check.card_pages import card_text

    if "card" not in values:
        return _text(values)
    head: dict[str, Any] = {key: values[key] for key in ("kind", "path", "card_file") if key in values}
    return f"{_text(head)}\n\n{card_text(values['card'])}"


def doctor(as_json: Json = False) -> None:
    """Say what this machine can do: backends, devices, precisions, packages; and what not, and why."""
    from earthsr.check.info import describe_machine

    values = describe_machine()
    show(values, as_json, _text(values))

"""The verb info: what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earthsr.cli.options import Json, as_lines, show

_FILE = "Configuration, checkpoint, run folder, name of a pretrained model, data file, or raster (FILE.nc:VARIABLE)."


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_FILE)],
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE.md", help="Write the model card of a checkpoint as Markdown.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.md where it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a configuration, checkpoint, data file or raster holds; of a checkpoint, its model card.

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
    from earthsr.check.card import card_text

    if "card" not in values:
        return as_lines(values)
    head: dict[str, Any] = {key: values[key] for key in ("kind", "path", "card_file") if key in values}
    return f"{as_lines(head)}\n\n{card_text(values['card'])}"

"""What a stage is: commands that a user could type, what they need, and how one knows whether they are done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from earthsr.errors import InputError


@dataclass(frozen=True)
class Command:
    """One command line, and what is added to it when it begins and when it goes on after an interruption."""

    words: tuple[str, ...]
    begin: tuple[str, ...] = ()
    carry_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Commands whose result is kept."""

    name: str
    commands: tuple[Command, ...]
    result: Path
    """File or folder that is there afterwards."""
    needs: tuple[str, ...] = ()
    """Stages that come before it."""
    inputs: tuple[Path, ...] = ()
    """Files that decide the result, beside the commands."""
    check: Callable[[], None] | None = None
    """Raises an error where the result is not what it has to be."""


def keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Key of every stage: of its commands, the contents of its inputs and the keys of what it needs.

    What was done under another key is not what is asked for.
    """
    keys: dict[str, str] = {}
    digests: dict[Path, str] = {}
    for stage in stages:
        for path in stage.inputs:
            if path not in digests:
                digests[path] = _digest(path)
        description = {
            "commands": [command.words for command in stage.commands],
            "inputs": [digests[path] for path in stage.inputs],
            "needs": [keys[name] for name in stage.needs],
        }
        keys[stage.name] = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    return keys


def _digest(path: Path) -> str:
    """Of the contents: times change where files are copied or mounted anew, and hours of work would be done again."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def chosen(stages: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    """Stages that patterns name, and what these need, in the order of the plan; all of them without a pattern.

    A pattern is a stage's name, the beginning of some (``train``), or a shell pattern (``score/*/edsr``).

    Raises
    ------
    InputError
        If a pattern names no stage.
    """
    if not only:
        return list(stages)
    by_name: Mapping[str, Stage] = {stage.name: stage for stage in stages}
    wanted: list[str] = []
    for pattern in only:
        hits = [name for name in by_name if name.startswith(f"{pattern}/") or fnmatchcase(name, pattern)]
        if not hits:
            raise InputError(f"--only {pattern}: no such stage; --list shows all {len(by_name)}")
        wanted += hits
    needed = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted += by_name[name].needs
    return [stage for stage in stages if stage.name in needed]

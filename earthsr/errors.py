"""The errors and warnings that earthsr raises on purpose.

An :class:`InputError` says what was found, what was expected and what to do next; the command line prints it
as one line and exits with code 2. Anything else that escapes is a failure of the work and exits with 1.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

_MOST_NAMES: Final = 8
#: Environment variable that is set while ``--allow-external`` holds.
ALLOW_EXTERNAL: Final = "EARTHSR_ALLOW_EXTERNAL"


class EarthsrWarning(UserWarning):
    """Something was assumed on the user's behalf."""


class EarthsrError(Exception):
    """Base of all errors that earthsr raises on purpose; the work failed (exit code 1)."""

    exit_code = 1


class InputError(EarthsrError, ValueError):
    """The arguments, the configuration or an input file are wrong (exit code 2)."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration cannot be read, or a key in it is unknown or out of range."""


class DataError(InputError):
    """A data file is missing, damaged or not of the expected layout."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged or belongs to another model."""


class BackendError(InputError):
    """A backend is unknown, not installed, or does not support what is asked of it."""


class TrainingError(EarthsrError):
    """Training cannot go on, for example because the loss is not finite."""


class WorkError(EarthsrError):
    """Work cannot go on for a reason that lies outside of it, for example another process that has died."""


class ResultError(EarthsrError):
    """What was computed cannot be right, and is not written."""


def already_there(path: object, other: str = "name") -> InputError:
    """Return the error of a target that is not to be replaced; ``other`` is what else could be chosen."""
    return InputError(f"{path} is there already; choose another {other}, or --overwrite (in Python overwrite=True)")


def install_hint(*extras: str) -> str:
    """Return the command that installs optional parts of the package, from an index and in a clone."""
    words = ",".join(extras)
    return f"pip install 'earthsr[{words}]' (in a clone: pip install -e '.[{words}]')"


def geo_module(name: str) -> Any:
    """Import a package of the extra ``geo``, when it is needed and not before.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"reading rasters needs the package {name.split('.')[0]}: {install_hint('geo')}") from None


def listed(values: Sequence[str]) -> str:
    """Some names for a message, the rest counted."""
    shown = ", ".join(values[:_MOST_NAMES])
    return shown if len(values) <= _MOST_NAMES else f"{shown} and {len(values) - _MOST_NAMES} more"


def printable(text: str) -> str:
    """Return text in which control characters, and those that turn the direction of writing, are spelled out.

    Line breaks and tabs stay.
    """
    kept = text.encode("utf-8", "replace").decode("utf-8")
    odd = {sign for sign in kept if unicodedata.category(sign)[0] == "C"} - {"\n", "\t"}
    return kept.translate({ord(sign): sign.encode("unicode_escape").decode("ascii") for sign in odd})

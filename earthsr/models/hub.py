"""Weights on the Hugging Face Hub: a repository holds one model, ``weights.safetensors`` and its card ``README.md``."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Final

from earthsr.errors import CheckpointError, InputError, install_hint

#: What stands before the name of a repository wherever a checkpoint is named.
PREFIX: Final = "hf:"
_REPOSITORY: Final = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


def repository(text: str | Path) -> str | None:
    """Name that a text has for a repository, ``owner/name`` or ``owner/name@revision`` behind ``hf:``; else None."""
    words = str(text)
    if not words.startswith(PREFIX):
        return None
    # A path of the name has one slash where an address would have two.
    name = words.removeprefix(PREFIX).lstrip("/")
    if _REPOSITORY.fullmatch(name) is None:
        raise CheckpointError(f"{text}: is no repository of the Hub, expected {PREFIX}owner/name")
    return name


def looks_like_repository(text: str | Path) -> bool:
    """Whether a text has the form ``owner/name`` and nothing of the disk begins so."""
    match = _REPOSITORY.fullmatch(str(text))
    return match is not None and not Path(str(text).split("/")[0]).exists()


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f"models of the Hub need the package huggingface_hub: {install_hint('hub')}") from None
    return huggingface_hub


def download(name: str, filename: str) -> Path:
    """Bring a file of a repository here, from the Hub's cache where it is there already.

    Parameters
    ----------
    name : str
        ``owner/name``, or ``owner/name@revision``.
    filename : str
        The file.

    Raises
    ------
    CheckpointError
        If there is no such repository or file, or the network is not there.
    InputError
        If the package is not installed.
    """
    hub, match = _hub(), _REPOSITORY.fullmatch(name)
    assert match is not None
    log = logging.getLogger("huggingface_hub")
    level = log.level
    # Each of its tries is a line; what counts is whether the last one succeeds.
    log.setLevel(logging.ERROR)
    try:
        return Path(hub.hf_hub_download(match["name"], filename, revision=match["revision"]))
    except Exception as error:  # the package, its client and the socket have errors of their own
        raise CheckpointError(
            f"{PREFIX}{name}: {filename} cannot be had from the Hugging Face Hub ({_reason(error)}); check the name "
            "and the network, or name a local folder"
        ) from None
    finally:
        log.setLevel(level)


def upload(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Put the files of a folder into a repository, which is made where it is not there.

    Parameters
    ----------
    folder : Path
        What to put there.
    name : str
        ``owner/name``.
    private : bool
        Whether a new repository is hidden from others.
    message : str
        Of the commit.

    Returns
    -------
    str
        Where it is.

    Raises
    ------
    InputError
        If the name is none, the package is not installed, or the Hub does not take it.
    """
    if _REPOSITORY.fullmatch(name) is None or "@" in name:
        raise InputError(f"{name!r} is no name of a repository, expected owner/name")
    api = _hub().HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message))
    except Exception as error:  # as in download
        raise InputError(
            f"{PREFIX}{name}: the Hugging Face Hub does not take it ({_reason(error)}); hf auth login says who you are"
        ) from None


def _reason(error: BaseException) -> str:
    """First sentence of an error, in one line."""
    words = " ".join(str(error).split())
    return (re.split(r"(?<=[.!]) ", words)[0] or type(error).__name__)[:200].rstrip(".")

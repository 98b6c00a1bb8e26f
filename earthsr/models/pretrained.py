"""Pretrained models that travel with the package: weights and model cards in ``earthsr/pretrained/``.

A model's name stands wherever a checkpoint is named, on the command line and in Python, unless there is a file or
folder of that name. ``tools/make_pretrained.py`` makes them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_SUFFIX = ".safetensors"


def pretrained_folder() -> Path:
    """Folder inside the installed package that holds weights (``NAME.safetensors``) and cards (``NAME.md``)."""
    # Weights are opened by path, and packages with compiled dependencies such as ours are never run from a zip file.
    return Path(str(files("earthsr"))) / "pretrained"


def pretrained_names() -> tuple[str, ...]:
    """Names of the pretrained models, sorted."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in pretrained_folder().glob(f"*{_SUFFIX}")))


def pretrained_weights(name: str) -> Path | None:
    """Weights file of the pretrained model of that name, or None where there is none."""
    return pretrained_folder() / f"{name}{_SUFFIX}" if name in pretrained_names() else None


def is_pretrained(weights: str | Path) -> bool:
    """Whether a weights file is one of the package's own, beside which nothing should be written."""
    return Path(weights).parent == pretrained_folder()

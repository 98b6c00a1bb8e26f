"""Reading a CHECKPOINT of any kind: run and checkpoint folders, weights files, exported models."""

from __future__ import annotations

from pathlib import Path

from earthsr.backend.registry import available_backends, exported_suffixes
from earthsr.models import WeightsFile, read_weights, resolve_checkpoint


def is_exported(path: str | Path) -> bool:
    """Whether a path has the suffix of exported models.

    Parameters
    ----------
    path : str or Path
        The path; nothing has to be there.
    """
    return Path(path).suffix.lower() in exported_suffixes()


def read_model(path: str | Path) -> WeightsFile:
    """Read what CHECKPOINT means.

    Parameters
    ----------
    path : str or Path
        A run folder (its best), a checkpoint folder, a weights file, or an exported model.

    Returns
    -------
    WeightsFile
        Without weights where it is an exported model, which nothing but a backend reads them from.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    file = resolve_checkpoint(path)
    if not is_exported(file):
        return read_weights(file)
    name = exported_suffixes()[file.suffix.lower()][0]
    spec, metadata = available_backends()[name]().read_model(file)
    return WeightsFile(spec, {}, metadata, file)

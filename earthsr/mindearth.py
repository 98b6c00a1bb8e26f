"""Weights in plain calls, as MindEarth's tutorials have them: read them, load them into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.models import read_weights, resolve_checkpoint
from earthsr.models.state import Weights


class Parameters(dict[str, NDArray[np.float32]]):
    """Weights under canonical names, with the metadata that their file carries."""

    def __init__(self, weights: Weights, metadata: dict[str, Any]) -> None:
        super().__init__(weights)
        self.metadata = metadata


def load_checkpoint(path: str | Path) -> Parameters:
    """Read the weights of a run folder, a checkpoint folder or a weights file.

    Parameters
    ----------
    path : str or Path
        What to read.

    Returns
    -------
    dict of str to ndarray
        Float32 weights under canonical names, with ``metadata``, for :func:`load_param_into_net`.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    file = read_weights(resolve_checkpoint(path))
    return Parameters(file.weights, {**file.metadata, "source": str(file.path)})


def load_param_into_net(model: Model, params: Weights) -> list[str]:
    """Load weights into a model, strictly.

    Parameters
    ----------
    model : Model
        Takes the weights over.
    params : dict of str to ndarray
        Under canonical names, in the shapes of the model's spec.

    Returns
    -------
    list of str
        Names that were not loaded: always empty, since loading is strict.

    Raises
    ------
    CheckpointError
        If a name or shape does not fit.
    """
    model.load_weights(params)
    if isinstance(params, Parameters):
        model.metadata.update(params.metadata)
    return []

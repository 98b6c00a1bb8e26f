"""PyTorch's own weights files: state dictionaries, read without unpickling anything but tensors."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import NDArray

from earthsr.errors import CheckpointError
from earthsr.models.weights import Weights
from earthsr.store.untrusted import require_honest_archive


def read_file(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Read the tensors of a state dictionary, and what earthsr wrote beside them.

    A dictionary inside a training checkpoint is found under ``state_dict``, ``model_state_dict``, ``model`` or
    ``weights``.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds anything that ``weights_only`` refuses.
    """
    require_honest_archive(path, stored=True)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, each of them a finding about the file
        refused = re.search(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.]+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path}: holds more than weights ({refused[1]}), which could run a program when loaded; save its "
                "state_dict alone"
            ) from None
        # PyTorch puts the cause behind a paragraph of advice.
        reason = " ".join(str(error).split("WeightsUnpickler error:")[-1].split())[:80]
        raise CheckpointError(f"{path}: is not a whole PyTorch file ({reason})") from None
    for key in ("state_dict", "model_state_dict", "model", "weights"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected a state dictionary")
    arrays = {
        str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for name, value in loaded.items()
        if isinstance(value, torch.Tensor)
    }
    noted = getattr(loaded, "_metadata", None) or {}
    return arrays, {str(k): v for k, v in noted.items() if isinstance(v, str)}


def write_file(path: Path, weights: Weights, packed: Mapping[str, str]) -> None:
    """Write a state dictionary; the metadata travels where modules keep their versions, out of the way of loading."""
    state = OrderedDict((name, torch.from_numpy(value.copy())) for name, value in weights.items())
    state._metadata = dict(packed)  # type: ignore[attr-defined]
    torch.save(state, path)

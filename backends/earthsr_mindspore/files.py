"""MindSpore's own weights files, ``.ckpt``: a protocol buffer of named arrays, which runs nothing when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
from mindspore import Parameter
from numpy.typing import NDArray

from earthsr.errors import CheckpointError
from earthsr.models.weights import Weights


def read_file(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Read the arrays of a checkpoint, and what earthsr wrote beside them.

    Raises
    ------
    CheckpointError
        If the file is damaged or empty.
    """
    try:
        loaded = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path}: is not a whole MindSpore checkpoint ({reason})") from None
    arrays = {
        name: value.astype(ms.float32).asnumpy() if value.dtype == ms.bfloat16 else value.asnumpy()
        for name, value in loaded.items()
        if isinstance(value, Parameter)
    }
    return arrays, {name: value for name, value in loaded.items() if isinstance(value, str)}


def write_file(path: Path, weights: Weights, packed: Mapping[str, str]) -> None:
    """Write a checkpoint; the metadata are entries of their own, which loading into a network passes over."""
    entries = [{"name": name, "data": ms.Tensor(value)} for name, value in weights.items()]
    ms.save_checkpoint(entries, str(path), append_dict=dict(packed))

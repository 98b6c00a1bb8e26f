"""The device that PyTorch computes on, and how its libraries behave there. Imports torch late."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from earthsr.errors import BackendError

if TYPE_CHECKING:
    import torch


def find_device(device: str) -> torch.device:
    """Return the device that is meant by ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``gpu:1``.

    Raises
    ------
    BackendError
        If it is not supported or not there.
    """
    import torch

    cuda = torch.cuda.is_available()
    device, _, number = device.partition(":")
    if device == "ascend":
        raise BackendError("backend torch does not support device ascend; use --backend mindspore")
    if device in ("gpu", "cuda") and not cuda:
        raise BackendError("backend torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch")
    if device not in ("auto", "cpu", "gpu", "cuda"):
        raise BackendError(f"unknown device {device!r}; backend torch supports auto, cpu and gpu")
    if device == "cpu" or not cuda:
        return torch.device("cpu")
    index = int(number or 0)
    if index >= torch.cuda.device_count():
        raise BackendError(
            f"there is no CUDA device {index}: {torch.cuda.device_count()} found; set train.device_id lower"
        )
    return torch.device("cuda", index)


def numerics(device: torch.device, tf32: bool, strict: bool) -> contextlib.AbstractContextManager[Any]:
    """How cuDNN may compute: TF32 keeps 10 bits of the mantissa and is its default; strict means deterministic."""
    import torch

    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=not strict, deterministic=strict, allow_tf32=tf32 and not strict
    )

"""The device that PyTorch computes on, and how its libraries behave there. Imports torch late."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


@contextlib.contextmanager
def numerics(device: torch.device, tf32: bool, strict: bool) -> Iterator[None]:
    """Let float32 be float32, whatever the process says of it, and leave the process's own settings as they were.

    Convolutions on a GPU are in TF32 by default, which keeps 10 bits of the mantissa; a caller may ask for it, or for
    bfloat16, elsewhere too. Only the switches of single operations are read and set: PyTorch refuses the older ones
    (``allow_tf32``) where a caller has used these.

    Parameters
    ----------
    device : torch.device
        Where it is computed.
    tf32 : bool
        Whether convolutions on a GPU may be in TF32: those of a low precision, none of which is in float32.
    strict : bool
        Deterministic kernels, and no TF32 at all.
    """
    import torch

    backends: Any = torch.backends
    cuda = device.type == "cuda"
    convolutions, products = (
        (backends.cudnn.conv, backends.cuda.matmul) if cuda else (backends.mkldnn.conv, backends.mkldnn.matmul)
    )
    kept = convolutions.fp32_precision, products.fp32_precision
    chosen = backends.cudnn.benchmark, backends.cudnn.deterministic
    try:
        convolutions.fp32_precision = "tf32" if cuda and tf32 and not strict else "ieee"
        products.fp32_precision = "ieee"
        if cuda:
            backends.cudnn.benchmark, backends.cudnn.deterministic = not strict, strict
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = kept
        if cuda:
            backends.cudnn.benchmark, backends.cudnn.deterministic = chosen

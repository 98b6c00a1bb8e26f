"""The device that PyTorch computes on, and how its libraries behave there. Imports torch late."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from earthsr.errors import BackendError, EarthsrWarning

if TYPE_CHECKING:
    import torch


def npu() -> Any | None:
    """Return ``torch.npu``, where the package torch_npu is installed and sees an Ascend device; else None."""
    if importlib.util.find_spec("torch_npu") is None:
        return None
    import torch

    try:
        importlib.import_module("torch_npu")  # makes the device known to torch
    except (ImportError, OSError, RuntimeError) as error:  # such as a library of CANN that is not there
        warnings.warn(f"torch_npu cannot be loaded: {error}", EarthsrWarning, stacklevel=2)
        return None
    module: Any = torch.npu  # type: ignore[attr-defined]
    return module if module.is_available() else None


def module_of(device: torch.device) -> Any | None:
    """Return ``torch.cuda`` or ``torch.npu``, which have functions of the same names; None for the processor."""
    import torch

    return None if device.type == "cpu" else getattr(torch, device.type)


def layout(device: torch.device) -> torch.memory_format:
    """Return the layout of images: channels last, which convolutions of processors and GPUs are fastest in."""
    import torch

    return torch.contiguous_format if device.type == "npu" else torch.channels_last


def find_device(device: str) -> torch.device:
    """Return the device that is meant by ``auto``, ``cpu``, ``gpu``, ``cuda``, ``ascend`` or, with a number, ``gpu:1``.

    Raises
    ------
    BackendError
        If it is not supported or not there.
    """
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "gpu", "cuda", "ascend"):
        raise BackendError(f"unknown device {kind!r}; backend torch supports auto, cpu, gpu and ascend")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "ascend" and torch.cuda.is_available():
        name, found, words = "cuda", torch.cuda, "CUDA"
    elif kind in ("auto", "ascend") and (module := npu()) is not None:
        name, found, words = "npu", module, "Ascend"
    elif kind == "auto":
        return torch.device("cpu")
    elif kind == "ascend":
        raise BackendError(
            "device ascend is not here: backend torch needs CANN and the package torch_npu for it; or use --backend "
            "mindspore"
        )
    else:
        raise BackendError("backend torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch")
    index, count = int(number or 0), found.device_count()
    if index >= count:
        raise BackendError(f"there is no {words} device {index}: {count} found; set train.device_id lower")
    return torch.device(name, index)


@contextlib.contextmanager
def numerics(device: torch.device, tf32: bool, strict: bool) -> Iterator[None]:
    """Let float32 be float32, whatever the process says of it, and leave the process's own settings as they were.

    Convolutions on a GPU are in TF32 by default, which keeps 10 bits of the mantissa, on Ascend in HF32, which keeps
    11; a caller may ask for these, or for bfloat16, elsewhere too. Only the switches of single operations are read and
    set: PyTorch refuses the older ones (``allow_tf32``) where a caller has used these.

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

    if device.type == "npu":
        with _npu_numerics(hf32=tf32 and not strict):
            yield
        return
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


@contextlib.contextmanager
def _npu_numerics(hf32: bool) -> Iterator[None]:
    """Set torch_npu's switches of HF32, of which that of convolutions is on by default."""
    import torch

    switches: Any = (torch.npu.conv, torch.npu.matmul)  # type: ignore[attr-defined]
    kept = [switch.allow_hf32 for switch in switches]
    try:
        for switch, allowed in zip(switches, (hf32, False), strict=True):
            switch.allow_hf32 = allowed
        yield
    finally:
        for switch, allowed in zip(switches, kept, strict=True):
            switch.allow_hf32 = allowed

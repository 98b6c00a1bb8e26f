"""The device that onnxruntime computes on, and with how many threads. Imports onnxruntime late."""

from __future__ import annotations

import os

from earthsr.errors import BackendError


def threads() -> int:
    """Threads of an operator: ``OMP_NUM_THREADS``, as the other backends take it, else one for each core.

    onnxruntime does not read the variable. On a machine shared with other work a number of its own would be wrong.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_providers(device: str) -> tuple[str, list[str | tuple[str, dict[str, str]]]]:
    """Name of the device that is meant, and onnxruntime's providers in the order in which they get operators.

    Raises
    ------
    BackendError
        If the device is not supported or not there.
    """
    import onnxruntime

    kind, _, number = device.partition(":")
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind == "ascend":
        raise BackendError("backend onnx does not support device ascend; use --backend mindspore")
    if kind in ("gpu", "cuda") and not cuda:
        raise BackendError(
            "this onnxruntime has no CUDAExecutionProvider; use --device cpu, or install onnxruntime-gpu in its place"
        )
    if kind not in ("auto", "cpu", "gpu", "cuda"):
        raise BackendError(f"unknown device {device!r}; backend onnx supports auto, cpu and gpu")
    if kind == "cpu" or not cuda:
        return "cpu", ["CPUExecutionProvider"]
    # TF32 off: the file promises float32.
    options = {"device_id": number or "0", "use_tf32": "0"}
    return "cuda", [("CUDAExecutionProvider", options), "CPUExecutionProvider"]

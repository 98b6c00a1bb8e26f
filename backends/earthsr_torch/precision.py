"""What an ``amp_level`` means in PyTorch."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from earthsr.errors import BackendError
from earthsr.models import Precision

_logger = logging.getLogger("earthsr")


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AMX or AVX-512 BF16); emulation is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


@dataclass(frozen=True)
class Plan:
    """How an engine computes."""

    autocast: torch.dtype | None
    """Type of the autocast region, or None."""
    storage: torch.dtype
    """Type of the weights that compute; masters are float32 always."""
    scaled: bool
    """Whether gradients are scaled dynamically (float16)."""
    words: str


def store(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Keep a network's weights in ``dtype``, but norms and their statistics in float32."""
    network = network.to(dtype)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.float()
    return network


def plan(precision: Precision, device: torch.device) -> Plan:
    """Choose how to compute.

    Raises
    ------
    BackendError
        If the low precision is not supported on the device.
    """
    if precision.level == "O0":
        return Plan(None, torch.float32, False, "float32")
    half = precision.dtype == "float16"
    if half and device.type == "cpu":
        raise BackendError("train.amp_dtype float16 is not supported on cpu by backend torch; use bfloat16 or auto")
    if device.type == "cpu" and not cpu_has_bfloat16():
        _logger.warning("amp_level %s: this processor has no bfloat16 units, computing in float32", precision.level)
        return Plan(None, torch.float32, False, "float32 (no bfloat16 units)")
    dtype = torch.float16 if half else torch.bfloat16
    name = "float16" if half else "bfloat16"
    if precision.level == "O3":
        return Plan(None, dtype, half, f"{name} weights, float32 masters")
    return Plan(dtype, torch.float32, half, f"{name} autocast")

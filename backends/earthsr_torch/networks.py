"""Building the PyTorch network of a spec, and its parameters under canonical names, to and from NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from earthsr.backend.registry import packaged_network
from earthsr.models import DemSRNetSpec, NetworkSpec, UNetSpec
from earthsr_torch.demsrnet import DemSRNet, ResidualBlock
from earthsr_torch.unet import ConvBlock, UNet


def write(parameter: Tensor, array: NDArray[np.float32]) -> None:
    """Overwrite a parameter in place."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def read(parameter: Tensor) -> NDArray[np.float32]:
    """Copy a parameter to NumPy, in float32."""
    return parameter.detach().to("cpu", torch.float32).contiguous().numpy().copy()


def build(spec: NetworkSpec) -> nn.Module:
    """Build the network of a spec.

    Raises
    ------
    BackendError
        If this backend has no network of that kind.
    """
    if isinstance(spec, DemSRNetSpec):
        return DemSRNet(spec)
    if isinstance(spec, UNetSpec):
        return UNet(spec)
    network: nn.Module = packaged_network("torch", spec)
    return network


def parameters(network: nn.Module, spec: NetworkSpec) -> dict[str, Tensor]:
    """Parameters and running statistics of a network under the spec's names, in its order."""
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {parameter.name: own[parameter.name] for parameter in spec.parameters}


def recompute(network: nn.Module) -> None:
    """Let blocks keep their inputs alone, and compute the rest again for the gradient; once done it stays."""
    for module in network.modules():
        if isinstance(module, ResidualBlock | ConvBlock) and not isinstance(module.forward, partial):
            # In place of the method, so that parameters keep their names.
            again = partial(checkpoint, module.forward, use_reentrant=False)
            module.forward = again  # type: ignore[method-assign]


def hold_norms(network: nn.Module, frozen: frozenset[str]) -> None:
    """Let norms whose weights do not learn keep their running statistics too, after ``train()`` woke all of them."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" in frozen:
            module.eval()

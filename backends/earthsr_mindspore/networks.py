"""Building the MindSpore network of a spec, and its parameters under canonical names, to and from NumPy."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import ArrayLike, NDArray

from earthsr.backend.registry import packaged_network
from earthsr.models import DemSRNetSpec, NetworkSpec, UNetSpec
from earthsr_mindspore.demsrnet import DemSRNet, ResidualBlock
from earthsr_mindspore.unet import ConvBlock, UNet


def write(parameter: Parameter, array: ArrayLike) -> None:
    """Overwrite a parameter in place.

    ``Parameter.set_data`` gives it new memory, which a graph that has run already does not look at: its steps would go
    on from, and write to, the old values. Assignment keeps the memory.
    """
    kind = np.int32 if "Int" in str(parameter.dtype) else np.float32
    ops.assign(parameter, Tensor(np.array(array, kind, order="C")))


def read(parameter: Parameter) -> NDArray[np.float32]:
    """Copy a parameter to NumPy."""
    return parameter.asnumpy().copy()


#: MindSpore's names of a norm's parameters.
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def build(spec: NetworkSpec) -> nn.Cell:
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
    network: nn.Cell = packaged_network("mindspore", spec)
    return network


def parameters(network: nn.Cell, spec: NetworkSpec) -> dict[str, Parameter]:
    """Parameters and running statistics of a network under the spec's names, in its order."""
    own = {}
    for name, parameter in network.parameters_and_names():
        cell, _, last = name.rpartition(".")
        own[f"{cell}.{_NORM.get(last, last)}"] = parameter
    return {parameter.name: own[parameter.name] for parameter in spec.parameters}


def recompute(network: nn.Cell) -> None:
    """Let blocks keep their inputs alone, and compute the rest again for the gradient."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, ResidualBlock | ConvBlock):
            cell.recompute()


def hold_norms(network: nn.Cell, frozen: frozenset[str]) -> None:
    """Let norms whose weights do not learn keep their running statistics too, after ``set_train()`` woke all."""
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and f"{name}.weight" in frozen:
            cell.set_train(False)

"""Framework-free descriptions: network, objective and optimiser specs, initial weights, checkpoints.

Nothing here computes a forward pass; a backend builds its network from the spec and loads the weights.
"""

from earthsr.models.average import average_weights
from earthsr.models.checkpoint import Checkpoint, RunFolder, read_checkpoint, resolve_checkpoint
from earthsr.models.demsrnet import DemSRNetSpec
from earthsr.models.objective import (
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    Objective,
    OptimizerSpec,
    Precision,
)
from earthsr.models.spec import InputField, NetworkSpec, Parameter
from earthsr.models.unet import UNetSpec
from earthsr.models.weights import (
    State,
    WeightsFile,
    initial_weights,
    read_weights,
    require_same_spec,
    spec_from_dict,
    write_weights,
)

__all__ = [
    "Checkpoint",
    "CrossEntropyLoss",
    "DemSRNetSpec",
    "HuberLoss",
    "InputField",
    "L1Loss",
    "MSELoss",
    "NetworkSpec",
    "Objective",
    "OptimizerSpec",
    "Parameter",
    "Precision",
    "RunFolder",
    "State",
    "UNetSpec",
    "WeightsFile",
    "average_weights",
    "initial_weights",
    "read_checkpoint",
    "read_weights",
    "require_same_spec",
    "resolve_checkpoint",
    "spec_from_dict",
    "write_weights",
]

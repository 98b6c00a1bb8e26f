"""Moving arrays between NumPy and PyTorch tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def write(parameter: Tensor, array: NDArray[np.float32]) -> None:
    """Overwrite a parameter in place."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def read(parameter: Tensor) -> NDArray[np.float32]:
    """Copy a parameter to NumPy, in float32."""
    return parameter.detach().to("cpu", torch.float32).contiguous().numpy().copy()


def like(array: NDArray[np.float32], parameter: Tensor) -> Tensor:
    """Return a float32 tensor of ``array`` in the memory layout of ``parameter``."""
    tensor = torch.empty_like(parameter, dtype=torch.float32)
    write(tensor, array)
    return tensor

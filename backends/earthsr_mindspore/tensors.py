"""Moving arrays between NumPy and MindSpore parameters."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray


def write(parameter: Parameter, array: NDArray[np.float32]) -> None:
    """Overwrite a parameter in place.

    ``Parameter.set_data`` gives it new memory, which a graph that has run already does not look at: its steps would go
    on from, and write to, the old values. Assignment keeps the memory.
    """
    ops.assign(parameter, Tensor(np.array(array, np.float32, order="C")))


def read(parameter: Parameter) -> NDArray[np.float32]:
    """Copy a parameter to NumPy."""
    return parameter.asnumpy().copy()

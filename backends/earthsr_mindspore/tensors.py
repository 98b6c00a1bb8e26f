"""Moving arrays between NumPy and MindSpore parameters."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import ArrayLike, NDArray


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


def tensor(array: NDArray) -> Tensor:
    """Return a tensor of float32, or of int32 where the array holds classes, which come as bytes: few kernels do."""
    kind = np.int32 if array.dtype.kind in "ui" else np.float32
    return Tensor(np.ascontiguousarray(array, kind))

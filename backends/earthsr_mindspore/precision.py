"""What an ``amp_level`` means in MindSpore, and the types of its tensors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from earthsr.errors import BackendError
from earthsr.models import Precision

_logger = logging.getLogger("earthsr")

#: Scale of the loss where it stays fixed: normalised gradients of 6e-8 / 1024 and more are then not lost to float16.
FIXED_SCALE = 1024.0
#: The rule of PyTorch's scaler, so that a state moves between backends: twice as large after 2000 good steps.
FIRST_SCALE, GROWTH, WINDOW = 65536.0, 2, 2000


@dataclass(frozen=True)
class Plan:
    """How an engine computes."""

    level: str
    dtype: ms.Type | None
    """Type of the convolutions, or None for float32 throughout."""
    scaling: Literal["none", "fixed", "dynamic"]
    words: str


def plan(precision: Precision, device: str) -> Plan:
    """Choose how to compute.

    Raises
    ------
    BackendError
        If the low precision is not supported on the device.
    """
    if precision.level == "O0":
        return Plan("O0", None, "none", "float32")
    if precision.dtype == "bfloat16":
        if device == "cpu":
            raise BackendError(
                "train.amp_dtype bfloat16 is not supported on cpu by backend mindspore; use float16 or auto, or "
                "train.amp_level O0"
            )
        # bfloat16 has the range of float32: nothing overflows, nothing is scaled.
        return Plan(precision.level, ms.bfloat16, "none", _words(precision.level, "bfloat16", ""))
    if device == "cpu":
        _logger.warning(
            "amp_level %s: backend mindspore is slower in float16 than in float32 on cpu; O0 is faster", precision.level
        )
        scaled = f"fixed loss scale {FIXED_SCALE:g}"
        return Plan("O2", ms.float16, "fixed", _words("O2", "float16", scaled))
    return Plan(precision.level, ms.float16, "dynamic", _words(precision.level, "float16", "dynamic loss scale"))


def _words(level: str, dtype: str, scaling: str) -> str:
    kept = "results in float32" if level == "O1" else "norms and loss in float32"
    return ", ".join(filter(None, (f"{dtype} convolutions", kept, scaling)))


def resizable(x: Tensor) -> Tensor:
    """A tensor that can be padded and interpolated: float32 in the place of bfloat16, which these do not take."""
    return x.astype(ms.float32) if x.dtype == ms.bfloat16 else x


class Convolution(nn.Conv2d):
    """A convolution whose results can be kept in float32 where it computes in a lower precision."""

    wide = False

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h, w)."""
        y = super().construct(x)
        return y.astype(ms.float32) if self.wide else y


class TransposedConvolution(nn.Conv2dTranspose):
    """The same of a transposed convolution."""

    wide = False

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', 2 * h, 2 * w)."""
        y = super().construct(x)
        return y.astype(ms.float32) if self.wide else y


def lower(network: nn.Cell, plan: Plan) -> None:
    """Let the convolutions of a network compute in the plan's type; parameters stay float32 and are cast when used.

    At O1 every result is float32 again; from O2 on results stay low between convolutions. Fixed interpolations keep
    float32. (MindSpore's own rewriting for O1 leaves generated sources in the working directory.)
    """
    for _, cell in network.cells_and_names():
        if plan.dtype is not None and isinstance(cell, (Convolution, TransposedConvolution)):
            cell.to_float(plan.dtype)
            cell.wide = plan.level == "O1"


def tensor(array: NDArray) -> Tensor:
    """Return a tensor of float32, or of int32 where the array holds classes, which come as bytes: few kernels do."""
    kind = np.int32 if array.dtype.kind in "ui" else np.float32
    return Tensor(np.ascontiguousarray(array, kind))

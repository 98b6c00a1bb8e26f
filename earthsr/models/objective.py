"""Specs of what is minimised, how, and in which precision; backends implement them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Reduction = Literal["mse", "l1", "huber"]


@dataclass(frozen=True)
class Objective:
    """A point-wise loss.

    Its value is the sum of ``weight * loss`` over all values of the global batch, divided by the sum of
    ``weight``; the weight of a value is its validity (1 or 0) times its sample's weight (0 for padding).
    """

    name: Reduction
    delta: float = 1.0
    """Huber only: where the loss turns from quadratic to linear, in normalised units."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)


def MSELoss() -> Objective:
    """Mean squared error over valid values."""
    return Objective("mse")


def L1Loss() -> Objective:
    """Mean absolute error over valid values."""
    return Objective("l1")


def HuberLoss(delta: float = 1.0) -> Objective:
    """Huber loss over valid values: quadratic within ``delta`` of the truth, linear beyond."""
    return Objective("huber", delta)


@dataclass(frozen=True)
class OptimizerSpec:
    """Adam (Kingma and Ba, 2015, algorithm 1) with bias correction; the rate comes with each step as data.

    The update is ``rate * m_hat / (sqrt(v_hat) + eps)``. ``weight_decay`` is added to the gradient for ``adam`` and
    multiplies the weights by ``1 - rate * weight_decay`` for ``adamw`` (Loshchilov and Hutter, 2019).
    """

    name: Literal["adam", "adamw"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    frozen: frozenset[str] = frozenset()
    """Canonical names of parameters that do not learn."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {**asdict(self), "frozen": sorted(self.frozen)}


@dataclass(frozen=True)
class Precision:
    """A level of mixed precision, O0 (none) to O3, and its low precision."""

    level: Literal["O0", "O1", "O2", "O3"] = "O0"
    dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    strict: bool = False
    """Plain, deterministic kernels only: nothing fused, no TF32. For comparing backends; slower."""

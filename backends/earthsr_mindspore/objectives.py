"""Objectives in MindSpore: a weighted sum of point losses; the engine divides it by the sum of weights."""

from __future__ import annotations

from mindspore import Tensor, ops

from earthsr.errors import BackendError
from earthsr.models import Objective

SUPPORTED = ("mse", "l1", "huber")


def point_loss(objective: Objective, prediction: Tensor, target: Tensor) -> Tensor:
    """Loss of every value, in float32, of the shape of ``target``."""
    if objective.name == "mse":
        return ops.square(prediction - target)
    if objective.name == "l1":
        return ops.abs(prediction - target)
    return ops.huber_loss(prediction, target, reduction="none", delta=objective.delta)


def require(objective: Objective) -> None:
    """Raise a :class:`BackendError` where the objective is not implemented here."""
    if objective.name not in SUPPORTED:
        raise BackendError(f"backend mindspore has no objective {objective.name!r}; it has {', '.join(SUPPORTED)}")

"""Objectives in MindSpore: weighted sums of point and slope losses, divided by the weight in the engine; and Dice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, ops

from earthsr.errors import BackendError
from earthsr.models import Objective
from earthsr_mindspore.unet import one_hot

SUPPORTED = ("mse", "l1", "huber", "cross_entropy")


def _index(count: int) -> Tensor:
    return Tensor(np.arange(count, dtype=np.int32).reshape(1, -1, 1, 1))


def weigh(objective: Objective, target: Tensor, weight: Tensor) -> Tensor:
    """Weight of every value, (N, 1, H, W) or of the shape of ``target``: validity times its class's weight."""
    if not objective.of_classes:
        return ops.broadcast_to(weight, target.shape)
    if objective.class_weights is None:
        return weight
    table = Tensor(np.array(objective.class_weights, np.float32).reshape(1, -1, 1, 1))
    return weight * (one_hot(target[:, 0], _index(table.shape[1])) * table).sum(1, keepdims=True)


def divisor(total: Tensor) -> Tensor:
    """Return the weight of a step, whatever it is; 1 where nothing counts, so that loss and gradient are 0."""
    return ops.select(total > 0, total, ops.ones_like(total))


def point_loss(objective: Objective, prediction: Tensor, target: Tensor) -> Tensor:
    """Loss of every value, in float32, of the shape of ``target``."""
    if objective.name == "mse":
        return ops.square(prediction - target)
    if objective.name == "l1":
        return ops.abs(prediction - target)
    if objective.name == "huber":
        return ops.huber_loss(prediction, target, reduction="none", delta=objective.delta)
    logarithms = ops.log_softmax(prediction, 1)
    likelihood = (logarithms * one_hot(target[:, 0], _index(prediction.shape[1]))).sum(1, keepdims=True)
    share = objective.label_smoothing
    return -(1 - share) * likelihood - share * logarithms.mean(1, keep_dims=True)


def dice_loss(prediction: Tensor, target: Tensor, weight: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """Dice loss of logits (N, K, H, W) over the cells of a batch, weighted by their validity (N, 1, H, W).

    ``add_up`` makes sums over the cells of the whole batch of those over this rank's share of it.
    """
    truth = one_hot(target[:, 0], _index(prediction.shape[1])) * weight
    probability = ops.softmax(prediction, 1)
    both = (probability * weight).sum((0, 2, 3)) + truth.sum((0, 2, 3))
    sums = add_up(ops.stack([(probability * truth).sum((0, 2, 3)), both]))
    return 1 - ((2 * sums[0] + 1) / (sums[1] + 1)).mean()


def slope_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum of the gradients' squared errors over pairs of cells beside or below each other; all shapes (N, C, H, W).

    The weight of a pair is the smaller one of both cells' weights.
    """
    error = prediction - target
    beside = ops.minimum(weight[:, :, :, 1:], weight[:, :, :, :-1]) * ops.square(
        error[:, :, :, 1:] - error[:, :, :, :-1]
    )
    below = ops.minimum(weight[:, :, 1:], weight[:, :, :-1]) * ops.square(error[:, :, 1:] - error[:, :, :-1])
    return beside.sum() + below.sum()


def require(objective: Objective) -> None:
    """Raise a :class:`BackendError` where the objective is not implemented here."""
    if objective.name not in SUPPORTED:
        raise BackendError(f"backend mindspore has no objective {objective.name!r}; it has {', '.join(SUPPORTED)}")

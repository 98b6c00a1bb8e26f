"""Objectives in PyTorch: weighted sums of point and slope losses, divided by the weight in the engine; and Dice."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from earthsr.errors import BackendError
from earthsr.models import Objective
from earthsr_torch.unet import one_hot

SUPPORTED = ("mse", "l1", "huber", "cross_entropy")


def weigh(objective: Objective, target: Tensor, weight: Tensor, table: Tensor | None) -> Tensor:
    """Weight of every value, (N, 1, H, W) or of the shape of ``target``: validity times its class's in ``table``."""
    if not objective.of_classes:
        return weight.expand_as(target)
    if table is None:
        return weight
    return weight * (one_hot(target[:, 0], len(table)) * table.view(1, -1, 1, 1)).sum(1, keepdim=True)


def divisor(total: Tensor) -> Tensor:
    """Return the weight of a step, whatever it is; 1 where nothing counts, so that loss and gradient are 0."""
    return total.masked_fill(total == 0, 1.0)


def point_loss(objective: Objective, prediction: Tensor, target: Tensor) -> Tensor:
    """Loss of every value, in float32, of the shape of ``target``."""
    if objective.name == "mse":
        return (prediction - target).square()
    if objective.name == "l1":
        return (prediction - target).abs()
    if objective.name == "huber":
        return F.huber_loss(prediction, target, reduction="none", delta=objective.delta)
    logarithms = F.log_softmax(prediction, 1)
    likelihood = (logarithms * one_hot(target[:, 0], prediction.shape[1])).sum(1, keepdim=True)
    share = objective.label_smoothing
    return -(1 - share) * likelihood - share * logarithms.mean(1, keepdim=True)


def dice_loss(prediction: Tensor, target: Tensor, weight: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """Dice loss of logits (N, K, H, W) over the cells of a batch, weighted by their validity (N, 1, H, W).

    ``add_up`` makes sums over the cells of the whole batch of those over this rank's share of it.
    """
    truth = one_hot(target[:, 0], prediction.shape[1]) * weight
    probability = F.softmax(prediction, 1)
    both = (probability * weight).sum((0, 2, 3)) + truth.sum((0, 2, 3))
    shared, both = add_up(torch.stack([(probability * truth).sum((0, 2, 3)), both]))
    return 1 - ((2 * shared + 1) / (both + 1)).mean()


def slope_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum of the gradients' squared errors over pairs of cells beside or below each other; all shapes (N, C, H, W).

    The weight of a pair is the smaller one of both cells' weights.
    """
    error = prediction - target
    beside = torch.minimum(weight[..., 1:], weight[..., :-1]) * (error[..., 1:] - error[..., :-1]).square()
    below = torch.minimum(weight[..., 1:, :], weight[..., :-1, :]) * (error[..., 1:, :] - error[..., :-1, :]).square()
    return beside.sum() + below.sum()


def require(objective: Objective) -> None:
    """Raise a :class:`BackendError` where the objective is not implemented here."""
    if objective.name not in SUPPORTED:
        raise BackendError(f"backend torch has no objective {objective.name!r}; it has {', '.join(SUPPORTED)}")

"""The learning rate as a function of the step, computed on the host in float64."""

from __future__ import annotations

import math

from earthsr.config import OptimizerSection


def learning_rate(optimizer: OptimizerSection, base: float, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Rate of one step.

    Parameters
    ----------
    optimizer : OptimizerSection
        ``schedule``, ``decay_rate``, ``warmup_steps`` and ``final_lr_fraction`` are read.
    base : float
        The rate before warm-up and decay.
    step : int
        Steps made before this one, from 0.
    steps_per_epoch : int
        Optimiser steps per epoch; the exponential schedule decays once per epoch's worth of steps, continuously.
    total_steps : int
        Optimiser steps of the whole run; where the cosine ends.

    Returns
    -------
    float
        ``base * decay_rate ** (step / steps_per_epoch)`` for ``exponential``; half a cosine from ``base`` to
        ``final_lr_fraction * base`` for ``cosine`` (Loshchilov and Hutter, 2017, without restarts); ``base`` for
        ``constant``. During the first ``warmup_steps`` the rate also rises linearly from ``base / warmup_steps``.
    """
    warm = min(1.0, (step + 1) / optimizer.warmup_steps) if optimizer.warmup_steps else 1.0
    if optimizer.schedule == "exponential":
        return warm * base * optimizer.decay_rate ** (step / max(steps_per_epoch, 1))
    if optimizer.schedule == "cosine":
        start = optimizer.warmup_steps
        progress = min(max((step - start) / max(total_steps - start, 1), 0.0), 1.0)
        floor = optimizer.final_lr_fraction
        return warm * base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
    return warm * base

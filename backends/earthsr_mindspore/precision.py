"""What an ``amp_level`` means in MindSpore."""

from __future__ import annotations

import logging

from earthsr.models import Precision

_logger = logging.getLogger("earthsr")


def plan(precision: Precision) -> str:
    """Choose how to compute, in words. On CPU every level computes in float32, which is the fastest there."""
    if precision.level == "O0":
        return "float32"
    _logger.warning("amp_level %s: backend mindspore computes in float32 on cpu", precision.level)
    return "float32 (low precision is slower on cpu)"

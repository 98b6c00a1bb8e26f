"""What both sides compute on: batches of the user's own data, or made ones that are the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch, Earlier
from earthsr.models import NetworkSpec
from earthsr.tasks.batches import ParityBatches as Inputs

__all__ = ["Inputs", "mirrored"]


def mirrored(batches: list[Batch], spec: NetworkSpec) -> list[Batch]:
    """Batches with rows for columns, and the samples of every batch in reverse order.

    With transposed kernels the network computes the same, transposed; every sum is taken in another order.
    """

    def back(field: NDArray) -> NDArray:
        return np.ascontiguousarray(field[::-1])

    def fields(inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        return {name: back(value) for name, value in spec.transpose_inputs(inputs).items()}

    return [
        Batch(
            fields(batch.inputs),
            back(batch.target.swapaxes(-1, -2)),
            back(batch.mask.swapaxes(-1, -2)),
            back(batch.sample_weight),
            None if batch.earlier is None else Earlier(fields(batch.earlier.inputs), back(batch.earlier.own)),
        )
        for batch in batches
    ]

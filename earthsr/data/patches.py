"""Patches in physical units, and the eight symmetries of the square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Patches:
    """Some patches as the file holds them, in its unit (metres)."""

    coarse: NDArray[np.float32]
    """(N, C, p, p); NaN where there is no value."""
    fine: NDArray[np.float32]
    """(N, C, p * scale, p * scale); 0 where the mask is 0."""
    mask: NDArray[np.uint8]
    """(N, 1, p * scale, p * scale); 1 = valid."""
    indices: NDArray[np.int64]
    """(N,) position in the split."""


def transform(field: NDArray, symmetry: int) -> NDArray:
    """Apply one of the eight symmetries of the square to the last two axes.

    ``symmetry % 4`` quarter turns, after a transposition for 4 to 7.
    """
    if symmetry >= 4:
        field = field.swapaxes(-1, -2)
    # Views as np.rot90 makes them, at a tenth of its cost: a loader asks for thousands of small ones per second.
    turns = symmetry % 4
    if turns == 1:
        return field[..., ::-1].swapaxes(-1, -2)
    if turns == 2:
        return field[..., ::-1, ::-1]
    return field.swapaxes(-1, -2)[..., ::-1] if turns == 3 else field


def augmented(patches: Patches, symmetries: NDArray[np.int8]) -> Patches:
    """Apply ``symmetries[i]`` to patch ``i``: coarse, fine and mask alike."""
    turns = symmetries.tolist()

    def each(field: NDArray) -> NDArray:
        out = np.empty_like(field)
        for i, symmetry in enumerate(turns):
            out[i] = transform(field[i], symmetry)
        return out

    # A mask without a hole looks the same from all sides.
    mask = patches.mask if patches.mask.all() else each(patches.mask)
    return Patches(each(patches.coarse), each(patches.fine), mask, patches.indices)


def restore(field: NDArray, symmetry: int) -> NDArray:
    """Undo :func:`transform` on the last two axes."""
    field = np.rot90(field, -(symmetry % 4), axes=(-2, -1))
    return field.swapaxes(-1, -2) if symmetry >= 4 else field

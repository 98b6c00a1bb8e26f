"""Patches in physical units, and the batch that an engine takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthsr.data.sampler import PADDING

if TYPE_CHECKING:
    from earthsr.data.normalise import Normalisation


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


@dataclass(frozen=True)
class Batch:
    """What an engine takes for one step; static in shape over a whole run."""

    inputs: dict[str, NDArray[np.float32]]
    """Input fields by name, (N, C, h, w), normalised, without NaN."""
    target: NDArray[np.float32]
    """(N, C, H, W), normalised; 0 where the mask is 0."""
    mask: NDArray[np.uint8]
    """(N, 1, H, W); 1 = valid."""
    sample_weight: NDArray[np.float32]
    """(N,); 0 for padding."""

    @property
    def size(self) -> int:
        """Samples that are not padding."""
        return int(np.count_nonzero(self.sample_weight))


def transform(field: NDArray, symmetry: int) -> NDArray:
    """Apply one of the eight symmetries of the square to the last two axes.

    ``symmetry % 4`` quarter turns, after a transposition for 4 to 7.
    """
    if symmetry >= 4:
        field = field.swapaxes(-1, -2)
    return np.rot90(field, symmetry % 4, axes=(-2, -1))


def augmented(patches: Patches, symmetries: NDArray[np.int8]) -> Patches:
    """Apply ``symmetries[i]`` to patch ``i``: coarse, fine and mask alike."""

    def each(field: NDArray) -> NDArray:
        out = np.empty_like(field)
        for i, symmetry in enumerate(symmetries):
            out[i] = transform(field[i], int(symmetry))
        return out

    return Patches(each(patches.coarse), each(patches.fine), each(patches.mask), patches.indices)


def make_batch(patches: Patches, normalisation: Normalisation, size: int | None = None) -> Batch:
    """Normalise patches and pad them to ``size`` samples.

    Coarse cells without a value become 0, the normalised mean. Padding repeats no data: it is 0 with weight 0.
    """
    count = len(patches.indices)
    size = size or count
    offsets = normalisation.offsets(patches.coarse)
    coarse = normalisation.apply(patches.coarse, offsets)
    np.nan_to_num(coarse, copy=False, nan=0.0)
    fine = normalisation.apply(patches.fine, offsets)
    fine *= patches.mask
    weight = (patches.indices != PADDING).astype(np.float32)

    def padded(field: NDArray) -> NDArray:
        if count == size:
            return field
        out = np.zeros((size, *field.shape[1:]), field.dtype)
        out[:count] = field
        return out

    return Batch({"elevation": padded(coarse)}, padded(fine), padded(patches.mask), padded(weight))

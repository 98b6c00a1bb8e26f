"""The batch that an engine takes: patches normalised and padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import Normalisation
from earthsr.data.samples import PADDING, Patches
from earthsr.geo.voids import fill_voids


@dataclass(frozen=True)
class Earlier:
    """The step before that of a batch's samples."""

    inputs: dict[str, NDArray]
    """Those input fields that differ from the batch's."""
    own: NDArray[np.float32]
    """(N,); 1 where the model's own classes take the place of the field that the spec feeds back."""


@dataclass(frozen=True)
class Batch:
    """What an engine takes for one step; static in shape over a whole run."""

    inputs: dict[str, NDArray]
    """Input fields by name, (N, …), normalised, without NaN, of the types that the spec names."""
    target: NDArray
    """(N, C, H, W), normalised float32, or class indices (N, 1, H, W) uint8; 0 where the mask is 0."""
    mask: NDArray[np.uint8]
    """(N, 1, H, W); 1 = valid."""
    sample_weight: NDArray[np.float32]
    """(N,); 0 for padding."""
    earlier: Earlier | None = None
    """For scheduled sampling: what a first pass needs whose classes become the prior of some samples."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """(N, 1, H, W) weight of every value: its validity times its sample's weight."""
        return self.mask * self.sample_weight[:, None, None, None]

    @property
    def size(self) -> int:
        """Samples that are not padding."""
        return int(np.count_nonzero(self.sample_weight))


#: Relief in metres below which patches count for less and less: what bends there is noise, which nothing predicts.
FLAT_M = 3.0


def relief_of(coarse: NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square of each patch's second differences along rows and columns, metres, (N,); voids take no part.

    A measure of detail that no slope and no height enters.
    """
    squares, count = np.zeros(len(coarse)), np.zeros(len(coarse))
    for axis in (-2, -1):
        bend = np.diff(coarse.astype(np.float64), n=2, axis=axis)
        known = np.isfinite(bend)
        squares += np.square(np.where(known, bend, 0.0)).sum(axis=(1, 2, 3))
        count += known.sum(axis=(1, 2, 3))
    return np.sqrt(squares / np.maximum(count, 1))


def relief_weight(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """One over each patch's relief, per metre, (N,); less where that is below :data:`FLAT_M`, near 0 for flat sea."""
    relief = relief_of(coarse) + 0.001
    return (relief / (relief**2 + FLAT_M**2)).astype(np.float32)


def make_batch(
    patches: Patches, normalisation: Normalisation, size: int | None = None, by_relief: bool = False
) -> Batch:
    """Normalise patches and pad them to ``size`` samples.

    Coarse cells without a value are filled from their neighbours; those far from any become 0, the normalised mean.
    Padding repeats no data: it is 0 with weight 0.

    Parameters
    ----------
    patches : Patches
        In metres.
    normalisation : Normalisation
        Makes them into what the network sees.
    size : int, optional
        Samples of the batch; as many as there are where absent.
    by_relief : bool
        Weigh every sample by one over its relief (:func:`relief_weight`), so that an error of a plain counts as one of
        mountains that is as much larger as they are rougher.

    Returns
    -------
    Batch
        Inputs, target, mask and the weight of every sample.
    """
    count = len(patches.indices)
    size = size or count
    offsets = normalisation.offsets(patches.coarse)
    coarse = np.nan_to_num(normalisation.apply(fill_voids(patches.coarse), offsets), nan=0.0)
    fine = normalisation.apply(patches.fine, offsets)
    if not patches.mask.all():
        fine *= patches.mask
    weight = (patches.indices != PADDING).astype(np.float32)
    if by_relief:
        weight *= relief_weight(patches.coarse)

    def padded(field: NDArray) -> NDArray:
        if count == size:
            return field
        out = np.zeros((size, *field.shape[1:]), field.dtype)
        out[:count] = field
        return out

    return Batch({"elevation": padded(coarse)}, padded(fine), padded(patches.mask), padded(weight))

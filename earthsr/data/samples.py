"""Samples: patches in physical units, which of them make a batch, and the ways in which they are turned and moved.

Order, symmetries and shifts are functions of (seed, epoch) alone, cut into global batches and rank slices. So two ranks
see together what one would see, and a run resumes in the middle of an epoch or with another number of ranks. The last
batch of an epoch is padded to full size; padding has index -1 and weight 0.

A raster's corner decides where its coarse cells fall: on which side of a ridge, across or along a valley. With coarse
cells that are block means of the truth, every other place of that grid is as good an example as the one that was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.resample import block_mean

# Streams of one seed; a number each, so that order and augmentation do not share random numbers.
_ORDER, _SYMMETRY, _PRIOR, _SHIFT, _REDRAW = 1, 2, 3, 4, 5

PADDING = -1


@dataclass(frozen=True)
class Sampler:
    """Which samples make which batch.

    Parameters
    ----------
    samples : int
        Number of samples of the split.
    batch_size : int
        Samples per global batch, over all ranks.
    seed : int
        Seed of the run.
    shuffle : bool
        False gives the order of the file.
    """

    samples: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch, the padded last one counted."""
        return -(-self.samples // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices of one epoch, shape (samples,)."""
        if not self.shuffle:
            return np.arange(self.samples, dtype=np.int64)
        generator = np.random.Generator(np.random.PCG64([self.seed, _ORDER, epoch]))
        return generator.permutation(self.samples).astype(np.int64)

    def symmetries(self, epoch: int) -> NDArray[np.int8]:
        """One of the eight symmetries of the square for every sample of ``epoch``, (samples,), indexed by sample."""
        generator = np.random.Generator(np.random.PCG64([self.seed, _SYMMETRY, epoch]))
        return generator.integers(0, 8, size=self.samples, dtype=np.int8)

    def shifts(self, epoch: int) -> NDArray[np.float64]:
        """Shares of a coarse cell, southwards and eastwards, for every sample of ``epoch``, (samples, 2), in [0, 1)."""
        generator = np.random.Generator(np.random.PCG64([self.seed, _SHIFT, epoch]))
        return generator.random((self.samples, 2))

    def redraws(self, epoch: int, draws: int) -> NDArray[np.float64]:
        """``draws`` numbers in [0, 1) for every sample of ``epoch``, (samples, draws), by which it is made anew."""
        generator = np.random.Generator(np.random.PCG64([self.seed, _REDRAW, epoch]))
        return generator.random((self.samples, draws))

    def batches(self, epoch: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """Return this rank's share of all batches of an epoch.

        Returns
        -------
        ndarray of shape (steps_per_epoch, batch_size / world_size)
            Sample indices; ``PADDING`` fills the last batch.

        Raises
        ------
        InputError
            If the batch cannot be shared evenly among the ranks.
        """
        if self.batch_size % world_size:
            raise InputError(
                f"data.batch_size is {self.batch_size}, which {world_size} ranks cannot share evenly; "
                f"take a multiple of {world_size}"
            )
        padded = np.full(self.steps_per_epoch * self.batch_size, PADDING, dtype=np.int64)
        padded[: self.samples] = self.order(epoch)
        table = padded.reshape(self.steps_per_epoch, self.batch_size)
        share = self.batch_size // world_size
        return table[:, rank * share : (rank + 1) * share]


@dataclass(frozen=True)
class TileSampler(Sampler):
    """Order in two levels: tiles in a new order, then samples shuffled within a buffer of some tiles.

    Samples of one tile (its years) are neighbours in number, so that a buffer's samples are read from few places. Like
    the plain order it is a function of (seed, epoch), and resumes anywhere.
    """

    per_tile: int = 1
    """Samples of each tile: sample ``i`` is of tile ``i // per_tile``."""
    buffer_tiles: int = 32
    """Tiles whose samples are mixed."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices of one epoch, shape (samples,)."""
        if not self.shuffle:
            return np.arange(self.samples, dtype=np.int64)
        generator = np.random.Generator(np.random.PCG64([self.seed, _ORDER, epoch]))
        tiles = generator.permutation(self.samples // self.per_tile)
        order = (tiles[:, None] * self.per_tile + np.arange(self.per_tile)).reshape(-1)
        size = self.buffer_tiles * self.per_tile
        for start in range(0, len(order), size):
            generator.shuffle(order[start : start + size])
        return order.astype(np.int64)

    def chance(self, epoch: int, sample: int) -> np.random.Generator:
        """Random numbers of one sample in one epoch, whatever batch or rank it falls to."""
        return np.random.Generator(np.random.PCG64([self.seed, _PRIOR, epoch, sample]))


#: Metres by which coarse cells may differ from means of their blocks: files hold float32, and heights below 10,000 m
#: differ there by 0.001 m from one value to the next; sums in another order by a few of those.
ROUNDING_M = 0.01


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


def shifted(patches: Patches, shares: NDArray[np.floating]) -> Patches:
    """Move the window of patch ``i`` by ``shares[i]`` of a coarse cell, and take coarse cells anew as block means.

    It moves by whole fine cells: 0 to the scale less one. What lies beyond the edge of a patch is a void, and so is
    every block that touches one: its coarse cell has no value and its fine cells are masked.

    Parameters
    ----------
    patches : Patches
        In metres; coarse cells are block means.
    shares : ndarray of shape (N, 2)
        Southwards and eastwards, in [0, 1).

    Returns
    -------
    Patches
        Of the same shapes. A patch that moves by no whole fine cell stays as it was.
    """
    fine, mask, coarse = patches.fine.copy(), patches.mask.copy(), patches.coarse.copy()
    scale = fine.shape[-1] // coarse.shape[-1]
    for i, (down, right) in enumerate(np.floor(shares * scale).astype(int).tolist()):
        if patches.indices[i] == PADDING or not (down or right):
            continue
        rows, columns = fine.shape[-2] - down, fine.shape[-1] - right
        heights = np.full(fine[i].shape, np.nan, fine.dtype)
        heights[..., :rows, :columns] = np.where(
            patches.mask[i, ..., down:, right:], patches.fine[i, ..., down:, right:], np.nan
        )
        coarse[i] = block_mean(heights, scale)
        # One mask for all channels: a block is valid where each of them has a mean.
        whole = np.isfinite(coarse[i]).all(axis=0, keepdims=True).repeat(scale, axis=-2).repeat(scale, axis=-1)
        mask[i] = whole
        fine[i] = np.where(whole, heights, 0)
    return Patches(coarse, fine, mask, patches.indices)


def furthest_from_means(patches: Patches) -> float:
    """Largest difference of a coarse cell from the mean of its block, metres; blocks that touch a void do not count."""
    scale = patches.fine.shape[-1] // patches.coarse.shape[-1]
    means = block_mean(np.where(patches.mask, patches.fine, np.nan), scale)
    apart = np.abs(patches.coarse - means)
    return float(np.nanmax(apart)) if np.isfinite(apart).any() else 0.0

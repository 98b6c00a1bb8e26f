"""The order of samples: a function of (seed, epoch) alone, cut into global batches and rank slices.

So two ranks see together what one would see, and a run resumes in the middle of an epoch or with another number of
ranks. The last batch of an epoch is padded to full size; padding has index -1 and weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError

# Streams of one seed; a number each, so that order and augmentation do not share random numbers.
_ORDER, _SYMMETRY, _PRIOR, _SHIFT = 1, 2, 3, 4

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

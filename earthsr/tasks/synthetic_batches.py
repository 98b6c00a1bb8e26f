"""Synthetic batches for comparing backends: made of integers and powers of two, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch
from earthsr.data.normalise import Normalisation
from earthsr.data.patches import Patches
from earthsr.geo.resample import block_mean
from earthsr.landuse.classes import NODATA
from earthsr.landuse.normalise import ChannelNormalisation
from earthsr.models import NetworkSpec, UNetSpec
from earthsr.tasks.batches import ParityBatches, field_values, patch_batches, probabilities


def _octaves(rng: np.random.Generator, samples: int, size: int) -> NDArray[np.float32]:
    """Hills made of integers, 0 to some hundred metres: exact, so that every machine draws the same."""
    fine = np.zeros((samples, 1, size, size), np.float32)
    width = 1
    while width < size:
        cells = -(-size // width)
        noise = rng.integers(-4, 5, (samples, 1, cells, cells)).astype(np.float32) * np.float32(width)
        fine += noise.repeat(width, axis=2).repeat(width, axis=3)[:, :, :size, :size]
        width *= 2
    return fine + np.float32(512)


def made_patches(spec: NetworkSpec, patch: int, batch: int, count: int, seed: int = 0) -> list[Patches]:
    """Make batches of synthetic terrain for a spec; one cell in ten is masked.

    Parameters
    ----------
    spec : NetworkSpec
        Gives scale and channels; its one input is a field of elevations.
    patch : int
        Coarse cells per side.
    batch, count : int
        Samples per batch, and batches.
    seed : int
        Of NumPy's generator.
    """
    rng = np.random.default_rng(seed)
    made, channels = [], spec.inputs[0].shape[0] or 1
    for _ in range(count):
        fine = np.concatenate([_octaves(rng, batch, patch * spec.scale) for _ in range(channels)], axis=1)
        mask = (rng.integers(0, 10, (batch, 1, *fine.shape[2:])) > 0).astype(np.uint8)
        made.append(Patches(block_mean(fine, spec.scale), (fine * mask).astype(np.float32), mask, np.arange(batch)))
    return made


def _areas(rng: np.random.Generator, samples: int, size: int, kinds: int) -> NDArray[np.uint8]:
    """Maps of square areas of several sizes, (samples, size, size), values below ``kinds``."""
    out = np.zeros((samples, size, size), np.uint8)
    width = size
    while width >= 2:
        cells = -(-size // width)
        values = rng.integers(0, kinds, (samples, cells, cells), dtype=np.uint8)
        chosen = rng.integers(0, 3, (samples, cells, cells)) == 0
        value = values.repeat(width, 1).repeat(width, 2)[:, :size, :size]
        out = np.where(chosen.repeat(width, 1).repeat(width, 2)[:, :size, :size], value, out)
        width //= 2
    return out


def made_tiles(spec: UNetSpec, size: int, batch: int, count: int, coarse: int = 4, seed: int = 0) -> list[Batch]:
    """Make batches of synthetic land use for a spec, normalised; one cell in ten is masked.

    Parameters
    ----------
    spec : UNetSpec
        Gives channels, classes and head.
    size : int
        Fine cells per side.
    batch, count : int
        Samples per batch, and batches.
    coarse : int
        Cells per side of the forcing's window.
    seed : int
        Of NumPy's generator.
    """
    rng = np.random.default_rng(seed)
    eighth = np.float32(1 / 8)
    batches = []

    def some(*shape: int) -> NDArray[np.float32]:
        return rng.integers(-16, 17, shape).astype(np.float32) * eighth

    for _ in range(count):
        # Rows that add up to 1, as those of an interpolation do.
        share = rng.integers(0, 9, (2, batch, size)).astype(np.float32) * eighth
        first = rng.integers(0, coarse - 1, (2, batch, size))
        spread = np.zeros((2, batch, size, coarse), np.float32)
        np.put_along_axis(spread, first[..., None], 1 - share[..., None], axis=-1)
        np.put_along_axis(spread, first[..., None] + 1, share[..., None], axis=-1)
        classes = _areas(rng, batch, size, spec.classes)
        before = np.where(rng.integers(0, 8, classes.shape) == 0, _areas(rng, batch, size, spec.classes), classes)
        mask = (rng.integers(0, 10, (batch, 1, size, size)) > 0).astype(np.uint8)
        prior = np.where(mask[:, 0] > 0, before, NODATA).astype(np.uint8)
        known = ((prior != NODATA) & (rng.integers(0, 4, (batch, 1, 1)) > 0)).astype(np.uint8)
        inputs = {
            "coarse": rng.integers(0, 9, (batch, spec.coarse_channels, coarse, coarse)).astype(np.float32) * eighth,
            "wy": spread[0],
            "wx": spread[1],
            "static": some(batch, spec.static_channels, size, size),
            "prior": prior,
            "prior_mask": known,
            "scalars": some(batch, 3),
        }
        if spec.head == "classes":
            target: NDArray = (classes[:, None] * mask).astype(np.uint8)
        else:
            # A value of each class and channel, and some noise: something to learn.
            table = some(spec.classes, spec.out_channels)
            target = np.moveaxis(table[classes], -1, 1) + some(batch, spec.out_channels, size, size) * eighth
            target = (target * mask).astype(np.float32)
        names = [field.name for field in spec.inputs]
        batches.append(Batch({name: inputs[name] for name in names}, target, mask, np.ones(batch, np.float32)))
    return batches


def made_batches(spec: NetworkSpec, size: int, batch: int, count: int, seed: int = 0) -> ParityBatches:
    """Make batches for a spec of any kind.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    size : int
        Cells per side of its inputs: coarse ones of networks of elevations, fine ones of a U-Net.
    batch, count : int
        Samples per batch, and batches.
    seed : int
        Of NumPy's generator.
    """
    if not isinstance(spec, UNetSpec):
        patches = made_patches(spec, size, batch, count, seed)
        return patch_batches(patches, Normalisation("patch", 0.0, 64.0), spec.scale, f"synthetic terrain, seed {seed}")
    batches = made_tiles(spec, size, batch, count, seed=seed)
    if spec.softmax:
        words = f"synthetic land use, seed {seed}"
        return ParityBatches(batches, words, lambda output: probabilities(output, batches[0]))
    unit = ChannelNormalisation((), ())
    return ParityBatches(batches, f"synthetic fields, seed {seed}", lambda o: field_values(o, batches[0], unit))

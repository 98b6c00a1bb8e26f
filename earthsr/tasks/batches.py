"""Batches for comparing backends, and how a network's output is read in physical units.

Synthetic ones are made of integers and powers of two: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch, make_batch
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import Patches
from earthsr.evaluation.statistics import ErrorStatistics, patch_statistics
from earthsr.geo.resample import block_mean
from earthsr.models import NetworkSpec

#: Rasters and scores, each by name.
Reading = tuple[dict[str, NDArray], dict[str, NDArray]]


@dataclass(frozen=True)
class ParityBatches:
    """Batches for comparing backends, and how an output is read in physical units."""

    batches: list[Batch]
    source: str
    """What they are, in words."""
    interpret: Callable[[NDArray[np.float32]], Reading]
    """From the prediction of the first batch to rasters and scores, by name."""
    synthetic: bool = False
    """Whether they are made, and not read."""


def elevation(output: NDArray[np.floating], patches: Patches, normalisation: Normalisation, border: int) -> Reading:
    """Elevation in metres of a normalised output, and its scores against the truth."""
    raster = normalisation.undo(output, normalisation.offsets(patches.coarse))
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min()) if valid.size else 1.0
    errors = patch_statistics(raster, patches.fine, patches.mask, border=border, value_range=span, cell_size_m=None)
    scores = sum(errors, ErrorStatistics()).scores(span)
    # The bias may be anywhere near zero, where a relative difference means nothing.
    kept = {k: np.array([scores[k]]) for k in ("rmse", "mae", "psnr", "ssim") if scores[k] is not None}
    return {"elevation_m": raster}, kept


def patch_batches(patches: list[Patches], normalisation: Normalisation, scale: int, source: str) -> ParityBatches:
    """Batches of patches in metres, one each."""
    first = patches[0]
    batches = [make_batch(batch, normalisation) for batch in patches]
    return ParityBatches(batches, source, lambda output: elevation(output, first, normalisation, scale))


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
    patches, channels = [], spec.inputs[0].shape[0] or 1
    for _ in range(count):
        fine = np.concatenate([_octaves(rng, batch, patch * spec.scale) for _ in range(channels)], axis=1)
        mask = (rng.integers(0, 10, (batch, 1, *fine.shape[2:])) > 0).astype(np.uint8)
        patches.append(Patches(block_mean(fine, spec.scale), (fine * mask).astype(np.float32), mask, np.arange(batch)))
    return patches


def synthetic_patches(spec: NetworkSpec, size: int, batch: int, count: int, seed: int = 0) -> ParityBatches:
    """Make batches of synthetic terrain for a network of one field.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    size : int
        Coarse cells per side.
    batch, count : int
        Samples per batch, and batches.
    seed : int
        Of NumPy's generator.
    """
    patches = made_patches(spec, size, batch, count, seed)
    terrain = patch_batches(patches, Normalisation("patch", 0.0, 64.0), spec.scale, f"synthetic terrain, seed {seed}")
    return replace(terrain, synthetic=True)

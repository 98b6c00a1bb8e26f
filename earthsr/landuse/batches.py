"""Batches of land use for comparing backends: synthetic ones, and how an output is read in physical units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch
from earthsr.data.normalise import ChannelNormalisation
from earthsr.evaluation.statistics import ErrorStatistics, patch_statistics
from earthsr.landuse.classes import NODATA
from earthsr.models import UNetSpec
from earthsr.tasks.batches import ParityBatches, Reading


def probabilities(output: NDArray[np.floating], batch: Batch) -> Reading:
    """Probabilities as the raster, and scores that are smooth in them: nothing jumps where two classes are alike."""
    mask = batch.mask[:, 0] > 0
    k = output.shape[1]
    truth = batch.target[:, 0][mask][:, None] == np.arange(k)
    given = np.moveaxis(output, 1, -1)[mask].astype(np.float64)
    scores = {
        "brier": np.array([np.square(given - truth).sum(axis=1).mean()]),
        "log_score": np.array([-np.log(np.maximum(given[truth], 1e-30)).mean()]),
        "expected_accuracy": np.array([given[truth].mean()]),
    }
    return {"class_probability": output}, scores


def field_values(output: NDArray[np.floating], batch: Batch, normalisation: ChannelNormalisation) -> Reading:
    """A continuous output in its unit, and its errors."""
    raster, truth = normalisation.undo(output), normalisation.undo(batch.target)
    errors = patch_statistics(raster, truth, batch.mask, border=0, value_range=0.0, cell_size_m=None)
    scores = sum(errors, ErrorStatistics()).scores(0.0)
    return {"field": raster}, {key: np.array([scores[key]]) for key in ("rmse", "mae")}


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


def synthetic_tiles(spec: UNetSpec, size: int, batch: int, count: int, seed: int = 0) -> ParityBatches:
    """Make batches of synthetic land use, and say how the network's output is read.

    Parameters
    ----------
    spec : UNetSpec
        The network.
    size : int
        Fine cells per side.
    batch, count : int
        Samples per batch, and batches.
    seed : int
        Of NumPy's generator.
    """
    batches = made_tiles(spec, size, batch, count, seed=seed)
    if spec.softmax:
        source = f"synthetic land use, seed {seed}"
        return ParityBatches(batches, source, lambda output: probabilities(output, batches[0]), synthetic=True)
    unit = ChannelNormalisation((), ())
    source = f"synthetic fields, seed {seed}"
    return ParityBatches(batches, source, lambda output: field_values(output, batches[0], unit), synthetic=True)

"""Batches for comparing backends, and how a network's output is read in physical units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch, make_batch
from earthsr.data.normalise import Normalisation
from earthsr.data.patches import Patches
from earthsr.evaluation.statistics import ErrorStatistics, patch_statistics
from earthsr.landuse.normalise import ChannelNormalisation

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
    made: bool = False
    """Whether they are synthetic."""


def elevation(output: NDArray[np.floating], patches: Patches, normalisation: Normalisation, border: int) -> Reading:
    """Elevation in metres of a normalised output, and its scores against the truth."""
    raster = normalisation.undo(output, normalisation.offsets(patches.coarse))
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min()) if valid.size else 1.0
    each = patch_statistics(raster, patches.fine, patches.mask, border=border, value_range=span, cell_size_m=None)
    found = sum(each, ErrorStatistics()).scores(span)
    # The bias may be anywhere near zero, where a relative difference means nothing.
    scores = {k: np.array([found[k]]) for k in ("rmse", "mae", "psnr", "ssim") if found[k] is not None}
    return {"elevation_m": raster}, scores


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
    each = patch_statistics(raster, truth, batch.mask, border=0, value_range=0.0, cell_size_m=None)
    found = sum(each, ErrorStatistics()).scores(0.0)
    return {"field": raster}, {key: np.array([found[key]]) for key in ("rmse", "mae")}


def patch_batches(patches: list[Patches], normalisation: Normalisation, scale: int, words: str) -> ParityBatches:
    """Batches of patches in metres, one each."""
    first = patches[0]
    batches = [make_batch(each, normalisation) for each in patches]
    return ParityBatches(batches, words, lambda output: elevation(output, first, normalisation, scale))

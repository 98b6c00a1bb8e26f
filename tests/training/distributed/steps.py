"""Steps of an engine that one process makes alone, or several with a share of each batch."""

from pathlib import Path

import numpy as np

from earthsr.backend import get_backend
from earthsr.data.batch import Batch
from earthsr.errors import BackendError
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import CrossEntropyLoss, OptimizerSpec, UNetSpec, initial_weights
from earthsr.ranks import Rank, launched_rank

#: Batch norm, and inputs that vary within a batch. A field that is constant there has no gradient before a norm but
#: rounding, of which Adam makes whole steps: what a land-use model learns from the year alone differs from run to run
#: and means nothing.
BATCH_NORM = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1)
GROUP_NORM = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1, norm="group", norm_groups=2)


def share(batch, rank):
    """The part of a batch of four that is a rank's."""
    own = slice(rank.number * 4 // rank.of, (rank.number + 1) * 4 // rank.of)
    inputs = {name: values[own] for name, values in batch.inputs.items()}
    return Batch(inputs, batch.target[own], batch.mask[own], batch.sample_weight[own])


def engine_of(backend, spec, weights):
    return get_backend(backend).engine(spec, weights, device="cpu", distribute=True)


def over_all_ranks(backend, target):
    """Eight steps with batch norm over all ranks; where there is none, what the backend says instead."""
    rank = launched_rank() or Rank()
    engine = engine_of(backend, BATCH_NORM, initial_weights(BATCH_NORM, 0))
    try:
        engine.prepare_training(CrossEntropyLoss(), OptimizerSpec(), sync_batch_norm=True)
    except BackendError as error:
        Path(f"{target}.{rank.number}.txt").write_text(str(error))
        return
    batches = [share(batch, rank) for batch in synthetic_tiles(BATCH_NORM, 16, 4, 8).batches]
    losses = engine.run(batches, [1e-3] * 8).result().losses
    if rank.number == 0:
        np.savez(target, losses=losses, **engine.export_state().weights)


def small_weight(backend, target):
    """One step, of which all that counts is the first of two ranks', and its weight is small."""
    rank = launched_rank() or Rank()
    engine = engine_of(backend, GROUP_NORM, initial_weights(GROUP_NORM, 0, keep_zeros=False))
    engine.prepare_training(CrossEntropyLoss((0.7e-4, 0.2e-4, 0.1e-4)), OptimizerSpec())
    batch = synthetic_tiles(GROUP_NORM, 8, 4, 1).batches[0]
    batch.mask[2:] = 0
    losses = engine.run([share(batch, rank)], [0.0]).result().losses
    if rank.number == 0:
        np.savez(target, losses=losses, **engine.export_state().first_moments)

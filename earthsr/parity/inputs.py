"""What both sides compute on: batches of the user's own data, or of terrain that is the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from earthsr.config import Config
from earthsr.data import Batch, Normalisation, Patches, make_batch
from earthsr.models import NetworkSpec
from earthsr.resample import block_mean
from earthsr.tasks import task_for


@dataclass(frozen=True)
class Inputs:
    """Patches in metres and their batches."""

    patches: list[Patches]
    """One batch each."""
    normalisation: Normalisation
    source: str
    """What they are, in words."""

    @cached_property
    def batches(self) -> list[Batch]:
        """The same, as an engine takes them."""
        return [make_batch(patches, self.normalisation) for patches in self.patches]


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


def made_inputs(spec: NetworkSpec, patch: int, batch: int, count: int, seed: int = 0) -> Inputs:
    """Make batches of synthetic terrain for a spec; one cell in ten is masked.

    Parameters
    ----------
    spec : NetworkSpec
        Gives scale and channels.
    patch : int
        Coarse cells per side.
    batch, count : int
        Samples per batch, and batches.
    seed : int
        Of NumPy's generator.
    """
    rng = np.random.default_rng(seed)
    channels = spec.inputs[0].shape[0] or 1
    made = []
    for _ in range(count):
        fine = np.concatenate([_octaves(rng, batch, patch * spec.scale) for _ in range(channels)], axis=1)
        mask = (rng.integers(0, 10, (batch, 1, *fine.shape[2:])) > 0).astype(np.uint8)
        made.append(Patches(block_mean(fine, spec.scale), (fine * mask).astype(np.float32), mask, np.arange(batch)))
    return Inputs(made, Normalisation("patch", 0.0, 64.0), f"synthetic terrain, seed {seed}")


def read_inputs(config: Config, count: int) -> Inputs:
    """Read the first batches of the training split of ``data.root_dir``, as training would draw them unshuffled.

    Raises
    ------
    DataError
        If the data do not fit the model.
    """
    source = task_for(config).data("train")
    size = config.data.batch_size
    order = np.arange(size * count) % len(source)
    patches = [source.read(order[i * size : (i + 1) * size]) for i in range(count)]
    normalisation = Normalisation.choose(config.data.normalisation, source.statistics())
    return Inputs(patches, normalisation, f"{source.path} ({len(source)} patches)")

"""Batches of land-use samples in their order, prepared ahead by threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch, Earlier
from earthsr.data.dataset import Prepare, SampleSet
from earthsr.data.normalise import ChannelNormalisation
from earthsr.data.samples import PADDING, TileSampler
from earthsr.geo.areas import Interpolation
from earthsr.landuse.classes import NODATA
from earthsr.landuse.samples import STEP_FIELDS, Composer, Fields, PriorPlan, Sample, stack, turned
from earthsr.landuse.split import LandUseData

Direction = Literal["forwards", "backwards"]


@dataclass(frozen=True)
class LandUseOptions:
    """How samples are made of tiles and years."""

    directions: tuple[Direction, ...] = ("forwards",)
    """Each doubles the samples: the prior is the year before, or the year after."""
    prior: PriorPlan = field(default_factory=PriorPlan)
    """Which priors are hidden, stale or the model's own."""
    target: str | None = None
    """A continuous field to learn; None learns the classes."""
    method: Interpolation = "bilinear"
    """How the forcing comes onto the fine cells."""
    buffer_tiles: int = 32
    """Tiles whose samples are mixed."""
    fields: tuple[str, ...] = ("coarse", "wy", "wx", "static", "prior", "prior_mask", "scalars")
    """Those that the network takes."""


class LandUseDataset(SampleSet):
    """A split of land-use tiles and the way its batches are made.

    Parameters
    ----------
    generator : LandUseData
        The split.
    options : LandUseOptions
        Directions, priors, target.
    num_workers : int
        Threads that read and prepare; 0 reads in the loop.
    shuffle : bool
        A new order in every epoch.
    augment : bool
        The eight symmetries of the square.
    seed : int
        Seed of order, augmentation and hidden priors.
    prefetch : int
        Batches prepared ahead.

    Examples
    --------
    >>> import earthsr
    >>> data = earthsr.LandUseData({"root_dir": "runs/landuse-data", "patch_size": 64}, "train")
    >>> dataset = earthsr.LandUseDataset(data, shuffle=False).create_dataset(4)
    >>> dataset.batch_size
    4
    """

    def __init__(
        self,
        generator: LandUseData,
        options: LandUseOptions | None = None,
        num_workers: int = 1,
        shuffle: bool = True,
        *,
        augment: bool = False,
        seed: int = 0,
        prefetch: int = 4,
    ) -> None:
        super().__init__(generator, num_workers, shuffle, augment=augment, seed=seed, prefetch=prefetch)
        self.options = options or LandUseOptions()
        if self.options.target is not None:
            generator.field(self.options.target)

    @cached_property
    def moments(self) -> tuple[tuple[int, int], ...]:
        """Years and directions that every tile is sampled at.

        The end of the years has no neighbour to start from: it is the prior of others and no sample of its own. (Where
        there is one year alone, no prior, or a continuous field to learn, every year is.)
        """
        years = self.generator.layout.years
        if self.options.target is not None or "prior" not in self.options.fields or len(years) == 1:
            return tuple((year, 1) for year in years)
        ways = {"forwards": (years[1:], 1), "backwards": (years[:-1], -1)}
        return tuple((year, ways[direction][1]) for direction in self.options.directions for year in ways[direction][0])

    def __len__(self) -> int:
        return self.generator.layout.tiles * len(self.moments)

    @property
    def sampler(self) -> TileSampler:
        """The order of samples."""
        return TileSampler(
            len(self),
            self.batch_size,
            self.seed,
            self.shuffle,
            per_tile=len(self.moments),
            buffer_tiles=self.options.buffer_tiles,
        )

    @property
    def order(self) -> dict[str, Any]:
        """What samples and their order depend on beside seed and batch size: a run that goes on must not change it."""
        options = self.options
        return {
            "directions": list(options.directions),
            "buffer_tiles": options.buffer_tiles,
            "target": options.target,
            "coarse_interpolation": options.method,
            "augment": self.augment,
        }

    def sample(self, index: int) -> Sample:
        """Tile, year and direction of the sample at position ``index``."""
        tile, moment = divmod(index, len(self.moments))
        return Sample(tile, *self.moments[moment])

    def preparation(self, epoch: int, normalisation: ChannelNormalisation, rank: int) -> Prepare:
        """See the base class; ``normalisation`` is that of channels.

        The last batch is filled up with samples of its own at weight 0, for statistics of batch norm to see data: those
        of the whole batch, whichever rank they fall to.
        """
        sampler = self.sampler
        composer = Composer(self.generator, normalisation, self.options.method)
        symmetries = sampler.symmetries(epoch) if self.augment else np.zeros(len(self), np.int8)

        def prepare(whole: NDArray[np.int64], indices: NDArray[np.int64]) -> Batch:
            own = slice(rank * len(indices), (rank + 1) * len(indices))
            chosen = np.where(indices == PADDING, np.resize(whole[whole != PADDING], len(whole))[own], indices)
            samples = [self._one(composer, int(i), sampler.chance(epoch, int(i)), int(symmetries[i])) for i in chosen]
            return self._batch(samples, (indices != PADDING).astype(np.float32))

        return prepare

    def _one(
        self, composer: Composer, index: int, chance: np.random.Generator, symmetry: int
    ) -> tuple[Fields, Fields, Fields | None]:
        """Inputs, target and mask, and the fields of the step before where the model's own map is to be the prior."""
        tile, year, direction = self.sample(index)
        if self.options.target is not None:
            return self._continuous(composer, tile, year, symmetry)
        size = self.generator.layout.tile_size
        before = composer.neighbour(year, direction)
        known = self.options.prior.mask(chance, size)
        step = abs(year - before) if before is not None else 1
        age = self.options.prior.age(chance)
        prior = composer.truth(tile, before if before is None else composer.older(before, direction, age))
        inputs = composer.fields(tile, year, prior, step, direction, known)
        earlier = None
        if chance.random() < self.options.prior.own and before is not None:
            # The first pass maps the prior's year from the one before that, as a rollout does.
            first = composer.neighbour(before, direction)
            gap = abs(before - first) if first is not None else 1
            fields = composer.fields(tile, before, composer.truth(tile, first), gap, direction)
            earlier = turned({name: fields[name] for name in STEP_FIELDS}, symmetry)
        truth = composer.truth(tile, year)
        mask = (truth != NODATA).astype(np.uint8)
        target = {"target": np.where(mask, truth, 0).astype(np.uint8)[None], "mask": mask[None]}
        return turned(inputs, symmetry), turned(target, symmetry), earlier

    def _continuous(
        self, composer: Composer, tile: int, year: int, symmetry: int
    ) -> tuple[Fields, Fields, Fields | None]:
        """Return this year's map as the prior, at step 0, and the field as the target."""
        assert self.options.target is not None
        values = self.generator.continuous(self.options.target, tile, year)
        inputs = composer.fields(tile, year, composer.truth(tile, year), 0)
        mask = np.isfinite(values).all(axis=0, keepdims=True).astype(np.uint8)
        normalised = np.where(mask, composer.normalisation.apply(values), 0).astype(np.float32)
        return turned(inputs, symmetry), turned({"target": normalised, "mask": mask}, symmetry), None

    def _batch(self, samples: list[tuple[Fields, Fields, Fields | None]], weight: NDArray[np.float32]) -> Batch:
        inputs = stack([{name: sample[name] for name in self.options.fields} for sample, _, _ in samples])
        truth = stack([target for _, target, _ in samples])
        earlier = None
        first_passes = [fields for _, _, fields in samples]
        if any(fields is not None for fields in first_passes):
            own = np.array([fields is not None for fields in first_passes], np.float32)
            # A sample without a first pass of its own has its fields stand in: shapes are static.
            steps = [{name: sample[name] for name in STEP_FIELDS} for sample, _, _ in samples]
            earlier = Earlier(stack([f or step for f, step in zip(first_passes, steps, strict=True)]), own)
        return Batch(inputs, truth["target"], truth["mask"], weight, earlier)

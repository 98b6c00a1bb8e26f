"""What the tasks on land-use tiles have in common: network, files, samples, normalisation, synthetic batches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch
from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import CheckpointError, DataError
from earthsr.evaluation.statistics import ErrorStatistics, patch_statistics
from earthsr.landuse.classes import NODATA
from earthsr.landuse.config import LandUseConfig
from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
from earthsr.landuse.samples import Composer, PriorPlan
from earthsr.landuse.split import LandUseData
from earthsr.landuse.split_file import LandUseLayout
from earthsr.models import UNetSpec
from earthsr.tasks.base import Predictor, Task
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


class TileTask(Task):
    """A task whose samples are composed of tiles and years."""

    config: LandUseConfig

    def spec(self) -> UNetSpec:
        """Return the network that the ``model`` section describes."""
        return UNetSpec(**self.config.model.model_dump(exclude={"name"}))

    def data(self, split: str) -> LandUseData:
        """Open a split and check it against the model.

        Raises
        ------
        DataError
            If files and configuration do not fit; the message names key and count.
        """
        model = self.config.model
        source = LandUseData(self.config.data, split)
        layout = source.layout
        for key, expected, count, what in (
            ("coarse_channels", model.coarse_channels, len(layout.coarse_channels), ", ".join(layout.coarse_channels)),
            ("static_channels", model.static_channels, len(layout.static_channels), _names(layout)),
            ("classes", model.classes, len(layout.table), ", ".join(layout.table.names)),
        ):
            if count != expected:
                raise DataError(
                    f"{source.path}: holds {count} {key.replace('_', ' ')} ({what}), model.{key} is {expected}; set "
                    f"it to {count}"
                )
        return source

    def options(self, source: LandUseData) -> LandUseOptions:
        """How samples of a split are made."""
        data = self.config.data
        return LandUseOptions(
            directions=tuple(data.directions),
            prior=PriorPlan(
                data.prior_hidden,
                data.prior_hidden_blocks,
                data.prior_block_cells,
                data.prior_stale,
                data.prior_stale_steps,
                data.prior_own,
            ),
            method=data.coarse_interpolation,
            buffer_tiles=data.buffer_tiles,
            fields=self.field_names,
        )

    @property
    def field_names(self) -> tuple[str, ...]:
        """Input fields of the network."""
        return tuple(field.name for field in self.spec().inputs)

    def dataset(self, split: str) -> LandUseDataset:
        """Return the batches of a split: shuffled, augmented and with hidden priors for training.

        Raises
        ------
        DataError
            If files and configuration do not fit, or the split has no value to learn from, or to score.
        """
        data, train = self.config.data, split == "train"
        source = self.data(split)
        dataset = LandUseDataset(
            source,
            self.options(source),
            num_workers=data.num_workers,
            shuffle=train,
            augment=train and data.augment,
            seed=self.config.train.seed,
            prefetch=data.prefetch_batches,
        ).create_dataset(data.batch_size)
        scored = not train and dataset.options.target is None
        years = source.scored_years if scored else [year for year, _ in dataset.moments]
        source.require_values(years, dataset.options.target)
        return dataset

    def normalisation(self, dataset: LandUseDataset) -> ChannelNormalisation:
        """Means and standard deviations of the training split's static fields."""
        return dataset.generator.layout.statistics.normalisation(dataset.options.target)

    def metadata(self, dataset: LandUseDataset) -> dict[str, Any]:
        """Class table, channels and cell sizes: enough to map with."""
        layout = dataset.generator.layout
        return {
            "units": self.units,
            "class_table": layout.table.to_json(),
            "static_channels": [channel.name for channel in layout.static_channels],
            "coarse_channels": list(layout.coarse_channels),
            "forcing": layout.forcing,
            "coarse_interpolation": dataset.options.method,
            "output_cell_size_deg": [layout.fine.cell_y, layout.fine.cell_x],
            "input_cell_size_deg": [layout.coarse.cell_y, layout.coarse.cell_x],
            "tile_size": layout.tile_size,
            "directions": list(dataset.options.directions),
            "prior_hidden": dataset.options.prior.hidden,
            "data_source": layout.source,
        }

    def require_fitting(self, model: Predictor, dataset: LandUseDataset) -> None:
        """See the base class."""
        known, given = model.trained_on, self.metadata(dataset)
        for key in ("static_channels", "coarse_channels", "class_table", "field", "coarse_interpolation"):
            theirs, ours = _short(known.get(key)), _short(given.get(key))
            if key in known and theirs != ours:
                raise CheckpointError(
                    f"{known.get('source', 'the model')}: was trained with {key} {theirs}; {dataset.generator.path} "
                    f"and the configuration give {ours}; use data with the same meaning"
                )

    def composer(self, model: Predictor, source: LandUseData) -> Composer:
        """Return what makes input fields of a split for a model.

        Raises
        ------
        CheckpointError
            If the model's normalisation is of other channels.
        """
        normalisation = model.normalisation
        channels = len(source.layout.static_channels)
        if not isinstance(normalisation, ChannelNormalisation) or len(normalisation.static_mean) != channels:
            raise CheckpointError(f"the model's normalisation is not of the {channels} static fields of {source.path}")
        return Composer(source, normalisation, self.config.data.coarse_interpolation)

    def synthetic_batches(self, count: int) -> ParityBatches:
        """See the base class: areas of classes, and what follows from them."""
        data = self.config.data
        return synthetic_tiles(self.spec(), data.patch_size, data.batch_size, count)

    def first_batches(self, count: int) -> tuple[list[Batch], str]:
        """Return the first batches of training, and what they are in words."""
        dataset = self.dataset("train")
        normalisation = self.normalisation(dataset)
        batches: list[Batch] = []
        while len(batches) < count:
            for batch in dataset.training_batches(len(batches), normalisation):
                batches.append(batch)
                if len(batches) == count:
                    break
        return batches, f"{dataset.generator.path} ({dataset.generator.layout.tiles} tiles)"


def _names(layout: LandUseLayout) -> str:
    return ", ".join(channel.name for channel in layout.static_channels)


def _short(value: Any) -> str:
    """List or class table in a few words."""
    if isinstance(value, str) and value.startswith("{"):
        return ", ".join(str(row["name"]) for row in json.loads(value)["classes"])
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

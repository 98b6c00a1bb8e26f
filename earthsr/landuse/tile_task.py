"""What the workloads on land-use tiles have in common: network, files, samples, normalisation."""

from __future__ import annotations

import json
from typing import Any

from earthsr.data.batch import Batch
from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import CheckpointError, DataError
from earthsr.landuse.batches import synthetic_tiles
from earthsr.landuse.config import LandUseConfig
from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
from earthsr.landuse.samples import Composer, PriorPlan
from earthsr.landuse.split import LandUseData
from earthsr.landuse.split_file import LandUseLayout
from earthsr.models import UNetSpec
from earthsr.tasks.base import Predictor, Task
from earthsr.tasks.batches import ParityBatches


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

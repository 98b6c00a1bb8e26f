"""DEM super-resolution: from a configuration to spec, data and objective, and from predictions to scores.

This room calls no framework. Whoever has an engine hands in a function that predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.config import Workload
from earthsr.data.dataset import Dataset
from earthsr.data.hdf5 import patch_size_of
from earthsr.data.normalise import Normalisation, limits
from earthsr.data.samples import Patches
from earthsr.dem.config import DemConfig
from earthsr.dem.degradation import Redraw
from earthsr.dem.evaluate import Tally, evaluation_findings, tally_of
from earthsr.dem.split import DemData
from earthsr.errors import DataError, InputError
from earthsr.evaluation.maps import PAGE, Drawing, MapRequest, holds_codes
from earthsr.evaluation.metrics import Metric, find_metrics
from earthsr.evaluation.statistics import BASELINES, ErrorStatistics, add_up, baseline, patch_statistics
from earthsr.geo.raster import Source
from earthsr.geo.values import is_metres
from earthsr.models import MSELoss, NetworkSpec, Objective, spec_from_dict
from earthsr.ranks import ALONE, Rank
from earthsr.tasks.base import Findings, PendingArray, Predictor, Task
from earthsr.tasks.batches import ParityBatches, patch_batches


@dataclass(frozen=True)
class Scores:
    """Statistics of every method over a split and over its groups."""

    split: str
    value_range: float
    """Range of the truth over the split, metres."""
    total: dict[str, ErrorStatistics]
    """Over the split, by method."""
    groups: dict[str, dict[str, ErrorStatistics]] = field(default_factory=dict)
    """The same for each group of patches, such as ``land``: by group, then by method."""

    def __add__(self, other: Scores) -> Scores:
        groups = {
            name: add_up(self.groups.get(name, {}), other.groups.get(name, {}))
            for name in sorted({*self.groups, *other.groups})
        }
        return replace(self, total=add_up(self.total, other.total), groups=groups)

    def _block(self, methods: dict[str, ErrorStatistics]) -> dict[str, Any]:
        scores = {name: statistics.scores(self.value_range) for name, statistics in methods.items()}
        block: dict[str, Any] = {"samples": int(next(iter(methods.values())).samples), "scores": scores}
        if "model" in scores and "bicubic" in scores:
            model, bicubic = scores["model"]["rmse"], scores["bicubic"]["rmse"]
            gain = None if model is None or not bicubic else 100 * (1 - model / bicubic)
            block["rmse_reduction_vs_bicubic_percent"] = gain
        return block

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        return {
            "task": "dem_sr",
            "split": self.split,
            "units": "m",
            **self._block(self.total),
            "groups": {name: self._block(methods) for name, methods in self.groups.items()},
        }

    def headline(self) -> dict[str, float | None]:
        """Scores of the model, metres and others."""
        return self.total["model"].scores(self.value_range)

    def reference(self) -> dict[str, float | None]:
        """``bicubic_rmse``, metres."""
        if "bicubic" not in self.total:
            return {}
        return {"bicubic_rmse": self.total["bicubic"].scores(self.value_range)["rmse"]}


class DemSR(Task):
    """The task of enlarging elevation grids.

    Parameters
    ----------
    config : DemConfig
        With a model of elevations.
    """

    config: DemConfig

    name: ClassVar[str] = "dem_sr"
    best: ClassVar[str] = "rmse"
    units: ClassVar[str] = "m"
    score_label: ClassVar[str] = "validation RMSE (m)"

    def __init__(self, config: DemConfig) -> None:
        super().__init__(config)
        self._ranges: WeakKeyDictionary[Dataset, float] = WeakKeyDictionary()

    def spec(self) -> NetworkSpec:
        """Return the network that the ``model`` section describes: its keys are the fields of the spec of that kind."""
        named = self.config.demsrnet
        return spec_from_dict({"kind": named.name, **named.model_dump(exclude={"name"})})

    def objective(self) -> Objective:
        """Mean squared error over valid cells, or what ``train.loss`` names, and of slopes by ``train.slope``."""
        train = self.config.train
        if train.loss == "auto":
            return MSELoss(train.slope)
        return Objective(train.loss, delta=train.huber_delta, slope=train.slope)

    def data(self, split: str) -> DemData:
        """Open a split and check it against model and configuration.

        Raises
        ------
        DataError
            If files and configuration do not fit; the message names key and shape.
        """
        spec = self.spec()
        source = DemData(self.config.data, split, spec.scale)
        for key in ("in_channels", "out_channels"):
            expected = getattr(spec, key, 1)  # a network without these fields is of one channel
            if source.layout.channels != expected:
                raise DataError(
                    f"{source.path}: {source.layout.coarse_key} holds {source.layout.channels} channel(s), "
                    f"model.{key} is {expected}; set it to {source.layout.channels}"
                )
        return source

    def dataset(self, split: str) -> Dataset:
        """Return the batches of a split: shuffled and augmented for training, in the file's order otherwise."""
        data, train = self.config.data, split == "train"
        source = self.data(split)
        if train and data.shift:
            source.require_means()
        return Dataset(
            source,
            distribute=self.config.train.distribute,
            num_workers=data.num_workers,
            shuffle=train,
            augment=train and data.augment,
            shift=train and data.shift,
            redraw=Redraw.of(data, self.spec().scale) if train else None,
            by_relief=train and self.config.train.by_relief,
            seed=self.config.train.seed,
            prefetch=data.prefetch_batches,
        ).create_dataset(data.batch_size)

    def normalisation(self, dataset: Dataset) -> Normalisation:
        """Choose by ``data.normalisation`` from the training split's statistics.

        Raises
        ------
        InputError
            If the data come from a generator of one's own, whose statistics nobody knows.
        """
        if not isinstance(dataset.generator, DemData):
            raise InputError("a generator of one's own needs model.normalisation to be set before training")
        return Normalisation.choose(self.config.data.normalisation, dataset.generator.statistics())

    def metadata(self, dataset: Dataset) -> dict[str, Any]:
        """Units, and cell sizes in degrees where the data know them."""
        fine = coarse = None
        source = dataset.generator
        if isinstance(source, DemData) and source.cell_size_deg is not None:
            fine = source.cell_size_deg
            coarse = fine * self.spec().scale
        return {"units": "m", "input_cell_size_deg": coarse, "output_cell_size_deg": fine}

    def settings(self) -> dict[str, Any]:
        """How coarse cells were made anew, and what samples weighed, where that is not as the file has it."""
        data = self.config.data
        settings: dict[str, Any] = {"shifted": True} if data.shift else {}
        redraw = Redraw.of(data, self.spec().scale)
        if redraw is not None:
            settings["degradation"] = {"kind": data.degradation, **asdict(redraw)}
        return {**settings, **({"by_relief": True} if self.config.train.by_relief else {})}

    def scored(self, split: str) -> Dataset:
        """See the base class: in the order of the file, of the training split too."""
        data = self.config.data
        source = self.data(split)
        dataset = Dataset(source, num_workers=data.num_workers, shuffle=False, prefetch=data.prefetch_batches)
        return dataset.create_dataset(data.batch_size)

    def batches_scored(self, dataset: Dataset) -> int:
        """See the base class."""
        return dataset.get_dataset_size()

    def tally(self, model: Model, dataset: Dataset, share: Rank = ALONE) -> Tally:
        """See the base class; with errors by slope and elevation, offsets, and whether the coarse grid shows."""
        return tally_of(model, dataset, share, self.score, self._metrics())

    def findings(self, model: Model, dataset: Dataset, tally: Tally) -> Findings:
        """See the base class; with pictures of patches and regions."""
        return evaluation_findings(model, dataset.generator, tally, self._metrics())

    def _metrics(self) -> dict[str, Metric]:
        return find_metrics(self.config.summary.metrics, "values")

    def describe_validation(self, valid: Mapping[str, float | None]) -> str:
        """RMSE beside bicubic's, metres."""
        if valid.get("rmse") is None:
            return "no score"
        beside = valid.get("bicubic_rmse")
        return f"RMSE {valid['rmse']:.3f} m" + ("" if beside is None else f" (bicubic {beside:.3f} m)")

    def score(
        self,
        model: Predictor | None,
        dataset: Dataset,
        baselines: bool = True,
        observe: Callable[[Patches, Mapping[str, NDArray[np.float32]]], None] | None = None,
        share: Rank = ALONE,
    ) -> Scores:
        """Score a model and the interpolation baselines over all patches of a data set.

        Parameters
        ----------
        model : Predictor or None
            Starts predictions in metres; None scores the baselines alone.
        dataset : Dataset
            In its own order; every patch counts once, the short last batch included.
        baselines : bool
            Score the interpolations beside the model.
        observe : callable, optional
            Is shown every batch of patches with what each method made of it, (N, C, H, W) in metres.
        share : Rank
            Score every n-th batch alone.

        Returns
        -------
        Scores
            Statistics of each method, in metres.
        """
        source = dataset.generator
        scale = self.spec().scale
        if dataset not in self._ranges:
            self._ranges[dataset] = _value_range(dataset, share)
        value_range = self._ranges[dataset]
        labels: dict[str, NDArray] = source.groups() if hasattr(source, "groups") else {}
        cells = source.fine_cell_size_m() if hasattr(source, "fine_cell_size_m") else None
        wanted = [*(["model"] if model is not None else []), *(BASELINES if baselines else ())]
        total = {name: ErrorStatistics() for name in wanted}
        groups: dict[str, dict[str, ErrorStatistics]] = {}
        for patches, prediction in _predictions(model, dataset, share):
            methods: dict[str, NDArray[np.float32]] = {}
            if prediction is not None:
                methods["model"] = prediction.result()
            for method in BASELINES if baselines else ():
                methods[method] = baseline(patches.coarse, scale, method)
            if observe is not None:
                observe(patches, methods)
            for name, fine in methods.items():
                per_patch = patch_statistics(
                    fine,
                    patches.fine,
                    patches.mask,
                    border=scale,
                    value_range=value_range,
                    cell_size_m=None if cells is None else cells[patches.indices],
                )
                for statistics, index in zip(per_patch, patches.indices, strict=True):
                    _merge(total, name, statistics)
                    for kind, column in labels.items():
                        group = str(column[index]) if kind == "surface" else f"{kind}/{column[index]}"
                        _merge(groups.setdefault(group, {}), name, statistics)
        return Scores(getattr(source, "split", "custom"), value_range, total, dict(sorted(groups.items())))

    def watch(self, model: Predictor, dataset: Dataset, baselines: bool = True, share: Rank = ALONE) -> Scores:
        """See the base class."""
        return self.score(model, dataset, baselines, share=share)

    def read_batches(self, count: int) -> ParityBatches:
        """See the base class."""
        source = self.data("train")
        size = self.config.data.batch_size
        order = np.arange(size * count) % len(source)
        patches = [source.read(order[i * size : (i + 1) * size]) for i in range(count)]
        normalisation = Normalisation.choose(self.config.data.normalisation, source.statistics())
        words, scale = f"{source.path} ({len(source)} patches)", self.spec().scale
        return patch_batches(patches, normalisation, scale, words)


def _merge(table: dict[str, ErrorStatistics], method: str, statistics: ErrorStatistics) -> None:
    table[method] = table.get(method, ErrorStatistics()) + statistics


def _value_range(dataset: Dataset, share: Rank) -> float:
    """Truth's range over the split, metres."""
    if isinstance(dataset.generator, DemData):
        return dataset.generator.value_range(share)
    rows = [limits(patches) for patches in dataset.patches()]
    if not any(row[0] for row in rows):
        raise DataError("no valid cell in the split: every value is masked; check the mask")
    return max(row[5] for row in rows) - min(row[4] for row in rows)


def _predictions(
    model: Predictor | None, dataset: Dataset, share: Rank
) -> Iterator[tuple[Patches, PendingArray | None]]:
    """Patches with their predictions, the next batch started before the last one is read."""
    waiting: tuple[Patches, PendingArray | None] | None = None
    for patches in dataset.patches(share=share):
        # One size of batches: a compiled graph serves the short last one too.
        started = (patches, None if model is None else model.submit(patches.coarse, pad_to=dataset.batch_size))
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


class DemWorkload(Workload):
    """Elevation: DEM super-resolution."""

    name: ClassVar[str] = "dem"
    title: ClassVar[str] = "elevation"
    config: ClassVar[type[DemConfig]] = DemConfig
    variables: ClassVar[tuple[str, ...]] = ("elevation",)

    def task(self, config: DemConfig) -> DemSR:
        """See the base class."""
        return DemSR(config)

    def data_keys(self, spec: Mapping[str, Any], metadata: Mapping[str, Any], root: Path) -> dict[str, Any]:
        """See the base class."""
        return {"patch_size": patch_size_of(root, int(spec["scale"]))}

    def draws(self, source: Source) -> bool:
        """See the base class: metres, or no unit at all, and no codes."""
        units = source.georeference.units.strip()
        return (not units or is_metres(units)) and not holds_codes(source)

    def draw(self, source: Source, request: MapRequest) -> Drawing:
        """See the base class."""
        from earthsr.dem.page import draw_elevation_page
        from earthsr.dem.plot import draw_elevation

        return (draw_elevation_page if request.suffix == PAGE else draw_elevation)(source, request)

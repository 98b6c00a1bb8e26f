"""From what a benchmark asks for to stages: data of every fold, models, fine-tuning, ablations, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from earthsr.errors import InputError
from earthsr.models import RunFolder, read_checkpoint

from .config import Ablations, Benchmark, Cut, Ocean, Variant
from .splits import require_apart, require_whole
from .stages import Command, Stage

RASTERS = (".tif", ".tiff", ".nc", ".zarr")


@dataclass(frozen=True)
class Folders:
    """Where rasters are and where results go."""

    land: Path
    more_land: Path
    ocean: Path
    output: Path


@dataclass
class Plan:
    """All stages of a benchmark, in an order in which each comes after what it needs."""

    benchmark: Benchmark
    source: Path
    """The benchmark's file: configurations lie beside it."""
    folders: Folders
    scale_epochs: float = 1.0
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.land = rasters(self.folders.land)
        self.more_land = rasters(self.folders.more_land)
        self.ocean = rasters(self.folders.ocean) if self.benchmark.ocean is not None else {}
        self._check_names()
        for fold in self.benchmark.land.groups:
            self._fold(fold)
        if self.benchmark.ocean is not None:
            self._ocean(self.benchmark.ocean)
        if self.benchmark.ablations is not None:
            self._ablations(self.benchmark.ablations)

    # Where things are

    def data(self, name: str) -> Path:
        """Folder of prepared patches."""
        return self.folders.output / "data" / name

    def run(self, name: str) -> Path:
        """Run folder of a model, such as ``alps/demsrnet``."""
        return self.folders.output / "runs" / name

    def score(self, name: str) -> Path:
        """Folder of an evaluation."""
        return self.folders.output / "scores" / name

    def epochs(self, wanted: int) -> int:
        """Epochs of a stage: what its file says, shrunk by ``--scale-epochs``, at least one."""
        return max(1, round(wanted * self.scale_epochs))

    # Stages

    def _fold(self, fold: str) -> None:
        land = self.benchmark.land
        self._data(fold, fold)
        for model, config, epochs, overrides in (
            ("demsrnet", land.config, land.epochs, land.set),
            ("edsr", land.baseline, land.baseline_epochs, []),
        ):
            kept = self._kept(fold, model)
            self._train(f"{fold}/{model}", config, fold, epochs, overrides=overrides, keep=kept)
            self._evaluate(f"{fold}/{model}", fold, f"{fold}/{model}")
        self._symmetries(f"{fold}/demsrnet-symmetries", fold, f"{fold}/demsrnet")
        for name, variant in land.variants.items():
            run, data = f"{fold}/{name}", self.variant_data(fold, variant)
            overrides = [*land.set, *variant.set]
            self._train(run, land.config, data, variant.epochs or land.epochs, overrides=overrides)
            self._evaluate(run, fold, run)
            self._symmetries(f"{run}-symmetries", fold, run)

        if land.tiles is not None:
            run, before = f"{fold}/tiles", f"{fold}/demsrnet"
            data = self.tiles_data(fold)
            start = [f"summary.ckpt_path={self.run(before)}"]
            epochs = land.tiles.epochs
            self._train(run, land.tiles.config, data, epochs, overrides=start, needs=(f"train/{before}",))
            self._evaluate(run, fold, run)
            self._symmetries(f"{run}-symmetries", fold, run)

    def _kept(self, fold: str, model: str) -> int | None:
        """Checkpoints that a run keeps, where more than its configuration's are wanted."""
        ablations = self.benchmark.ablations
        if ablations is None or fold != ablations.fold or model != "demsrnet":
            return None
        if self.benchmark.land.time_points:
            return self.epochs(self.benchmark.land.epochs) + 1
        return ablations.average_last or None

    def _ocean(self, ocean: Ocean) -> None:
        wanted = {"train": ocean.train, "valid": ocean.valid, "test": ocean.test}
        whole = [
            word for split, names in wanted.items() for name in names for word in (f"--{split}-region", _exactly(name))
        ]
        paths = [self.ocean[name] for names in wanted.values() for name in names]

        def check() -> None:
            require_whole(self.data("ocean"), [], wanted)
            # The pre-trained model is scored on the ocean's test regions, and fine-tuned with its validation regions.
            for split in ("test", "valid"):
                require_apart(self.data(ocean.fold), "train", self.data("ocean"), split)

        words = [*self._cut(self.benchmark.cut), "--shares", "1,0,0", *whole]
        self._prepare("ocean", paths, words, check, needs=(f"data/{ocean.fold}",))
        for model in ("demsrnet", "edsr"):
            self._evaluate(f"ocean/{model}", "ocean", f"{ocean.fold}/{model}")
        self._symmetries("ocean/demsrnet-symmetries", "ocean", f"{ocean.fold}/demsrnet")
        tuned = {"finetuned": Variant(label="as the recipe", topic="fine-tuning"), **ocean.variants}
        for name, variant in tuned.items():
            run = f"ocean/{name}"
            start = [f"summary.ckpt_path={self.run(f'{ocean.fold}/demsrnet')}", *variant.set]
            before = f"train/{ocean.fold}/demsrnet"
            self._train(run, ocean.config, "ocean", variant.epochs or ocean.epochs, overrides=start, needs=(before,))
            self._evaluate(run, "ocean", run)
        self._symmetries("ocean/finetuned-symmetries", "ocean", "ocean/finetuned")

    def _ablations(self, ablations: Ablations) -> None:
        land, fold = self.benchmark.land, ablations.fold
        if land.time_points:
            folder = self.score(f"{fold}/over-time")
            words = self._score_words(f"{fold}/demsrnet", fold, folder, "--over-time", str(land.time_points))
            self._scored(f"{fold}/over-time", fold, f"{fold}/demsrnet", words, folder / "over_time.json")
        if ablations.average_last:
            folder = self.score(f"{fold}/averaged")
            words = self._score_words(f"{fold}/demsrnet", fold, folder, "--average", str(ablations.average_last))
            self._scored(f"{fold}/averaged", fold, f"{fold}/demsrnet", words, folder / "metrics.json")
        if land.variants:
            self._symmetries(f"{fold}/ensemble", fold, f"{fold}/demsrnet", [f"{fold}/{name}" for name in land.variants])
        for name, variant in {"reference": reference(ablations), **ablations.variants}.items():
            data = self.variant_data(fold, variant)
            run = f"ablation/{name}"
            overrides = [*ablations.set, *variant.set, *([f"data.patch_size={variant.patch}"] if variant.patch else [])]
            self._train(run, land.config, data, variant.epochs or ablations.epochs, overrides=overrides)
            self._evaluate(run, fold, run, patches=variant.patch is not None)

    def tiles_data(self, fold: str) -> str:
        """Name of the data of a fold's second stage: regions of ``--land`` alone, as a variant may have them too."""
        return self.variant_data(fold, Variant(label="tiles alone", topic="data", more_land=0))

    def variant_data(self, fold: str, variant: Variant) -> str:
        """Name of the data that a variant trains on, prepared by the first variant that asks for it."""
        name, cut = fold, self.benchmark.cut
        if variant.more_land != 1:
            name += f"-more-{round(100 * variant.more_land)}"
        if variant.patch and variant.stride:
            name += f"-patch-{variant.patch}"
            cut = cut.model_copy(update={"patch": variant.patch, "stride": variant.stride})
        if name != fold and not any(stage.name == f"data/{name}" for stage in self.stages):
            self._data(name, fold, variant.more_land, cut)
        return name

    def _data(self, name: str, fold: str, share: float = 1.0, cut: Cut | None = None) -> None:
        land = self.benchmark.land
        test = land.groups[fold]
        more = [region for region in self.more_land if region not in land.validation]
        paths = [self.land[region] for names in land.groups.values() for region in names]
        paths += [self.more_land[region] for region in (*land.validation, *spread(more, share))]
        words = [*self._cut(cut or self.benchmark.cut), "--shares", "1,0,0", "--mix-cell-sizes"]
        words += [word for region in test for word in ("--test-region", _exactly(region))]
        words += [word for region in land.validation for word in ("--valid-region", _exactly(region))]
        groups = list(land.groups.values())
        check = partial(require_whole, self.data(name), groups, {"test": test, "valid": land.validation})
        self._prepare(name, paths, words, check)

    def _prepare(
        self,
        name: str,
        paths: Sequence[Path],
        words: Sequence[str],
        check: Callable[[], None],
        needs: tuple[str, ...] = (),
    ) -> None:
        command = Command(
            ("earthsr", "prepare", "dem", str(self.data(name)), *map(str, paths), *words),
            begin=("--overwrite",),
            carry_on=("--resume",),
        )
        result = self.data(name) / "test" / "test.h5"
        self.stages.append(Stage(f"data/{name}", (command,), result, needs, tuple(paths), check))

    def _cut(self, cut: Cut) -> list[str]:
        sizes = {"--scale": cut.scale, "--patch": cut.patch, "--stride": cut.stride}
        words = [word for option, value in sizes.items() for word in (option, str(value))]
        return [*words, "--minimum-valid", f"{cut.minimum_valid:g}"]

    def _train(
        self,
        name: str,
        config: str,
        data: str,
        epochs: int,
        *,
        overrides: Sequence[str] = (),
        keep: int | None = None,
        needs: tuple[str, ...] = (),
    ) -> None:
        path = self.source.parent / config
        values = [f"data.root_dir={self.data(data)}", f"optimizer.epochs={self.epochs(epochs)}", *overrides]
        if keep is not None:
            values.append(f"summary.keep_checkpoint_max={keep}")
        settings = [word for value in values for word in ("--set", value)]
        words = ("earthsr", "train", str(path), "--output", str(self.run(name)), *self._backend(), *settings)
        command = Command(words, begin=("--overwrite",), carry_on=("--resume",))
        run = self.run(name)
        needs = (f"data/{data}", *needs)
        check = partial(require_finished, run)
        self.stages.append(Stage(f"train/{name}", (command,), run / "checkpoints" / "latest", needs, (path,), check))

    def _evaluate(self, name: str, data: str, run: str, patches: bool = False) -> None:
        """Score a run; where its patches are of another size than the data's, its weights without its configuration."""
        folder, checkpoint, commands = self.score(name), self.run(run), []
        if patches:
            checkpoint = folder / "weights.safetensors"
            words = ("earthsr", "convert", str(self.run(run)), str(checkpoint), "--overwrite")
            commands.append(Command(words))
        words = ("earthsr", "evaluate", str(checkpoint), "--data", str(self.data(data)), "--output", str(folder))
        commands.append(Command((*words, "--amp-level", self.benchmark.amp_level, *self._backend())))
        needs = (f"train/{run}", f"data/{data}")
        self.stages.append(Stage(f"score/{name}", tuple(commands), folder / "metrics.json", needs))

    def _symmetries(self, name: str, data: str, run: str, others: Sequence[str] = ()) -> None:
        folder = self.score(name)
        options = ["--symmetries", *(["--ensemble", *(str(self.run(other)) for other in others)] if others else [])]
        self._scored(name, data, run, self._score_words(run, data, folder, *options), folder / "metrics.json", others)

    def _score_words(self, run: str, data: str, folder: Path, *options: str) -> tuple[str, ...]:
        words = ("python", str(Path(__file__).parents[1] / "score_dem.py"), str(self.run(run)))
        words += ("--data", str(self.data(data)), "--output", str(folder), *options)
        return (*words, "--amp-level", self.benchmark.amp_level, *self._backend())

    def _scored(
        self, name: str, data: str, run: str, words: tuple[str, ...], result: Path, others: Sequence[str] = ()
    ) -> None:
        needs = (*(f"train/{trained}" for trained in (run, *others)), f"data/{data}")
        self.stages.append(Stage(f"score/{name}", (Command(words),), result, needs))

    def _backend(self) -> tuple[str, ...]:
        return ("--backend", self.benchmark.backend) if self.benchmark.backend else ()

    def _check_names(self) -> None:
        """Every region that is named is there, and every raster of land and ocean is named."""
        land, ocean = self.benchmark.land, self.benchmark.ocean
        grouped = [name for names in land.groups.values() for name in names]
        _require(grouped, self.land, "land.groups", "--land", self.folders.land)
        _require(land.validation, self.more_land, "land.validation", "--more-land", self.folders.more_land)
        left = sorted(set(self.land) - set(grouped))
        if left:
            raise InputError(
                f"{self.land[left[0]]}: is in no group of land.groups; a fold could train on what lies beside it: give "
                "it one"
            )
        both = sorted(set(self.land) & set(self.more_land))
        if both:
            raise InputError(f"region {both[0]} is in --land and in --more-land; every region has one place")
        if ocean is not None:
            named = [*ocean.train, *ocean.valid, *ocean.test]
            _require(named, self.ocean, "ocean.train, valid and test", "--ocean", self.folders.ocean)
            left = sorted(set(self.ocean) - set(named))
            if left:
                raise InputError(
                    f"{self.ocean[left[0]]}: is in none of ocean.train, ocean.valid and ocean.test; name it in one"
                )


def reference(ablations: Ablations) -> Variant:
    """The run that variants are compared with: the land's configuration as it is, as short as they are."""
    return Variant(label="nothing changed", topic="reference", epochs=ablations.epochs)


def require_finished(run: Path) -> None:
    """Check that a run came to its end: one that a signal stopped ends well too, and waits to be carried on.

    Raises
    ------
    InputError
        If it did not.
    """
    newest = RunFolder(run).newest()
    if newest is None or not read_checkpoint(newest).notes["progress"]["finished"]:
        raise InputError(f"{run}: training was stopped before its end; run the benchmark again to carry it on")


def _require(names: Sequence[str], there: dict[str, Path], key: str, option: str, folder: Path) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        known = ", ".join(list(there)[:5])
        raise InputError(
            f"{key} name {missing[0]}, which {option} {folder} does not hold; it has {len(there)} rasters ({known}"
            f"{', …' if len(there) > 5 else ''})"
        )


def _exactly(name: str) -> str:
    """Shell pattern that fits this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def rasters(folder: Path) -> dict[str, Path]:
    """Rasters of a folder by region, which is called as its file.

    Raises
    ------
    InputError
        If the folder is not there or holds none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of rasters")
    rasters = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in RASTERS}
    if not rasters:
        raise InputError(f"{folder}: holds no raster ({', '.join(RASTERS)})")
    return rasters


def spread(names: Sequence[str], share: float) -> list[str]:
    """A share of some names, spread evenly over them."""
    count = round(share * len(names))
    return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]

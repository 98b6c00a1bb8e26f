"""What a benchmark is asked for: one YAML file, checked key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from earthsr.config import Config, load_yaml_config
from earthsr.config.sections import Count, Section, config_error
from earthsr.errors import ConfigError

#: Names of scores that every benchmark has; variants are called otherwise.
RESERVED = ("edsr", "demsrnet", "tiles", "finetuned", "averaged", "ensemble", "over-time")

Names = Annotated[list[str], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Cut(Section):
    """How patches are cut: what ``earthsr prepare dem`` is told."""

    scale: int = Field(5, ge=2, le=10)
    patch: int = Field(32, ge=4, description="coarse cells per patch side")
    stride: Count = 16
    minimum_valid: Share = 0.5


class Tiles(Section):
    """A second stage of every fold: its model carried on with the regions of ``--land`` alone."""

    config: str = Field(description="configuration of fine-tuning, beside this file")
    epochs: Count


class Land(Section):
    """Folds over land: each group of regions is left out in turn."""

    config: str = Field(description="configuration of DEM-SRNet, beside this file")
    baseline: str = Field(description="configuration of EDSR, beside this file")
    groups: dict[str, Names] = Field(min_length=2, description="regions by group; regions that touch belong together")
    validation: Names = Field(description="regions of --more-land for early stopping, the same in every fold")
    epochs: Count
    baseline_epochs: Count
    time_points: int = Field(0, ge=0, description="checkpoints of the long run that are scored: curve of time")
    tiles: Tiles | None = None
    set: list[str] = Field(default_factory=list, description="of the long run and its variants, as for --set")
    variants: dict[str, Variant] = Field(default_factory=dict, description="trained and scored on every fold as well")


class Ocean(Section):
    """Fine-tuning on ocean, from the model of one fold."""

    config: str
    fold: str = Field(description="fold whose model is fine-tuned")
    epochs: Count
    train: Names
    valid: Names
    test: Names
    variants: dict[str, Variant] = Field(default_factory=dict)


class Variant(Section):
    """One run of an ablation: what differs from the configuration of its stage."""

    label: str
    topic: str = Field(description="variants of one topic stand together in table and figure")
    set: list[str] = Field(default_factory=list, description="section.key=value, as for --set")
    epochs: Count | None = None
    more_land: Share = Field(1.0, description="part of the regions of --more-land that it trains on")
    patch: int | None = Field(None, ge=4, description="patches of its own; scored on those of all")
    stride: Count | None = None
    curve: Literal["regions", "depth", "patch"] | None = Field(None, description="curve that it is a point of")


class Ablations(Section):
    """Short runs on one fold, each with one thing changed."""

    fold: str
    epochs: Count
    set: list[str] = Field(default_factory=list, description="of all variants, and of the run they are compared with")
    average_last: int = Field(0, ge=0, description="newest checkpoints of the fold's long run whose mean is scored")
    variants: dict[str, Variant] = Field(default_factory=dict)


class Benchmark(Section):
    """The whole file."""

    backend: str | None = Field(None, description="torch or mindspore; else the only one installed")
    amp_level: Literal["O0", "O1", "O2", "O3"] = "O2"
    cut: Cut = Field(default_factory=Cut)
    land: Land
    ocean: Ocean | None = None
    ablations: Ablations | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        folds = ", ".join(self.land.groups)
        for section in ("ocean", "ablations"):
            part = self[section]
            if part is not None and part.fold not in self.land.groups:
                raise ValueError(f"{section}.fold is {part.fold!r}, expected a group of land.groups: {folds}")
        _once("land.groups", [name for names in self.land.groups.values() for name in names])
        _once("land.validation", self.land.validation)
        if self.ocean is not None:
            _once("ocean.train, valid and test", [*self.ocean.train, *self.ocean.valid, *self.ocean.test])
        for section, variants in (("land", self.land.variants), ("ocean", self.variants)):
            for name, variant in variants.items():
                if variant.patch or variant.stride or variant.curve:
                    raise ValueError(
                        f"{section}.variants.{name} has patch, stride or curve, which are of ablations; take them out"
                    )
                if section == "ocean" and variant.more_land != 1:
                    raise ValueError(f"ocean.variants.{name} has more_land, which is of land; take it out")
                if name in RESERVED:
                    raise ValueError(f"{section}.variants.{name} is the name of a model of the table; take another")
        for name, variant in self.ablations.variants.items() if self.ablations is not None else ():
            if (variant.patch is None) != (variant.stride is None):
                raise ValueError(f"ablations.variants.{name} has one of patch and stride; it needs both, or neither")
        ablations = self.ablations.variants if self.ablations else {}
        for kind in (self.land.groups, self.land.variants, ablations, self.variants):
            for name in kind:
                if not name.replace("-", "").replace("_", "").isalnum():
                    raise ValueError(f"{name!r} names files: take letters, digits, - and _")
        return self

    @property
    def variants(self) -> dict[str, Variant]:
        """Variants of fine-tuning."""
        return self.ocean.variants if self.ocean is not None else {}


Land.model_rebuild()
Ocean.model_rebuild()


def _once(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where} name {', '.join(twice)} twice; every region has one place")


def load_benchmark(path: Path) -> Benchmark:
    """Read and check a benchmark's file.

    Raises
    ------
    ConfigError
        If it is missing, is no YAML, or holds what makes no sense; the message names file and key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; configs/benchmark_dem.yaml is an example") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as land and ocean, found {type(values).__name__}")
    try:
        benchmark = Benchmark.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Benchmark, where="", source=str(path)) from None
    for name, overrides in _configurations(benchmark):
        config = load(path, name, overrides)
        if config.demsrnet.scale != benchmark.cut.scale:
            raise ConfigError(
                f"{path}: cut.scale is {benchmark.cut.scale}, but model.scale of {name} is {config.demsrnet.scale}"
            )
    return benchmark


def load(benchmark: Path, name: str, overrides: list[str] | None = None) -> Config:
    """Read a configuration that a benchmark names, with a variant's changes, so that faults show at once."""
    return load_yaml_config(benchmark.parent / name, overrides or [])


def _configurations(benchmark: Benchmark) -> list[tuple[str, list[str]]]:
    land = benchmark.land
    configurations = [(land.config, land.set), (land.baseline, [])]
    configurations += [(land.config, [*land.set, *variant.set]) for variant in land.variants.values()]
    if land.tiles is not None:
        configurations.append((land.tiles.config, []))
    if benchmark.ablations is not None:
        common = benchmark.ablations.set
        configurations.append((land.config, common))
        configurations += [(land.config, [*common, *variant.set]) for variant in benchmark.ablations.variants.values()]
    if benchmark.ocean is not None:
        configurations.append((benchmark.ocean.config, []))
        configurations += [(benchmark.ocean.config, variant.set) for variant in benchmark.variants.values()]
    return configurations

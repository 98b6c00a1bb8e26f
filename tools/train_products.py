"""Train the models of a referee's table and score them: one budget, whole tiles apart, several seeds.

    python tools/train_products.py configs/benchmark_products.yaml --land DIR --pairs DIR --output DIR --fold validation
    python tools/train_products.py configs/benchmark_products.yaml --land DIR --pairs DIR --output DIR --fold test

Each fold leaves its tiles out, trains every model with every seed on the others, and scores all at once with
tools/benchmark_products.py, beside interpolations and the linear filter. Choices are made on ``validation``; ``test``
is for models whose recipe is fixed, and ``scorings.jsonl`` says how often it was looked at. Every step is a command
that could be typed, and is printed; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import h5py
import yaml
from pydantic import Field, ValidationError

from earthsr.config import load_yaml_config
from earthsr.config.sections import Count, Section, config_error
from earthsr.errors import ConfigError, EarthsrError, InputError
from earthsr.store import write_json

TOOLS = Path(__file__).resolve().parent
FoldName = Literal["validation", "test"]


class Fold(Section):
    """Tiles that are left out, and what is scored on them."""

    unseen: list[str] = Field(min_length=1, description="tiles left out, neighbours together")
    tests: dict[str, str] = Field(default_factory=dict, description="tile by name of its terrain")
    pairs: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default_factory=dict, description="product and tile by name"
    )


class Rival(Section):
    """A model of the table: what differs from the common configuration."""

    set: list[str] = Field(default_factory=list, description="section.key=value, as for --set")
    steps: Count | None = None
    tiles: list[str] | None = Field(None, description="tiles to learn from; else all that are not left out")


class Protocol(Section):
    """The whole file."""

    config: str = Field(description="configuration that all models start from, beside this file")
    steps: Count = Field(description="of training, of every model that names none")
    stride: Count = 40
    watched: str = Field(description="tile whose validation loss is printed; in no training")
    folds: dict[FoldName, Fold]
    models: dict[str, Rival]
    seeds: dict[FoldName, dict[str, Annotated[list[int], Field(min_length=1)]]]
    degradations: list[str] = Field(min_length=1, description="what the coarse cells of tests are made by")


def load_protocol(path: Path) -> Protocol:
    """Read and check a protocol.

    Raises
    ------
    ConfigError
        If it is missing, no YAML, or names a model, a fold or a key that is not there.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; configs/benchmark_products.yaml is an example") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    try:
        protocol = Protocol.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Protocol, where="", source=str(path)) from None
    for fold, seeds in protocol.seeds.items():
        for name in seeds:
            if name not in protocol.models:
                raise ConfigError(f"{path}: seeds.{fold} names {name!r}, expected one of {', '.join(protocol.models)}")
    for fold_name, fold in protocol.folds.items():
        scored = {*fold.tests.values(), *(tile for _, tile in fold.pairs.values())}
        if learnt := sorted(scored - set(fold.unseen)):
            raise ConfigError(f"{path}: folds.{fold_name} scores {', '.join(learnt)}, which are not in its unseen")
    for name, model in protocol.models.items():
        load_yaml_config(path.parent / protocol.config, model.set)
        if protocol.watched in (model.tiles or ()):
            raise ConfigError(f"{path}: models.{name}.tiles has {protocol.watched}, which is watched; take another")
    return protocol


def call(*words: str | Path) -> None:
    """Run a command and show it."""
    spelled = [str(word) for word in words]
    print(f"$ {shlex.join(['python', *spelled])}", flush=True)
    if subprocess.run([sys.executable, *spelled], check=False).returncode:
        raise InputError(f"{' '.join(spelled[:3])} failed; see above")


def tiles_by_name(folder: Path) -> dict[str, Path]:
    tiles = {path.stem: path for path in sorted(folder.glob("*.tif"))}
    if not tiles:
        raise InputError(f"{folder}: holds no .tif, expected SRTM tiles or products")
    return tiles


def tile(tiles: dict[str, Path], name: str) -> Path:
    if name not in tiles:
        raise InputError(f"{name}.tif is not in the folder that was given; it holds {', '.join(tiles)}")
    return tiles[name]


def data_of(protocol: Protocol, names: list[str], tiles: dict[str, Path], folder: Path) -> Path:
    """Prepare patches of some tiles, and of the watched one for validation."""
    if not (folder / "train" / "train.h5").is_file():
        sources = [tile(tiles, name) for name in [*names, protocol.watched]]
        cut = ("--patch", "48", "--stride", str(protocol.stride), "--shares", "1,0,0", "--units", "m", "--resume")
        call("-m", "earthsr", "prepare", "dem", folder, *sources, *cut, "--valid-region", protocol.watched)
    return folder


def train(protocol: Protocol, config: Path, model: Rival, data: Path, run: Path, seed: int, backend: str) -> None:
    """Train one model with one seed, or carry it on; its time is kept beside it."""
    record = run.with_suffix(".json")
    if record.is_file():
        return
    values = load_yaml_config(config, model.set)
    with h5py.File(data / "train" / "train.h5") as file:
        patches = file["origin"].shape[0]
    per_epoch = math.ceil(patches / values.data.batch_size)
    epochs = max(1, round((model.steps or protocol.steps) / per_epoch))
    own = [f"data.root_dir={data}", f"optimizer.epochs={epochs}", f"train.seed={seed}", *model.set]
    # The last weights are the model: nothing is chosen among checkpoints.
    own += [f"summary.valid_frequency={epochs}", "summary.save_checkpoint_epochs=10", "summary.keep_checkpoint_max=2"]
    sets = [word for setting in own for word in ("--set", setting)]
    begun = time.perf_counter()
    more = ["--resume"] if run.exists() else []
    call("-m", "earthsr", "train", config, *sets, "--output", run, "--backend", backend, *more)
    write_json(
        record, {"seconds": time.perf_counter() - begun, "steps": epochs * per_epoch, "patches": patches, "seed": seed}
    )


def run_fold(protocol: Protocol, path: Path, options: argparse.Namespace) -> None:
    """Train and score what a fold asks for."""
    land, products = tiles_by_name(options.land), tiles_by_name(options.pairs)
    fold, seeds = protocol.folds[options.fold], protocol.seeds[options.fold]
    output: Path = options.output / options.fold
    config = path.parent / protocol.config
    learnt = [name for name in land if name not in {*fold.unseen, protocol.watched}]
    rounds = sorted({(place, seed, name) for name, own in seeds.items() for place, seed in enumerate(own)})
    for _, seed, name in sorted(rounds, key=lambda entry: (entry[0], list(seeds).index(entry[2]))):
        model = protocol.models[name]
        if unseen := sorted(set(model.tiles or ()) & set(fold.unseen)):
            raise InputError(f"{path}: models.{name}.tiles has {', '.join(unseen)}, left out by folds.{options.fold}")
        data = options.output / "data" / (f"{options.fold}-{name}" if model.tiles else options.fold)
        data_of(protocol, model.tiles or learnt, land, data)
        train(protocol, config, model, data, output / f"{name}-{seed}", seed, options.backend)
    names = [f"{name}-{seed}" for name, own in seeds.items() for seed in own]
    times = {name: json.loads((output / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    write_json(output / "training.json", times)
    models = [f"{name}=" + ",".join(str(output / f"{name}-{seed}") for seed in own) for name, own in seeds.items()]
    tests = [f"{name}={tile(land, source)}" for name, source in fold.tests.items()]
    pairs = [f"{name}={tile(products, lr)},{tile(land, hr)}" for name, (lr, hr) in fold.pairs.items()]
    call(
        *(TOOLS / "benchmark_products.py", "--output", output / "scores", "--backend", options.backend),
        *("--fit", *(tile(land, name) for name in learnt), *(("--test", *tests) if tests else ())),
        *(word for degradation in protocol.degradations for word in ("--degradation", degradation)),
        *(("--pair", *pairs, "--pair-degradation", "bell:1.77x2.67") if pairs else ()),
        *("--symmetries", "--model", *models),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", type=Path)
    parser.add_argument("--land", type=Path, required=True, help="folder of SRTM tiles (*.tif)")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of coarse products (*.tif)")
    parser.add_argument("--output", type=Path, default=Path("runs/products"))
    parser.add_argument("--fold", choices=("validation", "test"), required=True)
    parser.add_argument("--backend", default="torch")
    options = parser.parse_args()
    try:
        run_fold(load_protocol(options.protocol), options.protocol, options)
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

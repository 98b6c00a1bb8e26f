"""Score of a DEM model what `earthsr evaluate` does not: self-ensembling, averaged weights, the course of training.

    python tools/score_dem.py CHECKPOINT --data DIR --output DIR --symmetries [--ensemble CHECKPOINT…]
    python tools/score_dem.py RUN --data DIR --output DIR --average 5
    python tools/score_dem.py RUN --data DIR --output DIR --over-time 6

Writes `metrics.json` as `earthsr evaluate` does (without figures), or `over_time.json`: a list of such scores with the
epoch of each checkpoint. `--average N` also writes `weights.safetensors`, the mean of the run's N newest checkpoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthsr.api import config_of
from earthsr.backend import Model, Pending, choose_backend
from earthsr.config import Config
from earthsr.data.dataset import Dataset
from earthsr.dem.predict.ensemble import ensemble
from earthsr.errors import EarthsrError, InputError
from earthsr.models import Precision, RunFolder, average_weights, read_checkpoint, write_weights
from earthsr.store import make_folder, write_json
from earthsr.tasks import task_for


class Mean:
    """Predicts the mean of what models make of a raster turned by each of the eight symmetries."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.model = models[0]
        self.members = ensemble(models, symmetries=True)

    def submit(self, coarse: np.ndarray, pad_to: int | None = None) -> Pending:
        """Start a prediction, metres; patches are normalised as in training."""
        started = [member.start(coarse, None, pad_to or len(coarse)) for member in self.members]
        return Pending(
            lambda: np.mean([prediction.result() for prediction in started], axis=0, dtype=np.float64).astype(
                np.float32
            )
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def scores(model: Any, config: Config, split: str) -> dict[str, Any]:
    """The contents of ``metrics.json``."""
    task = task_for(config)
    dataset = Dataset(task.data(split), num_workers=config.data.num_workers, shuffle=False)
    return task.score(model, dataset.create_dataset(config.data.batch_size)).to_dict()


def newest(run: RunFolder, count: int) -> list[Path]:
    """Newest checkpoints of a run, the oldest first."""
    steps = run.steps()
    if len(steps) < 1:
        raise InputError(f"{run.path}: holds no checkpoint; train first")
    return [run.folder(step) for step in steps[-count:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--symmetries", action="store_true", help="mean over the eight symmetries of the square")
    what.add_argument("--average", type=int, metavar="N", help="mean of the weights of the N newest checkpoints")
    what.add_argument("--over-time", type=int, metavar="N", help="N of the run's checkpoints, spread over its epochs")
    parser.add_argument(
        "--ensemble", type=Path, nargs="+", default=[], metavar="CHECKPOINT", help="with --symmetries: further models"
    )
    parser.add_argument("--amp-level", default="O0", choices=("O0", "O1", "O2", "O3"))
    parser.add_argument("--backend")
    options = parser.parse_args()
    try:
        work(options)
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def work(options: argparse.Namespace) -> None:
    if options.ensemble and not options.symmetries:
        raise InputError("--ensemble adds models to --symmetries; give both")
    config = config_of(options.checkpoint, options.data)
    backend = choose_backend(options.backend, config.backend)
    precision = Precision(options.amp_level)

    def opened(path: Path) -> Model:
        return Model.from_checkpoint(path, backend=backend, precision=precision)

    make_folder(options.output)
    if options.over_time:
        run = RunFolder(options.checkpoint)
        folders = newest(run, len(run.steps()))
        picked = sorted({round(i) for i in np.linspace(0, len(folders) - 1, options.over_time)})
        points = []
        for folder in (folders[i] for i in picked):
            progress = read_checkpoint(folder).notes["progress"]
            points.append(
                {"epoch": progress["epoch"], "step": progress["step"], **scores(opened(folder), config, options.split)}
            )
        path = write_json(options.output / "over_time.json", points)
    elif options.average:
        folders = newest(RunFolder(options.checkpoint), options.average)
        mean = average_weights(folders)
        weights = options.output / "weights.safetensors"
        write_weights(weights, mean.spec, mean.weights, mean.metadata)
        values = {**scores(opened(weights), config, options.split), "averaged": [folder.name for folder in folders]}
        path = write_json(options.output / "metrics.json", values)
    else:
        mean = Mean([opened(path) for path in (options.checkpoint, *options.ensemble)])
        path = write_json(options.output / "metrics.json", scores(mean, config, options.split))
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())

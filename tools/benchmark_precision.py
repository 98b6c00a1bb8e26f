"""Training steps per second in float32 and with AMP, side by side in one run.

    python tools/benchmark_precision.py [CONFIG] [--rounds 5] [--steps 10] [--set section.key=value …]

Levels take turns within each round, so that a machine that is busy for a while slows all of them; the table gives the
median over rounds and its ratio to float32 (O0). Batches are random and made beforehand: this times the engine alone.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from earthsr.backend import choose_backend
from earthsr.config import load_yaml_config
from earthsr.data.batch import Batch
from earthsr.models import OptimizerSpec, Precision, initial_weights
from earthsr.tasks import task_for


def random_batch(spec, patch: int, size: int) -> Batch:
    rng = np.random.default_rng(0)
    fine = patch * spec.scale
    return Batch(
        inputs={"elevation": rng.normal(size=(size, spec.in_channels, patch, patch)).astype(np.float32)},
        target=rng.normal(size=(size, spec.out_channels, fine, fine)).astype(np.float32),
        mask=np.ones((size, 1, fine, fine), np.uint8),
        sample_weight=np.ones(size, np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/dem_srnet_demo.yaml")
    parser.add_argument("--backend")
    parser.add_argument("--levels", nargs="+", default=["O0", "O1", "O2", "O3"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    config = load_yaml_config(arguments.config, arguments.overrides)
    task = task_for(config)
    spec, size = task.spec(), config.data.batch_size
    backend = choose_backend(arguments.backend, config.backend)
    batch = random_batch(spec, config.data.patch_size, size)
    weights = initial_weights(spec, 0)
    engines = {}
    for level in arguments.levels:
        engines[level] = backend.engine(spec, weights, precision=Precision(level))
        engines[level].prepare_training(task.objective(), OptimizerSpec(clip_norm=1.0))
        engines[level].run([batch] * 2, [1e-4] * 2).result()
    times: dict[str, list[float]] = {level: [] for level in engines}
    for _ in range(arguments.rounds):
        for level, engine in engines.items():
            start = time.perf_counter()
            engine.run([batch] * arguments.steps, [1e-4] * arguments.steps).result()
            times[level].append(arguments.steps / (time.perf_counter() - start))
    first = statistics.median(times[arguments.levels[0]])
    print(
        f"{backend.name} {backend.version()}, {spec.parameter_count:,} parameters, "
        f"batch {size} of {config.data.patch_size} x {config.data.patch_size}"
    )
    print(f"{'level':<7}{'steps/s':>9}{'samples/s':>11}{'to ' + arguments.levels[0]:>8}  computes in")
    for level, rates in times.items():
        rate = statistics.median(rates)
        print(f"{level:<7}{rate:>9.2f}{rate * size:>11.1f}{rate / first:>7.2f}x  {engines[level].precision}")


if __name__ == "__main__":
    main()

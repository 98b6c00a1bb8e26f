"""Weak scaling: how fast processes train together, beside as many that do not know of each other, and beside one alone.

    torchrun --nproc-per-node 2 tools/benchmark_scaling.py CONFIG [--steps 4] [--rounds 8] [--set section.key=value …]
    msrun --worker_num 2 --local_worker_num 2 --join True tools/benchmark_scaling.py CONFIG --backend mindspore

Each process has two engines of the same network: one of a group, one by itself. In every round the first process steps
alone while the others wait, then all step side by side without a word, then together; so that what slows the machine
slows all three. ``data.batch_size`` is that of one process. Batches are made. On one machine, give each process its
share of the cores (OMP_NUM_THREADS), and run nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from earthsr.backend import TrainingEngine, choose_backend
from earthsr.config import Config, load_yaml_config
from earthsr.data.batch import Batch
from earthsr.models import OptimizerSpec, Precision, initial_weights
from earthsr.ranks import ALONE, launched_rank
from earthsr.tasks import task_for


def seconds(engine: TrainingEngine, batches: list[Batch]) -> float:
    """Time of a step."""
    began = time.perf_counter()
    engine.run(batches, [1e-4] * len(batches)).result()
    return (time.perf_counter() - began) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--backend")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pin", action="store_true", help="give each process of this machine a core of its own")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    if options.pin:
        number = (launched_rank() or ALONE).number
        os.sched_setaffinity(0, {number % (os.cpu_count() or 1)})
    config = load_yaml_config(options.config, options.overrides)
    task, rank = task_for(config), launched_rank() or ALONE
    spec, backend = task.spec(), choose_backend(options.backend, config.backend)
    # Made batches are of the size that the configuration says, here of one process.
    batch = task.synthetic_batches(1).batches[0]
    weights, precision = initial_weights(spec, 0), Precision(config.train.amp_level, config.train.amp_dtype)
    device = config.train.device
    engines = {
        name: backend.engine(spec, weights, device=device, precision=precision, distribute=name == "together")
        for name in ("together", "beside")
    }
    for engine in engines.values():
        engine.prepare_training(task.objective(), optimizer_of(config))
        seconds(engine, [batch] * 2)
    group = engines["together"]

    def all_wait() -> None:
        group.gather(np.zeros(1))

    rows: dict[str, list[float]] = {"alone": [], "beside": [], "together": []}
    for _ in range(options.rounds):
        for kind in rows:
            all_wait()
            engine = group if kind == "together" else engines["beside"]
            own = 0.0
            if kind != "alone" or rank.number == 0:
                own = seconds(engine, [batch] * options.steps)
            all_wait()
            everyone = group.gather(np.array([own])).ravel()
            rows[kind].append(float(everyone[everyone > 0].mean()))
    message = message_seconds(spec.parameter_count, backend.name) if rank.of > 1 else None
    if rank.number == 0:
        report(rows, spec, batch, rank.of, group, message, options.json)


def optimizer_of(config: Config) -> OptimizerSpec:
    o = config.optimizer
    return OptimizerSpec(name=o.name, weight_decay=o.weight_decay, clip_norm=o.clip_norm)


def message_seconds(values: int, backend: str) -> float | None:
    """Time of adding so many numbers up over the ranks with nothing else to do; for PyTorch alone."""
    if backend != "torch":
        return None
    import torch
    import torch.distributed as dist

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    message, times = torch.ones(values, device=device), []
    for _ in range(6):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(message)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def report(
    rows: dict[str, list[float]],
    spec: Any,
    batch: Batch,
    ranks: int,
    group: TrainingEngine,
    message: float | None,
    path: Path | None,
) -> None:
    def ratio(over: str) -> list[float]:
        return [a / b for a, b in zip(rows[over], rows["together"], strict=True)]

    samples = len(batch.sample_weight)
    measures = {
        "ranks": ranks,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "precision": group.precision,
        "parameters": spec.parameter_count,
        "samples_per_rank": samples,
        "bytes_all_reduced": 4 * spec.parameter_count,
        "all_reduce_alone_s": message,
        "step_s": {kind: statistics.median(times) for kind, times in rows.items()},
        "samples_per_s": {
            kind: (1 if kind == "alone" else ranks) * samples / statistics.median(times) for kind, times in rows.items()
        },
        "efficiency_beside": statistics.median(ratio("beside")),
        "efficiency_alone": statistics.median(ratio("alone")),
        "efficiency_beside_rounds": ratio("beside"),
        "efficiency_alone_rounds": ratio("alone"),
    }
    print(
        f"{ranks} ranks of {measures['threads']} threads, {samples} samples each, {spec.parameter_count:,} parameters, "
        f"{measures['bytes_all_reduced'] / 2**20:.1f} MiB all-reduced a step, {group.precision}"
    )
    for kind, words in (("alone", "1 rank alone"), ("beside", "side by side"), ("together", "together")):
        step, rate = 1000 * measures["step_s"][kind], measures["samples_per_s"][kind]
        print(f"{words:<14} {step:>9.1f} ms a step {rate:>9.2f} samples/s")
    if message is not None:
        print(f"{'all-reduce':<14} {1000 * message:>9.1f} ms with nothing else to do")
    for over, words in (("beside", "independent processes side by side"), ("alone", "1 rank alone")):
        ratios = ratio(over)
        print(
            f"efficiency {100 * statistics.median(ratios):.1f} % of {words} "
            f"({100 * min(ratios):.1f} to {100 * max(ratios):.1f} over {len(ratios)} rounds)"
        )
    if path is not None:
        path.write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How fast a configuration trains here, where the time of a step goes, and how near that is to the machine's limit.

Everything is measured through the engine that training uses, and in the same process as the peaks that it is
compared with. Nothing is written but the file that is asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import platform
import resource
import statistics
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import earthsr
from earthsr.backend import Backend, TrainingEngine, choose_backend
from earthsr.check.bench_result import BenchResult, Loader, Plain, Rates, text_table
from earthsr.config import Config
from earthsr.data.batch import Batch
from earthsr.errors import DataError, InputError
from earthsr.models import NetworkSpec, Objective, Precision, initial_weights
from earthsr.tasks import Task, task_for
from earthsr.training.loop import learning_rate, optimizer_spec

__all__ = ["BenchResult", "Loader", "Plain", "Rates", "run_bench", "text_table"]


_logger = logging.getLogger("earthsr")

#: Steps of which the phases are told apart, after one that is not counted.
PHASE_STEPS = 5
#: The bare convolution: its channels, and its cells over all samples at most (64 samples of 32 x 32).
CHANNELS, CELLS = 256, 65536
#: The plain setting may be ten times as slow: this share of the steps does.
PLAIN_SHARE = 0.25
#: The loader alone is read for so long at most, and for so long at least where an epoch is shorter.
LOADER_S, SHORTEST_S = 2.0, 0.2
#: Made batches that are gone through over and over: enough that none is still in a cache of the processor.
MADE = 8


@dataclass(frozen=True)
class Made:
    """Synthetic batches, which cost nothing to load."""

    batches: list[Batch]
    objective: Objective
    words: str

    def stream(self) -> Generator[Batch, None, None]:
        """Batches without end."""
        yield from itertools.cycle(self.batches)


@dataclass(frozen=True)
class Loaded:
    """The training split, read and prepared as in training."""

    dataset: Any
    normalisation: Any
    objective: Objective
    words: str

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of one epoch."""
        batches: Iterator[Batch] = self.dataset.training_batches(number, self.normalisation)
        return batches

    def stream(self) -> Generator[Batch, None, None]:
        """Batches without end, epoch after epoch."""
        for number in itertools.count():
            yield from self.epoch(number)


def source_of(config: Config, task: Task, synthetic: bool) -> Made | Loaded:
    """Take the training split where ``data.root_dir`` is there, else made batches.

    Raises
    ------
    InputError
        If the data do not fit the configuration.
    """
    present = Path(config.data.root_dir).is_dir()
    if synthetic or not present:
        if not synthetic:
            _logger.info(f"data.root_dir {config.data.root_dir} is not here: made batches are used")
        synthetic_set = task.synthetic_batches(MADE)
        return Made(synthetic_set.batches, task.synthetic_objective(), synthetic_set.source)
    try:
        dataset = task.dataset("train")
        words = f"{dataset.source} ({len(dataset)} samples)"
        return Loaded(dataset, task.normalisation(dataset), task.objective(), words)
    except DataError as error:
        raise InputError(f"{error}; or use --synthetic") from None


def time_steps(
    engine: TrainingEngine, stream: Iterator[Batch], rates: Sequence[float], accumulate: int, group: int
) -> tuple[float, float]:
    """Make steps as training does, and read losses once per group of them.

    Parameters
    ----------
    engine : TrainingEngine
        Prepared for training.
    stream : iterator of Batch
        At least ``len(rates) * accumulate`` batches.
    rates : sequence of float
        Learning rate of each step.
    accumulate : int
        Batches per step.
    group : int
        Steps between two reads. A device that computes beside the host is waited for there alone, as in training.

    Returns
    -------
    tuple of float
        Median over groups of the seconds of a step, and mean seconds that a step waited for its batches.
    """
    seconds: list[float] = []
    waited = 0.0
    for start in range(0, len(rates), group):
        end = min(start + group, len(rates))
        begun = time.perf_counter()
        pending = []
        for place in range(start, end, engine.steps_per_call):
            some = rates[place : min(place + engine.steps_per_call, end)]
            before = time.perf_counter()
            batches = [next(stream) for _ in range(len(some) * accumulate)]
            waited += time.perf_counter() - before
            pending.append(engine.run(batches, some))
        for values in pending:
            values.result()
        seconds.append((time.perf_counter() - begun) / (end - start))
    return statistics.median(seconds), waited / len(rates)


def time_loader(source: Loaded) -> Loader:
    """Read and prepare batches with nobody who computes: whole epochs, or as many batches as go into two seconds."""
    samples = 0
    begun = time.perf_counter()
    for epoch in range(sys.maxsize):
        for batch in source.epoch(epoch):
            samples += batch.size
            if time.perf_counter() - begun >= LOADER_S:
                break
        if time.perf_counter() - begun >= SHORTEST_S:
            break
    return Loader(samples, samples / (time.perf_counter() - begun), source.dataset.num_workers)


def peak_memory_mib() -> float:
    """Largest resident memory of this process since it began, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB on Linux, bytes on macOS.
    return largest / (2**20 if platform.system() == "Darwin" else 1024)


def run_bench(
    config: Config,
    backend: str | Backend | None = None,
    device: str | None = None,
    steps: int = 20,
    warmup: int = 3,
    synthetic: bool = False,
    compare_plain: bool = False,
) -> BenchResult:
    """Measure how fast a configuration trains here, and compare it with what the machine can do.

    One process on one device, whatever ``train.distribute`` says. Steps are made as training makes them, from initial
    weights; nothing is written.

    Parameters
    ----------
    config : Config
        Model, optimiser, precision, batch size; the training split where ``data.root_dir`` is there.
    backend : str or Backend, optional
        Goes before the config's.
    device : str, optional
        Goes before the config's.
    steps : int
        Steps that are timed.
    warmup : int
        Steps before them, after the first one, that are not.
    synthetic : bool
        Made batches, even where there are data; the loader is then not measured.
    compare_plain : bool
        Time some steps in the framework's plain setting too: float32, default memory layout.

    Returns
    -------
    BenchResult
        Rates, phases, peaks, loader and memory.

    Raises
    ------
    InputError
        If a number of steps is out of range, or data and configuration do not fit.
    BackendError
        If the backend or device is not there.
    """
    for name, value, least in (("steps", steps, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name} is {value}, expected {least} or more")
    config.check()
    chosen = choose_backend(backend, config.backend)
    task = task_for(config)
    spec: NetworkSpec = task.spec()
    source = source_of(config, task, synthetic)
    precision = Precision(config.train.amp_level, config.train.amp_dtype)
    place = f"{device or config.train.device}:{config.train.device_id}"

    def engine(precision: Precision) -> TrainingEngine:
        weights = initial_weights(spec, config.train.seed)
        return chosen.training_engine(spec, weights, device=place, precision=precision, graph=config.train.graph)

    measured = engine(precision)
    meter = chosen.meter(measured)
    _logger.info(
        f"{chosen.name} ({measured.device}, {measured.precision}): {spec.parameter_count:,} parameters, {steps} steps "
        f"of {_samples(config)} samples; {source.words}"
    )
    rates = _rates(config, measured, source, steps, warmup)
    # What follows would add to it.
    memory, used = peak_memory_mib(), meter.resources()
    _logger.info("phases of a step")
    accumulate = config.optimizer.accumulate
    with contextlib.closing(source.stream()) as stream:
        batches = list(islice(stream, (1 + PHASE_STEPS) * accumulate))
    phases = meter.time_phases(batches, _schedule(config, 1 + PHASE_STEPS))
    _logger.info("a matrix product and a bare convolution")
    peaks = meter.measure_peaks(*_bare_shape(config, spec), channels=CHANNELS)
    loader = time_loader(source) if isinstance(source, Loaded) else None
    about = {
        "model": spec.kind,
        "parameters": spec.parameter_count,
        "spec": spec.to_dict(),
        "patch_size": config.data.patch_size,
        "batch_size": config.data.batch_size,
        "accumulate": accumulate,
        "flop_per_sample_forward": spec.flops(config.data.patch_size, config.data.patch_size),
        "backend": chosen.name,
        "backend_version": chosen.version(),
        "earthsr_version": earthsr.__version__,
        "platform": platform.platform(),
        "device": measured.device,
        "device_model": used.device,
        "threads": used.threads,
        "precision": measured.precision,
        "amp_level": config.train.amp_level,
        "recompute": config.train.recompute,
        "warmup_steps": warmup,
    }
    del meter, measured
    plain = None
    if compare_plain:
        other = engine(Precision("O0"))
        layout = chosen.meter(other).use_plain_layout()
        _logger.info(f"the plain setting: {other.precision}, {layout}")
        few = max(min(steps, 3), round(steps * PLAIN_SHARE))
        plain = Plain(other.precision, layout, _rates(config, other, source, few, min(warmup, 1)))
    return BenchResult(
        about=about,
        inputs=source.words,
        rates=rates,
        phases=phases,
        peaks=peaks,
        loader=loader,
        peak_memory_mib=memory,
        peak_device_memory_mib=used.peak_device_memory_mib,
        plain=plain,
    )


def _samples(config: Config) -> int:
    return config.data.batch_size * config.optimizer.accumulate


def _schedule(config: Config, steps: int) -> list[float]:
    return [learning_rate(config.optimizer, config.learning_rate, step, steps, steps) for step in range(steps)]


def _rates(config: Config, engine: TrainingEngine, source: Made | Loaded, steps: int, warmup: int) -> Rates:
    """Prepare an engine for training and time its steps."""
    o, spec = config.optimizer, engine.spec
    engine.prepare_training(source.objective, optimizer_spec(config, spec), o.accumulate, config.train.recompute)
    schedule = _schedule(config, 1 + warmup + steps)
    # The host waits for itself anyway; a device of its own is read as rarely as in training.
    group = engine.steps_per_call if engine.device == "cpu" else max(config.summary.log_every, engine.steps_per_call)
    with contextlib.closing(source.stream()) as stream:
        first = list(islice(stream, o.accumulate))
        begun = time.perf_counter()
        engine.run(first, schedule[:1]).result()
        first_step_s = time.perf_counter() - begun
        if warmup:
            time_steps(engine, stream, schedule[1 : 1 + warmup], o.accumulate, group)
        step_s, waiting_s = time_steps(engine, stream, schedule[1 + warmup :], o.accumulate, group)
    samples, cells = _samples(config), config.data.patch_size
    return Rates(
        steps=steps,
        step_s=step_s,
        samples_per_step=samples,
        flop_per_step=3.0 * spec.flops(cells, cells) * samples,
        first_step_s=first_step_s,
        waiting_s=waiting_s,
    )


def _bare_shape(config: Config, spec: NetworkSpec) -> tuple[int, int, int]:
    """Samples, rows and columns of the bare convolution: those of the network's layers of about as many channels.

    DEM-SRNet has them on the coarse cells; a U-Net on the level where its features have become that many.
    """
    size = config.data.patch_size
    size = spec.cells_of_width(CHANNELS, size)
    return min(config.data.batch_size, max(1, CELLS // size**2)), size, size

"""Evidence that two backends compute the same thing: measured, compared, written down.

A record holds what one backend computes for one model on one set of inputs: outputs of all layers, the loss, all
gradients, Adam's moments after one and after n steps, the course of the loss, a predicted raster and its scores.
Records are compared with each other: of two backends in one process, or of two machines that never meet.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from earthsr.backend import Backend, WeightsBackend, choose_backend, training_backends
from earthsr.check.parity_compare import Comparison, Row, compare, require_same_inputs, require_same_setup, write_report
from earthsr.check.parity_record import Record, describe_setup, input_arrays, measure, read_record, write_record
from earthsr.config import Config
from earthsr.errors import BackendError, DataError, InputError
from earthsr.models import initial_weights, read_weights, require_same_spec, resolve_checkpoint
from earthsr.tasks import Task, task_for
from earthsr.tasks.batches import ParityBatches
from earthsr.training.loop import learning_rate, optimizer_spec

__all__ = [
    "Comparison",
    "ParityRun",
    "Record",
    "Row",
    "compare",
    "measure",
    "read_record",
    "run_parity",
    "write_record",
    "write_report",
]


_logger = logging.getLogger("earthsr")


@dataclass(frozen=True)
class ParityRun:
    """What was recorded here, and what it was compared with."""

    recorded: tuple[Record, ...]
    comparison: Comparison | None
    """None where a record was written and nothing compared."""
    files: dict[str, Path] = field(default_factory=dict)
    """Report, figure and record, by what they are."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        values = self.comparison.to_dict() if self.comparison else {"about": [r.about for r in self.recorded]}
        return {**values, "files": {kind: str(path) for kind, path in self.files.items()}}


def _backends(
    backends: tuple[str, str] | None, backend: str | None, config: Config, record: Path | None, against: Path | None
) -> list[WeightsBackend]:
    alone = record is not None or against is not None
    if alone:
        if backends is not None:
            raise InputError("--record and --against measure one backend: name it with --backend, not --backends")
        return [choose_backend(backend, config.backend)]
    if backend is not None:
        raise InputError(
            "parity compares two backends (--backends A B), or one of them with a record (--backend A --against FILE)"
        )
    if backends is None:
        installed = training_backends(installed=True)
        if len(installed) < 2:
            raise BackendError(
                f"parity compares two backends, here is {', '.join(installed) or 'none'}; install the other one, or "
                "record on another machine with --record FILE and compare here with --against FILE"
            )
        if len(installed) > 2:
            raise BackendError(f"{', '.join(installed)} are installed; choose two with --backends A B")
        backends = (installed[0], installed[1])
    if backends[0] == backends[1]:
        raise InputError(f"--backends names {backends[0]} twice; expected two different ones")
    return [choose_backend(name) for name in backends]


def _inputs(task: Task, count: int, synthetic: bool) -> ParityBatches:
    if not synthetic and Path(task.config.data.root_dir).is_dir():
        return task.read_batches(count)
    if not synthetic:
        _logger.info(f"data.root_dir {task.config.data.root_dir} is not here: synthetic inputs are used")
    return task.synthetic_batches(count)


def run_parity(
    config: Config,
    *,
    backends: tuple[str, str] | None = None,
    backend: str | None = None,
    device: str | None = None,
    record: Path | None = None,
    against: Path | None = None,
    steps: int = 20,
    synthetic: bool = False,
    noise: bool = True,
    output: Path | None = None,
) -> ParityRun:
    """Compare two backends, or one with a record, on the model and optimiser of a configuration.

    Parameters
    ----------
    config : Config
        Model, optimiser, schedule, batch size, seed; ``train.load_ckpt`` starts from its checkpoint.
    backends : tuple of str, optional
        The two to compare.
    backend : str, optional
        The one to measure, with ``record`` or ``against``.
    device : str, optional
        Of both where they have it; a backend that has not takes ``auto``.
    record, against : Path, optional
        Write a record; compare with one.
    steps : int
        Steps of training.
    synthetic : bool
        Made inputs, even where there are data.
    noise : bool
        Measure each backend's own noise.
    output : Path, optional
        Folder of the report; beside the run folder where absent.

    Returns
    -------
    ParityRun
        The comparison, where there was one, and the files that were written.

    Raises
    ------
    BackendError
        If a backend is not there.
    InputError
        If options contradict each other, or a record is of another run.
    """
    config.check()
    chosen = _backends(backends, backend, config, record, against)
    earlier = None if against is None else read_record(against)
    task = task_for(config)
    spec = task.spec()
    o = config.optimizer
    optimizer = optimizer_spec(config, spec)
    rates = [learning_rate(o, config.learning_rate, step, steps, steps) for step in range(steps)]
    try:
        inputs = _inputs(task, steps, synthetic)
        objective = task.synthetic_objective() if inputs.synthetic else task.objective()
    except DataError as error:
        raise InputError(f"{error}; or use --synthetic") from None
    if config.train.load_ckpt:
        file = read_weights(resolve_checkpoint(config.summary.ckpt_path or ""))
        require_same_spec(file.spec, spec, str(file.path))
        weights = file.weights
    else:
        weights = initial_weights(spec, config.train.seed, keep_zeros=False)
    _logger.info(
        f"{spec.parameter_count:,} parameters, {steps} steps of {config.data.batch_size} samples; {inputs.source}"
    )
    if earlier is not None:
        require_same_setup(describe_setup(spec, inputs, objective, optimizer, rates), earlier.about)
        require_same_inputs(input_arrays(weights, inputs), earlier.arrays.get("inputs", {}))
    recorded = []
    for measured in chosen:
        recorded.append(
            measure(
                measured,
                spec,
                weights,
                inputs,
                objective,
                optimizer,
                rates,
                device=_device(measured, device or config.train.device),
                noise=noise,
                say=partial(_say, measured.name),
            )
        )
    files = {}
    if record is not None:
        files["record"] = write_record(record, recorded[0])
    others = [earlier] if earlier is not None else recorded[1:]
    comparison = compare(recorded[0], others[0]) if others else None
    if comparison is not None:
        folder = output or Path(f"{config.summary.summary_dir.rstrip('/')}-parity")
        files |= write_report(comparison, folder)
    return ParityRun(tuple(recorded), comparison, files)


def _say(name: str, words: str) -> None:
    _logger.info(f"{name}: {words}")


def _device(backend: Backend, wish: str) -> str:
    """Return the device wished for where the backend has it; two backends may not both have an Ascend or a GPU."""
    kind = {"cuda": "gpu"}.get(wish.partition(":")[0], wish.partition(":")[0])
    known = {device.name: device.available for device in backend.describe().devices}
    if kind in known and not known[kind]:
        _logger.warning(f"{backend.name} has no {kind} here: it takes what it has")
        return "auto"
    return wish

"""A record of what one backend computes, measured through the engine interface that training uses, and its file.

The file goes to another machine, where its arrays are compared with those of another backend.
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.backend import TrainingEngine, WeightsBackend
from earthsr.data.batch import Batch, Earlier
from earthsr.errors import CheckpointError, InputError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.weights import Weights, read_tensors, write_tensors
from earthsr.tasks.batches import ParityBatches

SCHEMA_VERSION = 1
KEY = "earthsr_parity"
#: Larger arrays are thinned to about as many evenly spaced values, on both sides alike.
LIMIT = 65536

Arrays = dict[str, dict[str, NDArray[np.floating]]]


def thin(array: NDArray) -> NDArray:
    """Evenly spaced values of an array, all of them where it has no more than :data:`LIMIT`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[:: -(-flat.size // LIMIT)].copy() if flat.size > LIMIT else flat.copy()


@dataclass(frozen=True)
class Record:
    """What one backend computed."""

    about: dict[str, Any]
    """Backend, version, device, machine, spec, optimiser, inputs: JSON-able."""
    arrays: Arrays
    """Thinned arrays by quantity and name; ``inputs`` holds weights and batches, which have to be the same."""
    noise: Arrays = field(default_factory=dict)
    """The same quantities on the other side of the symmetries, where they were measured."""

    @property
    def title(self) -> str:
        """Backend, version and device in one line."""
        return f"{self.about['backend']} {self.about['version']} on {self.about['device']}"


def write_record(path: str | Path, record: Record) -> Path:
    """Write a record; a safetensors file.

    Parameters
    ----------
    path : str or Path
        Where to; ``.safetensors``.
    record : Record
        What one backend computed.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    tensors = {f"arrays/{quantity}/{name}": v for quantity, by in record.arrays.items() for name, v in by.items()}
    tensors |= {f"noise/{quantity}/{name}": v for quantity, by in record.noise.items() for name, v in by.items()}
    write_tensors(path, tensors, {KEY: json.dumps({"schema_version": SCHEMA_VERSION, "about": record.about})})
    return path


def read_record(path: str | Path) -> Record:
    """Read a record.

    Parameters
    ----------
    path : str or Path
        A file that :func:`write_record` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or no record.
    """
    path = Path(path)
    try:
        tensors, packed = read_tensors(path)
    except CheckpointError as error:
        raise InputError(f"{error}; a record is what earthsr parity --record writes") from None
    if KEY not in packed:
        raise InputError(f"{path}: is no parity record; make one with earthsr parity CONFIG --record FILE")
    try:
        values = json.loads(packed[KEY])
        version, about = int(values["schema_version"]), dict(values["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r}); record it again") from None
    if version > SCHEMA_VERSION:
        raise InputError(f"{path}: was recorded by a newer earthsr (schema {version}); record it again with this one")
    kinds: dict[str, Arrays] = {"arrays": {}, "noise": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        quantity, _, name = rest.partition("/")
        kinds.setdefault(kind, {}).setdefault(quantity, {})[name] = value
    return Record(about, kinds["arrays"], kinds["noise"])


Say = Callable[[str], None]


def mirrored(batches: list[Batch], spec: NetworkSpec) -> list[Batch]:
    """Batches with rows for columns, and the samples of every batch in reverse order.

    With transposed kernels the network computes the same, transposed; every sum is taken in another order.
    """

    def back(field: NDArray) -> NDArray:
        return np.ascontiguousarray(field[::-1])

    def fields(inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        return {name: back(value) for name, value in spec.transpose_inputs(inputs).items()}

    return [
        Batch(
            fields(batch.inputs),
            back(batch.target.swapaxes(-1, -2)),
            back(batch.mask.swapaxes(-1, -2)),
            back(batch.sample_weight),
            None if batch.earlier is None else Earlier(fields(batch.earlier.inputs), back(batch.earlier.own)),
        )
        for batch in batches
    ]


def measure(
    backend: WeightsBackend,
    spec: NetworkSpec,
    weights: Weights,
    inputs: ParityBatches,
    objective: Objective,
    optimizer: OptimizerSpec,
    rates: list[float],
    *,
    device: str = "auto",
    noise: bool = True,
    say: Say = lambda _: None,
) -> Record:
    """Compute a record.

    Parameters
    ----------
    backend : WeightsBackend
        Where.
    spec, weights : NetworkSpec, dict of str to ndarray
        The model.
    inputs : ParityBatches
        As many batches as rates.
    objective, optimizer : Objective, OptimizerSpec
        What is trained, and how.
    rates : list of float
        Learning rate of each step.
    device : str
        As the command line takes it.
    noise : bool
        Compute everything again on the other side of two symmetries: see :func:`earthsr.check.parity_record.mirrored`.
    say : callable
        Told in words what comes next.

    Returns
    -------
    Record
        What the backend computed.
    """
    engine = backend.training_engine(spec, weights, device=device, precision=Precision("O0", strict=True))
    straight = _Side(spec, weights, inputs.batches)
    sides = [straight]
    if noise:
        turned = {name: np.ascontiguousarray(value) for name, value in spec.transpose_weights(weights).items()}
        sides.append(_Side(spec, turned, mirrored(inputs.batches, spec), transposed=True))
    # Both sides are led through one prepared engine: a backend that compiles its step compiles it once for both.
    for side in sides:
        say(f"layers and prediction{side.words}")
        side.predict(engine, inputs)
    # With beta1 of 0 the first moment after a step is the gradient: what training uses, and nothing made for the test.
    engine.prepare_training(objective, OptimizerSpec(beta1=0.0))
    for side in sides:
        say(f"gradients{side.words}")
        side.differentiate(engine)
    engine.prepare_training(objective, optimizer)
    for side in sides:
        say(f"{len(rates)} steps{side.words}")
        side.train(engine, rates, optimizer.frozen)
    arrays: Arrays = {"inputs": input_arrays(weights, inputs), **straight.arrays}
    own = sides[1].arrays if noise else {}
    about: dict[str, Any] = {
        "backend": backend.name,
        "version": backend.version(),
        "device": engine.device,
        "precision": engine.precision,
        "platform": platform.platform(),
        "earthsr_version": earthsr.__version__,
        **describe_setup(spec, inputs, objective, optimizer, rates),
        "parameters": spec.parameter_count,
        "seconds_per_step": round(straight.seconds, 4),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return Record(about, arrays, own)


def describe_setup(
    spec: NetworkSpec, inputs: ParityBatches, objective: Objective, optimizer: OptimizerSpec, rates: list[float]
) -> dict[str, Any]:
    """Return what two records have to have in common to be compared."""
    return {
        "spec": spec.to_dict(),
        "objective": objective.to_dict(),
        "optimizer": optimizer.to_dict(),
        "rates": [rates[0], rates[-1]],
        "steps": len(rates),
        "batch_size": len(inputs.batches[0].sample_weight),
        "inputs": inputs.source,
    }


def input_arrays(weights: Weights, inputs: ParityBatches) -> dict[str, NDArray]:
    """Return initial weights and batches, thinned, for comparing them."""
    first, last = inputs.batches[0], inputs.batches[-1]
    arrays = {f"weights/{name}": value for name, value in weights.items()}
    arrays |= {f"first/{name}": value for name, value in first.inputs.items()}
    if first.earlier is not None:
        arrays |= {f"first/earlier/{name}": value for name, value in first.earlier.inputs.items()}
    return _thinned({**arrays, "first/target": first.target, "last/target": last.target})


class _Side:
    """All quantities of one side of the symmetries; of mirrored batches turned back."""

    def __init__(self, spec: NetworkSpec, weights: Weights, batches: list[Batch], transposed: bool = False) -> None:
        self.spec, self.weights, self.batches, self.transposed = spec, weights, batches, transposed
        self.words = ", mirrored: its own noise" if transposed else ""
        self.arrays: Arrays = {}
        self.seconds = 0.0
        """Per step after the first."""

    def predict(self, engine: TrainingEngine, inputs: ParityBatches) -> None:
        """Outputs of all layers, the raster and its scores."""
        engine.load_weights(self.weights)
        outputs = engine.activations(self.batches[0].inputs)
        outputs["output"] = engine.submit(self.batches[0].inputs).result()
        self.arrays["layers"] = {name: thin(self._straight(name, output)) for name, output in outputs.items()}
        rasters, scores = inputs.interpret(self._straight("output", outputs["output"]))
        self.arrays["raster"] = {name: thin(raster) for name, raster in rasters.items()}
        self.arrays["scores"] = scores

    def differentiate(self, engine: TrainingEngine) -> None:
        """Loss and gradient of the first batch, on an engine whose first moments are gradients."""
        engine.load_state(State(self.weights))
        self.arrays["loss"] = {"loss": engine.run(self.batches[:1], [0.0]).result().losses}
        self.arrays["gradients"] = self._parameters(engine.export_state().first_moments)

    def train(self, engine: TrainingEngine, rates: list[float], frozen: Collection[str]) -> None:
        """Moments after one step and after all, the course of the loss, and how far the weights came."""
        engine.load_state(State(self.weights))
        losses = [engine.run(self.batches[:1], rates[:1]).result().losses]
        state = engine.export_state()
        self.arrays["first_moments_1"] = self._parameters(state.first_moments)
        self.arrays["second_moments_1"] = self._parameters(state.second_moments)
        begun = time.perf_counter()
        if len(rates) > 1:
            losses.append(engine.run(self.batches[1:], rates[1:]).result().losses)
            state = engine.export_state()
        self.seconds = (time.perf_counter() - begun) / max(len(rates) - 1, 1)
        self.arrays["losses"] = {"losses": np.concatenate(losses)}
        self.arrays["first_moments_n"] = self._parameters(state.first_moments)
        self.arrays["second_moments_n"] = self._parameters(state.second_moments)
        learning = [name for name in self.weights if name not in frozen]
        self.arrays["updates_n"] = self._parameters({n: state.weights[n] - self.weights[n] for n in learning})

    def _straight(self, name: str, output: NDArray) -> NDArray:
        return self.spec.transpose_layer(name, output)[::-1] if self.transposed else output

    def _parameters(self, values: Weights) -> dict[str, NDArray]:
        return _thinned(self.spec.transpose_weights(values) if self.transposed else values)


def _thinned(arrays: Weights) -> dict[str, NDArray]:
    return {name: thin(value) for name, value in arrays.items()}

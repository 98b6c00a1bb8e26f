"""Computing a record on one backend, through the same engine interface that training uses."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.backend import Backend, Engine
from earthsr.data import Patches
from earthsr.evaluation import ErrorStatistics, patch_statistics
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.initial import Weights
from earthsr.parity.inputs import Inputs
from earthsr.parity.record import Arrays, Record, thin

Say = Callable[[str], None]


def measure(
    backend: Backend,
    spec: NetworkSpec,
    weights: Weights,
    inputs: Inputs,
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
    backend : Backend
        Where.
    spec, weights : NetworkSpec, dict of str to ndarray
        The model.
    inputs : Inputs
        As many batches as rates.
    objective, optimizer : Objective, OptimizerSpec
        What is trained, and how.
    rates : list of float
        Learning rate of each step.
    device : str
        As the command line takes it.
    noise : bool
        Compute everything again on the other side of two symmetries: see :func:`mirrored`.
    say : callable
        Told in words what comes next.
    """
    engine = backend.engine(spec, weights, device=device, precision=Precision("O0", strict=True))
    arrays: Arrays = {"inputs": input_arrays(weights, inputs)}
    computed, seconds = _compute(engine, spec, weights, inputs, objective, optimizer, rates, False, say)
    arrays |= computed
    own: Arrays = {}
    if noise:
        say("again, mirrored: its own noise")
        other = {name: np.ascontiguousarray(value) for name, value in spec.transpose_weights(weights).items()}
        own, seconds = _compute(engine, spec, other, mirrored(inputs), objective, optimizer, rates, True, say)
    about: dict[str, Any] = {
        "backend": backend.name,
        "version": backend.version(),
        "device": engine.device,
        "precision": engine.precision,
        "platform": platform.platform(),
        "earthsr_version": earthsr.__version__,
        **describe_setup(spec, inputs, objective, optimizer, rates),
        "parameters": spec.parameter_count,
        "seconds_per_step": round(seconds, 4),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return Record(about, arrays, own)


def describe_setup(
    spec: NetworkSpec, inputs: Inputs, objective: Objective, optimizer: OptimizerSpec, rates: list[float]
) -> dict[str, Any]:
    """Return what two records have to have in common to be compared."""
    return {
        "spec": spec.to_dict(),
        "objective": objective.to_dict(),
        "optimizer": optimizer.to_dict(),
        "rates": [rates[0], rates[-1]],
        "steps": len(rates),
        "batch_size": len(inputs.patches[0].indices),
        "inputs": inputs.source,
    }


def input_arrays(weights: Weights, inputs: Inputs) -> dict[str, NDArray]:
    """Return initial weights and batches, thinned, for comparing them."""
    first, last = inputs.batches[0], inputs.batches[-1]
    arrays = {f"weights/{name}": value for name, value in weights.items()}
    arrays |= {f"first/{name}": value for name, value in first.inputs.items()}
    return _thinned({**arrays, "first/target": first.target, "last/target": last.target})


def mirrored(inputs: Inputs) -> Inputs:
    """Inputs transposed, rows for columns, and the samples of every batch in reverse order.

    With transposed kernels the network computes the same, transposed; every sum is taken in another order.
    """

    def flip(field: NDArray) -> NDArray:
        return np.ascontiguousarray(field[::-1].swapaxes(-1, -2))

    patches = [Patches(flip(p.coarse), flip(p.fine), flip(p.mask), p.indices[::-1].copy()) for p in inputs.patches]
    return replace(inputs, patches=patches)


def _compute(
    engine: Engine,
    spec: NetworkSpec,
    weights: Weights,
    inputs: Inputs,
    objective: Objective,
    optimizer: OptimizerSpec,
    rates: list[float],
    transposed: bool,
    say: Say,
) -> tuple[Arrays, float]:
    """All quantities, of mirrored inputs turned back; and the seconds per step after the first."""

    def layer(name: str, output: NDArray) -> NDArray:
        return thin(spec.transpose_layer(name, output)[::-1] if transposed else output)

    def parameters(values: Weights) -> dict[str, NDArray]:
        return _thinned(spec.transpose_weights(values) if transposed else values)

    batches = inputs.batches
    say("layers and prediction")
    engine.load_weights(weights)
    outputs = engine.activations(batches[0].inputs)
    outputs["output"] = engine.submit(batches[0].inputs).result()
    arrays: Arrays = {"layers": {name: layer(name, output) for name, output in outputs.items()}}
    raster, scores = _elevation(spec, outputs["output"], inputs)
    arrays["raster"] = {"elevation_m": layer("output", raster)}
    arrays["scores"] = scores
    del outputs

    say("gradients")
    # With beta1 of 0 the first moment after a step is the gradient: what training uses, and nothing made for the test.
    engine.prepare_training(objective, OptimizerSpec(beta1=0.0))
    loss = engine.run(batches[:1], [0.0]).result().losses
    arrays["loss"] = {"loss": loss}
    arrays["gradients"] = parameters(engine.export_state().first_moments)

    say(f"{len(rates)} steps")
    engine.prepare_training(objective, optimizer)
    engine.load_state(State(weights))
    losses = [engine.run(batches[:1], rates[:1]).result().losses]
    state = engine.export_state()
    arrays["first_moments_1"] = parameters(state.first_moments)
    arrays["second_moments_1"] = parameters(state.second_moments)
    begun = time.perf_counter()
    if len(rates) > 1:
        losses.append(engine.run(batches[1:], rates[1:]).result().losses)
        state = engine.export_state()
    seconds = (time.perf_counter() - begun) / max(len(rates) - 1, 1)
    arrays["losses"] = {"losses": np.concatenate(losses)}
    arrays["first_moments_n"] = parameters(state.first_moments)
    arrays["second_moments_n"] = parameters(state.second_moments)
    learning = [name for name in weights if name not in optimizer.frozen]
    arrays["updates_n"] = parameters({name: state.weights[name] - weights[name] for name in learning})
    return arrays, seconds


def _elevation(
    spec: NetworkSpec, output: NDArray[np.float32], inputs: Inputs
) -> tuple[NDArray[np.float32], dict[str, NDArray]]:
    """Elevation of the first batch in metres, and its scores against the truth."""
    patches, normalisation = inputs.patches[0], inputs.normalisation
    raster = normalisation.undo(output, normalisation.offsets(patches.coarse))
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min()) if valid.size else 1.0
    each = patch_statistics(raster, patches.fine, patches.mask, border=spec.scale, value_range=span, cell_size_m=None)
    found = sum(each, ErrorStatistics()).scores(span)
    # The bias may be anywhere near zero, where a relative difference means nothing.
    return raster, {k: np.array([found[k]]) for k in ("rmse", "mae", "psnr", "ssim") if found[k] is not None}


def _thinned(arrays: Weights) -> dict[str, NDArray]:
    return {name: thin(value) for name, value in arrays.items()}

"""Computing a record on one backend, through the same engine interface that training uses."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.backend import Backend, Engine, Model
from earthsr.data import Batch
from earthsr.evaluation import ErrorStatistics, patch_statistics
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.initial import Weights
from earthsr.parity.inputs import Inputs
from earthsr.parity.record import Arrays, Record, thin

Say = Callable[[str], None]


def _thinned(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    return {name: thin(value) for name, value in arrays.items()}


def reversed_samples(batch: Batch) -> Batch:
    """Return the same batch, its samples in reverse order."""
    return Batch(
        {name: value[::-1].copy() for name, value in batch.inputs.items()},
        batch.target[::-1].copy(),
        batch.mask[::-1].copy(),
        batch.sample_weight[::-1].copy(),
    )


def gradients(engine: Engine, objective: Objective, batch: Batch) -> tuple[float, Weights]:
    """Loss and gradient at the engine's weights: with beta1 of 0 the first moment after a step *is* the gradient."""
    engine.prepare_training(objective, OptimizerSpec(beta1=0.0))
    loss = engine.run([batch], [0.0]).result().losses[0]
    return float(loss), engine.export_state().first_moments


def trajectory(
    engine: Engine, weights: Weights, optimizer: OptimizerSpec, batches: list[Batch], rates: list[float]
) -> Arrays:
    """Moments after one step and after all, weights' way from the start, and the course of the loss.

    ``engine`` is prepared for ``optimizer``; it starts over from ``weights``.
    """
    engine.load_state(State(weights))
    first = engine.run(batches[:1], rates[:1]).result()
    one = engine.export_state()
    rest = engine.run(batches[1:], rates[1:]).result() if len(batches) > 1 else None
    end = engine.export_state()
    losses = [first.losses] if rest is None else [first.losses, rest.losses]
    return {
        "first_moments_1": _thinned(one.first_moments),
        "second_moments_1": _thinned(one.second_moments),
        "losses": {"losses": np.concatenate(losses)},
        "first_moments_n": _thinned(end.first_moments),
        "second_moments_n": _thinned(end.second_moments),
        "updates_n": _thinned(
            {name: end.weights[name] - weights[name] for name in end.weights if name not in optimizer.frozen}
        ),
    }


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
        Train again with the samples of every batch in reverse order.
    say : callable
        Told in words what comes next.
    """
    batches = inputs.batches
    say("layers and prediction")
    engine = backend.engine(spec, weights, device=device, precision=Precision("O0", strict=True))
    arrays: Arrays = {"inputs": _thinned({f"weights/{k}": v for k, v in weights.items()})}
    arrays["inputs"] |= _thinned({f"first/{k}": v for k, v in batches[0].inputs.items()})
    arrays["inputs"] |= _thinned({"first/target": batches[0].target, "last/target": batches[-1].target})
    arrays["layers"] = _thinned(engine.activations(batches[0].inputs))
    arrays["layers"]["output"] = thin(engine.submit(batches[0].inputs).result())
    raster, scores = _predict(backend, spec, weights, inputs, device)
    arrays["raster"] = {"elevation_m": thin(raster)}
    arrays["scores"] = scores

    say("gradients")
    loss, gradient = gradients(engine, objective, batches[0])
    arrays["loss"] = {"loss": np.array([loss])}
    arrays["gradients"] = _thinned(gradient)
    own: Arrays = {}
    if noise:
        engine.load_weights(weights)
        loss, gradient = gradients(engine, objective, reversed_samples(batches[0]))
        own = {"loss": {"loss": np.array([loss])}, "gradients": _thinned(gradient)}
    del engine, gradient

    say(f"{len(rates)} steps")
    engine = backend.engine(spec, weights, device=device, precision=Precision("O0", strict=True))
    engine.prepare_training(objective, optimizer)
    begun = time.perf_counter()
    arrays |= trajectory(engine, weights, optimizer, batches, rates)
    seconds = time.perf_counter() - begun
    if noise:
        say(f"{len(rates)} steps with the samples in reverse order")
        begun = time.perf_counter()
        own |= trajectory(engine, weights, optimizer, [reversed_samples(batch) for batch in batches], rates)
        again = time.perf_counter() - begun
    about: dict[str, Any] = {
        "backend": backend.name,
        "version": backend.version(),
        "device": engine.device,
        "precision": engine.precision,
        "platform": platform.platform(),
        "earthsr_version": earthsr.__version__,
        "spec": spec.to_dict(),
        "parameters": spec.parameter_count,
        "objective": objective.to_dict(),
        "optimizer": optimizer.to_dict(),
        "rates": [rates[0], rates[-1]],
        "steps": len(rates),
        "batch_size": len(batches[0].sample_weight),
        "inputs": inputs.source,
        # The first run compiles or warms up; the second tells the rate.
        "seconds_per_step": again / len(rates) if noise else None,
        "seconds_before": max(seconds - again, 0.0) if noise else None,
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return Record(about, arrays, own)


def _predict(
    backend: Backend, spec: NetworkSpec, weights: Weights, inputs: Inputs, device: str
) -> tuple[NDArray[np.float32], dict[str, NDArray]]:
    """Elevation of the first batch in metres, and its scores against the truth."""
    model = Model(spec, weights, backend=backend, device=device, precision=Precision("O0", strict=True))
    model.normalisation = inputs.normalisation
    patches = inputs.patches[0]
    raster = model.submit(patches.coarse).result()
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min()) if valid.size else 1.0
    each = patch_statistics(raster, patches.fine, patches.mask, border=spec.scale, value_range=span, cell_size_m=None)
    total = sum(each, ErrorStatistics())
    found = total.scores(span)
    # The bias may be anywhere near zero, where a relative difference means nothing.
    return raster, {
        name: np.array([found[name]]) for name in ("rmse", "mae", "psnr", "ssim") if found[name] is not None
    }

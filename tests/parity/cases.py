"""The matrix: variants of the model and of the optimiser, and the float64 record of each.

``python -m tests.parity.cases`` writes the records anew, after a change of what they hold.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from earthsr.data import Normalisation
from earthsr.evaluation import ErrorStatistics, patch_statistics
from earthsr.models import DemSRNetSpec, MSELoss, OptimizerSpec, initial_weights
from earthsr.parity import Record, write_record
from earthsr.tasks.made import made_batches, made_patches
from tests.reference.gradients import adam, layers, loss_and_gradient

RECORDS = Path(__file__).parent / "records"
STEPS = 20
BATCH, PATCH = 3, 6
BASE = DemSRNetSpec(features=4, num_blocks=1, scale=2)
OBJECTIVE = MSELoss()


@dataclasses.dataclass(frozen=True)
class Case:
    """A variant, its optimiser, and everything that both sides start from."""

    spec: DemSRNetSpec
    optimizer: OptimizerSpec = dataclasses.field(default_factory=OptimizerSpec)

    @property
    def weights(self):
        return initial_weights(self.spec, 0, keep_zeros=False)

    @property
    def inputs(self):
        return made_batches(self.spec, PATCH, BATCH, STEPS)

    @property
    def rates(self):
        # Rises and falls, so that a rate baked into a graph shows.
        return [1e-3 * (1 + np.sin(step)) for step in range(STEPS)]


def variant(**fields):
    return dataclasses.replace(BASE, **fields)


CASES = {
    "paper": Case(BASE),
    "mindearth": Case(variant(global_skip="input", resize="asymmetric", residual_scale=0.1)),
    "edsr": Case(variant(upsampler="pixel_shuffle", bias=True)),
    "over-bicubic": Case(variant(residual_over="bicubic")),
    "over-conservative": Case(variant(residual_over="conservative", bias=True)),
    "two-channels": Case(variant(in_channels=2, out_channels=2, residual_over="bilinear")),
    "scale-3": Case(variant(scale=3, num_blocks=2)),
    "adam-coupled-decay": Case(BASE, OptimizerSpec(weight_decay=0.1, eps=1e-4)),
    "adamw-clipped": Case(BASE, OptimizerSpec(name="adamw", weight_decay=0.1, clip_norm=0.05)),
    "frozen": Case(BASE, OptimizerSpec(frozen=BASE.select(["head", "blocks"]), beta1=0.8, beta2=0.95)),
}


def reference_record(case):
    """The record that exact arithmetic would give, but for 16 digits."""
    inputs, weights = case.inputs, {name: value.astype(np.float64) for name, value in case.weights.items()}
    batches = inputs.batches
    first = batches[0]
    seen = layers(case.spec, weights, first.inputs["elevation"])
    keep = {name: seen[name].reshape(-1) for name in (*case.spec.layers, "output")}
    normalisation, patches = Normalisation("patch", 0.0, 64.0), made_patches(case.spec, PATCH, BATCH, 1)[0]
    offsets = normalisation.offsets(patches.coarse).astype(np.float64)
    raster = seen["output"] * normalisation.scale + offsets
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min())
    each = patch_statistics(
        raster, patches.fine, patches.mask, border=case.spec.scale, value_range=span, cell_size_m=None
    )
    scores = sum(each, ErrorStatistics()).scores(span)

    losses, now, m, v, one = [], weights, {}, {}, None
    m = {name: np.zeros_like(value) for name, value in weights.items()}
    v = {name: np.zeros_like(value) for name, value in weights.items()}
    for step, (batch, rate) in enumerate(zip(batches, case.rates, strict=True), start=1):
        loss, gradient = loss_and_gradient(
            case.spec, now, batch.inputs["elevation"], batch.target.astype(np.float64), batch.weight
        )
        losses.append(loss)
        now, m, v = adam(case.optimizer, now, m, v, gradient, rate, step)
        if step == 1:
            one = (gradient, m, v)
    gradient, m1, v1 = one
    flat = lambda arrays: {name: value.reshape(-1) for name, value in arrays.items()}  # noqa: E731
    learning = [name for name in weights if name not in case.optimizer.frozen]
    arrays = {
        "inputs": flat(
            {f"weights/{k}": value for k, value in case.weights.items()}
            | {f"first/{k}": value for k, value in first.inputs.items()}
            | {"first/target": first.target, "last/target": batches[-1].target}
        ),
        "layers": keep,
        "raster": {"elevation_m": raster.reshape(-1)},
        "scores": {name: np.array([scores[name]]) for name in ("rmse", "mae", "psnr")},
        "loss": {"loss": np.array(losses[:1])},
        "gradients": flat(gradient),
        "first_moments_1": flat(m1),
        "second_moments_1": flat(v1),
        "losses": {"losses": np.array(losses)},
        "first_moments_n": flat(m),
        "second_moments_n": flat(v),
        "updates_n": flat({name: now[name] - weights[name] for name in learning}),
    }
    about = {
        "backend": "reference",
        "version": "float64",
        "device": "NumPy",
        "spec": case.spec.to_dict(),
        "objective": OBJECTIVE.to_dict(),
        "optimizer": case.optimizer.to_dict(),
        "rates": [case.rates[0], case.rates[-1]],
        "steps": STEPS,
        "batch_size": BATCH,
        "inputs": inputs.source,
    }
    return Record(about, arrays)


def main():
    for name in sys.argv[1:] or CASES:
        print(write_record(RECORDS / f"{name}.safetensors", reference_record(CASES[name])))


if __name__ == "__main__":
    main()

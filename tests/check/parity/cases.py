"""The matrix: variants of the model and of the optimiser, and the float64 record of each.

``python -m tests.check.parity.cases`` writes the records anew, after a change of what they hold.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from earthsr.check.parity import Record, write_record
from earthsr.data.normalise import Normalisation
from earthsr.evaluation.statistics import ErrorStatistics, patch_statistics
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import (
    CrossEntropyLoss,
    DemSRNetSpec,
    HuberLoss,
    MSELoss,
    NetworkSpec,
    Objective,
    OptimizerSpec,
    UNetSpec,
    initial_weights,
)
from earthsr.tasks.batches import made_patches, synthetic_patches
from tests.reference import unet
from tests.reference.gradients import adam, layers, loss_and_gradient

RECORDS = Path(__file__).parent / "records"
STEPS = 20
BATCH, PATCH, TILE = 3, 6, 8
BASE = DemSRNetSpec(features=4, num_blocks=1, scale=2)
MAPS = UNetSpec(coarse_channels=3, static_channels=2, classes=4, width=4, depth=2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A variant, its optimiser, and everything that both sides start from."""

    spec: NetworkSpec
    optimizer: OptimizerSpec = dataclasses.field(default_factory=OptimizerSpec)
    objective: Objective = dataclasses.field(default_factory=MSELoss)

    @property
    def size(self):
        return TILE if isinstance(self.spec, UNetSpec) else PATCH

    @property
    def weights(self):
        return initial_weights(self.spec, 0, keep_zeros=False)

    @property
    def inputs(self):
        make = synthetic_tiles if isinstance(self.spec, UNetSpec) else synthetic_patches
        return make(self.spec, self.size, BATCH, STEPS)

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
    "over-means-fine-head": Case(variant(residual_over="mean_preserving", fine_features=3, bias=True)),
    "shuffled-fine-head": Case(
        variant(residual_over="mean_preserving", fine_features=2, upsampler="pixel_shuffle", scale=3)
    ),
    "two-channels": Case(variant(in_channels=2, out_channels=2, residual_over="bilinear")),
    "local-mean": Case(variant(global_skip="input", residual_over="bicubic", local_mean=2)),
    "local-relief": Case(
        variant(
            residual_over="mean_preserving", local_mean=3, local_relief=2, upsampler="pixel_shuffle", fine_features=2
        )
    ),
    "slope": Case(
        variant(in_channels=2, out_channels=2, residual_over="bilinear", local_mean=1), objective=MSELoss(slope=2.0)
    ),
    "scale-3": Case(variant(scale=3, num_blocks=2)),
    "adam-coupled-decay": Case(BASE, OptimizerSpec(weight_decay=0.1, eps=1e-4)),
    "adamw-clipped": Case(BASE, OptimizerSpec(name="adamw", weight_decay=0.1, clip_norm=0.05)),
    "unet": Case(MAPS, objective=CrossEntropyLoss()),
    "unet-group-transposed": Case(
        dataclasses.replace(MAPS, norm="group", norm_groups=2, upsampling="transposed", totals=True),
        objective=CrossEntropyLoss((1.0, 2.0, 0.5, 3.0), label_smoothing=0.1, dice=0.5),
    ),
    "unet-plain-no-prior": Case(
        dataclasses.replace(MAPS, norm="none", prior=False, depth=1), objective=CrossEntropyLoss(dice=1.0)
    ),
    "unet-continuous": Case(dataclasses.replace(MAPS, head="continuous", out_channels=3), objective=HuberLoss(0.5)),
    "unet-frozen": Case(MAPS, OptimizerSpec(frozen=MAPS.select(["down"]), clip_norm=0.1), CrossEntropyLoss()),
    "frozen": Case(BASE, OptimizerSpec(frozen=BASE.select(["head", "blocks"]), beta1=0.8, beta2=0.95)),
}


def _dem_sr(case, weights):
    """Layers, rasters and scores of the first batch, and the gradient of one, of DEM-SRNet."""
    seen = layers(case.spec, weights, case.inputs.batches[0].inputs["elevation"])
    normalisation, patches = Normalisation("patch", 0.0, 64.0), made_patches(case.spec, case.size, BATCH, 1)[0]
    offsets = normalisation.offsets(patches.coarse).astype(np.float64)
    raster = seen["output"] * normalisation.scale + offsets
    valid = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    span = float(valid.max() - valid.min())
    scores = _errors(raster, patches.fine, patches.mask, case.spec.scale, span)

    def step(now, batch):
        arguments = (batch.inputs["elevation"], batch.target.astype(np.float64), batch.weight)
        return *loss_and_gradient(case.spec, now, *arguments, slope=case.objective.slope), {}

    return seen, {"elevation_m": raster}, {name: scores[name] for name in ("rmse", "mae", "psnr")}, step


def _unet(case, weights):
    """The same of a U-Net."""
    first = case.inputs.batches[0]
    seen = unet.layers(case.spec, weights, first.inputs)
    if case.spec.softmax:
        rasters, scores = case.inputs.interpret(seen["output"])
        scores = {name: float(value[0]) for name, value in scores.items()}
    else:
        found = _errors(seen["output"], first.target, first.mask, 0, 0.0)
        rasters, scores = {"field": seen["output"]}, {name: found[name] for name in ("rmse", "mae")}

    def step(now, batch):
        arguments = (batch.inputs, batch.target, batch.weight)
        return unet.loss_and_gradient(case.spec, case.objective, now, *arguments, frozen=case.optimizer.frozen)

    return seen, rasters, scores, step


def _errors(raster, truth, mask, border, span):
    each = patch_statistics(raster, truth, mask, border=border, value_range=span, cell_size_m=None)
    return sum(each, ErrorStatistics()).scores(span)


def reference_record(case):
    """The record that exact arithmetic would give, but for 16 digits."""
    inputs, weights = case.inputs, {name: value.astype(np.float64) for name, value in case.weights.items()}
    batches = inputs.batches
    first = batches[0]
    of_kind = _unet if isinstance(case.spec, UNetSpec) else _dem_sr
    seen, rasters, scores, take_step = of_kind(case, weights)
    learns = case.spec.learning
    now = dict(weights)
    m = {name: np.zeros_like(weights[name]) for name in learns}
    v = {name: np.zeros_like(weights[name]) for name in learns}
    losses = []
    for number, (batch, rate) in enumerate(zip(batches, case.rates, strict=True), start=1):
        loss, gradient, statistics = take_step(now, batch)
        losses.append(loss)
        moved, m, v = adam(case.optimizer, {name: now[name] for name in learns}, m, v, gradient, rate, number)
        now = {**now, **moved, **statistics}
        if number == 1:
            # The gradient of everything: what is frozen does not learn, but has one. Norms that are frozen keep their
            # statistics in training alone, so this one is taken with all of them awake.
            everything = dataclasses.replace(case, optimizer=OptimizerSpec())
            plain = (
                (loss, gradient) if not case.optimizer.frozen else of_kind(everything, weights)[3](weights, batch)[:2]
            )
            one = (*plain, m, v)
    first_loss, gradient, m1, v1 = one
    flat = lambda arrays: {name: value.reshape(-1) for name, value in arrays.items()}  # noqa: E731
    going = [name for name in weights if name not in case.optimizer.frozen]
    arrays = {
        "inputs": flat(
            {f"weights/{k}": value for k, value in case.weights.items()}
            | {f"first/{k}": value for k, value in first.inputs.items()}
            | {"first/target": first.target, "last/target": batches[-1].target}
        ),
        "layers": flat({name: seen[name] for name in (*case.spec.layers, "output")}),
        "raster": flat(rasters),
        "scores": {name: np.array([value]) for name, value in scores.items()},
        "loss": {"loss": np.array([first_loss])},
        "gradients": flat(gradient),
        "first_moments_1": flat(m1),
        "second_moments_1": flat(v1),
        "losses": {"losses": np.array(losses)},
        "first_moments_n": flat(m),
        "second_moments_n": flat(v),
        "updates_n": flat({name: now[name] - weights[name] for name in going}),
    }
    about = {
        "backend": "reference",
        "version": "float64",
        "device": "NumPy",
        "spec": case.spec.to_dict(),
        "objective": case.objective.to_dict(),
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

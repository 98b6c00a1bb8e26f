"""Time a training step on MindSpore, as earthsr runs it and as MindSpore's plain settings do, and on PyTorch.

Each variant runs in a process of its own, one after the other, so that neither caches nor settings are shared:

- ``earthsr``: graph mode, oneDNN capped at AVX2;
- ``earthsr-jit``: the same step under ``mindspore.jit``, called from PyNative mode;
- ``earthsr-pynative``: ``train.graph: false``;
- ``earthsr-O2``: float16 convolutions, fixed loss scale;
- ``earthsr-native``: graph mode, MindSpore's instruction set as it is (EARTHSR_MINDSPORE_ISA=native);
- ``plain``: ``nn.TrainOneStepCell`` with ``nn.Adam`` in graph mode, oneDNN capped;
- ``plain-native``: the same with nothing capped: MindSpore's plain settings;
- ``torch``: the PyTorch backend in float32.

    python tools/benchmark_mindspore.py configs/dem_srnet_demo.yaml --steps 10
    python tools/benchmark_mindspore.py configs/dem_srnet.yaml --batch 4 --steps 3 --variants earthsr plain torch
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

VARIANTS = (
    "earthsr",
    "earthsr-jit",
    "earthsr-pynative",
    "earthsr-O2",
    "plain",
    "torch",
    "earthsr-native",
    "plain-native",
)


def step_of(variant: str, config: str, batch_size: int | None) -> Callable[[], float]:
    """Build the variant and return its step, which gives the loss."""
    from benchmark_precision import random_batch

    from earthsr.backend import choose_backend
    from earthsr.config import load_yaml_config
    from earthsr.models import OptimizerSpec, Precision, initial_weights
    from earthsr.tasks import task_for

    loaded = load_yaml_config(config)
    task = task_for(loaded)
    spec = task.spec()
    batch = random_batch(spec, loaded.data.patch_size, batch_size or loaded.data.batch_size)
    backend = choose_backend("torch" if variant == "torch" else "mindspore")
    precision = Precision("O2") if variant.endswith("O2") else Precision()
    graph = False if variant.endswith("pynative") else None
    engine = backend.engine(spec, initial_weights(spec, 0), device="cpu", precision=precision, graph=graph)
    if not variant.startswith("plain"):
        engine.prepare_training(task.objective(), OptimizerSpec())
        if variant.endswith("jit"):
            under_jit(engine)
        return lambda: float(engine.run([batch], [1e-4]).result().losses[0])

    import mindspore as ms
    from mindspore import nn

    from earthsr_mindspore.networks import build

    network = build(spec)
    ms.set_context(mode=ms.GRAPH_MODE)
    cell = nn.TrainOneStepCell(nn.WithLossCell(network, nn.MSELoss()), nn.Adam(network.trainable_params(), 1e-4))
    inputs, target = ms.Tensor(batch.inputs["elevation"]), ms.Tensor(batch.target)
    return lambda: float(cell(inputs, target).asnumpy())


def under_jit(engine) -> None:
    """Compile the step with ``mindspore.jit`` and call it from PyNative mode."""
    import contextlib

    import mindspore as ms

    from earthsr_mindspore import device
    from earthsr_mindspore.engine import _Step

    _Step.construct = ms.jit(_Step.construct)
    device.mode = lambda graph: contextlib.nullcontext()


def child(arguments: argparse.Namespace) -> None:
    """Time one variant and print it as JSON."""
    step = step_of(arguments.child, arguments.config, arguments.batch)
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    times = []
    for _ in range(arguments.steps):
        begun = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first": first, "median": statistics.median(times), "peak": peak, "loss": loss}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    print(f"{'variant':<18}{'s/step':>9}{'to first':>10}{'1st step s':>12}{'peak MiB':>10}")
    base = None
    for variant in arguments.variants:
        switch = "native" if variant.endswith("-native") else ""
        words = [sys.executable, __file__, arguments.config, "--child", variant, "--steps", str(arguments.steps)]
        words += ["--batch", str(arguments.batch)] if arguments.batch else []
        done = subprocess.run(
            words, env={**os.environ, "EARTHSR_MINDSPORE_ISA": switch}, stdout=subprocess.PIPE, text=True, check=True
        )
        values = json.loads(done.stdout.splitlines()[-1])
        base = base or values["median"]
        ratio = values["median"] / base
        print(f"{variant:<18}{values['median']:>9.3f}{ratio:>9.2f}x{values['first']:>12.1f}{values['peak']:>10.0f}")


if __name__ == "__main__":
    main()

"""What data parallelism should give on a cluster, from the network's spec and figures of the hardware.

    python tools/scaling_model.py configs/dem_srnet.yaml configs/landuse_unet.yaml [--nodes 8] [--gpus 4] [--batch 64]

Defaults are of nodes with four H100 SXM each: 989 TFLOP/s in bfloat16 (dense), of which a convolutional network is
taken to reach 40 %, NVLink of 450 GB/s a direction, one InfiniBand port of 400 Gbit/s a GPU. The model is written down
in docs/scaling.md.
"""

from __future__ import annotations

import argparse

from earthsr.config import load_yaml_config
from earthsr.tasks import task_for

#: Bytes that DistributedDataParallel sends at once.
BUCKET = 25 * 2**20


def ring(size: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce: every rank sends and receives its message twice, but for one part of it."""
    return 0.0 if ranks == 1 else 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency


def all_reduce(size: float, nodes: int, gpus: int, options: argparse.Namespace) -> float:
    """Seconds of an all-reduce within nodes and then, each GPU with its part, between them."""
    inside = ring(size, gpus, options.nvlink * 1e9, options.latency * 1e-6)
    between = ring(size / gpus, nodes, options.network * 1e9, options.network_latency * 1e-6)
    return inside + between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=4, help="a node")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 8], help="samples of one GPU")
    parser.add_argument("--tflops", type=float, default=989.0, help="peak of a GPU")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of it that a step reaches")
    parser.add_argument("--nvlink", type=float, default=450.0, help="GB/s a direction")
    parser.add_argument("--network", type=float, default=50.0, help="GB/s of a GPU to other nodes")
    parser.add_argument("--latency", type=float, default=3.0, help="microseconds of a message inside a node")
    parser.add_argument("--network-latency", type=float, default=10.0, help="microseconds between nodes")
    options = parser.parse_args()
    ranks = options.nodes * options.gpus
    print(f"{ranks} GPUs in {options.nodes} nodes, {options.utilisation:.0%} of {options.tflops:g} TFLOP/s each")
    for path in options.configs:
        config = load_yaml_config(path)
        spec, side = task_for(config).spec(), config.data.patch_size
        size = 4.0 * spec.parameter_count
        print(f"{path}: {spec.parameter_count:,} parameters, {size / 1e6:.0f} MB of gradients a step")
        for batch in options.batch:
            compute = 3 * spec.flops(side, side) * batch / (options.utilisation * options.tflops * 1e12)
            message = all_reduce(size, options.nodes, options.gpus, options)
            # Two thirds of a step are its backward pass. A bucket is sent when its gradients are there: all but the
            # last one can travel during it.
            last = all_reduce(min(size, BUCKET), options.nodes, options.gpus, options)
            exposed = last + max(0.0, message - last - 2 / 3 * compute)
            efficiency = compute / (compute + exposed)
            print(
                f"  {batch:>3} samples a GPU: {1000 * compute:.2f} ms computing, all-reduce {1000 * message:.2f} ms, "
                f"{1000 * exposed:.2f} ms of it not hidden: {100 * efficiency:.1f} %, "
                f"{ranks * batch / (compute + exposed):,.0f} samples/s; hidden down to "
                f"{max(1.0, batch * 1.5 * (message - last) / compute):.1f} samples a GPU"
            )


if __name__ == "__main__":
    main()

"""What workers of Dask give beside processes that know nothing of each other, and what kills leave of a reconstruction.

    python tools/benchmark_workers.py throughput --output runs/bench-workers
    python tools/benchmark_workers.py kills --output runs/bench-workers --times 4

`throughput`: the same reconstruction of the synthetic world by this process, by two workers of Dask, and by two
independent processes (each all of it), in turn; chunks a second from the first to the last, one thread a process.
`kills`: reconstructions that are cut off at random by SIGKILL: the whole of a process, one of two workers, and the
process that gives out the work; the same command carries on where that is needed, and the maps are held to those of a
run left alone. Data are made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

YEARS = (1984, 1999)
MAPS = (1989, 1992)
STATICS = ("elevation", "slope", "soil", "distance_to_water", "latitude")


def world(output: Path) -> Path:
    """Archives of a synthetic world of 192 x 960 cells; made once."""
    from earthsr.samples.landuse import write_sample_landuse
    from earthsr.samples.world import WorldSpec

    root = output / "world"
    if not (root / "archives").is_dir():
        write_sample_landuse(
            root, WorldSpec(rows=192, columns=960, years=tuple(range(YEARS[0], YEARS[1] + 1))), archives=True
        )
    return root / "archives"


def network(options: argparse.Namespace) -> Path:
    """Untrained network with the fields and classes of demo-landuse, of so many features."""
    from earthsr.models import UNetSpec, read_weights, resolve_checkpoint, write_weights
    from earthsr.models.weights import initial_weights

    path = options.output / f"width-{options.width}.safetensors"
    if not path.exists():
        file = read_weights(resolve_checkpoint(Path("demo-landuse")))
        assert isinstance(file.spec, UNetSpec)
        sizes = (file.spec.coarse_channels, file.spec.static_channels, file.spec.classes)
        spec = UNetSpec(*sizes, width=options.width, depth=2, norm="none")
        weights = initial_weights(spec, 0, keep_zeros=False)
        # Its last weights are enlarged, so that maps change from year to year.
        weights = {name: value * (8 if name.startswith("out.") else 1) for name, value in weights.items()}
        write_weights(path, spec, weights, file.metadata)
    return path


def once(options: argparse.Namespace, scheduler: Any, target: Path) -> dict[str, Any]:
    """One reconstruction; its target is removed before."""
    from earthsr.backend import Model
    from earthsr.landuse.reconstruct import Inputs, Options, reconstruct

    folder = world(options.output)
    statics = tuple(f"{name}={folder / 'static.nc'}:{name}" for name in STATICS)
    scenario = (folder / "scenario_historical.nc", folder / "scenario_future.nc")
    anchor = folder / "landuse_1989.tif"
    model = Model.from_checkpoint(network(options), backend="torch")
    chosen = Options(chunk=options.chunk)
    return reconstruct(model, Inputs(str(anchor), scenario, statics), MAPS, target, chosen, scheduler=scheduler)


class Timed:
    """A scheduler that remembers what its runs took."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.times = scheduler, None

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run, and remember."""
        self.times = self.scheduler.run(*arguments, **options)
        return self.times


def removed(target: Path) -> Path:
    for path in (target, target.with_name(f"{target.name}.work"), target.with_name(f"{target.stem}_report")):
        shutil.rmtree(path, ignore_errors=True)
    return target


def one(options: argparse.Namespace) -> None:
    """A reconstruction by this process, or by workers; told on standard output."""
    from earthsr.inference.scheduler import make_scheduler

    with make_scheduler(workers=options.workers) as scheduler:
        timed = Timed(scheduler)
        done = once(options, timed, options.target)
    print(json.dumps({"chunks": done["chunks"], "seconds": timed.times.seconds}))


def start(options: argparse.Namespace, target: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "one", "--output", str(options.output), "--target", str(target)]
    words += ["--chunk", str(options.chunk), "--width", str(options.width), *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def throughput(options: argparse.Namespace) -> None:
    from earthsr.inference.scheduler import LocalScheduler, make_scheduler

    world(options.output)
    rates: dict[str, list[float]] = {"local": [], "dask": [], "independent": []}
    overlap = []
    with make_scheduler(workers=2) as dask:
        for turn in range(options.times):
            for name, scheduler in (("local", Timed(LocalScheduler())), ("dask", Timed(dask))):
                once(options, scheduler, removed(options.output / f"{name}.zarr"))
                times = scheduler.times
                rates[name].append(times.pieces / times.seconds)
                if name == "local":
                    overlap.append(times.computing / times.seconds)
            targets = [removed(options.output / f"independent-{i}.zarr") for i in range(2)]
            began = time.perf_counter()
            both = [start(options, target) for target in targets]
            texts = [process.communicate()[0] for process in both]
            seconds = [json.loads(text.splitlines()[-1])["seconds"] for text in texts]
            chunks = sum(json.loads(text.splitlines()[-1])["chunks"] for text in texts)
            rates["independent"].append(chunks / max(seconds))
            print(f"turn {turn + 1}: { ({name: round(rate[-1], 2) for name, rate in rates.items()}) } chunks/s")
            print(f"  independent with their start {time.perf_counter() - began:.0f} s", flush=True)
    middle = {name: statistics.median(rate) for name, rate in rates.items()}
    print(f"two workers of Dask over local: {middle['dask'] / middle['local']:.2f}")
    print(f"two workers of Dask over two independent processes: {middle['dask'] / middle['independent']:.2f}")
    print(f"local: share of its time that computes {statistics.median(overlap):.2f}")


def kills(options: argparse.Namespace) -> None:
    from earthsr.inference.journal import Journal
    from earthsr.inference.scheduler import LocalScheduler, make_scheduler

    chance, folder = random.Random(0), options.output
    reference = values(once(options, LocalScheduler(), removed(folder / "reference.zarr")), folder / "reference.zarr")
    total = len(reference["files"])
    add = Journal.add
    with make_scheduler(workers=2) as dask:
        client = dask._connected()
        for i in range(options.times):
            at, victim = chance.randrange(1, total), chance.choice(sorted(client.run(os.getpid).values()))

            def added(self: Journal, *record: Any, at: int = at, victim: int = victim) -> None:
                add(self, *record)
                if len(self) == at:
                    os.kill(victim, signal.SIGKILL)

            Journal.add = added  # type: ignore[method-assign]
            done = once(options, dask, removed(folder / "worker.zarr"))
            Journal.add = add  # type: ignore[method-assign]
            same = values(done, folder / "worker.zarr") == reference
            print(
                f"one of two workers, {i + 1}, at {at} of {total}: {'identical' if same else 'DIFFERENT'}", flush=True
            )
            client.wait_for_workers(2, timeout=120)
    for kind, more in (("the whole process", ()), ("the process that gives out the work", ("--workers", "2"))):
        for i in range(options.times):
            target = removed(folder / "whole.zarr")
            process, at = start(options, target, *more), chance.randrange(1, total)
            while process.poll() is None and recorded(target) < at:
                time.sleep(0.05)
            process.kill()
            process.wait()
            had = recorded(target)
            done = once(options, LocalScheduler(), target)
            same = values(done, target) == reference and done["chunks"] == total - had
            print(f"{kind}, {i + 1}, at {had} of {total}: {'identical' if same else 'DIFFERENT'}", flush=True)


def recorded(target: Path) -> int:
    """Chunks that are recorded in the folder of a reconstruction."""
    files = target.with_name(f"{target.name}.work").glob("done/*.jsonl")
    return sum(path.read_bytes().count(b'"name"') for path in files)


def values(done: dict[str, Any], target: Path) -> dict[str, Any]:
    """Bytes of all chunks of the maps, and the figures of all years."""
    files = {path.relative_to(target): path.read_bytes() for path in target.glob("land_use/c/*/*/*")}
    return {"files": files, "years": done["years"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "kills", "one"))
    parser.add_argument("--output", type=Path, default=Path("runs/bench-workers"))
    parser.add_argument("--chunk", type=int, default=96, help="fine cells per side of a chunk")
    parser.add_argument("--times", type=int, default=3, help="turns, or kills of each kind")
    parser.add_argument("--width", type=int, default=16, help="features of the network")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    options.output.mkdir(parents=True, exist_ok=True)
    {"throughput": throughput, "kills": kills, "one": one}[options.what](options)


if __name__ == "__main__":
    main()

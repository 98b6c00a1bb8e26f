"""Measure how land-use tiles should lie on disk, what a sample costs there, and how fast loader and steps are.

    python tools/benchmark_landuse.py layouts [--tile 256]
    python tools/benchmark_landuse.py loader [--tile 256]
    python tools/benchmark_landuse.py steps CONFIG

Data are made: the synthetic world of ``earthsr sample landuse``, whose maps compress about as real ones of its cell
size do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CHUNKS = {"(1, 1, P, P)": (1, 1, 1, 1), "(1, 8, P, P)": (1, 8, 1, 1), "(1, 1, P/4, P/4)": (1, 1, 4, 4)}
ROUNDS = 3


def filters() -> dict[str, dict[str, Any]]:
    import hdf5plugin

    return {
        "none": {},
        "lzf": {"compression": "lzf"},
        "gzip 1": {"compression": "gzip", "compression_opts": 1},
        "gzip 4": {"compression": "gzip", "compression_opts": 4},
        "zstd 3": dict(hdf5plugin.Zstd(clevel=3)),
        "blosc lz4": dict(hdf5plugin.Blosc(cname="lz4", clevel=5)),
    }


def world(tile: int, folder: Path) -> Path:
    """Write a world of ten training tiles and thirty years; returns its folder."""
    from earthsr.samples.landuse import write_sample_landuse
    from earthsr.samples.world.world import WorldSpec

    spec = WorldSpec(rows=2 * tile, columns=5 * tile)
    write_sample_landuse(folder, spec, tile_size=tile, shares=(1.0, 0.0, 0.0), held_out_last=1)
    return folder


def median_of(work: Callable[[], int]) -> float:
    """Median rate of several rounds, work per second."""
    rates = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - begun))
    return statistics.median(rates)


def layouts(tile: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = world(tile, Path(folder) / "world")
        with h5py.File(root / "train" / "train.h5") as handle:
            classes, static = handle["classes"][...], handle["static"][...]
            coarse, years = handle["coarse"].nbytes, len(handle["years"])
        rng = np.random.default_rng(0)
        order = rng.permutation(classes.shape[0] * classes.shape[1])
        print(f"{classes.shape[0]} tiles x {years} years of {tile} x {tile}; reads of one year's map in random order\n")
        print("| classes: chunks | filter | bytes per map | of raw | maps read/s | maps written/s |")
        print("|---|---|---|---|---|---|")
        for label, parts in CHUNKS.items():
            chunks = tuple(
                min(n, s) if i < 2 else s // n for i, (n, s) in enumerate(zip(parts, classes.shape, strict=True))
            )
            for name, options in filters().items():
                path = Path(folder) / "layout.h5"
                begun = time.perf_counter()
                with h5py.File(path, "w") as handle:
                    handle.create_dataset("classes", data=classes, chunks=chunks, **options)
                written = classes.shape[0] * years / (time.perf_counter() - begun)

                def read(path: Path = path) -> int:
                    with h5py.File(path) as handle:
                        data = handle["classes"]
                        for i in order:
                            data[int(i) // years, int(i) % years]
                    return len(order)

                size = path.stat().st_size / (classes.shape[0] * years)
                figures = f"{size:,.0f} | {size / tile**2:.3f} | {median_of(read):,.0f} | {written:,.0f}"
                print(f"| {label} | {name} | {figures} |")
        print("\n| static: chunks (1, 1, P, P) | bytes per tile and field | of raw | tiles read/s |\n|---|---|---|---|")
        for name, options in filters().items():
            path = Path(folder) / "static.h5"
            shuffled = {**options, "shuffle": True} if name.startswith(("gzip", "lzf")) else options
            with h5py.File(path, "w") as handle:
                handle.create_dataset("static", data=static, chunks=(1, 1, tile, tile), **shuffled)

            def read_static(path: Path = path) -> int:
                with h5py.File(path) as handle:
                    for t in range(len(static)):
                        handle["static"][t]
                return len(static)

            size = path.stat().st_size / (static.shape[0] * static.shape[1])
            print(
                f"| {name}{' + shuffle' if 'shuffle' in shuffled else ''} | {size:,.0f} | {size / (4 * tile**2):.3f} | "
                f"{median_of(read_static):,.0f} |"
            )
        per_sample(root, coarse)


def per_sample(root: Path, coarse_bytes: int) -> None:
    """Bytes of a sample as stored, and if every input were stored at full resolution for every year."""
    path = root / "train" / "train.h5"
    with h5py.File(path) as handle:
        tiles, years, tile, _ = handle["classes"].shape
        static, channels = handle["static"].shape[1], handle["coarse"].shape[1]
        parts = {name: handle[name].id.get_storage_size() for name in ("classes", "static", "coarse")}
    samples = tiles * years
    stored = sum(parts.values()) / samples
    # float32 fields: forcing, static, scalars spread over the tile; prior, its mask and target as bytes.
    naive = tile**2 * (4 * (channels + static + 3) + 3)
    whole = {name: size / samples for name, size in parts.items()}
    shares = ", ".join(f"{name} {size:,.0f}" for name, size in whole.items())
    print(f"\nper sample, as stored: {stored:,.0f} bytes ({shares})")
    print(f"per sample, every input on the fine cells: {naive:,} bytes; {naive / stored:,.0f} times as much")
    # The paper's 800,000 samples, over 251 years, with LUH2's twelve states on their whole grid.
    count, states = 800_000, 12
    maps, tiles_once = count * parts["classes"] / samples, count / 251 * parts["static"] / tiles
    total = maps + tiles_once + 251 * states * 720 * 1440 * 4
    everything = count * tile**2 * (4 * (states + static + 3) + 3)
    print(
        f"{count:,} samples over 251 years, global forcing of {states} states: {total / 1e9:,.1f} GB; every input on "
        f"the fine cells: {everything / 1e12:,.2f} TB"
    )


def loader(tile: int) -> None:
    from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
    from earthsr.landuse.split import LandUseData

    with tempfile.TemporaryDirectory() as folder:
        root = world(tile, Path(folder) / "world")
        source = LandUseData({"root_dir": str(root), "patch_size": tile}, "train")
        normalisation = source.layout.statistics.normalisation(None)
        batch = 16
        print(f"{len(source)} samples of {tile} x {tile}, batches of {batch}, shuffled and augmented")
        for workers in (0, 1, 2):
            dataset = LandUseDataset(source, LandUseOptions(), num_workers=workers, augment=True).create_dataset(batch)

            def epoch(dataset: LandUseDataset = dataset) -> int:
                done = 0
                for batch in dataset.training_batches(0, normalisation):
                    done += batch.size
                return done

            print(f"{workers} workers: {median_of(epoch):,.0f} samples/s")


def steps(path: str, size: int | None) -> None:
    from earthsr.backend import available_backends, choose_backend
    from earthsr.config import load_yaml_config
    from earthsr.models import OptimizerSpec, Precision, initial_weights
    from earthsr.tasks import task_for

    config = load_yaml_config(path, [] if size is None else [f"data.batch_size={size}", "train.class_weights=none"])
    task = task_for(config)
    spec = task.spec()
    batches = task.synthetic_batches(4).batches
    count = config.data.batch_size
    print(f"{path}: {spec.parameter_count:,} parameters, {count} samples of {config.data.patch_size}² per step")
    engines = []
    for name in available_backends():
        if not choose_backend(name).installed():
            continue
        for level in ("O0", "O2") if name == "torch" else ("O0",):
            engine = choose_backend(name).engine(spec, initial_weights(spec, 0), precision=Precision(level))
            engine.prepare_training(task.objective(), OptimizerSpec())
            begun = time.perf_counter()
            engine.run(batches[:1], [1e-4]).result()
            engines.append((f"{name} {level}", engine, time.perf_counter() - begun))
    rates: dict[str, list[float]] = {name: [] for name, _, _ in engines}
    for _ in range(ROUNDS):
        for name, engine, _ in engines:
            begun = time.perf_counter()
            engine.run(batches, [1e-4] * len(batches)).result()
            rates[name].append(len(batches) * count / (time.perf_counter() - begun))
    work = 3 * spec.flops(config.data.patch_size, config.data.patch_size) / 1e9
    for name, engine, first in engines:
        rate = statistics.median(rates[name])
        print(
            f"{name} ({engine.precision}): {rate:,.1f} samples/s, {work * rate:,.0f} GFLOP/s; first step {first:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layouts", "loader", "steps"))
    parser.add_argument("config", nargs="?", default="configs/landuse_demo.yaml")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batch", type=int)
    options = parser.parse_args()
    if options.what == "steps":
        steps(options.config, options.batch)
    else:
        {"layouts": layouts, "loader": loader}[options.what](options.tile)


if __name__ == "__main__":
    main()

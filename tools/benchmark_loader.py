"""Rates of the loader as training uses it, per layout on disk: read, check, normalise, augment and stack into batches.

    python tools/benchmark_loader.py [--only dem|landuse] [--layouts NAME…] [--json FILE] [--against FILE]
    python tools/benchmark_loader.py --profile [--only …] [--layouts NAME…]

The same samples are written under each layout into a temporary folder: DEM patches of 32 x 32 -> 160 x 160 (fractal
terrain in whole metres) in batches of 64, land-use tiles of 256 x 256 (the synthetic world, priors and directions as in
configs/landuse_unet.yaml) in batches of 8. All of them lie in the page cache: rates are of decoding and preparing, not
of a disk. The best of several epochs counts, for other programs on the machine only ever make an epoch slower; the
repeats go round all layouts, so that a slow minute is not one layout's alone. Threads help while one of them waits for
HDF5 or lets go of the interpreter, and where there is a core for each. ``per core`` counts seconds of the processor
instead of the clock's, all threads together: what one core gives to the loader alone, whatever else the machine does.

``--against`` takes the file of an earlier ``--json`` and adds the ratio to it; ``--profile`` shows where the time of
one thread goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from benchmark_layouts import COARSE, FINE, terrain

from earthsr.config import load_yaml_config
from earthsr.data.batch import Batch
from earthsr.data.dataset import Dataset
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.data.samples import Patches
from earthsr.dem.split import DemData
from earthsr.dem.write import Split, write_split
from earthsr.geo.resample import block_mean
from earthsr.landuse.dataset import LandUseDataset, LandUseOptions
from earthsr.landuse.samples import PriorPlan
from earthsr.landuse.split import LandUseData
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import WorldSpec

#: Samples per second and device that a loader must serve.
NEEDED = {"dem": 2000, "landuse": 500}

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {"chunked": False},
    "one-sample chunks": {},
    "lzf": {"compression": "lzf"},
    "zstd 3": dict(hdf5plugin.Zstd(clevel=3)),
    "blosc-lz4": dict(hdf5plugin.Blosc(cname="lz4", clevel=5)),
    "gzip 4": {"compression": "gzip", "compression_opts": 4},
}

#: One epoch's batches, by epoch and number of worker threads.
Epoch = Callable[[int, int], Iterator[Batch]]


def rewrite(source: Path, target: Path, layout: dict[str, Any]) -> dict[str, int]:
    """Copy a file with another layout of its large datasets; returns their bytes on disk."""
    options = dict(layout)
    chunked = options.pop("chunked", True)
    # Byte shuffling is what makes LZF and deflate find anything in floats; zstd takes it from the filter pipeline too,
    # Blosc shuffles by itself.
    wants_shuffle = options.get("compression") in ("gzip", "lzf")
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for key, value in old.attrs.items():
            new.attrs[key] = value
        for name, data in old.items():
            # The forcing stays contiguous in any file: the loader maps it into memory.
            if data.ndim < 4 or name == "coarse":
                old.copy(name, new)
                continue
            chunks = None
            if chunked:
                # A patch, or a tile's map of one year, or one static field: what one sample reads.
                lead = 1 if name.count("_") else 2
                chunks = (1,) * lead + data.shape[lead:]
            shuffle = {"shuffle": True} if wants_shuffle and data.dtype.kind == "f" else {}
            copied = new.create_dataset(name, data=data[...], chunks=chunks, **options, **shuffle)
            for key, value in data.attrs.items():
                copied.attrs[key] = value
        return {name: data.id.get_storage_size() for name, data in new.items() if data.ndim >= 4}


def dem_source(folder: Path, samples: int) -> Path:
    fine = terrain(samples)
    coarse = block_mean(fine, FINE // COARSE)
    everywhere = np.ones((samples, 1, FINE, FINE), np.uint8)
    path = folder / "train" / "train.h5"
    split = Split(
        coarse, fine, np.zeros((samples, 2)), np.zeros(samples, np.uint8), np.array(["made"] * samples, dtype=object)
    )
    statistics = Statistics.of([Patches(coarse, fine, everywhere, np.arange(samples))])
    write_split(path, split, statistics, {"crs": "EPSG:4326", "source": "fractal terrain"})
    return path


def dem_epochs(folder: Path, batch: int) -> tuple[int, Epoch]:
    data = DemData({"root_dir": str(folder), "patch_size": COARSE}, "train")
    normalisation = Normalisation.choose("patch", data.statistics())

    def epoch(number: int, workers: int) -> Iterator[Batch]:
        dataset = Dataset(data, num_workers=workers, augment=True).create_dataset(batch)
        return dataset.training_batches(number, normalisation)

    return len(data), epoch


def landuse_source(folder: Path, tile: int) -> Path:
    spec = WorldSpec(rows=2 * tile, columns=5 * tile, years=tuple(range(1980, 2000)))
    write_sample_landuse(folder, spec, tile_size=tile, shares=(1.0, 0.0, 0.0), held_out_last=1)
    return folder / "train" / "train.h5"


def landuse_epochs(folder: Path, batch: int, tile: int) -> tuple[int, Epoch]:
    section = load_yaml_config(Path(__file__).parents[1] / "configs" / "landuse_unet.yaml").data
    plan = PriorPlan(
        section.prior_hidden,
        section.prior_hidden_blocks,
        section.prior_block_cells,
        section.prior_stale,
        section.prior_stale_steps,
        section.prior_own,
    )
    options = LandUseOptions(tuple(section.directions), plan, buffer_tiles=section.buffer_tiles)
    data = LandUseData({"root_dir": str(folder), "patch_size": tile}, "train")
    normalisation = data.layout.statistics.normalisation(None)

    def epoch(number: int, workers: int) -> Iterator[Batch]:
        dataset = LandUseDataset(data, options, num_workers=workers, augment=True).create_dataset(batch)
        return dataset.training_batches(number, normalisation)

    return len(LandUseDataset(data, options)), epoch


def rate(batches: Iterator[Batch]) -> tuple[float, float]:
    """Samples per second of the clock, and of the processor."""
    clock, processor, done = time.perf_counter(), time.process_time(), 0
    for batch in batches:
        done += batch.size
    return done / (time.perf_counter() - clock), done / (time.process_time() - processor)


def measure(epochs: dict[str, Epoch], workers: list[int], repeats: int) -> dict[str, tuple[dict[int, float], float]]:
    """Best rates of every layout: by number of workers, and of one core."""
    for epoch in epochs.values():
        rate(epoch(0, 0))  # brings the file into the page cache
    best = {name: dict.fromkeys(workers, 0.0) for name in epochs}
    core = dict.fromkeys(epochs, 0.0)
    for repeat in range(repeats):
        for name, epoch in epochs.items():
            for count in workers:
                clock, processor = rate(epoch(1 + repeat, count))
                best[name][count] = max(best[name][count], clock)
                core[name] = max(core[name], processor)
    return {name: (best[name], core[name]) for name in epochs}


def profile(epochs: dict[str, Epoch]) -> None:
    for name, epoch in epochs.items():
        rate(epoch(0, 0))
        profiler = cProfile.Profile()
        profiler.enable()
        reached, _ = rate(epoch(1, 0))
        profiler.disable()
        print(f"\n{name}: {reached:,.0f} samples/s while being profiled")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)


def show(rows: list[dict[str, Any]], workers: list[int], earlier: dict[tuple[str, str], float]) -> None:
    heads = "".join(f"{f'{count} workers' if count != 1 else '1 worker':>12}" for count in workers)
    print(
        f"{'task':<9}{'layout':<19}{'KiB/sample':>11}{heads}{'per core':>12}{'of needed':>11}{'before':>9}{'ratio':>7}"
    )
    for row in rows:
        line = f"{row['task']:<9}{row['layout']:<19}{row['kib_per_sample']:>11.1f}"
        line += "".join(f"{row['samples_per_s'][str(count)]:>12,.0f}" for count in workers)
        line += f"{row['samples_per_core_s']:>12,.0f}{row['of_needed']:>11.2f}"
        before = earlier.get((row["task"], row["layout"]))
        line += f"{before:>9,.0f}{row['samples_per_core_s'] / before:>7.2f}" if before else ""
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("dem", "landuse"))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), metavar="NAME")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="worker threads; 0 reads in the loop")
    parser.add_argument("--repeats", type=int, default=3, help="epochs per layout and number of workers")
    parser.add_argument("--samples", type=int, default=1024, help="DEM samples")
    parser.add_argument("--tile", type=int, default=256, help="fine cells per side of a land-use tile")
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--against", type=Path, help="a table of an earlier --json to compare with")
    parser.add_argument("--profile", action="store_true", help="show where the time of one thread goes, and no table")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for task in ("dem", "landuse"):
            if arguments.only not in (None, task):
                continue
            root = Path(name) / task
            made = dem_source(root, arguments.samples) if task == "dem" else landuse_source(root, arguments.tile)
            epochs: dict[str, Epoch] = {}
            sizes: dict[str, float] = {}
            for layout in arguments.layouts:
                folder = root / layout.replace(" ", "-")
                stored = rewrite(made, folder / "train" / "train.h5", LAYOUTS[layout])
                samples, epochs[layout] = (
                    dem_epochs(folder, 64) if task == "dem" else (landuse_epochs(folder, 8, arguments.tile))
                )
                sizes[layout] = sum(stored.values()) / samples / 1024
            if arguments.profile:
                profile(epochs)
                continue
            for layout, (rates, core) in measure(epochs, arguments.workers, arguments.repeats).items():
                rows.append(
                    {
                        "task": task,
                        "layout": layout,
                        "kib_per_sample": round(sizes[layout], 1),
                        "samples_per_s": {str(count): round(rate, 1) for count, rate in rates.items()},
                        "samples_per_core_s": round(core, 1),
                        "needed": NEEDED[task],
                        "of_needed": round(core / NEEDED[task], 2),
                    }
                )
    if arguments.profile:
        return
    earlier = json.loads(arguments.against.read_text())["rows"] if arguments.against else []
    show(rows, arguments.workers, {(row["task"], row["layout"]): row["samples_per_core_s"] for row in earlier})
    if arguments.json:
        machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "repeats": arguments.repeats}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

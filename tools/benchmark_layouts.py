"""Read rates of HDF5 layouts for DEM patches: which chunk shape and compression serves a shuffled loader best.

    python tools/benchmark_layouts.py [--samples 1500] [--seconds 1.5] [--json FILE]

Each layout holds the same fractal terrain (a 160 x 160 float32 patch and its 32 x 32 block mean per sample), is read
once whole (so that all of it lies in the page cache), and then sample by sample in random order by one thread. Rates
are for warm reads on this machine; compare them with each other, not with another machine's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from earthsr.geo.resample import block_mean

FINE, COARSE = 160, 32


def terrain(samples: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(FINE), np.fft.fftfreq(FINE))) + 0.01
    rough = np.fft.fft2(rng.normal(size=(samples, FINE, FINE)))
    field = np.fft.ifft2(rough / frequency**1.7).real
    # Whole metres, as SRTM and GEBCO have them: what compression would meet.
    return np.round(500 + 200 * field / field.std()).astype(np.float32)[:, None]


def layouts() -> dict[str, dict]:
    one, eight = ("one sample", 1), ("8 samples", 8)
    table: dict[str, dict] = {"contiguous": {}}
    for label, count in (one, eight, ("64 samples", 64)):
        table[f"chunks of {label}"] = {"chunk": count}
    for label, count in (one, eight):
        table[f"lzf, {label}"] = {"chunk": count, "compression": "lzf"}
        table[f"gzip 4, {label}"] = {"chunk": count, "compression": "gzip", "compression_opts": 4}
        table[f"zstd 3, {label}"] = {"chunk": count, **hdf5plugin.Zstd(clevel=3)}
        table[f"blosc-lz4, {label}"] = {"chunk": count, **hdf5plugin.Blosc(cname="lz4", clevel=5)}
    return table


def write(path: Path, fine: np.ndarray, options: dict) -> None:
    options = dict(options)
    chunk = options.pop("chunk", None)
    with h5py.File(path, "w") as handle:
        for key, data in ((f"{COARSE}_{COARSE}", block_mean(fine, FINE // COARSE)), (f"{FINE}_{FINE}", fine)):
            chunks = None if chunk is None else (chunk, *data.shape[1:])
            handle.create_dataset(key, data=data, chunks=chunks, **options)


def rate(read, samples: int, seconds: float) -> float:
    order = np.random.default_rng(1).permutation(samples)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += read(order, done)
    return done / (time.perf_counter() - start)


def measure(path: Path, samples: int, seconds: float) -> tuple[float, float]:
    with h5py.File(path) as handle:
        sets = [handle[f"{size}_{size}"] for size in (COARSE, FINE)]
        for dataset in sets:
            dataset[...]
        buffers = [np.empty((64, *dataset.shape[1:]), np.float32) for dataset in sets]

        def single(order: np.ndarray, done: int) -> int:
            for i in range(64):
                index = order[(done + i) % samples]
                for dataset, buffer in zip(sets, buffers, strict=True):
                    dataset.read_direct(buffer, np.s_[index], np.s_[i])
            return 64

        def fancy(order: np.ndarray, done: int) -> int:
            picked = np.sort(order[np.arange(done, done + 64) % samples])
            for dataset in sets:
                dataset[picked]
            return 64

        return rate(single, samples, seconds), rate(fancy, samples, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=1.5, help="time per layout and way of reading")
    parser.add_argument("--json", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    fine = terrain(arguments.samples)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, options in layouts().items():
            path = Path(folder) / "layout.h5"
            write(path, fine, options)
            single, fancy = measure(path, arguments.samples, arguments.seconds)
            size = path.stat().st_size / arguments.samples / 1024
            rows.append(
                {"layout": name, "single": round(single), "fancy": round(fancy), "kib_per_sample": round(size, 1)}
            )
            path.unlink()
    best = rows[0]["single"]
    print(f"{'layout':<24}{'samples/s':>12}{'of contiguous':>15}{'fancy index':>14}{'KiB/sample':>12}")
    for row in rows:
        share = row["single"] / best
        print(f"{row['layout']:<24}{row['single']:>12,}{share:>15.2f}{row['fancy']:>14,}{row['kib_per_sample']:>12.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

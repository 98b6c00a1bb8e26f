"""Throughput and memory of ``earthsr predict``: beside the bare model on the same windows, and against raster size.

    python tools/benchmark_predict.py --backend torch
    python tools/benchmark_predict.py --checkpoint runs/land --sizes 256 512 1024

Rasters are made. Each prediction runs in a process of its own, whose peak memory the system reports; the bare model
predicts the same windows from memory, in one process more, and neither reads, blends nor writes. Rates are of output
cells that are kept, so that both modes compare. Run it alone: two programs side by side measure each other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.plan import PredictOptions
from earthsr.models import DemSRNetSpec, write_weights

CELL = 1 / 240


def made_model(path: Path, features: int, blocks: int) -> Path:
    spec = DemSRNetSpec(features=features, num_blocks=blocks, residual_over="bicubic")
    rng = np.random.default_rng(0)
    weights = {p.name: (rng.normal(size=p.shape) * p.fan_in**-0.5).astype(np.float32) for p in spec.parameters}
    return write_weights(path, spec, weights, {"normalisation": Normalisation("patch", 0.0, 300.0).to_dict()})


def made_raster(path: Path, side: int) -> Path:
    import rasterio
    from rasterio.transform import from_origin

    profile = {"driver": "GTiff", "dtype": "int16", "count": 1, "crs": "EPSG:4326", "nodata": -32768, "tiled": True}
    place = from_origin(5.0, 48.0, CELL, CELL)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(512, 512)).cumsum(0).cumsum(1)
    base = (1000 + 300 * (base - base.mean()) / base.std()).astype(np.int16)
    with rasterio.open(path, "w", height=side, width=side, transform=place, **profile) as file:
        file.units = ("m",)
        for row in range(0, side, 512):
            for column in range(0, side, 512):
                part = base[: min(512, side - row), : min(512, side - column)]
                window = ((row, row + part.shape[0]), (column, column + part.shape[1]))
                file.write(part, 1, window=window)
    return path


def run_predict(words: list[str]) -> dict[str, Any]:
    """Run the command line; its report, wall time and peak memory (Linux reports kilobytes)."""
    code = (
        "import json, resource, sys, time; from earthsr.cli import main; began = time.perf_counter(); "
        "rc = main(sys.argv[1:]); peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "print('\\n' + json.dumps({'rc': rc, 'peak_kb': peak, 'wall_s': time.perf_counter() - began}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")
    report, _, usage = done.stdout.rstrip().rpartition("\n")
    return {**json.loads(report), **json.loads(usage)}


def bare(checkpoint: Path, backend: str, amp: str, source: Path, options: PredictOptions) -> float:
    """Output megapixels per second of the model alone on the windows that a prediction reads."""
    from earthsr.backend import Model
    from earthsr.dem.predict.plan import make_plan
    from earthsr.geo import open_source
    from earthsr.inference.tiling import batches
    from earthsr.models import Precision

    model = Model.from_checkpoint(checkpoint, backend=backend, precision=Precision(amp))  # type: ignore[arg-type]
    raster = open_source(source)
    plan = make_plan([model], raster, options)
    work = [
        np.stack([raster.read(tile.window) for tile in group])[:, None]
        for chunk in plan.chunks
        for group in batches(plan.tiles.tiles(chunk), plan.batch_size)
    ]
    model.submit(work[0], plan.batch_size, 0.0).result()
    began = time.perf_counter()
    for windows in work:
        model.submit(windows, plan.batch_size, 0.0).result()
    seconds = time.perf_counter() - began
    return plan.output.rows * plan.output.columns / 1e6 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--checkpoint", type=Path, help="a made model of --features and --blocks where absent")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--amp-level", default="O2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="coarse cells per side")
    parser.add_argument("--modes", nargs="+", default=["exact", "gaussian"], choices=["exact", "gaussian"])
    parser.add_argument("--format", default=".tif", choices=[".tif", ".nc", ".zarr"])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.checkpoint or made_model(folder / "m.safetensors", arguments.features, arguments.blocks)
        for side in arguments.sizes:
            source = made_raster(folder / f"{side}.tif", side)
            for mode in arguments.modes:
                words = ["predict", str(model), str(source), str(folder / f"out-{side}-{mode}{arguments.format}")]
                words += ["--backend", arguments.backend, "--amp-level", arguments.amp_level, "--json", "--overwrite"]
                report = run_predict([*words, "--exact"] if mode == "exact" else words)
                alone = bare(model, arguments.backend, arguments.amp_level, source, PredictOptions(mode))
                rate = report["output_megapixels_per_s"]
                rows.append(
                    {
                        "coarse_side": side,
                        "output_megapixels": (side * 5) ** 2 / 1e6,
                        "mode": mode,
                        "predict_mpx_per_s": rate,
                        "bare_model_mpx_per_s": alone,
                        "ratio": rate / alone,
                        "peak_memory_mb": report["peak_kb"] / 1024,
                        "wall_s": report["wall_s"],
                    }
                )
                row = rows[-1]
                print(
                    f"{side:6} x {side:<6} {mode:9} {rate:8.3f} Mpx/s, bare model {alone:8.3f} ({row['ratio']:.2f}), "
                    f"peak {row['peak_memory_mb']:7.0f} MB, {row['wall_s']:7.1f} s",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

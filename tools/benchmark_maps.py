"""What blending, reading and writing cost beside the bare network, with how much memory, and how well windows join.

    python tools/benchmark_maps.py overhead --landuse runs/landuse-demo --dem RUN --output runs/bench-maps
    python tools/benchmark_maps.py memory --output runs/bench-maps
    python tools/benchmark_maps.py seams --landuse runs/landuse-demo --output runs/bench-maps

`overhead`: the pipeline of earthsr and MONAI's `sliding_window_inference` (mode gaussian), each in a process of its
own, on rasters of one form, with the same network, window and overlap; either is divided by its own network's time on
its own windows, measured in turn with it. `memory`: whole reconstructions of belts of a made globe of 30 arc-seconds,
43,200 cells wide and of growing height. `seams`: steps of probabilities across borders of windows and elsewhere.
Rasters are made. Run it alone: two programs side by side measure each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CELL = 1 / 120
ANCHOR = 2000


def archives(output: Path, rows: int) -> Path:
    """Belt of a made globe, half of it on either side of the equator; made once."""
    from earthsr.samples.world.globe import write_global_archives

    folder = output / f"globe-{rows}"
    if not (folder / "README.txt").exists():
        half = rows / 2 * CELL
        write_global_archives(
            folder, CELL, range(ANCHOR, ANCHOR + 2), 0, anchor_year=ANCHOR, south_deg=-half, north_deg=half
        )
    return folder


def inputs_of(folder: Path, bbox: tuple[float, float, float, float] | None = None) -> Any:
    from earthsr.landuse.reconstruct import Inputs

    names = ("elevation", "slope", "soil", "distance_to_water", "latitude")
    return Inputs(
        anchor=f"{ANCHOR}={folder / f'landuse_{ANCHOR}.tif'}",
        scenario=tuple(sorted(folder.glob("scenario_*.nc"), reverse=True)),
        static=tuple(f"{name}={folder / 'static.nc'}:{name}" for name in names),
        bbox=bbox,
    )


def tiny_model(path: Path, like: Path) -> Path:
    """Network of a few hundred weights with the fields and classes of a trained one: it costs next to nothing."""
    from earthsr.models import UNetSpec, read_weights, resolve_checkpoint, write_weights
    from earthsr.models.weights import initial_weights

    file = read_weights(resolve_checkpoint(like))
    assert isinstance(file.spec, UNetSpec)
    spec = UNetSpec(
        file.spec.coarse_channels, file.spec.static_channels, file.spec.classes, width=2, depth=1, norm="none"
    )
    return write_weights(path, spec, initial_weights(spec, 0, keep_zeros=False), file.metadata)


def megabytes() -> float:
    """Largest resident memory of this process so far; getrusage would count what the parent held at the fork, too."""
    with open("/proc/self/status", encoding="ascii") as status:
        held = next(line for line in status if line.startswith("VmHWM"))
    return int(held.split()[1]) / 1024


def in_turn(first: Callable[[], Any], second: Callable[[], Any], times: int) -> tuple[list[float], list[float]]:
    """Seconds of two things that are done in turn; the first turn, which warms up, does not count."""
    seconds_of: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 1):
        for seconds, work in zip(seconds_of, (first, second), strict=True):
            began = time.perf_counter()
            work()
            if turn:
                seconds.append(time.perf_counter() - began)
    return seconds_of


# Each of these runs in a process of its own.


def landuse_worker(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    from earthsr.backend import Model
    from earthsr.landuse.maps import MapsSpec, Scratch, create_maps, open_maps
    from earthsr.landuse.reconstruct import Options
    from earthsr.landuse.reconstruct.plan import make_plan, open_inputs
    from earthsr.landuse.reconstruct.stages import Worker
    from earthsr.models import Precision

    folder = archives(options.output, 4096)
    side = options.size * CELL
    # Nearly all of it is land in the made globe's seed 0.
    box = (options.west, -side / 2, options.west + side, side / 2)
    model = Model.from_checkpoint(options.checkpoint, backend="torch", precision=Precision(options.amp_level))
    world = open_inputs(model, inputs_of(folder, box))
    chosen = Options(tile=options.tile, overlap=options.overlap, chunk=options.size, batch_size=options.batch)
    plan = make_plan(model, world, (ANCHOR, ANCHOR + 1), chosen)
    place = options.output / f"work-{os.getpid()}"
    place.mkdir(parents=True)
    spec = MapsSpec(plan.grid, world.crs, plan.years, world.table, plan.side, ("land_use",))
    create_maps(place / "maps.zarr", spec, {})
    scratch = Scratch.create_or_open(place / "static", plan.grid, len(world.static_channels) + 1, plan.side)
    worker = Worker(plan, open_maps(place / "maps.zarr"), scratch)
    for chunk in plan.lattice:
        worker.write(plan.steps[0], chunk, worker.begin(chunk))
    return model, plan, worker, place


def one_landuse(options: argparse.Namespace) -> dict[str, Any]:
    import shutil

    model, plan, worker, place = landuse_worker(options)
    step = plan.steps[1]
    try:
        chunk = plan.lattice[0]
        piece = worker.read(step, chunk)
        windows = [fields for _, fields in worker.inputs(step, piece)] if options.method == "earthsr" else []
        count, side = len(piece.tiles), plan.tiles.tile
        if options.method == "earthsr":
            del piece

            def bare() -> None:
                waiting = None
                for fields in windows:
                    pending = model.submit_fields(fields, pad_to=plan.batch_size)
                    if waiting is not None:
                        waiting.result()
                    waiting = pending
                waiting.result()

            def whole() -> None:
                for chunk in plan.lattice:
                    piece = worker.read(step, chunk)
                    worker.write(step, chunk, worker.compute(step, chunk, piece))

        else:
            import torch
            from monai.inferers import sliding_window_inference

            _, fields = next(iter(worker.inputs(step, piece)))
            same = {name: fields[name][:1] for name in ("coarse", "wy", "wx", "scalars")}
            stacked = np.concatenate([piece.ground.static, piece.ground.prior[None].astype(np.float32)])
            raster = torch.from_numpy(np.ascontiguousarray(stacked))[None]
            del piece, fields, stacked

            def network(batch: Any) -> Any:
                values = batch.numpy()
                given = {
                    "static": values[:, :-1],
                    "prior": values[:, -1].astype(np.uint8),
                    "prior_mask": (values[:, -1] != 255).astype(np.uint8),
                    **{name: np.repeat(values_of, len(values), axis=0) for name, values_of in same.items()},
                }
                given = {field.name: np.ascontiguousarray(given[field.name]) for field in model.spec.inputs}
                return torch.from_numpy(model.submit_fields(given).result())

            seen: list[Any] = []

            def looked(batch: Any) -> Any:
                seen.append(batch.shape[0])
                return network(batch)

            def slide(predictor: Any) -> Any:
                return sliding_window_inference(
                    raster, (side, side), plan.batch_size, predictor, overlap=options.overlap, mode="gaussian"
                ).argmax(1)

            slide(looked)
            sizes, count = list(seen), sum(seen)
            window = raster[..., :side, :side]

            def bare() -> None:
                for size in sizes:
                    network(window.expand(size, -1, -1, -1))

            def whole() -> None:
                slide(network)

        alone, pipeline = in_turn(bare, whole, options.times)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"windows": count, "bare": alone, "pipeline": pipeline, "megabytes": megabytes()}


def one_dem(options: argparse.Namespace) -> dict[str, Any]:
    from earthsr.backend import Model
    from earthsr.dem.predict.enlarge import enlarge
    from earthsr.dem.predict.plan import PredictOptions, make_plan
    from earthsr.geo import Georeference, MemorySink, array_source
    from earthsr.models import Precision

    model = Model.from_checkpoint(options.checkpoint, backend="torch", precision=Precision(options.amp_level))
    rng = np.random.default_rng(0)
    side = options.size // model.spec.scale
    values = (1000 + 30 * rng.normal(size=(side, side)).cumsum(0).cumsum(1) / 10).clip(0, 8000).astype(np.float32)
    place = Georeference(5.0, 45.0, CELL / 2, CELL / 2, side, side, "EPSG:4326", units="m")
    source = array_source(values, place)
    chosen = PredictOptions(tile=options.tile, overlap=options.overlap, batch_size=options.batch)
    plan = make_plan([model], source, chosen)
    tiles = [tile.window for chunk in plan.chunks for tile in plan.tiles.tiles(plan.area(chunk))]
    windows = [values[w.row : w.row + w.rows, w.column : w.column + w.columns][None] for w in tiles]

    if options.method == "earthsr":

        def bare() -> None:
            waiting = None
            for start in range(0, len(windows), plan.batch_size):
                pending = model.submit(np.stack(windows[start : start + plan.batch_size]), plan.batch_size)
                if waiting is not None:
                    waiting.result()
                waiting = pending
            waiting.result()

        def whole() -> None:
            # What compares with the exact mode at some places is no blending, and is left out.
            enlarge(plan, MemorySink(plan.output, plan.bands), compare=False)

        count = len(windows)
    else:
        import torch
        from monai.inferers import sliding_window_inference

        raster = torch.from_numpy(values)[None, None]
        sizes: list[int] = []

        def network(batch: Any) -> Any:
            return torch.from_numpy(model.submit(batch.numpy()).result())

        def looked(batch: Any) -> Any:
            sizes.append(batch.shape[0])
            return network(batch)

        def slide(predictor: Any) -> Any:
            roi = (options.tile, options.tile)
            return sliding_window_inference(
                raster, roi, plan.batch_size, predictor, overlap=options.overlap, mode="gaussian"
            )

        slide(looked)
        taken, count = list(sizes), sum(sizes)
        window = raster[..., : options.tile, : options.tile]

        def bare() -> None:
            for size in taken:
                network(window.expand(size, -1, -1, -1))

        def whole() -> None:
            slide(network)

    alone, pipeline = in_turn(bare, whole, options.times)
    return {"windows": count, "bare": alone, "pipeline": pipeline, "megabytes": megabytes()}


def one_memory(options: argparse.Namespace) -> dict[str, Any]:
    import shutil

    from earthsr.backend import Model
    from earthsr.landuse.reconstruct import Options, reconstruct

    model = Model.from_checkpoint(options.checkpoint, backend="torch")
    before = megabytes()
    target = options.output / f"belt-{options.size}.zarr"
    chosen = Options(tile=options.tile, overlap=options.overlap, chunk=options.chunk, match_areas=True)
    began = time.perf_counter()
    try:
        report = reconstruct(
            model,
            inputs_of(archives(options.output, options.size)),
            (ANCHOR, ANCHOR + 1),
            target,
            chosen,
            overwrite=True,
        )
    finally:
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(target.with_name(f"{target.stem}_report"), ignore_errors=True)
    return {
        "rows": options.size,
        "seconds": time.perf_counter() - began,
        "chunks": report["chunks"],
        "windows": report["windows"],
        "megabytes_before": before,
        "megabytes": megabytes(),
    }


def one_seams(options: argparse.Namespace) -> dict[str, Any]:
    """Mean step of probabilities across each column; borders of windows against all other columns."""
    import shutil

    from earthsr.inference import tiling

    _, plan, worker, place = landuse_worker(options)
    step, chunk = plan.steps[1], plan.lattice[0]
    ordinary, seams = tiling.bell, {}
    try:
        piece = worker.read(step, chunk)
        for name, bell in (("gaussian", ordinary), ("constant", lambda cells: np.ones(cells))):
            tiling.bell = bell
            chances = worker._probabilities(step, piece)
            steps = np.abs(np.diff(chances, axis=-1)).sum(axis=0).mean(axis=0)
            window = plan.window(chunk)
            tiles = [tile.window for tile in plan.tiles.tiles(window)]
            edges = {w.column for w in tiles} | {w.column + w.columns for w in tiles}
            borders = sorted(edge - 1 for edge in edges if 0 < edge < window.columns)
            others = np.delete(steps, borders)
            seams[name] = {
                "borders": len(borders),
                "largest_over_median": float(steps[borders].max() / np.median(others)),
                "mean_over_median": float(steps[borders].mean() / np.median(others)),
                "elsewhere_largest_over_median": float(others.max() / np.median(others)),
            }
    finally:
        tiling.bell = ordinary
        shutil.rmtree(place, ignore_errors=True)
    return seams


ONE = {"landuse": one_landuse, "dem": one_dem, "memory": one_memory, "seams": one_seams}


def run_one(kind: str, **values: Any) -> dict[str, Any]:
    words = [sys.executable, __file__, "one", kind]
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    measures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measures


def overhead(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    tiny = tiny_model(options.output / "tiny.safetensors", options.landuse)
    for network, kind, checkpoint, tile in (
        ("land use", "landuse", options.landuse, 256),
        ("next to nothing", "landuse", tiny, 256),
        ("elevation", "dem", options.dem, 128),
    ):
        if checkpoint is None:
            continue
        for overlap in (0.25, 0.5):
            for method in ("earthsr", "monai"):
                measures = run_one(
                    kind,
                    checkpoint=checkpoint,
                    output=options.output,
                    size=options.size if kind == "landuse" else 2560,
                    tile=tile,
                    overlap=overlap,
                    times=options.times,
                    method=method,
                    west=options.west,
                    amp_level=options.amp_level,
                )
                ratios = [whole / alone for whole, alone in zip(measures["pipeline"], measures["bare"], strict=True)]
                rows.append(
                    {
                        "network": network,
                        "overlap": overlap,
                        "method": method,
                        "windows": measures["windows"],
                        "bare_s": statistics.median(measures["bare"]),
                        "pipeline_s": statistics.median(measures["pipeline"]),
                        "overhead_percent": 100 * (statistics.median(ratios) - 1),
                        "megabytes": measures["megabytes"],
                    }
                )
                show(rows[-1:])
    return rows


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    tiny = tiny_model(options.output / "tiny.safetensors", options.landuse)
    rows = []
    for size in options.sizes:
        archives(options.output, size)
        rows.append(
            run_one(
                "memory", checkpoint=tiny, output=options.output, size=size, tile=256, overlap=0.25, chunk=options.chunk
            )
        )
        show(rows[-1:])
    return rows


def seams(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for overlap in (0.0, 0.25, 0.5):
        seams = run_one(
            "seams",
            checkpoint=options.landuse,
            output=options.output,
            size=options.size,
            tile=256,
            overlap=overlap,
            west=options.west,
            amp_level=options.amp_level,
        )
        rows += [{"overlap": overlap, "weights": name, **seam} for name, seam in seams.items()]
    show(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("; ".join(shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "memory", "seams", "one"])
    parser.add_argument("kind", nargs="?", choices=list(ONE), help="of one measurement in this process")
    parser.add_argument("--landuse", type=Path, help="run of a land-use model trained on the sample")
    parser.add_argument("--dem", type=Path, help="run of an elevation model")
    parser.add_argument("--output", type=Path, required=True, help="folder for made rasters and results")
    parser.add_argument("--size", type=int, default=2048, help="fine cells per side")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096], help="rows of belts")
    parser.add_argument("--times", type=int, default=3, help="measurements, in turn with the bare network")
    parser.add_argument("--west", type=float, default=0.0, help="western edge of the square that is mapped")
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--amp-level", default="O0")
    for name, kind in (("checkpoint", Path), ("tile", int), ("overlap", float), ("batch", int), ("method", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "one":
        print(json.dumps(ONE[options.kind](options)))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    rows = {"overhead": overhead, "memory": memory, "seams": seams}[options.what](options)
    (options.output / f"{options.what}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

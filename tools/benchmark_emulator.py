"""Latency of the coupled emulator: one model year of a region, of the globe by extrapolation, start-up and memory.

    OMP_NUM_THREADS=2 python tools/benchmark_emulator.py --checkpoint runs/landuse-demo --output runs/bench-emulator

Backends are measured one after the other, each in a process of its own, with `--python NAME=INTERPRETER` in one of its
own environment. The region is a square of a made globe (`earthsr.samples.world.globe`) where nearly all is land, at
0.01 degrees; a coupled year is one `Emulator.step` from arrays in memory to a Dataset in memory, areas matched. For the
globe, a strip as wide as it is asked for is measured, and its time per window multiplied by the windows of 36,000 x
18,000 cells: all of them, and the third of them that has land. `onnx` exports the checkpoint first. Run it alone: two
programs side by side measure each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
YEARS = (2000, 2001, 2002, 2003)
#: West, south of the made globe's seed 0 where nearly all is land.
PLACE = (0.0, 0.0)
#: Share of the globe's windows that have land, about.
LAND = 1 / 3


def megabytes() -> float:
    """Largest resident memory of this process so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        held = next(line for line in status if line.startswith("VmHWM"))
    return int(held.split()[1]) / 1024


def region(height_deg: float, width_deg: float, cell_deg: float, west_deg: float, names: list[str]) -> dict[str, Any]:
    """Static fields, maps and fractions of a part of the made globe, south edge on the equator."""
    import numpy as np
    import xarray as xr

    from earthsr.geo.grid import Window
    from earthsr.samples.world.globe import Globe, GlobeSpec

    globe = Globe(GlobeSpec(cell_deg, YEARS, 0, 0.25, 0.0, height_deg))
    rows, columns = globe.grid.rows, round(width_deg / cell_deg)
    window = Window(0, round((west_deg - globe.grid.west) / cell_deg), rows, columns)
    lat = globe.grid.latitudes()
    lon = globe.grid.longitudes()[window.column : window.column + columns]
    fields = dict(zip((c.name for c in globe.static_channels), globe.static(window), strict=True))
    static = xr.Dataset({name: (("lat", "lon"), fields[name]) for name in names}, {"lat": lat, "lon": lon})
    maps = {year: globe.classes(year, window) for year in YEARS}
    return {"static": static, "maps": maps, "table": globe.table, "lat": lat, "lon": lon, "np": np}


def forcing_of(emulator: Any, classes: Any, year: int) -> Any:
    """Fractions of a map in the emulator's coarse cells, as a coupler would hand them over."""
    import numpy as np
    import xarray as xr

    from earthsr.landuse.emulator.memory import areas_km2

    coarse, table = emulator.forcing_grid, emulator.table
    areas = areas_km2(classes, len(table) + 1, emulator.grid, coarse)
    whole = areas_km2(np.zeros_like(classes), 1, emulator.grid, coarse)[0]
    share = areas[: len(table)] / np.maximum(whole, 1e-9)
    inside = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    channels = {}
    for land_class, values in zip(table.classes, share, strict=True):
        known = (land_class.name,) if land_class.name in emulator.channels else land_class.forcing
        for channel in known:
            if channel in emulator.channels:
                channels[channel] = values / len(known)
    stack = np.stack([channels[channel] for channel in emulator.channels])[:, inside[0][:, None], inside[1]]
    coordinates = {
        "channel": list(emulator.channels),
        "lat": coarse.latitudes()[inside[0]],
        "lon": coarse.longitudes()[inside[1]],
        "year": year,
    }
    return xr.DataArray(stack.astype(np.float32), coordinates, ("channel", "lat", "lon"))


def measured(options: argparse.Namespace, height_deg: float, width_deg: float) -> dict[str, Any]:
    """Seconds of coupled years of a region."""
    import xarray as xr

    from earthsr import Emulator
    from earthsr.landuse.maps.layout import to_codes
    from earthsr.models import read_weights, resolve_checkpoint

    names = read_weights(resolve_checkpoint(options.checkpoint)).metadata["static_channels"]
    made = region(height_deg, width_deg, options.cell, options.west, list(names))
    began = time.perf_counter()
    emulator = Emulator.load(
        options.opened or options.checkpoint,
        static=made["static"],
        backend=options.one,
        device=options.device,
        precision=options.amp_level,
    )
    codes = to_codes(made["maps"][YEARS[0]], emulator.table)
    at = {"lat": made["lat"], "lon": made["lon"]}
    state = emulator.start(xr.DataArray(codes, at, ("lat", "lon")), YEARS[0])
    loaded = time.perf_counter() - began
    seconds = []
    for year in YEARS[1:]:
        forcing = forcing_of(emulator, made["maps"][year], year)
        began = time.perf_counter()
        state = emulator.step(forcing, year)
        seconds.append(time.perf_counter() - began)
    tiles = emulator._method.tiles
    windows = sum(axis.count for axis in tiles.axes[:1]) * tiles.axes[1].count
    return {
        "cells": [emulator.grid.rows, emulator.grid.columns],
        "land_share": float((codes != 255).mean()),
        "windows": windows,
        "tile": tiles.tile,
        "overlap": tiles.overlap,
        "load_seconds": loaded,
        "first_year_seconds": seconds[0],
        "year_seconds": statistics.median(seconds[1:]),
        "area_error_percent": float(state.attrs["area_error_percent"]),
        "backend": state.attrs["backend"],
        "device": state.attrs["device"],
        "precision": state.attrs["precision"],
    }


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one backend in this process."""
    import earthsr  # noqa: F401
    from earthsr.inference.tiling import BlendedTiles

    imported = time.perf_counter() - BEGAN
    measures: dict[str, Any] = {
        "import_seconds": imported,
        "region": measured(options, options.degrees, options.degrees),
    }
    measures["region"]["peak_megabytes"] = megabytes()
    strip = measured(options, options.strip[0], options.strip[1])
    rows, columns = round(180 / options.cell), round(360 / options.cell)
    whole = BlendedTiles(rows, columns, strip["tile"], strip["overlap"], periodic=True, whole=True)
    windows = whole.axes[0].count * whole.axes[1].count
    # Chunks of 2,048 cells share windows with their neighbours: docs/reconstruct.md.
    hours = strip["year_seconds"] / strip["windows"] * windows / 3600
    measures["strip"] = {**strip, "peak_megabytes": megabytes()}
    measures["globe"] = {
        "cells": [rows, columns],
        "windows": windows,
        "hours_all_windows": hours,
        "hours_land_windows": hours * LAND,
        "memory_gigabytes_of_static_and_maps": rows * columns * (4 * 6 + 4 + 3) / 1e9,
    }
    return measures


def exported(options: argparse.Namespace) -> Path:
    """ONNX file of the checkpoint; made once."""
    path = options.output / "model.onnx"
    if not path.exists():
        command = [options.python_of.get("torch", sys.executable), "-m", "earthsr", "export"]
        done = subprocess.run(
            [*command, str(options.checkpoint), str(path), "--backend", "torch"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError("earthsr export: " + (done.stderr.strip().splitlines() or ["no such verb"])[-1])
    return path


def run(options: argparse.Namespace, backend: str) -> dict[str, Any]:
    """Measure one backend in a process of its own; what is not there is said."""
    words = [
        options.python_of.get(backend, sys.executable), __file__, "--one", backend, "--checkpoint", options.checkpoint,
        "--output", options.output, "--degrees", options.degrees, "--cell", options.cell, "--west", options.west,
        "--strip", *options.strip, "--device", options.device, "--amp-level", options.amp_level,
    ]  # fmt: skip
    try:
        if backend == "onnx":
            words += ["--opened", exported(options)]
    except RuntimeError as error:
        return {"absent": str(error)}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"absent": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def table(backends: dict[str, Any]) -> str:
    """Make a table in Markdown."""
    lines = [
        "| backend | import (s) | load (s) | first year (s) | year (s) | peak (MB) | globe, land (h a year) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, measures in backends.items():
        if "absent" in measures:
            lines.append(f"| {name} | not measured: {measures['absent']} | | | | | |")
            continue
        region, globe = measures["region"], measures["globe"]
        lines.append(
            f"| {name} | {measures['import_seconds']:.2f} | {region['load_seconds']:.2f} "
            f"| {region['first_year_seconds']:.2f} | {region['year_seconds']:.2f} | {region['peak_megabytes']:.0f} "
            f"| {globe['hours_land_windows']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/bench-emulator"))
    parser.add_argument("--backends", nargs="+", default=["torch", "mindspore", "onnx"])
    parser.add_argument("--degrees", type=float, default=10.0, help="side of the region")
    parser.add_argument("--cell", type=float, default=0.01, help="side of a fine cell, degrees; divides 0.25")
    parser.add_argument("--west", type=float, default=PLACE[0], help="western edge of the region, degrees")
    parser.add_argument("--strip", type=float, nargs=2, default=(2.5, 40.0), help="height and width, degrees")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp-level", default="O0")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="interpreter of a backend")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options)))
        return
    options.python_of = dict(pair.split("=", 1) for pair in options.python)
    options.output.mkdir(parents=True, exist_ok=True)
    measures = {}
    for backend in options.backends:
        measures[backend] = run(options, backend)
        print(f"{backend}: {measures[backend].get('absent', 'done')}", file=sys.stderr)
    about = {
        "degrees": options.degrees,
        "cell_deg": options.cell,
        "strip_deg": list(options.strip),
        "precision": options.amp_level,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cores": os.cpu_count(),
    }
    path = options.output / "latency.json"
    path.write_text(json.dumps({"about": about, "backends": measures}, indent=1))
    print(table(measures))
    print(path)


if __name__ == "__main__":
    main()

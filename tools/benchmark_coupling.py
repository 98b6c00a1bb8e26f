"""Latency of a coupled year from Fortran beside the same from Python: what the library between them costs.

    OMP_NUM_THREADS=1 python tools/benchmark_coupling.py --checkpoint demo-landuse --output runs/bench-coupling

A region of a made globe (`tools/benchmark_emulator.py`), 10 x 10 degrees of 0.01 unless said otherwise. Both sides are
a process each, which opens the emulator once; then they take turns, a year each: all fractions are set, `update`, and
the map is read where it lies. Maps have to be the same. Medians, and the overhead, are printed and written to
`coupling.json`: by the clock and of processors; and, which other programs on the machine do not disturb, what the
clock of a host shows beside the work of the year itself. Needs gfortran and pkg-config.
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

CODES = "land_surface__land_use_class_code"


def write_inputs(options: argparse.Namespace) -> tuple[Path, Path]:
    """Static fields, anchor, configuration and two years of fractions of the region."""
    import numpy as np
    import rasterio
    import xarray as xr
    from benchmark_emulator import YEARS, forcing_of, region

    from earthsr import Emulator
    from earthsr.landuse.maps.layout import to_codes
    from earthsr.models import read_weights, resolve_checkpoint

    names = list(read_weights(resolve_checkpoint(options.checkpoint)).metadata["static_channels"])
    made = region(options.degrees, options.degrees, options.cell, 0.0, names)
    folder = options.output
    made["static"].to_netcdf(folder / "static.nc", engine="h5netcdf")
    emulator = Emulator.load(options.checkpoint, static=made["static"], backend=options.backend)
    grid = emulator.grid
    place = rasterio.transform.from_origin(grid.west, grid.north, grid.cell_x, grid.cell_y)
    profile = {"height": grid.rows, "width": grid.columns, "count": 1, "crs": "EPSG:4326", "transform": place}
    with rasterio.open(folder / "anchor.tif", "w", driver="GTiff", dtype="uint8", nodata=255, **profile) as file:
        file.write(to_codes(made["maps"][YEARS[0]], emulator.table), 1)
    coarse = emulator.forcing_grid
    at = {"lat": coarse.latitudes()[::-1], "lon": coarse.longitudes()}
    years = []
    for year in YEARS[1:3]:
        forcing: xr.DataArray = forcing_of(emulator, made["maps"][year], year)
        years.append(forcing.reindex(at, method="nearest").transpose("channel", "lat", "lon").values)
    np.stack(years).astype("<f8").tofile(folder / "fractions.bin")
    checkpoint = options.checkpoint if not Path(options.checkpoint).exists() else Path(options.checkpoint).resolve()
    config = {
        "checkpoint": str(checkpoint),
        "static": "static.nc",
        "anchor": f"{YEARS[0]}=anchor.tif",
        "end_year": 2300,
        "backend": options.backend,
    }
    (folder / "coupling.yaml").write_text(json.dumps(config))  # JSON is YAML
    return folder / "coupling.yaml", folder / "fractions.bin"


def build_host(folder: Path) -> Path:
    """Build the library and the host in Fortran."""
    from earthsr.emulator.c_library import build_c_library

    build_c_library(folder / "library")
    found = subprocess.run(
        ["pkg-config", "--libs", "earthsr_bmi"],
        env={**os.environ, "PKG_CONFIG_PATH": str(folder / "library" / "lib" / "pkgconfig")},
        capture_output=True,
        text=True,
        check=True,
    )
    module = folder / "library" / "include" / "earthsr_bmi.f90"
    source = Path(__file__).with_suffix(".f90")
    words = ["gfortran", "-O2", "-J", str(folder), "-o", str(folder / "host"), str(module), str(source)]
    subprocess.run([*words, *found.stdout.split()], check=True)
    return folder / "host"


def couple(config: str, fractions: str) -> None:
    """Be the host in Python: what the one in Fortran does."""
    import numpy as np

    from earthsr.landuse.emulator.bmi import EarthsrBmi

    land = EarthsrBmi()
    land.initialize(config)
    names = land.get_input_var_names()
    values = np.fromfile(fractions, "<f8").reshape(-1, len(names), land.get_grid_size(1))
    codes = land.get_value_ptr(CODES)
    for turn, _ in enumerate(sys.stdin):
        began, began_cpu = time.perf_counter(), time.process_time()
        for name, given in zip(names, values[turn % len(values)], strict=True):
            land.set_value(name, given)
        before = time.perf_counter()
        land.update()
        year = time.perf_counter() - before
        checksum = int(codes.sum(dtype=np.int64))
        seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        print(f"{seconds:.6e} {cpu:.6e} {year:.6e} {checksum}", flush=True)


def measured(hosts: dict[str, list[str]], turns: int) -> dict[str, list[tuple[float, ...]]]:
    """Seconds of each year of each host: by the clock, of processors, of the year's own work; the first is left out."""
    running = {
        name: subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, words in hosts.items()
    }
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in hosts}
    for turn in range(turns + 1):
        checksums = set()
        # Who goes first changes: the second finds caches and clocks as the first has left them.
        for name in sorted(running, reverse=bool(turn % 2)):
            process = running[name]
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("year\n")
            process.stdin.flush()
            *took, checksum = process.stdout.readline().split()
            checksums.add(checksum)
            if turn:
                seconds[name].append(tuple(map(float, took)))
        assert len(checksums) == 1, f"the hosts' maps differ in turn {turn}"
    for process in running.values():
        process.communicate()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo-landuse")
    parser.add_argument("--output", type=Path, default=Path("runs/bench-coupling"))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--degrees", type=float, default=10.0, help="side of the region")
    parser.add_argument("--cell", type=float, default=0.01, help="side of a fine cell, degrees; divides 0.25")
    parser.add_argument("--turns", type=int, default=5, help="years of each process, after the first")
    parser.add_argument(
        "--rounds", type=int, default=3, help="processes of each side, for these differ among themselves"
    )
    parser.add_argument("--couple", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.couple:
        couple(*options.couple)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    options.output = options.output.resolve()
    config, fractions = write_inputs(options)
    host = build_host(options.output)
    given = [str(config), str(fractions)]
    hosts = {"Fortran": [str(host), *given], "Python": [sys.executable, __file__, "--couple", *given]}
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in hosts}
    for _ in range(options.rounds):
        for name, turns in measured(hosts, options.turns).items():
            seconds[name] += turns
    results: dict[str, Any] = {
        "degrees": options.degrees,
        "cell_deg": options.cell,
        "backend": options.backend,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "seconds": seconds,
    }
    for number, what in enumerate(("clock", "processors")):
        of_host = {name: [turn[number] for turn in turns] for name, turns in seconds.items()}
        median = {name: statistics.median(values) for name, values in of_host.items()}
        pairs = [a / b - 1 for a, b in zip(of_host["Fortran"], of_host["Python"], strict=True)]
        overhead = 100 * (median["Fortran"] / median["Python"] - 1)
        results[what] = {"median_seconds": median, "overhead_percent": overhead}
        for name, values in of_host.items():
            print(
                f"{what}, {name}: {median[name]:.3f} s a year (median of {len(values)}, {min(values):.3f} to "
                f"{max(values):.3f})"
            )
        print(f"{what}: overhead {overhead:.2f} %, median of turns {100 * statistics.median(pairs):.2f} %")
    for name, turns in seconds.items():
        beside = statistics.median(100 * (clock / year - 1) for clock, _, year in turns)
        results.setdefault("beside_the_year_percent", {})[name] = beside
        print(f"{name}: all that is not the year's own work, setting and reading included, is {beside:.2f} % of it")
    path = options.output / "coupling.json"
    path.write_text(json.dumps(results, indent=1))
    print(path)


if __name__ == "__main__":
    main()

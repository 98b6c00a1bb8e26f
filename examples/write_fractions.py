"""Fractions of a scenario as the hosts in C and Fortran read them: one file of float64, whatever their language.

    python examples/write_fractions.py coupling.yaml scenario_*.nc --output fractions.bin

For each year from the one after the anchor's to the end that ``coupling.yaml`` names: (channels, rows, columns) of the
interface's coarse grid, rows from south to north, in the order of the interface's inputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

from earthsr.landuse.emulator.bmi import EarthsrBmi


def write_fractions(config: str | Path, scenario: list[Path], output: Path) -> None:
    """Write the fractions of all years of a run."""
    land = EarthsrBmi()
    land.initialize(str(config))
    rows, columns = land.get_grid_shape(1, np.empty(2, int))
    at = {"lat": land.get_grid_y(1, np.empty(rows)), "lon": land.get_grid_x(1, np.empty(columns))}
    # land_surface_grass-shrub__area_fraction: the states of a scenario are called grass_shrub.
    inputs = land.get_input_var_names()
    channels = [name.removeprefix("land_surface_").split("__")[0].replace("-", "_") for name in inputs]
    by_year = {}
    for path in scenario:
        with xr.open_dataset(path, decode_times=False) as states:
            first = int(states["time"].attrs["units"].split("since")[1].split("-")[0])
            for i, offset in enumerate(states["time"].values):
                # Beyond the scenario's edge its outermost cells stand.
                region = states[channels].isel(time=i).reindex(at, method="nearest")
                by_year[first + int(offset)] = np.stack([region[name].values for name in channels])
    step, start, end = (int(get()) for get in (land.get_time_step, land.get_start_time, land.get_end_time))
    land.finalize()
    years = range(start + step, end + step, step)
    missing = [year for year in years if year not in by_year]
    if missing:
        raise SystemExit(f"the scenario ends before {missing[0]}; give the files with {years[0]} to {years[-1]}")
    output.write_bytes(b"".join(np.nan_to_num(by_year[year]).astype("<f8").tobytes() for year in years))


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="what the emulator opens")
    parser.add_argument("scenario", type=Path, nargs="+", help="NetCDF files of annual fractions")
    parser.add_argument("--output", type=Path, default=Path("fractions.bin"))
    options = parser.parse_args()
    write_fractions(options.config, options.scenario, options.output)


if __name__ == "__main__":
    main()

"""Carbon emissions from land-use change: a toy bookkeeping model, coupled with the land-use emulator through BMI.

    python examples/carbon.py                                             # trains a small emulator first
    python examples/carbon.py --checkpoint RUN --archives ARCHIVES --output carbon.png

Each year the coupler hands over the scenario's coarse fractions, the emulator makes the map of the year, and the carbon
model counts what changed class: a part of the carbon is lost at once, the rest decays for years (Houghton et al., 1983,
began so); land that gains carbon takes it up slowly. What was committed before the first year is not counted. Densities
are round numbers for a picture, not measurements. Without --checkpoint a small synthetic world is made and learnt in
about a minute.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from matplotlib.figure import Figure

from earthsr.errors import EarthsrError
from earthsr.landuse.emulator.bmi import EarthsrBmi

#: Carbon of vegetation and soil by HILDA+ class code, tonnes a hectare.
DENSITY_TC_HA = {11: 60, 22: 60, 33: 90, 40: 220, 55: 110, 66: 20, 77: 0}
NAMES = {11: "urban", 22: "cropland", 33: "pasture", 40: "forest", 55: "grass/shrub", 66: "sparse", 77: "water"}
LOST_AT_ONCE, DECAY_YEARS, UPTAKE_YEARS = 0.4, 10.0, 30.0
HECTARES_PER_KM2, TONNES_PER_TG = 100.0, 1e6

CLASS, CELL_AREA = "land_surface__land_use_class_code", "land_surface_grid_cell__area"


@dataclass
class Bookkeeping:
    """Carbon that is on its way, TgC; positive fluxes go into the atmosphere."""

    decaying: float = 0.0
    growing: float = 0.0
    fluxes: list[tuple[float, float, float]] = field(default_factory=list)
    """By year: at once, from what was lost earlier, uptake (negative)."""

    def step(self, before: np.ndarray, after: np.ndarray, area_km2: np.ndarray) -> None:
        """Count a year: class codes of cells before and after it, and their areas."""
        density = np.zeros(256)
        density[list(DENSITY_TC_HA)] = list(DENSITY_TC_HA.values())
        lost = (density[before] - density[after]) * HECTARES_PER_KM2 * area_km2 / TONNES_PER_TG
        loss, gain = float(lost[lost > 0].sum()), float(-lost[lost < 0].sum())
        legacy = self.decaying * -math.expm1(-1 / DECAY_YEARS)
        uptake = self.growing * -math.expm1(-1 / UPTAKE_YEARS)
        self.decaying += (1 - LOST_AT_ONCE) * loss - legacy
        self.growing += gain - uptake
        self.fluxes.append((LOST_AT_ONCE * loss, legacy, -uptake))


def variable_of(name: str) -> str:
    """Variable of the scenario for an input: ``land_surface_grass-shrub__area_fraction`` takes ``grass_shrub``."""
    return name.removeprefix("land_surface_").removesuffix("__area_fraction").replace("-", "_")


def couple(config: Path, scenario: xr.Dataset) -> tuple[list[int], Bookkeeping, dict[int, list[float]]]:
    """Run the emulator to the end of its years through the Basic Model Interface alone."""
    land = EarthsrBmi()
    land.initialize(str(config))
    rows, columns = land.get_grid_shape(1, np.empty(2, int))
    at = {"lat": land.get_grid_y(1, np.empty(rows)), "lon": land.get_grid_x(1, np.empty(columns))}
    size = land.get_grid_size(land.get_var_grid(CLASS))
    area_km2 = land.get_value(CELL_AREA, np.empty(size))
    before, carbon, years = land.get_value(CLASS, np.empty(size, np.uint8)), Bookkeeping(), []
    areas = {code: [float(area_km2[before == code].sum())] for code in NAMES}
    while land.get_current_time() < land.get_end_time():
        year = int(land.get_current_time() + land.get_time_step())
        fractions = scenario.sel(year=year).reindex(at, method="nearest")
        for name in land.get_input_var_names():
            land.set_value(name, fractions[variable_of(name)].values)
        land.update()
        after = land.get_value(CLASS, np.empty(size, np.uint8))
        carbon.step(before, after, area_km2)
        for code in areas:
            areas[code].append(float(area_km2[after == code].sum()))
        years, before = [*years, year], after
    land.finalize()
    return years, carbon, areas


def open_scenario(folder: Path) -> xr.Dataset:
    """Fractions after the anchor, with calendar years."""
    with xr.open_dataset(folder / "scenario_future.nc", decode_times=False) as file:
        first = int(file["time"].attrs["units"].split("since")[1].split("-")[0])
        years = (first + file["time"].values).astype(int)
        return file.load().assign_coords(time=years).rename(time="year")


def make_world(folder: Path, backend: str | None) -> tuple[Path, Path]:
    """Make a small synthetic world, and an emulator that has learnt it: run folder and archives."""
    import earthsr
    from earthsr.config import from_mapping
    from earthsr.samples.landuse import write_sample_landuse
    from earthsr.samples.world import WorldSpec

    spec = WorldSpec(rows=96, columns=512, years=tuple(range(1980, 2000)), seed=3)
    write_sample_landuse(folder / "data", spec, tile_size=32, held_out_last=5, archives=True)
    values = {
        "model": {"name": "unet", "coarse_channels": 7, "static_channels": 5, "classes": 7, "width": 8, "depth": 2},
        "data": {"root_dir": str(folder / "data"), "patch_size": 32, "batch_size": 8, "num_workers": 1},
        "optimizer": {"learning_rate": 5e-3, "epochs": 3},
        "summary": {"summary_dir": str(folder / "run")},
        "backend": backend,
    }
    earthsr.train(from_mapping(values))
    return folder / "run", folder / "data" / "archives"


def draw(years: list[int], carbon: Bookkeeping, areas: dict[int, list[float]], output: Path) -> None:
    """Draw fluxes and areas."""
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    at_once, legacy, uptake = np.array(carbon.fluxes).T
    upper.bar(years, at_once, color="#c8553d", label="lost at once")
    upper.bar(years, legacy, bottom=at_once, color="#e9a178", label="decay of what was lost earlier")
    upper.bar(years, uptake, color="#3c6e47", label="uptake by regrowth")
    upper.plot(years, at_once + legacy + uptake, "k.-", label="net")
    upper.use_sticky_edges = False  # else the highest bar would touch the frame
    upper.axhline(0, color="0.5", lw=0.8)
    upper.set_ylabel("emissions from land-use change\n(TgC per year)")
    upper.set_title("A toy bookkeeping model coupled with the emulator (synthetic, densities made up)")
    upper.legend(fontsize=8, frameon=False, ncols=2)
    colours = {11: "#d7191c", 22: "#d9a514", 33: "#9ab83a", 40: "#1b7837", 55: "#a08a4f"}
    for code, colour in colours.items():
        change = np.array(areas[code]) - areas[code][0]
        lower.plot([years[0] - 1, *years], change / 1000, color=colour, label=NAMES[code])
    lower.axhline(0, color="0.5", lw=0.8)
    lower.set_ylabel("change of area since the start\n(1000 km²)")
    lower.legend(fontsize=8, frameon=False, ncols=3)
    lower.xaxis.get_major_locator().set_params(integer=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="run folder or weights of a land-use model; trained if absent")
    parser.add_argument("--archives", type=Path, help="folder that earthsr sample landuse DIR --archives wrote")
    parser.add_argument("--output", type=Path, default=Path("carbon.png"))
    parser.add_argument("--backend", help="torch, mindspore; the only one installed where absent")
    options = parser.parse_args()
    if (options.checkpoint is None) != (options.archives is None):
        parser.error("--checkpoint and --archives go together: an emulator, and the world that it is run for")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoint, archives = options.checkpoint, options.archives
        if checkpoint is None:
            checkpoint, archives = make_world(place, options.backend)
        scenario = open_scenario(archives)
        first, last = int(scenario["year"][0]), int(scenario["year"][-1])
        config = {
            "checkpoint": str(checkpoint.absolute()),
            "static": str((archives / "static.nc").absolute()),
            "anchor": f"{first}={(archives / f'landuse_{first}.tif').absolute()}",
            "end_year": last,
            "fixed": ["water"],
            "backend": options.backend,
        }
        (place / "coupling.yaml").write_text(yaml.safe_dump(config))
        years, carbon, areas = couple(place / "coupling.yaml", scenario)
    print("year  at once   legacy   uptake      net (TgC)")
    for year, (at_once, legacy, uptake) in zip(years, carbon.fluxes, strict=True):
        print(f"{year} {at_once:8.3f} {legacy:8.3f} {uptake:8.3f} {at_once + legacy + uptake:8.3f}")
    draw(years, carbon, areas, options.output)
    print(options.output)


if __name__ == "__main__":
    try:
        main()
    except EarthsrError as error:
        sys.exit(f"error: {error}")

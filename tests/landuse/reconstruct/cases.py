"""Small worlds and untrained networks for reconstructions: what a network says matters less than that it stays."""

from pathlib import Path

import numpy as np
import pytest

from earthsr.geo.grid import Window
from earthsr.inference.journal import Journal
from earthsr.landuse.maps import open_maps
from earthsr.landuse.reconstruct import Inputs, Options, reconstruct
from earthsr.landuse.split import LandUseData
from earthsr.models import UNetSpec, write_weights
from earthsr.models.weights import initial_weights

#: Of a grid of 48 x 256 cells, with coarse cells of 16.
SMALL = Options(chunk=32, batch_size=4)


def write_model(path, root, seed=1, width=4, depth=1, sharpen=8.0, **more):
    """Write an untrained network for the classes and channels of a data folder.

    Its last weights are enlarged, so that probabilities differ between cells and maps change from year to year.
    """
    layout = LandUseData({"root_dir": str(root), "patch_size": 16}, "train").layout
    spec = UNetSpec(
        coarse_channels=len(layout.coarse_channels),
        static_channels=len(layout.static_channels),
        classes=len(layout.table),
        width=width,
        depth=depth,
        **more,
    )
    weights = initial_weights(spec, seed, keep_zeros=False)
    weights = {name: value * (sharpen if name.startswith("out.") else 1) for name, value in weights.items()}
    metadata = {
        "normalisation": layout.statistics.normalisation(None).to_dict(),
        "task": "land_use",
        "class_table": layout.table.to_json(),
        "static_channels": [channel.name for channel in layout.static_channels],
        "coarse_channels": list(layout.coarse_channels),
        "coarse_interpolation": "bilinear",
        "tile_size": 16,
        "output_cell_size_deg": [layout.fine.cell_y, layout.fine.cell_x],
    }
    return write_weights(Path(path), spec, {k: v.astype(np.float32) for k, v in weights.items()}, metadata)


def inputs_of(folder, **more):
    """Inputs of the archives that ``earthsr sample landuse --archives`` writes."""
    folder = Path(folder)
    statics = ("elevation", "slope", "soil", "distance_to_water", "latitude")
    found = {
        "anchor": str(folder / "landuse_1993.tif"),
        "scenario": (folder / "scenario_historical.nc", folder / "scenario_future.nc"),
        "static": tuple(f"{name}={folder / 'static.nc'}:{name}" for name in statics),
    }
    return Inputs(**{**found, **more})


class Killed(BaseException):
    """Stands for a kill: nothing after it is done, but what the operating system does."""


def cut_off(after, *arguments, **options):
    """Reconstruct, and be killed as soon as so many chunks are recorded."""
    add, left = Journal.add, [after]

    def added(self, *record):
        if not left[0]:
            raise Killed
        left[0] -= 1
        add(self, *record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "add", added)
        with pytest.raises(Killed):
            reconstruct(*arguments, **options)


def box(grid, row, column, rows, columns):
    """``--bbox`` of a window, a tenth of a cell inside its edges."""
    west, north = grid.west + column * grid.cell_x, grid.north - row * grid.cell_y
    inset = 0.1 * grid.cell_x
    return (
        west + inset,
        north - rows * grid.cell_y + inset,
        west + columns * grid.cell_x - inset,
        north - inset,
    )


def everything(target, layer="land_use"):
    maps = open_maps(target)
    whole = Window(0, 0, maps.spec.grid.rows, maps.spec.grid.columns)
    return np.stack([maps.read(layer, year, whole) for year in maps.spec.years])


def names(folder):
    return sorted(path.name for path in folder.iterdir())

"""Forcings and maps for emulators, cut from the archives of a small world."""

import numpy as np
import xarray as xr

from earthsr.geo.grid import Grid
from tests.landuse.reconstruct.cases import box

#: West, south, east, north of 32 x 64 cells with land, the first of the world's, in two rows of four coarse cells.
PART = box(Grid(-8.0, 48.0, 1 / 64, 1 / 64, 48, 256), 0, 0, 32, 64)


def opened(path):
    with xr.open_dataset(path, decode_times=False) as dataset:
        return dataset.load()


def forcing_of(scenario, year):
    """Fractions of a year: variables on lat and lon, and a coordinate time."""
    for file in scenario:
        first = int(file["time"].attrs["units"].split("since")[1].split("-")[0])
        place = np.flatnonzero(first + file["time"].values.astype(int) == year)
        if place.size:
            return file.isel(time=int(place[0]))
    raise AssertionError(f"the world has no {year}")


def same(first, second):
    """Whether two steps gave the same, cell by cell."""
    return all(
        np.array_equal(first[name].values, second[name].values, equal_nan=True)
        for name in ("land_use", "confidence", "area", "may_change")
    )

"""A year's map as an xarray Dataset: coordinates, classes and areas with what the CF conventions say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.errors import geo_module
from earthsr.geo.areas import cells_of
from earthsr.geo.cf_write import CRS_VARIABLE, axis_attributes, crs_attributes
from earthsr.geo.grid import Grid
from earthsr.geo.window import Window
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.emulator.maps import CRS
from earthsr.landuse.emulator.memory import State
from earthsr.landuse.maps import MapsSpec
from earthsr.landuse.maps.layout import CONVENTIONS, codes, flags, georeference
from earthsr.landuse.maps.packing import to_codes

_MAY: Final = {
    "long_name": "whether the class of a cell may change",
    "units": "1",
    "flag_values": np.array([0, 1], np.uint8),
    "flag_meanings": "keeps_its_class_or_has_none may_change",
    "grid_mapping": CRS_VARIABLE,
}


def areas_km2(classes: NDArray[np.uint8], k: int, fine: Grid, coarse: Grid) -> NDArray[np.float64]:
    """Area of each class in each coarse cell, (K, h, w), km2; a fine cell counts where its centre lies.

    Cells are counted by row, as whole numbers, and rows weighed after that, so that the sums do not depend on order.
    """
    rows, columns = cells_of(coarse, fine, Window(0, 0, fine.rows, fine.columns))
    area = row_areas(fine)
    found = np.zeros((k, coarse.rows, coarse.columns))
    for i in np.unique(rows[rows >= 0]):
        lines = np.flatnonzero(rows == i)
        key = (np.arange(len(lines))[:, None] * coarse.columns + columns) * (k + 1) + np.minimum(classes[lines], k)
        count = np.bincount(key.ravel(), minlength=len(lines) * coarse.columns * (k + 1))
        count = count.reshape(len(lines), coarse.columns, k + 1)[..., :k]
        found[:, i] = np.einsum("n,nwk->kw", area[lines], count)
    return found


def dataset_of(
    state: State,
    table: ClassTable,
    fine: Grid,
    coarse: Grid,
    confidence: NDArray[np.float32] | None,
    attributes: Mapping[str, Any],
) -> Any:
    """Make the Dataset of a year.

    Parameters
    ----------
    state : State
        Classes and which may change.
    table : ClassTable
        What they mean.
    fine, coarse : Grid
        Of the maps and of the areas.
    confidence : ndarray of shape (rows, columns), optional
        Largest probability, NaN where nothing was predicted.
    attributes : mapping
        Of the Dataset, beside title and conventions.
    """
    xarray = geo_module("xarray")
    spec = MapsSpec(fine, CRS, (state.year,), table, (fine.rows, fine.columns), ("land_use",))
    here = georeference(spec)
    y, x = axis_attributes(here)
    fine_axes, coarse_axes = ("lat", "lon"), ("coarse_lat", "coarse_lon")
    class_attributes = flags(spec)
    variables: dict[str, Any] = {
        "land_use": (
            fine_axes,
            to_codes(state.classes, table),
            {"long_name": "land-use class", "units": "1", "grid_mapping": CRS_VARIABLE, **class_attributes},
            {"_FillValue": NODATA},
        ),
        "may_change": (fine_axes, state.free.astype(np.uint8), _MAY),
        "area": (
            ("class", *coarse_axes),
            areas_km2(state.classes, len(table), fine, coarse),
            {
                "long_name": "area of land-use class in coarse cell",
                "units": "km2",
                "cell_methods": "class: coarse_lat: coarse_lon: sum",
            },
        ),
    }
    if confidence is not None:
        said = {"long_name": "largest probability of a land-use class", "units": "1", "grid_mapping": CRS_VARIABLE}
        variables["confidence"] = (fine_axes, confidence, said)
    coordinates = {
        "lat": ("lat", fine.latitudes(), y),
        "lon": ("lon", fine.longitudes(), x),
        "coarse_lat": ("coarse_lat", coarse.latitudes(), {**y, "long_name": "latitude of coarse cell"}),
        "coarse_lon": ("coarse_lon", coarse.longitudes(), {**x, "long_name": "longitude of coarse cell"}),
        "class": ("class", codes(spec), {"long_name": "code of land-use class", **class_attributes}),
        "class_name": ("class", np.array(table.names), {"long_name": "name of land-use class"}),
        "year": ((), np.int32(state.year), {"long_name": "calendar year", "units": "1"}),
        CRS_VARIABLE: ((), np.int32(0), crs_attributes(here)),
    }
    title = {"title": f"Land use in {state.year}", "Conventions": CONVENTIONS}
    source = f"earthsr {earthsr.__version__}, U-Net"
    return xarray.Dataset(variables, coordinates, {**title, "source": source, **attributes})

"""Pages of elevation: one raster, or several of the same ground to slide between, with what they differ by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.plot import in_metres, range_of, require_one_map, tints
from earthsr.dem.region_figures import exaggeration
from earthsr.errors import InputError
from earthsr.evaluation.maps import Drawing, MapRequest, cell_metres, figure_text, seen_from, view_of, window_of
from earthsr.evaluation.page.layers import Layer, shading
from earthsr.evaluation.page.write import Page
from earthsr.geo.areas import brought_onto
from earthsr.geo.crs import crs_name, same_crs
from earthsr.geo.grid import Grid
from earthsr.geo.raster import Georeference, sampled
from earthsr.geo.readers import open_source, reprojected, split_variable

_COLOURS: Final = 512
_DIFFERENCE: Final = "RdBu_r"


@dataclass(frozen=True)
class Surface:
    """A surface of a page."""

    title: str
    values: NDArray[np.float32]
    """(H, W) on the page's grid, metres, NaN for none; a coarser one by its own cells."""
    smooth: NDArray[np.float32]
    """The same, for differences: between the centres of coarser cells interpolated."""


def draw_elevation_page(source: Any, request: MapRequest) -> Drawing:
    """Make the page of a raster of elevation, or of several to slide between.

    Parameters
    ----------
    source : Source
        Open; the page has its cells.
    request : MapRequest
        Part, size, the other rasters.

    Raises
    ------
    InputError
        If rasters do not overlap, or something is asked for that is of maps.
    DataError
        If values are no metres, or no elevations.
    """
    require_one_map(source, request)
    if request.contours is not None:
        raise InputError("--contours is for a picture; name a .png, or leave it out")
    raster = in_metres(source)
    view = view_of(raster.georeference, window_of(raster.georeference, request.bbox), request.size)
    values = sampled(raster, view.window, view.step)
    surfaces, notes = [Surface(raster.name, values, values)], [figure_text(view.facts())]
    for path in request.beside:
        other, how = _other(path, raster.name, view.grid)
        surfaces.append(other)
        notes.append(how)
    page = elevation_page(raster.name, view.grid, surfaces, [*notes, *raster.notes])
    return Drawing("elevation", {**view.facts(), **range_of(values), "notes": page.notes}, page=page)


def _other(path: str, name: str, grid: Grid) -> tuple[Surface, str]:
    source: Any = open_source(path)
    crs = source.georeference.crs_wkt
    warped = not same_crs(crs, grid.crs_wkt)
    if warped:
        source.close()
        source = reprojected(split_variable(path)[0], "", onto=Georeference.of(grid))
    try:
        other = in_metres(source)
        seen = seen_from(other, grid, 1.5 * max(grid.rows, grid.columns))
    finally:
        source.close()
    if seen is None:
        raise InputError(f"{name} and {other.name} do not overlap; give rasters of the same ground")
    onto, how = brought_onto(*seen, grid, other.name)
    if warped:
        how = f"{other.name} was brought from {crs_name(crs)} to {crs_name(grid.crs_wkt)}, {how}"
    coarser = seen[1].cell_x > 1.5 * grid.cell_x
    return Surface(
        other.name, _nearest(*seen, grid) if coarser else onto, onto
    ), f"difference: {name} minus {other.name}; {how}"


def _nearest(values: NDArray[np.float32], own: Grid, grid: Grid) -> NDArray[np.float32]:
    """Values of the cells in which the centres of another grid's lie."""
    i = np.floor((own.north - grid.y()) / own.cell_y + 1e-9).astype(np.int64)
    j = np.floor((grid.x() - own.west) / own.cell_x + 1e-9).astype(np.int64)
    there = ((i >= 0) & (i < own.rows))[:, None] & ((j >= 0) & (j < own.columns))
    taken = values[np.ix_(np.clip(i, 0, own.rows - 1), np.clip(j, 0, own.columns - 1))]
    return np.where(there, taken, np.float32(np.nan))


def elevation_page(
    title: str, grid: Grid, surfaces: Sequence[Surface], notes: Sequence[str] = (), truth: int | None = None
) -> Page:
    """Make a page of surfaces on one grid, with the first one minus each; or each one minus the truth.

    Parameters
    ----------
    title : str
        Of the page.
    grid : Grid
        Of all surfaces.
    surfaces : sequence of Surface
        In the order of the slider.
    notes : sequence of str
        What a reader has to know.
    truth : int, optional
        Number of the surface that is the truth, from which errors are shown.
    """
    stack = [surface.values for surface in surfaces]
    colours, low, high, _ = tints(np.concatenate([values.ravel() for values in stack]))
    valid = np.concatenate([values[np.isfinite(values)] for values in stack])
    least, most = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 0.0)
    dy, dx = cell_metres(grid)
    times = exaggeration(stack[0], dy, float(dx.mean()))
    layers = [
        Layer.of_values(
            "elevation",
            "Elevation",
            stack,
            grid,
            palette=_hex(colours),
            low=low,
            high=high,
            least=least,
            most=most,
            units="m",
            shaded=True,
        )
    ]
    if len(surfaces) > 1:
        layers.append(_differences(surfaces, grid, truth))
    light = f"hillshade of heights x {times}" if times > 1 else "hillshade"
    return Page(
        title,
        grid,
        tuple(surface.title for surface in surfaces),
        tuple(layers),
        blend=True,
        shade=[shading(values, grid, times) for values in stack],
        notes=(*notes, light),
    )


def _hex(colours: Any) -> list[str]:
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colours(np.linspace(0, 1, _COLOURS))]


def _differences(surfaces: Sequence[Surface], grid: Grid, truth: int | None) -> Layer:
    from matplotlib import colormaps

    against = surfaces[truth or 0]

    def differences() -> Iterator[NDArray[np.float32]]:
        for surface in surfaces:
            pair = (against.smooth, surface.smooth) if truth is None else (surface.smooth, against.smooth)
            yield np.subtract(*pair, dtype=np.float32)

    apart = np.abs(
        np.concatenate([v[np.isfinite(v)] for s, v in zip(surfaces, differences(), strict=True) if s is not against])
    )
    limit = (float(np.percentile(apart, 99)) or float(apart.max())) if apart.size else 0.0
    most = max(float(apart.max()) if apart.size else 0.0, 0.1)
    return Layer.of_values(
        "difference",
        f"Difference from {against.title}" if truth is None else "Error",
        differences(),
        grid,
        palette=_hex(colormaps[_DIFFERENCE]),
        low=-(limit or 1.0),
        high=limit or 1.0,
        least=-most,
        most=most,
        units="m",
    )

"""Pieces of regions put together from the patches of a split: which regions, around which patch, on which grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.data.hdf5 import open_h5, reading
from earthsr.dem.split import DemData
from earthsr.geo.grid import Grid
from earthsr.geo.terrain import slope_degrees

#: Regions that are drawn at most; the report lists the others.
MOST_REGIONS: Final = 8

# Sides of a picture in patches, where there are neighbours.
_SIDE: Final = 2

_METRES_PER_DEGREE: Final = np.pi * 6_371_008.8 / 180

# Fine cells of files that do not say how large they are: which of their patches is steepest does not depend on it.
_ASSUMED_M: Final = (90.0, 90.0)


@dataclass(frozen=True)
class View:
    """A piece of a region, put together from neighbouring patches."""

    coarse: NDArray[np.float32]
    """(C, h, w), metres; NaN where no patch is or none has a value."""
    truth: NDArray[np.float32]
    """(C, H, W), metres."""
    valid: NDArray[np.bool_]
    """(H, W)."""
    grid: Grid | None
    """Of the truth, degrees; None where the file does not say where patches lie."""


@dataclass(frozen=True)
class Chosen:
    """What is drawn of a split."""

    patches: Mapping[str, int]
    """By region: its steepest patch. Those regions that have most patches, in their order."""
    left_out: tuple[str, ...]
    """Other regions."""


def choose_regions(source: DemData, most: int = MOST_REGIONS) -> Chosen:
    """Choose the regions with most patches, and of each the patch with the steepest ground.

    Nothing where the file does not name regions. A void counts as flat ground, so that a patch with few cells is not
    chosen for them.
    """
    labels = source.groups().get("region")
    if labels is None:
        return Chosen({}, ())
    cells = _cell_sizes(source)
    steepness = np.full(len(source), -1.0)
    for patches in source.chunks():
        dy, dx = (cells[patches.indices, i, None, None, None] for i in (0, 1))
        known = np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)
        slope = slope_degrees(np.where(known, patches.fine, np.nan), dy, dx)
        steepness[patches.indices] = np.nan_to_num(slope).mean(axis=(1, 2, 3))
    names, counts = np.unique(labels, return_counts=True)
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    chosen = {}
    for name in sorted(str(names[i]) for i in order[:most]):
        patches_of_region = np.flatnonzero(labels == name)
        chosen[name] = int(patches_of_region[np.argmax(steepness[patches_of_region])])
    return Chosen(chosen, tuple(sorted(str(names[i]) for i in order[most:])))


def view(source: DemData, index: int) -> View:
    """Put the surroundings of a patch together from its region's patches, up to two patches wide.

    The patch alone where the file does not say where patches lie.
    """
    places = _places(source, index)
    p, scale = source.layout.patch_size, source.layout.scale
    low, high = (find(np.stack(list(places.values())), axis=0) for find in (np.min, np.max))
    side = np.minimum(_SIDE * p, high + p - low)
    start = _fullest(np.stack(list(places.values())), p, side, low, high + p)
    channels = source.layout.channels
    coarse = np.full((channels, *side), np.nan, np.float32)
    truth = np.zeros((channels, *(side * scale)), np.float32)
    valid = np.zeros(side * scale, bool)
    near = [i for i, place in places.items() if np.all(place + p > start) and np.all(place < start + side)]
    for i in near:
        patch = source.read(np.array([i]))
        inside = tuple(
            slice(max(at, first), min(at + p, first + length))
            for at, first, length in zip(places[i], start, side, strict=True)
        )
        to = tuple(slice(s.start - first, s.stop - first) for s, first in zip(inside, start, strict=True))
        of = tuple(slice(s.start - at, s.stop - at) for s, at in zip(inside, places[i], strict=True))
        coarse[..., *to] = patch.coarse[0][..., *of]
        fine_to, fine_of = (tuple(slice(s.start * scale, s.stop * scale) for s in cut) for cut in (to, of))
        truth[..., *fine_to] = patch.fine[0][..., *fine_of]
        valid[fine_to] = patch.mask[0, 0][fine_of] != 0
    return View(coarse, truth, valid, _grid_of(source, index, start, valid.shape))


def _grid_of(source: DemData, index: int, start: NDArray[np.int64], shape: tuple[int, ...]) -> Grid | None:
    """Fine grid of a view that begins so many coarse rows and columns from a patch."""
    cells, origins = source.fine_cell_size_m(), _origins(source)
    if cells is None or origins is None:
        return None
    fine = cells[index, 0] / _METRES_PER_DEGREE
    coarse = fine * source.layout.scale
    west, north = origins[index]
    return Grid(west + start[1] * coarse, north - start[0] * coarse, fine, fine, shape[0], shape[1])


def _origins(source: DemData) -> NDArray[np.float64] | None:
    """Longitude and latitude of each patch's north-western corner, (N, 2)."""
    with reading(source.path), open_h5(source.path) as handle:
        return np.asarray(handle["origin"][...], np.float64) if "origin" in handle else None


def _fullest(
    places: NDArray[np.int64], patch: int, side: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """First row and column of the window around the patch at 0, 0 that patches cover most; of equals the middle one."""
    covered = np.zeros(high - low, np.int64)
    for row, column in places - low:
        covered[row : row + patch, column : column + patch] = 1
    sums = np.pad(covered.cumsum(0).cumsum(1), [(1, 0), (1, 0)])
    rows, columns = (
        np.arange(max(first, patch - length), min(0, last - length) + 1)
        for first, last, length in zip(low, high, side, strict=True)
    )
    top, left = (rows - low[0])[:, None], (columns - low[1])[None, :]
    area = sums[top + side[0], left + side[1]] - sums[top, left + side[1]] - sums[top + side[0], left] + sums[top, left]
    distance = np.abs(2 * rows + side[0] - patch)[:, None] + np.abs(2 * columns + side[1] - patch)[None, :]
    best = np.lexsort((distance.ravel(), -area.ravel()))[0]
    row, column = np.unravel_index(best, area.shape)
    return np.array([rows[row], columns[column]])


def _places(source: DemData, index: int) -> dict[int, NDArray[np.int64]]:
    """Rows and columns of the region's patches on the coarse grid, seen from one of them, by their positions."""
    steps = {index: np.zeros(2, np.int64)}
    labels, cells = source.groups().get("region"), source.fine_cell_size_m()
    if labels is None or cells is None:
        return steps
    origin = _origins(source)
    if origin is None:
        return steps
    degrees = cells[index, 0] / _METRES_PER_DEGREE * source.layout.scale
    for i in np.flatnonzero(labels == labels[index]):
        east = (origin[i, 0] - origin[index, 0] + 180) % 360 - 180
        place = np.array([origin[index, 1] - origin[i, 1], east]) / degrees
        whole = np.round(place)
        # Tiles of a region may lie on grids of their own.
        if np.abs(place - whole).max() < 0.02 and np.isclose(cells[i, 0], cells[index, 0], rtol=1e-6):
            steps[int(i)] = whole.astype(np.int64)
    return steps


def _cell_sizes(source: DemData) -> NDArray[np.float64]:
    cells = source.fine_cell_size_m()
    return np.tile(np.array(_ASSUMED_M), (len(source), 1)) if cells is None else cells

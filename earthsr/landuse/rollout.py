"""Class maps of a split's tiles, year after year: the model's, and those that baselines make of the same forcing.

The model's own maps are its priors, or there are none, or true ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Grid
from earthsr.landuse.baselines import allocate_series, argmax_fractions, cut_cells, nearest_cells, persistence
from earthsr.landuse.classes import NODATA, class_fractions
from earthsr.landuse.samples import Composer, stack
from earthsr.landuse.split import LandUseData
from earthsr.tasks.base import Predictor

Row = Literal["rollout", "no_prior", "true_prior"]

#: ``rollout`` is the headline; ``true_prior`` sees the truth of the year before, which no projection has.
ROWS: Final[tuple[Row, ...]] = ("rollout", "no_prior", "true_prior")

BASELINES: Final = ("persistence", "coarse_argmax", "allocation")


@dataclass(frozen=True)
class RolloutYears:
    """Years of a rollout, from its anchor on."""

    anchor: int
    years: tuple[int, ...]
    """In the order of the rollout, the anchor left out."""
    scored: tuple[int, ...]
    """Those that count."""

    @property
    def direction(self) -> int:
        """1 forwards, -1 backwards in time."""
        return 1 if self.years[-1] > self.anchor else -1

    @property
    def steps(self) -> tuple[int, ...]:
        """Years from each map to the next."""
        whole = (self.anchor, *self.years)
        return tuple(abs(b - a) for a, b in zip(whole, self.years, strict=False))


def path_of(source: LandUseData) -> RolloutYears:
    """Years of the rollout that a split is scored by: from its anchor to the last of its scored years."""
    anchor, scored = source.anchor_year, source.scored_years
    forwards = max(scored) > anchor
    years = source.layout.years
    if forwards:
        path = tuple(year for year in years if anchor < year <= max(scored))
    else:
        path = tuple(year for year in reversed(years) if min(scored) <= year < anchor)
    return RolloutYears(anchor, path, tuple(year for year in path if year in scored))


def predict_maps(
    model: Predictor,
    composer: Composer,
    tiles: Sequence[int],
    path: RolloutYears,
    fields: Sequence[str],
    rows: Sequence[Row] = ROWS,
    pad_to: int | None = None,
) -> dict[Row, NDArray[np.uint8]]:
    """Maps of some tiles for all years of a path.

    Cells without a class at the anchor stay without one. The truth of later years is read for ``true_prior`` alone.

    Parameters
    ----------
    model : Predictor
        Gives probabilities (N, K, P, P).
    composer : Composer
        Of the split.
    tiles : sequence of int
        N tiles.
    path : RolloutYears
        Anchor and years.
    fields : sequence of str
        Input fields that the network takes.
    rows : sequence of str
        Which priors.
    pad_to : int, optional
        Run a batch of this size, so that one compiled graph serves all.

    Returns
    -------
    dict of str to ndarray of shape (Y, N, P, P)
        Class indices in the order of the path, by row.
    """
    anchors = np.stack([composer.truth(tile, path.anchor) for tile in tiles])
    void = anchors == NODATA
    made: dict[Row, list[NDArray[np.uint8]]] = {row: [] for row in rows}
    before = path.anchor
    for year, step in zip(path.years, path.steps, strict=True):
        waiting = {}
        for row in rows:
            if row == "rollout":
                priors = made[row][-1] if made[row] else anchors
            elif row == "true_prior":
                priors = np.stack([composer.truth(tile, before) for tile in tiles])
            else:
                priors = np.full_like(anchors, NODATA)
            samples = [
                composer.fields(tile, year, prior, step, path.direction)
                for tile, prior in zip(tiles, priors, strict=True)
            ]
            waiting[row] = model.submit_fields(stack([{name: s[name] for name in fields} for s in samples]), pad_to)
        for row in rows:
            classes = waiting[row].result().argmax(axis=1).astype(np.uint8)
            made[row].append(np.where(void, NODATA, classes).astype(np.uint8))
        before = year
    return {row: np.stack(maps) for row, maps in made.items()}


@dataclass(frozen=True)
class ForcedRegion:
    """The part of the coarse grid that a split's tiles touch, with its forcing by class."""

    grid: Grid
    row: int
    column: int
    fractions: NDArray[np.float32]
    """(Y, K, h, w) in the order of the file's years; NaN for classes that the forcing does not know."""
    known: tuple[bool, ...]
    separate: bool
    """Whether no two tiles share a cell: areas add up then."""


def region_of(source: LandUseData) -> ForcedRegion:
    """Cut the coarse grid to the tiles and add the forcing's channels up to classes."""
    layout, size = source.layout, source.layout.tile_size
    coarse, fine, places = layout.coarse, layout.fine, source.places
    north = fine.north - fine.cell_y * places[:, 0].min()
    south = fine.north - fine.cell_y * (places[:, 0].max() + size)
    west = fine.west + fine.cell_x * places[:, 1].min()
    east = fine.west + fine.cell_x * (places[:, 1].max() + size)
    first_row = max(int(np.floor((coarse.north - north) / coarse.cell_y + 1e-6)), 0)
    last_row = min(int(np.ceil((coarse.north - south) / coarse.cell_y - 1e-6)), coarse.rows)
    first = int(np.floor((west - coarse.west) / coarse.cell_x + 1e-6))
    last = int(np.ceil((east - coarse.west) / coarse.cell_x - 1e-6))
    if not coarse.periodic:
        first, last = max(first, 0), min(last, coarse.columns)
    # The part counts longitudes as the tiles do, over the dateline too.
    columns = np.arange(first, last) % coarse.columns
    part = Grid(
        coarse.west + first * coarse.cell_x,
        coarse.north - first_row * coarse.cell_y,
        coarse.cell_x,
        coarse.cell_y,
        last_row - first_row,
        last - first,
    )
    names = layout.table.names
    values = source.coarse[:, :, first_row:last_row][..., columns]
    fractions = class_fractions(values, layout.coarse_channels, layout.of_class, names)
    return ForcedRegion(
        part,
        first_row,
        first % coarse.columns,
        fractions,
        tuple(name in layout.of_class for name in names),
        _separate(places, size),
    )


def _separate(places: NDArray[np.int64], size: int) -> bool:
    """Whether no two tiles share a cell; looks at neighbours alone, since there may be a hundred thousand tiles."""
    near: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in places.tolist():
        i, j = row // size, column // size
        around = (near.get((i + a, j + b), ()) for a in (-1, 0, 1) for b in (-1, 0, 1))
        if any(abs(row - r) < size and abs(column - c) < size for neighbours in around for r, c in neighbours):
            return False
        near.setdefault((i, j), []).append((row, column))
    return True


def baseline_maps(
    anchor: NDArray[np.uint8], region: ForcedRegion, source: LandUseData, place: NDArray[np.int64], order: Sequence[int]
) -> dict[str, NDArray[np.uint8]]:
    """Maps (Y, P, P) of the baselines for the years after the anchor; ``order`` are the file's years, anchor first."""
    size = source.layout.tile_size
    index = nearest_cells(region.grid, source.layout.fine, int(place[0]), int(place[1]), (size, size))
    k = len(source.layout.table)
    # Only the coarse cells that the tile touches: a region may be a continent.
    rows, columns = np.divmod(np.maximum(index, 0), region.grid.columns)
    top, left = int(rows.min()), int(columns.min())
    width = int(columns.max()) + 1 - left
    index = np.where(index < 0, -1, (rows - top) * width + columns - left)
    part = region.fractions[:, :, top : int(rows.max()) + 1, left : left + width]
    later = part[list(order[1:])]
    # An oracle's fractions are the map's own: by its changes alone cells are counted, not areas that are near them.
    by_change = np.ones(part.shape[2:], bool)
    if source.layout.forcing != "oracle":
        cut = cut_cells(region.grid, source.layout.fine, int(place[0]), int(place[1]), (size, size))
        by_change = cut[top : int(rows.max()) + 1, left : left + width]
    valid = anchor < k
    flat = later.reshape(len(later), k, -1)
    inside = np.maximum(index, 0)
    largest = [argmax_fractions(fractions[:, inside], valid, region.known, anchor) for fractions in flat]
    return {
        "persistence": np.stack([persistence(anchor)] * len(later)),
        "coarse_argmax": np.stack(largest),
        "allocation": allocate_series(anchor, later, index, region.known, part[order[0]], by_change.ravel()),
    }

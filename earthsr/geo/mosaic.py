"""Several rasters of one product on one grid, seen as one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.geo.crs import crs_name, same_crs
from earthsr.geo.grid import Window
from earthsr.geo.raster import Georeference, Source

#: Files that are open at once: neighbours of a window, far from any system's limit.
_OPEN: Final = 16
#: Share of a cell by which cell sizes may differ, and by which a tile may lie beside the grid at either end.
_SAME_SIZE: Final = 1e-3
_SAME_PLACE: Final = 0.02


class _Tile(NamedTuple):
    source: Source
    row: int
    column: int
    """Of its first cell on the common grid."""


class Mosaic:
    """Tiles of one product; :func:`mosaic` makes it."""

    def __init__(self, tiles: list[_Tile], georeference: Georeference, name: str) -> None:
        self._tiles, self.georeference, self.name = tiles, georeference, name
        self._corners = np.array(
            [(row, column, row + s.georeference.rows, column + s.georeference.columns) for s, row, column in tiles]
        )
        self._recent: OrderedDict[int, Source] = OrderedDict()

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (rows, columns), NaN in gaps; where tiles overlap the first with a value wins."""
        row, column, rows, columns = self.georeference.check(window)
        bottom, right = row + rows, column + columns
        corners = self._corners
        touched = np.flatnonzero(
            (corners[:, 0] < bottom) & (corners[:, 2] > row) & (corners[:, 1] < right) & (corners[:, 3] > column)
        )
        values = np.full((rows, columns), np.nan, np.float32)
        for index in touched:
            top, left, low, far = (int(number) for number in corners[index])
            top_, left_, low_, far_ = max(top, row), max(left, column), min(low, bottom), min(far, right)
            part = values[top_ - row : low_ - row, left_ - column : far_ - column]
            empty = np.isnan(part)
            if not empty.any():
                continue  # an earlier tile has it all
            source = self._tiles[index].source
            tile = source.read(Window(top_ - top, left_ - left, low_ - top_, far_ - left_))
            self._keep(int(index), source)
            part[empty] = tile[empty]
        return values

    def _keep(self, index: int, source: Source) -> None:
        self._recent[index] = source
        self._recent.move_to_end(index)
        while len(self._recent) > _OPEN:
            _release(self._recent.popitem(last=False)[1])

    def release(self) -> None:
        """Close the files until the next read."""
        while self._recent:
            _release(self._recent.popitem()[1])

    def close(self) -> None:
        """Close all files."""
        self._recent.clear()
        for tile in self._tiles:
            tile.source.close()


def mosaic(sources: Iterable[Source]) -> Source:
    """See several rasters of one product as one.

    Parameters
    ----------
    sources : iterable of Source
        With the same cells, CRS and units, whole cells apart. A generator opens one after another; each closes its
        file until it is read, so that thousands of tiles need few open files.

    Returns
    -------
    Source
        The one source where there is but one.

    Raises
    ------
    InputError
        If there is none.
    DataError
        If they do not lie on one grid; the message says what differs.
    """
    taken: list[Source] = []
    try:
        for source in sources:
            if taken:
                _release(taken[-1])
            taken.append(source)
        if not taken:
            raise InputError("no raster is given; name one file, or the tiles of one product")
        if len(taken) == 1:
            return taken[0]
        first = taken[0].georeference
        tiles = [_Tile(source, *_place(source, taken[0])) for source in taken]
    except BaseException:
        for source in taken:
            source.close()
        raise
    _release(taken[-1])
    top, left = min(tile.row for tile in tiles), min(tile.column for tile in tiles)
    tiles = [tile._replace(row=tile.row - top, column=tile.column - left) for tile in tiles]
    georeference = replace(
        first,
        west=first.west + left * first.cell_x,
        north=first.north - top * first.cell_y,
        rows=max(tile.row + tile.source.georeference.rows for tile in tiles),
        columns=max(tile.column + tile.source.georeference.columns for tile in tiles),
        nodata=next((s.georeference.nodata for s in taken if s.georeference.nodata is not None), None),
    )
    return Mosaic(tiles, georeference, f"{taken[0].name} and {len(taken) - 1} more")


def _release(source: Source) -> None:
    """Close a source's file until it is read again, if it has one."""
    release = getattr(source, "release", None)
    if release is not None:
        release()


def _place(source: Source, first: Source) -> tuple[int, int]:
    """Row and column of a tile's first cell, counted from that of the first tile."""
    grid, origin = source.georeference, first.georeference
    beside = f"{source.name} does not lie on one grid with {first.name}"
    if not same_crs(grid.crs_wkt, origin.crs_wkt):
        raise DataError(
            f"{beside}: its CRS is {crs_name(grid.crs_wkt)} against {crs_name(origin.crs_wkt)}; rio warp IN OUT.tif "
            f"--dst-crs {crs_name(origin.crs_wkt)} brings it there"
        )
    if grid.units != origin.units:
        raise DataError(
            f"{beside}: its units are {grid.units or 'not said'} against {origin.units or 'not said'}; --units says "
            "which they are, or convert one (rio calc, or cdo mulc)"
        )
    for word, a, b in (("wide", grid.cell_x, origin.cell_x), ("high", grid.cell_y, origin.cell_y)):
        if abs(a - b) > _SAME_SIZE * b:
            raise DataError(
                f"{beside}: its cells are {a:.10g} {word} against {b:.10g}; give products of different "
                f"resolution one by one, or rio warp IN OUT.tif --like {first.name}"
            )
    west, south, east, north = grid.bounds
    places = []
    for low, high, cells, cell in (
        ((origin.north - north), (origin.north - south), grid.rows, origin.cell_y),
        ((west - origin.west), (east - origin.west), grid.columns, origin.cell_x),
    ):
        start, end = low / cell, high / cell - cells
        whole = round(start)
        off = max(abs(start - whole), abs(end - whole))
        if off > _SAME_PLACE:
            raise DataError(
                f"{beside}: it lies {off:.3g} of a cell beside it, expected whole cells; rio warp IN OUT.tif "
                f"--like {first.name} brings it onto them"
            )
        places.append(whole)
    return places[0], places[1]

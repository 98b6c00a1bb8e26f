"""Reading windows that go beyond a raster: once round the globe its last column has the first one as its neighbour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthsr.data.rasters.georeference import Source, Window


def read_around(source: Source, window: Window) -> NDArray[np.float32]:
    """Read any window, also one that lies beyond the raster's edges or across its first column.

    Parameters
    ----------
    source : Source
        Columns of a periodic one (:attr:`Georeference.periodic`) go round; its rows end at the poles.
    window : Window
        Any integers; columns may span more than a turn. No cell is read twice, and none that is not in the window.

    Returns
    -------
    ndarray of shape (rows, columns)
        Of the window; NaN where there is no value and beyond an edge.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    here = source.georeference
    row, column, rows, columns = window = Window(*map(int, window))
    turn = here.columns
    if 0 <= row <= row + rows <= here.rows and 0 <= column <= column + columns <= turn:
        return source.read(window)
    values = np.full((rows, columns), np.nan, np.float32)
    top, bottom = max(row, 0), min(row + rows, here.rows)
    first, last = column, column + columns
    if not here.periodic:
        first, last = max(first, 0), min(last, turn)
    if top >= bottom or first >= last:
        return values
    lines = values[top - row : bottom - row]
    at, once = first, min(last, first + turn)
    while at < once:
        place = at % turn
        count = min(turn - place, once - at)
        lines[:, at - column : at - column + count] = source.read(Window(top, place, bottom - top, count))
        at += count
    # Further turns hold what the first one holds; only a periodic raster has any, and there it begins at the window.
    for at in range(first + turn, last, turn):
        count = min(turn, last - at)
        lines[:, at - column : at - column + count] = lines[:, :count]
    return values

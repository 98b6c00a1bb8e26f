"""Reading windows that go beyond a raster: once round the globe its last column has the first one as its neighbour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.georeference import Source
from earthsr.geo.window import Window, pieces


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
    # Further turns hold what the first one holds, which is read once.
    once = min(columns, turn) if here.periodic else columns
    for part, down, across in pieces(Window(row, column, rows, once), here.rows, turn, here.periodic):
        values[down : down + part.rows, across : across + part.columns] = source.read(part)
    for at in range(once, columns, turn):
        values[:, at : at + turn] = values[:, : columns - at][:, :turn]
    return values

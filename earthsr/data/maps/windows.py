"""Windows of a grid: what a read takes from where, and the chunks that a grid is divided into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from earthsr.areas import Grid
from earthsr.data.landuse_source import Window

#: Row, column, rows and columns; a :class:`Window` of any kind is one.
AnyWindow = tuple[int, int, int, int]


class Piece(NamedTuple):
    """Part of a window that lies inside the grid."""

    window: Window
    """In cells of the grid."""
    row: int
    """Of its first cell in the window that was asked for."""
    column: int


def pieces(window: AnyWindow, grid: Grid) -> Iterator[Piece]:
    """Divide a window into parts inside the grid; what lies beyond the grid is in none.

    Columns wrap around where the grid is periodic, as often as the window is wider than the grid.

    Parameters
    ----------
    window : Window
        Any integers; rows and columns are not negative.
    grid : Grid
        The grid.
    """
    row, column, rows, columns = window
    if rows < 0 or columns < 0:
        raise ValueError(f"window has {rows} rows and {columns} columns, expected none or more")
    top, bottom = max(row, 0), min(row + rows, grid.rows)
    left, right = column, column + columns
    if not grid.periodic:
        left, right = max(left, 0), min(right, grid.columns)
    if top >= bottom:
        return
    while left < right:
        start = left % grid.columns
        count = min(right - left, grid.columns - start)
        yield Piece(Window(top, start, bottom - top, count), top - row, left - column)
        left += count


def chunk_window(row: int, column: int, grid: Grid, chunk: tuple[int, int]) -> Window:
    """Cells of a chunk, given by its place among the chunks; the last ones are smaller."""
    top, left = row * chunk[0], column * chunk[1]
    return Window(top, left, min(chunk[0], grid.rows - top), min(chunk[1], grid.columns - left))


def chunks_of(window: Window, chunk: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Places of the chunks that a window inside the grid touches, row by row."""
    for row in range(window.row // chunk[0], -(-(window.row + window.rows) // chunk[0])):
        for column in range(window.column // chunk[1], -(-(window.column + window.columns) // chunk[1])):
            yield row, column


def all_chunks(grid: Grid, chunk: tuple[int, int]) -> Iterator[Window]:
    """Cells of each chunk of a grid, row by row."""
    for row, column in chunks_of(Window(0, 0, grid.rows, grid.columns), chunk):
        yield chunk_window(row, column, grid, chunk)

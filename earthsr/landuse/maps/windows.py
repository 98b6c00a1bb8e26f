"""The chunks that a grid is divided into."""

from __future__ import annotations

from collections.abc import Iterator

from earthsr.geo.grid import Grid
from earthsr.geo.window import Window


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

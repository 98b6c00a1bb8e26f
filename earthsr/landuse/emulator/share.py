"""One rank's share of a region that several make together, each in its own process: whole chunks.

Ranks have the same region, and so the same chunks and windows: their maps are those of one. Before a step a rank needs
the map before it where its windows reach into the chunks of others; who hands these cells over is the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.geo.grid import Window
from earthsr.inference.tiling import covering
from earthsr.landuse.classes import NODATA
from earthsr.landuse.reconstruct.plan import Chunk, Method


@dataclass(frozen=True, eq=False)
class Share:
    """What a rank makes, and what it reads."""

    rank: int
    ranks: int
    chunks: tuple[Chunk, ...]
    """Those of this rank."""
    owner: NDArray[np.int32]
    """(rows, columns): the rank that makes a cell."""
    reads: NDArray[np.bool_]
    """(rows, columns): cells whose class the year before this rank reads."""

    @classmethod
    def of(cls, method: Method, rank: int, ranks: int) -> Share:
        """Give each rank neighbouring chunks, row by row, as many as the others or one more.

        Raises
        ------
        InputError
            If there is no such rank, or there are fewer chunks than ranks.
        """
        if not 0 <= rank < ranks:
            raise InputError(f"share is rank {rank} of {ranks}, expected 0 to {ranks - 1}")
        grid, lattice = method.grid, method.lattice
        if len(lattice) < ranks:
            raise InputError(
                f"share: {ranks} ranks, and {len(lattice)} chunks of {method.side[0]} x {method.side[1]} cells; take "
                "fewer ranks, or a smaller chunk"
            )
        owner = np.empty((grid.rows, grid.columns), np.int32)
        reads = np.zeros((grid.rows, grid.columns), bool)
        chunks = []
        for number, chunk in enumerate(lattice):
            maker = number * ranks // len(lattice)
            owner[_cells(method, method.window(chunk))] = maker
            if maker == rank:
                chunks.append(chunk)
                area = method.area(chunk)
                for window in (area, covering(list(method.tiles.tiles(area)))):
                    reads[_cells(method, window)] = True
        return cls(rank, ranks, tuple(chunks), owner, reads)

    @property
    def own(self) -> NDArray[np.bool_]:
        """(rows, columns): cells that this rank makes."""
        return self.owner == self.rank

    def taken(self, classes: NDArray[np.uint8], given: NDArray[np.uint8], free: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Take classes (rows, columns) of cells of other ranks, where they are given; 255 is none.

        Raises
        ------
        InputError
            If a cell that is read is not there, or one that keeps its class has another.
        """
        others = ~self.own
        self.require(given, free)
        wrong = others & ~free & (given != NODATA) & (given != classes)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"exchanged map: the cell in row {row}, column {column} (from the north-west) has to keep its class"
            )
        return np.where(others & free & (given != NODATA), given, classes)

    def require(self, given: NDArray[np.uint8], free: NDArray[np.bool_]) -> None:
        """Check that cells of other ranks that may change, and are read, have a class.

        Raises
        ------
        InputError
            If one has none; the message names it.
        """
        absent = ~self.own & self.reads & free & (given == NODATA)
        if absent.any():
            row, column = np.argwhere(absent)[0]
            raise InputError(
                f"{int(absent.sum())} cells of other ranks that rank {self.rank} reads have no class, the first in row "
                f"{row}, column {column} (from the north-west), of rank {self.owner[row, column]}; exchange them first"
            )


def _cells(method: Method, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of a window's cells in the grid, as far as it goes; columns go round where the grid does."""
    grid = method.grid
    rows = np.arange(max(window.row, 0), min(window.row + window.rows, grid.rows))
    columns = np.arange(window.column, window.column + window.columns)
    columns = columns % grid.columns if grid.periodic else columns[(columns >= 0) & (columns < grid.columns)]
    return rows[:, None], columns

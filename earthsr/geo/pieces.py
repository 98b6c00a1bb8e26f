"""Where the pieces of a raster lie until all of them are there, by whichever process each was made.

A store lies in a folder of work. It can be pickled; several processes write into it, each its own pieces, and no file
belongs to two. What the files of a piece are called it says, so that they can be held to a record. At the end the
pieces become the file, or the folder, that was asked for.
"""

from __future__ import annotations

import os
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError, geo_module
from earthsr.geo import cog
from earthsr.geo.grid import Window
from earthsr.geo.raster import Georeference, representable, stored
from earthsr.geo.writers import SINKS, GeoTiffSink, ZarrSink, finish_store, make_store
from earthsr.store import disk_errors

#: Names in the folder.
_PIECES: Final = "pieces"
_WHOLE: Final = "whole"


class PieceStore(ABC):
    """Pieces of a raster.

    Parameters
    ----------
    folder : Path
        Where they lie.
    target : Path
        What will be made of them, for its suffix and for messages.
    georeference : Georeference
        Of the whole.
    bands : sequence of str
        Names of the bands.
    block : int
        Cells per side of what a reader wants of the file at once; pieces that :attr:`side` says are whole such blocks.
    side : int
        Cells per side of a piece, about.
    """

    void: ClassVar[float] = float("nan")
    room: ClassVar[float] = 4
    """Bytes on the disk for each cell and band while the output is made: of a COG of terrain 3.5 are measured."""

    def __init__(
        self, folder: Path, target: Path, georeference: Georeference, bands: Sequence[str], block: int, side: int
    ) -> None:
        self.folder, self.target, self.georeference, self.bands = folder, target, georeference, tuple(bands)
        self.block, self.side = block, side
        self.nodata = representable(georeference.nodata, self.void)

    def create(self) -> None:
        """Make what pieces are written into; what is there already stays."""
        with disk_errors(self.target):
            (self.folder / _PIECES).mkdir(exist_ok=True)

    @abstractmethod
    def put(self, window: Window, values: NDArray[np.float32]) -> tuple[str, ...]:
        """Write a piece.

        Parameters
        ----------
        window : Window
            Where it lies.
        values : ndarray of shape (bands, rows, columns)
            NaN where there is no value.

        Returns
        -------
        tuple of str
            Files that hold it, below the folder; those that are not there because they would hold nothing too.
        """

    @abstractmethod
    def finish(self, windows: Sequence[Window], attributes: Mapping[str, Any]) -> Path:
        """Make what was asked for of all pieces, with provenance; returns where it lies in the folder."""

    def companions(self) -> dict[Path, Path]:
        """Give the files that belong beside what :meth:`finish` made, and where they go."""
        return {}

    def windows(self) -> list[Window]:
        """Give the pieces, row by row."""
        return chunks_of(self.georeference, self.side)

    def piece(self, window: Window) -> str:
        """Name of a piece's file."""
        return f"{_PIECES}/{window.row}-{window.column}"


class ZarrPieces(PieceStore):
    """Chunks of a Zarr store, which is there from the beginning."""

    def __init__(
        self, folder: Path, target: Path, georeference: Georeference, bands: Sequence[str], block: int, side: int
    ) -> None:
        super().__init__(folder, target, georeference, bands, block, max(side // block, 1) * block)

    @property
    def _path(self) -> Path:
        return self.folder / f"{_WHOLE}.zarr"

    def create(self) -> None:
        """Make the store, without a chunk; in one that is there, make all but the chunks again."""
        fresh = self.folder / f"{_WHOLE}.new"
        with disk_errors(self.target):
            shutil.rmtree(fresh, ignore_errors=True)
            make_store(fresh, self.georeference, self.bands, (self.block, self.block), self.nodata)
            for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
                place = self._path / file.relative_to(fresh)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
            shutil.rmtree(fresh)

    def put(self, window: Window, values: NDArray[np.float32]) -> tuple[str, ...]:
        """Write the chunks of a piece."""
        group = geo_module("zarr").open_group(self._path, mode="r+")
        row, column, rows, columns = window
        files = []
        with disk_errors(self.target):
            for band, field in zip(self.bands, stored(values, self.nodata), strict=True):
                group[band][row : row + rows, column : column + columns] = field
                down, across = group[band].chunks
                files += [
                    f"{self._path.name}/{band}/c/{i}/{j}"
                    for i in range(row // down, -(-(row + rows) // down))
                    for j in range(column // across, -(-(column + columns) // across))
                ]
        return tuple(files)

    def finish(self, windows: Sequence[Window], attributes: Mapping[str, Any]) -> Path:
        """Write provenance."""
        with disk_errors(self.target):
            finish_store(self._path, attributes)
        return self._path


class CogPieces(PieceStore):
    """Compressed tiles of a cloud-optimised GeoTIFF and its overviews, in a file a piece."""

    void: ClassVar[float] = GeoTiffSink.void
    room: ClassVar[float] = 8  # pieces, and the file that is made of them

    def __init__(
        self, folder: Path, target: Path, georeference: Georeference, bands: Sequence[str], block: int, side: int
    ) -> None:
        # Pieces have whole tiles on as many levels as their side is a power of two of tiles.
        levels = max(round(np.log2(side / cog.TILE)), 0)
        super().__init__(folder, target, georeference, bands, block, cog.TILE * 2**levels)

    def put(self, window: Window, values: NDArray[np.float32]) -> tuple[str, ...]:
        """Compress a piece."""
        packed = cog.pack(values, window.row, window.column, self.side, self.bands, self.nodata)
        name = self.piece(window)
        with disk_errors(self.target):
            (self.folder / name).write_bytes(packed)
        return (name,)

    def finish(self, windows: Sequence[Window], attributes: Mapping[str, Any]) -> Path:
        """Put the file together."""
        whole = self.folder / f"{_WHOLE}.tif"
        files = [self.folder / self.piece(window) for window in windows]
        corners = [(window.row, window.column) for window in windows]
        with disk_errors(self.target):
            cog.assemble(whole, files, corners, self.side, self.georeference, self.bands, self.nodata, attributes)
        return whole


class SinkPieces(PieceStore):
    """Any other format: compressed arrays, which are written one after the other at the end."""

    room: ClassVar[float] = 8

    def put(self, window: Window, values: NDArray[np.float32]) -> tuple[str, ...]:
        """Keep a piece."""
        name = self.piece(window)
        with disk_errors(self.target):
            (self.folder / name).write_bytes(zlib.compress(np.ascontiguousarray(values).tobytes(), 1))
        return (name,)

    def finish(self, windows: Sequence[Window], attributes: Mapping[str, Any]) -> Path:
        """Write the file."""
        whole = self.folder / f"{_WHOLE}{self.target.suffix}"
        block = (self.block, self.block)
        sink = SINKS[self.target.suffix.lower()](whole, self.georeference, self.bands, block, overwrite=True)
        try:
            for window in windows:
                sink.write(window.row, window.column, self._read(window))
            sink.finish(attributes)
        except BaseException:
            sink.abort()
            raise
        return whole

    def companions(self) -> dict[Path, Path]:
        """Give what a format writes beside its file, such as the ``.prj`` of an ASCII grid."""
        whole = self.folder / f"{_WHOLE}{self.target.suffix}"
        beside = [path for path in sorted(self.folder.glob(f"{_WHOLE}.*")) if path != whole and path.is_file()]
        return {path: self.target.with_name(self.target.stem + path.name.removeprefix(_WHOLE)) for path in beside}

    def _read(self, window: Window) -> NDArray[np.float32]:
        content = zlib.decompress((self.folder / self.piece(window)).read_bytes())
        return np.frombuffer(content, np.float32).reshape(len(self.bands), window.rows, window.columns)


def piece_store(
    folder: Path, target: Path, georeference: Georeference, bands: Sequence[str], block: int, side: int
) -> PieceStore:
    """Choose where pieces lie, by the suffix of what they will be; see :class:`PieceStore`.

    Raises
    ------
    InputError
        If the suffix is no format of output.
    """
    sink = SINKS.get(target.suffix.lower())
    if sink is None:
        raise InputError(f"{target.name}: suffix {target.suffix!r} is no format of output; {', '.join(SINKS)} are")
    kind = {ZarrSink: ZarrPieces, GeoTiffSink: CogPieces}.get(sink, SinkPieces)
    return kind(folder, target, georeference, bands, block, side)


def chunks_of(georeference: Georeference, side: int) -> list[Window]:
    """Cut a raster into pieces of ``side`` cells, row by row; those at its end are smaller."""
    rows, columns = georeference.rows, georeference.columns
    return [
        Window(row, column, min(side, rows - row), min(side, columns - column))
        for row in range(0, rows, side)
        for column in range(0, columns, side)
    ]

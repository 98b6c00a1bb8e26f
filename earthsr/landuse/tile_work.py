"""Tiles of land-use files as pieces of work: read and compressed by whoever works, put together by one process.

A piece is some tiles of one split in a small HDF5 file, in the chunks of the whole file; HDF5 has one writer, which
copies these chunks as they are, without taking them apart.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.geo.grid import Window
from earthsr.inference.journal import Journal, Key, Written
from earthsr.inference.pieces import Piece, Recipe, Scheduler
from earthsr.inference.scheduler import make_all
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import FineSource, TileSums
from earthsr.store import atomic_file

#: Chunks of one tile and year, and a filter that every HDF5 reads (tools/benchmark_landuse.py has the measurements).
FILTER: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 4}
FLOAT_FILTER: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}

#: Bytes of the tiles of a piece, at most but for one tile: so much is in memory some five times over.
_BYTES: Final = 2**26


class TileItem(NamedTuple):
    """Some tiles of a split."""

    split: str
    number: int
    """Of the piece."""
    windows: tuple[Window, ...]
    years: tuple[int, ...]

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.split}-{self.number:06d}.h5"


@dataclass(frozen=True)
class Tiles:
    """What was read of some tiles."""

    static: NDArray[np.float32]
    """(n, C_s, P, P)."""
    classes: NDArray[np.uint8]
    """(n, Y, P, P)."""
    continuous: Mapping[str, NDArray[np.float32]]
    """(n, Y, M, P, P) by field, in its unit; NaN where there is no value."""


def cut_items(
    kept: Mapping[str, Sequence[Window]], years: Mapping[str, tuple[int, ...]], source: FineSource
) -> Iterator[TileItem]:
    """Cut the tiles of all splits into pieces."""
    channels = sum(len(field.channels) for field in source.continuous)
    for split, windows in kept.items():
        a_cell = 4 * len(source.static_channels) + len(years[split]) * (1 + 4 * channels)
        count = max(_BYTES // (windows[0].rows * windows[0].columns * a_cell), 1)
        for number, first in enumerate(range(0, len(windows), count)):
            yield TileItem(split, number, tuple(windows[first : first + count]), years[split])


class TileStages:
    """Reads tiles, and writes them as a piece; those of training are summed up too.

    Parameters
    ----------
    source : FineSource
        Fine fields.
    folder : Path
        Where pieces are kept.
    """

    def __init__(self, source: FineSource, folder: Path) -> None:
        self._source, self._folder = source, folder

    def read(self, item: TileItem) -> Tiles:
        """Read static fields, and classes and continuous fields of every year."""
        source, windows, years = self._source, item.windows, item.years
        return Tiles(
            np.stack([source.static(window) for window in windows]),
            np.stack([[source.classes(year, window) for year in years] for window in windows]),
            {
                field.name: np.stack(
                    [[source.continuous_field(field.name, year, window) for year in years] for window in windows]
                )
                for field in source.continuous
            },
        )

    def compute(self, item: TileItem, values: Tiles) -> tuple[Tiles, TileSums | None]:
        """Sum up what a network will be trained on."""
        if item.split != "train":
            return values, None
        sums = TileSums.none(len(self._source.static_channels), len(self._source.table), values.continuous)
        for tile in range(len(item.windows)):
            fields = {name: held[tile] for name, held in values.continuous.items()}
            sums += TileSums.of(values.static[tile], values.classes[tile], fields, len(self._source.table))
        return values, sums

    def write(self, item: TileItem, made: tuple[Tiles, TileSums | None]) -> Written:
        """Write and compress."""
        tiles, sums = made
        with atomic_file(self._folder / item.file) as temporary, h5py.File(temporary, "w") as handle:
            create(handle, self._source, len(item.windows), tiles.static.shape[-1], len(item.years))
            handle["static"][...] = tiles.static
            handle["classes"][...] = tiles.classes
            for field in self._source.continuous:
                values = tiles.continuous[field.name] / field.scale_factor
                stored = np.where(np.isfinite(values), np.clip(np.rint(values), 0, NODATA - 1), NODATA)
                handle[field.name][...] = stored.astype(np.uint8)
        return Written((item.file,), {} if sums is None else sums.to_dict())


def create(handle: h5py.File, source: FineSource, tiles: int, size: int, years: int) -> None:
    """Create the data sets of so many tiles (T, …, P, P), in chunks of one channel or year of a tile."""
    fields, chunk = len(source.static_channels), (1, 1, size, size)
    handle.create_dataset("static", (tiles, fields, size, size), np.float32, chunks=chunk, **FLOAT_FILTER)
    shape = (tiles, years, size, size)
    classes = handle.create_dataset("classes", shape, np.uint8, chunks=chunk, fillvalue=NODATA, **FILTER)
    classes.attrs["_FillValue"] = np.uint8(NODATA)
    classes.attrs["flag_values"] = np.arange(len(source.table), dtype=np.uint8)
    classes.attrs["flag_meanings"] = " ".join(name.replace(" ", "_") for name in source.table.names)
    for field in source.continuous:
        inner = (len(field.channels), size, size)
        made = handle.create_dataset(
            field.name, (tiles, years, *inner), np.uint8, chunks=(1, 1, *inner), fillvalue=NODATA, **FILTER
        )
        made.attrs["units"] = field.units
        made.attrs["scale_factor"] = field.scale_factor
        made.attrs["_FillValue"] = np.uint8(NODATA)
        made.attrs["channels"] = json.dumps(field.channels)


def write_tiles(
    handles: Mapping[str, h5py.File],
    items: Sequence[TileItem],
    stages: TileStages,
    folder: Path,
    scheduler: Scheduler,
    recipe: Recipe | None,
) -> TileSums:
    """Make all pieces, and put them into the files of their splits; returns the sums of the training tiles.

    Parameters
    ----------
    handles : mapping of str to h5py.File
        Files of the splits, in which :func:`create` has made what they hold.
    items : sequence of TileItem
        All pieces, those of a split in their order.
    stages : TileStages
        Of this process.
    folder : Path
        Where pieces are kept; they are removed as they are put in.
    scheduler : Scheduler
        Who makes them.
    recipe : Recipe, optional
        How its workers open the source; not asked for where the work is done here.
    """
    by_key = {Key(item.split, f"{item.number:06d}"): item for item in items}
    journal = Journal(folder / "done", folder)
    pieces = {key: Piece(key, item) for key, item in by_key.items()}
    make_all(scheduler, recipe, pieces, journal, stages=stages, label="tiles")
    first = dict.fromkeys(handles, 0)
    for item in items:
        with h5py.File(folder / item.file) as piece:
            for name in piece:
                _copy_chunks(piece[name], handles[item.split][name], first[item.split])
        (folder / item.file).unlink()
        first[item.split] += len(item.windows)
    return functools.reduce(operator.add, map(TileSums.from_dict, journal.counts("train")))


def _copy_chunks(source: h5py.Dataset, target: h5py.Dataset, first: int) -> None:
    """Copy chunks as they are stored to where the tiles from ``first`` on lie."""
    for number in range(source.id.get_num_chunks()):
        place = source.id.get_chunk_info(number)
        mask, stored = source.id.read_direct_chunk(place.chunk_offset)
        offset = (place.chunk_offset[0] + first, *place.chunk_offset[1:])
        target.id.write_direct_chunk(offset, stored, mask)

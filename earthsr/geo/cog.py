"""Cloud-optimised GeoTIFF put together from pieces that were compressed, and made smaller, while they were computed.

GDAL makes such a file of another one that is whole: everything is read again, averaged, and compressed at the end, by
one process. Here a piece is compressed once, with its share of the overviews, by whoever computes it; at the end its
bytes are copied. What GDAL knows better, coordinate systems and metadata as tags, is taken from a small file that it
writes.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import geo_module
from earthsr.geo.cf_write import plain_attributes
from earthsr.geo.crs import gdal, parse_crs
from earthsr.geo.raster import SOURCE_BAND, Georeference, stored

#: Cells per side of a tile of the file.
TILE: Final = 512
#: Of DEFLATE. A megapixel of predicted terrain took 0.15 s of one core and 2.81 bytes a cell; with 6, as GDAL has it,
#: 0.21 s and 2.78; with 1 0.13 s and 2.87.
_LEVEL: Final = 4
#: Tags that are taken from GDAL's file: scale, tie point, transform, keys of the CRS, metadata, nodata.
_BORROWED: Final = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_NODATA: Final = 42113
#: Bytes of TIFF's types.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES: Final = {3: "H", 4: "I", 16: "Q"}
#: What readers of COGs look for before the first directory: tiles follow each other row by row, each between its size
#: and its last four bytes once more.
_LAYOUT: Final = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
#: Largest classic TIFF, with room for what is not counted.
_CLASSIC: Final = 2**32 - 2**20


def shapes(rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows and columns of a file and of its overviews, each half of the one before, until one tile holds all."""
    sizes = [(rows, columns)]
    while max(sizes[-1]) > TILE:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def halved(values: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float32]:
    """Means of two by two cells, (bands, rows, columns); of those that have a value. Of a code, one of the four."""
    rows, columns = values.shape[1:]
    if rows % 2 or columns % 2:
        values = np.pad(values, ((0, 0), (0, rows % 2), (0, columns % 2)), constant_values=np.nan)
    four = [values[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    valid = [np.isfinite(part) for part in four]
    count = np.sum(valid, axis=0, dtype=np.float32)
    total = np.zeros_like(four[0])
    for part, there in zip(four, valid, strict=True):
        np.add(total, part, out=total, where=there)
    with np.errstate(invalid="ignore"):
        means = total / np.where(count > 0, count, np.float32(np.nan))
    for number, band in enumerate(bands):
        if band == SOURCE_BAND:
            code = four[0][number].copy()
            for part, there in zip(four[1:], valid[1:], strict=True):
                np.copyto(code, part[number], where=np.isnan(code) & there[number])
            means[number] = code
    return means


def encoded(values: NDArray[np.float32], nodata: float) -> bytes:
    """One tile (bands, rows, columns) of at most :data:`TILE` cells per side, padded and compressed.

    TIFF's predictor for floating point (Adobe's technical note 3): bytes of equal weight together, differences along
    rows; then DEFLATE.
    """
    bands, rows, columns = values.shape
    tile = np.full((TILE, TILE, bands), nodata, ">f4")
    tile[:rows, :columns] = stored(values, nodata).transpose(1, 2, 0)
    planes = tile.view(np.uint8).reshape(TILE, TILE * bands, 4).transpose(0, 2, 1).reshape(TILE, -1)
    steps = planes.copy()
    steps[:, bands:] -= planes[:, :-bands]
    return zlib.compress(steps.tobytes(), _LEVEL)


class Piece(NamedTuple):
    """Which tiles a piece has, and what is left of it for overviews of larger ground."""

    tiles: list[list[int]]
    """Level, row and column of each tile, and its first byte and number of bytes in the file."""
    rest: list[int]
    """Rows and columns of the piece on the next level, and first byte and number of bytes."""


def pack(values: NDArray[np.float32], row: int, column: int, side: int, bands: Sequence[str], nodata: float) -> bytes:
    """Compress a piece (bands, rows, columns) whose first cell is at ``row``, ``column``, with its overviews.

    Parameters
    ----------
    values : ndarray of shape (bands, rows, columns)
        NaN where there is no value.
    row, column : int
        Multiples of ``side``.
    side : int
        Cells per side of whole pieces, :data:`TILE` times a power of two.
    bands : sequence of str
        Their names.
    nodata : float
        What stands for no value in the file.

    Returns
    -------
    bytes
        What :func:`read_piece` and :func:`assemble` take.
    """
    tiles: list[list[int]] = []
    blobs: list[bytes] = []
    place = 0
    for level in range(int(math.log2(side // TILE)) + 1):
        for top in range(0, values.shape[1], TILE):
            for left in range(0, values.shape[2], TILE):
                blob = encoded(values[:, top : top + TILE, left : left + TILE], nodata)
                at = (row // 2**level + top) // TILE, (column // 2**level + left) // TILE
                tiles.append([level, *at, place, len(blob)])
                blobs.append(blob)
                place += len(blob)
        values = halved(values, bands)
    rest = zlib.compress(values.tobytes(), 1)
    head = json.dumps(Piece(tiles, [*values.shape[1:], place, len(rest)])._asdict()).encode()
    return b"".join((struct.pack("<I", len(head)), head, *blobs, rest))


def read_piece(path: Path) -> tuple[Piece, int]:
    """Read what :func:`pack` made: its list, and where its bytes begin."""
    with path.open("rb") as handle:
        (length,) = struct.unpack("<I", handle.read(4))
        return Piece(**json.loads(handle.read(length))), 4 + length


class _Tag(NamedTuple):
    number: int
    kind: int
    length: int
    """Values of the type, not bytes."""
    data: bytes


def assemble(
    target: Path,
    pieces: Sequence[Path],
    corners: Sequence[tuple[int, int]],
    side: int,
    georeference: Georeference,
    bands: Sequence[str],
    nodata: float,
    attributes: Mapping[str, Any],
) -> None:
    """Put a file together.

    Parameters
    ----------
    target : Path
        The file; what is needed for a while lies beside it.
    pieces : sequence of Path
        Files that hold what :func:`pack` gave, row by row, of the whole raster.
    corners : sequence of tuple of int
        First row and column of each.
    side : int
        Cells per side of a piece.
    georeference : Georeference
        Of the whole.
    bands : sequence of str
        Their names.
    nodata : float
        What stands for no value.
    attributes : Mapping
        Provenance.
    """
    sizes = shapes(georeference.rows, georeference.columns)
    grids = [(-(-rows // TILE), -(-columns // TILE)) for rows, columns in sizes]
    counts = [np.zeros(grid, np.int64) for grid in grids]
    files = [np.zeros(grid, np.int64) for grid in grids]
    places = [np.zeros(grid, np.int64) for grid in grids]
    level_of_rest = int(math.log2(side // TILE)) + 1
    with _Rests(target, sizes[level_of_rest:], len(bands)) as rests:
        for number, (path, (row, column)) in enumerate(zip(pieces, corners, strict=True)):
            piece, begin = read_piece(path)
            for level, i, j, place, count in piece.tiles:
                if level < len(sizes):  # a raster that is smaller than a piece needs no more
                    counts[level][i, j], files[level][i, j], places[level][i, j] = count, number, begin + place
            if rests.levels:
                rows, columns, place, count = piece.rest
                with path.open("rb") as handle:
                    handle.seek(begin + place)
                    values = np.frombuffer(zlib.decompress(handle.read(count)), np.float32)
                rests.put(row >> level_of_rest, column >> level_of_rest, values.reshape(len(bands), rows, columns))
        for level, i, j, place, count in rests.tiles(bands, nodata, level_of_rest):
            counts[level][i, j], files[level][i, j], places[level][i, j] = count, len(pieces), place
        sources = [*pieces, rests.blobs]
        head = _header(target, sizes, counts, georeference, bands, nodata, attributes)
        with target.open("wb") as out:
            out.write(head)
            for level in reversed(range(len(sizes))):
                for blob in _bytes_of(sources, files[level].ravel(), places[level].ravel(), counts[level].ravel()):
                    out.write(struct.pack("<I", len(blob)) + blob + blob[-4:])


def _bytes_of(sources: Sequence[Path], files: NDArray, places: NDArray, counts: NDArray) -> Iterator[bytes]:
    """Bytes of tiles in their order; neighbours in a row lie behind each other in one file and are read at once."""
    first = 0
    while first < len(files):
        end = first + 1
        while end < len(files) and files[end] == files[first] and places[end] == places[end - 1] + counts[end - 1]:
            end += 1
        with sources[int(files[first])].open("rb") as handle:
            handle.seek(int(places[first]))
            block = handle.read(int(counts[first:end].sum()))
        at = 0
        for count in counts[first:end]:
            yield block[at : at + int(count)]
            at += int(count)
        first = end


class _Rests:
    """Overviews of more ground than one piece has, on disk: a sixty-fourth of the raster with pieces of 2,048 cells."""

    def __init__(self, target: Path, levels: Sequence[tuple[int, int]], bands: int) -> None:
        self.levels, self._bands = list(levels), bands
        self.blobs = target.with_name("overviews.bin")
        self._paths = [target.with_name(f"level-{number}.bin") for number in range(len(self.levels))]
        self._maps = [
            np.memmap(path, np.float32, "w+", shape=(bands, *size))
            for path, size in zip(self._paths, self.levels, strict=True)
        ]

    def __enter__(self) -> _Rests:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps = []
        for path in (self.blobs, *self._paths):
            path.unlink(missing_ok=True)

    def put(self, row: int, column: int, values: NDArray[np.float32]) -> None:
        """Take the rest of a piece."""
        self._maps[0][:, row : row + values.shape[1], column : column + values.shape[2]] = values

    def tiles(self, bands: Sequence[str], nodata: float, first: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Compress them; gives level, row, column, place and number of bytes of each tile in :attr:`blobs`."""
        place = 0
        with self.blobs.open("wb") as out:
            for number, (rows, columns) in enumerate(self.levels):
                for top in range(0, rows, TILE):
                    strip = np.array(self._maps[number][:, top : top + TILE])
                    for left in range(0, columns, TILE):
                        blob = encoded(strip[:, :, left : left + TILE], nodata)
                        out.write(blob)
                        yield first + number, top // TILE, left // TILE, place, len(blob)
                        place += len(blob)
                    if number + 1 < len(self.levels):
                        half = halved(strip, bands)
                        self._maps[number + 1][:, top // 2 : top // 2 + half.shape[1]] = half


def _header(
    target: Path,
    sizes: Sequence[tuple[int, int]],
    counts: Sequence[NDArray],
    georeference: Georeference,
    bands: Sequence[str],
    nodata: float,
    attributes: Mapping[str, Any],
) -> bytes:
    """All that stands before the tiles: signature, layout, one directory for the raster and one for each overview."""
    borrowed = _borrowed(target.with_name("tags.tif"), georeference, bands, nodata, attributes)
    body = sum(int(count.sum()) + 8 * count.size for count in counts)
    big = body + 32 * sum(count.size for count in counts) > _CLASSIC
    # Places of tiles follow from the length of the header, which does not depend on them.
    length = len(_directories(sizes, counts, [np.zeros(c.size, np.int64) for c in counts], len(bands), borrowed, big))
    offsets: list[NDArray] = [np.empty(0, np.int64)] * len(sizes)
    place = length
    for level in reversed(range(len(sizes))):
        steps = counts[level].ravel() + 8
        offsets[level] = place + 4 + np.concatenate([[0], np.cumsum(steps)[:-1]])
        place += int(steps.sum())
    return _directories(sizes, counts, offsets, len(bands), borrowed, big)


def _directories(
    sizes: Sequence[tuple[int, int]],
    counts: Sequence[NDArray],
    offsets: Sequence[NDArray],
    bands: int,
    borrowed: Sequence[_Tag],
    big: bool,
) -> bytes:
    layout = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_LAYOUT):06d} bytes\n{_LAYOUT}".encode()
    start = (16 if big else 8) + len(layout)
    start += -start % 8
    parts: list[bytes] = []
    for level, (rows, columns) in enumerate(sizes):
        words: list[tuple[int, int, Sequence[int] | NDArray]] = [
            (254, 4, [1 if level else 0]),
            (256, 4, [columns]),
            (257, 4, [rows]),
            (258, 3, [32] * bands),
            (259, 3, [8]),
            (262, 3, [1]),
            (277, 3, [bands]),
            (284, 3, [1]),
            (317, 3, [3]),
            (322, 3, [TILE]),
            (323, 3, [TILE]),
            (324, 16 if big else 4, offsets[level]),
            (325, 4, counts[level].ravel()),
            (339, 3, [3] * bands),
            *([(338, 3, [0] * (bands - 1))] if bands > 1 else []),
        ]
        tags = [_Tag(n, kind, len(v), struct.pack(f"<{len(v)}{_CODES[kind]}", *map(int, v))) for n, kind, v in words]
        tags += [tag for tag in borrowed if not level or tag.number == _NODATA]
        block = _directory(sorted(tags), start, big, last=level == len(sizes) - 1)
        parts.append(block)
        start += len(block)
    first = (16 if big else 8) + len(layout)
    first += -first % 8
    signature = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)
    return (signature + layout).ljust(first, b"\0") + b"".join(parts)


def _directory(tags: Sequence[_Tag], start: int, big: bool, last: bool) -> bytes:
    """One directory that begins at ``start``, with its values behind it and the next directory behind these."""
    entry, inline, word = (20, 8, "Q") if big else (12, 4, "I")
    head = (8 if big else 2) + entry * len(tags) + (8 if big else 4)
    values, entries = b"", b""
    for tag in tags:
        if len(tag.data) <= inline:
            value = tag.data.ljust(inline, b"\0")
        else:
            values += b"\0" * (-(start + head + len(values)) % 8)
            value = struct.pack(f"<{word}", start + head + len(values))
            values += tag.data
        entries += struct.pack(f"<HH{word}", tag.number, tag.kind, tag.length) + value
    values += b"\0" * (-(start + head + len(values)) % 8)
    following = 0 if last else start + head + len(values)
    return struct.pack("<Q" if big else "<H", len(tags)) + entries + struct.pack(f"<{word}", following) + values


def _borrowed(
    path: Path, georeference: Georeference, bands: Sequence[str], nodata: float, attributes: Mapping[str, Any]
) -> list[_Tag]:
    """Tags of place, CRS and metadata as GDAL writes them, of a file of one tile."""
    rasterio = geo_module("rasterio")
    g = replace(georeference, rows=16, columns=16)
    with gdal():
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=16,
            height=16,
            count=len(bands),
            dtype="float32",
            nodata=nodata,
            crs=parse_crs(g.crs_wkt, path.name) if g.crs_wkt else None,
            transform=rasterio.Affine(*g.transform),
            BIGTIFF="NO",
            ENDIANNESS="LITTLE",
        ) as file:
            describe_bands(file, georeference, bands, attributes)
        content = path.read_bytes()
        path.unlink()
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    tags = []
    for at in range(first + 2, first + 2 + 12 * count, 12):
        number, kind, length = struct.unpack_from("<HHI", content, at)
        size = _SIZES[kind] * length
        place = at + 8 if size <= 4 else struct.unpack_from("<I", content, at + 8)[0]
        if number in _BORROWED:
            tags.append(_Tag(number, kind, length, content[place : place + size]))
    return tags


def describe_bands(file: Any, georeference: Georeference, bands: Sequence[str], attributes: Mapping[str, Any]) -> None:
    """Write into a file of rasterio's what is said of it: provenance, names and units of bands."""
    g = georeference
    tags = {key: value for key, value in g.attributes.items() if key not in ("long_name", "standard_name")}
    file.update_tags(**plain_attributes({**tags, **attributes, "AREA_OR_POINT": "Area"}))
    file.descriptions = tuple(bands)
    file.units = tuple("1" if band == SOURCE_BAND else g.units for band in bands)
    names = {key: g.attributes[key] for key in ("long_name", "standard_name") if key in g.attributes}
    if names:
        file.update_tags(1, **plain_attributes(names))

"""The Zarr store of annual maps: made once, filled by many processes chunk by chunk, finished once.

One file holds one chunk of one year, and is only ever replaced whole: processes that write different chunks need
nothing of each other, and a kill leaves each chunk as it was or as it is to be. A chunk without any value has no file.
"""

from __future__ import annotations

import asyncio
import functools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, geo_module
from earthsr.geo.grid import Window, pieces
from earthsr.landuse.classes import NODATA
from earthsr.landuse.maps.layout import (
    COMPLETE,
    DESCRIPTION,
    Coordinate,
    MapsSpec,
    coordinates,
    layer_attributes,
    layer_dimensions,
    root_attributes,
    to_bytes,
    to_classes,
    to_codes,
    to_probabilities,
)
from earthsr.store import Part, atomic_file, disk_errors, flush_folder, restore, write_json

#: Of zstd. Maps of 2048 x 2048: 0.3 MB, written in 30 ms and read in 5; higher levels take twice the time for 12 %.
_LEVEL: Final = 3
_ROOT: Final = "zarr.json"


def create_maps(path: Path, spec: MapsSpec, attributes: Mapping[str, Any]) -> None:
    """Make a store with all its metadata and coordinates, and without any map; whole or not at all.

    Parameters
    ----------
    path : Path
        Folder that is not there yet.
    spec : MapsSpec
        What it is to hold.
    attributes : Mapping
        Root attributes, such as title, institution, history, source and references; :meth:`Maps.finish` adds more.

    Raises
    ------
    InputError
        If something is there already, the CRS is not geographic, or the disk does not take it; nothing is left then.
    """
    path = Path(path)
    known = coordinates(spec)
    root = root_attributes(spec, attributes, complete=False)
    geo_module("zarr")
    part = Part(path, overwrite=False, store=True, lock=False)  # whoever is first
    try:
        with disk_errors(path):
            _make(part.target, spec, known, root)
        part.commit()
    finally:
        part.discard()


def _make(target: Path, spec: MapsSpec, known: list[Coordinate], root: dict[str, Any]) -> None:
    zarr = geo_module("zarr")
    codecs = geo_module("zarr.codecs")
    store = durable_store(target)
    # What version 3 does not describe yet, consolidated metadata and texts, readers have agreed on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.create_group(store, zarr_format=3, attributes=root)
        for coordinate in known:
            text = coordinate.values.dtype == object
            array = group.create_array(
                coordinate.name,
                shape=coordinate.values.shape,
                chunks=coordinate.values.shape,
                dtype="str" if text else coordinate.values.dtype,
                dimension_names=coordinate.dimensions,
                attributes=_json(coordinate.attributes),
            )
            array[...] = coordinate.values
        for layer in spec.layers:
            group.create_array(
                layer,
                shape=spec.shape(layer),
                chunks=spec.chunk_shape(layer),
                dtype=np.uint8,
                fill_value=NODATA,
                dimension_names=layer_dimensions(layer),
                # The checksum tells a damaged chunk from a map.
                compressors=codecs.ZstdCodec(level=_LEVEL, checksum=True),
                attributes=_json({**layer_attributes(spec, layer), "_FillValue": NODATA}),
            )
        zarr.consolidate_metadata(store)


def _json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in attributes.items()}


def durable_store(root: Path) -> Any:
    """Make a store of Zarr in a folder, whose files are renamed into place and flushed to the disk.

    Zarr's own store renames files into place too, but leaves it to the system when they reach the disk: after a
    power cut a file may be empty that a later one, such as a marker of what is done, says is there.
    """
    return _store_class()(root)


@functools.cache
def _store_class() -> Any:
    # ChunkMaps when it is needed, for zarr is no package that earthsr itself needs.
    local = geo_module("zarr.storage").LocalStore
    return type("DurableStore", (local,), {"set": _set, "delete": _delete})


async def _set(store: Any, key: str, value: Any) -> None:
    await asyncio.to_thread(_replace, store.root / key, value)


async def _delete(store: Any, key: str) -> None:
    await asyncio.to_thread(_remove, store.root / key)


def _replace(path: Path, value: Any) -> None:
    new = [folder for folder in path.parents if not folder.exists()]
    with atomic_file(path) as temporary:
        temporary.write_bytes(value.to_bytes())
    for folder in new:
        flush_folder(folder.parent)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    flush_folder(path.parent)


def open_maps(path: Path) -> Maps:
    """Open a store that :func:`create_maps` made, to read and to write.

    Parameters
    ----------
    path : Path
        The store's folder.

    Raises
    ------
    DataError
        If it is no such store, or is damaged.
    """
    path = Path(path)
    restore(path)
    text = _root(path)["attributes"].get(DESCRIPTION)
    if text is None:
        raise DataError(
            f"{path}: is a Zarr store of something else: it has no attribute {DESCRIPTION}; give maps that earthsr "
            "reconstruct made"
        )
    spec = MapsSpec.from_json(text, str(path))
    zarr = geo_module("zarr")
    try:
        group = zarr.open_group(durable_store(path), mode="r+", zarr_format=3, use_consolidated=False)
        arrays = {layer: group[layer] for layer in spec.layers}
        layouts = {
            layer: (tuple(array.shape), tuple(array.chunks), str(array.dtype), int(array.fill_value))
            for layer, array in arrays.items()
        }
    except Exception as error:  # zarr has many kinds for what is missing or malformed
        raise DataError(f"{path}: a layer cannot be opened ({_reason(error)}); the store is damaged") from error
    for layer, layout in layouts.items():
        expected = (spec.shape(layer), spec.chunk_shape(layer), "uint8", NODATA)
        if layout != expected:
            raise DataError(
                f"{path}: {layer} has shape, chunks, type and fill value {layout}, expected {expected} from its "
                f"{DESCRIPTION}; the store is damaged"
            )
    return Maps(path, spec, arrays)


class Maps:
    """Annual maps on disk; :func:`open_maps` opens them.

    Nothing is kept in memory. One thread may read while another writes, and any number of processes may have the
    same store open, if each writes chunks of its own.

    Parameters
    ----------
    path : Path
        The store's folder.
    spec : MapsSpec
        What it holds.
    arrays : mapping
        Arrays of the store by their names.
    """

    def __init__(self, path: Path, spec: MapsSpec, arrays: Mapping[str, Any]) -> None:
        self.path, self.spec = path, spec
        self._arrays = arrays
        self._places = {year: place for place, year in enumerate(spec.years)}

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes as they are on disk now."""
        return dict(_root(self.path)["attributes"])

    @property
    def complete(self) -> bool:
        """Whether :meth:`finish` was called."""
        return bool(self.attributes.get(COMPLETE))

    def finished_attributes(self) -> dict[str, Any]:
        """Return the root attributes, for a copy.

        Raises
        ------
        InputError
            If the maps are not finished: a copy would hide that maps are missing.
        """
        attributes = self.attributes
        if not attributes.get(COMPLETE):
            raise InputError(
                f"{self.path}: is not finished, maps may be missing; let earthsr reconstruct finish it first"
            )
        return attributes

    def write(self, layer: str, year: int, window: Window, values: NDArray) -> None:
        """Write one or more whole chunks; when this returns they are on the disk.

        Parameters
        ----------
        layer : str
            One of the layers of the spec.
        year : int
            One of its years.
        window : Window
            Inside the grid; begins and ends where chunks do.
        values : ndarray
            Class indices, uint8, 255 for none, (rows, columns); or probabilities, 0 to 1, NaN for none: float32
            (rows, columns) for ``confidence``, (K, rows, columns) for ``probabilities``.

        Raises
        ------
        InputError
            If the layer or the year is not in these maps, or the disk does not take it. Of several chunks some may be
            written then, each of them whole.
        """
        array, place = self._array(layer), self._place(year)
        row, column, rows, columns = self._whole(window)
        expected = (*array.shape[1:-2], rows, columns)
        if values.shape != expected:
            raise ValueError(f"{layer} of {year}: values have shape {values.shape}, expected {expected}")
        stored = to_codes(values, self.spec.table) if layer == "land_use" else to_bytes(values)
        with disk_errors(self.path):
            # Slices, for then zarr takes what is given as the chunk that it is and copies nothing.
            array[place : place + 1, ..., row : row + rows, column : column + columns] = stored[None]

    def read(self, layer: str, year: int, window: Window) -> NDArray[Any]:
        """Read a window; only chunks that it touches are read.

        Columns wrap around where the grid is periodic. What lies beyond the grid, or was not written yet, has no value.

        Returns
        -------
        ndarray
            Class indices, uint8, 255 for none, (rows, columns); or probabilities, float32, NaN for none, (rows,
            columns) for ``confidence``, (K, rows, columns) for ``probabilities``.

        Raises
        ------
        InputError
            If the layer or the year is not in these maps.
        DataError
            If a chunk is damaged.
        """
        stored = self.stored(layer, year, window)
        if layer == "land_use":
            return to_classes(stored, self.spec.table, f"{self.path}: {layer} of {year}")
        return to_probabilities(stored)

    def stored(self, layer: str, year: int, window: Window) -> NDArray[np.uint8]:
        """Read a window of ``layer`` in ``year`` as it is on disk.

        Codes of classes, or bytes of 0.004, 255 for none: (rows, columns), or (K, rows, columns) for ``probabilities``.
        :meth:`read` gives what they mean.

        Raises
        ------
        DataError
            If the store is damaged, or was removed.
        InputError
            If the maps have no such layer or year.
        """
        array, place = self._array(layer), self._place(year)
        values = np.full((*array.shape[1:-2], *window[2:]), NODATA, np.uint8)
        grid = self.spec.grid
        for (row, column, rows, columns), top, left in pieces(window, grid.rows, grid.columns, grid.periodic):
            try:
                part = array[place : place + 1, ..., row : row + rows, column : column + columns]
            except Exception as error:  # every codec has errors of its own for a damaged chunk
                raise DataError(
                    f"{self.path}: {layer} of {year} cannot be read, rows {row} to {row + rows - 1}, columns {column} "
                    f"to {column + columns - 1} ({_reason(error)}); a file of a chunk may be damaged"
                ) from error
            values[..., top : top + rows, left : left + columns] = part[0]
        return values

    def file(self, layer: str, year: int, i: int, j: int) -> Path:
        """Where the chunk in row ``i`` and column ``j`` of a ``year`` of a ``layer`` lies; empty ones have none."""
        array, place = self._array(layer), self._place(year)
        key = array.metadata.encode_chunk_key((place, *(0 for _ in array.shape[1:-2]), i, j))
        return self.path / layer / str(key)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Say that all maps are there, with root attributes beside those from the beginning; what is there is replaced.

        Nobody may write any more: what killed processes left half-written is removed.

        Parameters
        ----------
        attributes : Mapping
            For example title, institution, history, source, references and provenance; what is no text or number
            becomes the text of its JSON, with null in the place of NaN.

        Raises
        ------
        InputError
            If the disk does not take it.
        """
        with disk_errors(self.path):
            for leftover in self.path.rglob(".*.part-*"):
                leftover.unlink(missing_ok=True)
            root = _root(self.path)
            root["attributes"] = root_attributes(self.spec, {**root["attributes"], **attributes}, complete=True)
            write_json(self.path / _ROOT, root)

    def _array(self, layer: str) -> Any:
        if layer not in self._arrays:
            raise InputError(f"{self.path}: has no layer {layer}; it has {', '.join(self._arrays)}")
        if not (self.path / layer / _ROOT).exists():
            # Else all would read as no value, and what is written would lie in a folder that is no store.
            raise DataError(f"{self.path}: is not there any more; another process has moved or removed it")
        return self._arrays[layer]

    def _place(self, year: int) -> int:
        if year not in self._places:
            years = self.spec.years
            raise InputError(f"{self.path}: has no map of {year}; it has {len(years)} from {years[0]} to {years[-1]}")
        return self._places[year]

    def _whole(self, window: Window) -> Window:
        """Give a window back if it consists of whole chunks; another one is a fault of the caller."""
        row, column, rows, columns = window
        grid, chunk = self.spec.grid, self.spec.chunk
        for start, count, cells, side in ((row, rows, grid.rows, chunk[0]), (column, columns, grid.columns, chunk[1])):
            end = start + count
            whole = start % side == 0 and (end % side == 0 or end == cells)
            if not (0 <= start < end <= cells and whole):
                raise ValueError(
                    f"window {tuple(window)} is not of whole chunks of {chunk[0]} x {chunk[1]} cells in a grid of "
                    f"{grid.rows} x {grid.columns}"
                )
        return window


def _root(path: Path) -> dict[str, Any]:
    """Read the metadata of the store's root."""
    try:
        root = json.loads((path / _ROOT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        what = "is no Zarr store of version 3 (it has no zarr.json)" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}; give maps that earthsr reconstruct made") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {_ROOT} cannot be read ({_reason(error)}); the store is damaged") from None
    if not isinstance(root, dict) or root.get("node_type") != "group" or not isinstance(root.get("attributes"), dict):
        raise DataError(f"{path}: {_ROOT} is not that of a group with attributes; give maps that earthsr made")
    return root


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

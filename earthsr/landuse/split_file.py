"""Opening one HDF5 file of land-use tiles, and saying clearly what is wrong with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.data.hdf5 import open_h5, plain_attributes, reading
from earthsr.errors import DataError
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import ClassTable
from earthsr.landuse.fields import Channel, ContinuousField, LandUseStatistics
from earthsr.store.untrusted import parse_json

T = TypeVar("T")


@dataclass(frozen=True)
class LandUseLayout:
    """What one file of land-use tiles holds."""

    path: Path
    split: str
    tiles: int
    tile_size: int
    """Fine cells per side."""
    years: tuple[int, ...]
    table: ClassTable
    static_channels: tuple[Channel, ...]
    coarse_channels: tuple[str, ...]
    continuous: tuple[ContinuousField, ...]
    forcing: str
    """``scenario``, or ``oracle``: aggregated from the truth itself."""
    of_class: dict[str, tuple[str, ...]]
    fine: Grid
    coarse: Grid
    held_out_years: tuple[int, ...]
    anchor_year: int
    statistics: LandUseStatistics
    crs: str
    source: str
    attributes: dict[str, Any]


def _read(attributes: dict[str, Any], key: str, path: Path, read: Callable[[Any], T]) -> T:
    """What an attribute that holds JSON says, in the form that ``read`` makes of it."""
    if key not in attributes:
        raise DataError(
            f"{path}: has no attribute {key}; write it with earthsr prepare landuse or earthsr sample landuse"
        )
    try:
        return read(parse_json(attributes[key]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: attribute {key} is damaged ({error}); write the file again") from None


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError(f"{type(values).__name__} where a list is expected")
    return values


def _dataset(handle: h5py.File, path: Path, key: str, shape: tuple[int | None, ...], kinds: str) -> h5py.Dataset:
    if key not in handle or not isinstance(handle[key], h5py.Dataset):
        held = ", ".join(handle) or "nothing"
        raise DataError(f"{path}: has no dataset {key}; found {held}; is it a land-use file?")
    dataset = handle[key]
    fits = dataset.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, dataset.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise DataError(f"{path}: {key} has shape {dataset.shape}, expected ({wanted})")
    if dataset.dtype.kind not in kinds:
        raise DataError(f"{path}: {key} holds {dataset.dtype}, expected kind {' or '.join(kinds)}")
    return dataset


def _axis(path: Path, key: str, values: NDArray[np.float64], falling: bool) -> tuple[float, float]:
    """First centre and distance of the regular coordinates of a coarse axis."""
    if len(values) < 2:
        raise DataError(f"{path}: {key} has {len(values)} value(s), expected at least 2")
    steps = np.diff(values)
    step = float(steps.mean())
    if not np.allclose(steps, step, rtol=1e-3) or not (step < 0 if falling else step > 0):
        raise DataError(f"{path}: {key} is not regular from {'north to south' if falling else 'west to east'}")
    return float(values[0]), abs(step)


def _field(handle: h5py.File, path: Path, name: str, shape: tuple[int, int, int]) -> ContinuousField:
    """Continuous field of that name, of tiles, years and cells as ``shape`` says."""
    tiles, count, size = shape
    attributes = _dataset(handle, path, name, (tiles, count, None, size, size), "u").attrs
    try:
        units, scale = str(attributes["units"]), float(attributes["scale_factor"])
        labels = tuple(str(label) for label in _list(parse_json(attributes["channels"])))
        if not 0 < scale < math.inf:
            raise ValueError(f"scale_factor {scale}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {name} lacks or garbles units, scale_factor or channels ({error})") from None
    _dataset(handle, path, name, (tiles, count, len(labels), size, size), "u")
    return ContinuousField(name, units, labels, scale)


def _fine_grid(path: Path, attributes: dict[str, Any], places: NDArray[np.int64], size: int) -> Grid:
    """Grid of the tiles, which lie on it."""
    transform = np.asarray(attributes.get("transform", ()), np.float64)
    shape = np.asarray(attributes.get("grid_shape", ()))
    if transform.shape != (6,) or shape.shape != (2,) or not all(map(math.isfinite, transform)):
        raise DataError(f"{path}: attributes transform and grid_shape should hold 6 and 2 numbers")
    if transform[0] <= 0 or transform[4] >= 0:
        raise DataError(
            f"{path}: attribute transform is {transform.tolist()}, expected cells to the east and the south"
        )
    outside = ((places < 0) | (places + size > shape)).any(axis=1)
    if outside.any():
        tile = int(np.argmax(outside))
        raise DataError(
            f"{path}: tile_index names row {places[tile, 0]}, column {places[tile, 1]} for tile {tile} of {size} "
            f"cells, outside the grid of {shape[0]} x {shape[1]} (grid_shape)"
        )
    return Grid(transform[2], transform[5], transform[0], -transform[4], int(shape[0]), int(shape[1]))


def _check_cover(path: Path, fine: Grid, coarse: Grid, places: NDArray[np.int64], size: int) -> None:
    """Raise a :class:`DataError` where the centre of a cell lies beyond the forcing's outermost cells."""
    ends = np.array([0.5, size - 0.5])
    latitudes = fine.north - fine.cell_y * (places[:, :1] + ends)
    longitudes = fine.west + fine.cell_x * (places[:, 1:] + ends)
    south, east = coarse.latitude_edges()[-1], coarse.longitude_edges()[-1]
    slack = 1e-6 * coarse.cell_y
    outside = (latitudes > coarse.north + slack) | (latitudes < south - slack)
    if not coarse.periodic:
        outside |= (longitudes < coarse.west - slack) | (longitudes > east + slack)
    if outside.any():
        tile = int(np.argmax(outside.any(axis=1)))
        raise DataError(
            f"{path}: the forcing ({south:g} to {coarse.north:g} N, {coarse.west:g} to {east:g} E) does not "
            f"cover tile {tile} at row {places[tile, 0]}, column {places[tile, 1]} ({latitudes[tile, 1]:.3f} to "
            f"{latitudes[tile, 0]:.3f} N, {longitudes[tile, 0]:.3f} to {longitudes[tile, 1]:.3f} E)"
        )


def _forcing_classes(
    path: Path, of_class: dict[str, tuple[str, ...]], table: ClassTable, channels: tuple[str, ...]
) -> None:
    """Check that classes and channels which belong together are there."""
    for name, parts in of_class.items():
        if name not in table.names:
            raise DataError(
                f"{path}: attribute forcing_classes names {name}, which is no class ({', '.join(table.names)})"
            )
        for part in parts:
            if part not in channels:
                raise DataError(
                    f"{path}: attribute forcing_classes names {part}, which is no channel of coarse "
                    f"({', '.join(channels)})"
                )


def read_landuse(path: Path) -> LandUseLayout:
    """Check a file of land-use tiles and describe it, reading none of the tiles.

    Raises
    ------
    DataError
        If a dataset or attribute is missing, damaged, or does not fit the others.
    """
    with open_h5(path) as handle, reading(path):
        attributes = plain_attributes(handle)
        classes = _dataset(handle, path, "classes", (None, None, None, None), "u")
        table = ClassTable.from_json(attributes.get("classes"), str(path))
        channels = _read(
            attributes,
            "static_channels",
            path,
            lambda value: tuple(Channel(str(c["name"]), str(c["units"])) for c in _list(value)),
        )
        coarse_channels = _read(attributes, "coarse_channels", path, lambda value: tuple(map(str, _list(value))))
        tiles, count, size, other = classes.shape
        if size != other or not tiles or not count:
            raise DataError(f"{path}: classes has shape {classes.shape}, expected (tiles, years, P, P), none of them 0")
        _dataset(handle, path, "static", (tiles, len(channels), size, size), "f")
        coarse = _dataset(handle, path, "coarse", (count, len(coarse_channels), None, None), "f")
        years = tuple(int(year) for year in _dataset(handle, path, "years", (count,), "iu")[...])
        if any(b <= a for a, b in itertools.pairwise(years)):
            raise DataError(f"{path}: years are not ascending: {years}")
        _dataset(handle, path, "tile_origin", (tiles, 2), "f")
        places = _dataset(handle, path, "tile_index", (tiles, 2), "iu")[...].astype(np.int64)
        latitude = _dataset(handle, path, "coarse_latitude", coarse.shape[2:3], "f")
        longitude = _dataset(handle, path, "coarse_longitude", coarse.shape[3:], "f")
        north, lat_step = _axis(path, "coarse_latitude", latitude[...], falling=True)
        west, lon_step = _axis(path, "coarse_longitude", longitude[...], falling=False)
        grid = Grid(west - lon_step / 2, north + lat_step / 2, lon_step, lat_step, *coarse.shape[2:])
        fine = _fine_grid(path, attributes, places, size)
        _check_cover(path, fine, grid, places, size)
        names = _read(attributes, "continuous", path, lambda value: tuple(map(str, _list(value))))
        continuous = tuple(_field(handle, path, name, (tiles, count, size)) for name in names)
        statistics = _read(attributes, "statistics", path, LandUseStatistics.from_dict)
        if not statistics.fits(len(channels), len(table), names):
            raise DataError(
                f"{path}: attribute statistics is of other channels, classes or fields, or not finite; write the file "
                "again"
            )
        of_class = _read(
            attributes,
            "forcing_classes",
            path,
            lambda value: {str(name): tuple(map(str, _list(parts))) for name, parts in value.items()},
        )
        _forcing_classes(path, of_class, table, coarse_channels)
        held_out = _read(attributes, "held_out_years", path, lambda value: tuple(int(year) for year in _list(value)))
        anchor = int(attributes.get("anchor_year", years[0]))
        if set(held_out) & set(years) and (anchor not in years or anchor in held_out):
            raise DataError(
                f"{path}: attribute anchor_year is {anchor}, expected a year of the file that is not held out; it has "
                f"{years}, held out {held_out}"
            )
        return LandUseLayout(
            path=path,
            split=str(attributes.get("split", path.stem)),
            tiles=tiles,
            tile_size=size,
            years=years,
            table=table,
            static_channels=channels,
            coarse_channels=coarse_channels,
            continuous=continuous,
            forcing=str(attributes.get("forcing", "not stated")),
            of_class=of_class,
            fine=fine,
            coarse=grid,
            held_out_years=held_out,
            anchor_year=anchor,
            statistics=statistics,
            crs=str(attributes.get("crs", "")),
            source=str(attributes.get("source", "not stated in the file")),
            attributes=attributes,
        )


def tile_size_of(root: Path) -> int:
    """Fine cells per tile side of the files in a data folder.

    Raises
    ------
    DataError
        If it holds no split, or one that is damaged.
    """
    for split in ("test", "valid", "train"):
        path = root / split / f"{split}.h5"
        if path.is_file():
            return read_landuse(path).tile_size
    raise DataError(f"{root}: holds none of test/test.h5, valid/valid.h5, train/train.h5; name another folder")

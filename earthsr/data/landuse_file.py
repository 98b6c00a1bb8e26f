"""Opening one HDF5 file of land-use tiles, and saying clearly what is wrong with it."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.areas import Grid
from earthsr.data.classes import ClassTable
from earthsr.data.hdf5 import open_h5, plain_attributes, reading
from earthsr.data.landuse_source import Channel, ContinuousField
from earthsr.data.landuse_statistics import LandUseStatistics
from earthsr.errors import DataError


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


def _json(attributes: dict[str, Any], key: str, path: Path) -> Any:
    if key not in attributes:
        raise DataError(
            f"{path}: has no attribute {key}; write it with earthsr prepare landuse or earthsr sample landuse"
        )
    try:
        return json.loads(attributes[key])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: attribute {key} is damaged ({error}); write the file again") from None


def _dataset(handle: h5py.File, path: Path, key: str, shape: tuple[int | None, ...], kinds: str) -> h5py.Dataset:
    if key not in handle or not isinstance(handle[key], h5py.Dataset):
        found = ", ".join(handle) or "nothing"
        raise DataError(f"{path}: has no dataset {key}; found {found}; is it a land-use file?")
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
    if not np.allclose(steps, step, rtol=1e-3) or (step < 0) != falling:
        raise DataError(f"{path}: {key} is not regular from {'north to south' if falling else 'west to east'}")
    return float(values[0]), abs(step)


def read_landuse(path: Path) -> LandUseLayout:
    """Check a file of land-use tiles and describe it, reading none of the tiles.

    Raises
    ------
    DataError
        If a dataset or attribute is missing, damaged, or does not fit the others.
    """
    with open_h5(path) as handle, reading(path):
        attributes = plain_attributes(handle)
        table = ClassTable.from_json(attributes.get("classes"), str(path))
        channels = tuple(Channel(str(c["name"]), str(c["units"])) for c in _json(attributes, "static_channels", path))
        coarse_channels = tuple(str(name) for name in _json(attributes, "coarse_channels", path))
        classes = _dataset(handle, path, "classes", (None, None, None, None), "u")
        tiles, count, size, other = classes.shape
        if size != other or not tiles or not count:
            raise DataError(f"{path}: classes has shape {classes.shape}, expected (tiles, years, P, P), none of them 0")
        _dataset(handle, path, "static", (tiles, len(channels), size, size), "f")
        coarse = _dataset(handle, path, "coarse", (count, len(coarse_channels), None, None), "f")
        years = tuple(int(year) for year in _dataset(handle, path, "years", (count,), "iu")[...])
        if any(b <= a for a, b in itertools.pairwise(years)):
            raise DataError(f"{path}: years are not ascending: {years}")
        _dataset(handle, path, "tile_origin", (tiles, 2), "f")
        _dataset(handle, path, "tile_index", (tiles, 2), "iu")
        north, lat_step = _axis(path, "coarse_latitude", handle["coarse_latitude"][...], falling=True)
        west, lon_step = _axis(path, "coarse_longitude", handle["coarse_longitude"][...], falling=False)
        grid = Grid(west - lon_step / 2, north + lat_step / 2, lon_step, lat_step, *coarse.shape[2:])
        transform = np.asarray(attributes.get("transform", ()), np.float64)
        shape = np.asarray(attributes.get("grid_shape", ()))
        if transform.shape != (6,) or shape.shape != (2,) or not all(map(math.isfinite, transform)):
            raise DataError(f"{path}: attributes transform and grid_shape should hold 6 and 2 numbers")
        fine = Grid(transform[2], transform[5], transform[0], -transform[4], int(shape[0]), int(shape[1]))
        continuous = []
        for name in _json(attributes, "continuous", path):
            dataset = _dataset(handle, path, name, (tiles, count, None, size, size), "u")
            labels = tuple(json.loads(dataset.attrs["channels"]))
            scale = float(dataset.attrs["scale_factor"])
            continuous.append(ContinuousField(name, str(dataset.attrs["units"]), labels, scale))
        try:
            statistics = LandUseStatistics.from_dict(_json(attributes, "statistics", path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: attribute statistics lacks or garbles {error}; write the file again") from None
        if len(statistics.static_mean) != len(channels) or len(statistics.class_counts) != len(table):
            raise DataError(f"{path}: attribute statistics is of other channels or classes; write the file again")
        return LandUseLayout(
            path=path,
            split=str(attributes.get("split", path.stem)),
            tiles=tiles,
            tile_size=size,
            years=years,
            table=table,
            static_channels=channels,
            coarse_channels=coarse_channels,
            continuous=tuple(continuous),
            forcing=str(attributes.get("forcing", "not stated")),
            of_class={str(k): tuple(map(str, v)) for k, v in _json(attributes, "forcing_classes", path).items()},
            fine=fine,
            coarse=grid,
            held_out_years=tuple(int(year) for year in _json(attributes, "held_out_years", path)),
            anchor_year=int(attributes.get("anchor_year", years[0])),
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

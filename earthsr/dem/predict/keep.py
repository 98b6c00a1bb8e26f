"""Finer or better elevations that stay as they are, with the model's around them.

What is kept is kept to the bit where its cells are the output's. Beside it the model's elevations are shifted by what
the two differ by along the seam, as the delta surface fill does with voids (Grohman, Kroenung and Strebeck, 2006,
Photogrammetric Engineering and Remote Sensing 72(3)); the shift is the mean over as much of the seam as is near, and
ends over a distance, so that no coast is a wall. In gaps that are narrow it does not end: they are filled by the model,
shifted to fit.
"""

from __future__ import annotations

import glob
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.prepare.pairs import align, flat_sea_cells, interpolated, overlap, read_padded
from earthsr.dem.prepare.register import means_between, measure, measure_sea
from earthsr.errors import EarthsrWarning, InputError, geo_module
from earthsr.geo import Georeference, mosaic, open_sources, same_crs
from earthsr.geo.crs import crs_name
from earthsr.geo.elevations import Elevations, elevations
from earthsr.geo.grid import Window
from earthsr.geo.raster import Source, read_window
from earthsr.geo.readers import reprojected
from earthsr.geo.resample import interpolate

#: Cells over which a seam is feathered: 3 km at 3 arc-seconds.
FEATHER: Final = 32
_MOST_FEATHER: Final = 512
#: Share of a cell by which cells may lie beside the output's and still be these.
_SAME_PLACE: Final = 0.02
_SAME_SIZE: Final = 1e-3
#: Cells per cell of the output from which on they are averaged by area; fewer are interpolated.
_AVERAGED: Final = 1.5
#: Share of an output cell's area that has to have a value for the cell to have one.
_COVERED: Final = 0.5
#: Fine cells of offset from which on it is warned about, and standard error up to which it is known.
_WORTH_A_WARNING: Final = 0.25
_SURE: Final = 0.1
_BINOMIAL: Final = np.array([1, 4, 6, 4, 1], np.float32) / 16

_logger = logging.getLogger("earthsr")


@dataclass(frozen=True)
class KeepRequest:
    """What is to stay, as it is asked for; picklable."""

    sources: tuple[str, ...]
    """Files, or patterns of the tiles of one product each; where they overlap the first one stays."""
    feather: int = FEATHER
    """Cells of the output."""


@dataclass
class KeptRaster:
    """One raster that stays."""

    name: str
    source: Elevations
    flat_sea: bool = False
    """Whether its sea is at exactly 0 m, where the input's is not: that is no measurement, and does not stay."""
    words: list[str] = field(default_factory=list)
    """What was measured, for people."""


class Kept:
    """Rasters that stay; :func:`open_kept` makes it."""

    def __init__(self, rasters: Sequence[KeptRaster], feather: int) -> None:
        self.rasters, self.feather = list(rasters), feather

    def margin(self, scale: int) -> int:
        """Coarse cells around a chunk that its seams depend on."""
        return math.ceil(4 * self.feather / scale) + 1

    def read(self, raster: Source, area: Window, scale: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Read what stays on the fine cells of some coarse cells, ``scale`` times ``scale`` in each.

        Returns
        -------
        tuple of ndarray of shape (rows * scale, columns * scale), or None
            Metres, NaN where nothing stays; number of the raster, counted from 1. None where nothing stays at all.
        """
        grid = raster.georeference.part(area).refined(scale)
        values = np.full((grid.rows, grid.columns), np.nan, np.float32)
        codes = np.zeros_like(values)
        for number, kept in enumerate(self.rasters, start=1):
            part = onto(kept.source, grid)
            if part is None:
                continue
            if kept.flat_sea:
                around = Window(area.row - 1, area.column - 1, area.rows + 2, area.columns + 2)
                part[flat_sea_cells(read_window(raster, around), part)] = np.nan
            empty = np.isnan(values) & np.isfinite(part)
            values[empty], codes[empty] = part[empty], number
        return (values, codes) if codes.any() else None

    def merged(
        self, model: NDArray[np.float32], kept: NDArray[np.float32], codes: NDArray[np.float32], first: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Put together what stays and what the model gives.

        Parameters
        ----------
        model, kept, codes : ndarray of shape (H, W)
            Metres, NaN where there is no value; numbers of rasters.
        first : tuple of int
            Row and column of the first cell, counted from anywhere that is the same for all chunks.

        Returns
        -------
        tuple of ndarray of shape (H, W)
            Metres, and where each is from: 0 the model, NaN where there is no value.
        """
        valid = np.isfinite(kept)
        shifted = model
        if self.feather and not valid.all():
            shifted = model + seam_shift(np.where(valid, kept - model, np.float32(np.nan)), valid, self.feather, first)
        elevation = np.where(valid, kept, shifted)
        return elevation, np.where(np.isfinite(elevation), codes, np.float32(np.nan))

    def provenance(self) -> dict[str, Any]:
        """What each number of the layer of sources means, and what was measured."""
        values: dict[str, Any] = {"source_0": "the model", "feather_cells": self.feather}
        for number, raster in enumerate(self.rasters, start=1):
            values[f"source_{number}"] = "; ".join((raster.name, *raster.words))
        return values

    def measured(self) -> list[dict[str, Any]]:
        """What was measured of each, JSON-able; :func:`open_kept` takes it."""
        return [{"flat_sea": raster.flat_sea, "words": raster.words} for raster in self.rasters]

    def release(self) -> None:
        """Close the files until the next read."""
        for raster in self.rasters:
            raster.source.release()

    def close(self) -> None:
        """Close the files."""
        for raster in self.rasters:
            raster.source.close()


def split_keep(values: Sequence[str | float | Path]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Tell numbers, which are ground and no fill values, from rasters that stay.

    Examples
    --------
    >>> split_keep(["-9999", "srtm/*.tif", "0"])
    ((-9999.0, 0.0), ('srtm/*.tif',))
    """
    numbers: list[float] = []
    rasters: list[str] = []
    for value in values:
        try:
            numbers.append(float(str(value)))
        except ValueError:
            rasters.append(str(value))
    return tuple(numbers), tuple(rasters)


def files_of(text: str) -> list[str]:
    """Files of one product: those that a pattern stands for, sorted, or the one that is named.

    Raises
    ------
    InputError
        If a pattern stands for none.
    """
    if not any(sign in text for sign in "*?[") or Path(text).exists():
        return [text]
    files = sorted(glob.glob(text))
    if not files:
        raise InputError(f"--keep {text}: no file has such a name")
    return files


def open_kept(request: KeepRequest, raster: Elevations, scale: int, known: Sequence[dict[str, Any]] = ()) -> Kept:
    """Open rasters that stay, and measure how they lie against the input.

    Parameters
    ----------
    request : KeepRequest
        Which ones.
    raster : Elevations
        The input.
    scale : int
        Cells of the output per cell of the input and axis.
    known : sequence of dict
        What :meth:`measured` gave of the same rasters: nothing is measured again then.

    Raises
    ------
    InputError, DataError
        If one cannot be read, or has no CRS, or its cells are no smaller than the input's.
    """
    if not 0 <= request.feather <= _MOST_FEATHER:
        raise InputError(f"--feather is {request.feather}, expected 0 to {_MOST_FEATHER} cells of the output")
    opened: list[KeptRaster] = []
    try:
        for number, text in enumerate(request.sources):
            opened_source, words = _opened(text, raster)
            source = elevations(opened_source)
            kept = KeptRaster(source.name, source, words=words)
            opened.append(kept)
            _require_finer(source, raster)
            if known:
                kept.flat_sea, kept.words[:] = known[number]["flat_sea"], known[number]["words"]
            else:
                for note in words:
                    _logger.info("--keep %s: %s", kept.name, note)
                _measure(kept, raster)
            source.release()
    except BaseException:
        for kept in opened:
            kept.source.close()
        raise
    return Kept(opened, request.feather)


def _opened(text: str, raster: Elevations) -> tuple[Source, list[str]]:
    """Open a raster that stays, on cells of the input's CRS; and what is to be said of it.

    One in another CRS is interpolated onto cells of about its own size, of which a whole number makes one of the input.
    """
    files, lr = files_of(text), raster.georeference
    source = open_sources(files)
    hr = source.georeference
    if same_crs(lr.crs_wkt, hr.crs_wkt):
        return source, []
    names = source.name, crs_name(hr.crs_wkt), crs_name(lr.crs_wkt)
    source.close()
    if not lr.crs_wkt or not hr.crs_wkt:
        raise InputError(f"--keep {names[0]}: is in {names[1]}, {raster.name} in {names[2]}; give both a CRS")
    first = reprojected(files[0], lr.crs_wkt)
    ratio = max(round(lr.cell_y / first.georeference.cell_y), 1)
    first.close()
    cell, corner = (lr.cell_x / ratio, lr.cell_y / ratio), (lr.west, lr.north)
    parts = [reprojected(file, lr.crs_wkt, resolution=cell, anchor=corner) for file in files]
    words = [f"interpolated from {names[1]} onto {ratio} x {ratio} cells of {names[2]} to one of the input"]
    return mosaic(parts), words


def _require_finer(source: Elevations, raster: Elevations) -> None:
    hr, lr = source.georeference, raster.georeference
    if not overlap(hr, lr):
        raise InputError(f"--keep {source.name}: shares no ground with {raster.name}")
    if hr.cell_x > 0.75 * lr.cell_x or hr.cell_y > 0.75 * lr.cell_y:
        raise InputError(
            f"--keep {source.name}: its cells are {hr.cell_x:.6g} wide and those of {raster.name} {lr.cell_x:.6g}: "
            "expected finer ones"
        )


def _measure(kept: KeptRaster, raster: Elevations) -> None:
    """Measure the registration of a raster that stays against the input, and say it."""
    hr, lr = kept.source.georeference, raster.georeference
    ratio = round(lr.cell_y / hr.cell_y)
    off = max(abs(lr.cell_x / hr.cell_x / ratio - 1), abs(lr.cell_y / hr.cell_y / ratio - 1)) if ratio else 1.0
    if ratio < 2 or off > _WHOLE:
        kept.words.append(f"registration not measured (its cells are {lr.cell_y / hr.cell_y:.4g} to one of the input)")
        _logger.info("--keep %s: %s", kept.name, kept.words[-1])
        return
    kept.flat_sea = measure_sea(kept.source, raster, ratio).is_flat
    if kept.flat_sea:
        kept.words.append("its sea of exactly 0 m is not kept where the input goes deeper")
        _logger.info("--keep %s: %s", kept.name, kept.words[-1])
    offset = measure(kept.source, raster, align(hr, lr, ratio), ratio, kept.flat_sea)
    error = max(offset.rows_error, offset.columns_error)
    if not error <= _SURE:
        kept.words.append(f"registration not known ({offset.cells} coarse cells in common)")
        _logger.info("--keep %s: %s", kept.name, kept.words[-1])
        return
    east, north = -offset.columns, offset.rows
    kept.words.append(
        f"lies {east:+.3f} of its cells east and {north:+.3f} north of the input, standard error {error:.3f}, over "
        f"{offset.cells} coarse cells"
    )
    _logger.info("--keep %s: %s", kept.name, kept.words[-1])
    if max(abs(east), abs(north)) > _WORTH_A_WARNING:
        warnings.warn(
            f"--keep {kept.name}: {kept.words[-1]}; --register moves the input onto it",
            EarthsrWarning,
            stacklevel=6,
        )


#: Share by which a coarse cell may differ from a whole number of fine ones.
_WHOLE: Final = 0.01


def onto(source: Elevations, grid: Georeference) -> NDArray[np.float32] | None:
    """Values of a raster on the cells of a grid of the same CRS; None where it has none there.

    Cells that are the grid's own are copied; smaller ones averaged by area; others interpolated (Keys, a = -1/2).
    """
    own = source.georeference
    result: NDArray[np.float32] | None = None
    turns: tuple[int, ...] = (0,)
    if grid.geographic:
        middle = grid.west + grid.columns * grid.cell_x / 2 - own.west - own.columns * own.cell_x / 2
        near = round(middle / 360)
        turns = (near,) if own.periodic else (near, near - 1, near + 1)
    for turn in turns:
        part = _onto(source, replace(grid, west=grid.west - 360 * turn))
        if part is None:
            continue
        if result is None:
            result = part
        else:
            np.copyto(result, part, where=np.isnan(result))
    return result


def _onto(source: Elevations, grid: Georeference) -> NDArray[np.float32] | None:
    own = source.georeference
    west, south, east, north = own.bounds
    box = grid.bounds
    if box.south >= north or box.north <= south or (not own.periodic and (box.west >= east or box.east <= west)):
        return None
    ratio = grid.cell_x / own.cell_x, grid.cell_y / own.cell_y
    down, across = (own.north - grid.north) / own.cell_y, (grid.west - own.west) / own.cell_x
    same = max(abs(ratio[0] - 1), abs(ratio[1] - 1)) < _SAME_SIZE
    # Where cells grow apart over the window they are not the same.
    ends = [down, across, down + (ratio[1] - 1) * grid.rows, across + (ratio[0] - 1) * grid.columns]
    if same and all(abs(end - round(end)) < _SAME_PLACE for end in ends):
        values = read_window(source, Window(round(down), round(across), grid.rows, grid.columns))
    elif min(ratio) < _AVERAGED:
        rows = down - 0.5 + (np.arange(grid.rows) + 0.5) * ratio[1]
        columns = across - 0.5 + (np.arange(grid.columns) + 0.5) * ratio[0]
        values = interpolated(source, rows, columns)
    else:
        values = _averaged(
            source, down + np.arange(grid.rows + 1) * ratio[1], across + np.arange(grid.columns + 1) * ratio[0]
        )
    return values if np.isfinite(values).any() else None


def _averaged(source: Elevations, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """Means of a raster's cells between edges, by area, of those that have a value."""
    top, left = math.floor(rows[0]), math.floor(columns[0])
    values = read_padded(source, top, math.ceil(rows[-1]) - 1, left, math.ceil(columns[-1]) - 1)
    valid = np.isfinite(values)
    sums = []
    for cells in (np.where(valid, values, 0.0), valid.astype(np.float64)):
        sums.append(means_between(means_between(cells, rows - top, 0), columns - left, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[1] >= _COVERED - 1e-9, sums[0] / sums[1], np.nan).astype(np.float32)


def seam_shift(
    delta: NDArray[np.float32], valid: NDArray[np.bool_], feather: int, first: tuple[int, int]
) -> NDArray[np.float32]:
    """What a field beside another one is shifted by, so that the two meet: 0 in the other one and far from it.

    Parameters
    ----------
    delta : ndarray of shape (H, W)
        The other field minus this one, NaN where either has no value.
    valid : ndarray of bool of shape (H, W)
        Where the other one has a value.
    feather : int
        Cells over which the shift ends. In gaps narrower than twice that it does not end.
    first : tuple of int
        Row and column of the first cell in a raster of which this is a window; results do not depend on the window
        farther than ``4 * feather`` cells from its edge.

    Returns
    -------
    ndarray of shape (H, W)
        A mean of the differences along the seam, over about as many cells as the seam is away.
    """
    ndimage = geo_module("scipy.ndimage")
    there = np.isfinite(delta)
    if not there.any():
        return np.zeros_like(delta)
    # Closed: grown by the feather and shrunk again, which fills what is narrow.
    size = 2 * feather + 1
    closed = ndimage.maximum_filter(valid, size, mode="constant", cval=False)
    closed = ndimage.minimum_filter(closed, size, mode="constant", cval=True) | valid
    away = np.zeros_like(delta) if closed.all() else ndimage.distance_transform_edt(~closed).astype(np.float32)
    weight = 0.5 + 0.5 * np.cos(np.pi * np.minimum(away / feather, 1))
    weight[valid] = 0
    distance = away if (closed == valid).all() else ndimage.distance_transform_edt(~valid).astype(np.float32)
    top = math.floor(math.log2(max(feather, 1)))
    level = np.clip(np.log2(np.maximum(distance, 1)), 0, top)
    rows, columns = delta.shape
    # Blocks of every level begin at the same cells of the raster, whichever window this is.
    block = 2**top
    pad = [(start % block, -(start % block + size) % block) for start, size in zip(first, delta.shape, strict=True)]
    total, count = (np.pad(cells, pad) for cells in (np.where(there, delta, np.float32(0)), there.astype(np.float32)))
    place = slice(pad[0][0], pad[0][0] + rows), slice(pad[1][0], pad[1][0] + columns)
    shift, shares = np.zeros_like(delta), np.zeros_like(delta)
    chosen = weight > 0
    for number in range(top + 1):
        share = np.where(chosen, np.maximum(0, 1 - np.abs(level - number)), np.float32(0))
        if share.any():
            means = [total, count]
            for axis in (0, 1):
                means = [ndimage.correlate1d(cells, _BINOMIAL, axis=axis, mode="constant") for cells in means]
            sums, counts = (interpolate(cells, 2**number, "bilinear")[place] for cells in means)
            share[counts <= 1e-6] = 0
            shift += share * sums / np.maximum(counts, np.float32(1e-6))
            shares += share
        if number < top:
            total, count = _twice(total), _twice(count)
    return weight * shift / np.maximum(shares, np.float32(1e-6))


def _twice(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of two by two cells."""
    rows, columns = cells.shape
    return cells.reshape(rows // 2, 2, columns // 2, 2).sum(axis=(1, 3))

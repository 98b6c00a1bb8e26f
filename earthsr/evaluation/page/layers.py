"""Rasters as a page holds them: bytes that compress well, and what they mean."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.evaluation.maps import cell_metres
from earthsr.geo.grid import Grid
from earthsr.geo.terrain import hillshade

#: Maps from one that is whole to the next; those between are what differs from it.
_KEY_EVERY: Final = 16
#: Of zlib: the next levels take three times the time for 3 %.
_LEVEL: Final = 6
#: Least width of a row's cells, as they are shaded, over that of the widest: near a pole cells are slivers.
_SLIVER: Final = 0.2
#: What stands for no value in two bytes.
_VOID: Final = 65535


@dataclass(frozen=True)
class Packed:
    """Maps of one layer, one a frame of the page or one for all of them."""

    chunks: tuple[bytes, ...]
    keys: tuple[int | None, ...]
    """Number of the map that a map is the difference from; None for one that is whole."""
    bits: int
    """8 or 16 of a cell."""
    smooth: bool
    """Whether a row holds the steps from cell to cell."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.chunks))


def pack_classes(maps: Iterable[NDArray[np.uint8]]) -> Packed:
    """Pack class indices (H, W), 255 for none: every sixteenth map whole, the others by what differs from it."""
    chunks: list[bytes] = []
    keys: list[int | None] = []
    whole: NDArray[np.uint8] | None = None
    for number, values in enumerate(maps):
        key = number - number % _KEY_EVERY
        if key == number or whole is None:
            whole, stored = values, values
        else:
            stored = values ^ whole
        chunks.append(zlib.compress(stored.tobytes(), _LEVEL))
        keys.append(None if key == number else key)
    return Packed(tuple(chunks), tuple(keys), 8, False)


def pack_values(maps: Iterable[NDArray[np.float32]], offset: float, step: float, bits: int = 16) -> Packed:
    """Pack values (H, W), NaN for none, as numbers of steps above an offset: the last number of its bits is none."""
    chunks = [zlib.compress(_steps(_stored(values, offset, step, bits)), _LEVEL) for values in maps]
    return Packed(tuple(chunks), (None,) * len(chunks), bits, True)


def _stored(values: NDArray[np.float32], offset: float, step: float, bits: int = 16) -> NDArray[Any]:
    known, void = np.isfinite(values), 2**bits - 1
    numbers = np.rint((np.where(known, values, offset).astype(np.float64) - offset) / step)
    return np.where(known, np.clip(numbers, 0, void - 1), void).astype(np.uint8 if bits == 8 else np.uint16)


def _steps(values: NDArray[Any]) -> bytes:
    """Steps from cell to cell along the last axis, all high bytes before all low ones: neighbours are alike."""
    before = np.zeros((*values.shape[:-1], 1), values.dtype)
    steps = np.diff(values, axis=-1, prepend=before).astype(values.dtype)
    if values.dtype == np.uint8:
        return steps.tobytes()
    return (steps >> 8).astype(np.uint8).tobytes() + (steps & 255).astype(np.uint8).tobytes()


def shading(elevation: NDArray[np.float32], grid: Grid, times: float = 1) -> bytes:
    """Pack the hillshade of heights, multiplied by ``times``: a byte a cell, 254 steps, 255 where there is none."""
    dy, dx = cell_metres(grid)
    light = hillshade(elevation * np.float32(times), dy, np.maximum(dx, _SLIVER * dx.max()))
    stored = np.where(np.isfinite(light), np.rint(light * 254), 255).astype(np.uint8)
    return zlib.compress(stored.tobytes(), _LEVEL)


@dataclass(frozen=True)
class Layer:
    """Something that a page paints."""

    name: str
    title: str
    kind: str
    """``classes``; ``values``; or ``change``, where the classes are not those of the anchor."""
    packed: Packed | None
    """None for what the page makes of another layer."""
    grid: Grid
    """Of these maps."""
    about: dict[str, Any] = field(default_factory=dict)
    """Names and colours of classes; offset, step, palette, low, high, units and digits of values."""

    @classmethod
    def of_values(
        cls,
        name: str,
        title: str,
        maps: Iterable[NDArray[np.float32]],
        grid: Grid,
        *,
        palette: Sequence[str],
        low: float,
        high: float,
        least: float,
        most: float,
        units: str = "",
        step: float | None = None,
        shaded: bool = False,
    ) -> Layer:
        """Make a layer of values.

        Parameters
        ----------
        name, title : str
            Of the layer, for the page and for people.
        maps : iterable of ndarray of shape (H, W)
            NaN where there is no value.
        grid : Grid
            Theirs.
        palette : sequence of str
            Colours ``#rrggbb`` from ``low`` to ``high``; what is beyond has the outermost.
        low, high : float
            Ends of the scale of colours.
        least, most : float
            Of all values.
        units : str
            Theirs.
        step : float, optional
            To which values are rounded; such a round number that two bytes are enough where absent.
        shaded : bool
            Whether the hillshade may lie over its colours.
        """
        span = max(most - least, 1e-9)
        step = step or _round_up(span / (_VOID - 2))
        bits = 8 if span / step < 254 else 16
        about = {
            "offset": least,
            "step": step,
            "void": 2**bits - 1,
            "palette": list(palette),
            "low": low,
            "high": high,
            "units": units,
            "shaded": shaded,
            "digits": max(0, -math.floor(math.log10(step) + 1e-9)),
        }
        return cls(name, title, "values", pack_values(maps, least, step, bits), grid, about)


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= value * (1 - 1e-9))


@dataclass(frozen=True)
class Curves:
    """Shares of classes by coarse cell and frame, of the maps and, by choice, of what they should be."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    grid: Grid
    """Of the coarse cells."""
    shares: NDArray[np.float32]
    """(Y, S, h, w), 0 to 1 of the coarse cell's area; NaN where the map has no part of it."""
    scenario: NDArray[np.float32] | None
    """The same of the scenario; NaN where it says nothing."""
    areas: NDArray[np.float64]
    """(h, w), km2 of the coarse cells."""
    whole: dict[str, list[list[float | None]]]
    """Of the whole map, km2: ``map`` and by choice ``scenario``, for each class a value a frame."""

    #: Steps of a share.
    STEPS = 10000
    #: Coarse cells a side of what is packed, and unpacked, at once.
    BLOCK = 16

    def blocks(self) -> Iterator[bytes]:
        """Yield packed blocks of cells, row by row: (cells, series, Y), those of the map and then of the scenario."""
        values = self.shares if self.scenario is None else np.concatenate([self.shares, self.scenario], axis=1)
        for row in range(0, self.grid.rows, self.BLOCK):
            for column in range(0, self.grid.columns, self.BLOCK):
                block = values[:, :, row : row + self.BLOCK, column : column + self.BLOCK]
                stored = _stored(np.ascontiguousarray(block.transpose(2, 3, 1, 0)), 0.0, 1 / self.STEPS)
                yield zlib.compress(_steps(stored), _LEVEL)

"""Samples of land use, composed when they are read: (tile, year, direction) to the input fields of the network.

Nothing here is stored. Fields are small where they can be: the forcing as a window of its own grid with two matrices,
the prior as bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import ChannelNormalisation
from earthsr.geo.areas import Interpolation
from earthsr.landuse.classes import NODATA
from earthsr.landuse.split import LandUseData

Fields = dict[str, NDArray]

#: Tiles that stay in memory: years of one tile follow each other closely in the order of samples.
CACHED_TILES: Final = 64

#: Maps that stay in memory, bytes: one is the truth of its year and the prior of the years beside it, of which a buffer
#: of tiles mixes the order. What 32 tiles of 256 x 256 cells have in 120 years fits.
CACHED_MAP_BYTES: Final = 256 * 2**20

#: Years count in centuries from 2000, steps in decades: a rollout beyond the training years stays close to them.
YEAR_OFFSET, YEAR_SCALE, STEP_SCALE = 2000, 100.0, 10.0

#: Those fields of a sample that differ at the step before.
STEP_FIELDS = ("coarse", "prior", "prior_mask", "scalars")


class Sample(NamedTuple):
    """What a number of the order stands for."""

    tile: int
    year: int
    direction: int
    """1: the prior is the year before in the file; -1: the year after."""


@dataclass(frozen=True)
class PriorPlan:
    """How last year's map is hidden and noised in training, so that a model neither needs nor copies it."""

    hidden: float = 0.2
    """Share of samples without any prior."""
    hidden_blocks: float = 0.2
    """Share of the others that lack it in blocks; half of the blocks are hidden then."""
    block_cells: int = 16
    """Fine cells per side of these blocks."""
    stale: float = 0.0
    """Share of samples whose prior is older than it is said to be: the map of a rollout has missed some change, and
    what is missing has to be seen from the forcing."""
    stale_steps: int = 10
    """How many of the file's years such a prior is older at most."""
    own: float = 0.0
    """Share of samples whose prior is the model's own map: scheduled sampling (Bengio et al., 2015)."""

    def age(self, chance: np.random.Generator) -> int:
        """Draw how many steps older than said the prior of one sample is."""
        old = chance.random() < self.stale
        steps = int(chance.integers(1, self.stale_steps + 1))
        return steps if old else 0

    def mask(self, chance: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """Draw where the prior of one sample is known, (size, size), 1 = known."""
        if chance.random() < self.hidden:
            return np.zeros((size, size), np.uint8)
        if chance.random() >= self.hidden_blocks:
            return np.ones((size, size), np.uint8)
        block = min(self.block_cells, size)
        cells = -(-size // block) + 1
        row, column = chance.integers(0, block, 2)
        known = chance.integers(0, 2, (cells, cells), dtype=np.uint8).repeat(block, 0).repeat(block, 1)
        return known[row : row + size, column : column + size]


class _Tile(NamedTuple):
    """What does not change with the year."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    wy: NDArray[np.float32]
    wx: NDArray[np.float32]
    static: NDArray[np.float32]


class Composer:
    """Input fields of samples of one split.

    Parameters
    ----------
    source : LandUseData
        The split.
    normalisation : ChannelNormalisation
        Of the model.
    method : {"bilinear", "nearest"}
        How the forcing comes onto the fine cells.
    """

    def __init__(
        self, source: LandUseData, normalisation: ChannelNormalisation, method: Interpolation = "bilinear"
    ) -> None:
        self.source = source
        self.normalisation = normalisation
        self.method = method
        self._places = source.places
        self._lock = threading.Lock()
        self._tiles: OrderedDict[int, _Tile] = OrderedDict()
        self._maps: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._most_maps = CACHED_MAP_BYTES // source.layout.tile_size**2

    def _tile(self, tile: int) -> _Tile:
        """What a tile's samples share: read, normalised and computed once for the years that follow each other."""
        with self._lock:
            kept = self._tiles.get(tile)
            if kept is not None:
                self._tiles.move_to_end(tile)
                return kept
        rows, columns, wy, wx = self.source.window(self._places[tile], self.method)
        shared = _Tile(rows, columns, wy, wx, self.normalisation.static(self.source.static(tile)))
        with self._lock:
            self._tiles[tile] = shared
            while len(self._tiles) > CACHED_TILES:
                self._tiles.popitem(last=False)
        return shared

    @property
    def empty(self) -> NDArray[np.uint8]:
        """A map of a tile without any class."""
        return np.full((self.source.layout.tile_size,) * 2, NODATA, np.uint8)

    def neighbour(self, year: int, direction: int) -> int | None:
        """Year of the prior: the one before in the file, or after it for -1; None at the end of the file's years."""
        years = self.source.layout.years
        index = years.index(year) - direction
        return years[index] if 0 <= index < len(years) else None

    def older(self, year: int, direction: int, steps: int) -> int:
        """Year that lies ``steps`` further from where the prior comes, or the last one that there is."""
        years = self.source.layout.years
        return years[int(np.clip(years.index(year) - direction * steps, 0, len(years) - 1))]

    def truth(self, tile: int, year: int | None) -> NDArray[np.uint8]:
        """Classes of a tile in a year, or a map without any where there is no such year; not to be written to."""
        if year is None:
            return self.empty
        key = (tile, year)
        with self._lock:
            kept = self._maps.get(key)
            if kept is not None:
                self._maps.move_to_end(key)
                return kept
        classes = self.source.classes(tile, year)
        classes.flags.writeable = False
        with self._lock:
            self._maps[key] = classes
            while len(self._maps) > self._most_maps:
                self._maps.popitem(last=False)
        return classes

    def fields(
        self,
        tile: int,
        year: int,
        prior: NDArray[np.uint8],
        step: int,
        direction: int = 1,
        known: NDArray[np.uint8] | None = None,
    ) -> Fields:
        """Fields of one sample.

        Parameters
        ----------
        tile, year : int
            What is to be mapped.
        prior : ndarray of shape (P, P)
            Class indices of an earlier map (later for direction -1); 255 where there is none.
        step : int
            Years between the two maps.
        direction : {1, -1}
            Forwards or backwards in time.
        known : ndarray of shape (P, P), optional
            1 where the prior may be seen; wherever it has a class, where absent.
        """
        ground = self._tile(tile)
        coarse = self.source.forcing(year, ground.rows, ground.columns)
        mask = (prior != NODATA).astype(np.uint8)
        if known is not None:
            mask &= known
        return {
            "coarse": np.nan_to_num(coarse, nan=0.0),
            "wy": ground.wy,
            "wx": ground.wx,
            "static": ground.static,
            "prior": prior,
            "prior_mask": mask,
            "scalars": scalars(year, step, direction),
        }


def scalars(year: int, step: int, direction: int) -> NDArray[np.float32]:
    """Scalars of a sample (3,): year, ``step`` (years since its prior), direction (1 forwards, -1 backwards)."""
    return np.array([(year - YEAR_OFFSET) / YEAR_SCALE, step / STEP_SCALE, direction], np.float32)


def stack(samples: list[Fields]) -> Fields:
    """Fields of several samples as a batch."""
    return {name: np.ascontiguousarray(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def turned(fields: Fields, symmetry: int) -> Fields:
    """Apply one of the eight symmetries of the square to one sample's fields (or to any maps of its cells).

    Bit 4 is a transposition, bits 1 and 2 turn rows and columns round, in this order. The forcing keeps its window:
    what turns are the rows of the matrices that spread it.
    """
    out = dict(fields)
    if symmetry & 4:
        out = {name: value.swapaxes(-1, -2) if value.ndim >= 2 else value for name, value in out.items()}
        if "wy" in out:
            out["wy"], out["wx"] = fields["wx"], fields["wy"]
    for bit, axis, matrix in ((1, -2, "wy"), (2, -1, "wx")):
        if not symmetry & bit:
            continue
        for name, value in out.items():
            if name == matrix:
                out[name] = value[::-1]
            elif name not in ("coarse", "wy", "wx") and value.ndim >= 2:
                out[name] = np.flip(value, axis)
    return out

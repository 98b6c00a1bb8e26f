"""How a coarse product comes from fine terrain: block means, or a bell, at some offset from the blocks.

Every degradation here is separable: a coarse cell is a weighted mean of fine cells, with weights along rows and along
columns. A product made by averaging is a block mean; GEBCO's cells over SRTM are bells that overlap, round on
the ground: of 1.8 fine cells of 3 arc-seconds along rows, of 2.7 along columns at 48 degrees.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from earthsr.data.samples import PADDING, Patches
from earthsr.errors import InputError

if TYPE_CHECKING:
    from earthsr.dem.config import DemDataSection

#: Standard deviations at which a bell is cut off: what lies beyond is 5e-5 of it along an axis.
_BELL_REACH: Final = 4.0

#: Blocks beyond its own over which a kernel may lie.
_MOST_REACH: Final = 4

#: Weight that a void may have: sums of products of float64 weights round at 1e-16.
_NOTHING: Final = 1e-12


@dataclass(frozen=True)
class Degradation:
    """Weights of fine cells in a coarse cell, along rows and along columns; each set adds up to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from earthsr.dem.degradation import Degradation
    >>> fine = np.arange(100.0).reshape(10, 10)
    >>> Degradation.block_mean(5).coarse(fine, 5)
    array([[22., 27.],
           [72., 77.]])
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    first: tuple[int, int]
    """First fine cell that has a weight, along rows and columns, counted from the first one of the block."""
    words: str
    """As :meth:`parse` reads it, or what it was fitted to."""

    @classmethod
    def block_mean(cls, scale: int, offset: tuple[float, float] = (0.0, 0.0)) -> Self:
        """Return means over blocks of ``scale`` x ``scale`` fine cells that lie ``offset`` to the south and east."""
        axes = [_box(scale, value) for value in offset]
        return cls(axes[0][1], axes[1][1], (axes[0][0], axes[1][0]), _words("block_mean", offset))

    @classmethod
    def bell(cls, scale: int, sigma: float | tuple[float, float], offset: tuple[float, float] = (0.0, 0.0)) -> Self:
        """Return Gaussian bells of ``sigma`` fine cells whose centres lie ``offset`` south and east of the blocks'.

        Parameters
        ----------
        scale : int
            Fine cells per coarse cell and axis.
        sigma : float or tuple of float
            Along rows and along columns: a bell that is round on the ground is wider in degrees of longitude.
        offset : tuple of float
            Of the bells' centres from the blocks', fine cells southwards and eastwards.

        Raises
        ------
        InputError
            If ``sigma`` is no positive number of at most two blocks.
        """
        sigmas = sigma if isinstance(sigma, tuple) else (sigma, sigma)
        for width in sigmas:
            if not 0 < width <= 2 * scale:
                raise InputError(f"a bell of sigma {width:g} fine cells: expected more than 0 and at most {2 * scale}")
        axes = [_gauss(scale, *pair) for pair in zip(sigmas, offset, strict=True)]
        text = "x".join(f"{width:g}" for width in dict.fromkeys(sigmas))
        return cls(axes[0][1], axes[1][1], (axes[0][0], axes[1][0]), _words(f"bell:{text}", offset))

    @classmethod
    def parse(cls, text: str, scale: int) -> Self:
        """Read ``block_mean``, ``bell:SIGMA``, each with ``:SOUTH,EAST`` behind it for an offset, or a fitted kernel.

        Parameters
        ----------
        text : str
            In fine cells; a fitted kernel is the path of the ``degradation.json`` that ``prepare dem`` wrote.
        scale : int
            Fine cells per coarse cell and axis.

        Raises
        ------
        InputError
            If it is none of these, or the file holds no kernel of that scale.
        """
        if text.endswith(".json"):
            return cls.read(Path(text), scale)
        kind, _, rest = text.partition(":")
        width, _, place = rest.partition(":") if kind == "bell" else ("", "", rest)
        try:
            sigmas = [float(number) for number in width.split("x")] if width else []
            offsets = [float(number) for number in place.split(",")] if place else [0.0, 0.0]
        except ValueError:
            sigmas, offsets = [math.nan], []
        fits = len(sigmas) in {"block_mean": (0,), "bell": (1, 2)}.get(kind, ()) and len(offsets) == 2
        if not fits or not all(map(math.isfinite, [*sigmas, *offsets])):
            raise InputError(
                f"degradation {text!r}: expected block_mean, bell:SIGMA in fine cells such as bell:1.85 or "
                "bell:1.8x2.7 (rows, columns), with :SOUTH,EAST behind it where the product lies off the blocks, or "
                "the degradation.json of a fitted one"
            )
        offset = (offsets[0], offsets[1])
        if max(map(abs, offset)) > scale:
            raise InputError(f"degradation {text!r}: an offset of more than {scale} fine cells, which is another block")
        return (
            cls.block_mean(scale, offset) if kind == "block_mean" else cls.bell(scale, (sigmas[0], sigmas[-1]), offset)
        )

    @classmethod
    def read(cls, path: Path, scale: int) -> Self:
        """Read a kernel that was fitted, as :meth:`to_dict` describes it, under the key ``kernel``.

        Raises
        ------
        InputError
            If the file cannot be read, or holds none of that scale.
        """
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            kernel, own_scale = held["kernel"], int(held["scale"])
            rows, columns = (tuple(float(weight) for weight in kernel[name]) for name in ("rows", "columns"))
            first = int(kernel["first"][0]), int(kernel["first"][1])
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; earthsr prepare dem --fit-degradation writes one") from None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise InputError(
                f"{path}: holds no fitted degradation; earthsr prepare dem --fit-degradation writes one"
            ) from None
        if own_scale != scale:
            raise InputError(f"{path}: was fitted to coarse cells of {own_scale} fine ones, expected {scale}")
        near = all(-_MOST_REACH * scale <= begin <= scale for begin in first)
        short = max(map(len, (rows, columns))) <= 2 * (_MOST_REACH + 1) * scale
        if not near or not short or not all(abs(sum(axis) - 1) < 1e-6 for axis in (rows, columns)):
            raise InputError(
                f"{path}: its weights add up to {sum(rows):g} and {sum(columns):g}, expected 1 and 1 within "
                f"{_MOST_REACH} blocks; fit them anew with earthsr prepare dem --fit-degradation"
            )
        return cls(rows, columns, first, path.name)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"rows": list(self.rows), "columns": list(self.columns), "first": list(self.first)}

    def reach(self, scale: int) -> int:
        """Fine cells beyond a block, to the side where they are most, that have a weight."""
        ends = [first + len(axis) - scale for first, axis in zip(self.first, (self.rows, self.columns), strict=True)]
        return max(0, *ends, *(-first for first in self.first))

    def coarse(
        self,
        fine: NDArray[np.floating],
        scale: int,
        start: tuple[int, int] = (0, 0),
        blocks: tuple[int, int] | None = None,
    ) -> NDArray[np.floating]:
        """Degrade fine cells.

        Parameters
        ----------
        fine : ndarray of shape (..., H, W)
            Metres; NaN where there is no value.
        scale : int
            Fine cells per block and axis.
        start : tuple of int
            Fine row and column with which the first block begins.
        blocks : tuple of int, optional
            Rows and columns of blocks; all that lie wholly on the field where absent.

        Returns
        -------
        ndarray of shape (..., h, w)
            In the dtype of ``fine``; NaN where a weight falls on a void or beyond the field.
        """
        shape = fine.shape[-2:]
        count = blocks or tuple((size - begin) // scale for size, begin in zip(shape, start, strict=True))
        down = _matrix(self.rows, self.first[0] + start[0], scale, count[0], shape[0])
        across = _matrix(self.columns, self.first[1] + start[1], scale, count[1], shape[1])
        values = np.asarray(fine, np.float64)
        void = np.isnan(values)
        lost = np.zeros((*fine.shape[:-2], *count))
        if void.any():
            values = np.where(void, 0.0, values)
            lost += np.abs(down) @ void.astype(np.float64) @ np.abs(across).T
        beyond = [np.abs(1 - matrix.sum(axis=1)) > 1e-9 for matrix in (down, across)]
        coarse = down @ values @ across.T
        coarse[(lost > _NOTHING) | beyond[0][:, None] | beyond[1][None, :]] = np.nan
        return coarse.astype(fine.dtype, copy=False)


def _words(kind: str, offset: tuple[float, float]) -> str:
    return f"{kind}:{offset[0]:g},{offset[1]:g}" if any(offset) else kind


def _box(scale: int, offset: float) -> tuple[int, tuple[float, ...]]:
    """First cell and weights of a mean over ``scale`` cells; a cell that an end divides counts by its part."""
    low, high = offset, offset + scale
    first, end = math.floor(low), math.ceil(high)
    parts = [min(high, cell + 1) - max(low, cell) for cell in range(first, end)]
    return first, tuple(part / scale for part in parts)


def _gauss(scale: int, sigma: float, offset: float) -> tuple[int, tuple[float, ...]]:
    """First cell and weights of a bell around the block's centre; of a cell, the bell at its centre."""
    centre = (scale - 1) / 2 + offset
    first, last = math.ceil(centre - _BELL_REACH * sigma), math.floor(centre + _BELL_REACH * sigma)
    cells = np.arange(min(first, round(centre)), max(last, round(centre)) + 1)
    weights = np.exp(-0.5 * ((cells - centre) / sigma) ** 2)
    return int(cells[0]), tuple((weights / weights.sum()).tolist())


def _matrix(weights: tuple[float, ...], first: int, scale: int, blocks: int, cells: int) -> NDArray[np.float64]:
    """Weights of ``cells`` fine cells in ``blocks`` coarse ones; what lies beyond the field is left out."""
    matrix = np.zeros((blocks, cells))
    block = np.arange(blocks)
    for tap, weight in enumerate(weights):
        cell = first + tap + scale * block
        inside = (cell >= 0) & (cell < cells)
        matrix[block[inside], cell[inside]] = weight
    return matrix


@dataclass(frozen=True)
class Redraw:
    """Coarse cells of training taken anew: at a place, and by a degradation, that chance chooses for each patch.

    One network so learns several products, and sees every place of the coarse grid on the same terrain.

    Parameters
    ----------
    scale : int
        Fine cells per coarse cell and axis.
    crop : int
        Coarse cells per side of what training sees.
    means : float
        Share of patches whose coarse cells are block means; those of the others are bells.
    sigma : tuple of float
        Least and greatest width of a bell along rows, fine cells.
    aspect : tuple of float
        Least and greatest width along columns, as a multiple of that along rows.
    offset : float
        Most fine cells by which a product lies off the blocks along an axis.
    fitted : Degradation, optional
        Takes the place of the bells.
    """

    #: Random numbers of a patch: kind; width and its aspect; offset and place, each to the south and to the east.
    draws: ClassVar[int] = 7

    scale: int
    crop: int
    means: float = 0.5
    sigma: tuple[float, float] = (1.7, 1.9)
    aspect: tuple[float, float] = (1.0, 1.75)
    offset: float = 0.0
    fitted: Degradation | None = None

    @classmethod
    def of(cls, data: DemDataSection, scale: int) -> Self | None:
        """Return what the ``data`` section asks for; None where coarse cells are the file's.

        Raises
        ------
        InputError
            If the patches of the file are too small for it; the message says what would do.
        """
        if data.degradation == "file":
            return None
        means = {"block_mean": 1.0, "bell": 0.0, "mixed": 0.5, "fitted": 0.0}[data.degradation]
        fitted = None
        if data.degradation == "fitted":
            fitted = Degradation.read(Path(data.degradation_kernel), scale)
        redraw = cls(scale, data.crop, means, data.bell_sigma, data.bell_aspect, data.degradation_offset, fitted)
        # A coarse cell of room, so that the grid may lie anywhere.
        most = (data.patch_size * scale - 2 * redraw.reach) // scale
        crop = data.crop or most - 1
        if not 1 <= crop <= most:
            raise InputError(
                f"data.crop is {data.crop}, and of patches of {data.patch_size} coarse cells data.degradation "
                f"{data.degradation} leaves at most {max(most, 0)}, for it reads {redraw.reach} fine cells beyond: set "
                "data.crop to less, or prepare larger patches (--patch) and set data.patch_size"
            )
        return replace(redraw, crop=crop)

    @property
    def reach(self) -> int:
        """Fine cells beyond a block that a degradation may read."""
        widest = [Degradation.block_mean(self.scale, (self.offset, 0.0))] if self.means > 0 else []
        if self.means < 1:
            sigma = self.sigma[1] * max(1.0, self.aspect[1])
            widest.append(self.fitted or Degradation.bell(self.scale, sigma, (self.offset, 0.0)))
        return max(degradation.reach(self.scale) for degradation in widest)

    def __call__(self, patches: Patches, shares: NDArray[np.floating]) -> Patches:
        """Cut a window out of every patch and take its coarse cells anew.

        Parameters
        ----------
        patches : Patches
            In metres; of their coarse cells nothing is left.
        shares : ndarray of shape (N, 7)
            Random numbers in [0, 1).

        Returns
        -------
        Patches
            Coarse (N, C, crop, crop) and fine cells; a block whose coarse cell touches a void is masked.
        """
        count, channels, *size = patches.fine.shape
        side, scale = self.crop * self.scale, self.scale
        coarse = np.zeros((count, channels, self.crop, self.crop), np.float32)
        fine = np.zeros((count, channels, side, side), np.float32)
        mask = np.zeros((count, 1, side, side), np.uint8)
        reach = self.reach
        for i, (kind, *widths, south, east, down, right) in enumerate(shares.tolist()):
            if patches.indices[i] == PADDING:
                continue
            room = [extent - side - 2 * reach + 1 for extent in size]
            top, left = (reach + int(share * cells) for share, cells in zip((down, right), room, strict=True))
            offset = ((2 * south - 1) * self.offset, (2 * east - 1) * self.offset)
            if kind < self.means:
                degradation = Degradation.block_mean(scale, offset)
            elif self.fitted is not None:
                degradation = self.fitted
            else:
                sigma, aspect = (
                    low + share * (high - low)
                    for share, (low, high) in zip(widths, (self.sigma, self.aspect), strict=True)
                )
                degradation = Degradation.bell(scale, (sigma, sigma * aspect), offset)
            around = (slice(top - reach, top + side + reach), slice(left - reach, left + side + reach))
            heights = patches.fine[i][:, *around]
            if not patches.mask[i][:, *around].all():
                heights = np.where(patches.mask[i][:, *around], heights, np.nan)
            coarse[i] = degradation.coarse(heights, scale, (reach, reach), (self.crop, self.crop))
            inner = heights[:, reach : reach + side, reach : reach + side]
            # One mask for all channels: a block is valid where each of them has a value.
            known = np.isfinite(coarse[i]).all(axis=0, keepdims=True).repeat(scale, axis=-2).repeat(scale, axis=-1)
            mask[i] = known & np.isfinite(inner).all(axis=0, keepdims=True)
            fine[i] = np.where(mask[i], inner, 0.0)
        return Patches(coarse, fine, mask, patches.indices)

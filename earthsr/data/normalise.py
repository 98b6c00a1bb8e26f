"""Statistics of a training split, and the normalisation that a checkpoint owns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.data.samples import Patches
from earthsr.errors import CheckpointError, DataError

Kind = Literal["patch", "global", "none"]


@dataclass(frozen=True)
class Statistics:
    """Statistics of the valid fine cells of a training split, in the file's unit."""

    count: int
    """Valid fine cells."""
    mean: float
    """Of these cells, as the others."""
    std: float
    """Standard deviation."""
    patch_std: float
    """Root mean square of the difference between fine cells and their patch's coarse mean."""
    minimum: float
    """Lowest value."""
    maximum: float
    """Highest value."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Read what :meth:`to_dict` wrote; other keys are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a value is missing or not a number.
        """
        return cls(
            count=int(values["count"]),
            **{k: float(values[k]) for k in ("mean", "std", "patch_std", "minimum", "maximum")},
        )

    @classmethod
    def of(cls, chunks: Iterable[Patches]) -> Statistics:
        """Compute in one pass over chunks of patches, in float64.

        Raises
        ------
        DataError
            If no cell is valid.
        """
        return cls.merged(moments(patches) for patches in chunks)

    @classmethod
    def merged(cls, rows: Iterable[Sequence[float]]) -> Statistics:
        """Merge the :func:`moments` of chunks as Chan et al. (1983) do.

        Parameters
        ----------
        rows : iterable of sequence of float
            One a chunk.

        Raises
        ------
        DataError
            If no cell is valid.
        """
        count, mean, squares, local = 0, 0.0, 0.0, 0.0
        low, high = math.inf, -math.inf
        for cells, own, own_squares, own_local, lowest, highest in rows:
            if not cells:
                continue
            gap = own - mean
            total = count + int(cells)
            squares += own_squares + gap**2 * count * int(cells) / total
            mean += gap * int(cells) / total
            count = total
            local += own_local
            low, high = min(low, lowest), max(high, highest)
        if not count:
            raise DataError("no valid cell in the split: every value is masked; check the mask")
        return cls(count, mean, math.sqrt(squares / count), math.sqrt(local / count), low, high)


def moments(patches: Patches) -> tuple[float, float, float, float, float, float]:
    """Sums over the valid fine cells of some patches, which :meth:`Statistics.merged` puts together.

    Returns
    -------
    tuple of float
        Cells, their mean, squares around it, squares around each patch's coarse mean, lowest and highest value.
    """
    valid = np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)
    values = patches.fine[valid].astype(np.float64)
    if not values.size:
        return 0, 0.0, 0.0, 0.0, math.inf, -math.inf
    mean = float(values.mean())
    difference = patches.fine.astype(np.float64) - coarse_mean(patches.coarse)
    squares, local = float(np.square(values - mean).sum()), float(np.square(difference[valid]).sum())
    return values.size, mean, squares, local, float(values.min()), float(values.max())


def limits(patches: Patches) -> tuple[float, float, float, float, float, float]:
    """Return :func:`moments` without the means and squares, which take longest: cells, 0, 0, 0, lowest, highest."""
    values = patches.fine[np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)]
    if not values.size:
        return 0, 0.0, 0.0, 0.0, math.inf, -math.inf
    return values.size, 0.0, 0.0, 0.0, float(values.min()), float(values.max())


def coarse_mean(coarse: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of each patch's coarse cells that have a value, shape (N, 1, 1, 1); 0 where none has."""
    finite = np.isfinite(coarse)
    count = finite.sum(axis=(1, 2, 3), keepdims=True)
    total = np.where(finite, coarse, 0).sum(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return total / np.maximum(count, 1)


@dataclass(frozen=True)
class Normalisation:
    """Numbers that take metres to the network's units and back: ``(value - offset) / scale``.

    For ``patch`` the offset is each patch's own coarse mean; for ``global`` it is ``offset``.

    Examples
    --------
    >>> import earthsr
    >>> import numpy as np
    >>> normalisation = earthsr.Normalisation("global", offset=500.0, scale=250.0)
    >>> patch = np.full((1, 1, 2, 2), 1000, np.float32)
    >>> float(normalisation.apply(patch, normalisation.offsets(patch)).max())
    2.0
    """

    kind: Kind = "none"
    """``patch``, ``global`` or ``none``."""
    offset: float = 0.0
    scale: float = 1.0
    """In the file's unit, as ``offset``."""

    @classmethod
    def choose(cls, kind: Kind, statistics: Statistics) -> Normalisation:
        """Choose the numbers of a run from its training split's statistics. A flat split has scale 1.

        Parameters
        ----------
        kind : {"patch", "global", "none"}
            What is taken off: each patch's coarse mean, the split's mean, or nothing.
        statistics : Statistics
            Of the training split.
        """
        if kind == "global":
            return cls("global", statistics.mean, statistics.std or 1.0)
        if kind == "patch":
            return cls("patch", 0.0, statistics.patch_std or 1.0)
        return cls("none")

    def offsets(self, coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        """Offset of each patch of ``coarse`` (N, C, h, w), shape (N, 1, 1, 1), in the file's unit."""
        if self.kind == "patch":
            return coarse_mean(coarse).astype(np.float32)
        return np.full((coarse.shape[0], 1, 1, 1), self.offset, np.float32)

    def apply(self, values: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise ``values`` (N, C, H, W) with the ``offsets`` of their patches (N, 1, 1, 1)."""
        return ((values - offsets) / np.float32(self.scale)).astype(np.float32, copy=False)

    def undo(self, values: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring ``values`` (N, C, H, W) back to the file's unit, with the ``offsets`` of their patches (N, 1, 1, 1)."""
        return (values * np.float32(self.scale) + offsets).astype(np.float32, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> Normalisation:
        """Read what a checkpoint holds.

        Parameters
        ----------
        values : Any
            What the checkpoint holds.
        source : str
            Where, for messages.

        Raises
        ------
        CheckpointError
            If it is missing or damaged.
        """
        try:
            kind, offset, scale = values["kind"], float(values["offset"]), float(values["scale"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{source}: holds no normalisation; predictions would be in unknown units") from None
        if kind not in ("patch", "global", "none") or not math.isfinite(offset) or not (0 < scale < math.inf):
            raise CheckpointError(f"{source}: its normalisation is damaged: {values}")
        return cls(kind, offset, scale)


@dataclass(frozen=True)
class ChannelNormalisation:
    """Numbers of structured inputs, channel by channel.

    Static channel ``c`` becomes ``(x - static_mean[c]) / static_std[c]``; fractions stay as they are.
    """

    static_mean: tuple[float, ...]
    static_std: tuple[float, ...]
    target_offset: float = 0.0
    """Of a continuous target, in its unit."""
    target_scale: float = 1.0
    """Of a continuous target, one of each for all its channels, in its unit."""

    def static(self, fields: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise static fields (C_s, H, W); cells without a value become 0, the mean."""
        mean = np.array(self.static_mean, np.float32)[:, None, None]
        std = np.array(self.static_std, np.float32)[:, None, None]
        return np.nan_to_num((fields - mean) / std, nan=0.0).astype(np.float32, copy=False)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise ``values`` of a continuous target, (…, M, P, P)."""
        return ((values - np.float32(self.target_offset)) / np.float32(self.target_scale)).astype(np.float32)

    def undo(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring ``values`` of a continuous prediction, (…, M, P, P), back to their unit."""
        return (values * np.float32(self.target_scale) + np.float32(self.target_offset)).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "channels", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Any, source: str) -> ChannelNormalisation:
        """Read what a checkpoint holds.

        Parameters
        ----------
        values : Any
            What the checkpoint holds.
        source : str
            Where, for messages.

        Raises
        ------
        CheckpointError
            If it is missing or damaged.
        """
        try:
            if values["kind"] != "channels":
                raise ValueError(values["kind"])
            mean, std = (tuple(float(v) for v in values[key]) for key in ("static_mean", "static_std"))
            offset, scale = float(values["target_offset"]), float(values["target_scale"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{source}: holds no normalisation of channels: {values}") from None
        if not all(map(math.isfinite, (*mean, offset))) or not all(0 < s < math.inf for s in (*std, scale)):
            raise CheckpointError(f"{source}: its normalisation is damaged: {values}")
        return cls(mean, std, offset, scale)


AnyNormalisation = Normalisation | ChannelNormalisation
"""Whatever a checkpoint may own: read by its ``kind``."""


def read_normalisation(values: Any, source: str) -> AnyNormalisation:
    """Read what a checkpoint holds.

    Parameters
    ----------
    values : Any
        What the checkpoint holds.
    source : str
        Where, for messages.

    Returns
    -------
    Normalisation or ChannelNormalisation
        Of one field, or of the channels of several.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    if isinstance(values, dict) and values.get("kind") == "channels":
        return ChannelNormalisation.from_dict(values, source)
    return Normalisation.from_dict(values, source)

"""What a land-use checkpoint owns beside its weights: offsets and scales of static fields and continuous targets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import CheckpointError
from earthsr.landuse.statistics import LandUseStatistics

#: Years count in centuries from 2000, steps in decades: a rollout beyond the training years stays close to them.
YEAR_OFFSET, YEAR_SCALE, STEP_SCALE = 2000, 100.0, 10.0


@dataclass(frozen=True)
class ChannelNormalisation:
    """Static channel ``c`` becomes ``(x - static_mean[c]) / static_std[c]``; fractions stay as they are."""

    static_mean: tuple[float, ...]
    static_std: tuple[float, ...]
    target_offset: float = 0.0
    """Of a continuous target, in its unit."""
    target_scale: float = 1.0
    """Of a continuous target, one of each for all its channels, in its unit."""

    @classmethod
    def choose(cls, statistics: LandUseStatistics, target: str | None) -> ChannelNormalisation:
        """Choose from a training split's statistics; ``target`` names a continuous field, None stands for classes."""
        offset, scale = (0.0, 1.0) if target is None else statistics.continuous[target]
        return cls(statistics.static_mean, statistics.static_std, offset, scale)

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

    @staticmethod
    def scalars(year: int, step: int, direction: int) -> NDArray[np.float32]:
        """Scalars of a sample (3,): year, ``step`` (years since its prior), direction (1 forwards, -1 backwards)."""
        return np.array([(year - YEAR_OFFSET) / YEAR_SCALE, step / STEP_SCALE, direction], np.float32)

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
            raise CheckpointError(f"{source}: holds no normalisation of land-use fields: {values}") from None
        if not all(map(math.isfinite, (*mean, offset))) or not all(0 < s < math.inf for s in (*std, scale)):
            raise CheckpointError(f"{source}: its normalisation is damaged: {values}")
        return cls(mean, std, offset, scale)

"""Fields of temperature on disk: one HDF5 file per split."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.data.dataset import SplitFile
from earthsr.data.hdf5 import open_h5, reading
from earthsr.errors import DataError
from earthsr.geo.resample import block_mean
from earthsr.ranks import ALONE, Rank
from earthsr_sst.config import SstDataSection


class SstFields(SplitFile):
    """Fields (N, H, W), °C, NaN over land, of ``root_dir/<split>.h5``; coarse cells are means of the fine ones.

    Raises
    ------
    DataError
        If the file is missing or holds no such fields.
    """

    def __init__(self, data: SstDataSection, split: str, scale: int) -> None:
        self.split, self.scale = split, scale
        self._path = Path(data.root_dir) / f"{split}.h5"
        side = data.patch_size * scale
        with open_h5(self._path) as handle, reading(self._path):
            if data.variable not in handle:
                raise DataError(
                    f"{self._path}: has no dataset {data.variable}; set data.variable to one of {[*handle]}"
                )
            self.fine = np.asarray(handle[data.variable][...], np.float32)[:, None]
        if self.fine.ndim != 4 or self.fine.shape[2:] != (side, side):
            raise DataError(
                f"{self._path}: {data.variable} has fields of {self.fine.shape[2:]} cells, expected {side} x {side}: "
                f"data.patch_size {data.patch_size} times model.scale {scale}"
            )

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def __len__(self) -> int:
        return len(self.fine)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coarse and fine (1, H, W). A data set makes its mask of the NaN, and fills coarse ones from neighbours."""
        return block_mean(self.fine[index], self.scale), self.fine[index]

    def scan(self, share: Rank = ALONE) -> None:
        """Look for what no sea is like; every process holds all fields, so there is nothing to share."""
        wrong = (self.fine < -2.5) | (self.fine > 45)
        if wrong.any():
            field, _, row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                f"{self._path}: holds {self.fine[field, 0, row, column]:g} in field {field}, row {row}, column "
                f"{column}; expected degrees Celsius, and NaN over land"
            )

    def fingerprint(self) -> str:
        """Return a short hash of all fields."""
        return hashlib.sha256(np.ascontiguousarray(self.fine).tobytes()).hexdigest()[:16]

    def about(self) -> dict[str, Any]:
        """Return where the fields come from."""
        return {"source": "fields of sea-surface temperature"}

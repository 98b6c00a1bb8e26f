"""Writing one split of DEM patches in MindEarth's layout, with our additions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import Statistics
from earthsr.files import atomic_file

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Split:
    """The patches of one split, in metres."""

    coarse: NDArray[np.float32]
    """(N, C, p, p)."""
    fine: NDArray[np.float32]
    """(N, C, p * scale, p * scale)."""
    origin: NDArray[np.float64]
    """(N, 2), degrees: longitude and latitude of the north-western corner of the patch."""
    surface: NDArray[np.uint8]
    """(N,): 0 land, 1 coast, 2 ocean."""
    region: NDArray[Any]
    """(N,): text."""
    mask: NDArray[np.uint8] | None = None
    """(N, 1, p * scale, p * scale), 1 = valid; None where all is valid."""


def write_split(path: Path, split: Split, statistics: Statistics, attributes: Mapping[str, Any]) -> None:
    """Write a split, atomically.

    Datasets are contiguous and uncompressed: one patch is then one sequential read, several times faster than any
    chunked or compressed layout (tools/benchmark_layouts.py).

    Parameters
    ----------
    path : Path
        ``<root>/<split>/<split>.h5``.
    split : Split
        The patches.
    statistics : Statistics
        Of the *training* split, in every split's file.
    attributes : mapping
        ``crs``, ``cell_size_deg``, ``source`` and others; ``units`` is metres.
    """
    p, q = split.coarse.shape[-1], split.fine.shape[-1]
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as handle:
        handle.create_dataset(f"{p}_{p}", data=split.coarse.astype(np.float32, copy=False))
        handle.create_dataset(f"{q}_{q}", data=split.fine.astype(np.float32, copy=False))
        if split.mask is not None:
            handle.create_dataset(f"mask_{q}", data=split.mask.astype(np.uint8, copy=False))
        handle.create_dataset("origin", data=split.origin.astype(np.float64))
        handle.create_dataset("surface", data=split.surface.astype(np.uint8))
        handle.create_dataset("region", data=[str(name) for name in split.region], dtype=h5py.string_dtype())
        handle.attrs["schema_version"] = SCHEMA_VERSION
        handle.attrs["units"] = "m"
        handle.attrs["origin_convention"] = "longitude and latitude of the north-western corner, degrees"
        handle.attrs["statistics"] = json.dumps(statistics.to_dict())
        for key, value in attributes.items():
            handle.attrs[key] = value

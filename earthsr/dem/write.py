"""Writing one split of DEM patches in MindEarth's layout, with our additions; in one piece, or as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import Statistics
from earthsr.store import atomic_file

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
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else is known of every patch, (N, …) each, by the name of its dataset."""


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
    write_pieces(path, [split], len(split.coarse), split.mask is not None, statistics, attributes)


def write_pieces(
    path: Path,
    pieces: Iterable[Split],
    samples: int,
    masked: bool,
    statistics: Statistics | None,
    attributes: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a split piece by piece, atomically, holding one piece in memory; see :func:`write_split`.

    Parameters
    ----------
    path : Path
        The file.
    pieces : iterable of Split
        The patches in the order of the file.
    samples : int
        Patches of all pieces together.
    masked : bool
        Whether to write a mask; a piece without one is then valid throughout.
    statistics : Statistics or None
        Of the training split; None where there is none.
    attributes : mapping
        Of the file; HDF5 holds at most 64 KB in each.
    texts : mapping of str to str, optional
        Longer texts, by the name of their dataset.

    Raises
    ------
    ValueError
        If the pieces hold another number of patches.
    """
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as handle:
        start = 0
        for piece in pieces:
            start += _append(handle, piece, start, samples, masked)
        if start != samples:
            raise ValueError(f"{path}: got {start} patches, expected {samples}")
        for name, text in (texts or {}).items():
            handle.create_dataset(name, data=text, dtype=h5py.string_dtype())
        handle.attrs["schema_version"] = SCHEMA_VERSION
        handle.attrs["units"] = "m"
        handle.attrs["origin_convention"] = "longitude and latitude of the north-western corner, degrees"
        if statistics is not None:
            handle.attrs["statistics"] = json.dumps(statistics.to_dict())
        for key, value in attributes.items():
            handle.attrs[key] = value


def _append(handle: h5py.File, piece: Split, start: int, samples: int, masked: bool) -> int:
    """Write patches from ``start`` on, into datasets that the first piece makes; returns their number."""
    p, q, count = piece.coarse.shape[-1], piece.fine.shape[-1], len(piece.coarse)
    arrays: dict[str, tuple[NDArray[Any], Any]] = {
        f"{p}_{p}": (piece.coarse, np.float32),
        f"{q}_{q}": (piece.fine, np.float32),
    }
    if masked:
        whole = np.ones((count, 1, q, q), np.uint8)
        arrays[f"mask_{q}"] = (whole if piece.mask is None else piece.mask, np.uint8)
    arrays["origin"] = (piece.origin, np.float64)
    arrays["surface"] = (piece.surface, np.uint8)
    arrays["region"] = (np.array([str(name) for name in piece.region], dtype=object), h5py.string_dtype())
    arrays |= {name: (values, values.dtype) for name, values in piece.columns.items()}
    for name, (values, kind) in arrays.items():
        if name not in handle:
            handle.create_dataset(name, (samples, *values.shape[1:]), kind)
        handle[name][start : start + count] = values
    return count

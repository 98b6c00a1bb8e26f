"""Opening HDF5 files of patches, sharing one among threads, and saying clearly what is wrong with it.

The layout is MindEarth's: datasets ``"{p}_{p}"`` and ``"{q}_{q}"`` with q = p * scale; what else we add is optional.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.store import require_placed
from earthsr.store.untrusted import parse_json, probe_hdf5


class Params(Protocol):
    """The ``data`` section of a configuration, or a dictionary of its keys."""

    def __getitem__(self, key: str, /) -> Any:
        """Value of a key."""
        ...


class SharedFile:
    """Opens on the first read. A handle that was opened before a fork shares its file position with the parent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle: tuple[int, h5py.File] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @contextlib.contextmanager
    def open(self) -> Iterator[h5py.File]:
        """Give the file to this thread alone; damage becomes a :class:`earthsr.errors.DataError` that names it."""
        with self._lock, reading(self.path):
            if self._handle is None or self._handle[0] != os.getpid():
                self._handle = (os.getpid(), open_h5(self.path))
            yield self._handle[1]

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._handle is not None and self._handle[0] == os.getpid():
                self._handle[1].close()
            self._handle = None


_SQUARE = re.compile(r"^(\d+)_\1$")


def open_h5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises
    ------
    DataError
        If it is missing, is not HDF5, or is cut off.
    """
    if path.parent.name == path.stem:
        require_placed(path.parent.parent)
    if not path.is_file():
        raise DataError(
            f"{path}: no such data file; the data folder should hold train/train.h5, valid/valid.h5 and test/test.h5"
        )
    probe_hdf5(path)
    try:
        handle = h5py.File(path, "r")
        _register_filters(handle)
        return handle
    except OSError as error:
        if "truncated" in str(error):
            raise DataError(f"{path}: is cut off ({_reason(error)}); write or copy it again") from None
        raise DataError(f"{path}: is not a readable HDF5 file ({_reason(error)}); write or copy it again") from None


def _register_filters(handle: h5py.File) -> None:
    """Make hdf5plugin's filters (zstd, blosc, …) known where a dataset of the file uses one that is not HDF5's own."""
    # What is damaged is named by who reads it.
    with contextlib.suppress(*_DAMAGE):
        for item in handle.values():
            if isinstance(item, h5py.Dataset):
                plan = item.id.get_create_plist()
                if any(plan.get_filter(number)[0] >= h5py.h5z.FILTER_RESERVED for number in range(plan.get_nfilters())):
                    import hdf5plugin  # noqa: F401

                    return


#: What h5py raises where a file's inner structure is damaged; which one depends on the place.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError, MemoryError)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises over a damaged file into a :class:`DataError` that names it."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: is damaged ({_reason(error)}); write or copy it again") from None


def read_samples(dataset: h5py.Dataset, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Read ``dataset[indices[i]]`` into ``out[i]``, one after another; negative indices leave their place as it is.

    One read per sample, because fancy indexing into chunks is several times slower (tools/benchmark_layouts.py); and
    below h5py's selections, which cost as much as the read itself.

    Parameters
    ----------
    dataset : h5py.Dataset of shape (N, …)
        Of a number type, which HDF5 turns into that of ``out``.
    indices : ndarray of shape (n,)
        Positions, each below N.
    out : ndarray of shape (n, …)
        C-contiguous.
    """
    rest, origin = dataset.shape[1:], (0,) * (dataset.ndim - 1)
    stored, memory = dataset.id.get_space(), h5py.h5s.create_simple(out.shape)
    for i, index in enumerate(indices.tolist()):
        if index < 0:
            continue
        stored.select_hyperslab((index, *origin), (1, *rest))
        memory.select_hyperslab((i, *origin), (1, *rest))
        dataset.id.read(memory, stored, out)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    inner = re.search(r"\((.*)\)", text)
    return (inner.group(1) if inner else text).strip() or type(error).__name__


@dataclass(frozen=True)
class DemLayout:
    """What one file of patches holds."""

    path: Path
    samples: int
    channels: int
    patch_size: int
    """Coarse cells per side."""
    scale: int
    mask_key: str | None
    has_surface: bool
    has_region: bool
    has_origin: bool
    attributes: dict[str, Any]

    @property
    def coarse_key(self) -> str:
        """Name of the coarse dataset."""
        return f"{self.patch_size}_{self.patch_size}"

    @property
    def fine_size(self) -> int:
        """Fine cells per side."""
        return self.patch_size * self.scale

    @property
    def fine_key(self) -> str:
        """Name of the fine dataset."""
        return f"{self.fine_size}_{self.fine_size}"


def plain_attributes(handle: h5py.File) -> dict[str, Any]:
    """Attributes of a file as plain Python values."""
    plain: dict[str, Any] = {}
    for key, value in handle.attrs.items():
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        # Scalars and arrays alike.
        plain[key] = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    return plain


def _scale_of(path: Path, keys: list[str], patch_size: int, scale: int | None) -> int:
    sides = sorted(int(match.group(1)) for match in map(_SQUARE.match, keys) if match)
    shown = ", ".join(keys) or "nothing"
    if patch_size not in sides:
        hint = f"set data.patch_size to {sides[0]}" if len(sides) > 1 else "expected MindEarth's layout"
        raise DataError(f"{path}: has no dataset {patch_size}_{patch_size}; found {shown}; {hint}")
    if scale is not None:
        fine = patch_size * scale
        if fine not in sides:
            other = [side for side in sides if side > patch_size and side % patch_size == 0]
            hint = f"set model.scale to {other[0] // patch_size}" if other else "the fine dataset is missing"
            raise DataError(
                f"{path}: has no dataset {fine}_{fine}, which data.patch_size {patch_size} and model.scale {scale} "
                f"ask for; found {shown}; {hint}"
            )
        return scale
    larger = [side for side in sides if side > patch_size and side % patch_size == 0]
    if len(larger) != 1:
        raise DataError(
            f"{path}: expected one fine dataset beside {patch_size}_{patch_size}, found {shown}; name the scale"
        )
    return larger[0] // patch_size


def _check_shape(path: Path, dataset: Any, key: str, expected: tuple[int | None, ...]) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{path}: {key} is a group, expected a dataset")
    shape = tuple(dataset.shape or ())
    fits = len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if extent is None else str(extent) for extent in expected)
        raise DataError(f"{path}: {key} has shape {shape}, expected ({wanted})")


def read_layout(path: Path, patch_size: int, scale: int | None = None) -> DemLayout:
    """Check a file of patches and describe it, reading none of the patches.

    Raises
    ------
    DataError
        If a dataset is missing or has another shape or type, if coarse and fine counts differ, or if the split is
        empty. The message names file, key and shape, and what to do.
    """
    with open_h5(path) as handle, reading(path):
        keys = list(handle.keys())
        scale = _scale_of(path, keys, patch_size, scale)
        fine_size = patch_size * scale
        coarse_key, fine_key = f"{patch_size}_{patch_size}", f"{fine_size}_{fine_size}"
        coarse, fine = handle[coarse_key], handle[fine_key]
        _check_shape(path, coarse, coarse_key, (None, None, patch_size, patch_size))
        _check_shape(path, fine, fine_key, (None, None, fine_size, fine_size))
        for key, dataset in ((coarse_key, coarse), (fine_key, fine)):
            if dataset.dtype.kind not in "fiu":
                raise DataError(f"{path}: {key} holds {dataset.dtype}, expected float32 elevations")
        if coarse.shape[:2] != fine.shape[:2]:
            raise DataError(
                f"{path}: {coarse_key} holds {coarse.shape[0]} patches of {coarse.shape[1]} channel(s), "
                f"{fine_key} holds {fine.shape[0]} of {fine.shape[1]}; they must pair up: write the file again"
            )
        samples, channels = coarse.shape[:2]
        if not samples or not channels:
            raise DataError(f"{path}: the split is empty ({coarse_key} has shape {coarse.shape}); add patches")
        mask_key = f"mask_{fine_size}" if f"mask_{fine_size}" in handle else None
        if mask_key:
            mask = handle[mask_key]
            ndim = getattr(mask, "ndim", 0)
            middle = (1,) if ndim == 4 else ()
            _check_shape(path, mask, mask_key, (samples, *middle, fine_size, fine_size))
        extras = {"surface": (samples,), "region": (samples,), "origin": (samples, 2)}
        present = {key: key in handle for key in extras}
        for key, expected in extras.items():
            if present[key]:
                _check_shape(path, handle[key], key, expected)
        return DemLayout(
            path=path,
            samples=int(samples),
            channels=int(channels),
            patch_size=patch_size,
            scale=scale,
            mask_key=mask_key,
            has_surface=present["surface"],
            has_region=present["region"],
            has_origin=present["origin"],
            attributes=plain_attributes(handle),
        )


def units_of(layout: DemLayout) -> str:
    """Unit of the elevations. Files without ``units`` are taken to be in metres, with a warning."""
    units = layout.attributes.get("units")
    if units is None:
        warnings.warn(f"{layout.path}: has no attribute units; metres are assumed", EarthsrWarning, stacklevel=2)
        return "m"
    if str(units).lower() not in ("m", "metre", "metres", "meter", "meters"):
        raise DataError(f"{layout.path}: units are {units!r}, expected metres; convert the elevations first")
    return "m"


def statistics_of(layout: DemLayout) -> dict[str, Any] | None:
    """Read the ``statistics`` attribute, or None where the file has none.

    Raises
    ------
    DataError
        If it is not JSON of an object.
    """
    text = layout.attributes.get("statistics")
    if text is None:
        return None
    try:
        values = parse_json(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise DataError(f"{layout.path}: attribute statistics is damaged (not a JSON object); remove or rewrite it")
    return values


def patch_size_of(root: Path, scale: int) -> int:
    """Patch size of the files in a data folder: the smallest ``"{p}_{p}"`` that has a fine dataset beside it.

    Raises
    ------
    DataError
        If no split holds such a pair.
    """
    for split in ("test", "valid", "train"):
        path = root / split / f"{split}.h5"
        if not path.is_file():
            continue
        with open_h5(path) as handle, reading(path):
            sides = sorted(int(match.group(1)) for match in map(_SQUARE.match, handle) if match)
        for side in sides:
            if side * scale in sides:
                return side
        raise DataError(f"{path}: holds no pair of datasets p_p and q_q with q = {scale} * p; is the scale {scale}?")
    raise DataError(f"{root}: holds none of test/test.h5, valid/valid.h5, train/train.h5; name another folder")

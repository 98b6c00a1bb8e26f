"""An array of elevation as ``.npz`` and ``.h5`` files hold it, read and checked."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.data.hdf5 import open_h5, reading
from earthsr.errors import DataError, InputError
from earthsr.geo.elevations import PLAUSIBLE_M
from earthsr.geo.voids import STANDARD_FILLS, undeclared_fills
from earthsr.store.untrusted import require_honest_archive

#: What reading an archive raises where bytes are damaged: zipfile calls compressions and versions that it does not know
#: not implemented, encrypted members a RuntimeError, and zlib has an error of its own.
_DAMAGED: Final = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


#: Of files of arrays.
SUFFIXES = (".npz", ".h5", ".hdf5")
_GEOREFERENCE = ("crs", "origin")
_SQUARE = re.compile(r"^(\d+)_\1$")


@dataclass(frozen=True)
class Elevation:
    """An elevation array as a file holds it."""

    values: NDArray[np.float32]
    """(H, W), (N, H, W) or (N, C, H, W), metres; NaN where there is no value."""
    cell_size_deg: float | None = None
    georeference: dict[str, Any] = field(default_factory=dict)
    """``crs`` and ``origin`` (a corner: it stays where it is when cells become smaller), as the file has them."""


def checked_elevation(values: NDArray, where: str) -> NDArray[np.float32]:
    """Return an array as float32 where it can be elevation in metres; ``where`` names it in errors.

    Raises
    ------
    DataError
        If it is empty, of another shape than (H, W), (N, H, W) or (N, C, H, W), or holds what is no elevation.
    """
    if values.size == 0:
        raise DataError(f"{where} is empty (shape {values.shape}); nothing to enlarge")
    if values.dtype.kind not in "fiu" or not 2 <= values.ndim <= 4:
        raise DataError(
            f"{where} has shape {values.shape} and type {values.dtype}, expected numbers of shape (H, W), (N, H, W) or "
            "(N, C, H, W)"
        )
    values = values.astype(np.float32)
    if np.isinf(values).any():
        raise DataError(f"{where} holds infinite values; use NaN where there is no value")
    low, high = PLAUSIBLE_M
    if (values < low).any() or (values > high).any():
        worst = float(values.flat[int(np.nanargmax(np.abs(values)))])
        raise DataError(
            f"{where} holds {worst:g} m, outside {low:,} to {high:,} m: a fill value? Use NaN where there is no value"
        )
    for plane in values.reshape(-1, *values.shape[-2:]):
        for fill in undeclared_fills(plane):
            if fill.value in STANDARD_FILLS:
                raise DataError(
                    f"{where} holds {fill.value:g} m in {int((values == fill.value).sum())} cells, far from all their "
                    "neighbours: a fill value. Use NaN where there is no value"
                )
    return values


def _pick(names: list[str], path: Path) -> str:
    if "elevation" in names:
        return "elevation"
    squares = sorted((name for name in names if _SQUARE.match(name)), key=lambda name: int(name.split("_")[0]))
    if squares:
        return squares[0]
    if len(names) == 1:
        return names[0]
    raise DataError(f"{path}: holds {', '.join(names) or 'nothing'}; name the array to enlarge elevation")


def read_elevation(path: str | Path) -> Elevation:
    """Read the array to enlarge: ``elevation``, else the smallest ``"{p}_{p}"``, else the only one.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another format, or holds no such array.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".npz":
        require_honest_archive(path)
        try:
            # The file is opened here, so that it is closed also where it is no archive.
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                arrays = [name for name in archive.files if archive[name].ndim >= 2 or name == "elevation"]
                name = _pick(arrays, path)
                cell = archive["cell_size_deg"] if "cell_size_deg" in archive.files else None
                values = checked_elevation(archive[name], f"{path}: {name}")
                extra = {key: archive[key] for key in _GEOREFERENCE if key in archive.files}
                return Elevation(values, None if cell is None else float(cell), extra)
        except _DAMAGED as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: is not a readable .npz file ({error})") from None
    if path.suffix in (".h5", ".hdf5"):
        with open_h5(path) as handle, reading(path):
            arrays = [name for name in handle if isinstance(handle[name], h5py.Dataset) and handle[name].ndim >= 2]
            name = _pick(arrays, path)
            values = checked_elevation(handle[name][...], f"{path}: {name}")
            cell = handle.attrs.get("cell_size_deg")
            # In a file of patches the attribute describes the fine cells; the coarse ones are what is enlarged.
            coarse = _SQUARE.match(name) is not None
            extra = {key: handle.attrs[key] for key in _GEOREFERENCE if key in handle.attrs}
            extra |= {key: handle[key][...] for key in _GEOREFERENCE if key in handle}
            return Elevation(values, None if cell is None or coarse else float(cell), extra)
    raise InputError(f"{path}: input of type {path.suffix or 'none'} is not supported; expected {', '.join(SUFFIXES)}")

"""From stored numbers to values in their units, and what is said where they cannot be read or are no metres."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo.window import Window

_METRES: Final = re.compile(r"(m|met(er|re)s?)(\s*$|\s*[(\[,]|\s+(above|over|relative|asl|a\.s\.l))", re.IGNORECASE)
_FACTORS: Final = (
    (re.compile(r"us[ _-]?(survey)?[ _-]?(ft|foot|feet)|ft[ _-]?us", re.IGNORECASE), "0.3048006096"),
    (re.compile(r"ft|foot|feet|international foot", re.IGNORECASE), "0.3048"),
    (re.compile(r"km|kilomet(er|re)s?", re.IGNORECASE), "1000"),
    (re.compile(r"dm|decimet(er|re)s?", re.IGNORECASE), "0.1"),
    (re.compile(r"cm|centimet(er|re)s?", re.IGNORECASE), "0.01"),
)
_KEPT: Final = re.compile(r"vert\w*datum|^AREA_OR_POINT$|^long_name$|^standard_name$", re.IGNORECASE)


def kept_attributes(said: Mapping[str, Any]) -> dict[str, Any]:
    """Take what is carried on from a file's tags: names, vertical datum, and whether pixels were areas or points."""
    return {str(key): value for key, value in said.items() if _KEPT.search(str(key))}


def physical(
    stored: NDArray, nodata: Sequence[float] = (), scale: float = 1.0, offset: float = 0.0
) -> NDArray[np.float32]:
    """Decode stored numbers.

    Parameters
    ----------
    stored : ndarray
        As the file has them.
    nodata : sequence of float
        Stored numbers that stand for no value.
    scale, offset : float
        Values are ``stored * scale + offset``.

    Returns
    -------
    ndarray of float32
        NaN where there is no value; an infinite one is none.
    """
    void = void_cells(stored, nodata)
    # Numbers beyond float32 become infinite, which is no value.
    with np.errstate(over="ignore", invalid="ignore"):
        if scale == 1 and offset == 0:
            values = stored.astype(np.float32)
        else:
            values = (stored.astype(np.float64) * scale + offset).astype(np.float32)
    values[void | ~np.isfinite(values)] = np.nan
    return values


def void_cells(stored: NDArray, nodata: Sequence[float]) -> NDArray[np.bool_]:
    """Where stored numbers stand for no value: they are one of ``nodata``, or no finite number."""
    void = ~np.isfinite(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for number in nodata:
            if np.isfinite(number):
                void |= stored == (stored.dtype.type(number) if stored.dtype.kind == "f" else number)
    return void


def unreadable(name: str, window: Window, error: BaseException) -> DataError:
    """Say that a window of a file cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{name}: rows {window.row} to {window.row + window.rows - 1}, columns {window.column} to "
        f"{window.column + window.columns - 1} cannot be read ({reason}); the file may be damaged"
    )


def require_metres(units: str, where: str) -> None:
    """Refuse values that are not metres; where nobody says, metres are assumed with a warning.

    Parameters
    ----------
    units : str
        As the file has them, such as ``m``, ``metres``, ``m above mean sea level``.
    where : str
        Name of the file, for messages.

    Raises
    ------
    DataError
        If they are something else.
    """
    said = units.strip()
    if not said:
        warnings.warn(f"{where}: has no units; metres are assumed (--units m says so)", EarthsrWarning, stacklevel=2)
    elif _METRES.match(said) is None:
        factor = next((number for pattern, number in _FACTORS if pattern.fullmatch(said)), None)
        how = (
            f'gdal_calc.py -A IN --calc="A*{factor}" --type=Float32 --outfile=OUT.tif, or cdo mulc,{factor} IN OUT'
            if factor
            else "elevations in metres are needed"
        )
        raise DataError(f"{where}: units are {said!r}, expected metres; {how}; --units m if the tag is wrong")

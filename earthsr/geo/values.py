"""From stored numbers to values in their units, and what is said where they cannot be read or are no metres."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning
from earthsr.geo.grid import Window

_METRES: Final = re.compile(
    r"(m|met(er|re)s?)(\s*$|\s*[(\[,]|\s+(above|over|relative|asl|a\.s\.l|amsl|msl))", re.IGNORECASE
)
_FACTORS: Final = (
    (re.compile(r"us[ _-]?(survey)?[ _-]?(ft|foot|feet)|ft[ _-]?us", re.IGNORECASE), "0.3048006096"),
    (re.compile(r"ft|foot|feet|international foot", re.IGNORECASE), "0.3048"),
    (re.compile(r"km|kilomet(er|re)s?", re.IGNORECASE), "1000"),
    (re.compile(r"dm|decimet(er|re)s?", re.IGNORECASE), "0.1"),
    (re.compile(r"cm|centimet(er|re)s?", re.IGNORECASE), "0.01"),
)
_COLOUR: Final = re.compile("#[0-9a-fA-F]{6}")
#: From here on a number is one end of float32, however few digits it is printed with.
_ENDS: Final = 3.4028e38
#: A number in a text, with the suffixes that NetCDF's own tools print for its type.
_WORD: Final = re.compile(
    r"([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?))(?:[fdslb]|ub|us|ll|ull)?", re.IGNORECASE
)
#: Attributes that say how values are packed; xarray moves them to the encoding where it decodes.
_PACKING: Final = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")
_KEPT: Final = re.compile(r"vert\w*datum|^AREA_OR_POINT$|^long_name$|^standard_name$|^positive$", re.IGNORECASE)


def kept_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Take what is carried on from a file's tags: names, vertical datum, and whether pixels were areas or points."""
    return {str(key): value for key, value in attrs.items() if _KEPT.search(str(key))}


#: Void values given by hand: none, one, or several.
Voids = float | Sequence[float] | None


def voids_of(given: Voids) -> tuple[float, ...]:
    """Bring void values that were given by hand to a tuple."""
    if given is None:
        return ()
    return tuple(float(number) for number in np.ravel(np.asarray(given, np.float64)))


def end_of_float32(number: float) -> float:
    """One end of float32 for a number that is printed with too few digits, as -3.40282e+38; others as they are."""
    return math.copysign(float(np.finfo(np.float32).max), number) if abs(number) >= _ENDS else number


@dataclass(frozen=True)
class Packing:
    """How stored numbers become values: which of them are none, and what the others are multiplied with."""

    nodata: tuple[float, ...] = ()
    """Stored numbers that stand for no value."""
    scale: float = 1.0
    offset: float = 0.0
    """Values are ``stored * scale + offset``."""
    low: float | None = None
    high: float | None = None
    """Lowest and highest stored number that has a value."""
    signed: bool | None = None
    """Whether stored integers are signed, where their type does not say so."""

    def stored(self, raw: NDArray) -> NDArray:
        """Stored numbers of a type that says its sign."""
        kind = raw.dtype.kind
        if self.signed is not None and kind in "iu" and (kind == "i") != self.signed:
            return raw.view(f"{'i' if self.signed else 'u'}{raw.dtype.itemsize}")
        return raw

    def void(self, stored: NDArray) -> NDArray[np.bool_]:
        """Where stored numbers (of :meth:`stored`) stand for no value.

        Numbers are compared as float32, as which they are read and printed. A number at the end of float32 also stands
        for those that other programs round to it.
        """
        real = stored.dtype.kind == "f"
        # Class maps of the globe are bytes, of which float32 has every one: nothing is converted.
        exact = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
        with np.errstate(over="ignore", invalid="ignore"):
            single = stored if exact else stored.astype(np.float32)
            void = np.zeros(stored.shape, bool) if exact else ~np.isfinite(single)
            for number in self.nodata:
                if not math.isfinite(number):
                    continue
                if exact:
                    if number == int(number):
                        void |= stored == int(number)
                elif abs(number) >= _ENDS:
                    void |= single * np.float32(math.copysign(1, number)) >= np.float32(_ENDS)
                elif real:
                    void |= single == np.float32(number)
                else:
                    void |= (stored == number) | ((single == np.float32(number)) & (np.abs(single) > 2**24))
            for bound, beyond in ((self.low, np.less), (self.high, np.greater)):
                if bound is not None:
                    void |= beyond(stored, stored.dtype.type(bound) if real else bound)
        return void

    def decode(self, raw: NDArray) -> NDArray[np.float32]:
        """Values of stored numbers, NaN where there is none; an infinite one is none."""
        stored = self.stored(raw)
        # Numbers beyond float32 become infinite, which is no value.
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scale == 1 and self.offset == 0:
                values = stored.astype(np.float32)
            else:
                values = (stored.astype(np.float64) * self.scale + self.offset).astype(np.float32)
        values[self.void(stored) | ~np.isfinite(values)] = np.nan
        return values

    def typed(self, value: float) -> str:
        """Write the stored number of a value as it can be typed for ``--nodata``."""
        if self.scale == 1 and self.offset == 0:
            return number_text(value)
        return number_text((value - self.offset) / self.scale)


def number_text(value: float) -> str:
    """Write a value in as few digits as give the same float32 when they are read again."""
    single = np.float32(value)
    if abs(single - np.round(single)) <= 1e-6 * abs(single) and abs(single) < 1e15:
        return str(int(np.round(single)))
    return str(single)


def packing_of(
    attrs: Mapping[str, Any],
    dtype: np.dtype,
    name: str,
    *,
    given: Voids = None,
    decoded: Mapping[str, Any] | None = None,
) -> Packing:
    """Read what the attributes of a field of NetCDF or Zarr say about its stored numbers.

    Parameters
    ----------
    attrs : Mapping
        Its attributes: ``_FillValue``, ``missing_value`` (numbers, lists, text), ``scale_factor``, ``add_offset``,
        ``_Unsigned``, ``valid_range``, ``valid_min``, ``valid_max``.
    dtype : dtype
        Of the stored numbers.
    name : str
        Of the field, for messages.
    given : float or sequence of float, optional
        Further numbers that stand for no value.
    decoded : Mapping, optional
        The encoding of a field that xarray has decoded: its voids are NaN by now, and what it was packed with is there.

    Raises
    ------
    DataError
        If nothing could be read with them, as with a scale of 0.

    Notes
    -----
    Valid ranges are in packed numbers (CF 1.11, section 2.5.1), unless they are of the unpacked type (netCDF's
    conventions): floating-point bounds of integers that have a scale or an offset.
    """
    held = decoded or {}
    was_packed = not any(key in attrs for key in _PACKING) and any(key in held for key in _PACKING)
    packed = held if was_packed else attrs
    stored = np.dtype(packed.get("dtype") or dtype) if was_packed else np.dtype(dtype)
    word = str(_scalar(packed.get("_Unsigned", ""))).lower()
    signed = {"true": False, "false": True}.get(word) if stored.kind in "iu" else None
    scale, offset = _number(packed, "scale_factor", 1.0, name), _number(packed, "add_offset", 0.0, name)
    if scale == 0:
        raise DataError(
            f"{name}: scale_factor is 0, which makes all values one; ncatted -O -a scale_factor,VARIABLE,d,, FILE "
            "takes it out"
        )
    voids = [number for key in ("_FillValue", "missing_value") for number in _numbers(attrs, key, name)]
    low, high = _valid(attrs, name)
    if signed is False:
        # NetCDF 3 has no unsigned type: fill values and bounds are stored as signed as the values are.
        turn = 256**stored.itemsize
        voids = [number + turn if number < 0 else number for number in voids]
        low, high = (bound + turn if bound is not None and bound < 0 else bound for bound in (low, high))
    changed = (scale, offset) != (1.0, 0.0)
    unpacked = changed and stored.kind in "iu" and _real_bounds(attrs)
    if was_packed and not unpacked:
        low, high = _between(low, high, scale, offset, abs(scale) / 2 if changed and stored.kind in "iu" else 0.0)
    elif unpacked and not was_packed:
        low, high = _between(low, high, 1 / scale, -offset / scale, 1e-3)
    if low is not None and high is not None and low > high:
        raise DataError(
            f"{name}: valid values are {low:g} to {high:g}, expected the lower one first; ncatted -O -a "
            "valid_range,VARIABLE,d,, FILE takes them out"
        )
    voids += voids_of(given)
    if was_packed:
        return Packing(tuple(dict.fromkeys(voids)), 1.0, 0.0, low, high)
    return Packing(tuple(dict.fromkeys(voids)), scale, offset, low, high, signed)


def _real_bounds(attrs: Mapping[str, Any]) -> bool:
    return any(
        np.asarray(attrs[key]).dtype.kind == "f" for key in ("valid_range", "valid_min", "valid_max") if key in attrs
    )


def _valid(attrs: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    bounds = _numbers(attrs, "valid_range", name)
    if bounds and len(bounds) != 2:
        raise DataError(
            f"{name}: valid_range is {attrs['valid_range']!r}, expected two numbers; ncatted -O -a "
            "valid_range,VARIABLE,d,, FILE takes it out"
        )
    low: float | None = bounds[0] if bounds else None
    high: float | None = bounds[1] if bounds else None
    low = next(iter(_numbers(attrs, "valid_min", name)), low)
    high = next(iter(_numbers(attrs, "valid_max", name)), high)
    finite = [None if b is None or not math.isfinite(b) else b for b in (low, high)]
    return finite[0], finite[1]


def _between(
    low: float | None, high: float | None, scale: float, offset: float, slack: float
) -> tuple[float | None, float | None]:
    """Bounds in other units, with room for rounding; a negative scale turns them round."""
    ends = [None if bound is None else bound * scale + offset for bound in (low, high)]
    first, last = ends if scale > 0 else ends[::-1]
    return None if first is None else first - slack, None if last is None else last + slack


def _scalar(value: Any) -> Any:
    """One entry of an attribute: libraries give lists of one, and bytes."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.size(value):
        value = np.ravel(value)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _number(attrs: Mapping[str, Any], key: str, otherwise: float, name: str) -> float:
    if key not in attrs:
        return otherwise
    numbers = _numbers(attrs, key, name, strict=True)
    if len(numbers) != 1 or not math.isfinite(numbers[0]):
        raise DataError(
            f"{name}: {key} is {attrs[key]!r}, expected one number; ncatted -O -a {key},VARIABLE,d,, FILE takes it out"
        )
    return numbers[0]


def _numbers(attrs: Mapping[str, Any], key: str, name: str, strict: bool = False) -> list[float]:
    """Numbers of an attribute: one, a list, or a text of them; what is no number is warned about."""
    if key not in attrs or attrs[key] is None:
        return []
    numbers: list[float] = []
    for value in np.ravel(np.asarray(attrs[key], dtype=object)):
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(value, str):
            for word in re.split(r"[\s,;]+", value.strip(" \t\r\n[](){}\0")):
                match = _WORD.fullmatch(word)
                if match is not None:
                    numbers.append(float(match[1]))
                elif word and not strict:
                    warnings.warn(
                        f"{name}: {key} {value!r} is no number and stands for nothing; --nodata names a void value",
                        EarthsrWarning,
                        stacklevel=2,
                    )
        elif isinstance(value, (int, float, np.integer, np.floating)):
            numbers.append(float(value))
    return numbers


class Categories(NamedTuple):
    """What codes of a raster stand for, as far as its file says it."""

    codes: tuple[int, ...]
    names: tuple[str, ...]
    """Empty where the file has none."""
    colours: tuple[str, ...]
    """``#rrggbb``; empty where the file has none."""


def categories_of(
    attrs: Mapping[str, Any], names: Mapping[int, str] | None = None, colours: Mapping[int, str] | None = None
) -> Categories | None:
    """Read what codes stand for: CF's ``flag_values`` and ``flag_meanings``, with our ``flag_colors`` beside them.

    Parameters
    ----------
    attrs : Mapping
        Of the field, or tags of the band.
    names, colours : Mapping, optional
        Of codes, as a file has them besides; attributes go before them.

    Returns
    -------
    Categories or None
        None where nothing says that the numbers are codes.
    """
    names, colours = dict(names or {}), dict(colours or {})
    codes = [int(number) for number in _numbers(attrs, "flag_values", "flag_values") if number == int(number)]
    meanings, tints = (str(_scalar(attrs.get(key, ""))).split() for key in ("flag_meanings", "flag_colors"))
    if codes and len(meanings) == len(codes):
        names |= {code: word.replace("_", " ") for code, word in zip(codes, meanings, strict=True)}
    if codes and len(tints) == len(codes):
        colours |= {
            code: tint for code, tint in zip(codes, tints, strict=True) if re.fullmatch("#[0-9a-fA-F]{6}", tint)
        }
    known = codes or sorted({*names, *colours})
    if not known:
        return None
    known = list(dict.fromkeys(known))
    return Categories(
        tuple(known), tuple(names.get(code, "") for code in known), tuple(colours.get(code, "") for code in known)
    )


def unreadable(name: str, window: Window, error: BaseException) -> DataError:
    """Say that a window of a file cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{name}: rows {window.row} to {window.row + window.rows - 1}, columns {window.column} to "
        f"{window.column + window.columns - 1} cannot be read ({reason}); the file may be damaged"
    )


def is_metres(units: str) -> bool:
    """Whether a text of units says metres, as ``m``, ``metres`` and ``m above mean sea level`` do."""
    return _METRES.match(units.strip()) is not None


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
    units_text = units.strip()
    if not units_text:
        warnings.warn(f"{where}: has no units; metres are assumed (--units m says so)", EarthsrWarning, stacklevel=2)
    elif not is_metres(units_text):
        factor = next((number for pattern, number in _FACTORS if pattern.fullmatch(units_text)), None)
        how = (
            f"rio calc '(* {factor} (read 1))' IN.tif OUT.tif --dtype float32 --profile nodata=nan (rio is "
            f"rasterio's), or cdo -setunit,m -mulc,{factor} IN.nc OUT.nc"
            if factor
            else "elevations in metres are needed"
        )
        raise DataError(f"{where}: units are {units_text!r}, expected metres; {how}; --units m if the tag is wrong")

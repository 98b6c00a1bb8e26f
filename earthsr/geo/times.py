"""Years of time axes, in any of CF's calendars.

Time is not decoded by xarray: LUH2 counts "years since 850-01-01", which has no length in days, and the calendars of
climate models need a further package there. Only the year is wanted here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError

_SINCE = re.compile(r"^\s*(\w+)\s+since\s+([+-]?\d{1,5})-(\d{1,2})-(\d{1,2})", re.IGNORECASE)
_PER_DAY = {"day": 1, "d": 1, "hour": 24, "hr": 24, "h": 24, "minute": 1440, "min": 1440, "second": 86400, "s": 86400}
_YEARS = {"year", "yr", "common_year"}
#: Days of years that all have the same length.
_EVEN = {"noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366, "360_day": 360}
_MIXED = {"standard", "gregorian", "proleptic_gregorian", "julian"}
#: Day number of 1582-10-15, the first of the Gregorian calendar.
_REFORM = 2299161


def years_of(values: NDArray, units: str, calendar: str, source: str) -> tuple[int, ...]:
    """Turn a time axis into years.

    Parameters
    ----------
    values : ndarray of shape (n,)
        As the file has them.
    units : str
        CF's ``UNIT since DATE``, ``day as %Y%m%d.%f``, or none, ``1`` and ``years`` where the values are years.
    calendar : str
        CF's name of the calendar.
    source : str
        File and variable, for errors.

    Raises
    ------
    DataError
        If the units or the calendar are not known.
    """
    numbers = np.asarray(values, np.float64)
    text = units.strip().lower()
    if not np.isfinite(numbers).all():
        raise DataError(f"{source}: the time axis holds values that are no numbers; write it again")
    if text.startswith("day as %y%m%d"):
        return tuple(int(value // 10000) for value in numbers)
    match = _SINCE.match(text)
    if match is None:
        if "since" in text or (text and text not in ("1", "a") and "year" not in text and "%y" not in text):
            raise DataError(f"{source}: units of time are {units!r}, expected years, or UNIT since YEAR-MONTH-DAY")
        return tuple(math.floor(value) for value in numbers)
    unit = match[1] if match[1] in _PER_DAY or match[1] in _YEARS else match[1].rstrip("s")
    year, month, day = (int(part) for part in match.groups()[1:])
    if unit in _YEARS:
        begun = (month - 1) / 12 + (day - 1) / 366
        return tuple(year + math.floor(value + begun + 1e-6) for value in numbers)
    if unit in ("month", "mon"):
        return tuple(year + math.floor((month - 1 + value + 1e-6) / 12) for value in numbers)
    if unit not in _PER_DAY:
        raise DataError(f"{source}: time counts in {match[1]!r}, expected years, months, days, hours or seconds")
    name = calendar.strip().lower() or "standard"
    if name not in _EVEN and name not in _MIXED:
        raise DataError(f"{source}: calendar {calendar!r} is unknown; known are {', '.join([*_EVEN, *sorted(_MIXED)])}")
    start = _day_number(year, month, day, name)
    # Half a second: hours kept as float32 days do not come out whole.
    return tuple(_year(math.floor(start + value / _PER_DAY[unit] + 0.5 / 86400), name) for value in numbers)


def _day_number(year: int, month: int, day: int, calendar: str) -> int:
    """Count days; their origin is the calendar's own affair (Julian day numbers, or the year 0)."""
    if calendar in _EVEN:
        length = _EVEN[calendar]
        if length == 360:
            return 360 * year + 30 * (month - 1) + day - 1
        february = 28 + length - 365
        months = (31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
        return length * year + sum(months[: month - 1]) + day - 1
    # Years that begin in March have the leap day at their end.
    late = (14 - month) // 12
    y, m = year + 4800 - late, month + 12 * late - 3
    common = day + (153 * m + 2) // 5 + 365 * y + y // 4
    julian = common - 32083
    gregorian = common - y // 100 + y // 400 - 32045
    if calendar == "julian":
        return julian
    return gregorian if calendar == "proleptic_gregorian" or gregorian >= _REFORM else julian


def _year(number: int, calendar: str) -> int:
    if calendar in _EVEN:
        return number // _EVEN[calendar]
    year = math.floor((number + 31739) / 365.25) - 4800 + 1
    while _day_number(year, 1, 1, calendar) > number:
        year -= 1
    while _day_number(year + 1, 1, 1, calendar) <= number:
        year += 1
    return year


def require_yearly(years: Sequence[int], source: str) -> None:
    """Check that there is one step a year; single years may be missing.

    Raises
    ------
    DataError
        If a year comes twice, years go backwards, or the step is longer; the message names the year.
    """
    steps = np.diff(np.asarray(years, np.int64))
    if (steps <= 0).any():
        year = years[int(np.argmax(steps <= 0)) + 1]
        many = sum(other == year for other in years)
        problem = f"{many} steps in {year}" if many > 1 else f"{year} after {max(years)}"
        raise DataError(f"{source}: has {problem}, expected one step a year in order; take its yearly means first")
    if len(steps) and steps.min() > 1:
        raise DataError(
            f"{source}: has a step every {steps.min()} years ({years[0]}, {years[1]}, …), expected every year"
        )


def spans(years: Iterable[int]) -> str:
    """Write years in few words: ``2009, 2012 to 2015``."""
    runs: list[list[int]] = []
    for year in sorted(set(years)):
        if runs and year == runs[-1][1] + 1:
            runs[-1][1] = year
        else:
            runs.append([year, year])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    if len(texts) > 8:
        texts = [*texts[:4], "…", *texts[-3:]]
    return ", ".join(texts) or "none"

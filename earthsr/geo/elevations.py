"""Rasters of elevation: metres, positive up, every value possible on Earth, and no number that stands for none.

Whatever reads elevations reads them through :func:`elevations`, and what is written is held to the same bounds.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.geo.grid import Window
from earthsr.geo.raster import Source, sampled_inside
from earthsr.geo.values import Packing, number_text, require_metres
from earthsr.geo.voids import (
    STANDARD_FILLS,
    Fill,
    attributes_command,
    count_of,
    declaring,
    is_isolated,
    undeclared_fills,
)

#: Elevations on Earth, metres, with some room; what lies outside is taken for a fill value.
PLAUSIBLE_M: Final = (-12_000, 9_500)

Positive = Literal["up", "down"]
POSITIVES: Final[tuple[Positive, ...]] = get_args(Positive)

#: Standard names of CF that count downwards, and such as count upwards.
_DOWN: Final = re.compile(r"(^|_)depth(_|$)|_below_")
_UP: Final = re.compile(r"altitude|height|elevation|topograph")
#: What a field may be called that is depth and does not say which way it counts; words that say it is not.
_DEPTH: Final = re.compile(r"depth|bathy|sounding|deptho", re.IGNORECASE)
_HEIGHT: Final = re.compile(r"height|elev|altitude|topo|relief|terrain|orog|(^|[^a-z])dem([^a-z]|$)", re.IGNORECASE)
#: Heights above what the depths were below; CF's names.
_ABOVE: Final = {
    "geoid": "altitude",
    "mean_sea_level": "height_above_mean_sea_level",
    "reference_ellipsoid": "height_above_reference_ellipsoid",
    "geopotential_datum": "height_above_geopotential_datum",
}
#: Rows and columns that are looked at at once.
_BLOCK: Final = 1024
#: Windows, and cells per side of each, by which the sign of a field is judged.
_SAMPLES: Final = 9
_SAMPLE_CELLS: Final = 128
#: Cells of a picture that hold a common fill value, at least, for it to be taken for one.
_FEW: Final = 16


class Elevations:
    """A raster of elevations; :func:`elevations` makes it."""

    def __init__(
        self, source: Source, positive: Positive | None, keep: Sequence[float], option: str | None, warn_of_units: bool
    ) -> None:
        self._source, self.name, self._option = source, source.name, option
        self.notes: list[str] = []
        """What was assumed or changed, for a provenance."""
        place = source.georeference
        self.assumed_metres = not place.units.strip()
        """Whether nobody says the units."""
        if option is not None and (warn_of_units or not self.assumed_metres):
            require_metres(place.units, self.name)
        if option is not None and self.assumed_metres:
            self.notes.append(f"{self.name}: has no units, metres are assumed")
        packing: Packing = getattr(source, "packing", Packing())
        self._turned = self._points_down(positive)
        sign = -1.0 if self._turned else 1.0
        self.packing = replace(packing, scale=packing.scale * sign, offset=packing.offset * sign)
        self._known = {np.float32(number * self.packing.scale + self.packing.offset) for number in keep}
        """Values that are repeated and no fills, as float32."""
        self.georeference = replace(
            place,
            units=place.units.strip() or "m",
            nodata=None if place.nodata is None or not _is_void(place.nodata) else place.nodata,
            attributes=_turned_names(place.attributes) if self._turned else place.attributes,
        )

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (rows, columns) of metres from north to south, NaN where there is no value.

        Raises
        ------
        DataError
            If a value is no elevation, or a number stands for no value that nobody has named; or the file is damaged.
        """
        values = self._values(window)
        require_plausible(values, self, window, self._option)
        for fill in undeclared_fills(values, self._known):
            common = fill.value in STANDARD_FILLS
            if common or self._stands_alone(fill):
                words = self._words(fill, window)
                # Nobody could say of such a number that it is ground: it is no more than likely to be a fill value.
                if self._option is None and not common:
                    self._say(words)
                else:
                    raise DataError(f"{self.name}: {words}")
            self._known.add(fill.value)
        return values

    def _values(self, window: Window) -> NDArray[np.float32]:
        values = self._source.read(window)
        # Zero stays without a sign.
        return np.subtract(0, values, dtype=np.float32) if self._turned else values

    def sampled(self, window: Window, step: int, kind: str = "read", layer: int = 0) -> NDArray[np.float32]:
        """Read every so many cells, for a picture, under the rules of :meth:`read`; see :mod:`earthsr.geo.raster`.

        Whether a number is a fill value is judged by the cells that are read, and not by the whole raster.
        """
        values = sampled_inside(self._source, window, step, kind, layer)
        if self._turned:
            values = np.subtract(0, values, dtype=np.float32)
        place = first_implausible(values)
        if place is not None:
            at = window._replace(row=window.row + place[0] * step, column=window.column + place[1] * step)
            require_plausible(values[place[0] :, place[1] :][:1, :1], self, at, self._option)
        # Far samples of steep ground are as far apart as fill values are from it: many of a common one are needed then.
        fewest = 1 if step == 1 else _FEW
        for fill in undeclared_fills(values, self._known):
            common = fill.value in STANDARD_FILLS
            if (step > 1 and not common) or count_of(values, fill.value) < fewest:
                continue
            self._known.add(fill.value)
            stored = self.packing.typed(float(fill.value))
            words = f"holds {stored}, as a fill value that the file does not declare; {declaring(stored, self.name)}"
            if common:
                raise DataError(f"{self.name}: {words}")
            self._say(words)
        return values

    def _stands_alone(self, fill: Fill) -> bool:
        """Whether a number is far from all its neighbours not in one window alone, but in the whole raster."""
        return all(is_isolated(self._values(block), fill) for block in _blocks(self.georeference))

    def _words(self, fill: Fill, window: Window) -> str:
        count = sum(count_of(self._values(block), fill.value) for block in _blocks(self.georeference))
        stored = self.packing.typed(float(fill.value))
        others = "" if math.isinf(fill.gap) else f", {fill.gap:.0f} m and more from every neighbour"
        remedy = (
            declaring(stored, self.name)
            if self._option is None
            else f"{self._option} {stored} makes them voids, --keep {stored} keeps them as ground"
        )
        return (
            f"{count} cells hold {stored}{others} (the first in row {window.row + fill.row}, column "
            f"{(window.column + fill.column) % self.georeference.columns}), as a fill value that the file does not "
            f"declare; {remedy}"
        )

    def _points_down(self, given: Positive | None) -> bool:
        """Whether values count downwards; says so where that was not asked for."""
        if given not in (None, *POSITIVES):
            raise InputError(f"--positive is {given!r}, expected {' or '.join(POSITIVES)}")
        if given is not None:
            if given == "down":
                self.notes.append(f"{self.name}: depths were turned into heights (--positive down)")
            return given == "down"
        attributes = self._source.georeference.attributes
        standard = str(attributes.get("standard_name", "")).strip().lower()
        counts = str(attributes.get("positive", "")).strip().lower()
        named = "down" if _DOWN.search(standard) else "up" if _UP.search(standard) else ""
        if counts in POSITIVES and named and counts != named:
            raise DataError(
                f"{self.name}: standard_name {standard} counts {named} and the attribute positive says {counts}; "
                f"{self._either('--positive up or --positive down says which it is')}"
            )
        reason = f"positive: {counts}" if counts == "down" else f"standard_name {standard}" if named == "down" else ""
        if reason:
            if counts != "down" and self._below_zero() > 0.5:
                raise DataError(
                    f"{self.name}: {reason} counts down, and most values are negative; "
                    f"{self._either('--positive up says that they are heights, --positive down that they are depths')}"
                )
            leave = "" if self._option is None else "; --positive up leaves them as they are"
            self._say(f"depths ({reason}) are turned into heights{leave}")
            return True
        words = f"{_variable(self._source)} {attributes.get('long_name', '')} {standard}"
        if counts == "up" or named == "up" or not _DEPTH.search(words) or _HEIGHT.search(words):
            return False
        if self._below_zero() <= 0.5:
            raise DataError(
                f"{self.name}: is called {' '.join(words.split())}, its values are positive, and nothing says which "
                "way they count; "
                f"{self._either('--positive down says that they are depths, --positive up that they are heights')}"
            )
        turn = "" if self._option is None else "; --positive down turns it"
        self._say(f"is called {' '.join(words.split())} and is negative: taken as heights{turn}")
        return False

    def _either(self, options: str) -> str:
        """How to say which way values count: options of a command, else what an attribute says."""
        if self._option is not None:
            return options
        if not Path(self.name.partition(": ")[0]).suffix:
            return "attributes positive=up and standard_name=height say that they are heights (down, depth: depths)"
        command = attributes_command(self.name, standard_name="height", positive="up")
        return f"{command} says that they are heights (depth and down: depths)"

    def _say(self, text: str) -> None:
        self.notes.append(f"{self.name}: {text}")
        warnings.warn(f"{self.name}: {text}", EarthsrWarning, stacklevel=5)

    def _below_zero(self) -> float:
        """Share of values below 0 among those that are not 0, in some places; 0 where there are none."""
        place = self._source.georeference
        side = min(_SAMPLE_CELLS, place.rows), min(_SAMPLE_CELLS, place.columns)
        places = round(math.sqrt(_SAMPLES))
        below = count = 0
        for row in np.unique(np.linspace(0, place.rows - side[0], places).astype(int)):
            for column in np.unique(np.linspace(0, place.columns - side[1], places).astype(int)):
                values = self._source.read(Window(int(row), int(column), *side))
                below += int((values < 0).sum())
                count += int(((values < 0) | (values > 0)).sum())
        return below / count if count else 0.0

    def require_no_fills(self) -> None:
        """Look at the whole raster, block by block: for what is going to be interpolated, which hides fill values.

        Raises
        ------
        DataError
            As :meth:`read`.
        """
        for block in _blocks(self.georeference):
            self.read(block)

    def name_heights(self) -> None:
        """Give CF's name of what the heights are, for what is made of them, where the file has none; that is noted."""
        attributes = self.georeference.attributes
        if str(attributes.get("standard_name", "")).strip():
            return
        datum = " ".join(str(value) for key, value in attributes.items() if "datum" in key.lower())
        name = _ABOVE["reference_ellipsoid" if "ellips" in datum.lower() else "mean_sea_level"]
        self.georeference = replace(self.georeference, attributes={**attributes, "standard_name": name})
        self.notes.append(f"{self.name}: has no standard_name, {name} is assumed")

    def release(self) -> None:
        """Close the file until the next read."""
        release = getattr(self._source, "release", None)
        if release is not None:
            release()

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def elevations(
    source: Source,
    *,
    positive: Positive | None = None,
    keep: Sequence[float] = (),
    option: str | None = "--nodata",
    warn_of_units: bool = True,
) -> Elevations:
    """See a raster as elevations: in metres, positive up, each value possible on Earth.

    Parameters
    ----------
    source : Source
        Any raster.
    positive : {"up", "down"}, optional
        Which way its values count, in place of what the file says (``positive``, ``standard_name``). Depths are turned
        into heights.
    keep : sequence of float
        Stored numbers that are ground although they stand alone and are repeated.
    option : str, optional
        By which a fill value of the raster is named, for messages. None where nothing of this can be said beside the
        file, as of one feature among others, whose units the caller knows: then messages say how to mend the file, and
        a number that is only likely to be a fill value is a warning.
    warn_of_units : bool
        Whether to warn where nobody says the units; metres are assumed either way.

    Raises
    ------
    DataError
        If its values are in other units, or nothing says whether they are heights or depths.
    """
    if isinstance(source, Elevations):
        return source
    return Elevations(source, positive, keep, option, warn_of_units)


def require_plausible(
    values: NDArray[np.float32], source: Source, window: Window, option: str | None = "--nodata"
) -> None:
    """Check that values are elevations on Earth in metres.

    Raises
    ------
    DataError
        If one is not: an undeclared fill value, or another unit. The message names it as it can be typed.
    """
    place = first_implausible(values)
    if place is None:
        return
    row, column = place
    low, high = PLAUSIBLE_M
    value = float(values[row, column])
    stored = getattr(source, "packing", Packing()).typed(value)
    meaning = "" if stored == number_text(value) else f" ({number_text(value)} m)"
    # Windows of a periodic raster go round; the column is the one that the file has.
    column = (window.column + column) % source.georeference.columns
    remedy = declaring(stored, source.name) if option is None else f"{option} {stored} says so"
    raise DataError(
        f"{source.name}: holds {stored}{meaning} in row {window.row + row}, column {column}, and elevations are "
        f"{low:,} to {high:,} m; if it is a fill value, {remedy}"
    )


def first_implausible(values: NDArray[np.float32]) -> tuple[int, int] | None:
    """Row and column of the first value of a field that is no elevation on Earth; None where all can be."""
    low, high = PLAUSIBLE_M
    # Comparisons with NaN are false: only values count.
    bad = (values < low) | (values > high)
    if not bad.any():
        return None
    row, column = np.argwhere(bad)[0]
    return int(row), int(column)


def _is_void(number: float) -> bool:
    """Whether a declared void value can stand beside elevations in what is written."""
    return not PLAUSIBLE_M[0] <= number <= PLAUSIBLE_M[1] or np.float32(number) in STANDARD_FILLS


def _turned_names(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Names of heights in the place of those of depths."""
    kept = {key: value for key, value in attributes.items() if key not in ("long_name", "standard_name", "positive")}
    _, _, below = str(attributes.get("standard_name", "")).partition("_below_")
    return {**kept, **({"standard_name": _ABOVE[below]} if below in _ABOVE else {})}


def _variable(source: Source) -> str:
    """Name of a field; nothing for a file of one band, whose name is anybody's."""
    _, colon, tail = source.name.rpartition(": ")
    return tail if colon or hasattr(source, "layers") else ""


def _blocks(grid: Any) -> Iterator[Window]:
    for row in range(0, grid.rows, _BLOCK):
        for column in range(0, grid.columns, _BLOCK):
            yield Window(row, column, min(_BLOCK, grid.rows - row), min(_BLOCK, grid.columns - column))

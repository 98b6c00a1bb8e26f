"""Between what the model has and what maps on disk hold: class indices and codes, probabilities and bytes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError
from earthsr.landuse.classes import NODATA, ClassTable

#: Bytes a unit of probability: 0 to 1 become 0 to 250, and a byte is 0.004.
STEPS: Final = 250
SCALE: Final = 1 / STEPS

#: No table has that many classes: what a code that is in no class becomes.
_UNKNOWN: Final = 254

_PROBABILITIES: Final = np.where(np.arange(256) <= STEPS, np.arange(256) / STEPS, np.nan).astype(np.float32)


def to_codes(classes: NDArray, table: ClassTable) -> NDArray[np.uint8]:
    """Turn class indices into each class's first code; 255 stays.

    Raises
    ------
    ValueError
        If the array is not of uint8, or an index is beyond the table.
    """
    if classes.dtype != np.uint8:
        raise ValueError(f"classes are of type {classes.dtype}, expected uint8")
    beyond = (classes >= len(table)) & (classes != NODATA)
    if beyond.any():
        raise ValueError(
            f"classes have the index {classes[beyond][0]}, expected 0 to {len(table) - 1}, or {NODATA} for no class"
        )
    codes = np.full(256, NODATA, np.uint8)
    codes[: len(table)] = [each.code for each in table.classes]
    return codes[classes]


def to_classes(codes: NDArray[np.uint8], table: ClassTable, source: str) -> NDArray[np.uint8]:
    """Turn codes into class indices; 255 stays.

    Raises
    ------
    DataError
        If a code is none of the table's first codes.
    """
    indices = np.full(256, _UNKNOWN, np.uint8)
    indices[NODATA] = NODATA
    for index, each in enumerate(table.classes):
        indices[each.code] = index
    classes = indices[codes]
    unknown = classes == _UNKNOWN
    if unknown.any():
        raise DataError(
            f"{source}: code {codes[unknown][0]} is in no class of table {table.name}; the maps were changed by "
            "something else: make them anew"
        )
    return classes


def to_bytes(probabilities: NDArray) -> NDArray[np.uint8]:
    """Turn probabilities, 0 to 1, into bytes of 0.004; NaN becomes 255.

    Raises
    ------
    ValueError
        If the array is not of floats, or a probability is outside 0 to 1 by more than half a byte.
    """
    if probabilities.dtype.kind != "f":
        raise ValueError(f"probabilities are of type {probabilities.dtype}, expected float32")
    # One map at a time: float32 for all classes at once would be the largest array of a run.
    maps = probabilities.reshape((-1, *probabilities.shape[-2:]))
    packed = np.empty(maps.shape, np.uint8)
    for values, stored in zip(maps, packed, strict=True):
        steps = np.rint(values * np.float32(STEPS))
        void = np.isnan(steps)
        bad = ~(void | ((steps >= 0) & (steps <= STEPS)))
        if bad.any():
            raise ValueError(f"a probability is {values[bad][0]:g}, expected 0 to 1, or NaN where there is none")
        steps[void] = NODATA
        stored[...] = steps
    return packed.reshape(probabilities.shape)


def to_probabilities(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn bytes into probabilities; 255 becomes NaN."""
    return _PROBABILITIES[stored]

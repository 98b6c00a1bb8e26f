"""What copies of maps have in common."""

from __future__ import annotations

from typing import Any

from earthsr.errors import InputError
from earthsr.landuse.maps.spec import COMPLETE
from earthsr.landuse.maps.store import Maps


def finished_attributes(maps: Maps) -> dict[str, Any]:
    """Root attributes of finished maps.

    Raises
    ------
    InputError
        If they are not finished: a copy would hide that maps are missing.
    """
    attributes = maps.attributes
    if attributes.get(COMPLETE) is not True:
        raise InputError(f"{maps.path}: is not finished, maps may be missing; let earthsr reconstruct finish it first")
    return attributes

"""Classes whose areas add up: from probabilities to the likeliest map that has a scenario's fractions.

:func:`match_areas` decodes, :func:`area_error` measures what a map's areas lack, with and without it. Only NumPy is
needed. What the areas of whole maps and years are is in :mod:`earthsr.landuse.class_areas`.
"""

from __future__ import annotations

from earthsr.landuse.match_areas.difference import AreaError, area_error
from earthsr.landuse.match_areas.match import Matched, MatchStatistics, match_areas

__all__ = ["AreaError", "MatchStatistics", "Matched", "area_error", "match_areas"]

"""Monthly leaf area index: from the class of a cell and its climate, through warmth and water of each month."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthsr.landuse.classes import NODATA
from earthsr.samples.world.climate import Climate, potential_evaporation
from earthsr.samples.world.growth import CROPLAND, FOREST, GRASS, PASTURE, SPARSE, URBAN, WATER

#: Leaf area index (m2 m-2) of each class in full leaf on the best soil, and the share of it that stays in winter.
_FULL = {URBAN: 1.3, CROPLAND: 5.0, PASTURE: 3.4, FOREST: 6.8, GRASS: 2.4, SPARSE: 0.5, WATER: 0.0}
_KEPT = {URBAN: 0.35, CROPLAND: 0.06, PASTURE: 0.3, FOREST: 0.15, GRASS: 0.25, SPARSE: 0.3, WATER: 0.0}
#: Months after the middle of summer from which fields are bare, and how long the harvest takes.
_HARVEST, _HARVEST_MONTHS = 1.0, 1.5


def seasons(climate: Climate, soil: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leaf area index that every class would have, (K, 12, H, W), m2 m-2.

    Parameters
    ----------
    climate : Climate
        (H, W).
    soil : ndarray of shape (H, W)
        Index, 0 to 1.
    """
    temperature, rain = climate.monthly()
    warmth = np.clip((temperature - 3.0) / 14.0, 0.0, 1.0)
    water = rain / potential_evaporation(temperature, 1.0)
    # Soil holds back what fell in the months before.
    stored = 0.5 * water + 0.3 * np.roll(water, 1, axis=0) + 0.2 * np.roll(water, 2, axis=0)
    growing = warmth * np.clip(stored / 0.75, 0.0, 1.0)
    leaf = growing * (1.6 - 0.6 * growing)
    fertile = 0.6 + 0.4 * np.clip(soil / 0.8, 0.0, 1.0)
    fertile = fertile * np.clip(0.35 + 0.65 * climate.moisture / 0.8, 0.35, 1.0)
    # Trees that keep their leaves grow where it is cold and where winters are mild.
    mild = np.clip((climate.temperature_degc - np.abs(climate.swing_degc) - 3.0) / 6.0, 0.0, 1.0)
    evergreen = np.maximum(np.clip((8.0 - climate.temperature_degc) / 6.0, 0.0, 0.6), mild)
    standing = _standing(climate)
    by_class = np.zeros((max(_FULL) + 1, *leaf.shape), np.float32)
    for index, full in _FULL.items():
        kept = _KEPT[index] + (0.55 * evergreen if index == FOREST else 0.0)
        grown = leaf * standing if index == CROPLAND else leaf
        by_class[index] = full * fertile * (kept + (1.0 - kept) * grown)
    return by_class


def leaf_area(classes: NDArray[np.uint8], seasons_of_class: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leaf area index (12, H, W), m2 m-2, of classes (H, W); NaN where there is no class.

    Parameters
    ----------
    classes : ndarray of shape (H, W)
        Indices.
    seasons_of_class : ndarray of shape (K, 12, H, W)
        Of :func:`seasons`.
    """
    void = classes == NODATA
    chosen = np.where(void, 0, classes)[None, None]
    leaf_area_index = np.take_along_axis(seasons_of_class, chosen.astype(np.intp), axis=0)[0]
    leaf_area_index[:, void] = np.nan
    return leaf_area_index


def _standing(climate: Climate) -> NDArray[np.float32]:
    """Share of crops that is not harvested, (12, H, W)."""
    north = np.arange(12) + 0.5 - 6.5
    south = (np.arange(12) + 0.5 - 0.5 + 6) % 12 - 6
    after = np.where(climate.swing_degc[None] < 0, south[:, None, None], north[:, None, None])
    return np.clip(1.0 - (after - _HARVEST) / _HARVEST_MONTHS, 0.15, 1.0).astype(np.float32)

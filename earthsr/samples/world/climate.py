"""Climate of the synthetic world: from latitude, height and distance to the sea, the same in every year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.samples.world.terrain import Terrain

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

#: Middle of the warmest month of the northern hemisphere, in months from the beginning of the year.
_WARMEST = 6.5
_LAPSE_DEGC_PER_M = -6.0e-3


@dataclass(frozen=True)
class Climate:
    """Annual means and seasons (H, W), or of a window."""

    temperature_degc: NDArray[np.float32]
    """Annual mean."""
    swing_degc: NDArray[np.float32]
    """Half of what the warmest month is above the coldest; negative in the southern hemisphere."""
    precipitation_mm: NDArray[np.float32]
    """Annual sum."""
    summer_rain: NDArray[np.float32]
    """-1 to 1: how much more it rains in summer (positive) or winter (negative) than on average."""

    def window(self, row: int, column: int, rows: int, columns: int) -> Climate:
        """Cut a window."""
        part = (slice(row, row + rows), slice(column, column + columns))
        return Climate(
            self.temperature_degc[part], self.swing_degc[part], self.precipitation_mm[part], self.summer_rain[part]
        )

    @property
    def moisture(self) -> NDArray[np.float32]:
        """Annual precipitation over annual potential evaporation."""
        return self.precipitation_mm / potential_evaporation(self.temperature_degc, 12.0)

    def monthly(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return temperature (12, H, W) in degrees Celsius and precipitation (12, H, W) in mm per month."""
        # Cosine of the year that is 1 in the northern summer and -1 in the northern winter.
        wave = np.cos(2 * np.pi * (np.arange(12) + 0.5 - _WARMEST) / 12).astype(np.float32)[:, None, None]
        temperature = self.temperature_degc + self.swing_degc * wave
        rain = self.precipitation_mm / 12 * (1 + self.summer_rain * np.sign(self.swing_degc) * wave)
        return temperature, rain


def potential_evaporation(temperature_degc: NDArray, months: float) -> NDArray:
    """Water (mm) that the air would take in some months of a temperature."""
    return months * (18.0 + 4.8 * np.maximum(temperature_degc, 0.0))


def make_climate(terrain: Terrain, latitudes: NDArray[np.float64]) -> Climate:
    """Make the climate of a terrain.

    Parameters
    ----------
    terrain : Terrain
        (H, W).
    latitudes : ndarray of shape (H,)
        Centres of rows, degrees.
    """
    latitude = latitudes[:, None]
    away = np.abs(latitude)
    elevation = terrain.elevation_m.astype(np.float64)
    inland = 1.0 - np.exp(-terrain.to_sea_km.astype(np.float64) / 90.0)
    temperature = 48.0 * np.cos(np.deg2rad(latitude)) ** 1.2 - 20.0 + _LAPSE_DEGC_PER_M * elevation
    swing = (1.5 + 0.16 * away) * (0.75 + 0.7 * inland) * np.where(latitude < 0, -1.0, 1.0)
    # Rain of the tropics, dry belts beside them, and little where the air is cold.
    belts = 900.0 + 1100.0 * np.exp(-((away / 9.0) ** 2)) - 550.0 * np.exp(-(((away - 26.0) / 8.0) ** 2))
    belts *= np.clip(1.45 - away / 100.0, 0.4, 1.0)
    rain = belts * (1.1 - 0.8 * inland) * (1.0 + np.minimum(elevation, 2500.0) / 2200.0)
    summer = 0.7 * np.exp(-((away / 20.0) ** 2)) - 0.6 * np.exp(-(((away - 38.0) / 7.0) ** 2)) + 0.1
    return Climate(
        temperature_degc=temperature.astype(np.float32),
        swing_degc=swing.astype(np.float32),
        precipitation_mm=rain.astype(np.float32),
        summer_rain=np.broadcast_to(summer, elevation.shape).astype(np.float32),
    )

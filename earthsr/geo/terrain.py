"""Fields derived from elevation: slope, hillshade, and the map of structural similarity."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Spacing = float | NDArray[np.float64]


def horn_gradient(
    elevation: NDArray[np.floating], dy: Spacing, dx: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rise per metre towards the south and towards the east (Horn, 1981, "Hill shading and the reflectance map").

    Parameters
    ----------
    elevation : ndarray of shape (..., H, W)
        Metres, rows from north to south.
    dy, dx : float or ndarray
        Cell size in metres, north-south and east-west.

    Returns
    -------
    tuple of ndarray of shape (..., H - 2, W - 2)
    """
    z = np.asarray(elevation, np.float64)
    north, middle, south = z[..., :-2, :], z[..., 1:-1, :], z[..., 2:, :]
    across = north + 2 * middle + south
    east = (across[..., 2:] - across[..., :-2]) / (8 * dx)
    change = south - north
    down = (change[..., :-2] + 2 * change[..., 1:-1] + change[..., 2:]) / (8 * dy)
    return down, east


def slope_degrees(elevation: NDArray[np.floating], dy: Spacing, dx: Spacing) -> NDArray[np.float64]:
    """Slope in degrees, (..., H - 2, W - 2)."""
    down, east = horn_gradient(elevation, dy, dx)
    return np.rad2deg(np.arctan(np.hypot(down, east)))


def hillshade(
    elevation: NDArray[np.floating], dy: Spacing, dx: Spacing, azimuth_deg: float = 315.0, altitude_deg: float = 45.0
) -> NDArray[np.float64]:
    """Brightness 0 to 1 under a sun in the north-west, (..., H, W); edges repeat their neighbours.

    ``dy`` and ``dx`` are cell sizes in metres; an array of shape (H, 1) gives each row its own.
    """
    padded = np.pad(np.asarray(elevation, np.float64), [(0, 0)] * (elevation.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    down, east = horn_gradient(padded, dy, dx)
    azimuth, altitude = np.deg2rad(azimuth_deg), np.deg2rad(altitude_deg)
    # The sun's direction as (east, north, up); the normal of the surface is (-dz/deast, -dz/dnorth, 1).
    sun_east, sun_north = np.sin(azimuth) * np.cos(altitude), np.cos(azimuth) * np.cos(altitude)
    light = (-east * sun_east + down * sun_north + np.sin(altitude)) / np.sqrt(1 + east**2 + down**2)
    return np.clip(light, 0, 1)


#: How far light and shade change a colour.
_DEPTH: Final = 0.62
#: Brightness of flat ground.
_FLAT: Final = math.sqrt(0.5)


def lit(colours: NDArray[np.floating], light: NDArray[np.float64]) -> NDArray[np.float32]:
    """Colours (H, W, 3), 0 to 1, under a :func:`hillshade`; flat ground, and what lies beside a void, keeps its own."""
    change = (_DEPTH * (np.where(np.isfinite(light), light, _FLAT) / _FLAT - 1))[..., None].astype(np.float32)
    rgb = np.asarray(colours, np.float32)
    return np.where(change < 0, rgb * (1 + change), rgb + (1 - rgb) * np.minimum(change * 1.2, 1))


def ssim_map(
    a: NDArray[np.float64], b: NDArray[np.float64], value_range: float, window: int = 11, sigma: float = 1.5
) -> NDArray[np.float64]:
    """Structural similarity (Wang et al., 2004, eq. 13, K1 = 0.01, K2 = 0.03) in a Gaussian window.

    Returns
    -------
    ndarray of shape (..., H - window + 1, W - window + 1)
        For windows that lie wholly inside.
    """
    offset = np.arange(window) - (window - 1) / 2
    weights = np.exp(-0.5 * (offset / sigma) ** 2)
    weights /= weights.sum()

    def band(extent: int) -> NDArray[np.float64]:
        matrix = np.zeros((extent - window + 1, extent))
        for row in range(len(matrix)):
            matrix[row, row : row + window] = weights
        return matrix

    rows, columns = band(a.shape[-2]), band(a.shape[-1]).T

    def blur(field: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows @ field @ columns

    # Variances do not depend on a common offset; taking it off keeps the differences of squares exact enough.
    centre = b.mean()
    a0, b0 = a - centre, b - centre
    mean_a, mean_b = blur(a0), blur(b0)
    var_a = blur(a0**2) - mean_a**2
    var_b = blur(b0**2) - mean_b**2
    covariance = blur(a0 * b0) - mean_a * mean_b
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    mean_a, mean_b = mean_a + centre, mean_b + centre
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (var_a + var_b + c2)

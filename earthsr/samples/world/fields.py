"""Random fields by spectral synthesis, and sums over neighbourhoods: the tools of the other files of this folder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Mean radius of the Earth, km.
EARTH_RADIUS_KM = 6371.0

#: Cells beyond the edges that are made and cut off: a Fourier series closes upon itself, a region does not.
_MARGIN = 64


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of one purpose, which do not depend on what else draws some."""
    return np.random.default_rng([seed, *purpose.encode()])


def spectral_field(
    rng: np.random.Generator, shape: tuple[int, int], cell_deg: float, longest_deg: float, exponent: float
) -> NDArray[np.float64]:
    """Gaussian random field whose amplitude falls with wave number by a power law.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of one purpose; see :func:`generator`.
    shape : tuple of int
        Rows and columns (H, W).
    cell_deg : float
        Cell size, degrees.
    longest_deg : float
        Wavelength, degrees, beyond which amplitudes rise no more: no trend goes through the whole field.
    exponent : float
        Of amplitude against wave number; larger is smoother. 1 is rough, 2 is like hills, 4 is smooth.

    Returns
    -------
    ndarray of shape (H, W)
        Of zero mean and unit variance over the window.
    """
    rows, columns = (-(-(n + _MARGIN) // 32) * 32 for n in shape)
    white = np.fft.rfft2(rng.standard_normal((rows, columns)))
    north = np.fft.fftfreq(rows, cell_deg)[:, None]
    east = np.fft.rfftfreq(columns, cell_deg)[None, :]
    amplitude = (np.square(north) + np.square(east) + longest_deg**-2) ** (-exponent / 2)
    amplitude[0, 0] = 0.0
    field = np.fft.irfft2(white * amplitude, s=(rows, columns))[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def smooth_step(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Rise from 0 at ``low`` to 1 at ``high`` without a kink."""
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def box_mean(values: NDArray, radius: int) -> NDArray[np.float32]:
    """Mean over squares of ``2 * radius + 1`` cells; beyond the edges the outermost cells are repeated.

    Parameters
    ----------
    values : ndarray of shape (H, W)
        Numbers or booleans.
    radius : int
        Cells to either side.
    """
    size = 2 * radius + 1
    rows, columns = values.shape
    padded = np.pad(values.astype(np.float32), radius, mode="edge")
    lines = padded[:rows].copy()
    for i in range(1, size):
        lines += padded[i : i + rows]
    total = lines[:, :columns].copy()
    for j in range(1, size):
        total += lines[:, j : j + columns]
    return total / np.float32(size * size)


def distance_km(target: NDArray[np.bool_], cell_deg: float, latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest target cell, centre to centre, on a plane that fits each row.

    Parameters
    ----------
    target : ndarray of shape (H, W)
        Cells at distance 0.
    cell_deg : float
        Cell size, degrees.
    latitudes : ndarray of shape (H,)
        Centres of rows, degrees.

    Returns
    -------
    ndarray of shape (H, W)
        Kilometres; infinite everywhere where there is no target.
    """
    rows, columns = target.shape
    height_km = np.deg2rad(cell_deg) * EARTH_RADIUS_KM
    width_km = height_km * np.cos(np.deg2rad(latitudes))[:, None]
    # First along columns, from the last target above and the next one below.
    index = np.arange(rows, dtype=np.float64)[:, None]
    above = np.maximum.accumulate(np.where(target, index, -np.inf), axis=0)
    below = np.minimum.accumulate(np.where(target, index, np.inf)[::-1], axis=0)[::-1]
    vertical = np.square(np.minimum(index - above, below - index) * height_km)
    # Then along rows, column by column further away until nothing that far can be nearer.
    best = vertical.copy()
    for step in range(1, columns):
        sideways = np.square(step * width_km)
        if not (sideways < best).any():
            break
        np.minimum(best[:, step:], vertical[:, :-step] + sideways, out=best[:, step:])
        np.minimum(best[:, :-step], vertical[:, step:] + sideways, out=best[:, :-step])
    return np.sqrt(best)

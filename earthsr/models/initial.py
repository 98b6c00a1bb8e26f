"""Initial weights from spec and seed, in NumPy, so that every backend starts from the same numbers."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from earthsr.models.spec import NetworkSpec

Weights = dict[str, NDArray[np.float32]]


def initial_weights(spec: NetworkSpec, seed: int, keep_zeros: bool = True) -> Weights:
    """Draw the initial weights.

    Uniform in ±1/sqrt(fan in), the bound of He et al. (2015) with a negative slope of sqrt(5), which is the default
    of convolutions in both frameworks. Each parameter has a generator of its own, keyed by seed and name, so that
    adding a layer changes no other layer's numbers.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    seed : int
        Any non-negative integer.
    keep_zeros : bool
        False draws the layers that start at zero or one too, so that every layer shows in the output.

    Returns
    -------
    dict of str to ndarray
        float32, under canonical names, in forward order.
    """
    weights: Weights = {}
    for parameter in spec.parameters:
        if parameter.initialiser == "zeros" and keep_zeros:
            weights[parameter.name] = np.zeros(parameter.shape, np.float32)
            continue
        one = parameter.initialiser == "ones"
        if not parameter.learns or (one and keep_zeros):
            weights[parameter.name] = np.full(parameter.shape, float(one), np.float32)
            continue
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(parameter.name.encode())]))
        bound = 1.0 / np.sqrt(parameter.fan_in)
        values = generator.random(parameter.shape, dtype=np.float64)
        drawn = (2 * values - 1) * (0.5 if one else bound)
        weights[parameter.name] = (drawn + one).astype(np.float32)
    return weights

"""Numbers under canonical names, as NumPy: initial weights, and the state of training that moves between backends."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import CheckpointError
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


@dataclass(frozen=True)
class State:
    """Everything that an engine holds and a run must not lose.

    ``weights`` are the float32 masters, whatever precision computes. ``first_moments`` and ``second_moments`` are
    Adam's, for the parameters that learn; both are empty where no step was taken.
    """

    weights: Weights
    first_moments: Weights = field(default_factory=dict)
    second_moments: Weights = field(default_factory=dict)
    step: int = 0
    """Updates that the optimiser has made; skipped steps do not count (bias correction needs it)."""
    loss_scale: float | None = None
    """Of float16 training; None where there is none."""
    loss_scale_good_steps: int = 0
    """Steps since the loss scale last changed."""
    skipped_steps: int = 0
    """Steps that overflowed and changed nothing."""

    def require(self, spec: NetworkSpec, source: str = "state") -> None:
        """Check names and shapes against ``spec``; messages name ``source``.

        Raises
        ------
        CheckpointError
            If a parameter is missing, left over, or of another shape; moments are checked where there are any.
        """
        expected = {parameter.name: parameter.shape for parameter in spec.parameters}
        check_names(self.weights, expected, source, complete=True)
        check_names(self.first_moments, expected, f"{source} (first moments)", complete=False)
        check_names(self.second_moments, expected, f"{source} (second moments)", complete=False)
        if set(self.first_moments) != set(self.second_moments):
            raise CheckpointError(f"{source}: first and second moments name different parameters")


def check_names(arrays: Weights, expected: dict[str, tuple[int, ...]], source: str, complete: bool) -> None:
    """Raise a :class:`CheckpointError` that names what is missing, left over or of the wrong shape."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    missing = [name for name in expected if name not in arrays] if complete else []
    extra = [name for name in arrays if name not in expected]
    if missing or extra:
        parts = [f"missing {some(missing)}"] * bool(missing) + [f"left over {some(extra)}"] * bool(extra)
        raise CheckpointError(f"{source}: not a state of this model: {'; '.join(parts)}")
    for name, array in arrays.items():
        if tuple(array.shape) != expected[name]:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(array.shape)}, this model expects {expected[name]}"
            )

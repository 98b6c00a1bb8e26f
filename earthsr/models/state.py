"""The state of training that moves between backends: canonical names, NumPy arrays, plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from earthsr.errors import CheckpointError
from earthsr.models.initial import Weights
from earthsr.models.spec import NetworkSpec


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

"""What a network spec is: ordered inputs, canonical parameters, cost and reach."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import CheckpointError, ConfigError

Initialiser = Literal["uniform_fan_in", "zeros", "ones"]


@dataclass(frozen=True)
class InputField:
    """One input of a network, in the order in which a compiled graph takes it.

    ``shape`` leaves out the batch axis; ``None`` stands for a free spatial extent.
    """

    name: str
    """Key in the dictionary of inputs."""
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    """NumPy's name of the type."""


@dataclass(frozen=True)
class Parameter:
    """A canonical parameter: its name in every checkpoint, its shape, its initial distribution, its layer group."""

    name: str
    shape: tuple[int, ...]
    initialiser: Initialiser
    """Distribution of its initial values."""
    group: str
    fan_in: int
    """Inputs that each output adds up; sets the width of the distribution."""
    learns: bool = True
    """False for running statistics, which the forward pass of training updates."""

    @property
    def size(self) -> int:
        """Number of values."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class NetworkSpec(ABC):
    """A network described once; frozen, comparable, and JSON-able through :meth:`to_dict`."""

    kind: ClassVar[str]
    workload: ClassVar[str] = ""
    """Whose ``model`` it may be, of a network that a package brings (entry points ``earthsr.networks``)."""
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """Least and most of fields that a file may ask for; what a network of them would take is seen before it is made."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[InputField, ...]:
        """Input fields in graph order."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """Canonical parameters in forward order."""

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Canonical names of the layers whose outputs can be watched, in forward order."""

    @property
    @abstractmethod
    def scale(self) -> int:
        """Output cells per input cell and axis."""

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Input cells to each side of an input cell that can influence the output cells inside it."""

    @property
    def softmax(self) -> bool:
        """Whether a prediction is probabilities: the softmax of the network's output over its channels."""
        return False

    @property
    def fed_back(self) -> str | None:
        """Input (N, H, W) of classes that the network's own classes of an earlier pass can stand in for, if any."""
        return None

    def require_shapes(self, inputs: Mapping[str, NDArray]) -> None:
        """Check what the fields' own shapes do not say, such as extents that have to agree between fields.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Arrays (N, …) by the names of the input fields.

        Raises
        ------
        BackendError
            If they do not.
        """
        return

    @abstractmethod
    def flops(self, height: int, width: int) -> int:
        """Floating-point operations (two per multiply-add) of one forward pass over ``height x width`` input cells."""

    def cells_of_width(self, channels: int, size: int) -> int:
        """Cells per side of the layers that have about so many ``channels``, of inputs of ``size`` cells per side."""
        return size

    def random_inputs(self, batch: int, rows: int, columns: int, seed: int = 0) -> dict[str, NDArray]:
        """Make normalised inputs (N, …) by the names of the fields, for comparing what computes the network.

        Parameters
        ----------
        batch, rows, columns : int
            Samples, and height and width in multiples of the smallest that the network takes, else of 4 cells.
        seed : int
            Of NumPy's generator.

        Returns
        -------
        dict of str to ndarray of shape (N, …)
            By the names of the input fields.
        """
        rng = np.random.default_rng(seed)
        return {field.name: self._random_field(rng, field, (batch, 4 * rows, 4 * columns)) for field in self.inputs}

    @staticmethod
    def _random_field(
        rng: np.random.Generator, field: InputField, extents: tuple[int, int, int], values: int = 2
    ) -> NDArray:
        """Make a field of samples, rows and columns ``extents``; codes are below ``values``, those of masks below 2."""
        free = iter(extents[1:])
        shape = (extents[0], *(next(free) if extent is None else extent for extent in field.shape))
        if field.dtype == "uint8":
            return rng.integers(0, 2 if field.name.endswith("mask") else values, shape).astype(np.uint8)
        return rng.normal(size=shape).astype(np.float32)

    def transpose_weights(self, weights: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Weights of the network that gives transposed outputs for transposed inputs; also takes its gradients back.

        Rows become columns: all kernels are transposed, and whatever else orders rows before columns. Applied twice it
        changes nothing. In exact arithmetic both networks compute the same; how much they differ is rounding.

        Parameters
        ----------
        weights : mapping of str to ndarray
            Under canonical names; kernels are (out, in, rows, columns).
        """
        return {name: value.swapaxes(-1, -2) if value.ndim == 4 else value for name, value in weights.items()}

    def transpose_inputs(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Inputs with rows for columns, as the network with transposed weights takes them; applied twice, the same.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Arrays (N, …, H, W) by the names of the input fields.
        """
        return {name: value.swapaxes(-1, -2) if value.ndim >= 3 else value for name, value in inputs.items()}

    def transpose_layer(self, name: str, output: NDArray) -> NDArray:
        """Output (N, C, H, W) of a layer as the network with transposed weights gives it, and back.

        Parameters
        ----------
        name : str
            Canonical name of the layer.
        output : ndarray of shape (N, C, H, W)
            What it gave.
        """
        return output.swapaxes(-1, -2)

    @property
    def parameter_count(self) -> int:
        """Number of values over all parameters that learn."""
        return sum(parameter.size for parameter in self.parameters if parameter.learns)

    @property
    def learning(self) -> tuple[str, ...]:
        """Names of the parameters that learn, in forward order."""
        return tuple(parameter.name for parameter in self.parameters if parameter.learns)

    @property
    def groups(self) -> tuple[str, ...]:
        """Layer groups in forward order."""
        return tuple(dict.fromkeys(parameter.group for parameter in self.parameters))

    def select(self, patterns: Iterable[str]) -> frozenset[str]:
        """Names of the parameters in the layer groups that ``patterns`` name.

        A pattern is a group (``head``, ``blocks.3``), the common part of several (``blocks``) or a shell pattern
        (``blocks.1?``).

        Raises
        ------
        ConfigError
            If a pattern matches no group; the message lists the groups.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            hits = {
                group for group in self.groups if group.split(".")[0] == pattern or fnmatch.fnmatchcase(group, pattern)
            }
            if not hits:
                short = dict.fromkeys(group.split(".")[0] for group in self.groups)
                raise ConfigError(
                    f"train.freeze names {pattern!r}, which is no layer group; groups: {', '.join(short)}"
                )
            chosen |= {parameter.name for parameter in self.parameters if parameter.group in hits}
        if len(chosen) == len(self.parameters):
            raise ConfigError("train.freeze names every layer group: nothing is left to learn; take some out")
        return frozenset(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description that :func:`spec_from_dict` reads."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Build from field values; missing ones take their defaults, unknown ones are an error.

        Raises
        ------
        CheckpointError
            If a field is unknown or has a value that it cannot have.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise CheckpointError(f"spec of kind {cls.kind!r} has unknown fields {', '.join(unknown)}")
        for name, (least, most) in cls.bounds.items():
            value = values.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                shown = repr(value)[:40]
                raise CheckpointError(
                    f"spec of kind {cls.kind!r}: {name} is {shown}, expected an integer from {least} to {most:,}; the "
                    "file is damaged: use another checkpoint"
                )
        return cls(**values)

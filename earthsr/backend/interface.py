"""What an engine is: a model in one framework. Arrays cross this line as NumPy, under canonical names.

An :class:`Engine` predicts, a :class:`TrainingEngine` learns as well, and a :class:`Meter` measures one that learns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, State
from earthsr.models.weights import Weights

T = TypeVar("T")

#: A framework-native loss, ``loss(prediction, target) -> scalar tensor``, accepted by the backend that it belongs to.
NativeLoss = Callable[[Any, Any], Any]


class Pending(Generic[T]):
    """A result that may still be computing; :meth:`result` waits for it, once.

    Parameters
    ----------
    read : callable
        Waits for the value and returns it; called once.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read: Callable[[], T] | None = read
        self._value: T | None = None

    def result(self) -> T:
        """Wait for the value and return it."""
        if self._read is not None:
            self._value = self._read()
            self._read = None
        return self._value  # type: ignore[return-value]


@dataclass(frozen=True)
class StepValues:
    """What n steps of training gave."""

    losses: NDArray[np.float64]
    """(n,) value of the objective over each global batch, in normalised units."""
    gradient_norms: NDArray[np.float64]
    """(n,) norm of the gradient before clipping."""


class Engine(ABC):
    """A model living in one framework on one device: what prediction needs."""

    spec: NetworkSpec
    device: str
    precision: str
    """What is computed in, in words, after fallbacks; recorded with the run."""

    @abstractmethod
    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Start a forward pass.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Float32 arrays (N, …) by the names of the spec's input fields, normalised.

        Returns
        -------
        Pending of ndarray of shape (N, C, H, W)
            Float32, normalised, or probabilities of classes.
        """

    def require_inputs(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Inputs in graph order, checked at the public door.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Arrays (N, …) by the names of the spec's input fields.

        Raises
        ------
        BackendError
            If a field is missing, left over or of the wrong shape.
        """
        names = [field.name for field in self.spec.inputs]
        if set(inputs) != set(names):
            raise BackendError(f"inputs are {', '.join(inputs) or 'none'}; this model takes {', '.join(names)}")
        for spec_field in self.spec.inputs:
            shape = inputs[spec_field.name].shape
            fits = len(shape) == len(spec_field.shape) + 1 and all(
                want is None or want == have for want, have in zip(spec_field.shape, shape[1:], strict=True)
            )
            if not fits:
                wanted = ", ".join(str(extent or "any") for extent in spec_field.shape)
                raise BackendError(f"input {spec_field.name} has shape {tuple(shape)}, expected (N, {wanted})")
        self.spec.require_shapes(inputs)
        return [inputs[name] for name in names]


class TrainingEngine(Engine):
    """An engine that holds weights: it learns, hands its state on, and lets its layers be looked at."""

    rank: int = 0
    world_size: int = 1
    steps_per_call: int = 1
    """Steps that :meth:`run` likes to be given at once; more than one where a device sinks them."""

    @abstractmethod
    def prepare_training(
        self,
        objective: Objective | NativeLoss,
        optimizer: OptimizerSpec,
        accumulate: int = 1,
        recompute: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        """Build or compile the training step.

        Parameters
        ----------
        objective : Objective or callable
            What is made small.
        optimizer : OptimizerSpec
            How.
        accumulate : int
            Batches whose gradients make one step.
        recompute : bool
            Keep what goes into a block, not what is computed inside, and compute that again for the gradient: a third
            more work for a fraction of the memory (Chen et al., 2016, arXiv 1604.06174).
        sync_batch_norm : bool
            Let batch norms take their statistics from the batches of all ranks, not of each alone.

        Raises
        ------
        BackendError
            If the backend does not implement the objective or optimiser, or cannot recompute this network.
        """

    @abstractmethod
    def run(self, batches: Sequence[Batch], learning_rates: Sequence[float]) -> Pending[StepValues]:
        """Make ``len(learning_rates)`` steps, each from ``accumulate`` consecutive batches.

        Raises
        ------
        BackendError
            If :meth:`prepare_training` was not called, or the numbers of batches and rates do not fit.
        """

    @abstractmethod
    def activations(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Outputs of all layers of the spec by their canonical names, float32; for looking inside, not for speed.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Float32 arrays (N, …) by the names of the spec's input fields, normalised.

        Returns
        -------
        dict of str to ndarray of shape (N, C, H, W)
            Outputs, each of its layer's own channels and extents.
        """

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of every rank, (world size, ...); all ranks call it together, and wait for each other."""
        return values[None]

    @abstractmethod
    def export_state(self) -> State:
        """Copy weights, moments and counters to NumPy."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over a state; strict.

        Raises
        ------
        CheckpointError
            If a name or shape does not belong to this model.
        """

    def load_weights(self, weights: Weights) -> None:
        """Take over weights and forget moments and counters."""
        self.load_state(State(weights))

    def require_objective(self, objective: Objective, accumulate: int) -> None:
        """Check that an objective suits the network's output and the way a step is made.

        Parameters
        ----------
        objective : Objective
            What is to be made small.
        accumulate : int
            Batches whose gradients make one step.

        Raises
        ------
        BackendError
            If it does not.
        """
        if objective.of_classes != self.spec.softmax:
            gives = "logits of classes" if self.spec.softmax else "values"
            raise BackendError(f"objective {objective.name} does not suit this model, whose output is {gives}")
        if objective.dice and accumulate > 1:
            raise BackendError(
                "the Dice loss is a function of a whole batch: set optimizer.accumulate to 1, or train.dice to 0"
            )
        weights = objective.class_weights
        if weights is None:
            return
        # A network of one's own may call its last layer what it likes: then there is nothing to compare.
        outputs = next((p.shape[0] for p in self.spec.parameters if p.name == "out.weight"), len(weights))
        if len(weights) != outputs:
            raise BackendError(f"the objective has {len(weights)} class weights, this model has {outputs} classes")

    def require_recomputable(self, recompute: bool) -> None:
        """Check that computing blocks twice changes nothing.

        Parameters
        ----------
        recompute : bool
            Whether blocks are to be computed twice.

        Raises
        ------
        BackendError
            If it does.
        """
        if recompute and len(self.spec.learning) < len(self.spec.parameters):
            raise BackendError(
                "train.recompute would count every batch twice in the running statistics of batch norm; set model.norm "
                "to group, or train.recompute to false"
            )

    def require_batches(self, batches: Sequence[Batch], learning_rates: Sequence[float], accumulate: int) -> None:
        """Check that the batches make up the steps.

        Parameters
        ----------
        batches : sequence of Batch
            What is there.
        learning_rates : sequence of float
            One for each step.
        accumulate : int
            Batches of a step.

        Raises
        ------
        BackendError
            If they do not.
        """
        if len(batches) != len(learning_rates) * accumulate:
            raise BackendError(
                f"{len(batches)} batches for {len(learning_rates)} learning rates at {accumulate} batches per step; "
                f"expected {len(learning_rates) * accumulate}"
            )


@dataclass(frozen=True)
class PhaseTimes:
    """Where the time of one training step goes, with waiting for the device between the phases."""

    transfer_s: float
    """Arrays of the batches to tensors on the device."""
    forward_s: float
    """Network and loss."""
    backward_s: float
    optimiser_s: float
    """Norm and clipping of the gradient, update of the weights."""
    how: str
    """How they were told apart, in words."""


@dataclass(frozen=True)
class Peaks:
    """What the device reaches on bare operators, in an engine's own precision and memory layout."""

    matmul_flop_per_s: float
    matmul: str
    """Its size, in words."""
    convolution_flop_per_s: float
    """Of a 3 x 3 convolution, forward and backward, which are three times the operations of the forward pass."""
    convolution: str


@dataclass(frozen=True)
class Resources:
    """What an engine computes with."""

    device: str
    """Model of the device, in words."""
    threads: int
    """Of the framework's operators on the host."""
    peak_device_memory_mib: float | None = None
    """Of tensors, since the process began; None where the device computes in the memory of the process."""


class Meter(ABC):
    """Measures an engine that trains: its steps, the device under it, and what it computes with.

    Steps have no clock in them, for nothing waits there; a meter takes the engine's own parts one by one.
    """

    @abstractmethod
    def time_phases(self, batches: Sequence[Batch], rates: Sequence[float]) -> PhaseTimes:
        """Make steps as the engine's ``run`` does, the first one uncounted, and tell their phases apart.

        The state is afterwards as it was before. Waiting between phases costs time that ``run`` does not take.

        Parameters
        ----------
        batches : sequence of Batch
            ``accumulate`` of them for each step.
        rates : sequence of float
            Learning rate of each step.

        Raises
        ------
        BackendError
            If the engine was not prepared for training, or fewer than two steps are given.
        """

    @abstractmethod
    def measure_peaks(self, samples: int, rows: int, columns: int, channels: int = 256) -> Peaks:
        """Measure a large matrix product, and a bare convolution of (samples, channels, rows, columns)."""

    @abstractmethod
    def use_plain_layout(self) -> str:
        """Lay weights and inputs out as the framework does by default, before training; say in words what that is."""

    @abstractmethod
    def resources(self) -> Resources:
        """Return what is computed with."""

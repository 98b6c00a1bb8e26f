"""The MindSpore engine: one compiled graph for a training step, one for the forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from earthsr.backend import Engine, Pending, StepValues
from earthsr.backend.interface import NativeLoss
from earthsr.data import Batch
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.initial import Weights
from earthsr_mindspore.networks import build
from earthsr_mindspore.objectives import point_loss, require
from earthsr_mindspore.optimizers import Adam
from earthsr_mindspore.precision import plan
from earthsr_mindspore.tensors import read, write


class _Forward(nn.Cell):
    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    @ms.jit
    def construct(self, elevation: Tensor) -> Tensor:
        return self.network(elevation)


class _Step(nn.Cell):
    """Loss, gradient, clipping and update in one graph."""

    def __init__(self, network: nn.Cell, objective: Objective, optimizer: Adam, clip_norm: float | None) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.one = Tensor(np.float32(1.0))

        def loss(elevation: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            total = ops.maximum(weight.sum(), self.one)
            return (point_loss(objective, network(elevation), target) * weight).sum() / total

        self.gradient = ms.value_and_grad(loss, None, optimizer.learning)

    @ms.jit
    def construct(
        self,
        elevation: Tensor,
        target: Tensor,
        weight: Tensor,
        rate: Tensor,
        power1: Tensor,
        power2: Tensor,
        eps: Tensor,
    ) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradient(elevation, target, weight)
        squares = [ops.square(gradient).sum() for gradient in gradients]
        norm = ops.sqrt(ops.addn(squares))
        if self.clip_norm is not None:
            # 1e-6 as in PyTorch's clip_grad_norm_, so that both backends scale by the same factor.
            factor = ops.minimum(self.clip_norm / (norm + 1e-6), self.one)
            gradients = tuple([gradient * factor for gradient in gradients])
        done = self.optimizer(gradients, rate, power1, power2, eps)
        return ops.depend(loss, done), norm


class MindSporeEngine(Engine):
    """See :class:`earthsr.backend.Engine`."""

    def __init__(self, spec: NetworkSpec, weights: Weights, precision: Precision) -> None:
        self.spec = spec
        self.device = "cpu"
        self.precision = plan(precision)
        self._network = build(spec)
        self._parameters = dict(self._network.parameters_and_names())
        self._forward = _Forward(self._network)
        self._step: _Step | None = None
        self._optimizer: Adam | None = None
        self._accumulate = 1
        self._skipped = 0
        self._pending_moments: State | None = None
        self.load_state(State(weights))

    # Training

    def prepare_training(
        self, objective: Objective | NativeLoss, optimizer: OptimizerSpec, accumulate: int = 1
    ) -> None:
        """Make the optimiser and the step's graph, which compiles on its first call; see the base class."""
        if not isinstance(objective, Objective):
            raise BackendError("backend mindspore takes an objective of earthsr (such as MSELoss()), not a callable")
        require(objective)
        self._accumulate = accumulate
        self._optimizer = Adam(optimizer, self._parameters)
        self._step = _Step(self._network, objective, self._optimizer, optimizer.clip_norm)
        if self._pending_moments is not None:
            self._load_moments(self._pending_moments)

    def run(self, batches: Sequence[Batch], learning_rates: Sequence[float]) -> Pending[StepValues]:
        """Make steps; see the base class."""
        if self._step is None or self._optimizer is None:
            raise BackendError("run was called before prepare_training")
        self.require_batches(batches, learning_rates, self._accumulate)
        self._network.set_train(True)
        results = []
        for i, rate in enumerate(learning_rates):
            group = batches[i * self._accumulate : (i + 1) * self._accumulate]
            results.append(self._step(*self._load(group), *self._optimizer.numbers(rate)))

        def values() -> StepValues:
            losses = np.array([float(loss.asnumpy()) for loss, _ in results])
            return StepValues(losses, np.array([float(norm.asnumpy()) for _, norm in results]))

        return Pending(values)

    # Prediction

    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Start a forward pass; see the base class."""
        ordered = [Tensor(np.ascontiguousarray(array)) for array in self.require_inputs(inputs)]
        self._network.set_train(False)
        output = self._forward(*ordered)
        return Pending(lambda: output.asnumpy())

    # State

    def export_state(self) -> State:
        """Copy the state to NumPy; see the base class."""
        first, second, steps = self._optimizer.export() if self._optimizer else ({}, {}, 0)
        return State(
            weights={name: read(parameter) for name, parameter in self._parameters.items()},
            first_moments=first,
            second_moments=second,
            step=steps,
            skipped_steps=self._skipped,
        )

    def load_state(self, state: State) -> None:
        """Take over a state; see the base class."""
        state.require(self.spec)
        for name, array in state.weights.items():
            write(self._parameters[name], array)
        self._skipped = state.skipped_steps
        if self._optimizer is None:
            self._pending_moments = state
        else:
            self._load_moments(state)

    def _load_moments(self, state: State) -> None:
        assert self._optimizer is not None
        self._optimizer.load(state.first_moments, state.second_moments, state.step)
        self._pending_moments = None

    # Tensors

    def _load(self, batches: Sequence[Batch]) -> list[Tensor]:
        names = [field.name for field in self.spec.inputs]
        for batch in batches:
            self.require_inputs(batch.inputs)
        inputs = [np.concatenate([batch.inputs[name] for batch in batches]) for name in names]
        target = np.concatenate([batch.target for batch in batches])
        weight = np.concatenate([batch.mask * batch.sample_weight[:, None, None, None] for batch in batches])
        weight = np.ascontiguousarray(np.broadcast_to(weight, target.shape), dtype=np.float32)
        return [Tensor(array) for array in (*inputs, target, weight)]

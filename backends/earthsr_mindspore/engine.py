"""The MindSpore engine: one compiled graph for a training step, one for the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from numpy.typing import NDArray

from earthsr.backend import Pending, StepValues, TrainingEngine
from earthsr.backend.interface import NativeLoss
from earthsr.data.batch import Batch, Earlier
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.weights import Weights
from earthsr.ranks import Rank
from earthsr_mindspore import device as process
from earthsr_mindspore.group import AddUp, MeanOfStatistics, SharedSum, gather
from earthsr_mindspore.networks import build, hold_norms, parameters, read, write
from earthsr_mindspore.networks import recompute as recompute_blocks
from earthsr_mindspore.objectives import dice_loss, divisor, point_loss, require, slope_loss, weigh
from earthsr_mindspore.optimizers import Adam
from earthsr_mindspore.precision import FIRST_SCALE, FIXED_SCALE, GROWTH, WINDOW, Plan, lower, plan, tensor

T = TypeVar("T")


def _input(name: str) -> Callable[[Any], NDArray]:
    """One input of a batch, or of its first pass."""
    return lambda batch: batch.inputs[name]


#: Steps whose batches go to an Ascend device in one transfer.
SUNK_STEPS = 8


class _Forward(nn.Cell):
    def __init__(self, network: nn.Cell, softmax: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.softmax = softmax

    def construct(self, *inputs: Tensor) -> Tensor:
        output = self.network(*inputs).astype(mstype.float32)
        return ops.softmax(output, 1) if self.softmax else output


class _FirstPass(nn.Cell):
    """The model's own classes of the step before, in the place of the prior of those samples that ask for it."""

    def __init__(self, network: nn.Cell, steps: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.steps = Tensor(np.arange(steps, dtype=np.int32).reshape(-1, 1, 1, 1))

    def construct(self, index: Tensor, own: Tensor, priors: Tensor, *fields: Tensor) -> Tensor:
        logits = self.network(*[ops.gather(field, index, 0) for field in fields])
        given = ops.gather(priors, index, 0)
        # Cells without a class stay so.
        taken = ops.logical_and(ops.reshape(ops.gather(own, index, 0), (-1, 1, 1)) > 0, given < logits.shape[1])
        fed = ops.select(taken, ops.argmax(logits, 1).astype(given.dtype), given)
        return ops.select(
            ops.broadcast_to(self.steps == index, priors.shape), ops.broadcast_to(fed, priors.shape), priors
        )


def _chosen(index: Tensor, field: Tensor) -> Tensor:
    return ops.gather(field, index, 0)


def _sum_of_squares(gradient: Tensor) -> Tensor:
    return ops.square(gradient).sum()


def _times(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor


class _Step(nn.Cell):
    """Loss, gradient, clipping and update in one graph, for one of several batches that lie on the device."""

    def __init__(self, network: nn.Cell, objective: Objective, optimizer: Adam, plan: Plan, ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.clip_norm = optimizer.spec.clip_norm
        self.one = Tensor(np.float32(1.0))
        self.scaled = plan.scaling != "none"
        self.dynamic = plan.scaling == "dynamic"
        self.scaler = (
            ms.amp.DynamicLossScaler(FIRST_SCALE, GROWTH, WINDOW)
            if self.dynamic
            else ms.amp.StaticLossScaler(FIXED_SCALE)  # not called where nothing is scaled
        )
        self.skipped = Parameter(Tensor(0, mstype.int32), name="skipped_steps", requires_grad=False)
        scaler, scaled = self.scaler, self.scaled
        self.shared_sum = SharedSum(ranks)
        self.add_up = AddUp(list(optimizer.learning), ranks)
        shared_sum = self.shared_sum

        def loss(target: Tensor, weight: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            weighed = weigh(objective, target, weight)
            total = divisor(ops.stop_gradient(shared_sum(weighed.sum())))
            prediction = network(*inputs).astype(mstype.float32)
            value = (point_loss(objective, prediction, target) * weighed).sum() / total
            if objective.slope:
                value = value + objective.slope * slope_loss(prediction, target, weighed) / total
            # What is told is this rank's share of the loss; the Dice loss is known to all of them.
            told = value
            if objective.dice:
                dice = objective.dice * dice_loss(prediction, target, weight, shared_sum)
                value, told = value + dice, value + dice / ranks
            return (scaler.scale(value) if scaled else value), told

        self.loss = loss
        self.each = ops.HyperMap()
        self.gradient = ms.value_and_grad(loss, None, optimizer.learning, has_aux=True)

    def construct(
        self, index: Tensor, rates: Tensor, targets: Tensor, weights: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        chosen = self.each(ops.partial(_chosen, index), (targets, weights, *inputs))
        (_, loss), gradients = self.gradient(*chosen)
        gradients = self.add_up(gradients)
        loss = self.shared_sum(ops.depend(loss, gradients[0]))
        keep = None
        if self.scaled:
            gradients = self.scaler.unscale(gradients)
            keep = ms.amp.all_finite(gradients)
            if self.dynamic:
                loss = ops.depend(loss, self.scaler.adjust(keep))
            missed = ops.assign_add(self.skipped, ops.logical_not(keep).astype(mstype.int32))
            loss = ops.depend(loss, missed)
        norm = ops.sqrt(ops.addn(self.each(_sum_of_squares, gradients)))
        if self.clip_norm is not None:
            # 1e-6 as in PyTorch's clip_grad_norm_, so that both backends scale by the same factor.
            factor = ops.minimum(self.clip_norm / (norm + 1e-6), self.one)
            gradients = self.each(ops.partial(_times, factor), gradients)
        done = self.optimizer(gradients, ops.gather(rates, index, 0), keep)
        return ops.depend(loss, done), norm


@dataclass(frozen=True, eq=False)
class Cells:
    """What an engine computes with: graphs that compile on their first call, and hold nothing but parameters."""

    network: nn.Cell
    parameters: dict[str, Parameter]
    """By the spec's names, in its order."""
    forward: _Forward
    first: _FirstPass


def make_cells(spec: NetworkSpec, plan: Plan, steps: int) -> Cells:
    """Build a network in the precision of a plan, and the passes of so many steps at once."""
    network = build(spec)
    lower(network, plan)
    return Cells(network, parameters(network, spec), _Forward(network, spec.softmax), _FirstPass(network, steps))


def make_step(
    spec: NetworkSpec, cells: Cells, objective: Objective, optimizer: OptimizerSpec, plan: Plan, ranks: int
) -> _Step:
    """Build a training step of a network, with an optimiser at rest."""
    adam = Adam(optimizer, {name: cells.parameters[name] for name in spec.learning})
    return _Step(cells.network, objective, adam, plan, ranks)


class MindSporeEngine(TrainingEngine):
    """See :class:`earthsr.backend.TrainingEngine`."""

    def __init__(
        self,
        spec: NetworkSpec,
        weights: Weights,
        device: str,
        precision: Precision,
        graph: bool = True,
        rank: Rank | None = None,
    ) -> None:
        self.spec = spec
        self.rank, self.world_size = (rank or Rank()).number, (rank or Rank()).of
        self.device = device
        self._plan = plan(precision, device)
        self.precision = self._plan.words
        self._graph = graph
        self.steps_per_call = SUNK_STEPS if device == "ascend" else 1
        if device == "ascend":
            process.forbid_hf32()
        if precision.strict:
            process.set_deterministic()
        self._cells = make_cells(spec, self._plan, self.steps_per_call)
        self._network, self._parameters = self._cells.network, self._cells.parameters
        self._step: _Step | None = None
        self._frozen: frozenset[str] = frozenset()
        self._mean: MeanOfStatistics | None = None
        self._accumulate = 1
        self._state = State(weights)
        self.load_state(self._state)

    # Training

    def prepare_training(
        self,
        objective: Objective | NativeLoss,
        optimizer: OptimizerSpec,
        accumulate: int = 1,
        recompute: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        """Make the optimiser and the step's graph, which compiles on its first call; see the base class."""
        if not isinstance(objective, Objective):
            raise BackendError("backend mindspore takes an objective of earthsr (such as MSELoss()), not a callable")
        require(objective)
        self.require_objective(objective, accumulate)
        self.require_recomputable(recompute)
        if recompute:
            recompute_blocks(self._network)
        if sync_batch_norm and self.world_size > 1:
            raise BackendError(
                "backend mindspore has no batch norm over all ranks: set model.norm to group, or train.sync_batch_norm "
                "to false"
            )
        self._accumulate, self._frozen = accumulate, optimizer.frozen
        self._step = make_step(self.spec, self._cells, objective, optimizer, self._plan, self.world_size)
        statistics = [self._parameters[p.name] for p in self.spec.parameters if p.name not in self.spec.learning]
        self._mean = MeanOfStatistics(statistics, self.world_size) if statistics and self.world_size > 1 else None
        self._take_over()

    def run(self, batches: Sequence[Batch], learning_rates: Sequence[float]) -> Pending[StepValues]:
        """Make steps; see the base class."""
        if self._step is None:
            raise BackendError("run was called before prepare_training")
        self.require_batches(batches, learning_rates, self._accumulate)
        results = []
        size = self.steps_per_call
        with process.mode(self._graph):
            for start in range(0, len(learning_rates), size):
                rates = learning_rates[start : start + size]
                chunk = batches[start * self._accumulate : (start + size) * self._accumulate]
                sunk = self._load(chunk, rates)
                for i in range(len(rates)):
                    index = Tensor(i, mstype.int32)
                    if any(batch.earlier is not None for batch in chunk):
                        self._feed_back(index, sunk, chunk)
                    self._network.set_train(True)
                    hold_norms(self._network, self._frozen)
                    results.append(self._step(index, *sunk))
                    if self._mean is not None:
                        self._mean()

        def values() -> StepValues:
            losses = np.array([float(loss.asnumpy()) for loss, _ in results])
            return StepValues(losses, np.array([float(norm.asnumpy()) for _, norm in results]))

        return Pending(values)

    # Prediction

    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Start a forward pass; see the base class."""
        ordered = [tensor(array) for array in self.require_inputs(inputs)]
        self._network.set_train(False)
        with process.mode(self._graph):
            output = self._cells.forward(*ordered)
        return Pending(lambda: output.astype(mstype.float32).asnumpy())

    def activations(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Outputs of all layers, in PyNative mode, whose cells can be watched; see the base class."""
        ordered = [tensor(array) for array in self.require_inputs(inputs)]
        self._network.set_train(False)
        seen: dict[str, NDArray[np.float32]] = {}

        def watch(name: str, cell: nn.Cell) -> Any:
            def keep(_: nn.Cell, __: object, output: Tensor) -> None:
                seen[name] = output.astype(mstype.float32).asnumpy().copy()

            return cell.register_forward_hook(keep)

        cells = dict(self._network.cells_and_names())
        handles = [watch(name, cells[name]) for name in self.spec.layers]
        try:
            with process.mode(graph=False):
                self._network(*ordered)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of every rank; see the base class."""
        with process.mode(self._graph):
            return gather(values, self.world_size)

    # State

    def export_state(self) -> State:
        """Copy the state to NumPy; see the base class."""
        weights = {name: read(parameter) for name, parameter in self._parameters.items()}
        if self._step is None:
            return replace(self._state, weights=weights)
        first, second, steps = self._step.optimizer.export()
        # A device without a dynamic scale hands on the one that it was given: the run may go back to where it is used.
        scale, good = self._state.loss_scale, self._state.loss_scale_good_steps
        if self._step.dynamic:
            scale, good = float(self._step.scaler.scale_value.asnumpy()), int(self._step.scaler.counter.asnumpy())
        return State(
            weights=weights,
            first_moments=first,
            second_moments=second,
            step=steps,
            loss_scale=scale,
            loss_scale_good_steps=good,
            skipped_steps=int(self._step.skipped.asnumpy()),
        )

    def load_state(self, state: State) -> None:
        """Take over a state; see the base class."""
        state.require(self.spec)
        for name, array in state.weights.items():
            write(self._parameters[name], array)
        self._state = state
        self._take_over()

    def _take_over(self) -> None:
        """Hand the state that was loaded to the optimiser, once there is one, and hold only what it has no use for."""
        if self._step is None:
            return
        state = self._state
        self._step.optimizer.load(state.first_moments, state.second_moments, state.step)
        write(self._step.skipped, state.skipped_steps)
        if self._step.dynamic and state.loss_scale is not None:
            write(self._step.scaler.scale_value, state.loss_scale)
            write(self._step.scaler.counter, state.loss_scale_good_steps)
        self._state = replace(state, weights={}, first_moments={}, second_moments={}, step=0)

    # Tensors

    def _load(self, batches: Sequence[Batch], rates: Sequence[float]) -> list[Tensor]:
        """Rates, targets, weights and inputs of several steps, stacked along a new axis, in one transfer.

        Shorter calls are filled up with the last batch, which no step reads: one shape serves a whole run. MindSpore's
        own queue (``data_sink``) wants to own the order of samples, which a run could then not resume in the middle of.
        """
        for batch in batches:
            self.require_inputs(batch.inputs)
        return [
            Tensor(np.array([*rates, *[0.0] * (self.steps_per_call - len(rates))], np.float32)),
            self._stacked(batches, lambda batch: batch.target),
            self._stacked(batches, lambda batch: batch.weight),
            *(self._stacked(batches, _input(name)) for name in self._fields),
        ]

    @property
    def _fields(self) -> list[str]:
        return [field.name for field in self.spec.inputs]

    def _stacked(self, batches: Sequence[T], field: Callable[[T], NDArray]) -> Tensor:
        filled = [*batches, *[batches[-1]] * (self.steps_per_call * self._accumulate - len(batches))]
        samples = np.concatenate([field(batch) for batch in filled])
        return tensor(samples.reshape(self.steps_per_call, -1, *samples.shape[1:]))

    def _feed_back(self, index: Tensor, sunk: list[Tensor], batches: Sequence[Batch]) -> None:
        """Run the first pass of a step and put its classes into the stacked priors."""
        # A batch none of whose samples asks for it goes through the pass as it is, and takes nothing of it.
        earlier = [batch.earlier or Earlier(batch.inputs, np.zeros_like(batch.sample_weight)) for batch in batches]
        fields = list(sunk[3:])
        for place, name in enumerate(self._fields):
            if any(batch.earlier is not None and name in batch.earlier.inputs for batch in batches):
                fields[place] = self._stacked(earlier, _input(name))
        own = self._stacked(earlier, lambda before: before.own)
        place = 3 + self._fields.index(str(self.spec.fed_back))
        self._network.set_train(False)
        sunk[place] = self._cells.first(index, own, sunk[place], *fields)

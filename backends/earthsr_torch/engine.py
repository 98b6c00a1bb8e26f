"""The PyTorch engine: eager steps, channels-last, no host synchronisation inside the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthsr.backend import Pending, StepValues, TrainingEngine
from earthsr.backend.interface import NativeLoss
from earthsr.data.batch import Batch, Earlier
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State
from earthsr.models.weights import Weights
from earthsr.ranks import Rank
from earthsr_torch.device import layout, numerics
from earthsr_torch.group import Group, share_statistics, watched
from earthsr_torch.networks import build, hold_norms, parameters, read, write
from earthsr_torch.networks import recompute as recompute_blocks
from earthsr_torch.objectives import dice_loss, divisor, point_loss, require, slope_loss, weigh
from earthsr_torch.optimizers import Adam
from earthsr_torch.precision import plan, store


def _native_loss(
    native: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor, weight: Tensor, classes: bool
) -> Tensor:
    """Sum over valid values of a loss that gives a mean over what it sees; all shapes (N, C, H, W)."""
    valid = weight > 0
    if classes:
        # Class indices (N, H, W), invalid ones marked as PyTorch's losses leave them out; all of them marked would give
        # a mean over nothing.
        unseen = torch.where(valid.any(), -100, 0)
        return native(prediction, torch.where(valid, target.long(), unseen)[:, 0]) * weight.sum()
    # Invalid values are set equal, so that they add nothing; the mean counts them all the same.
    mean = native(torch.where(valid, prediction, target), target)
    return mean * (valid.numel() / valid.sum().clamp(min=1)) * weight.sum()


class TorchEngine(TrainingEngine):
    """See :class:`earthsr.backend.TrainingEngine`."""

    def __init__(
        self,
        spec: NetworkSpec,
        weights: Weights,
        device: torch.device,
        precision: Precision,
        group: Group | None = None,
    ) -> None:
        self.spec = spec
        self._group = group or Group(Rank(), device)
        self.rank, self.world_size = self._group.rank.number, self._group.rank.of
        self.device = device.type
        self._device = device
        self._plan = plan(precision, device)
        self._strict = precision.strict
        self.precision = self._plan.words
        network: Any = build(spec)
        network = network.to(device, memory_format=layout(device))
        self._network: Any = store(network, self._plan.storage)
        own = parameters(self._network, spec)
        # Masters are the parameters themselves, unless these are stored in a low precision; running statistics are not.
        self._separate = self._plan.storage != torch.float32
        self._masters: dict[str, Tensor] = {
            name: parameter.detach().float().clone() if self._separate and name in spec.learning else parameter
            for name, parameter in own.items()
        }
        self._parameters: dict[str, Tensor] = own
        self._statistics = [own[parameter.name] for parameter in spec.parameters if parameter.name not in spec.learning]
        self._replica: Any = self._network
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._plan.scaled)
        self._objective: Objective | Callable[..., Any] | None = None
        self._class_weights: Tensor | None = None
        self._optimizer: Adam | None = None
        self._optimizer_spec = OptimizerSpec()
        self._accumulate = 1
        self._skipped = self._tried = self._updates = 0
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
        """Make the optimiser; see the base class. Moments of a state that was loaded before are taken over."""
        if isinstance(objective, Objective):
            require(objective)
            self.require_objective(objective, accumulate)
        self.require_recomputable(recompute)
        if recompute:
            recompute_blocks(self._network)
        if sync_batch_norm and not self._group.alone:
            share_statistics(self._network)
        self._skipped = self._count_skipped()
        self._objective = objective
        # Sent to the device once, and not with every batch.
        table = objective.class_weights if isinstance(objective, Objective) else None
        self._class_weights = None if table is None else torch.tensor(table, device=self._device)
        self._optimizer_spec = optimizer
        self._accumulate = accumulate
        learning = {name: self._masters[name] for name in self.spec.learning}
        for name in learning:
            self._parameters[name].requires_grad_(name not in optimizer.frozen)
        self._optimizer = Adam(optimizer, learning, fused=not self._strict and self._device.type != "npu")
        with watched(self._group):
            self._replica = self._group.replicate(self._network, accumulate)
        self._take_over()

    def run(self, batches: Sequence[Batch], learning_rates: Sequence[float]) -> Pending[StepValues]:
        """Make steps; see the base class."""
        if self._optimizer is None:
            raise BackendError("run was called before prepare_training")
        self.require_batches(batches, learning_rates, self._accumulate)
        self._wake()
        losses, norms = [], []
        with watched(self._group):
            for i, rate in enumerate(learning_rates):
                loss, norm = self._step(batches[i * self._accumulate : (i + 1) * self._accumulate], rate)
                losses.append(loss)
                norms.append(norm)
        loss_tensor, norm_tensor = torch.stack(losses).double(), torch.stack(norms)

        def values() -> StepValues:
            with watched(self._group):
                return StepValues(self._group.sum(loss_tensor).cpu().numpy(), norm_tensor.double().cpu().numpy())

        return Pending(values)

    def _wake(self) -> None:
        """Train mode, but for norms that are frozen."""
        self._network.train()
        hold_norms(self._network, self._optimizer_spec.frozen)

    def _step(self, batches: Sequence[Batch], rate: float) -> tuple[Tensor, Tensor]:
        with self._numerics():
            return self._compute_step(batches, rate)

    def _compute_step(self, batches: Sequence[Batch], rate: float) -> tuple[Tensor, Tensor]:
        assert self._optimizer is not None
        loaded = [self._load(batch) for batch in batches]
        # The divisor is the valid weight of the whole step, so that accumulating equals one large batch.
        waiting = self._group.start_sum(torch.stack([weight.sum() for _, _, weight in loaded]).sum())
        total: Tensor | None = None
        loss = torch.zeros((), device=self._device)
        for number, (inputs, target, weight) in enumerate(loaded, start=1):
            # Gradients of several batches go to the other ranks once.
            waits = number < len(loaded) and not self._group.alone
            with self._replica.no_sync() if waits else contextlib.nullcontext():
                with self._autocast():
                    prediction = self._replica(*inputs)
                prediction = prediction.float()
                total = divisor(waiting()) if total is None else total
                part = self._weighted(prediction, target, weight) / total
                loss = loss + part.detach()
                # Gradients become means over ranks, and this rank's loss is a share of a sum.
                part = part * self.world_size
                if isinstance(self._objective, Objective) and self._objective.dice:
                    # The one batch of the step: validity without class weights, which the divisor has.
                    valid = self._validity(batches[0])
                    dice = self._objective.dice * dice_loss(prediction, target, valid, self._group.shared_sum)
                    # Every rank has the whole of it, with the gradient of its share.
                    loss, part = loss + dice.detach() / self.world_size, part + dice * self.world_size
                self._scaler.scale(part).backward()
        norm = self._update(rate)
        with torch.no_grad():
            self._group.mean_of(self._statistics)
        return loss, norm

    def _weighted(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self._objective, Objective):
            value = (point_loss(self._objective, prediction, target) * weight).sum()
            if self._objective.slope:
                value = value + self._objective.slope * slope_loss(prediction, target, weight)
            return value
        assert self._objective is not None
        return _native_loss(self._objective, prediction, target, weight, self.spec.softmax)

    def _update(self, rate: float) -> Tensor:
        assert self._optimizer is not None
        spec = self._optimizer_spec
        for name in self._optimizer.names if self._separate else ():
            gradient = self._parameters[name].grad
            self._masters[name].grad = None if gradient is None else gradient.float()
        parameters = self._optimizer.parameters
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer.inner)
        norm = self._clip(parameters, spec.clip_norm)
        self._optimizer.set_rate(rate)
        self._tried += 1
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer.inner)
            self._scaler.update()
        else:
            self._optimizer.step()
        for name in self._optimizer.names:
            self._masters[name].grad = None
            if self._separate:
                with torch.no_grad():
                    self._parameters[name].copy_(self._masters[name])
                self._parameters[name].grad = None
        return norm

    def _clip(self, parameters: Sequence[Tensor], bound: float | None) -> Tensor:
        """Norm of the whole gradient; where that is above the bound, the gradient is made so much smaller.

        Where it is not, nothing is multiplied by 1: on the host that is asked for, and a fused step on a GPU, which
        nothing waits for, divides while it reads the gradient anyway.
        """
        assert self._optimizer is not None
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if bound is None:
            return norm
        # 1e-6 as in clip_grad_norm_.
        excess = (norm + 1e-6) / bound
        if self._device.type == "cpu":
            if not bool(excess <= 1):
                torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm, foreach=True)
        elif self._scaler.is_enabled() or not self._optimizer.fused:
            torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm, foreach=True)
        else:
            self._optimizer.divide_by(excess.clamp(min=1.0))
        return norm

    # Prediction

    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Start a forward pass; see the base class."""
        ordered = [self._tensor(array) for array in self.require_inputs(inputs)]
        self._network.eval()
        with torch.inference_mode(), self._numerics(), self._autocast():
            output = self._network(*ordered).float()
            if self.spec.softmax:
                output = output.softmax(1)
        return Pending(lambda: output.cpu().contiguous().numpy())

    def activations(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Outputs of all layers; see the base class."""
        ordered = [self._tensor(array) for array in self.require_inputs(inputs)]
        self._network.eval()
        seen: dict[str, NDArray[np.float32]] = {}

        def watch(name: str, module: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
            def keep(_: torch.nn.Module, __: object, output: Tensor) -> None:
                seen[name] = read(output)

            return module.register_forward_hook(keep)

        handles = [watch(name, self._network.get_submodule(name)) for name in self.spec.layers]
        try:
            with torch.inference_mode(), self._numerics(), self._autocast():
                self._network(*ordered)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of every rank; see the base class."""
        with watched(self._group):
            return self._group.gather(values)

    # State

    def export_state(self) -> State:
        """Copy the state to NumPy; see the base class."""
        weights = {name: read(master) for name, master in self._masters.items()}
        if self._optimizer is None:
            return replace(self._state, weights=weights)
        first, second, steps = self._optimizer.export()
        # A device without a scaler hands on the scale that it was given: the run may go back to where it is used.
        scale, good = self._state.loss_scale, self._state.loss_scale_good_steps
        if self._scaler.is_enabled():
            scale, good = self._scaler.get_scale(), int(self._scaler.state_dict()["_growth_tracker"])
        return State(
            weights=weights,
            first_moments=first,
            second_moments=second,
            step=steps,
            loss_scale=scale,
            loss_scale_good_steps=good,
            skipped_steps=self._count_skipped(),
        )

    def load_state(self, state: State) -> None:
        """Take over a state; see the base class."""
        state.require(self.spec)
        for name, array in state.weights.items():
            write(self._masters[name], array)
            if self._separate:
                write(self._parameters[name], array)
        self._state = state
        self._skipped = state.skipped_steps
        if self._scaler.is_enabled() and state.loss_scale is not None:
            self._scaler.load_state_dict(
                {
                    **self._scaler.state_dict(),
                    "scale": state.loss_scale,
                    "_growth_tracker": state.loss_scale_good_steps,
                }
            )
        self._take_over()

    def _count_skipped(self) -> int:
        """Steps that overflowed: those that were tried and that the optimiser did not count, asked for when needed."""
        if self._optimizer is None or not self._scaler.is_enabled():
            return self._skipped
        return self._skipped + self._tried - (self._optimizer.updates() - self._updates)

    def _take_over(self) -> None:
        """Hand the state that was loaded to the optimiser, once there is one, and hold only what it has no use for."""
        if self._optimizer is not None:
            self._optimizer.load(self._state.first_moments, self._state.second_moments, self._state.step)
            self._tried, self._updates = 0, self._optimizer.updates()
            self._state = replace(self._state, weights={}, first_moments={}, second_moments={}, step=0)

    # Tensors

    def _numerics(self) -> contextlib.AbstractContextManager[Any]:
        low = self._plan.autocast is not None or self._separate
        return numerics(self._device, tf32=low, strict=self._strict)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._plan.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._plan.autocast)

    def _tensor(self, array: NDArray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type != "cpu":
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.contiguous(memory_format=layout(self._device)) if tensor.ndim == 4 else tensor

    def _validity(self, batch: Batch) -> Tensor:
        # The mask goes over as bytes and becomes float32 on the device: a quarter of the transfer.
        return self._tensor(batch.mask).float() * self._tensor(batch.sample_weight)[:, None, None, None]

    def _load(self, batch: Batch) -> tuple[list[Tensor], Tensor, Tensor]:
        inputs = [self._tensor(array) for array in self.require_inputs(batch.inputs)]
        if batch.earlier is not None:
            self._feed_back(inputs, batch, batch.earlier)
        target, weight = self._tensor(batch.target), self._validity(batch)
        if isinstance(self._objective, Objective):
            return inputs, target, weigh(self._objective, target, weight, self._class_weights)
        return inputs, target, weight.expand_as(target)

    def _feed_back(self, inputs: list[Tensor], batch: Batch, earlier: Earlier) -> None:
        """Put the classes of a first pass, without gradient, in the place of the prior of samples that ask for it."""
        self.require_inputs({**batch.inputs, **earlier.inputs})
        names = [field.name for field in self.spec.inputs]
        before = [
            self._tensor(earlier.inputs[name]) if name in earlier.inputs else tensor
            for name, tensor in zip(names, inputs, strict=True)
        ]
        self._network.eval()
        with torch.no_grad(), self._autocast():
            logits = self._network(*before)
        self._wake()
        place = names.index(str(self.spec.fed_back))
        given = inputs[place]
        # Cells without a class stay so.
        taken = (self._tensor(earlier.own)[:, None, None] > 0) & (given < logits.shape[1])
        inputs[place] = torch.where(taken, logits.argmax(1).to(given.dtype), given)

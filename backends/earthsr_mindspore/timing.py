"""Phases of a training step and the speed of bare operators, in MindSpore.

A step is one compiled graph, with no place for a clock in it. Its phases are differences between three graphs: the
loss, the loss with its gradient, and the whole step.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from earthsr.backend import Meter
from earthsr.backend.interface import Peaks, PhaseTimes, Resources
from earthsr.data.batch import Batch
from earthsr.errors import BackendError
from earthsr_mindspore import device as process
from earthsr_mindspore.engine import MindSporeEngine
from earthsr_mindspore.networks import hold_norms

#: A measurement of a bare operator goes on for so long, and for so many repetitions at least.
SECONDS, REPETITIONS = 1.0, 3
#: Rows and columns of the matrix product: on an accelerator a small one does not fill the device.
MATRIX = {"cpu": 2048, "ascend": 8192}


class _Loss(nn.Cell):
    """The forward pass of a step and its loss."""

    def __init__(self, step: Any) -> None:
        super().__init__(auto_prefix=False)
        self.network = step.network
        self.loss = step.loss

    def construct(self, index: Tensor, targets: Tensor, weights: Tensor, *inputs: Tensor) -> Tensor:
        chosen = [ops.gather(field, index, 0) for field in inputs]
        return self.loss(ops.gather(targets, index, 0), ops.gather(weights, index, 0), *chosen)[1]


class _Gradient(nn.Cell):
    """The forward and the backward pass of a step."""

    def __init__(self, step: Any) -> None:
        super().__init__(auto_prefix=False)
        self.network = step.network
        self.gradient = step.gradient

    def construct(
        self, index: Tensor, targets: Tensor, weights: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        chosen = [ops.gather(field, index, 0) for field in inputs]
        (_, loss), gradients = self.gradient(ops.gather(targets, index, 0), ops.gather(weights, index, 0), *chosen)
        # Given back, so that no gradient is left out of the graph as unused.
        return loss, gradients


class _Product(nn.Cell):
    def construct(self, left: Tensor, right: Tensor) -> Tensor:
        return ops.matmul(left, right)


class _Convolution(nn.Cell):
    """A bare convolution, forward and backward."""

    def __init__(self, channels: int, dtype: ms.Type) -> None:
        super().__init__(auto_prefix=False)
        weight = np.random.default_rng(0).normal(0, 0.02, (channels, channels, 3, 3)).astype(np.float32)
        self.weight = Parameter(Tensor(weight, dtype), name="timed_weight")
        seen = self.weight

        def convolve(field: Tensor) -> Tensor:
            return ops.conv2d(field, seen, pad_mode="pad", padding=1)

        self.derivative = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)(convolve, [seen])

    def construct(self, field: Tensor, gradient: Tensor) -> tuple:
        return self.derivative(field, gradient)


class MindSporeMeter(Meter):
    """See :class:`earthsr.backend.Meter`."""

    def __init__(self, engine: MindSporeEngine) -> None:
        self.engine: Any = engine

    def time_phases(self, batches: Sequence[Batch], rates: Sequence[float]) -> PhaseTimes:
        """Time the phases of an engine's steps; see the base class."""
        if self.engine._step is None:
            raise BackendError("time_phases was called before prepare_training")
        if len(rates) < 2:
            raise BackendError(
                f"time_phases was given {len(rates)} step(s), expected 2 or more: the first is not counted"
            )
        self.engine.require_batches(batches, rates, self.engine._accumulate)
        state = self.engine.export_state()
        per_step = len(batches) // len(rates)
        rows = []
        try:
            with process.mode(self.engine._graph):
                loss, gradient = _Loss(self.engine._step), _Gradient(self.engine._step)
                for step, rate in enumerate(rates):
                    rows.append(self._one(batches[step * per_step : (step + 1) * per_step], rate, loss, gradient))
        finally:
            self.engine.load_state(state)
        transfer, first, forward, both, whole = (statistics.median(column) for column in zip(*rows[1:], strict=True))
        return PhaseTimes(
            transfer_s=transfer,
            forward_s=first + forward,
            # Noise may make a graph faster than the smaller one inside it.
            backward_s=max(both - forward, 0.0),
            optimiser_s=max(whole - both, 0.0),
            how="from differences of three graphs",
        )

    def measure_peaks(self, samples: int, rows: int, columns: int, channels: int = 256) -> Peaks:
        """Measure bare operators; see the base class."""
        dtype = self.engine._plan.dtype or mstype.float32
        rng = np.random.default_rng(0)

        def some(*shape: int) -> Tensor:
            return Tensor(rng.normal(0, 1, shape).astype(np.float32), dtype)

        size = MATRIX[self.engine.device]
        with process.mode(self.engine._graph):
            left, right, multiply = some(size, size), some(size, size), _Product()
            product = self._rate(lambda: multiply(left, right), 2.0 * size**3)
            convolution = _Convolution(channels, dtype)
            field, gradient = (some(samples, channels, rows, columns) for _ in range(2))
            flops = 3.0 * 2 * 9 * channels**2 * samples * rows * columns
            bare = self._rate(lambda: convolution(field, gradient), flops)
        return Peaks(
            product,
            f"{size} x {size} x {size}",
            bare,
            f"{samples} x {channels} x {rows} x {columns}, 3 x 3, forward and backward",
        )

    def use_plain_layout(self) -> str:
        """Change nothing, for the layout is MindSpore's own; see the base class."""
        return "layout as it is"

    def resources(self) -> Resources:
        """Return what an engine computes with; see the base class."""
        threads = int(ms.get_context("runtime_num_threads"))
        if self.engine.device == "cpu":
            return Resources(platform.machine(), threads)
        return Resources("Ascend", threads, ms.runtime.max_memory_allocated() / 2**20)

    def _one(self, batches: Sequence[Batch], rate: float, loss: nn.Cell, gradient: nn.Cell) -> tuple[float, ...]:
        """Seconds of transfer, first pass, loss, loss and gradient, and the whole of one step."""
        transfer, sunk = self._seconds(lambda: self.engine._load(batches, [rate]))
        index = Tensor(0, mstype.int32)
        first = 0.0
        if any(batch.earlier is not None for batch in batches):
            # The first pass of scheduled sampling is a forward pass.
            first, _ = self._seconds(lambda: self.engine._feed_back(index, sunk, batches))
        self.engine._network.set_train(True)
        hold_norms(self.engine._network, self.engine._frozen)
        forward, _ = self._seconds(lambda: loss(index, *sunk[1:]))
        both, _ = self._seconds(lambda: gradient(index, *sunk[1:]))
        whole, _ = self._seconds(lambda: self.engine._step(index, *sunk))
        # A device that sinks steps is given those of several at once.
        return transfer / self.engine.steps_per_call, first, forward, both, whole

    def _rate(self, work: Callable[[], Any], flops: float) -> float:
        """FLOP/s of some work: the median of its repetitions, after one that is not counted."""
        self._seconds(work)
        seconds: list[float] = []
        begun = time.perf_counter()
        while len(seconds) < REPETITIONS or time.perf_counter() - begun < SECONDS:
            seconds.append(self._seconds(work)[0])
        return flops / statistics.median(seconds)

    def _seconds(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Run something to its end on the device."""
        before = time.perf_counter()
        result = work()
        # On the host a graph has run when its call returns; there MindSpore reports this as an error.
        if self.engine.device != "cpu":
            ms.runtime.synchronize()
        return time.perf_counter() - before, result

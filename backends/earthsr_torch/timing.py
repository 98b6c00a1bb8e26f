"""Phases of a training step and the speed of bare operators, in PyTorch. What is measured is the engine's own step.

The step waits for nobody and so has no clock in it; while phases are timed, an engine's parts are wrapped from here.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earthsr.backend import Meter
from earthsr.backend.interface import Peaks, PhaseTimes, Resources
from earthsr.data.batch import Batch
from earthsr.errors import BackendError
from earthsr_torch.device import module_of
from earthsr_torch.engine import TorchEngine

#: A measurement of a bare operator goes on for so long, and for so many repetitions at least.
SECONDS, REPETITIONS = 1.0, 3
#: Rows and columns of the matrix product: on an accelerator a small one does not fill the device.
MATRIX = {"cpu": 2048, "cuda": 8192, "npu": 8192}


class _Clock:
    """Seconds between marks, by phase; every mark waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.running = "transfer"
        self.mark = self.now()

    def now(self) -> float:
        accelerator = module_of(self.device)
        if accelerator is not None:
            accelerator.synchronize(self.device)
        return time.perf_counter()

    def start(self, phase: str) -> None:
        """End the phase that is running, and start another one."""
        now = self.now()
        self.seconds[self.running] = self.seconds.get(self.running, 0.0) + now - self.mark
        self.running, self.mark = phase, now


class _Announced:
    """A part of the engine that says which phase starts when it is called, and which one when it is done."""

    def __init__(self, part: Any, clock: _Clock, before: str | None = None, after: str | None = None) -> None:
        self._part, self._clock, self._before, self._after = part, clock, before, after

    def __call__(self, *arguments: Any) -> Any:
        if self._before is not None:
            self._clock.start(self._before)
        result = self._part(*arguments)
        if self._after is not None:
            self._clock.start(self._after)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


@contextlib.contextmanager
def _announcing(engine: Any, clock: _Clock) -> Iterator[None]:
    """Let an engine's parts start the clock's phases; afterwards they are as they were."""
    replica, scaler = engine._replica, engine._scaler
    engine._replica = _Announced(replica, clock, before="forward")
    # The loss is scaled (by 1 where the precision asks for nothing) right before it goes backwards.
    scaler.scale = _Announced(scaler.scale, clock, after="backward")
    engine._update = _Announced(engine._update, clock, before="optimiser")
    # The first pass of scheduled sampling is a forward pass.
    engine._feed_back = _Announced(engine._feed_back, clock, before="forward", after="transfer")
    try:
        yield
    finally:
        engine._replica = replica
        del scaler.scale, engine._update, engine._feed_back


class TorchMeter(Meter):
    """See :class:`earthsr.backend.Meter`."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine: Any = engine
        """Its parts are wrapped and its layout is set from here, and nowhere else."""

    def time_phases(self, batches: Sequence[Batch], rates: Sequence[float]) -> PhaseTimes:
        """Time the phases of an engine's steps; see the base class."""
        if self.engine._optimizer is None:
            raise BackendError("time_phases was called before prepare_training")
        if len(rates) < 2:
            raise BackendError(
                f"time_phases was given {len(rates)} step(s), expected 2 or more: the first is not counted"
            )
        self.engine.require_batches(batches, rates, self.engine._accumulate)
        state = self.engine.export_state()
        per_step = len(batches) // len(rates)
        clocks = []
        try:
            for step, rate in enumerate(rates):
                clock = _Clock(self.engine._device)
                with _announcing(self.engine, clock):
                    self.engine.run(batches[step * per_step : (step + 1) * per_step], [rate])
                clock.start("done")
                clocks.append(clock.seconds)
        finally:
            self.engine.load_state(state)

        def median(phase: str) -> float:
            return statistics.median(seconds[phase] for seconds in clocks[1:])

        return PhaseTimes(
            median("transfer"), median("forward"), median("backward"), median("optimiser"), "waited for between phases"
        )

    def measure_peaks(self, samples: int, rows: int, columns: int, channels: int = 256) -> Peaks:
        """Measure bare operators; see the base class."""
        device, dtype = self.engine._device, self.engine._plan.autocast or self.engine._plan.storage
        plain = getattr(self.engine, "_plain_layout", False)
        layout = torch.contiguous_format if plain else torch.channels_last
        product, size = self._matmul(dtype)
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device, dtype=dtype)
        convolution.to(memory_format=layout)  # type: ignore[call-overload]  # documented, and missing in torch's stubs
        field = torch.randn(samples, channels, rows, columns, device=device).to(dtype, memory_format=layout)
        field.requires_grad_()
        gradient = torch.randn_like(field)

        def there_and_back() -> tuple[Tensor, ...]:
            return torch.autograd.grad(convolution(field), (field, convolution.weight), gradient)

        flops = 3.0 * 2 * 9 * channels**2 * samples * rows * columns
        bare = self._rate(there_and_back, flops)
        return Peaks(
            product,
            f"{size} x {size} x {size}",
            bare,
            f"{samples} x {channels} x {rows} x {columns}, 3 x 3, forward and backward",
        )

    def use_plain_layout(self) -> str:
        """Keep weights and inputs contiguous; see the base class."""
        if self.engine._optimizer is not None:
            raise BackendError(
                "use_plain_layout was called after prepare_training, whose moments have the layout already"
            )
        self.engine._network.to(memory_format=torch.contiguous_format)

        def tensor(array: NDArray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.engine._device)

        self.engine._tensor, self.engine._plain_layout = tensor, True
        return "contiguous"

    def resources(self) -> Resources:
        """Return what an engine computes with; see the base class."""
        device = self.engine._device
        accelerator = module_of(device)
        if accelerator is not None:
            peak = accelerator.max_memory_allocated(device)
            return Resources(accelerator.get_device_name(device), torch.get_num_threads(), peak / 2**20)
        return Resources(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}", torch.get_num_threads())

    def _rate(self, work: Callable[[], object], flops: float) -> float:
        """FLOP/s of some work: the median of its repetitions, after one that is not counted."""
        clock = _Clock(self.engine._device)
        seconds: list[float] = []
        with self.engine._numerics():
            work()
            begun = clock.now()
            while len(seconds) < REPETITIONS or clock.now() - begun < SECONDS:
                before = clock.now()
                work()
                seconds.append(clock.now() - before)
        return flops / statistics.median(seconds)

    def _matmul(self, dtype: torch.dtype) -> tuple[float, int]:
        """FLOP/s of a matrix product, and the size of its matrices."""
        size = MATRIX[self.engine._device.type]
        left, right = (torch.randn(size, size, device=self.engine._device).to(dtype) for _ in range(2))
        with torch.inference_mode():
            return self._rate(lambda: left @ right, 2.0 * size**3), size

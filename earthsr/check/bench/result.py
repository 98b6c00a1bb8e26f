"""What a benchmark found; keys carry their SI units."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from earthsr.backend.interface import Peaks, PhaseTimes


@dataclass(frozen=True)
class Rates:
    """The speed of training steps."""

    steps: int
    """Steps that were timed."""
    step_s: float
    """Median of a step, waiting for the loader included."""
    samples_per_step: int
    """Samples of all batches whose gradients make one step."""
    flop_per_step: float
    """Forward and backward: three times the spec's operations of the forward pass, for every sample.

    Frozen layers are counted as if they learnt, and what ``train.recompute`` computes again is not counted.
    """
    first_step_s: float
    """From the first call to its loss: compiling, and whatever else is done once."""
    waiting_s: float
    """Mean of a step's waiting for batches."""

    @property
    def steps_per_s(self) -> float:
        """Optimiser steps per second."""
        return 1 / self.step_s

    @property
    def samples_per_s(self) -> float:
        """Samples per second."""
        return self.samples_per_step / self.step_s

    @property
    def flop_per_s(self) -> float:
        """Floating-point operations per second, as counted from the spec."""
        return self.flop_per_step / self.step_s

    @property
    def compile_s(self) -> float:
        """What the first step takes longer than others."""
        return max(self.first_step_s - self.step_s, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            **asdict(self),
            "steps_per_s": self.steps_per_s,
            "samples_per_s": self.samples_per_s,
            "flop_per_s": self.flop_per_s,
            "compile_s": self.compile_s,
        }


@dataclass(frozen=True)
class Loader:
    """The loader alone, with nobody who computes beside it."""

    samples: int
    """Samples that were read."""
    samples_per_s: float
    """Their rate."""
    threads: int
    """Threads that read and prepared them."""


@dataclass(frozen=True)
class Plain:
    """The same model in the framework's plain setting: float32, and its default memory layout."""

    precision: str
    """In words."""
    layout: str
    rates: Rates
    """Its speed."""


@dataclass(frozen=True)
class BenchResult:
    """A benchmark of one configuration on one backend and device."""

    about: dict[str, Any]
    """Model, backend, device, precision, versions."""
    inputs: str
    """What was computed on, in words."""
    rates: Rates
    """Of training as it is configured."""
    phases: PhaseTimes
    """Where the time of a step goes."""
    peaks: Peaks
    """What bare operators reach in the same process."""
    loader: Loader | None
    """None where batches were made, not loaded."""
    peak_memory_mib: float
    """Resident memory of the process after the timed steps, the highest since it began."""
    peak_device_memory_mib: float | None
    """Of tensors; None where the device computes in the memory of the process."""
    plain: Plain | None
    """The framework's plain setting, where it was measured."""

    @property
    def share_of_convolution(self) -> float:
        """FLOP/s over those of a bare convolution."""
        return self.rates.flop_per_s / self.peaks.convolution_flop_per_s

    @property
    def share_of_matmul(self) -> float:
        """FLOP/s over those of a matrix product."""
        return self.rates.flop_per_s / self.peaks.matmul_flop_per_s

    @property
    def loading_s(self) -> float | None:
        """Seconds that the loader works for one step, beside it."""
        return None if self.loader is None else self.rates.samples_per_step / self.loader.samples_per_s

    @property
    def loader_headroom(self) -> float | None:
        """Samples per second of the loader alone over those that the steps take."""
        return None if self.loader is None else self.loader.samples_per_s / self.rates.samples_per_s

    @property
    def speedup_over_plain(self) -> float | None:
        """Samples per second over those of the plain setting."""
        return None if self.plain is None else self.rates.samples_per_s / self.plain.rates.samples_per_s

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; what was not measured is null."""
        phases = asdict(self.phases)
        if self.plain is None:
            plain = None
        else:
            about = {"precision": self.plain.precision, "layout": self.plain.layout}
            plain = {**about, **self.plain.rates.to_dict(), "speedup_over_plain": self.speedup_over_plain}
        return {
            "about": self.about,
            "inputs": self.inputs,
            **self.rates.to_dict(),
            "peaks": asdict(self.peaks),
            "share_of_convolution": self.share_of_convolution,
            "share_of_matmul": self.share_of_matmul,
            "phases": {**phases, "waiting_s": self.rates.waiting_s, "loading_s": self.loading_s},
            "loader": None if self.loader is None else asdict(self.loader),
            "loader_headroom": self.loader_headroom,
            "peak_memory_mib": self.peak_memory_mib,
            "peak_device_memory_mib": self.peak_device_memory_mib,
            "plain": plain,
        }

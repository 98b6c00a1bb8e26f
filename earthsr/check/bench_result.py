"""What a benchmark found, keys with their SI units; and its table for people, every number with its unit."""

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


def significant(value: float, digits: int = 3) -> str:
    """Return a number of 0 or more with so many significant digits, without an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}"


def _with_unit(value: float, unit: str) -> str:
    """Return a number with the prefix that leaves one to three digits before the point."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def _time(seconds: float) -> str:
    return f"{significant(seconds)} s" if seconds >= 1 else f"{significant(seconds * 1000)} ms"


def text_table(result: BenchResult) -> str:
    """Names on the left, values and units on the right.

    Parameters
    ----------
    result : BenchResult
        What was measured.

    Returns
    -------
    str
        Lines of a table.
    """
    about, rates, phases, peaks = result.about, result.rates, result.phases, result.peaks
    cells = f"{about['patch_size']} x {about['patch_size']} cells"
    per_sample = _with_unit(3.0 * about["flop_per_sample_forward"], "FLOP")
    rows: list[tuple[str, str, str]] = [
        ("model", f"{about['model']}, {about['parameters']:,} parameters", ""),
        (
            "backend",
            f"{about['backend']} {about['backend_version']}, {about['device']} ({about['device_model']}), "
            f"{about['threads']} thread{'s' * (about['threads'] != 1)}",
            "",
        ),
        (
            "precision",
            f"{about['amp_level']}: {about['precision']}{', blocks computed again' * about['recompute']}",
            "",
        ),
        ("inputs", result.inputs, ""),
        ("samples per step", f"{rates.samples_per_step}", f"of {cells}"),
        ("", "", ""),
        ("step", _time(rates.step_s), f"median of {rates.steps} steps"),
        ("rate", f"{significant(rates.samples_per_s)} samples/s", f"{significant(rates.steps_per_s)} steps/s"),
        ("arithmetic", _with_unit(rates.flop_per_s, "FLOP/s"), f"{per_sample} per sample, forward and backward"),
        (
            "of bare convolution",
            f"{significant(100 * result.share_of_convolution)} %",
            f"{_with_unit(peaks.convolution_flop_per_s, 'FLOP/s')}: {peaks.convolution}",
        ),
        (
            "of matrix product",
            f"{significant(100 * result.share_of_matmul)} %",
            f"{_with_unit(peaks.matmul_flop_per_s, 'FLOP/s')}: {peaks.matmul}",
        ),
        ("", "", ""),
    ]
    for name, seconds in (
        ("transfer", phases.transfer_s),
        ("forward", phases.forward_s),
        ("backward", phases.backward_s),
        ("optimiser", phases.optimiser_s),
        ("waiting for batches", rates.waiting_s),
    ):
        rows.append((name, _time(seconds), f"{100 * seconds / rates.step_s:.1f} % of a step"))
    rows.append(("", "", f"phases: {phases.how}"))
    if result.loader is None or result.loading_s is None or result.loader_headroom is None:
        rows.append(("loading", "not measured", "made batches"))
    else:
        threads = result.loader.threads
        beside = f"beside the step, in {threads} thread{'s' * (threads != 1)}" if threads else "in the loop"
        rows.append(("loading", _time(result.loading_s), beside))
        rows.append(("loader alone", f"{significant(result.loader.samples_per_s)} samples/s", ""))
        rows.append(("loader headroom", f"{significant(result.loader_headroom)} x", "of what the steps take"))
    rows.append(("", "", ""))
    rows.append(("first step", _time(rates.first_step_s), f"compiling: {_time(rates.compile_s)}"))
    rows.append(("peak memory", f"{significant(result.peak_memory_mib, 4)} MiB", "of the process"))
    if result.peak_device_memory_mib is not None:
        rows.append(("", f"{significant(result.peak_device_memory_mib, 4)} MiB", "of the device"))
    if result.plain is not None:
        plain = result.plain
        words = f"{plain.precision}, {plain.layout}; median of {plain.rates.steps} steps of {_time(plain.rates.step_s)}"
        rows.append(("", "", ""))
        rows.append(("plain setting", f"{significant(plain.rates.samples_per_s)} samples/s", words))
        rows.append(("against plain", f"{significant(result.speedup_over_plain or 0.0)} x", ""))
    return _aligned(rows)


def _aligned(rows: list[tuple[str, str, str]]) -> str:
    """Three columns; a long value without a remark takes the room of the third."""
    left = max(len(name) for name, _, _ in rows)
    middle = max(len(value) for _, value, remark in rows if remark)
    return "\n".join(f"{name:<{left}}  {value:<{middle}}  {remark}".rstrip() for name, value, remark in rows)

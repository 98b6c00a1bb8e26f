"""The table of a benchmark for people: every number with its unit."""

from __future__ import annotations

from earthsr.check.bench.result import BenchResult


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

"""The arithmetic of a benchmark, its table, its loader, and what measuring leaves of an engine."""

import dataclasses
import resource
import sys

import numpy as np
import pytest

from earthsr.backend.interface import Peaks, PhaseTimes
from earthsr.check.bench import (
    BenchResult,
    Loaded,
    Loader,
    Made,
    Plain,
    Rates,
    _bare_shape,
    peak_memory_mib,
    run_bench,
    source_of,
    text_table,
    time_loader,
)
from earthsr.check.bench_result import significant
from earthsr.config import from_mapping
from earthsr.errors import BackendError, InputError
from earthsr.models import OptimizerSpec, Precision, initial_weights
from earthsr.tasks import task_for
from tests.conftest import installed, landuse_values

RATES = Rates(
    steps=20, step_s=0.5, samples_per_step=8, flop_per_step=6e11, first_step_s=2.0, waiting_s=0.05
)  # fmt: skip
ABOUT = {
    "model": "demsrnet", "parameters": 1234567, "patch_size": 32, "flop_per_sample_forward": 25_000_000_000,
    "backend": "torch", "backend_version": "2.13", "device": "cpu", "device_model": "x86_64", "threads": 1,
    "amp_level": "O2", "recompute": False, "precision": "bfloat16 autocast",
}  # fmt: skip
RESULT = BenchResult(
    about=ABOUT,
    inputs="made",
    rates=RATES,
    phases=PhaseTimes(0.001, 0.2, 0.25, 0.01, "waited for"),
    peaks=Peaks(2.4e12, "2048 x 2048 x 2048", 1.6e12, "8 x 256 x 32 x 32"),
    loader=Loader(1000, 400.0, 2),
    peak_memory_mib=1234.5,
    peak_device_memory_mib=None,
    plain=Plain("float32", "contiguous", dataclasses.replace(RATES, steps=5, step_s=4.0)),
)


def test_figures_follow_from_the_step():
    values = RESULT.to_dict()
    assert values["steps_per_s"] == 2.0
    assert values["samples_per_s"] == 16.0
    assert values["flop_per_s"] == 1.2e12
    assert values["share_of_convolution"] == pytest.approx(0.75)
    assert values["share_of_matmul"] == pytest.approx(0.5)
    assert values["compile_s"] == 1.5
    assert values["loader_headroom"] == 25.0
    assert values["phases"]["loading_s"] == pytest.approx(8 / 400)
    assert values["phases"]["waiting_s"] == 0.05
    assert values["plain"]["samples_per_s"] == 2.0
    assert values["plain"]["speedup_over_plain"] == 8.0


def test_the_table_has_units_and_says_what_was_not_measured():
    table = text_table(RESULT)
    for words in (
        "16.0 samples/s", "2.00 steps/s", "1.20 TFLOP/s", "75.0 %", "50.0 %", "200 ms", "40.0 % of a step",
        "400 samples/s", "25.0 x", "8.00 x", "1,234 MiB", "1,234,567 parameters", "compiling: 1.50 s", "contiguous",
        "1 thread\n", "in 2 threads",
    ):  # fmt: skip
        assert words in table, words
    assert "of the device" not in table
    bare = dataclasses.replace(RESULT, loader=None, plain=None, peak_device_memory_mib=2048.0)
    table = text_table(bare)
    assert "not measured  " in table
    assert "made batches" in table
    assert "2,048 MiB" in table
    assert "plain" not in table
    assert "headroom" not in table
    values = bare.to_dict()
    assert values["loader"] is values["loader_headroom"] is values["phases"]["loading_s"] is values["plain"] is None


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (1234.5, "1,230"), (999.6, "1,000"), (99.96, "100"), (12.34, "12.3"), (0.01234, "0.0123")],
)
def test_three_significant_digits(value, words):
    assert significant(value) == words


def test_numbers_of_steps_are_checked(tiny):
    with pytest.raises(InputError, match="steps is 0, expected 1 or more"):
        run_bench(tiny(), steps=0)
    with pytest.raises(InputError, match="warmup is -1, expected 0 or more"):
        run_bench(tiny(), warmup=-1)


def test_batches_come_from_the_data_where_they_are(tiny, tmp_path):
    config = tiny()
    loaded = source_of(config, task_for(config), synthetic=False)
    assert isinstance(loaded, Loaded)
    assert loaded.words.endswith("train.h5 (12 samples)")
    stream = loaded.stream()
    some = [next(stream) for _ in range(7)]
    stream.close()
    # Three batches of four are an epoch; the next one has another order.
    assert not np.array_equal(some[0].target, some[3].target)
    made = source_of(config, task_for(config), synthetic=True)
    assert isinstance(made, Made)
    away = tiny(data={"root_dir": str(tmp_path / "nowhere")})
    assert isinstance(source_of(away, task_for(away), synthetic=False), Made)
    (tmp_path / "empty").mkdir()
    empty = tiny(data={"root_dir": str(tmp_path / "empty")})
    with pytest.raises(InputError, match="or use --synthetic"):
        source_of(empty, task_for(empty), synthetic=False)


def test_the_loader_alone_reads_whole_epochs(tiny):
    config = tiny()
    found = time_loader(source_of(config, task_for(config), synthetic=False))
    # Padding does not count: twelve samples in batches of five are three batches, one of two.
    padded = tiny(data={"batch_size": 5})
    assert time_loader(source_of(padded, task_for(padded), synthetic=False)).samples % 12 == 0
    assert found.samples % 12 == 0
    assert found.samples > 0
    assert found.samples_per_s > 0
    assert found.threads == 1


def test_peak_memory_is_of_this_process():
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 2**-10) / 2**20
    # The kernel counts pages of the two in batches, hence the tolerance.
    assert peak_memory_mib() == pytest.approx(largest, rel=0.05)


def test_the_bare_convolution_has_the_size_of_the_network_s_own(tiny):
    def shape(values):
        config = from_mapping(values)
        return _bare_shape(config, task_for(config).spec())

    dem = {"model": {"num_blocks": 2}, "data": {"patch_size": 32, "batch_size": 64}}
    assert shape(dem) == (64, 32, 32)
    assert shape({**dem, "data": {"patch_size": 32, "batch_size": 512}}) == (64, 32, 32)
    land = landuse_values("data", "run", model={"width": 64, "depth": 4}, data={"patch_size": 256, "batch_size": 8})
    # 64 features twice doubled are 256, on cells four times as large.
    assert shape(land) == (8, 64, 64)
    # 4 features never become 256: its deepest level.
    assert shape(landuse_values("data", "run")) == (8, 4, 4)


def engine_of(name, config):
    """An engine of a backend, what measures it, an objective, and batches for six steps."""
    if not installed(name):
        pytest.skip(f"backend {name} is not installed")
    from earthsr.backend import choose_backend

    task = task_for(config)
    spec = task.spec()
    backend = choose_backend(name)
    engine = backend.training_engine(spec, initial_weights(spec, 0), device="cpu", precision=Precision("O0"))
    return engine, backend.meter(engine), task.synthetic_objective(), task.synthetic_batches(6).batches


@pytest.fixture(params=[pytest.param("torch"), pytest.param("mindspore", marks=pytest.mark.slow)])
def engine(request, tiny):
    """Each backend's engine, with an objective and batches."""
    return engine_of(request.param, tiny(model={"num_blocks": 2}))


def test_phases_change_nothing(engine):
    engine, meter, objective, batches = engine
    with pytest.raises(BackendError, match="before prepare_training"):
        meter.time_phases(batches, [1e-3] * 6)
    engine.prepare_training(objective, OptimizerSpec(clip_norm=1.0), accumulate=2)
    with pytest.raises(BackendError, match="expected 2 or more"):
        meter.time_phases(batches[:2], [1e-3])
    engine.run(batches[:4], [1e-3] * 2).result()
    before, parts = engine.export_state(), set(vars(engine))
    phases = meter.time_phases(batches, [1e-3] * 3)
    after = engine.export_state()
    for part in ("weights", "first_moments", "second_moments"):
        was, now = getattr(before, part), getattr(after, part)
        assert was.keys() == now.keys() == before.weights.keys()
        assert all(np.array_equal(was[name], now[name]) for name in was), part
    assert before.step == after.step == 2
    assert set(vars(engine)) == parts
    assert phases.transfer_s > 0
    assert phases.forward_s > 0
    assert phases.how
    # Of differences between graphs of less than a millisecond, noise may leave nothing.
    assert phases.backward_s >= 0
    assert phases.optimiser_s >= 0
    # Steps go on afterwards as if nothing had been measured.
    values = engine.run(batches[4:], [1e-3]).result()
    engine.load_state(before)
    again = engine.run(batches[4:], [1e-3]).result()
    assert values.losses == again.losses
    assert values.gradient_norms == again.gradient_norms


@pytest.mark.slow
def test_mindspore_s_phases_are_differences_of_medians(tiny, monkeypatch):
    engine, meter, objective, batches = engine_of("mindspore", tiny())
    from earthsr_mindspore import timing

    engine.prepare_training(objective, OptimizerSpec(), accumulate=1)
    # Transfer, loss, loss and gradient, whole step: of four steps, the first of which compiles.
    seconds = iter([9, 90, 90, 90, 1, 10, 30, 35, 3, 12, 34, 37, 2, 50, 32, 99])
    real = timing.MindSporeMeter._seconds
    monkeypatch.setattr(
        timing.MindSporeMeter, "_seconds", lambda meter, work: (float(next(seconds)), real(meter, work)[1])
    )
    phases = meter.time_phases(batches[:4], [1e-3] * 4)
    assert next(seconds, None) is None
    assert (phases.transfer_s, phases.forward_s, phases.backward_s, phases.optimiser_s) == (2, 12, 20, 5)


def test_torch_s_phases_add_up_to_the_step(tiny, monkeypatch):
    engine, meter, objective, batches = engine_of("torch", tiny())
    from earthsr_torch import timing

    engine.prepare_training(objective, OptimizerSpec(), accumulate=2)
    marks = []
    # Every look at the clock costs a second: a phase lasts as long as marks were set in it.
    monkeypatch.setattr(timing._Clock, "now", lambda clock: marks.append(clock) or float(len(marks)))
    phases = meter.time_phases(batches, [1e-3] * 3)
    assert len(set(map(id, marks))) == 3
    looks = marks.count(marks[-1])
    parts = (phases.transfer_s, phases.forward_s, phases.backward_s, phases.optimiser_s)
    # From the first look of a step to its last.
    assert sum(parts) == looks - 1
    # Two batches went forwards and backwards, and the weights changed once.
    assert parts == (1, 2, 2, 1)


def test_bare_operators_are_measured(engine, monkeypatch):
    engine, meter, *_ = engine
    monkeypatch.setattr(f"{type(engine).__module__.partition('.')[0]}.timing.SECONDS", 0.0)
    peaks = meter.measure_peaks(2, 8, 6, channels=16)
    # From the slowest machine to the fastest: outside of it seconds or operations are miscounted.
    assert 1e8 < peaks.matmul_flop_per_s < 1e14
    assert 1e5 < peaks.convolution_flop_per_s < 1e14
    assert peaks.convolution.startswith("2 x 16 x 8 x 6")
    assert meter.resources().threads >= 1


def test_the_plain_layout_is_contiguous_and_computes_the_same(any_backend, tiny):
    if any_backend != "torch":
        pytest.skip("needs backend torch")
    from earthsr.backend import choose_backend

    config = tiny()
    task = task_for(config)
    spec = task.spec()
    batches, objective = task.synthetic_batches(4).batches, task.synthetic_objective()

    def trained(plain):
        backend = choose_backend("torch")
        engine = backend.training_engine(spec, initial_weights(spec, 0), device="cpu")
        meter = backend.meter(engine)
        if plain:
            assert meter.use_plain_layout() == "contiguous"
        engine.prepare_training(objective, OptimizerSpec())
        losses = engine.run(batches, [1e-3] * 4).result().losses
        weight = dict(engine._network.named_parameters())["body.weight"]
        assert weight.is_contiguous() is plain
        with pytest.raises(BackendError, match="after prepare_training"):
            meter.use_plain_layout()
        return losses

    # Four steps in float32, whose sums are taken in another order.
    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-4)

"""What is MindSpore's own: modes, the device's loss scale, steps sunk together, the process that it lives in."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from earthsr.backend import get_backend
from earthsr.errors import BackendError
from earthsr.models import MSELoss, OptimizerSpec, Precision, State, UNetSpec, initial_weights
from tests.backends.test_engine import SPEC, assert_same_state, make_batch
from tests.conftest import installed

pytestmark = pytest.mark.skipif(not installed("mindspore"), reason="backend mindspore is not installed")


def engine(weights=None, optimizer=None, **options):
    made = get_backend("mindspore").engine(SPEC, weights or initial_weights(SPEC, 0), device="cpu", **options)
    made.prepare_training(MSELoss(), optimizer or OptimizerSpec(clip_norm=1.0))
    return made


def low_engine(monkeypatch, scaling, level="O2", **options):
    """An engine with the precision of an Ascend, on CPU, whose arithmetic is the same."""
    import mindspore as ms

    from earthsr_mindspore import engine as module
    from earthsr_mindspore.precision import Plan

    monkeypatch.setattr(module, "plan", lambda *_: Plan(level, ms.float16, scaling, "float16"))
    return engine(precision=Precision(level), **options)


def test_pynative_gives_what_the_graph_gives():
    graph, pynative = engine(), engine(graph=False)
    batches, rates = [make_batch(i) for i in range(3)], [1e-2] * 3
    a, b = graph.run(batches, rates).result(), pynative.run(batches, rates).result()
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-6)
    for name, value in graph.export_state().weights.items():
        # The same kernels, other fusions: gradients differ in the last bit, which Adam divides by their own size.
        np.testing.assert_allclose(pynative.export_state().weights[name], value, atol=1e-4 * 1e-2)
    x = make_batch().inputs
    np.testing.assert_allclose(graph.submit(x).result(), pynative.submit(x).result(), atol=1e-6)


@pytest.mark.slow
def test_the_process_keeps_its_own_mode():
    made = engine()
    import mindspore as ms

    for own in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=own)
        made.run([make_batch()], [1e-3]).result()
        made.activations(make_batch().inputs)
        assert ms.get_context("mode") == own


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_steps_sunk_together_equal_steps_one_by_one(accumulate):
    one, sunk = engine(), engine()
    for made in (one, sunk):
        made.prepare_training(MSELoss(), OptimizerSpec(clip_norm=1.0), accumulate)
    sunk.steps_per_call = 4
    batches, rates = [make_batch(i) for i in range(6 * accumulate)], [1e-2, 2e-2, 3e-2, 1e-2, 5e-2, 1e-3]
    a, b = one.run(batches, rates).result(), sunk.run(batches, rates).result()
    np.testing.assert_array_equal(a.losses, b.losses)
    np.testing.assert_array_equal(a.gradient_norms, b.gradient_norms)
    assert_same_state(one.export_state(), sunk.export_state())


@pytest.mark.slow
def test_one_graph_serves_calls_of_any_length(monkeypatch):
    made = engine()
    made.steps_per_call = 3
    shapes = []
    step = made._step
    monkeypatch.setattr(made, "_step", lambda *sunk: shapes.append([t.shape for t in sunk]) or step(*sunk))
    made.run([make_batch(i) for i in range(4)], [1e-2] * 4).result()
    assert len(shapes) == 4
    assert all(each == shapes[0] for each in shapes)


@pytest.mark.parametrize("scaling", ["dynamic", pytest.param("fixed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("level", [pytest.param("O1", marks=pytest.mark.slow), "O2"])
def test_scaled_float16_follows_float32(monkeypatch, scaling, level):
    exact = engine()
    low = low_engine(monkeypatch, scaling, level)
    batches, rates = [make_batch(i) for i in range(3)], [1e-3] * 3
    a, b = exact.run(batches, rates).result(), low.run(batches, rates).result()
    # float16 keeps 11 bits: 5e-4 per rounding.
    np.testing.assert_allclose(a.losses, b.losses, rtol=2e-3)
    np.testing.assert_allclose(a.gradient_norms, b.gradient_norms, rtol=1e-2)
    assert (a.losses != b.losses).any()
    state = low.export_state()
    assert state.step == 3
    assert state.skipped_steps == 0
    assert state.loss_scale == (65536.0 if scaling == "dynamic" else None)


@pytest.mark.parametrize(
    "decay",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"weight_decay": 0.1}, marks=pytest.mark.slow),
        {"name": "adamw", "weight_decay": 0.1},
    ],
    ids=str,
)
def test_an_overflowing_step_is_skipped_and_counted(monkeypatch, decay):
    low = low_engine(monkeypatch, "dynamic", optimizer=OptimizerSpec(**decay))
    low.run([make_batch(1)], [1e-2]).result()
    good = low.export_state()
    low.load_state(dataclasses.replace(good, loss_scale=2.0**40))
    low.run([make_batch(2)], [1e-2]).result()
    after = low.export_state()
    assert_same_state(after, good)
    assert after.skipped_steps == 1
    assert after.loss_scale == 2.0**39
    assert after.loss_scale_good_steps == 0
    # What follows is as if the step had not been.
    low.load_state(dataclasses.replace(after, loss_scale=good.loss_scale))
    low.run([make_batch(3)], [1e-2]).result()
    straight = low_engine(monkeypatch, "dynamic", optimizer=OptimizerSpec(**decay))
    straight.run([make_batch(1), make_batch(3)], [1e-2] * 2).result()
    assert_same_state(low.export_state(), straight.export_state())


def test_the_loss_scale_grows_after_enough_good_steps(monkeypatch):
    low = low_engine(monkeypatch, "dynamic")
    low.load_state(State(initial_weights(SPEC, 0), loss_scale=64.0, loss_scale_good_steps=1998))
    low.run([make_batch(1)], [1e-2]).result()
    assert (low.export_state().loss_scale, low.export_state().loss_scale_good_steps) == (64.0, 1999)
    low.run([make_batch(1)], [1e-2]).result()
    assert (low.export_state().loss_scale, low.export_state().loss_scale_good_steps) == (128.0, 0)


def test_an_overflow_under_a_fixed_scale_is_skipped_too(monkeypatch):
    low = low_engine(monkeypatch, "fixed")
    loud = make_batch(1)
    loud = dataclasses.replace(loud, inputs={"elevation": loud.inputs["elevation"] * np.float32(1e4)})
    before = low.export_state()
    low.run([loud], [1e-2]).result()
    assert_same_state(low.export_state(), before)
    assert low.export_state().skipped_steps == 1


def test_bfloat16_is_refused_where_the_device_has_none():
    with pytest.raises(BackendError, match="float16"):
        engine(precision=Precision("O2", "bfloat16"))


def test_a_process_is_given_its_device_once(monkeypatch):
    # Processes that msrun has brought together refuse a second call: a group's engine and one of its own live there.
    engine()
    import mindspore as ms

    monkeypatch.setattr(ms, "set_device", lambda *_: pytest.fail("was called again"))
    engine()


@pytest.mark.parametrize(
    ("device", "given"),
    [("ascend", ("Ascend",)), ("auto", ("Ascend",)), ("ascend:0", ("Ascend", 0)), ("ascend:3", ("Ascend", 3))],
)
def test_an_npu_is_named_only_where_somebody_names_it(monkeypatch, device, given):
    """Under msrun MindSpore gives each process an NPU of its own, and an explicit number overrules that."""
    import mindspore as ms

    from earthsr_mindspore import device as process

    calls = []
    monkeypatch.setattr(process, "ascend_reason", lambda: None)
    monkeypatch.setattr(process, "_settle", process._settle.__wrapped__)
    monkeypatch.setattr(ms, "set_device", lambda *args: calls.append(args))
    assert process.set_device(device, "2.10.0") == "ascend"
    assert calls == [given]


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_hf32_is_off_on_an_npu_at_every_level(monkeypatch, level):
    """The interpolated surface is a convolution in float32 at every level, and CANN's default for these is HF32."""
    import mindspore as ms

    from earthsr_mindspore import device as process
    from earthsr_mindspore.engine import MindSporeEngine

    calls = []
    switches = ms.device_context.ascend.op_precision
    for name in ("conv_allow_hf32", "matmul_allow_hf32"):
        monkeypatch.setattr(switches, name, lambda value, name=name: calls.append((name, value)))
    process.forbid_hf32.cache_clear()
    spec = dataclasses.replace(SPEC, residual_over="bicubic")
    MindSporeEngine(spec, initial_weights(spec, 0), "ascend", Precision(level))
    process.forbid_hf32.cache_clear()
    assert sorted(calls) == [("conv_allow_hf32", False), ("matmul_allow_hf32", False)]


@pytest.mark.parametrize("resize", ["half_pixel", "asymmetric"])
def test_bfloat16_is_resized_in_float32(resize):
    """ResizeBilinearV2 takes float32 and float16 alone, on an NPU as on a CPU."""
    import mindspore as ms

    from earthsr_mindspore.demsrnet import Upsample
    from earthsr_mindspore.device import mode
    from earthsr_mindspore.unet import Enlarge

    x = np.random.default_rng(0).normal(size=(1, 4, 3, 5)).astype(np.float32)
    low = ms.Tensor(x).astype(ms.bfloat16)
    spec = dataclasses.replace(SPEC, resize=resize)
    maps = UNetSpec(coarse_channels=1, static_channels=1, classes=2, width=2, depth=1, upsampling="bilinear")
    enlarge = Enlarge(maps, 4)
    # What resizes is looked at alone: no convolution in bfloat16 runs here.
    enlarge.conv = ms.nn.Identity()
    for cell in (Upsample(spec), *[enlarge] * (resize == "half_pixel")):
        with mode(graph=True):
            fine, exact = cell(low), cell(low.astype(ms.float32))
        assert fine.dtype == ms.bfloat16
        np.testing.assert_array_equal(fine.astype(ms.float32).asnumpy(), exact.astype(ms.bfloat16).float().asnumpy())


def test_the_compile_cache_is_refused(monkeypatch):
    # Seen with 2.10: the second process trained on, its losses fell, and it saved the weights that it began with.
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    with pytest.raises(BackendError, match="MS_COMPILER_CACHE_ENABLE"):
        engine()


def test_the_levels_say_what_they_are(caplog):
    with caplog.at_level("WARNING", logger="earthsr"):
        made = engine(precision=Precision("O2"))
    assert "fixed loss scale 1024" in made.precision
    assert "slower" in caplog.text


@pytest.mark.parametrize(
    ("environment", "version", "reason"),
    [
        ({"EARTHSR_MINDSPORE_ISA": "native"}, "2.10.0", "EARTHSR_MINDSPORE_ISA"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "2.10.0", "ONEDNN_MAX_CPU_ISA"),
        ({}, "2.11.0", r"2\.10"),
    ],
)
def test_the_instruction_set_is_left_alone_where_it_has_to_be(monkeypatch, environment, version, reason):
    import re

    from earthsr_mindspore.device import isa_reason

    for variable in ("EARTHSR_MINDSPORE_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert re.search(reason, isa_reason(version) or "")


def test_other_machines_are_left_alone(monkeypatch):
    from earthsr_mindspore import device

    monkeypatch.setattr(device.platform, "machine", lambda: "aarch64")
    assert "aarch64" in device.isa_reason("2.10.0")


PROCESS = """
import sys
import numpy as np
if "torch first" in sys.argv: import torch
from earthsr.backend import get_backend
from earthsr.models import MSELoss, OptimizerSpec, initial_weights
from tests.backends.test_engine import SPEC, make_batch
engine = get_backend("mindspore").engine(SPEC, initial_weights(SPEC, 0), device="cpu")
engine.prepare_training(MSELoss(), OptimizerSpec())
engine.run([make_batch()], [1e-3]).result()
from earthsr_mindspore import device
print(device.cap_instruction_set("2.10.0"))
import ctypes
print("isa", ctypes.CDLL(str(device._library())).dnnl_get_effective_cpu_isa())
import mindspore as ms
class Broken(ms.nn.Cell):
    def construct(self, x):
        return ops_that_are_not_there(x)
ms.set_context(mode=ms.GRAPH_MODE)
try:
    Broken()(ms.Tensor(1.0))
except Exception as error:
    print("broken", type(error).__name__)
if "torch last" in sys.argv or "torch first" in sys.argv:
    import torch
    torch.nn.functional.conv2d(torch.zeros(4, 64, 64, 64), torch.zeros(64, 64, 3, 3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["alone", "torch first", "torch last"])
def test_a_process_stays_clean(tmp_path, order):
    """Nothing in the working directory, no warnings, and PyTorch's instruction set as it was."""
    from earthsr_mindspore.device import isa_reason

    if "torch" in order and not installed("torch"):
        pytest.skip("backend torch is not installed")
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "ONEDNN_VERBOSE": "1"}
    script, folder = tmp_path / "process.py", tmp_path / "work"
    script.write_text(PROCESS)  # MindSpore compiles from source, which a command given with -c has not
    folder.mkdir()
    done = subprocess.run([sys.executable, script, order], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    assert "broken" in done.stdout  # a graph that fails leaves its diagnosis elsewhere
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert all("ops_that_are_not_there" in line for line in warnings), warnings
    if isa_reason("2.10.0") is None:
        assert "oneDNN capped at AVX2" in done.stdout
        assert "isa 7" in done.stdout
        # What MindSpore takes for a convolution is no reference code, and PyTorch still takes all that there is.
        convolutions = [line for line in done.stdout.splitlines() if "exec,cpu,convolution" in line]
        assert any("x64:gemm:jit" in line for line in convolutions)
        assert not any(",ref" in line or "+ref" in line for line in convolutions)
        assert any("avx512" in line for line in convolutions) == ("torch" in order)

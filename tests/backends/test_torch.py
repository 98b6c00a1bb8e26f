"""What is PyTorch's own: float32 whatever the process says of it, clipping, the scaler, and how ranks meet on GPUs.

No GPU has run this. Which calls are made there, with what and in which order, is tested with stand-ins of PyTorch's.
"""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import DemSRNetSpec, MSELoss, OptimizerSpec, Precision, UNetSpec, initial_weights
from tests.backends.test_engine import SPEC, make_batch
from tests.backends.test_loss import batch_of

torch = pytest.importorskip("torch")

from earthsr.backend import choose_backend  # noqa: E402 - where torch is there
from earthsr_torch.device import numerics  # noqa: E402

BACKENDS = torch.backends
#: Every switch of float32 arithmetic that a caller may have set: (the owner, how it is set, how it is undone).
CALLERS = {
    "nothing": lambda: None,
    "convolutions in TF32": lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "tf32"),
    "convolutions in float32": lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
    "all in TF32": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "products in TF32, the old way": lambda: torch.set_float32_matmul_precision("high"),
    "products in bfloat16": lambda: torch.set_float32_matmul_precision("medium"),
    "CPU in bfloat16": lambda: (
        setattr(BACKENDS.mkldnn.conv, "fp32_precision", "bf16"),
        setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    ),
}


def switches():
    names = ("cudnn", "conv"), ("cuda", "matmul"), ("mkldnn", "conv"), ("mkldnn", "matmul")
    return {
        **{f"{owner}.{name}": getattr(getattr(BACKENDS, owner), name).fp32_precision for owner, name in names},
        "benchmark": BACKENDS.cudnn.benchmark,
        "deterministic": BACKENDS.cudnn.deterministic,
    }


@pytest.fixture(params=CALLERS)
def caller(request):
    """A process whose own settings are not PyTorch's defaults."""
    before = switches()
    CALLERS[request.param]()
    yield request.param
    torch.set_float32_matmul_precision("highest")
    BACKENDS.fp32_precision = "none"
    for name, value in before.items():
        owner, _, operation = name.partition(".")
        if operation:
            getattr(getattr(BACKENDS, owner), operation).fp32_precision = value


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_on_a_gpu_float32_is_what_the_level_says_whatever_a_caller_has_set(caller, tf32, strict):
    before = switches()
    with numerics(torch.device("cuda", 0), tf32, strict):
        inside = switches()
        assert inside["cudnn.conv"] == ("tf32" if tf32 and not strict else "ieee")
        assert inside["cuda.matmul"] == "ieee"
        assert (inside["benchmark"], inside["deterministic"]) == (not strict, strict)
        # The surface's convolution, inside a step in a low precision.
        with numerics(torch.device("cuda", 0), tf32=False, strict=strict):
            assert switches()["cudnn.conv"] == "ieee"
        assert switches() == inside
    assert switches() == before


def test_settings_are_as_they_were_after_an_error():
    before = switches()
    with pytest.raises(ZeroDivisionError), numerics(torch.device("cuda", 0), tf32=False, strict=True):
        raise ZeroDivisionError
    assert switches() == before


@pytest.mark.parametrize(
    "spec",
    [
        DemSRNetSpec(features=16, num_blocks=1, scale=2, residual_over="bicubic"),
        UNetSpec(coarse_channels=8, static_channels=8, classes=3, width=16, depth=1),
    ],
    ids=["dem", "maps"],
)
def test_on_a_cpu_o0_is_float32_whatever_a_caller_has_set(caller, spec):
    batch = batch_of(spec)
    weights = initial_weights(spec, 0, keep_zeros=False)

    def predicted():
        return choose_backend("torch").engine(spec, weights, device="cpu").submit(batch.inputs).result()

    result = predicted()
    BACKENDS.mkldnn.conv.fp32_precision = BACKENDS.mkldnn.matmul.fp32_precision = "ieee"
    np.testing.assert_array_equal(result, predicted())


def engine_of(clip_norm=None, **options):
    engine = choose_backend("torch").engine(SPEC, initial_weights(SPEC, 0), device="cpu", **options)
    engine.prepare_training(MSELoss(), OptimizerSpec(clip_norm=clip_norm))
    return engine


def test_gradients_within_the_bound_are_not_multiplied(monkeypatch):
    engine = engine_of()
    norm = engine.run([make_batch()], [0.0]).result().gradient_norms[0]
    calls = []
    real = torch.nn.utils.clip_grads_with_norm_

    def clip(parameters, bound, *rest, **options):
        calls.append(bound)
        real(parameters, bound, *rest, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grads_with_norm_", clip)
    engine_of(clip_norm=2 * norm).run([make_batch()], [0.0]).result()
    assert calls == []
    engine_of(clip_norm=norm / 2).run([make_batch()], [0.0]).result()
    assert calls == [norm / 2]


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_fused_step_that_divides_clips_as_one_that_is_told_beforehand(monkeypatch, share):
    """As on a GPU, where the host does not ask for the norm; the fused kernel of a CPU divides too."""
    norm = engine_of().run([make_batch()], [0.0]).result().gradient_norms[0]
    states = []
    for device in ("cpu", "cuda"):
        engine = engine_of(clip_norm=share * norm)
        real = engine._clip

        def clip(parameters, bound, engine=engine, real=real, device=device):
            own, engine._device = engine._device, torch.device(device)
            multiplied = [parameter.grad.clone() for parameter in parameters]
            result = real(parameters, bound)
            engine._device = own
            same = all(torch.equal(a, b.grad) for a, b in zip(multiplied, parameters, strict=True))
            assert same == (device == "cuda" or share > 1)
            return result

        monkeypatch.setattr(engine, "_clip", clip)
        engine.run([make_batch(seed) for seed in range(3)], [1e-2] * 3).result()
        states.append(engine.export_state())
    for name, value in states[0].first_moments.items():
        np.testing.assert_allclose(states[1].first_moments[name], value, rtol=1e-5, atol=1e-8, err_msg=name)
        np.testing.assert_allclose(states[1].weights[name], states[0].weights[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("strict", [False, True])
def test_overflowing_steps_are_skipped_and_counted_without_asking_for_the_scale(monkeypatch, strict):
    from earthsr_torch import engine as module

    real = module.plan
    monkeypatch.setattr(module, "plan", lambda *args: dataclasses.replace(real(*args), scaled=True))
    engine = engine_of(precision=Precision("O0", strict=strict))
    state = dataclasses.replace(engine.export_state(), loss_scale=2.0**127, loss_scale_good_steps=0, skipped_steps=3)
    engine.load_state(state)
    asked = []
    monkeypatch.setattr(engine._scaler, "get_scale", lambda: asked.append(1) or math.nan)
    # The scale is halved until the gradient is finite again.
    batches = [make_batch(seed) for seed in range(12)]
    far = [dataclasses.replace(batch, target=100 * batch.target) for batch in batches]
    engine.run(far, [1e-3] * 12).result()
    assert not asked
    monkeypatch.undo()
    after = engine.export_state()
    assert after.skipped_steps > 3
    assert after.step + after.skipped_steps - 3 == 12
    assert after.loss_scale == 2.0 ** (127 - (after.skipped_steps - 3))
    # What was counted stays counted when training is prepared anew.
    engine.prepare_training(MSELoss(), OptimizerSpec())
    assert engine.export_state().skipped_steps == after.skipped_steps


def test_class_weights_go_to_the_device_once(monkeypatch):
    from earthsr.models import CrossEntropyLoss

    spec = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1)
    engine = choose_backend("torch").engine(spec, initial_weights(spec, 0), device="cpu")
    engine.prepare_training(CrossEntropyLoss((1.0, 2.0, 0.5)), OptimizerSpec())
    real = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, **options: pytest.fail(f"made a tensor of {args}"))
    engine.run(synthetic_tiles(spec, 8, 2, 2).batches, [1e-3] * 2).result()
    monkeypatch.setattr(torch, "tensor", real)


def test_a_rank_takes_its_gpu_before_it_meets_the_others(monkeypatch):
    from earthsr_torch import group

    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(group.dist, "rendezvous", lambda *_: iter([(None, 1, 2)]))
    monkeypatch.setattr(group.dist, "PrefixStore", lambda *_: "store")
    monkeypatch.setattr(group.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(group.dist, "init_process_group", lambda kind, **options: calls.append((kind, options)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(device))
    place = torch.device("cuda", 1)
    assert group.join(place, distribute=True).rank.number == 1
    assert calls == [place, ("nccl", {"store": "store", "rank": 1, "world_size": 2, "device_id": place})]
    calls.clear()
    group.join(torch.device("cpu"), distribute=True)
    assert calls == [("gloo", {"store": "store", "rank": 1, "world_size": 2})]


#: torch_npu's part, as its documentation has it: which device, which switches, in which order.
ASCEND = """
import importlib.machinery, os, sys, types
import torch
torch.utils.rename_privateuse1_backend("npu")
calls = []

class Switch:
    def __init__(self, name, allow_hf32):
        self.name, self.allow_hf32 = name, allow_hf32
    def __setattr__(self, key, value):
        calls.append((self.__dict__.get("name"), key, value))
        super().__setattr__(key, value)

npu = types.ModuleType("torch.npu")
npu.is_available, npu.device_count = (lambda: True), (lambda: 2)
npu.get_device_name = lambda device=None: "Ascend 910B"
npu.set_device = lambda device: calls.append(("set_device", str(device)))
npu.conv, npu.matmul = Switch("conv", True), Switch("matmul", False)
torch._register_device_module("npu", npu)
package = types.ModuleType("torch_npu")
package.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
sys.modules["torch_npu"] = package

from earthsr.errors import BackendError
from earthsr_torch.backend import TorchBackend
from earthsr_torch.device import find_device, layout, module_of, numerics

assert [str(find_device(word)) for word in ("ascend", "ascend:1", "auto", "cpu")] == ["npu:0", "npu:1", "npu:0", "cpu"]
for word, text in (("ascend:2", "there is no Ascend device 2: 2 found"), ("gpu", "sees no CUDA device")):
    try:
        find_device(word)
        raise SystemExit(word)
    except BackendError as error:
        assert text in str(error), error
device = find_device("ascend:1")
assert module_of(device) is npu and layout(device) == torch.contiguous_format
found = {each.name: each for each in TorchBackend().describe().devices}["ascend"]
assert found.available and found.detail == "2 x Ascend 910B", found

for tf32, strict, convolutions in ((False, False, False), (True, False, True), (True, True, False)):
    del calls[:]
    with numerics(device, tf32=tf32, strict=strict):
        assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (convolutions, False)
    assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (True, False)  # as they were

import torch.distributed as dist
from earthsr_torch.group import join
os.environ.update(RANK="1", WORLD_SIZE="2", MASTER_ADDR="x", MASTER_PORT="1")
dist.rendezvous = lambda *_: iter([(dist.HashStore(), 1, 2)])
dist.init_process_group = lambda kind, **options: calls.append(("group", kind, options["rank"], options["world_size"]))
del calls[:]
join(device, True)
assert calls == [("set_device", "npu:1"), ("group", "hccl", 1, 2)], calls
print("as documented")
"""


def test_ascend_through_torch_npu_is_asked_as_its_documentation_says():
    done = subprocess.run([sys.executable, "-c", ASCEND], capture_output=True, text=True, timeout=120)
    assert done.stdout == "as documented\n", done.stderr

"""earthsr convert: formats, MindEarth's own weights, and what it refuses."""

import json
import os

import numpy as np
import pytest

from earthsr.backend import Model, get_backend
from earthsr.check.convert import convert, from_mindearth, read_foreign, recognise, to_mindearth
from earthsr.errors import BackendError, CheckpointError, InputError
from earthsr.models import DemSRNetSpec, initial_weights, read_weights, write_weights
from earthsr.models.weights import write_tensors
from tests.conftest import backend_parameters, call_cli, installed

SPEC = DemSRNetSpec(features=4, num_blocks=2, scale=3)
MINDEARTH = DemSRNetSpec(features=4, num_blocks=2, residual_scale=0.1, global_skip="input", resize="asymmetric")
METADATA = {"normalisation": {"kind": "patch", "offset": 0.0, "scale": 12.5}, "units": "m"}
SUFFIX = {"torch": ".pt", "mindspore": ".ckpt"}
needs = {name: pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed") for name in SUFFIX}


def weights_file(folder, spec=SPEC, seed=3):
    return write_weights(folder / "weights.safetensors", spec, initial_weights(spec, seed), METADATA)


def assert_same_weights(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("name", backend_parameters())
def test_there_and_back_changes_nothing(tmp_path, name):
    source = weights_file(tmp_path)
    middle, back = tmp_path / f"w{SUFFIX[name]}", tmp_path / "back.safetensors"
    done = call_cli("convert", source, middle, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == SPEC.parameter_count
    assert call_cli("convert", middle, back).returncode == 0
    assert back.read_bytes() == source.read_bytes()
    assert os.access(middle, os.W_OK)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["weights.safetensors", middle.name, "back.safetensors"]
    )


@pytest.mark.skipif(not all(map(installed, SUFFIX)), reason="needs both backends")
def test_from_one_framework_to_the_other(tmp_path):
    source = weights_file(tmp_path)
    convert(source, tmp_path / "a.ckpt")
    convert(tmp_path / "a.ckpt", tmp_path / "b.pth")
    read = read_foreign(tmp_path / "b.pth")
    assert read.spec == SPEC
    assert read.metadata == METADATA
    assert_same_weights(read.weights, initial_weights(SPEC, 3))


@needs["torch"]
def test_a_converted_file_is_a_plain_state_dictionary(tmp_path):
    import torch

    convert(weights_file(tmp_path), tmp_path / "w.pt")
    loaded = torch.load(tmp_path / "w.pt", weights_only=True)
    layers = torch.nn.Sequential()
    layers.add_module("head", torch.nn.Conv2d(1, 4, 3, bias=False))
    assert list(loaded) == [p.name for p in SPEC.parameters]
    state = torch.nn.Module.state_dict(layers)
    assert layers.load_state_dict({k: loaded[k] for k in state}, strict=True)


@needs["mindspore"]
def test_a_converted_file_loads_into_a_mindspore_network(tmp_path):
    get_backend("mindspore").engine(SPEC, initial_weights(SPEC, 0), device="cpu")
    import mindspore as ms

    from earthsr_mindspore.networks import build

    convert(weights_file(tmp_path), tmp_path / "w.ckpt")
    network = build(SPEC)
    not_loaded, _ = ms.load_param_into_net(network, ms.load_checkpoint(str(tmp_path / "w.ckpt")), strict_load=True)
    assert not not_loaded
    np.testing.assert_array_equal(network.head.weight.asnumpy(), initial_weights(SPEC, 3)["head.weight"])


def mindearth_network(features=4, blocks=2, scale=5):
    """MindEarth's DEMNet as its checkpoints describe it: a network of MindSpore's own cells."""
    get_backend("mindspore").engine(SPEC, initial_weights(SPEC, 0), device="cpu")
    from mindspore import nn, ops

    def conv(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 3, pad_mode="same", has_bias=False)

    class Block(nn.Cell):
        def __init__(self):
            super().__init__()
            self.res_conv1, self.res_conv2 = conv(features, features), conv(features, features)

        def construct(self, x):
            return x + 0.1 * self.res_conv2(ops.relu(self.res_conv1(x)))

    class DEMNet(nn.Cell):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = conv(1, features), conv(features, features)
            self.conv_up, self.conv_out = conv(features, features), conv(features, 1)
            self.body = nn.CellList([Block() for _ in range(blocks)])
            self.resize = ops.ResizeBilinearV2(align_corners=False, half_pixel_centers=False)

        def construct(self, x):
            y = self.conv1(x)
            for block in self.body:
                y = block(y)
            y = self.conv_up(self.conv2(y) + x)
            return self.conv_out(self.resize(y, (x.shape[2] * scale, x.shape[3] * scale)))

    return DEMNet()


@needs["mindspore"]
def test_mindearth_weights_predict_what_its_network_predicts(tmp_path):
    network = mindearth_network()
    import mindspore as ms

    checkpoint = tmp_path / "demnet.ckpt"
    # As a trainer leaves it: with moments and counters, and everything behind a wrapper's prefix.
    entries = [{"name": f"network.{name}", "data": p} for name, p in network.parameters_and_names()]
    noise = [{"name": f"moment1.{name}", "data": p} for name, p in network.parameters_and_names()]
    counters = [{"name": "global_step", "data": ms.Tensor([7])}, {"name": "beta1_power", "data": ms.Tensor(0.5)}]
    ms.save_checkpoint(entries + noise + counters, str(checkpoint))

    target = tmp_path / "demnet.safetensors"
    done = call_cli("convert", checkpoint, target, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kind"] == "MindEarth DEMNet"
    assert len(result["left_out"]) == len(entries) + 2
    file = read_weights(target)
    assert file.spec == MINDEARTH

    metres = np.random.default_rng(0).uniform(0, 500, (2, 1, 8, 9)).astype(np.float32)
    expected = network(ms.Tensor(metres)).asnumpy()
    for name in filter(installed, SUFFIX):
        found = Model.from_checkpoint(target, backend=name, device="cpu").submit(metres).result()
        # Sums of float32 in another order over a dozen convolutions, of values of some hundred metres.
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), name


@needs["mindspore"]
def test_weights_go_back_under_mindearths_names(tmp_path):
    source = weights_file(tmp_path, MINDEARTH)
    done = call_cli("convert", source, tmp_path / "demnet.ckpt", "--names", "mindearth")
    assert done.returncode == 0, done.stderr
    network = mindearth_network()
    import mindspore as ms

    not_loaded, _ = ms.load_param_into_net(network, ms.load_checkpoint(str(tmp_path / "demnet.ckpt")))
    assert not not_loaded
    metres = np.random.default_rng(0).uniform(0, 5, (1, 1, 8, 8)).astype(np.float32)
    engine = get_backend("mindspore").engine(MINDEARTH, initial_weights(MINDEARTH, 3), device="cpu")
    expected = engine.submit({"elevation": metres}).result()
    np.testing.assert_allclose(network(ms.Tensor(metres)).asnumpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_names_are_mapped_one_to_one():
    ours = [p.name for p in MINDEARTH.parameters]
    theirs = [to_mindearth(name) for name in ours]
    assert theirs[:3] == ["conv1.weight", "body.0.res_conv1.weight", "body.0.res_conv2.weight"]
    assert theirs[-3:] == ["conv2.weight", "conv_up.weight", "conv_out.weight"]
    assert [from_mindearth(name) for name in theirs] == ours
    assert from_mindearth("body.0.res_conv3.weight") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("body.1.res_conv2.weight"), r"missing blocks\.1\.conv2\.weight"),
        (lambda w: w.update({"conv2.weight": w["conv2.weight"][:, :2]}), r"body\.weight has shape"),
        (lambda w: w.update({"conv1.weight": w["conv1.weight"] * np.nan}), r"not finite"),
        (lambda w: w.update({"tail.weight": w["conv1.weight"]}), r"--config"),
    ],
)
def test_damaged_mindearth_weights_are_named(change, message):
    weights = {to_mindearth(name): value for name, value in initial_weights(MINDEARTH, 0).items()}
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        recognise(weights, {}, "demnet.ckpt")


def test_canonical_names_without_a_spec_need_a_configuration(tmp_path, tiny_file):
    config = tiny_file(model={"features": 4, "num_blocks": 2, "scale": 3, "residual_over": "none"})
    plain = tmp_path / "plain.safetensors"
    write_tensors(plain, initial_weights(SPEC, 3))
    target = tmp_path / "out.safetensors"
    refused = call_cli("convert", plain, target)
    assert refused.returncode == 2
    assert "--config" in refused.stderr
    assert not target.exists()
    done = call_cli("convert", plain, target, "--config", config)
    assert done.returncode == 0, done.stderr
    assert read_weights(target).spec == SPEC
    wrong = call_cli("convert", plain, tmp_path / "no.safetensors", "--config", config, "--set", "model.features=8")
    assert wrong.returncode == 2
    assert "shape" in wrong.stderr


@needs["torch"]
def test_a_pickle_with_a_program_in_it_is_not_run(tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"head.weight": torch.zeros(1), "trap": Trap()}, tmp_path / "trap.pt")
    done = call_cli("convert", tmp_path / "trap.pt", tmp_path / "out.safetensors")
    assert done.returncode == 2
    assert "more than weights" in done.stderr
    assert not (tmp_path / "ran").exists()


@needs["torch"]
def test_a_training_checkpoint_of_pytorch_is_understood(tmp_path, tiny_file):
    import torch

    weights = {f"module.{k}": torch.from_numpy(v).bfloat16() for k, v in initial_weights(SPEC, 3).items()}
    torch.save({"model_state_dict": weights, "epoch": 3}, tmp_path / "run.pt")
    config = tiny_file(model={"features": 4, "num_blocks": 2, "scale": 3, "residual_over": "none"})
    done = call_cli("convert", tmp_path / "run.pt", tmp_path / "out.safetensors", "--config", config)
    assert done.returncode == 0, done.stderr
    found = read_weights(tmp_path / "out.safetensors").weights["body.weight"]
    np.testing.assert_allclose(found, initial_weights(SPEC, 3)["body.weight"], rtol=0.004)


@pytest.mark.parametrize("name", backend_parameters())
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, "half"], ids=["empty", "garbage", "half"])
def test_damaged_files_are_named(tmp_path, name, content):
    path = tmp_path / f"damaged{SUFFIX[name]}"
    if content == "half":
        convert(weights_file(tmp_path), path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    done = call_cli("convert", path, tmp_path / "out.safetensors")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    source = weights_file(tmp_path)
    target = tmp_path / "there.safetensors"
    target.write_bytes(b"mine")
    assert call_cli("convert", source, target).returncode == 2
    assert target.read_bytes() == b"mine"
    assert call_cli("convert", source, target, "--overwrite").returncode == 0
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weights.safetensors", "out.onnx"), "unknown suffix"),
        (("weights.safetensors", "out"), "unknown suffix"),
        (("nowhere.ckpt", "out.safetensors"), "no such checkpoint"),
        (("weights.safetensors", "out.safetensors", "--names", "keras"), "keras"),
        (("weights.safetensors", "out.safetensors", "--set", "model.scale=3"), "--config"),
        (("weights.safetensors", "out.ckpt", "--names", "mindearth"), "not of MindEarth's DEMNet"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, message):
    if "out.ckpt" in arguments and not installed("mindspore"):
        pytest.skip("backend mindspore is not installed")
    weights_file(tmp_path)
    done = call_cli("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_missing_framework_is_named(tmp_path, monkeypatch):
    from earthsr.backend import available_backends

    backend = available_backends()["mindspore"]
    monkeypatch.setattr(backend, "installed", classmethod(lambda cls: False))
    with pytest.raises(BackendError, match=r"earthsr\[mindspore\]"):
        convert(weights_file(tmp_path), tmp_path / "out.ckpt")


def test_unknown_names_argument_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="expected earthsr or mindearth"):
        convert(weights_file(tmp_path), tmp_path / "out.safetensors", names="x")

"""Exported models: what a file says of itself, what runs it and what it refuses; and that files agree with engines."""

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from earthsr.backend import Model, TrainingEngine, available_backends, choose_backend, choose_runner, read_model
from earthsr.backend.exported import exported_metadata, read_entries
from earthsr.check.export import CASES, export
from earthsr.data.normalise import Normalisation
from earthsr.errors import BackendError, CheckpointError, InputError, WorkError
from earthsr.models import DemSRNetSpec, Precision, UNetSpec, WeightsFile, write_weights
from earthsr.models.weights import initial_weights
from tests.conftest import installed

DEM = DemSRNetSpec(features=4, num_blocks=1, scale=3)
UNET = UNetSpec(coarse_channels=3, static_channels=2, classes=4, width=4, depth=1)
METADATA = {"normalisation": Normalisation("global", 100.0, 50.0).to_dict(), "task": "dem_sr", "units": "m"}

needs = {name: pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed")
         for name in ("torch", "mindspore", "onnx")}  # fmt: skip
pytestmark = needs["onnx"]


def checkpoint(path, spec, metadata=METADATA, seed=1):
    """Weights that no initialiser left at zero, so that every layer says something."""
    weights = initial_weights(spec, seed, keep_zeros=False)
    rng = np.random.default_rng(seed)
    for parameter in spec.parameters:
        if not parameter.learns:  # running statistics, as training leaves them
            weights[parameter.name] = rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
    return write_weights(path, spec, weights, metadata)


def enlargement(path, spec=DEM, metadata=METADATA, **changes):
    """Write ONNX of the spec's interface by hand: nearest neighbours, which is all that tests of files need."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    name, factor = changes.get("input", "elevation"), [1.0, 1.0, float(spec.scale), float(spec.scale)]
    kind = changes.get("kind", kinds.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("Resize", [name, "", "factor"], ["fine"], mode="nearest")],
        "enlargement",
        [helper.make_tensor_value_info(name, kind, ["batch", 1, "height", "width"])],
        [helper.make_tensor_value_info("fine", kind, ["batch", 1, None, None])],
        [helper.make_tensor("factor", kinds.FLOAT, [4], factor)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if metadata is not None:
        packed = exported_metadata(WeightsFile(spec, {}, metadata), {"exporter": "by hand", "opset": 18})
        helper.set_model_props(model, packed)
    onnx.save(model, path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What a file says of itself


def test_a_file_says_spec_and_metadata_without_a_runtime(tmp_path):
    file = read_model(enlargement(tmp_path / "model.onnx"))
    assert file.spec == DEM
    assert file.weights == {}
    assert file.metadata == {**METADATA, "exported": {"exporter": "by hand", "opset": 18}}
    onnx = pytest.importorskip("onnx")
    expected = {entry.key: entry.value for entry in onnx.load(file.path).metadata_props}
    assert read_entries(file.path) == expected


def test_a_file_of_another_tool_is_named_as_such(tmp_path):
    path = enlargement(tmp_path / "model.onnx", metadata=None)
    with pytest.raises(CheckpointError, match=r"model\.onnx: is ONNX of another program: .*earthsr export CHECKPOINT"):
        Model.from_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path, share):
    path = enlargement(tmp_path / "model.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"is not a whole ONNX file|is ONNX of another program"):
        Model.from_checkpoint(path)


def test_other_bytes_are_refused(tmp_path):
    for number, content in enumerate([b"elevation\n", b"\x80\x04pickle", b"\xff" * 100, b"PK\x03\x04" + b"\0" * 40]):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a whole ONNX file"):
            Model.from_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Model.from_checkpoint(tmp_path / "absent.onnx")


def test_a_graph_that_is_damaged_inside_is_refused_in_one_line(tmp_path):
    path = enlargement(tmp_path / "model.onnx")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Resize", b"Rexize"))
    model = Model.from_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"onnxruntime .* cannot load it \(.*\); export it again") as caught:
        _ = model.engine
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"input": "height"}, {"kind": 6}])
def test_a_graph_that_takes_something_else_than_its_metadata_say_is_refused(tmp_path, changes):
    model = Model.from_checkpoint(enlargement(tmp_path / "model.onnx", **changes))
    with pytest.raises(CheckpointError, match=r"its graph takes .*, its metadata say elevation tensor\(float\)"):
        _ = model.engine


# What it runs, and what not


def test_a_model_runs_on_onnxruntime_whatever_else_is_installed(tmp_path):
    model = Model.from_checkpoint(enlargement(tmp_path / "model.onnx"))
    assert model.backend.name == "onnx"
    metres = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    fine = model.submit(metres, pad_to=3).result()
    assert fine.shape == (1, 1, 12, 18)
    np.testing.assert_allclose(fine[:, :, 1::3, 1::3], metres, atol=1e-4)  # metres to units of 50 m and back, float32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"elevation": np.zeros((1, 2, 8, 8), np.float32)}, r"shape \(1, 2, 8, 8\), expected \(N, 1, any, any\)"),
        ({"elevation": np.zeros((8, 8), np.float32)}, r"shape \(8, 8\), expected"),
        ({"elevation": np.zeros((1, 1, 8, 8))}, "input elevation is float64, expected float32"),
        ({"height": np.zeros((1, 1, 8, 8), np.float32)}, "inputs are height; this model takes elevation"),
    ],
)
def test_other_inputs_are_refused(tmp_path, inputs, message):
    engine = Model.from_checkpoint(enlargement(tmp_path / "model.onnx")).engine
    with pytest.raises(BackendError, match=message):
        engine.submit(inputs)


def test_it_neither_trains_nor_gives_its_weights_away(tmp_path):
    model = Model.from_checkpoint(enlargement(tmp_path / "model.onnx"))
    assert not isinstance(model.engine, TrainingEngine)
    for ask in (
        lambda: model.training_engine,
        lambda: model.weights,
        lambda: model.load_weights(initial_weights(DEM, 0)),
    ):
        with pytest.raises(BackendError, match=r"is an exported model, made for prediction: .*\(mindspore, torch\)"):
            ask()
    with pytest.raises(BackendError, match=r"runs exported models \(\.onnx\) alone: .*earthsr export CHECKPOINT"):
        choose_backend("onnx")


def test_another_precision_or_device_than_its_own_is_refused(tmp_path):
    path = enlargement(tmp_path / "model.onnx")
    with pytest.raises(BackendError, match=r"computes in float32, as it was exported; amp_level O2"):
        _ = Model.from_checkpoint(path, precision=Precision("O2")).engine
    for device, message in (("ascend", "use --backend mindspore"), ("tpu", "supports auto, cpu and gpu")):
        with pytest.raises(BackendError, match=message):
            _ = Model.from_checkpoint(path, device=device).engine


def test_backends_are_chosen_by_what_they_can_do(tmp_path, monkeypatch):
    path = enlargement(tmp_path / "model.onnx")
    for kind in available_backends().values():
        monkeypatch.setattr(kind, "installed", classmethod(lambda cls: cls.name in ("torch", "onnx")))
    assert choose_backend(None).name == "torch"
    assert choose_runner(path, None).name == "onnx"
    with pytest.raises(BackendError, match=r"backend torch does not run \.onnx files, it reads weights"):
        Model.from_checkpoint(path, backend="torch")
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    with pytest.raises(BackendError, match=r"run earthsr export CHECKPOINT model\.onnx first"):
        Model.from_checkpoint(weights, backend="onnx")
    monkeypatch.setattr(available_backends()["onnx"], "installed", classmethod(lambda cls: False))
    with pytest.raises(BackendError, match=r"backend onnx is not installed: pip install 'earthsr\[onnx\]'"):
        Model.from_checkpoint(path)
    assert read_model(path).spec == DEM


def test_the_number_of_threads_is_that_of_the_other_backends(monkeypatch):
    from earthsr_onnx.device import threads

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    for nonsense in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert threads() >= 1


# Exporting


@needs["torch"]
def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path):
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    there = enlargement(tmp_path / "there.onnx")
    before = names(tmp_path)
    for source, target, options, message in (
        (weights, "out.pb", {}, r"unknown suffix '\.pb'; expected \.mindir or \.onnx"),
        (weights, "out.onnx", {"backend": "onnx"}, r"backend onnx does not write \.onnx files; use --backend"),
        (weights, "out.mindir", {"backend": "torch"}, r"does not write \.mindir files; use --backend mindspore"),
        (weights, "out.onnx", {"backend": "torch", "opset": 9}, "opset 9 is older than torch's exporter writes"),
        (weights, "there.onnx", {"backend": "torch"}, "is there already; choose another name, or --overwrite"),
        (there, "out.onnx", {"backend": "torch"}, "is an exported model already"),
        (tmp_path / "absent", "out.onnx", {"backend": "torch"}, "no such checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            export(source, tmp_path / target, **options)
    assert names(tmp_path) == before


@needs["torch"]
def test_without_the_packages_that_write_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    with pytest.raises(BackendError, match=r"pip install 'earthsr\[export\]'"):
        export(weights, tmp_path / "out.onnx", backend="torch")
    assert names(tmp_path) == ["model.safetensors"]


def replaced(monkeypatch, write):
    """Let another writer stand in for torch's exporter; it is given that of torch, and all that it takes."""
    kind = available_backends()["torch"]
    whole = kind.export
    monkeypatch.setattr(kind, "export", lambda self, file, path, *, opset=None: write(partial(whole, self), file, path))


@needs["torch"]
def test_a_file_that_does_not_agree_is_not_kept(tmp_path, monkeypatch):
    def nearest(_, file, path):
        enlargement(path, metadata=file.metadata)
        return {"opset": 18}

    replaced(monkeypatch, nearest)
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    with pytest.raises(WorkError, match=r"differs from the torch engine by .* the tolerance is .*; nothing was left"):
        export(weights, tmp_path / "out.onnx", backend="torch")
    assert names(tmp_path) == ["model.safetensors"]


@needs["torch"]
def test_a_file_that_says_other_numbers_is_not_kept(tmp_path, monkeypatch):
    def other_numbers(_, file, path):
        enlargement(path, metadata={**file.metadata, "normalisation": Normalisation("global", 0.0, 1.0).to_dict()})
        return {"opset": 18}

    replaced(monkeypatch, other_numbers)
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    with pytest.raises(CheckpointError, match="its metadata do not read back as they were written"):
        export(weights, tmp_path / "out.onnx", backend="torch")
    assert names(tmp_path) == ["model.safetensors"]


@needs["torch"]
@pytest.mark.slow
def test_weights_that_are_a_ten_thousandth_off_are_noticed(tmp_path, monkeypatch):
    def off(whole, file, path):
        changed = {name: value * np.float32(1.0001) for name, value in file.weights.items()}
        return whole(dataclasses.replace(file, weights=changed), path)

    replaced(monkeypatch, off)
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    with pytest.raises(WorkError, match=r"differs from the torch engine by 0\.00\d+ .* the tolerance is"):
        export(weights, tmp_path / "out.onnx", backend="torch")
    assert names(tmp_path) == ["model.safetensors"]


def test_the_compared_shapes_differ_in_every_extent():
    for spec in (DEM, UNET):
        one, other = (spec.random_inputs(*case) for case in CASES)
        for field in spec.inputs:
            free = [0] + [i + 1 for i, extent in enumerate(field.shape) if extent is None]
            assert all(one[field.name].shape[i] != other[field.name].shape[i] for i in free), field.name
            assert one[field.name].dtype == field.dtype


# The matrix: every variant of a network, on every exporter

DEMS = [
    DEM,
    DemSRNetSpec(features=4, num_blocks=2, residual_over="bilinear", bias=True),
    DemSRNetSpec(features=4, num_blocks=1, residual_over="bicubic", local_mean=2),
    DemSRNetSpec(features=4, num_blocks=1, residual_over="mean_preserving", fine_features=3, bias=True),
    DemSRNetSpec(features=4, num_blocks=1, residual_over="mean_preserving", fine_features=2, upsampler="pixel_shuffle"),
    DemSRNetSpec(features=4, num_blocks=1, residual_over="conservative", scale=2, in_channels=2, out_channels=2),
    DemSRNetSpec(features=4, num_blocks=1, global_skip="input", resize="asymmetric", residual_scale=0.1),
]
SHUFFLED = [DemSRNetSpec(features=4, num_blocks=1, upsampler="pixel_shuffle", bias=True, scale=3)]
UNETS = [
    UNET,
    dataclasses.replace(UNET, norm="group", norm_groups=2, totals=True, depth=2),
    dataclasses.replace(UNET, norm="none", upsampling="transposed", prior=False),
    dataclasses.replace(UNET, head="continuous", out_channels=3, upsampling="transposed", depth=2),
]


def short(spec):
    default = type(spec)()
    changed = {k: v for k, v in dataclasses.asdict(spec).items() if v != getattr(default, k)}
    rest = {k: v for k, v in changed.items() if not k.endswith(("features", "blocks", "channels", "classes", "width"))}
    return "-".join([spec.kind, *(f"{k}={v}" for k, v in rest.items())])


def agrees(tmp_path, spec, suffix, backend):
    metadata = {**METADATA, "field": "leaf_area_index"} if getattr(spec, "head", "") == "continuous" else METADATA
    weights = checkpoint(tmp_path / "model.safetensors", spec, metadata)
    done = export(weights, tmp_path / f"model{suffix}", backend=backend)
    checked = done["checked"]
    assert checked["largest_difference"] <= checked["tolerance"] < 1e-4
    assert done["bytes"] == (tmp_path / f"model{suffix}").stat().st_size
    found = read_model(tmp_path / f"model{suffix}")
    assert found.spec == spec
    assert found.metadata["exported"]["checkpoint"]["name"] == "model.safetensors"
    # Another shape than any that the file has seen, through a model as a caller opens it; that of a transposed case,
    # for which MindSpore has the engine's graph.
    model = Model.from_checkpoint(tmp_path / f"model{suffix}", device="cpu")
    batch, height, width = CASES[1]
    assert (batch, width, height) not in CASES
    inputs = spec.random_inputs(batch, width, height, seed=9)
    engine = choose_backend(backend).engine(
        spec, initial_weights(spec, 0), device="cpu", precision=Precision("O0", strict=True)
    )
    engine.load_weights(Model.from_checkpoint(weights, backend=backend).weights)
    np.testing.assert_allclose(
        model.submit_fields(inputs).result(), engine.submit(inputs).result(), atol=checked["tolerance"] * 10
    )
    assert names(tmp_path) == sorted(["model.safetensors", f"model{suffix}"])
    return done


@needs["torch"]
@pytest.mark.slow
@pytest.mark.parametrize("spec", [*DEMS, *SHUFFLED, *UNETS], ids=short)
def test_torch_exports_every_variant_as_onnx(tmp_path, spec):
    done = agrees(tmp_path, spec, ".onnx", "torch")
    assert done["opset"] == 18
    text = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in text  # nothing of this machine's folders


@needs["torch"]
@pytest.mark.slow
def test_a_newer_opset_is_written_where_it_is_asked_for(tmp_path):
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    assert export(weights, tmp_path / "model.onnx", backend="torch", opset=20)["opset"] == 20
    with pytest.raises(BackendError, match="opset 99"):
        export(weights, tmp_path / "other.onnx", backend="torch", opset=99)


@needs["mindspore"]
@pytest.mark.slow
@pytest.mark.parametrize("spec", [*DEMS, *SHUFFLED, *UNETS], ids=short)
def test_mindspore_exports_every_variant_as_mindir(tmp_path, spec):
    assert agrees(tmp_path, spec, ".mindir", "mindspore")["opset"] is None


@needs["mindspore"]
@pytest.mark.slow
@pytest.mark.parametrize("spec", SHUFFLED, ids=short)
def test_mindspore_exports_as_onnx_what_shuffles_pixels(tmp_path, spec):
    assert agrees(tmp_path, spec, ".onnx", "mindspore")["opset"] == 11


@needs["mindspore"]
@pytest.mark.slow
@pytest.mark.parametrize("spec", [DEM, *UNETS, dataclasses.replace(SHUFFLED[0], local_mean=1)], ids=short)
def test_mindspore_refuses_onnx_that_it_cannot_write(tmp_path, spec):
    weights = checkpoint(tmp_path / "model.safetensors", spec)
    with pytest.raises(BackendError, match=r"cannot write this network as ONNX: .*--backend torch"):
        export(weights, tmp_path / "model.onnx", backend="mindspore")
    assert names(tmp_path) == ["model.safetensors"]


@needs["mindspore"]
@pytest.mark.slow
def test_a_mindir_file_that_runs_code_or_is_damaged_is_refused(tmp_path):
    weights = checkpoint(tmp_path / "model.safetensors", DEM)
    export(weights, tmp_path / "model.mindir")
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    model.ParseFromString((tmp_path / "model.mindir").read_bytes())
    model.primitives[0].op_type = "PyExecute"
    (tmp_path / "code.mindir").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"runs code beside computing \(PyExecute\), and is not opened"):
        _ = Model.from_checkpoint(tmp_path / "code.mindir").engine
    half = (tmp_path / "model.mindir").read_bytes()[:-100]
    (tmp_path / "half.mindir").write_bytes(half)
    with pytest.raises(CheckpointError, match="is not a whole MindIR file"):
        Model.from_checkpoint(tmp_path / "half.mindir")


SUBMIT = """
import sys
from pathlib import Path
import numpy as np
from earthsr.backend import Model
model = Model.from_checkpoint(sys.argv[1])
inputs = model.spec.random_inputs(2, 3, 5, seed=4)
sys.stdout.buffer.write(model.submit_fields(inputs).result().tobytes())
"""


def test_the_same_input_gives_the_same_bits_in_every_process(tmp_path):
    path = enlargement(tmp_path / "model.onnx")
    run = subprocess.run([sys.executable, "-c", SUBMIT, str(path)], capture_output=True, check=True)
    model = Model.from_checkpoint(path)
    inputs = model.spec.random_inputs(2, 3, 5, seed=4)
    here = [model.submit_fields(inputs).result().tobytes() for _ in range(2)]
    assert len({run.stdout, *here}) == 1
    assert len(here[0]) == 4 * 2 * (12 * 3) * (20 * 3)

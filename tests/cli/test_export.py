"""``earthsr export``, and an exported model as the CHECKPOINT of other verbs, with no framework at hand."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.landuse.samples import Composer
from earthsr.landuse.split import LandUseData
from earthsr.models import DemSRNetSpec, write_weights
from earthsr.models.weights import initial_weights
from tests.conftest import REPOSITORY, call_cli, installed, small_world, terrain, write_patches
from tests.landuse.reconstruct.cases import everything, write_model

pytestmark = [
    *(pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed") for name in ("torch", "onnx")),
    pytest.mark.slow,
]

SPEC = DemSRNetSpec(features=4, num_blocks=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    values = initial_weights(SPEC, 1, keep_zeros=False)
    metadata = {
        "normalisation": Normalisation("patch", 0.0, 60.0).to_dict(),
        "task": "dem_sr",
        "units": "m",
        "coarse_cell_size_deg": 1 / 240,
        "fine_cell_size_deg": 1 / 1200,
    }
    return write_weights(tmp_path_factory.mktemp("model") / "model.safetensors", SPEC, values, metadata)


@pytest.fixture(scope="module")
def exported(weights):
    """The exported model, and what the command printed as JSON."""
    target = weights.with_name("model.onnx")
    done = call_cli("export", weights, target, "--backend", "torch", "--json")
    assert done.returncode == 0, done.stderr
    return target, json.loads(done.stdout)


def test_it_says_what_it_checked(exported):
    target, said = exported
    assert said["format"] == "onnx"
    assert said["opset"] == 18
    assert said["bytes"] == target.stat().st_size
    assert said["inputs"] == {"elevation": [None, 1, None, None]}
    checked = said["checked"]
    assert checked["runtime"].startswith("onnx ")
    assert checked["engine"].startswith("torch ")
    assert 0 <= checked["largest_difference"] <= checked["tolerance"] < 1e-4
    assert len({shape["elevation"][0] for shape in checked["shapes"]}) >= 2


def test_info_describes_it(exported, weights):
    ours, theirs = (json.loads(call_cli("info", path, "--json").stdout) for path in (exported[0], weights))
    assert ours["kind"] == "checkpoint"
    assert ours["spec"] == theirs["spec"]
    assert ours["metadata"]["normalisation"] == theirs["metadata"]["normalisation"]
    about = ours["metadata"]["exported"]
    assert about["opset"] == 18
    assert about["output"] == "fine_elevation"
    assert about["checkpoint"]["name"] == "model.safetensors"


def test_predict_takes_it_without_naming_a_backend(exported, weights, tmp_path):
    np.savez(tmp_path / "in.npz", elevation=terrain(3, 2, 12))
    found = []
    for path, more in ((exported[0], []), (weights, ["--backend", "torch"])):
        target = tmp_path / f"{path.suffix[1:]}.npz"
        done = call_cli("predict", path, tmp_path / "in.npz", target, *more)
        assert done.returncode == 0, done.stderr
        found.append(np.load(target)["elevation"])
    assert found[0].shape == (2, 1, 60, 60)
    # Heights of some hundred metres in float32, which rounds at 3e-5 m, added up through four layers.
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "{weights}", "out.onnx"], "choose with --backend"),
        (["export", "{weights}", "out.onnx", "--backend", "onnx"], "does not write .onnx files"),
        (["export", "{exported}", "out.onnx", "--backend", "torch"], "is an exported model already"),
        (
            ["export", "{weights}", "{exported}", "--backend", "torch"],
            "is there already; choose another name, or --overwrite",
        ),
        (["export", "{weights}", "out.onnx", "--backend", "torch", "--opset", "7"], "opset 7 is older"),
        (["predict", "{weights}", "in.npz", "out.npz", "--backend", "onnx"], "earthsr export CHECKPOINT model.onnx"),
        (["predict", "{exported}", "in.npz", "out.npz", "--backend", "torch"], "it reads weights (.safetensors)"),
        (["predict", "{exported}", "in.npz", "out.npz", "--amp-level", "O2"], "computes in float32"),
        (["evaluate", "{exported}"], "name the folder with --data"),
        (["train", "config.yaml", "--backend", "onnx"], "it does not train"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(exported, weights, tmp_path, words, message):
    if not installed("mindspore") and "choose with" in message:
        pytest.skip("one backend writes .onnx files here, and nothing is to be chosen")
    np.savez(tmp_path / "in.npz", elevation=terrain(3, 1, 12))
    write_patches(tmp_path / "data")
    (tmp_path / "config.yaml").write_text(json.dumps({"data": {"root_dir": "data", "patch_size": 8}}))
    before = sorted(path.name for path in tmp_path.iterdir())
    filled = [word.format(weights=weights, exported=exported[0]) for word in words]
    done = call_cli(*filled, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.onnx", "model.safetensors"]


def test_doctor_lists_what_the_runtime_can_do():
    values = json.loads(call_cli("doctor", "--json").stdout)["backends"]["onnx"]
    assert values["installed"]
    assert values["devices"]["cpu"].startswith("yes: CPUExecutionProvider")
    assert "training" in values["not supported"]


WITHOUT_FRAMEWORKS = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mindspore", "onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from earthsr.cli import main
code = main(sys.argv[1:])
assert not {"torch", "mindspore", "onnx"} & set(sys.modules)
sys.exit(code)
"""


def without_frameworks(*words):
    """Run the command line where neither framework can be imported, nor what writes ONNX."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_predict_runs_with_no_framework(exported, tmp_path):
    np.savez(tmp_path / "in.npz", elevation=terrain(3, 1, 12))
    without_frameworks("predict", exported[0], tmp_path / "in.npz", tmp_path / "out.npz")
    call_cli("predict", exported[0], tmp_path / "in.npz", tmp_path / "here.npz")
    there, here = (np.load(tmp_path / f"{name}.npz")["elevation"] for name in ("out", "here"))
    np.testing.assert_array_equal(there, here)


def example(number, folder):
    """Run one of the examples of the documentation, for callers without earthsr, in a folder."""
    text = (REPOSITORY / "docs" / "export.md").read_text()
    block = text.split("```python\n")[number].split("```")[0]
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_documentation_says_how_elevations_go_in_and_come_out(exported, tmp_path):
    (tmp_path / "model.onnx").write_bytes(exported[0].read_bytes())
    metres = terrain(5, 1, 10)[0, 0]
    np.save(tmp_path / "coarse.npy", metres)
    example(1, tmp_path)
    expected = Model.from_checkpoint(exported[0]).submit(metres[None, None]).result()[0, 0]
    np.testing.assert_allclose(np.load(tmp_path / "fine.npy"), expected, atol=1e-3)  # float32 at some hundred metres


def test_evaluate_runs_with_no_framework_and_agrees(exported, weights, tmp_path):
    root = write_patches(tmp_path / "data")
    scores = []
    for path, work in ((exported[0], without_frameworks), (weights, call_cli)):
        more = ["--backend", "torch"] if work is call_cli else []
        done = work("evaluate", path, "--data", root, "--output", tmp_path / path.suffix[1:], "--json", *more)
        scores.append(json.loads(done.stdout)["scores"])
    assert scores[0]["bicubic"] == scores[1]["bicubic"]
    assert scores[0]["model"]["rmse"] == pytest.approx(scores[1]["model"]["rmse"], rel=1e-5)


def test_a_run_trained_in_a_low_precision_is_evaluated_in_the_files_own(tmp_path):
    root = write_patches(tmp_path / "data")
    values = {
        "backend": "torch",
        "model": {"features": 4, "num_blocks": 1},
        "data": {"root_dir": str(root), "patch_size": 8, "batch_size": 4, "num_workers": 1},
        "optimizer": {"epochs": 1},
        "summary": {"summary_dir": str(tmp_path / "run"), "save_checkpoint_epochs": 1},
        "train": {"amp_level": "O2"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    assert call_cli("train", tmp_path / "config.yaml").returncode == 0
    (folder,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert call_cli("export", tmp_path / "run", folder / "model.onnx", "--backend", "torch").returncode == 0
    done = call_cli("evaluate", folder / "model.onnx")  # the run's own notes say where its data are
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()


def test_reconstruct_runs_with_no_framework_and_agrees(tmp_path):
    root = small_world(tmp_path / "world", archives=True)
    weights = write_model(root / "model.safetensors", root, norm="group", norm_groups=2)
    done = call_cli("export", weights, root / "model.onnx", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    archives = root / "archives"
    statics = ("elevation", "slope", "soil", "distance_to_water", "latitude")
    words = ["--years", "1992:1994", "--anchor", archives / "landuse_1993.tif", "--chunk", "64"]
    for name in ("historical", "future"):
        words += ["--scenario", archives / f"scenario_{name}.nc"]
    for name in statics:
        words += ["--static", f"{name}={archives / 'static.nc'}:{name}"]
    without_frameworks("reconstruct", root / "model.onnx", *words, "--output", tmp_path / "onnx.zarr")
    done = call_cli("reconstruct", weights, *words, "--output", tmp_path / "torch.zarr", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    ours, theirs = everything(tmp_path / "onnx.zarr"), everything(tmp_path / "torch.zarr")
    assert ours.shape == theirs.shape
    # Where two classes are as probable to the last bit, either may win, and the year after carries it on.
    assert (ours != theirs).mean() < 1e-3
    again = call_cli("reconstruct", root / "model.onnx", *words, "--output", tmp_path / "onnx.zarr")
    assert "was finished before" in again.stdout
    land_use_example(root, tmp_path)


def land_use_example(root, folder):
    """The documentation's example gives the classes that earthsr gives for the same tile, year and prior."""
    source = LandUseData({"root_dir": str(root), "patch_size": 16}, "train")
    model = Model.from_checkpoint(root / "model.onnx")
    year, place, fine, coarse = source.layout.years[1], source.places[0], source.layout.fine, source.layout.coarse
    samples = Composer(source, model.normalisation)
    prior = samples.truth(0, source.layout.years[0])
    rows, columns, _, _ = source.window(place, "bilinear")
    np.savez(
        folder / "region.npz",
        fractions=np.nan_to_num(source.forcing(year, rows, columns)),
        static=np.nan_to_num(source.static(0)),
        prior=prior,
        year=year,
        fine_lat=fine.latitudes(int(place[0]), 16),
        fine_lon=fine.longitudes(int(place[1]), 16),
        coarse_lat=coarse.latitudes()[rows],
        coarse_lon=coarse.longitudes()[columns],
    )
    (folder / "emulator.onnx").write_bytes((root / "model.onnx").read_bytes())
    example(2, folder)
    inputs = {name: value[None] for name, value in samples.fields(0, year, prior, 1).items()}
    expected = model.submit_fields(inputs).result()[0].argmax(0)
    assert (np.load(folder / "classes.npy") == expected).mean() > 0.99  # equal probabilities, to the last bit, may flip

"""The verbs as a user runs them: in a process of its own where that is what is tested, in this one where not."""

import importlib.metadata
import json
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from earthsr.store import owned
from tests.conftest import CONFIGS, backend_parameters, call_cli, installed, run_cli

VERBS = [
    "train", "evaluate", "predict", "reconstruct", "parity", "bench", "sample", "sample dem", "config",
    "config show", "plot", "info", "doctor",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, any_backend):
    """A small run on the sample data, made by the command line."""
    folder = tmp_path_factory.mktemp("trained")
    call_cli("sample", "dem", folder / "data", "--stride", 10, check=0)
    settings = [
        *("model.features=8", "model.num_blocks=1", f"data.root_dir={folder / 'data'}"),
        *("optimizer.epochs=3", "train.amp_level=O0", "optimizer.learning_rate=1e-3"),
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = call_cli(
        "train", CONFIGS / "dem_srnet_demo.yaml", "--backend", any_backend, "--output", folder / "run", *words, check=0
    )
    assert "done: " in done.stdout
    return folder / "run"


def test_help_answers_in_half_a_second():
    """Of processor time: other tests run beside this one."""

    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_cli("--help", check=0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_a_framework(verb):
    code = (
        "import sys; from earthsr.cli import main; "
        f"code = main({[*verb.split(), '--help']!r}); "
        "assert not {'torch', 'mindspore', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: earthsr" in done.stdout


@pytest.mark.slow
def test_the_first_two_minutes(trained, any_backend):
    done = run_cli("evaluate", trained, "--backend", any_backend, check=0)
    assert "below bicubic on 5 patches of the test split" in done.stdout
    folder = trained / "evaluation"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (
        metrics["scores"]["model"]["rmse"] < metrics["scores"]["bicubic"]["rmse"] < metrics["scores"]["nearest"]["rmse"]
    )
    assert (folder / "report.html").stat().st_size > 50_000
    # Two patches, scores, profiles, the region, and the course of training.
    assert len(list((folder / "figures").glob("*.png"))) == 6
    assert done.stderr == ""


@pytest.mark.slow
def test_results_are_json_where_asked_for(trained, any_backend):
    words = ("--backend", any_backend, "--json", "--output", trained / "again")
    metrics = json.loads(call_cli("evaluate", trained, "--split", "valid", *words, check=0).stdout)
    assert metrics["split"] == "valid"
    description = json.loads(call_cli("info", trained, "--json", check=0).stdout)
    assert description["kind"] == "checkpoint"
    assert description["parameters"] > 0
    assert description["spec"]["features"] == 8
    assert description["metadata"]["normalisation"]["kind"] == "patch"
    paper = json.loads(call_cli("info", CONFIGS / "dem_srnet.yaml", "--json", check=0).stdout)
    assert paper["parameters"] == 50_729_472
    data = json.loads(call_cli("info", trained.parent / "data" / "test" / "test.h5", "--json", check=0).stdout)
    assert data["datasets"]["80_80"]["shape"] == [5, 1, 80, 80]


@pytest.mark.slow
def test_a_weights_file_alone_is_enough_with_data(trained, tmp_path, any_backend):
    file = tmp_path / "alone.safetensors"
    file.write_bytes((next(trained.glob("checkpoints/step-*")) / "weights.safetensors").read_bytes())
    done = call_cli("evaluate", file, "--backend", any_backend, check=2)
    assert "--data" in done.stderr
    call_cli("evaluate", file, "--data", trained.parent / "data", "--backend", any_backend, check=0)
    # Named after the file: beside it may lie others, and it may lie in a folder of other things.
    assert (tmp_path / "alone-evaluation" / "metrics.json").is_file()


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_predict_enlarges_what_it_is_given(trained, tmp_path, any_backend, suffix):
    rng = np.random.default_rng(0)
    elevation = (500 + 100 * rng.random((12, 9))).astype(np.float32)
    elevation[3, 4] = np.nan
    source, target = tmp_path / f"in{suffix}", tmp_path / "out" / f"fine{suffix}"
    if suffix == ".npz":
        np.savez(source, elevation=elevation, cell_size_deg=0.01, crs="EPSG:4326")
    else:
        with h5py.File(source, "w") as handle:
            handle["elevation"] = elevation
            handle.attrs["cell_size_deg"] = 0.01
            handle.attrs["crs"] = "EPSG:4326"
    done = call_cli("predict", trained, source, target, "--backend", any_backend, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output_shape"] == [60, 45]
    # 0.01 degrees are not the 0.00417 of training, and it says so.
    assert "cells of 0.01 degrees; the model was trained on 0.00416667" in done.stderr
    assert json.loads(call_cli("info", target, "--json").stdout)["kind"] in ("elevation", "data")
    if suffix == ".npz":
        with np.load(target) as archive:
            assert set(archive.files) == {
                "elevation", "cell_size_deg", "units", "crs", "scale", "checkpoint", "source",
            }  # fmt: skip
            fine, cell, units = archive["elevation"], float(archive["cell_size_deg"]), str(archive["units"])
            assert str(archive["crs"]) == "EPSG:4326"
    else:
        with h5py.File(target) as handle:
            fine, cell, units = handle["elevation"][...], handle.attrs["cell_size_deg"], handle.attrs["units"]
            assert handle.attrs["crs"] == "EPSG:4326"
    assert (cell, units) == (pytest.approx(0.002), "m")
    assert fine.shape == (60, 45)
    assert np.isnan(fine[15:20, 20:25]).all()
    assert np.isnan(fine).sum() == 25
    blocks = fine.reshape(12, 5, 9, 5).mean(axis=(1, 3))
    valid = ~np.isnan(blocks)
    assert np.abs(blocks - elevation)[valid].mean() < 20
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_predict_reads_a_split_of_patches(trained, tmp_path, any_backend):
    source = trained.parent / "data" / "test" / "test.h5"
    assert call_cli("predict", trained, source, tmp_path / "o.npz", "--backend", any_backend).returncode == 0
    with np.load(tmp_path / "o.npz") as archive:
        assert archive["elevation"].shape == (5, 1, 80, 80)


def test_config_verbs(tmp_path):
    path = CONFIGS / "dem_srnet_demo.yaml"
    assert "valid, 664,704 parameters" in call_cli("config", "validate", path, check=0).stdout
    shown = call_cli("config", "show", path, "--set", "model.features=7", check=0).stdout
    copy = tmp_path / "copy.yaml"
    copy.write_text(shown)
    assert json.loads(call_cli("config", "show", copy, "--json", check=0).stdout)["model"]["features"] == 7
    schema = json.loads(call_cli("config", "schema", check=0).stdout)
    assert "DemTrainSection" in schema["$defs"]


def test_config_validates_against_the_files(trained):
    path, root = CONFIGS / "dem_srnet_demo.yaml", trained.parent / "data"
    words = ["config", "validate", path, "--data", "--set", f"data.root_dir={root}"]
    assert "5 valid samples" in call_cli(*words, check=0).stdout
    done = call_cli(*words, "--set", "model.scale=4", check=2)
    assert "has no dataset 64_64, which data.patch_size 16 and model.scale 4 ask for" in done.stderr
    assert "set model.scale to 5" in done.stderr
    assert "set data.patch_size to 16" in call_cli(*words, "--set", "data.patch_size=32", check=2).stderr


def test_doctor_tells_what_is_here_and_what_is_not():
    values = json.loads(call_cli("doctor", "--json", check=0).stdout)
    assert set(values["backends"]) == {"torch", "mindspore", "onnx"}
    for name, backend in values["backends"].items():
        assert backend["installed"] == installed(name)
        if backend["installed"]:
            assert backend["devices"]["cpu"].startswith("yes")
            assert all(state.startswith(("yes", "no: ")) for state in backend["devices"].values())


def test_doctor_says_how_what_is_missing_is_installed(monkeypatch):
    def version(package, known=importlib.metadata.version):
        if package == "bokeh":
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    page = json.loads(call_cli("doctor", "--json", check=0).stdout)["extras"]["page"]
    assert page["bokeh"] == "not installed"
    assert "pip install 'earthsr[page]'" in page["how"]
    assert "pip install -e '.[page]'" in page["how"]


@pytest.mark.parametrize("words", [["-h"], ["plot", "-h"], ["sample", "dem", "-h"]])
def test_h_is_help(words):
    assert call_cli(*words, check=0).stdout == call_cli(*words[:-1], "--help", check=0).stdout


def test_words_are_completed(monkeypatch):
    monkeypatch.setenv("_EARTHSR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "earthsr plot --rel")
    monkeypatch.setenv("COMP_CWORD", "2")
    done = run_cli()
    assert done.stdout.split() == ["--relief"]
    monkeypatch.delenv("_EARTHSR_COMPLETE")
    assert "--install-completion" in call_cli("--help", check=0).stdout


@pytest.mark.parametrize(
    "box", [["17", "43", "18", "44"], ["-17.5", "43", "18", "44"], ["17 43 18 44"], ["17, 43, 18 44"]]
)
def test_a_box_without_commas_is_answered_with_them(box, tmp_path):
    done = call_cli("plot", tmp_path / "a.tif", "--bbox", *box, check=2)
    assert "--bbox " + ",".join(" ".join(box).replace(",", " ").split()) in done.stderr


def test_version_and_module(trained):
    import earthsr

    assert run_cli("--version", check=0).stdout.strip() == earthsr.__version__


@pytest.mark.parametrize("backend_name", backend_parameters())
@pytest.mark.slow
def test_every_backend_evaluates_a_run(trained, tmp_path, backend_name):
    words = ("--backend", backend_name, "--json", "--output", tmp_path)
    metrics = json.loads(call_cli("evaluate", trained, *words, check=0).stdout)
    assert metrics["provenance"]["backend"].startswith(backend_name)
    best = json.loads(call_cli("info", trained, "--json", check=0).stdout)
    assert best["progress"]["best_score"] > 0
    assert metrics["scores"]["model"]["rmse"] < metrics["scores"]["bicubic"]["rmse"]


@pytest.mark.slow
def test_an_evaluation_keeps_others_out_and_clears_what_killed_ones_left(trained, tmp_path, any_backend):
    words = ("evaluate", trained, "--backend", any_backend, "--output", tmp_path)
    with owned(tmp_path, inside=True):
        done = call_cli(*words)
        assert done.returncode == 2
        assert str(tmp_path) in done.stderr
        assert not (tmp_path / "report.html").exists()
    (tmp_path / "figures").mkdir()
    # Names that a process of this machine would write to, which has ended.
    code = "import sys; from pathlib import Path; from earthsr.store.whole import part_name\n"
    code += (
        "for word in sys.argv[1:]: path = Path(word); path.with_name(part_name(path) + path.suffix).write_text('half')"
    )
    unfinished = (tmp_path / "metrics.json", tmp_path / "report.html", tmp_path / "figures" / "patch-00001.png")
    subprocess.run([sys.executable, "-c", code, *map(str, unfinished)], check=True)
    assert len([path for path in tmp_path.rglob(".*") if path.is_file()]) == 3
    call_cli(*words, check=0)
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]

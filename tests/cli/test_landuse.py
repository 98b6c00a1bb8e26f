"""Land use from sample data to a report, on the command line; and what damaged files and wrong keys get."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest

from earthsr.check.parity_compare import BY_NAME
from earthsr.config import from_mapping, load_yaml_config
from earthsr.models import RunFolder, read_weights, resolve_checkpoint
from earthsr.tasks import task_for
from earthsr.training import Trainer
from tests.backends.test_training import StopAfter, metrics
from tests.cli.test_bad_input import assert_refused, edit, everything_below, replace
from tests.conftest import BACKENDS, call_cli, installed, landuse_values, run_cli, write_patches

both = pytest.mark.skipif(not all(map(installed, BACKENDS)), reason="needs both backends")
K = 7
#: MindSpore compiles a network of one level in half the time.
SHALLOW = {"model": {"depth": 1}}


def backends(fast="torch"):
    """Each backend in turn; all but one are slow."""
    absent = lambda name: pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed")  # noqa: E731
    return [pytest.param(n, marks=[absent(n), *([] if n == fast else [pytest.mark.slow])]) for n in BACKENDS]


def write_config(path, root, folder, **sections):
    path.write_text(json.dumps(landuse_values(root, folder, **sections)))  # JSON is YAML
    return path


@pytest.fixture
def config_file(landuse_dir, tmp_path):
    """Write a small configuration; sections given go before the defaults."""

    def make(folder="run", root=landuse_dir, **sections):
        return write_config(tmp_path / f"{folder}.yaml", root, tmp_path / folder, **sections)

    return make


def train(config, backend, *words):
    done = call_cli("train", config, "--backend", backend, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(landuse_dir, tmp_path_factory, any_backend):
    """Folder of a run of one epoch; only read."""
    folder = tmp_path_factory.mktemp("trained")
    train(write_config(folder / "c.yaml", landuse_dir, folder / "run"), any_backend)
    return folder / "run"


# From beginning to end


def test_the_sample_is_the_one_that_the_tests_use(landuse_dir, tmp_path):
    done = call_cli(
        "sample", "landuse", tmp_path / "d", "--rows", 48, "--columns", 256, "--years", "1990:1995", "--seed", 3,
        "--tile", 16, "--held-out-years", 2, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"train": 21, "valid": 3, "test": 6}
    for split in ("train", "valid", "test"):
        files = [h5py.File(root / split / f"{split}.h5") for root in (tmp_path / "d", landuse_dir)]
        for name in files[0]:
            np.testing.assert_array_equal(files[0][name][...], files[1][name][...])
        [file.close() for file in files]


@pytest.mark.parametrize("backend", backends())
def test_a_run_is_trained_and_evaluated(config_file, tmp_path, backend):
    done = train(config_file(**SHALLOW), backend)
    assert re.match(r"done: 8 steps, 1 epochs, best validation rollout mIoU 0\.\d+; run folder ", done.stdout)
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"checkpoints", "config.yaml", "figures", "metrics.jsonl"}
    records = metrics(run)
    assert [record["step"] for record in records] == [*range(1, 9), 8]
    valid = records[-1]["valid"]
    assert {"miou", "accuracy", "figure_of_merit", "persistence_miou", "allocation_miou"} <= set(valid)
    weights = read_weights(RunFolder(run).pointed("best") / "weights.safetensors")
    assert [c["name"] for c in json.loads(weights.metadata["class_table"])["classes"]][:2] == ["urban", "cropland"]
    assert weights.metadata["task"] == "land_use"

    done = call_cli("evaluate", run, "--backend", backend, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    folder = run / "evaluation"
    assert json.loads((folder / "metrics.json").read_text()) == found
    assert (found["task"], found["split"], found["forcing"], found["tiles"]) == ("land_use", "test", "oracle", 6)
    assert "synthetic" in found["source"]
    assert {"rollout", "no_prior", "true_prior", "persistence", "coarse_argmax", "allocation"} == set(found["scores"])
    assert len(found["scores"]["rollout"]["iou"]) == K
    assert found["protocol"]["anchor_year"] == 1993
    assert found["protocol"]["scored_years"] == [1994, 1995]
    assert {"data fingerprint", "checkpoint", "backend"} <= set(found["provenance"])
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert figures == [f"{name}.png" for name in ("areas", "confusion", "iou", "loss", "priors", "rollout")]
    for path in (folder / "figures").iterdir():
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    page = (folder / "report.html").read_text()
    assert "synthetic" in page
    assert "The forcing is an oracle" in page
    assert page.count("data:image/png;base64,") == len(figures)
    assert not re.search(r"(src|href)=[\"'](?!data:)", page), "a file beside the page"


@pytest.mark.slow
def test_validation_agrees_with_evaluate(trained, tmp_path, any_backend):
    done = call_cli("evaluate", trained, "--backend", any_backend, "--split", "valid", "--output", tmp_path / "v")
    assert done.returncode == 0, done.stderr
    assert "The world is synthetic." in done.stdout
    assert re.search(r"^rollout +0\.\d+", done.stdout, re.MULTILINE)
    scores = json.loads((tmp_path / "v" / "metrics.json").read_text())["scores"]["rollout"]
    assert scores["miou"] == pytest.approx(metrics(trained)[-1]["valid"]["miou"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends(None))
def test_everything_as_processes(tmp_path, backend):
    words = ["--rows", 48, "--columns", 256, "--years", "1990:1995", "--seed", 3, "--tile", 16, "--held-out-years", 2]
    run_cli("sample", "landuse", tmp_path / "d", *words, check=0)
    config = write_config(tmp_path / "c.yaml", tmp_path / "d", tmp_path / "run", **SHALLOW)
    run_cli("train", config, "--backend", backend, check=0)
    run_cli("evaluate", tmp_path / "run", "--backend", backend, check=0)
    assert (tmp_path / "run" / "evaluation" / "report.html").stat().st_size > 100_000


def test_info_tells_what_files_hold(config_file, trained, landuse_dir):
    def info(path):
        done = call_cli("info", path, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    config, run, data = info(config_file()), info(trained), info(landuse_dir / "test" / "test.h5")
    assert config["kind"] == "config"
    assert config["spec"]["kind"] == "unet"
    assert config["parameters"] == run["parameters"] > 1000
    assert run["spec"] == config["spec"]
    assert run["metadata"]["task"] == "land_use"
    assert run["progress"]["step"] == 8
    assert data["datasets"]["classes"]["shape"] == [6, 6, 16, 16]
    assert data["datasets"]["classes"]["layout"] == "chunks (1, 1, 16, 16), gzip"
    assert "synthetic" in data["attributes"]["source"]
    assert call_cli("info", trained).stdout.startswith("kind: checkpoint")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_go_there_and_back(trained, tmp_path, suffix):
    if suffix == ".pt":
        pytest.importorskip("torch")
    out, back = tmp_path / f"w{suffix}", tmp_path / "back.safetensors"
    for words in ((trained, out), (out, back)):
        done = call_cli("convert", *words)
        assert done.returncode == 0, done.stderr
    a, b = read_weights(resolve_checkpoint(trained)), read_weights(back)
    assert a.spec == b.spec
    assert a.weights.keys() == b.weights.keys()
    assert any("mean" in name for name in a.weights), "running statistics travel too"
    for name, value in a.weights.items():
        assert b.weights[name].tobytes() == value.tobytes(), name
    assert b.metadata["normalisation"] == a.metadata["normalisation"]


@pytest.mark.parametrize("source", ["in.npz", "absent.npz"])
def test_predict_says_that_a_model_is_of_land_use(trained, tmp_path, any_backend, source):
    np.savez(tmp_path / "in.npz", elevation=np.ones((8, 8), np.float32))
    before = everything_below(tmp_path)
    done = call_cli("predict", trained, tmp_path / source, tmp_path / "out.npz", "--backend", any_backend)
    assert_refused(done, "weights.safetensors", "is a land-use model", "earthsr reconstruct", "earthsr evaluate")
    assert everything_below(tmp_path) == before


# Resuming

#: What a resumed run has to take up again: two directions, hidden, stale and own priors, a rate that changes.
EVERYTHING = {
    **SHALLOW,
    "data": {"directions": ["forwards", "backwards"], "prior_own": 0.3, "prior_stale": 0.3, "batch_size": 32},
    "optimizer": {"epochs": 2, "schedule": "cosine", "warmup_steps": 2, "clip_norm": 1.0},
    "summary": {"save_checkpoint_steps": 3},
    "train": {"class_weights": "sqrt", "early_stopping_patience": None},
}


def stopping(config, backend, step):
    """Train until a signal comes after a step."""
    import earthsr

    stop = StopAfter(step)

    class Watched(Trainer):
        def _record(self, record, event):
            super()._record(record, event)
            getattr(stop, event)(self, record)

    return Watched(config, earthsr.init_model(config, backend), task_for(config).objective()).train()


def assert_same_weights(a, b):
    """The newest checkpoints of two runs are the same to the last bit, moments too."""
    one, other = (RunFolder(folder).newest() for folder in (a, b))
    assert one.name == other.name
    for file in ("weights.safetensors", "optimizer.safetensors"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def stops():
    """Ends and middles of epochs of four steps; one of them on MindSpore, which compiles for each run."""
    absent = {
        name: pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed") for name in BACKENDS
    }
    cases = [("torch", 2), ("torch", 4), ("torch", 5), ("torch", 7), ("mindspore", 5)]
    marks = [[absent[name], *([pytest.mark.slow] if i else [])] for i, (name, _) in enumerate(cases)]
    return [pytest.param(*case, marks=mark) for case, mark in zip(cases, marks, strict=True)]


@pytest.mark.parametrize(("backend", "step"), stops())
def test_a_run_that_was_stopped_goes_on_exactly(config_file, tmp_path, backend, step):
    whole = config_file("whole", **EVERYTHING)
    train(whole, backend)
    stopped = config_file("stopped", **EVERYTHING)
    first = stopping(load_yaml_config(stopped), backend, step)
    assert (first.interrupted_by, first.steps) == ("SIGTERM", step)
    assert f"resuming at step {step}" in train(stopped, backend, "--resume").stderr
    a, b = metrics(tmp_path / "whole"), metrics(tmp_path / "stopped")
    assert a == b
    assert a[-1]["step"] == 8
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_epochs(config_file, tmp_path, any_backend):
    settings = {**EVERYTHING, "optimizer": {"epochs": 2}}
    train(config_file("whole", **settings), any_backend)
    config = config_file("parts", **settings)
    train(config, any_backend, "--set", "optimizer.epochs=1")
    train(config, any_backend, "--resume")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert "nothing to do" in train(config, any_backend, "--resume").stderr


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ({"data": {"directions": ["forwards", "backwards"]}}, "directions"),
        ({"data": {"buffer_tiles": 3}}, "buffer_tiles"),
        ({"data": {"batch_size": 4}}, "batch_size"),
        ({"model": {"width": 6}}, "width 4 there, 6 here"),
    ],
)
def test_what_would_change_the_order_of_samples_is_not_resumed(
    trained, tmp_path, landuse_dir, any_backend, section, word
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = write_config(tmp_path / "c.yaml", landuse_dir, run, **section)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = call_cli("train", config, "--backend", any_backend, "--resume", "--set", "optimizer.epochs=2")
    assert_refused(done, word)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@both
@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_run_changes_the_framework_and_back(config_file, tmp_path, norm):
    """The checkpoint carries running statistics: what comes back scores and learns as if it had never been away."""
    settings = {
        "model": {"norm": norm, "norm_groups": 2},
        # Small steps: what is compared is what the checkpoint hands over, not how differences of rounding grow.
        "optimizer": {"learning_rate": 1e-4},
        "train": {"early_stopping_patience": None},
    }
    train(config_file("alone", **settings), "torch", "--set", "optimizer.epochs=3")
    mixed = config_file("mixed", **settings)
    for epochs, backend in ((1, "torch"), (2, "mindspore"), (3, "torch")):
        train(mixed, backend, "--set", f"optimizer.epochs={epochs}", *(["--resume"] * (epochs > 1)))
    a, b = metrics(tmp_path / "alone"), metrics(tmp_path / "mixed")
    assert [record["step"] for record in a] == [record["step"] for record in b]
    for one, other in zip(a, b, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=BY_NAME["losses"].tolerance)
        if "valid" in one:
            assert other["valid"]["miou"] == pytest.approx(one["valid"]["miou"], abs=0.01)
    ends = [
        read_weights(RunFolder(tmp_path / name).newest() / "weights.safetensors").weights for name in ("alone", "mixed")
    ]
    running = [name for name in ends[0] if "running" in name or "moving" in name]
    assert bool(running) == (norm == "batch")
    for name in running:
        np.testing.assert_allclose(ends[1][name], ends[0][name], rtol=1e-3, atol=1e-4, err_msg=name)


@both
@pytest.mark.slow
def test_backends_agree_on_a_small_unet(config_file, tmp_path):
    done = call_cli("parity", config_file(**SHALLOW), "--backends", "torch", "mindspore", "--synthetic", "--steps", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.startswith("all ") and line.endswith(" arrays agree") for line in done.stdout.splitlines())
    assert json.loads((tmp_path / "run-parity" / "parity.json").read_text())["agree"] is True


# Continuous fields

LEAVES = {"model": {"head": "continuous", "out_channels": 12}, "optimizer": {"epochs": 6, "learning_rate": 0.01}}


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends(None))
def test_leaf_area_is_learnt(config_file, tmp_path, backend):
    done = train(config_file(**LEAVES), backend)
    assert "best validation RMSE" in done.stdout
    done = call_cli("evaluate", tmp_path / "run", "--backend", backend, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["field"], found["units"]) == ("land_field", "lai", "m2 m-2")
    assert found["samples"] == 12
    assert found["scores"]["model"]["rmse"] < 0.8 * found["scores"]["training_mean"]["rmse"]
    folder = tmp_path / "run" / "evaluation"
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["field.png", "loss.png"]
    page = (folder / "report.html").read_text()
    assert "synthetic" in page
    assert "training mean" in page


# Bad input


@pytest.fixture
def refused(landuse_copy, tmp_path, any_backend):
    """Train on damaged data, or with wrong keys; the run must be refused and leave nothing."""

    def check(*words, **sections):
        config = write_config(tmp_path / "c.yaml", landuse_copy, tmp_path / "run", **sections)
        before = everything_below(tmp_path)
        assert_refused(call_cli("train", config, "--backend", any_backend), *words)
        assert everything_below(tmp_path) == before

    return check


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"data": {"patch_size": 32}}, ["train.h5: has tiles of 16 cells, data.patch_size is 32; set it to 16"]),
        ({"data": {"patch_size": 18}}, ["data.patch_size is 18; with model.depth 2 tiles are a multiple of 4"]),
        ({"model": {"depth": 5}}, ["data.patch_size is 16; with model.depth 5 tiles are a multiple of 32"]),
        ({"model": {"coarse_channels": 12}}, ["holds 7 coarse channels (urban, ", "_channels is 12; set it to 7"]),
        ({"model": {"static_channels": 4}}, ["holds 5 static channels (elevation", "model.static_channels is 4"]),
        ({"model": {"classes": 8}}, ["holds 7 classes (urban, cropland, ", "model.classes is 8; set it to 7"]),
        ({"model": {"head": "continuous", "out_channels": 11}}, ["lai has 12 channels, model.out_channels is 11"]),
        ({**LEAVES, "data": {"target": "ndvi"}}, ["train.h5: has no continuous field ndvi; it has lai (data.target)"]),
        ({"model": {"prior": False}, "data": {"prior_own": 0.2}}, ["data.prior_own", "model.prior is false"]),
        ({"model": {"norm": "group", "width": 6, "norm_groups": 4}}, ["model.norm_groups is 4", "model.width 6"]),
        ({"train": {"loss": "mse"}}, ["train.loss is mse, but the model's output is of classes: use cross_entropy"]),
        ({**LEAVES, "train": {"loss": "cross_entropy"}}, ["train.loss is cross_entropy", "continuous: use mse"]),
        ({"train": {"dice": 1}, "optimizer": {"accumulate": 2}}, ["train.dice is 1", "optimizer.accumulate is 2"]),
        ({"train": {"class_weights": [1, 2]}}, ["train.class_weights lists 2, model.classes is 7"]),
        ({"train": {"class_weights": "balancd"}}, ["train.class_weights"]),
        ({"data": {"directions": []}}, ["data.directions"]),
        ({"data": {"directions": ["sideways"]}}, ["data.directions"]),
        ({"data": {"prior_hidden": 1.5}}, ["data.prior_hidden"]),
        ({"model": {"features": 4}}, ["model", "features"]),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)  # fmt: skip
def test_keys_that_do_not_fit(refused, section, words):
    refused(*words, **section)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_class_that_is_not_in_the_table(refused, landuse_copy, split):
    edit(landuse_copy / split / f"{split}.h5", lambda file: file["classes"].__setitem__((1, 2, 3, 4), 9))
    refused(
        f"{split}.h5: classes holds 9 in tile 1, year 1992, row 3, column 4; the table has 7 classes, and 255 is nodata"
    )


@pytest.mark.parametrize("value", [1.5, -0.2, np.inf, -np.inf, 37.0])
def test_forcing_that_is_no_fraction(refused, landuse_copy, value):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["coarse"].__setitem__((2, 1, 0, 3), value))
    refused(f"train.h5: coarse holds {value:g} for cropland in 1992, row 0, column 3; expected a fraction of 0 to 1")


def test_fractions_that_add_up_to_more_than_one(refused, landuse_copy):
    edit(landuse_copy / "valid" / "valid.h5", lambda file: file["coarse"].__setitem__((1, slice(0, 3), 2, 5), 0.9))
    refused("valid.h5: coarse adds up to ", " in 1991, row 2, column 5; expected at most 1")


def test_static_fields_that_are_infinite(refused, landuse_copy):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["static"].__setitem__((4, 1, 2, 3), np.inf))
    refused("train.h5: static holds inf for ", " in tile 4, row 2, column 3; ")


def test_static_fields_without_a_value_are_taken(landuse_copy, tmp_path, any_backend):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["static"].__setitem__((4, 1, 2, 3), np.nan))
    edit(landuse_copy / "train" / "train.h5", lambda file: file["coarse"].__setitem__((1, 2, 1, 1), np.nan))
    train(write_config(tmp_path / "c.yaml", landuse_copy, tmp_path / "run"), any_backend)
    assert np.isfinite([record["loss"] for record in metrics(tmp_path / "run")]).all()


@pytest.mark.parametrize("years", [[1990, 1992, 1991, 1993], [1990, 1990, 1991, 1992]])
def test_years_that_do_not_ascend(refused, landuse_copy, years):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["years"].__setitem__(..., years))
    refused(f"train.h5: years are not ascending: ({', '.join(map(str, years))})")


DATASETS = [
    "static",
    "classes",
    "coarse",
    "coarse_latitude",
    "coarse_longitude",
    "tile_index",
    "tile_origin",
    "years",
    "lai",
]


@pytest.mark.parametrize("key", DATASETS)
def test_a_missing_dataset(refused, landuse_copy, key):
    edit(landuse_copy / "train" / "train.h5", lambda file: file.__delitem__(key))
    refused(f"train.h5: has no dataset {key}; found ")


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("classes", lambda v: v[:, :, :, :8], "classes has shape (21, 4, 16, 8)"),
        ("classes", lambda v: v[:, 0], "classes has shape (21, 16, 16), expected ("),
        ("classes", lambda v: v[:0], "classes has shape (0, 4, 16, 16)"),
        ("classes", lambda v: v.astype("f4"), "classes holds float32"),
        ("static", lambda v: v[:5], "static has shape (5, 5, 16, 16), expected (21, 5, 16, 16)"),
        ("static", lambda v: v[:, :3], "static has shape (21, 3, 16, 16)"),
        ("coarse", lambda v: v[:3], "coarse has shape (3, 7, 3, 16), expected (4, 7, any, any)"),
        ("coarse", lambda v: v[:, :, :2], "coarse_latitude has shape (3,), expected (2)"),
        ("coarse", lambda v: np.full(v.shape, b"x"), "coarse holds |S1"),
        ("coarse_longitude", lambda v: v[:-1], "coarse_longitude has shape (15,), expected (16)"),
        ("coarse_longitude", lambda v: v[::-1], "coarse_longitude is not regular from west to east"),
        ("coarse_longitude", lambda v: v * 0 + 3, "coarse_longitude is not regular from west to east"),
        ("coarse_latitude", lambda v: v[::-1], "coarse_latitude is not regular from north to south"),
        ("coarse_latitude", lambda v: v * np.nan, "coarse_latitude is not regular"),
        ("coarse_latitude", lambda v: v - 0.5, "the forcing (46.75 to 47.5 N, -8 to -4 E) does not cover tile 0"),
        (
            "coarse_latitude",
            lambda v: v + 0.5,
            "(47.75 to 48.5 N, -8 to -4 E) does not cover tile 6 at row 16, column 0 (47.508 to",
        ),
        (
            "coarse_longitude",
            lambda v: v + 0.25,
            "(47.25 to 48 N, -7.75 to -3.75 E) does not cover tile 0 at row 0, column 0",
        ),
        (
            "coarse_longitude",
            lambda v: v - 4,
            "does not cover tile 0 at row 0, column 0 (47.758 to 47.992 N, -7.992 to -7.758 E)",
        ),
        ("years", lambda v: v[:3], "years has shape (3,), expected (4)"),
        ("years", lambda v: v.astype("f8"), "years holds float64"),
        ("tile_index", lambda v: v[:3], "tile_index has shape (3, 2), expected (21, 2)"),
        ("tile_index", lambda v: v + 1000, "tile_index names row 1000, column 1000"),
        ("tile_index", lambda v: v - 1, "tile_index names row -1, column -1"),
        ("lai", lambda v: v[:, :, :, :8], "lai has shape (21, 4, 12, 8, 16)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_datasets_that_do_not_fit_each_other(refused, landuse_copy, key, change, words):
    edit(landuse_copy / "train" / "train.h5", lambda file: replace(file, key, change(file[key][...])))
    refused("train.h5: ", words)


ATTRIBUTES = [
    "classes",
    "static_channels",
    "coarse_channels",
    "forcing_classes",
    "continuous",
    "held_out_years",
    "statistics",
]


@pytest.mark.parametrize("text", [None, "{", "7", '{"a": 1}', '["a", 2]'], ids=str)
@pytest.mark.parametrize("key", ATTRIBUTES)
def test_damaged_attributes(refused, landuse_copy, key, text):
    def damage(file):
        if text is None:
            del file.attrs[key]
        else:
            file.attrs[key] = text

    edit(landuse_copy / "train" / "train.h5", damage)
    # Names of other datasets or channels are not damaged: the datasets do not fit them.
    refused("train.h5: ", {"coarse_channels": "coarse", "continuous": ""}.get(key, key))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("classes", np.arange(3), "attribute classes is damaged"),
        ("statistics", 7, "attribute statistics is damaged"),
        ("transform", np.zeros(6), "transform"),
        ("transform", np.arange(5.0), "transform and grid_shape should hold 6 and 2 numbers"),
        ("transform", np.full(6, np.nan), "transform"),
        ("grid_shape", np.array([48]), "transform and grid_shape"),
        (
            "forcing_classes",
            json.dumps({"urban": ["town"]}),
            "forcing_classes names town, which is no channel of coarse",
        ),
        ("forcing_classes", json.dumps({"city": ["urban"]}), "forcing_classes names city, which is no class"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_attributes_that_do_not_fit(refused, landuse_copy, key, value, words):
    edit(landuse_copy / "train" / "train.h5", lambda file: file.attrs.__setitem__(key, value))
    refused("train.h5: ", words)


@pytest.mark.parametrize("name", ["channels", "units", "scale_factor"])
def test_a_field_that_does_not_say_what_it_is(refused, landuse_copy, name):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["lai"].attrs.__delitem__(name))
    refused("train.h5: ", "lai", name, **LEAVES)


def test_a_field_with_more_labels_than_channels(refused, landuse_copy):
    edit(landuse_copy / "train" / "train.h5", lambda file: file["lai"].attrs.__setitem__("channels", '["a", "b"]'))
    refused("train.h5: lai has shape (21, 4, 12, 16, 16), expected (21, 4, 2, 16, 16)", **LEAVES)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_truncated_file(refused, landuse_copy, split, keep):
    path = landuse_copy / split / f"{split}.h5"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    refused(f"{split}.h5: ", "write or copy it again")


def test_a_missing_split_and_a_folder_of_elevations(refused, landuse_copy, tmp_path):
    (landuse_copy / "valid" / "valid.h5").unlink()
    refused("valid.h5: no such data file")
    refused(
        "train.h5: has no dataset classes; found 40_40, 8_8", data={"root_dir": str(write_patches(tmp_path / "dem"))}
    )


# Evaluation of what does not fit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f["classes"].__setitem__((0, 5, 1, 2), 7), "classes holds 7 in tile 0, year 1995, row 1, column 2"),
        (lambda f: f["coarse"].__setitem__((5, 0, slice(None), slice(None)), 2.0), "coarse holds 2 for urban in 1995"),
        (lambda f: f.attrs.__setitem__("anchor_year", 1800), "anchor_year is 1800"),
        (lambda f: f.attrs.__setitem__("anchor_year", 1994), "anchor_year is 1994"),
        (lambda f: f["years"].__setitem__(..., range(1994, 2000)), "anchor_year is 1993"),
        (lambda f: replace(f, "coarse_longitude", f["coarse_longitude"][...] + 5), "does not cover tile 0"),
        (lambda f: f.__delitem__("coarse"), "has no dataset coarse"),
    ],
    ids=["class", "fraction", "anchor", "held-out anchor", "years", "grid", "dataset"],
)
def test_damaged_test_files_are_refused_and_nothing_is_written(
    trained, landuse_copy, tmp_path, any_backend, damage, words
):
    edit(landuse_copy / "test" / "test.h5", damage)
    before = everything_below(tmp_path)
    done = call_cli(
        "evaluate", trained, "--data", landuse_copy, "--backend", any_backend, "--output", tmp_path / "evaluation"
    )
    assert_refused(done, "test.h5: ", words)
    assert everything_below(tmp_path) == before


def test_data_of_another_kind_are_refused(trained, tmp_path, landuse_copy, any_backend):
    def check(root, *words):
        done = call_cli("evaluate", trained, "--data", root, "--backend", any_backend, "--output", tmp_path / "e")
        assert_refused(done, *words)
        assert not (tmp_path / "e").exists()

    check(write_patches(tmp_path / "dem"), "test.h5: has no dataset classes; found 40_40, 8_8")
    edit(landuse_copy / "test" / "test.h5", lambda f: f.attrs.__setitem__("static_channels", json.dumps(
        json.loads(f.attrs["static_channels"])[:4]
    )))  # fmt: skip
    check(landuse_copy, "test.h5: static has shape (6, 5, 16, 16), expected (6, 4, 16, 16)")


def test_what_is_refused_here_trains_when_it_is_not_damaged(landuse_copy, tmp_path):
    """Else the refusals would prove nothing."""
    task = task_for(from_mapping(landuse_values(landuse_copy, tmp_path / "run")))
    for split in ("train", "valid", "test"):
        task.data(split).scan()

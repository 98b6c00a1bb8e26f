"""What bad input gets: one clear line, exit code 2, no traceback, nothing half-written."""

import importlib.util
import pickle

import h5py
import numpy as np
import pytest

from tests.conftest import CONFIGS, call_cli, run_cli, tiny_values, write_patches


def assert_refused(done, *words):
    assert done.returncode == 2, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert done.stdout == ""


def everything_below(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def refused(tiny_file, data_dir, tmp_path, any_backend):
    """Train on damaged data; the run must be refused and leave nothing."""

    def check(*words, **sections):
        config = tiny_file(**sections)
        before = everything_below(tmp_path)
        assert_refused(call_cli("train", config, "--backend", any_backend), *words)
        assert everything_below(tmp_path) == before

    return check


def edit(path, change):
    with h5py.File(path, "r+") as handle:
        change(handle)


def replace(handle, key, values):
    del handle[key]
    handle[key] = values


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_missing_file(refused, data_dir, split):
    (data_dir / split / f"{split}.h5").unlink()
    refused(f"{split}.h5: no such data file")


def test_a_missing_folder(refused):
    refused("nowhere/train/train.h5: no such data file", data={"root_dir": "nowhere"})


@pytest.mark.parametrize("key", ["8_8", "40_40"])
def test_a_missing_key(refused, data_dir, key):
    edit(data_dir / "train" / "train.h5", lambda handle: handle.__delitem__(key))
    refused("train.h5: has no dataset", key)


def test_wrong_shapes(refused, data_dir):
    edit(data_dir / "train" / "train.h5", lambda handle: replace(handle, "40_40", np.zeros((12, 1, 40, 39), "f4")))
    refused("40_40 has shape (12, 1, 40, 39), expected (N, N, 40, 40)")


def test_a_mask_of_another_shape(refused, data_dir):
    edit(data_dir / "train" / "train.h5", lambda handle: handle.create_dataset("mask_40", data=np.ones((3, 40, 40))))
    refused("mask_40 has shape (3, 40, 40), expected (12, 40, 40)")


def test_counts_that_differ(refused, data_dir):
    edit(data_dir / "train" / "train.h5", lambda handle: replace(handle, "8_8", np.zeros((11, 1, 8, 8), "f4")))
    refused("8_8 holds 11 patches of 1 channel(s), 40_40 holds 12 of 1; they must pair up")


def test_a_scale_that_does_not_match(refused):
    refused("has no dataset 32_32", "set model.scale to 5", model={"scale": 4})


def test_channels_that_do_not_match(refused):
    refused("holds 1 channel(s), model.in_channels is 2", model={"in_channels": 2, "out_channels": 2})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -32768])
@pytest.mark.parametrize("key", ["8_8", "40_40"])
def test_values_that_are_no_elevations(refused, data_dir, key, value):
    def damage(handle):
        patch = handle[key][7]
        patch[0, 1, 2] = value
        handle[key][7] = patch

    edit(data_dir / "train" / "train.h5", damage)
    what = "-32768 m, a fill value?" if value == -32768 else "a NaN or infinite value"
    refused(f"{key} holds {what} in patch 7, row 1, column 2, where no mask covers it")


def test_a_fill_value_that_passes_for_an_elevation(refused, data_dir):
    def damage(handle):
        patches = handle["40_40"][...]
        patches[7, 0, 3:5, 6] = -9999
        replace(handle, "40_40", patches)

    edit(data_dir / "train" / "train.h5", damage)
    refused("40_40 holds -9999 m, a fill value, in 2 cells of patch 7, the first in row 3, column 6")


def test_an_unmasked_nan_in_the_validation_split_is_found_before_training(refused, data_dir):
    def damage(handle):
        patch = handle["40_40"][0]
        patch[0, 0, 0] = np.nan
        handle["40_40"][0] = patch

    edit(data_dir / "valid" / "valid.h5", damage)
    refused("valid.h5: 40_40 holds a NaN")


def test_an_empty_split(refused, data_dir):
    def damage(handle):
        replace(handle, "8_8", np.zeros((0, 1, 8, 8), "f4"))
        replace(handle, "40_40", np.zeros((0, 1, 40, 40), "f4"))

    edit(data_dir / "valid" / "valid.h5", damage)
    refused("valid.h5: the split is empty")


def test_all_masked(refused, data_dir):
    def damage(handle):
        handle["mask_40"] = np.zeros((12, 1, 40, 40), np.uint8)
        del handle.attrs["statistics"]

    edit(data_dir / "train" / "train.h5", damage)
    refused("train.h5", "masks cover every cell", "train split", "prepare it from rasters")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file(refused, data_dir, keep):
    path = data_dir / "train" / "train.h5"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    refused("train.h5: ", "write or copy it again")


def test_units_other_than_metres(refused, data_dir):
    edit(data_dir / "train" / "train.h5", lambda handle: handle.attrs.__setitem__("units", "feet"))
    refused("units are 'feet', expected metres")


def test_text_where_numbers_are_expected(refused, data_dir):
    text = np.full((12, 1, 8, 8), b"x")
    edit(data_dir / "train" / "train.h5", lambda handle: replace(handle, "8_8", text))
    refused("8_8 holds |S1, expected float32 elevations")


@pytest.mark.parametrize("text", ["{", "[1]", '{"mean": 3}', '{"count": "many"}'])
def test_damaged_statistics(refused, data_dir, text):
    edit(data_dir / "train" / "train.h5", lambda handle: handle.attrs.__setitem__("statistics", text))
    refused("train.h5: attribute statistics")


def test_an_unknown_layer_group(refused):
    refused("train.freeze names 'tail'", train={"freeze": ["tail"]})


def test_an_unwritable_place(tiny_file, tmp_path, any_backend):
    (tmp_path / "file").write_text("")
    config = tiny_file(summary={"summary_dir": str(tmp_path / "file" / "run")})
    assert_refused(call_cli("train", config, "--backend", any_backend), "cannot create folder")


def test_contradicting_options(tiny_file):
    assert_refused(call_cli("train", tiny_file(), "--resume", "--overwrite"), "contradict each other")


# Backends


def test_an_unknown_backend(tiny_file):
    assert_refused(call_cli("train", tiny_file(), "--backend", "jax"), "unknown backend 'jax'; installed: ")


def test_a_backend_that_is_not_installed(tiny_file, tmp_path):
    # A finder that hides one framework stands in for a machine without it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'mindspore' else found(name, *a)\n"
    )
    done = run_cli("train", tiny_file(), "--backend", "mindspore", env={"PYTHONPATH": str(tmp_path)})
    assert_refused(done, "backend mindspore is not installed: pip install 'earthsr[mindspore]'")


def test_trackers_that_are_not_installed(tiny_file, tmp_path, any_backend, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else found(name, *a))
    config = tiny_file(summary={"mlflow": True})
    before = everything_below(tmp_path)
    done = call_cli("train", config, "--backend", any_backend)
    assert_refused(done, "summary.mlflow needs the package mlflow-skinny: pip install 'earthsr[logging]'")
    assert everything_below(tmp_path) == before


def test_training_in_test_mode(tiny_file, any_backend):
    config = tiny_file(train={"run_mode": "test"})
    assert_refused(call_cli("train", config, "--backend", any_backend), "use earthsr evaluate")


def test_a_device_that_is_not_there(tiny_file, tmp_path, any_backend):
    absent = "ascend" if any_backend == "torch" else "gpu"
    assert_refused(call_cli("train", tiny_file(), "--backend", any_backend, "--device", absent), absent)
    assert not (tmp_path / "run").exists()


# Checkpoints


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from earthsr.models import DemSRNetSpec, initial_weights, write_weights

    spec = DemSRNetSpec(features=2, num_blocks=1)
    normalisation = {"kind": "none", "offset": 0.0, "scale": 1.0}
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return write_weights(path, spec, initial_weights(spec, 0), {"normalisation": normalisation})


@pytest.fixture
def elevation(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, elevation=np.full((8, 8), 100.0, np.float32))
    return path


def predict_refused(tmp_path, any_backend, checkpoint, source, *words, target="out.npz"):
    before = everything_below(tmp_path)
    done = call_cli("predict", checkpoint, source, tmp_path / target, "--backend", any_backend)
    assert_refused(done, *words)
    assert everything_below(tmp_path) == before


def test_a_pickle_where_safetensors_is_expected(tmp_path, elevation, any_backend):
    for name in ("model.safetensors", "model.pt"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"weight": [1.0]}))
        predict_refused(tmp_path, any_backend, path, elevation, name, "is a pickle", "expected safetensors")


def test_a_checkpoint_of_another_model(tiny_file, tmp_path, weights, any_backend):
    config = tiny_file(summary={"ckpt_path": str(weights)}, train={"load_ckpt": True})
    before = everything_below(tmp_path)
    done = call_cli("train", config, "--backend", any_backend)
    assert_refused(done, "is a checkpoint of another model", "features 2 there, 4 here")
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("keep", [0, 4, 50, 0.5, 0.99])
def test_a_truncated_checkpoint(tmp_path, weights, elevation, any_backend, keep):
    content = weights.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    predict_refused(tmp_path, any_backend, path, elevation, "cut.safetensors: is not a whole safetensors file")


def test_no_checkpoint(tmp_path, elevation, any_backend):
    predict_refused(tmp_path, any_backend, tmp_path / "absent", elevation, "no such checkpoint")
    predict_refused(tmp_path, any_backend, tmp_path, elevation, "is neither a run folder")


def test_evaluating_on_data_of_another_scale(tmp_path, weights, any_backend):
    root = write_patches(tmp_path / "other", scale=4)
    done = call_cli("evaluate", weights, "--data", root, "--backend", any_backend, "--output", tmp_path / "evaluation")
    assert_refused(done, "is the scale 5?")
    assert not (tmp_path / "evaluation").exists()


# Inputs of predict


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable .npz"),
        (b"PK\x03\x04 not a zip", "not a readable .npz"),
        (pickle.dumps([1, 2]), "not a readable .npz"),
    ],
)
def test_damaged_arrays(tmp_path, weights, any_backend, content, message):
    source = tmp_path / "in.npz"
    source.write_bytes(content)
    predict_refused(tmp_path, any_backend, weights, source, message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, 3)), "b": np.zeros((3, 3))}, "holds a, b; name the array to enlarge elevation"),
        ({"elevation": np.zeros((2, 2, 2, 2, 2))}, "expected numbers of shape (H, W)"),
        ({"elevation": np.full((3, 3), "x")}, "expected numbers"),
        ({"elevation": np.array([[1.0, np.inf]])}, "holds infinite values"),
        ({"elevation": np.zeros((1, 2, 3, 3))}, "has 2 channel(s), this model takes 1"),
        ({"elevation": np.zeros((0, 3))}, "is empty"),
        ({"elevation": np.full((3, 3), -32768)}, "holds -32768 m, outside -12,000 to 9,500 m: a fill value?"),
        (
            {"elevation": np.where(np.arange(64).reshape(8, 8) == 9, -9999, 50)},
            "holds -9999 m in 1 cells, far from all their neighbours: a fill value",
        ),
        ({"elevation": np.array([[{"a": 1}]], dtype=object)}, "not a readable .npz"),
    ],
)
def test_arrays_that_are_no_elevation(tmp_path, weights, any_backend, arrays, message):
    source = tmp_path / "in.npz"
    np.savez(source, **arrays)
    predict_refused(tmp_path, any_backend, weights, source, "in.npz" if "channel" not in message else "", message)


def test_outputs_that_are_there_are_kept(tmp_path, weights, elevation, any_backend):
    target = tmp_path / "out.npz"
    target.write_bytes(b"of an earlier run")
    predict_refused(tmp_path, any_backend, weights, elevation, "is there already")
    again = call_cli("predict", weights, elevation, target, "--backend", any_backend, "--overwrite")
    assert again.returncode == 0, again.stderr
    with np.load(target) as archive:
        assert "elevation" in archive.files


def test_an_input_is_not_replaced_by_what_is_made_of_it(tmp_path, weights, elevation, any_backend):
    before = elevation.read_bytes()
    done = call_cli("predict", weights, elevation, elevation, "--backend", any_backend, "--overwrite")
    assert_refused(done, elevation.name, "is the input", "another name")
    assert elevation.read_bytes() == before


def test_sample_data_do_not_replace_data(tmp_path, data_dir):
    before = (data_dir / "train" / "train.h5").read_bytes()
    assert_refused(call_cli("sample", "dem", data_dir), "train is there already", "--overwrite")
    assert (data_dir / "train" / "train.h5").read_bytes() == before


def test_freezing_everything(refused):
    refused("nothing is left to learn", train={"freeze": ["head", "blocks", "body", "up", "out"]})


def test_formats_that_are_not_there(tmp_path, weights, elevation, any_backend):
    predict_refused(tmp_path, any_backend, weights, elevation, "output of type .tif is not supported", target="o.tif")
    (tmp_path / "in.tif").write_bytes(b"II*\x00")
    predict_refused(tmp_path, any_backend, weights, tmp_path / "in.tif", "input of type .tif is not supported")


# The command line itself


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "Missing argument 'CONFIG'"),
        (["trian"], "No such command 'trian'"),
        (["train", "c.yaml", "--bakend", "x"], "No such option: --bakend"),
        (["train", "absent.yaml"], "no such configuration file"),
        (["config", "show", str(CONFIGS / "dem_srnet.yaml"), "--set", "model.featurs=3"], "did you mean features?"),
        (["info", "absent.xyz"], "no such file"),
        (["sample", "dem", "x", "--patch-size", "ten"], "valid integer"),
        (["evaluate", "absent", "--split", "tset"], "--split is 'tset'"),
        (["predict", "absent", "in.npz", "out.npz", "--amp-level", "O7"], "--amp-level is 'O7'"),
    ],
)
@pytest.mark.parametrize("run", [call_cli, run_cli], ids=["in process", "as a process"])
def test_wrong_words(tmp_path, run, words, message):
    assert_refused(run(*words, cwd=tmp_path), message)
    assert list(tmp_path.iterdir()) == []


def test_traceback_shows_the_rest(tmp_path):
    done = call_cli("info", "absent.xyz", "--traceback", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: absent.xyz")


def test_failed_work_exits_with_one(tiny_file, any_backend):
    config = tiny_file(optimizer={"learning_rate": 1e30, "epochs": 4})
    done = call_cli("train", config, "--backend", any_backend)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: training diverged")
    assert "at step 2" in last
    assert "optimizer.learning_rate" in last
    assert "Traceback" not in done.stderr


def test_tiny_values_are_valid(data_dir, tmp_path):
    """The fixture that the refusals damage trains when it is not damaged; else they would prove nothing."""
    from earthsr.config import from_mapping
    from earthsr.tasks import task_for

    task = task_for(from_mapping(tiny_values(data_dir, tmp_path)))
    assert len(task.data("train")) == 12

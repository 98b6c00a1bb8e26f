"""Commands that are killed, that meet another one, whose output is their input, or whom nobody hears."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from earthsr.models import DemSRNetSpec, RunFolder, write_weights
from earthsr.models.weights import initial_weights
from tests.cli.test_bad_input import assert_refused
from tests.conftest import call_cli, run_cli
from tests.dem.test_prepare_dem import cells, write_dem

SPEC = DemSRNetSpec(features=2, num_blocks=1)

#: Runs a command, and kills itself at the n-th file of a data set that gets its place.
KILLED = """
import os, signal, sys
replace, moved = os.replace, []
def counted(old, new):
    split = os.path.basename(new)
    if split in ("train.h5", "valid.h5", "test.h5") and os.path.basename(old) == split:
        moved.append(split)
        if len(moved) > int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
os.replace = counted
from earthsr.cli.main import main
main(sys.argv[2:])
"""


def killed_at(count, *words):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(count), *map(str, words)], capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def weights(tmp_path):
    metadata = {"normalisation": {"kind": "patch_mean"}, "units": "m"}
    return write_weights(tmp_path / "w.safetensors", SPEC, initial_weights(SPEC, 0), metadata)


# An output that is an input.


@pytest.mark.parametrize("way", ["itself", "symlink", "hardlink", "folder"])
def test_predict_does_not_replace_its_input(tmp_path, any_backend, way):
    source = tmp_path / "dem.tif"
    write_dem(source, cells(20, 20).astype(np.float32))
    target = tmp_path / "other.tif"
    if way == "symlink":
        target.symlink_to(source)
    elif way == "hardlink":
        os.link(source, target)
    elif way == "folder":
        (tmp_path / "there").symlink_to(tmp_path)
        target = tmp_path / "there" / "dem.tif"
    else:
        target = source
    before = source.read_bytes()
    done = call_cli("predict", "demo-dem", source, target, "--overwrite", "--backend", any_backend)
    assert_refused(done, str(target), "is the input", "choose another name")
    assert source.read_bytes() == before


def test_nor_where_a_variable_is_named_or_the_input_is_an_array(tmp_path, any_backend):
    xarray = pytest.importorskip("xarray")
    store = tmp_path / "dem.nc"
    axes = {"lat": 46 - np.arange(20) / 1200, "lon": 8 + np.arange(20) / 1200}
    xarray.Dataset({"z": (("lat", "lon"), cells(20, 20).astype(np.float32), {"units": "m"})}, axes).to_netcdf(store)
    np.savez(tmp_path / "dem.npz", elevation=cells(20, 20).astype(np.float32))
    for source, target in ((f"{store}:z", store), (tmp_path / "dem.npz", tmp_path / "dem.npz")):
        before = target.read_bytes()
        done = call_cli("predict", "demo-dem", source, target, "--overwrite", "--backend", any_backend)
        assert_refused(done, str(target), "is the input")
        assert target.read_bytes() == before


def test_convert_and_bench_do_not_replace_their_inputs(tmp_path, weights, tiny_file):
    before = weights.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(weights)
    done = call_cli("convert", weights, tmp_path / "link.safetensors", "--overwrite")
    assert_refused(done, "link.safetensors", "is the input")
    assert weights.read_bytes() == before
    config = tiny_file()
    before = config.read_bytes()
    assert_refused(call_cli("bench", config, "--output", config), "is the input")
    assert config.read_bytes() == before


def test_a_training_does_not_remove_the_weights_that_it_begins_with(tiny_file, tmp_path, any_backend):
    assert call_cli("train", tiny_file(), "--backend", any_backend).returncode == 0
    step = RunFolder(tmp_path / "run").newest()
    settings = ("--set", "train.load_ckpt=true", "--set", f"summary.ckpt_path={step}")
    done = call_cli("train", tiny_file(), "--overwrite", "--backend", any_backend, *settings)
    assert_refused(done, "checkpoints: is the input", "weights.safetensors")
    assert RunFolder(tmp_path / "run").newest() == step


# Two at one output.


def test_two_trainings_do_not_meet_in_one_run_folder(tiny_file, tmp_path, any_backend):
    first = RunFolder(tmp_path / "run").lock(None)
    try:
        words = ("train", tiny_file(), "--overwrite", "--backend", any_backend)
        assert_refused(call_cli(*words), "run: is being written by process", str(os.getpid()))
        assert not RunFolder(tmp_path / "run").steps()
    finally:
        first.release()
    assert call_cli(*words).returncode == 0
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("verb", ["predict", "convert", "sample", "prepare"])
def test_nor_two_commands_at_one_output(tmp_path, any_backend, weights, verb):
    from earthsr.store import owned

    write_dem(tmp_path / "dem.tif", cells(60, 60).astype(np.float32))
    target, words = {
        "predict": (tmp_path / "o.tif", ("predict", "demo-dem", tmp_path / "dem.tif", tmp_path / "o.tif")),
        "convert": (tmp_path / "o.safetensors", ("convert", weights, tmp_path / "o.safetensors")),
        "sample": (tmp_path / "o", ("sample", "dem", tmp_path / "o")),
        "prepare": (
            tmp_path / "o",
            ("prepare", "dem", tmp_path / "o", tmp_path / "dem.tif", "--patch", 4, "--shares", "1,0,0"),
        ),
    }[verb]
    backend = ("--backend", any_backend) if verb == "predict" else ()
    with owned(target, inside=verb in ("sample", "prepare")):
        before = sorted(tmp_path.rglob("*"))
        done = call_cli(*words, *backend)
        assert done.returncode == 2
        assert f"error: {target}: is being written by process {os.getpid()}" in done.stderr.splitlines()[-1]
        assert sorted(tmp_path.rglob("*")) == before
    assert call_cli(*words, *backend).returncode == 0


# Kills between the files of one data set.


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_sample_that_is_half_in_its_place_is_not_trained_on(tiny_file, data_dir, tmp_path, any_backend, moved):
    root = tmp_path / "sample"
    assert call_cli("sample", "dem", root, "--patch-size", 8).returncode == 0
    killed_at(moved, "sample", "dem", root, "--patch-size", 8, "--stride", 3, "--overwrite")
    config = tiny_file(data={"root_dir": str(root)})
    done = call_cli("train", config, "--backend", any_backend)
    assert_refused(done, f"{root}: new files may lie beside old ones", "--overwrite")
    assert call_cli("sample", "dem", root, "--patch-size", 8, "--overwrite").returncode == 0
    assert call_cli("train", config, "--backend", any_backend).returncode == 0
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_preparation_that_is_half_in_its_place_is_not_trained_on(tiny_file, tmp_path, any_backend):
    root = tmp_path / "out"
    write_dem(tmp_path / "dem.tif", cells(250, 300).astype(np.float32))
    words = ("prepare", "dem", root, tmp_path / "dem.tif", "--patch", 8, "--shares", "0.5,0.25,0.25", "--buffer", 1)
    assert call_cli(*words).returncode == 0
    before = {path.name: path.read_bytes() for path in root.rglob("*.h5")}
    assert call_cli(*words, "--overwrite", "--stride", 6).returncode == 0
    killed_at(1, *words, "--overwrite")
    config = tiny_file(data={"root_dir": str(root)})
    assert_refused(call_cli("train", config, "--backend", any_backend), "new files may lie beside old ones", "--resume")
    assert call_cli(*words, "--resume").returncode == 0
    assert {path.name: path.read_bytes() for path in root.rglob("*.h5")} == before
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


# Nobody who reads what is said.


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken pipe", "closed", "full"])
def test_a_standard_error_that_takes_nothing_ends_no_training(tiny_file, tmp_path, any_backend, how):
    words = [sys.executable, "-m", "earthsr", "train", str(tiny_file()), "--backend", any_backend]
    options = {}
    if how == "broken pipe":
        reading, writing = os.pipe()
        os.close(reading)
        options["stderr"] = writing
    elif how == "full":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        options["stderr"] = os.open("/dev/full", os.O_WRONLY)
    else:
        words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    done = subprocess.run(words, stdout=subprocess.PIPE, timeout=300, **options)
    assert done.returncode == 0
    assert RunFolder(tmp_path / "run").steps()
    # No file has got the number of standard error, and messages with it.
    assert (tmp_path / "run" / "config.yaml").read_text().startswith("backend:")


def test_an_error_is_an_error_where_nobody_reads_it(tmp_path):
    done = run_cli("convert", tmp_path / "absent.safetensors", tmp_path / "o.safetensors")
    assert done.returncode == 2
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "earthsr", "convert", "absent", "o.safetensors"]
    assert subprocess.run(shell, stdout=subprocess.PIPE, timeout=60, cwd=tmp_path).returncode == 2

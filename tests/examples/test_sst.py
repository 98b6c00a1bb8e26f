"""The workload of examples/sst, installed as anybody's plug-in is: earthsr finds it, and knows nothing of it."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY, installed

SOURCES = REPOSITORY / "examples" / "sst"
needs_torch = pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
needs_both = pytest.mark.skipif(
    not (installed("torch") and installed("mindspore")), reason="both backends are not installed"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The distribution, installed by pip into a folder of its own, and made fields beside it."""
    folder = tmp_path_factory.mktemp("sst")
    shutil.copytree(SOURCES, folder / "sources")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", *words, "--target", folder / "site", folder / "sources"]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    run(folder, "-m", "earthsr_sst.sample", "fields")
    return folder


def run(folder, *words, check=0):
    """Python in a process of its own, in which the plug-in is installed."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def earthsr(folder, *words, check=0):
    return run(folder, "-m", "earthsr", *words, check=check)


CONFIG = SOURCES / "sst.yaml"
DATA = ("--set", "data.root_dir=fields")


def test_nothing_in_earthsr_names_the_workload():
    for path in (REPOSITORY / "earthsr").rglob("*.py"):
        assert not re.search(r"\bsst\b|sea.surface", path.read_text(encoding="utf-8"), re.IGNORECASE), path


@pytest.mark.slow
def test_its_keys_are_checked_and_listed_like_any_others(place):
    schema = json.loads(earthsr(place, "config", "schema").stdout)
    assert [each["$ref"].rpartition("/")[2] for each in schema["anyOf"]] == ["DemConfig", "LandUseConfig", "SstConfig"]
    shown = earthsr(place, "config", "show", CONFIG).stdout
    assert "within_k: 0.5" in shown
    assert "prior_own" not in shown
    error = earthsr(place, "config", "validate", CONFIG, "--set", "train.within_k=0", check=2).stderr
    assert "train.within_k is 0" in error
    error = earthsr(place, "config", "validate", CONFIG, "--set", "train.dice=1", check=2).stderr
    assert "train.dice belongs to land use" in error
    dem = REPOSITORY / "configs" / "dem_srnet_demo.yaml"
    error = earthsr(place, "config", "validate", dem, "--set", "train.within_k=1", check=2).stderr
    assert "train.within_k belongs to sea-surface temperature (model.name sst)" in error
    assert "of demsrnet: remove it" in error


def test_without_it_the_name_is_unknown(place):
    words = [sys.executable, "-m", "earthsr", "config", "validate", str(CONFIG)]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "model.name is 'sst'" in done.stderr
    assert "demsrnet, DEMNet, unet" in done.stderr


@pytest.mark.slow
def test_damaged_fields_are_named_before_training(place):
    error = earthsr(place, "train", CONFIG, *DATA, "--set", "data.variable=tos", "--backend", "torch", check=2).stderr
    assert "train.h5: has no dataset tos; set data.variable" in error
    error = earthsr(place, "train", CONFIG, *DATA, "--set", "data.patch_size=8", "--backend", "torch", check=2).stderr
    assert "expected 40 x 40" in error


@pytest.mark.slow
@needs_torch
def test_it_trains_resumes_and_is_evaluated_through_the_command_line(place):
    earthsr(place, "train", CONFIG, *DATA, "--backend", "torch")
    records = [json.loads(line) for line in (place / "runs" / "sst" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "valid" not in record]
    valid = [record["valid"] for record in records if "valid" in record]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert valid[-1]["rmse"] < valid[-1]["bicubic_rmse"]
    more = ("--resume", "--set", "optimizer.epochs=5", "--backend", "torch", "--json")
    assert json.loads(earthsr(place, "train", place / "runs" / "sst" / "config.yaml", *more).stdout)["epochs"] == 5
    earthsr(place, "evaluate", "runs/sst", "--backend", "torch", "--output", "scores")
    metrics = json.loads((place / "scores" / "metrics.json").read_text())
    assert (metrics["task"], metrics["units"], metrics["split"], metrics["within_k"]) == ("sst", "K", "test", 0.5)
    model, bicubic = metrics["scores"]["model"], metrics["scores"]["bicubic"]
    assert model["rmse"] < bicubic["rmse"]
    assert 0 < bicubic["share_within"] < model["share_within"] < 1
    assert "share within" in (place / "scores" / "report.html").read_text()
    assert (place / "scores" / "figures" / "scores.png").is_file()
    card = earthsr(place, "info", "runs/sst", "--json").stdout
    assert json.loads(card)["metadata"]["task"] == "sst"


@pytest.mark.slow
@needs_both
def test_both_backends_compute_the_same_for_it(place):
    words = (CONFIG, *DATA, "--backends", "torch", "mindspore", "--steps", "2", "--no-noise", "--output", "parity")
    assert "arrays agree" in earthsr(place, "parity", *words).stdout

"""The referee's protocol: what it refuses before anything is trained, and one fold from tiles to the table."""

import importlib.util
import json
import sys

import h5py
import numpy as np
import pytest
import yaml

from tests.conftest import CONFIGS, REPOSITORY
from tests.dem.test_prepare_dem import write_dem

SIDE = 260
TINY = ["model.num_blocks=1", "model.features=4", "model.fine_features=2", "optimizer.warmup_steps=0"]


def protocol(folder, **changes):
    values = {
        "config": str(CONFIGS / "dem_srnet_3s.yaml"),
        "steps": 1,
        "watched": "plain",
        "folds": {"test": {"unseen": ["hills"], "tests": {"hills": "hills"}}},
        "models": {"ours": {"set": TINY}},
        "seeds": {"test": {"ours": [0, 1]}},
        "degradations": ["block_mean"],
        **changes,
    }
    path = folder / "protocol.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def run(monkeypatch, capfd):
    """Call the tool in this process; what it starts are processes of their own."""
    tool = REPOSITORY / "tools" / "train_products.py"
    spec = importlib.util.spec_from_file_location("train_products", tool)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_products", module)
    spec.loader.exec_module(module)

    def call(path, folder, land):
        words = ["--land", land, "--pairs", land, "--output", folder / "out", "--fold", "test", "--backend", "torch"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in (tool, path, *words)])
        return module.main(), capfd.readouterr()

    return call


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"seeds": {"test": {"theirs": [0]}}}, ("seeds.test", "theirs", "ours")),
        ({"folds": {"test": {"unseen": ["hills"], "tests": {"ridge": "ridge"}}}}, ("folds.test", "ridge", "unseen")),
        ({"models": {"ours": {"tiles": ["plain"]}}}, ("models.ours.tiles", "plain", "watched")),
        ({"models": {"ours": {"set": ["model.blocks=1"]}}}, ("model.blocks",)),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused_before_training(tmp_path, run, changes, parts):
    code, printed = run(protocol(tmp_path, **changes), tmp_path, tmp_path)
    assert code == 2
    for part in parts:
        assert part in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_fold_is_trained_with_every_seed_and_scored_on_what_none_has_seen(tmp_path, run, monkeypatch):
    land = tmp_path / "land"
    land.mkdir()
    wave = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    for seed, name in enumerate(("hills", "plain", "ridge")):
        spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(SIDE, SIDE)))
        fine = np.fft.irfft2(spectrum / np.maximum(wave, 1 / SIDE) ** 2)
        write_dem(land / f"{name}.tif", (800 + 300 * fine / fine.std()).astype(np.float32), west=8 + seed)
    code, printed = run(protocol(tmp_path), tmp_path, land)
    assert code == 0, printed.out + printed.err
    out = tmp_path / "out" / "test"
    times = json.loads((out / "training.json").read_text())
    assert {name: entry["steps"] for name, entry in times.items()} == {"ours-0": 1, "ours-1": 1}
    row = json.loads((out / "scores" / "scores.json").read_text())["scenes"]["hills, block_mean"]["ours"]
    assert len(set(row["seeds_percent"])) == 2
    with h5py.File(tmp_path / "out" / "data" / "test" / "train" / "train.h5") as file:
        assert set(file["region"][:]) == {b"ridge"}
    # What is trained is not trained again: the second time scores alone.
    commands = []
    monkeypatch.setattr(sys.modules["train_products"], "call", lambda *words: commands.append(words))
    assert run(protocol(tmp_path), tmp_path, land)[0] == 0
    assert [words[0].name for words in commands] == ["benchmark_products.py"]

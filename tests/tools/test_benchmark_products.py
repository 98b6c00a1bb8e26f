"""The table of models beside linear rivals: what is scored, what it says of itself, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.dem.test_prepare_dem import write_dem

SIDE = 300


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two tiles of terrain of all wave lengths."""
    folder = tmp_path_factory.mktemp("tiles")
    wave = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    paths = []
    for seed in range(2):
        spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(SIDE, SIDE)))
        fine = np.fft.irfft2(spectrum / np.maximum(wave, 1 / SIDE) ** 2)
        paths.append(write_dem(folder / f"tile{seed}.tif", (800 + 300 * fine / fine.std()).astype(np.float32)))
    return paths


def run(*words):
    tool = REPOSITORY / "tools" / "benchmark_products.py"
    return subprocess.run([sys.executable, tool, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_models_and_rivals_are_scored_with_intervals_and_scorings_are_counted(tiles, tmp_path):
    words = ("--output", tmp_path, "--fit", tiles[0], "--test", f"made={tiles[1]}", "--degradation", "bell:1.8")
    done = run(*words, "--model", "demo=demo-dem")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["scenes"]["made, bell:1.8"]
    assert scores["bicubic"]["below_bicubic_percent"] == 0
    for name in ("nearest", "bilinear", "spline", "keeps means", "linear filter", "demo"):
        low, high = scores[name]["interval_percent"]
        assert low < scores[name]["below_bicubic_percent"] < high
    # What was fitted to the very degradation leaves nothing for a filter behind it; interpolation does.
    assert scores["linear filter"]["below_bicubic_percent"] > scores["spline"]["below_bicubic_percent"] > 0
    assert scores["linear filter"]["lattice"]["phase_filter_gain_percent"] < 2
    assert scores["bicubic"]["lattice"]["phase_filter_gain_percent"] > 10
    assert (tmp_path / "made-bell-1.8.png").read_bytes().startswith(b"\x89PNG")
    twice = run(*words, "--model", "demo=demo-dem,demo-dem")
    assert twice.returncode == 0, twice.stderr
    seeds = json.loads((tmp_path / "scores.json").read_text())["scenes"]["made, bell:1.8"]["demo"]
    assert seeds["seeds_percent"] == [scores["demo"]["below_bicubic_percent"]] * 2
    assert seeds["rmse_m"] == pytest.approx(scores["demo"]["rmse_m"], rel=1e-12)
    lines = [json.loads(line) for line in (tmp_path / "scorings.jsonl").read_text().splitlines()]
    assert [line["models"] for line in lines] == [["demo=demo-dem"], ["demo=demo-dem,demo-dem"]]


@pytest.mark.slow
def test_words_that_name_nothing_are_refused(tiles, tmp_path):
    done = run("--output", tmp_path, "--fit", tiles[0], "--test", tiles[1], "--degradation", "bell:1.8")
    assert done.returncode == 2
    assert "expected NAME=PATH" in done.stderr

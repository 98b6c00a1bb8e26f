"""Scores of one's own: found by name among installed packages, added to the workload's, the same however it is cut."""

import json
import sys

import numpy as np
import pytest

from earthsr.api import evaluate, train
from earthsr.config import from_mapping
from earthsr.data.hdf5 import open_h5
from earthsr.errors import ConfigError
from earthsr.evaluation.metrics import Metric, add_scores, find_metrics
from tests.conftest import call_cli, landuse_values, tiny_values, write_patches

MODULE = """
import numpy as np
from earthsr.evaluation.metrics import Metric

class Within(Metric):
    units = "%"
    def sums(self, prediction, truth, valid):
        assert prediction.shape == truth.shape == valid.shape and valid.dtype == bool
        return np.array([((abs(prediction - truth) < 20) & valid).sum(), valid.sum()], float)
    def score(self, sums):
        return float(100 * sums[0] / sums[1]) if sums[1] else None

class Right(Within):
    of = "classes"
    def sums(self, prediction, truth, valid):
        assert truth.dtype == np.uint8
        return np.array([((prediction == truth) & valid).sum(), valid.sum()], float)

right, number = Right(), 7
"""

ENTRIES = """
[earthsr.metrics]
within_20 = own_scores:Within
right = own_scores:right
number = own_scores:number
gone = own_scores:gone
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A package with metrics, installed as any other."""
    folder = tmp_path / "site"
    (folder / "own_scores-1.0.dist-info").mkdir(parents=True)
    (folder / "own_scores.py").write_text(MODULE)
    (folder / "own_scores-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-scores\nVersion: 1.0\n"
    )
    (folder / "own_scores-1.0.dist-info" / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("own_scores", None)


def test_of_elevation(tmp_path, any_backend):
    root = write_patches(tmp_path / "data", masks=True)
    values = tiny_values(root, tmp_path / "run", optimizer={"epochs": 1}, data={"batch_size": 2})
    train(from_mapping(values), backend=any_backend)
    words = ("evaluate", tmp_path / "run", "--backend", any_backend, "--output", tmp_path / "scores")
    done = call_cli(*words, "--metric", "within_20", check=0)
    assert "within_20 (%)" in done.stdout
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["scores"]
    with open_h5(root / "test" / "test.h5") as handle:
        coarse, fine, mask = (handle[key][...] for key in ("8_8", "40_40", "mask_40"))
    nearest = np.repeat(np.repeat(coarse, 5, -1), 5, -2)
    inner = (..., slice(5, -5), slice(5, -5))
    valid = mask.reshape(fine.shape)[inner] != 0
    known = valid & np.isfinite(nearest[inner])
    assert known.sum() == valid.sum()
    expected = 100 * (np.abs(nearest - fine)[inner][valid] < 20).mean()
    assert scores["nearest"]["within_20"] == pytest.approx(expected)
    assert scores.keys() == {"model", "nearest", "bilinear", "bicubic", "conservative"}
    assert "within_20 (%)" in (tmp_path / "scores" / "report.html").read_text()


def test_of_land_use(tmp_path, landuse_dir, any_backend):
    values = landuse_values(landuse_dir, tmp_path / "run", summary={"metrics": ["right"]})
    train(from_mapping(values), backend=any_backend)
    scores = evaluate(tmp_path / "run", backend=any_backend).metrics["scores"]
    for row in ("rollout", "persistence", "allocation"):
        assert scores[row]["right"] == pytest.approx(100 * scores[row]["accuracy"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown", "no metric unknown is installed, there are: gone, number, right, within_20"),
        ("number", r"number \(own_scores:number\) is a int, expected an earthsr.evaluation.Metric"),
        ("gone", r"gone \(own_scores:gone\) cannot be loaded: .*has no attribute"),
        ("right", "right is a score of classes, and this model predicts values"),
    ],
)
def test_what_is_no_metric_is_refused(name, words):
    with pytest.raises(ConfigError, match=rf"summary\.metrics: {words}"):
        find_metrics([name], "values")


def test_a_metric_cannot_take_the_place_of_a_score_that_is_there():
    class Rmse(Metric):
        def sums(self, prediction, truth, valid):
            return np.array([1.0])

        def score(self, sums):
            return sums[0]

    scores = {"model": {"rmse": 2.5}}
    with pytest.raises(ConfigError, match="rmse is a score of the workload already"):
        add_scores(scores, {"rmse": {"model": np.array([1.0])}}, {"rmse": Rmse()})
    assert scores == {"model": {"rmse": 2.5}}
    add_scores(scores, {"own": {"model": np.array([np.nan])}}, {"own": Rmse()})
    assert scores["model"]["own"] is None
    broken = {"own": {"model": np.array([])}}
    with pytest.raises(ConfigError, match="the score of own failed for bicubic: IndexError"):
        add_scores({"bicubic": {}}, {"own": {"bicubic": broken["own"]["model"]}}, {"own": Rmse()})

"""The land-use demo as its user runs it: minutes on two cores, and better than what needs no learning."""

import json

import pytest

from tests.conftest import CONFIGS, installed, run_cli

pytestmark = pytest.mark.slow

BASELINES = ("persistence", "coarse_argmax", "allocation")


@pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
def test_the_rollout_beats_every_baseline_in_blocks_and_years_that_were_held_out(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    run_cli("sample", "landuse", data, check=0)
    settings = ("--set", f"data.root_dir={data}", "--output", run)
    run_cli("train", CONFIGS / "landuse_demo.yaml", "--backend", "torch", *settings, check=0, timeout=1500)
    shown = run_cli("evaluate", run, "--backend", "torch", "--json", check=0).stdout
    metrics = json.loads(shown)
    assert metrics == json.loads((run / "evaluation" / "metrics.json").read_text())
    protocol, scores = metrics["protocol"], metrics["scores"]
    assert protocol["scored_years"] == protocol["held_out_years"] == list(range(1990, 2000))
    assert protocol["anchor_year"] == 1989
    assert metrics["forcing"] == "oracle"
    assert "synthetic" in metrics["source"]
    rollout = scores["rollout"]
    for name in BASELINES:
        assert rollout["miou"] > scores[name]["miou"], name
        assert rollout["accuracy"] > scores[name]["accuracy"], name
        assert rollout["change"]["figure_of_merit"] > (scores[name]["change"]["figure_of_merit"] or 0), name
    # An upper bound, and a lower one: what the model makes of its own maps lies between.
    assert scores["no_prior"]["miou"] < rollout["miou"] < scores["true_prior"]["miou"]
    merit = {name: scores[name]["change"]["figure_of_merit"] for name in ("rollout", "true_prior")}
    assert merit["rollout"] < merit["true_prior"]
    # Figures that a reader is shown, and a page that needs nothing beside it.
    assert {path.stem for path in (run / "evaluation" / "figures").glob("*.png")} >= {
        "rollout",
        "priors",
        "confusion",
        "iou",
        "areas",
        "loss",
    }
    page = (run / "evaluation" / "report.html").read_text()
    assert "oracle" in page
    assert "synthetic" in page

"""The land-use demo learns what beats everything that needs no learning, in blocks and years that were held out.

From nothing its ten epochs take minutes. Here it goes on from the weights that travel with the package, which have had
nine of them in this world, through one more epoch: training that does not learn right loses what they bring.
"""

import json

import pytest

from tests.conftest import CONFIGS, call_cli, installed

pytestmark = pytest.mark.slow

BASELINES = ("persistence", "coarse_argmax", "allocation")
#: The network of demo-landuse, and small rates. When this was written: mIoU 0.927 and figure of merit 0.371, of
#: allocation 0.913 and 0.355; of ten epochs from nothing 0.935 and 0.411 (README.md).
SETTINGS = {
    "model.width": 22,
    "model.depth": 2,
    "train.load_ckpt": "true",
    "summary.ckpt_path": "demo-landuse",
    "optimizer.epochs": 1,
    "optimizer.warmup_steps": 5,
    "optimizer.learning_rate": 5e-4,
}


@pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
def test_the_rollout_beats_every_baseline_in_blocks_and_years_that_were_held_out(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    call_cli("sample", "landuse", data, check=0)
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    words = ("--set", f"data.root_dir={data}", "--output", run, *settings)
    call_cli("train", CONFIGS / "landuse_demo.yaml", "--backend", "torch", *words, check=0)
    metrics = json.loads(call_cli("evaluate", run, "--backend", "torch", "--json", check=0).stdout)
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

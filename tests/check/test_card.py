"""The model card: facts from spec, weights and run; what nobody recorded is said to be so, and nothing is made up."""

import json

import numpy as np
import pytest

from earthsr.api import train
from earthsr.check.card import NOT_RECORDED, card_markdown, card_text, metrics_beside, model_card, packed_scores
from earthsr.models import (
    DemSRNetSpec,
    RunFolder,
    State,
    UNetSpec,
    WeightsFile,
    average_weights,
    initial_weights,
    read_weights,
    write_weights,
)
from earthsr.models.checkpoint import evaluation_folder
from tests.conftest import call_cli, write_patches

SECTIONS = (
    "architecture", "training_data", "training", "scores", "intended_use", "limits", "licence", "citation",
)  # fmt: skip
DEM = DemSRNetSpec(features=4, num_blocks=2)
CLASSES = json.dumps({"classes": [{"name": "urban"}, {"name": "forest"}]})
TRAINING = {
    "name": "somewhere",
    "data": {
        "name": "tiles",
        "fingerprint": "0123456789abcdef",
        "samples": 120,
        "source": "maps of somewhere",
        "years": [1990, 1991, 1992],
        "bounds_deg": [-8.0, 42.0, 7.0, 48.0],
    },
    "settings": {"loss": "cross_entropy", "batch_size": 16},
    "epoch": 3,
    "step": 24,
    "backend": "torch 2.13.0",
    "device": "cpu",
    "precision": "float32",
    "validation": {"score": "miou", "value": 0.75, "step": 16},
}
LAND = {
    "task": "land_use",
    "units": "class",
    "forcing": "oracle",
    "directions": ["forwards"],
    "class_table": CLASSES,
    "tile_size": 64,
    "output_cell_size_deg": [0.01, 0.01],
    "training": TRAINING,
}
METRICS = {
    "task": "land_use",
    "split": "test",
    "samples": 9,
    "units": "class",
    "scores": {
        "rollout": {"cells": 5, "miou": 0.5, "iou": {"urban": 0.4}, "change": {"figure_of_merit": 0.25}},
        "persistence": {"cells": 5, "miou": 0.4, "accuracy": None},
    },
    "provenance": {"backend": "torch 2 (cpu, float32)", "data fingerprint": "feed"},
}


def land_card(**changed):
    return model_card(UNetSpec(width=4, depth=2, classes=2), {**LAND, **changed}, name="maps")


def words(card):
    return " ".join((*card["limits"], *card["intended_use"], *card["citation"]))


def test_of_bare_weights_a_card_says_what_is_not_recorded():
    card = model_card(DEM, {}, name="bare")
    assert set(SECTIONS) < set(card)
    assert card["architecture"]["parameters"] == DEM.parameter_count
    assert card["architecture"]["receptive_radius_cells"] == DEM.receptive_radius
    assert card["architecture"]["gflop_per_sample_of_32x32_cells"] == round(DEM.flops(32, 32) / 1e9, 3)
    for key in ("fingerprint", "source", "samples", "input_cell_size_deg", "regions"):
        assert card["training_data"][key] == NOT_RECORDED
    assert card["training"]["steps"] == card["training"]["settings"] == NOT_RECORDED
    assert card["scores"]["from"].startswith(NOT_RECORDED)
    assert card["licence"]["code"] == "Apache-2.0"
    assert card["licence"]["weights"].startswith(NOT_RECORDED)
    assert card["licence"]["training_data"].startswith(NOT_RECORDED)
    assert "Where it learnt is not recorded" in words(card)


def test_a_card_says_what_travels_with_weights():
    card = land_card()
    data = card["training_data"]
    assert (data["fingerprint"], data["source"], data["samples"]) == ("0123456789abcdef", "maps of somewhere", 120)
    assert data["classes"] == ["urban", "forest"]
    assert (card["training"]["steps"], card["training"]["epochs"]) == (24, 3)
    assert card["architecture"]["gflop_per_sample_of_64x64_cells"] > 0
    assert card["scores"]["rows"] == {"model": {"miou": 0.75}}
    assert "validation" in card["scores"]["from"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "oracle"),
        ({}, "Not trained to roll out backwards"),
        ({"directions": ["backwards"]}, "Not trained to roll out forwards"),
        ({}, "classes urban, forest, and no others"),
        ({}, "years 1990 to 1992"),
        ({}, "-8, 42, 7, 48 degrees"),
        ({}, "maps of somewhere"),
        ({}, "2606.11793"),
        ({"about": {"limits": ["Only for teaching."]}}, "Only for teaching."),
    ],
)
def test_limits_and_citations_follow_from_facts(changed, expected):
    assert expected in words(land_card(**changed))


def test_a_limit_that_does_not_hold_is_not_stated():
    card = land_card(directions=["forwards", "backwards"], forcing="scenario")
    assert "oracle" not in words(card)
    assert "Not trained" not in words(card)


def test_limits_of_enlarging_follow_from_the_spec():
    patch = {"normalisation": {"kind": "patch"}, "input_cell_size_deg": 1 / 240}
    plain = words(model_card(DEM, patch, name="m"))
    assert "0.00416667 degrees" in plain
    assert "patch's mean" in plain
    local = words(model_card(DemSRNetSpec(features=4, num_blocks=2, local_mean=2), patch, name="m"))
    assert "patch's mean" not in local
    shifted = words(model_card(DemSRNetSpec(features=4, num_blocks=2, resize="asymmetric"), patch, name="m"))
    assert "shifts terrain by 2 fine cells" in shifted
    assert "shifts terrain" not in plain
    assert "Zhang" in plain


def test_licences_are_the_publishers_where_named():
    about = {"weights_licence": "CC BY 4.0", "data_licence": "public domain", "citation": ["Somebody (2020)"]}
    card = land_card(about=about)
    assert card["licence"] == {"code": "Apache-2.0", "weights": "CC BY 4.0", "training_data": "public domain"}
    assert "Somebody (2020)" in card["citation"]


def test_scores_of_an_evaluation_go_before_those_that_travel():
    packed = packed_scores(METRICS, "somebody's evaluation")
    assert packed["rows"] == {
        "rollout": {"miou": 0.5, "figure_of_merit": 0.25},
        "persistence": {"miou": 0.4},
    }
    assert packed["data_fingerprint"] == "feed"
    spec = UNetSpec(width=4, depth=2, classes=2)
    assert model_card(spec, {**LAND, "scores": packed}, name="m")["scores"] == packed
    better = {**METRICS, "scores": {"rollout": {"miou": 0.9}}}
    card = model_card(spec, {**LAND, "scores": packed}, name="m", metrics=better)
    assert card["scores"]["rows"] == {"rollout": {"miou": 0.9}}
    assert "evaluate" in card["scores"]["from"]


def save_run(folder, metadata):
    """Write a run folder with one checkpoint that nobody trained."""
    weights = initial_weights(DEM, 0)
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    notes = {
        "config": {"data": {"name": "hills", "batch_size": 4}, "train": {"name": "slow", "loss": "auto"}},
        "progress": {"step": 7, "epoch": 2, "best_score": 12.5, "best_step": 7},
        "backend": {"name": "mindspore", "version": "2.10", "device": "Ascend", "precision": "float16"},
        "sampler": {"samples": 30},
        "data_fingerprint": "abcd",
    }
    run = RunFolder(folder)
    run.create()
    run.save(7, DEM, State(weights, zeros, zeros, 7), metadata, notes)
    return folder / "checkpoints" / "step-000007"


def test_of_an_older_run_state_json_says_what_weights_do_not(tmp_path):
    save_run(tmp_path / "run", {"task": "dem_sr", "units": "m"})
    card = json.loads(call_cli("info", tmp_path / "run", "--json").stdout)["card"]
    assert card["name"] == "run"
    assert card["training"]["backend"] == "mindspore 2.10"
    assert card["training_data"]["fingerprint"] == "abcd"
    assert card["training_data"]["samples"] == 30
    assert card["scores"]["rows"] == {"model": {"rmse": 12.5}}


def test_only_an_evaluation_of_this_checkpoint_is_taken(tmp_path):
    step = save_run(tmp_path / "run", {})
    weights = step / "weights.safetensors"
    assert metrics_beside(weights) is None
    beside = tmp_path / "run" / "evaluation" / "metrics.json"
    beside.parent.mkdir()
    for checkpoint, taken in (("step-000007", True), ("step-000004", False)):
        scored = {**METRICS, "provenance": {"checkpoint": f"elsewhere/checkpoints/{checkpoint}/weights.safetensors"}}
        beside.write_text(json.dumps(scored))
        assert (metrics_beside(weights) is not None) == taken
    beside.write_text("{")
    assert metrics_beside(weights) is None
    alone = tmp_path / "model.onnx"
    assert evaluation_folder(alone) == tmp_path / "model-evaluation"
    (tmp_path / "model-evaluation").mkdir()
    for name, taken in (("model.onnx", True), ("other.onnx", False)):
        scored = {**METRICS, "provenance": {"checkpoint": f"elsewhere/{name}"}}
        (tmp_path / "model-evaluation" / "metrics.json").write_text(json.dumps(scored))
        assert (metrics_beside(alone) is not None) == taken


def test_an_average_has_the_training_of_its_parts_and_the_scores_of_none():
    first, second = (
        WeightsFile(DEM, initial_weights(DEM, seed), {"training": {**TRAINING, "step": seed}, "scores": {"rows": {}}})
        for seed in (1, 2)
    )
    mean = average_weights([first, second])
    card = model_card(DEM, mean.metadata, name="mean")
    assert card["training"]["checkpoints_averaged"] == 2
    assert card["training_data"]["fingerprint"] == "0123456789abcdef"
    assert card["scores"]["rows"] == {}


@pytest.mark.parametrize("show", [card_text, card_markdown])
def test_pages_hold_every_section_and_number(show):
    card = land_card(scores=packed_scores(METRICS, "here"), about={"summary": "Of nowhere."})
    page = show(card)
    for expected in (
        "Architecture", "Training data", "Intended use", "Limits", "Licence", "How to cite", "Of nowhere.",
        "0123456789abcdef", "mIoU", "0.25", "persistence", "1990 to 1992", "Apache-2.0",
    ):  # fmt: skip
        assert expected in page
    assert "None" not in page
    assert "{" not in page


def test_a_long_list_of_regions_is_counted():
    regions = {"train": [f"r{i}" for i in range(40)], "test": ["alps"]}
    training = {**TRAINING, "data": {**TRAINING["data"], "regions": regions}}
    page = card_markdown(model_card(DEM, {"training": training}, name="m"))
    assert "r11 and 28 more; test alps" in page
    assert "r12" not in page


# On the command line


@pytest.fixture
def weights_file(tmp_path):
    return write_weights(tmp_path / "hills.safetensors", DEM, initial_weights(DEM, 0), {"task": "dem_sr"})


def test_info_prints_the_card_and_writes_it(weights_file, tmp_path):
    card = tmp_path / "new" / "card.md"
    done = call_cli("info", weights_file, "--card", card)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kind: checkpoint\n")
    assert str(card) in done.stdout
    assert "Limits" in done.stdout
    assert card.read_text(encoding="utf-8").startswith("# hills\n")
    described = json.loads(call_cli("info", weights_file, "--json").stdout)
    assert {"kind", "parameters", "spec", "metadata", "card"} <= set(described)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hills.safetensors", "--card", "there.md"], "there already"),
        (["hills.safetensors", "--card", "card.txt"], "ends in .md"),
        (["hills.safetensors", "--overwrite"], "give --card"),
        (["data/test/test.h5", "--card", "card.md"], "only models have a card"),
        (["demo-nothing", "--card", "card.md"], "no such file"),
    ],
)
def test_a_card_that_cannot_be_written_is_refused_in_one_line(weights_file, tmp_path, words, message):
    write_patches(tmp_path / "data")
    (tmp_path / "there.md").write_text("mine")
    done = call_cli("info", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "there.md").read_text() == "mine"
    assert not list(tmp_path.glob("card.*"))


def test_a_card_is_replaced_where_asked_for(weights_file, tmp_path):
    (tmp_path / "card.md").write_text("old")
    assert call_cli("info", weights_file, "--card", tmp_path / "card.md", "--overwrite").returncode == 0
    assert "Architecture" in (tmp_path / "card.md").read_text(encoding="utf-8")


# From training


@pytest.mark.slow
def test_training_leaves_a_record_in_the_weights_that_names_no_path(tiny, tmp_path, any_backend):
    run = train(tiny(data={"name": "hills"}, train={"seed": 3, "name": "trial"}), backend=any_backend)
    file = read_weights(run.best / "weights.safetensors")
    record = file.metadata["training"]
    assert record["name"] == "trial"
    assert record["data"]["name"] == "hills"
    assert record["data"]["samples"] == 12
    assert len(record["data"]["fingerprint"]) == 16
    assert record["settings"]["loss"] == "mse"
    assert record["backend"].startswith(any_backend)
    assert record["validation"]["value"] == pytest.approx(run.result.best_score)
    assert str(tmp_path) not in json.dumps(file.metadata)
    # What is said of a parent's scores is not true of a child.
    parent = tmp_path / "parent.safetensors"
    write_weights(parent, file.spec, file.weights, {**file.metadata, "scores": {"rows": {}}, "about": {"name": "old"}})
    child = train(tiny("child", train={"load_ckpt": True}, summary={"ckpt_path": str(parent)}), backend=any_backend)
    metadata = read_weights(child.best / "weights.safetensors").metadata
    assert "about" not in metadata
    assert "scores" not in metadata
    assert metadata["training"]["settings"]["fine_tuned"]

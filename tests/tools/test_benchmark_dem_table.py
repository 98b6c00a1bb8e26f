"""tools/benchmark_dem.py: what its tables and figures say; tools/score_dem.py: scores that evaluating has not."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import earthsr
from earthsr.config import from_mapping, load_yaml_config
from earthsr.errors import InputError
from earthsr.models import RunFolder, average_weights, read_weights
from tests.conftest import tiny_values, write_patches
from tests.tools.benchmark_dem_cases import planned
from tools import score_dem
from tools.dem_benchmark.figures import ablation_bars, curves, draw, region_bars
from tools.dem_benchmark.plan import require_finished
from tools.dem_benchmark.results import collect
from tools.dem_benchmark.table import markdown

# Tables and figures, from scores that are made


def score_block(rmse, samples=4):
    return {"samples": samples, "scores": {name: {"rmse": value} for name, value in rmse.items()}}


def write_scores(plan, name, regions, model):
    """Scores of a model that is so much below bicubic in every region."""
    groups = {}
    for i, region in enumerate(regions):
        bicubic = 10.0 * (i + 1)
        rmse = {
            "model": bicubic * (1 - model / 100),
            "nearest": 2 * bicubic,
            "bilinear": 1.5 * bicubic,
            "bicubic": bicubic,
            "conservative": 0.9 * bicubic,
        }
        groups[f"region/{region}"] = score_block(rmse, 4 + i)
    folder = plan.score(name)
    folder.mkdir(parents=True)
    whole = next(iter(groups.values()))
    (folder / "metrics.json").write_text(json.dumps({**whole, "groups": groups}))


def write_run(plan, name, data, blocks=2, patch=8, best=90.0):
    folder = plan.run(name)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"model": {"num_blocks": blocks}, "data": {"patch_size": patch}})
    )
    lines = [{"step": i, "epoch": i, "loss": 1, "valid": {"rmse": best + 2 - i, "bicubic_rmse": 100.0}} for i in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not plan.data(data).exists():
        write_patches(plan.data(data))


@pytest.fixture
def scored(tmp_path):
    """A benchmark half done: one fold and fine-tuning are there, the other fold and some ablations are not."""
    plan = planned(tmp_path)
    write_run(plan, "one/demsrnet", "one")
    for model, gain in (("demsrnet", 20), ("edsr", -5), ("demsrnet-symmetries", 22)):
        write_scores(plan, f"one/{model}", ["a"], gain)
    for model, gain in (("demsrnet", 8), ("finetuned", 12)):
        write_scores(plan, f"ocean/{model}", ["o3"], gain)
    write_run(plan, "ocean/finetuned", "ocean")
    for name, gain, blocks in (("reference", 15, 2), ("shallow", 9, 1)):
        write_run(plan, f"ablation/{name}", "one", blocks=blocks)
        write_scores(plan, f"ablation/{name}", ["a"], gain)
    points = [{"epoch": epoch, "rmse_reduction_vs_bicubic_percent": 10.0 + epoch} for epoch in (1, 4)]
    plan.score("one/over-time").mkdir(parents=True)
    (plan.score("one/over-time") / "over_time.json").write_text(json.dumps(points))
    return plan, collect(plan)


def test_rows_hold_what_was_scored_and_nothing_else(scored):
    _, found = scored
    json.dumps(found, allow_nan=False)
    assert [row["region"] for row in found["rows"]] == ["a", "o3"]
    land, ocean = found["rows"]
    assert land["rmse_m"] == pytest.approx(
        {
            "nearest": 20,
            "bilinear": 15,
            "bicubic": 10,
            "conservative": 9,
            "edsr": 10.5,
            "demsrnet": 8,
            "demsrnet-symmetries": 7.8,
        }
    )
    assert land["percent_below_bicubic"] == pytest.approx(
        {"conservative": 10, "edsr": -5, "demsrnet": 20, "demsrnet-symmetries": 22}
    )
    assert (ocean["kind"], ocean["fold"], ocean["percent_below_bicubic"]["finetuned"]) == (
        "ocean",
        "one",
        pytest.approx(12),
    )


def test_variants_of_the_land_have_columns_bars_and_colours_of_their_own(scored):
    plan, _ = scored
    write_run(plan, "one/rough", "one", best=88.0)
    write_scores(plan, "one/rough", ["a"], 17)
    write_scores(plan, "one/rough-symmetries", ["a"], 18)
    write_scores(plan, "one/ensemble", ["a"], 23)
    write_run(plan, "one/tiles", "one-more-0")
    write_scores(plan, "one/tiles", ["a"], 24)
    found = collect(plan)
    gains = {"edsr": -5, "rough": 17, "rough-symmetries": 18, "demsrnet": 20, "demsrnet-symmetries": 22, "tiles": 24}
    assert found["rows"][0]["percent_below_bicubic"] == pytest.approx({"conservative": 10, **gains})
    head = next(line for line in markdown(found, "").splitlines() if line.startswith("| RMSE below"))
    assert "| EDSR | DEM-SRNet, squared error | … with symmetries | DEM-SRNet, pre-trained | … with" in head
    figure = region_bars(found)
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(list(gains.values()))
    assert len({bar.get_facecolor() for bar in bars}) == 6
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1:3] == ["DEM-SRNet, squared error", "DEM-SRNet, squared error, symmetries"]
    long = next(entry for entry in found["ablations"] if entry["name"] == "long-rough")
    assert (long["label"], long["topic"]) == ("squared error, 4 epochs", "loss")
    assert long["test_percent_below_bicubic"] == pytest.approx(17)
    assert long["valid_percent_below_bicubic"] == pytest.approx(12)
    both = next(entry for entry in found["ablations"] if entry["name"] == "ensemble")
    assert (both["label"], both["test_percent_below_bicubic"]) == (
        "the same, and of the long run of squared error",
        pytest.approx(23),
    )


def test_means_count_every_region_once(tmp_path):
    plan = planned(tmp_path)
    write_scores(plan, "two/demsrnet", ["b", "c"], 20)
    metrics = json.loads((plan.score("two/demsrnet") / "metrics.json").read_text())
    metrics["groups"]["region/c"]["scores"]["model"]["rmse"] = 20.0  # bicubic's own
    (plan.score("two/demsrnet") / "metrics.json").write_text(json.dumps(metrics))
    mean = collect(plan)["means"]["land"]
    assert mean["regions"] == 2
    assert mean["rmse_m"]["bicubic"] == pytest.approx(15)
    assert mean["percent_below_bicubic"]["demsrnet"] == pytest.approx(10)
    assert collect(plan)["means"]["ocean"] is None


def test_the_table_has_the_papers_form_and_says_what_differs(scored):
    _, found = scored
    text = markdown(found, "python tools/benchmark_dem.py …")
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| test region"))
    assert head == (
        "| test region | patches | nearest | bilinear | bicubic | conservative | EDSR | DEM-SRNet, pre-trained | "
        "… with symmetries | DEM-SRNet, fine-tuned |"
    )
    assert "| a | 4 | 20.00 | 15.00 | 10.00 | 9.00 | 10.50 | 8.00 | 7.80 | – |" in lines
    assert "| a | 4 | 10.0 | -5.0 | 20.0 | 22.0 | – |" in lines
    assert "| **mean of 1 ocean regions** | 4 | **10.0** | – | **8.0** | – | **12.0** |" in lines
    for words in (
        "23.75 % below bicubic on average, land 29.9 to 39.2 %, ocean 3.6 to 34.9 %",
        "those of the fold one",
        "depth | 1 block | 9.00 | 10.00",
        "| ocean, fine-tuning | as the recipe |",
        "python tools/benchmark_dem.py …",
    ):
        assert words in text, words


def test_coarser_ocean_cells_are_said_to_stand_in(scored):
    plan, found = scored
    # The made data are all of 3 arc-seconds: nothing stands in for anything.
    assert found["cells"]["land"] == found["cells"]["ocean"] == {"fine": 3, "coarse": 15}
    assert "stand in" not in markdown(found, "")
    with h5py.File(plan.data("ocean") / "test" / "test.h5", "r+") as handle:
        handle.attrs["cell_size_deg"] = 1 / 240
    text = markdown(collect(plan), "")
    assert "Ocean: 75 to 15 arc-seconds stand in for 15 to 3" in text
    assert "interpolated between soundings" in text


def test_curves_join_variants_with_the_reference(scored):
    _, found = scored
    figure = curves(found["ablations"], found["over_time"])
    panels = {axes.get_xlabel(): axes for axes in figure.axes}
    depth = panels["residual blocks"]
    assert depth.lines[0].get_xdata().tolist() == [1, 2]
    np.testing.assert_allclose(depth.lines[0].get_ydata(), [9, 15])
    np.testing.assert_allclose(depth.lines[1].get_ydata(), [10, 10])
    time_ = panels["epoch of the long run"]
    assert [line.get_xdata().tolist() for line in time_.lines] == [[1, 4], [1, 2]]
    assert [text.get_text() for text in panels["training regions"].texts] == ["not run"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["RMSE below bicubic (%)", ""] * 2


def test_a_variant_with_patches_of_its_own_has_a_validation_of_its_own_that_compares_with_none(scored):
    plan, _ = scored
    write_run(plan, "ablation/wide", "one", patch=16, best=70.0)
    write_scores(plan, "ablation/wide", ["a"], 16)
    found = collect(plan)
    wide = next(entry for entry in found["ablations"] if entry["name"] == "wide")
    assert (wide["valid_percent_below_bicubic"], wide["patch_size"]) == (None, 16)
    panel = next(axes for axes in curves(found["ablations"], None).axes if "patch" in axes.get_xlabel())
    assert [line.get_xdata().tolist() for line in panel.lines] == [[8, 16], []]
    assert "| context | patches of 16 | 16.00 | – |" in markdown(found, "")


def test_bars_show_every_region_and_variant(scored, tmp_path):
    _, found = scored
    land, ocean = region_bars(found).axes
    assert land.get_title() == "land, 15 to 3 arc-seconds"
    assert [label.get_text() for label in land.get_xticklabels()] == ["a\n10.0 m"]
    assert sorted(bar.get_height() for bar in land.patches) == pytest.approx([-5, 20, 22])
    assert sorted(bar.get_height() for bar in ocean.patches) == pytest.approx([8, 12])
    axes = ablation_bars(found["ablations"]).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["reference: nothing changed", "depth: 1 block"]
    assert [bar.get_width() for bar in axes.patches[:2]] == pytest.approx([15, 9])
    assert [path.name for path in draw(found, tmp_path / "f")] == ["regions.png", "ablations.png", "curves.png"]


def test_bars_wait_for_models_that_are_not_trained_on_every_fold(tmp_path):
    plan = planned(tmp_path)
    write_scores(plan, "one/edsr", ["a"], 5)
    (bar,) = region_bars(collect(plan)).axes[0].patches
    assert bar.get_height() == pytest.approx(5)
    write_scores(plan, "two/edsr", ["b", "c"], 6)
    for fold, regions in (("one", ["a"]), ("two", ["b", "c"])):
        write_scores(plan, f"{fold}/rough-symmetries", regions, 9)
    write_scores(plan, "two/demsrnet", ["b", "c"], 20)
    figure = region_bars(collect(plan))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([5, 6, 6, 9, 9, 9])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["EDSR", "DEM-SRNet, squared error, symmetries"]


def test_nothing_scored_yet_gives_empty_tables(tmp_path):
    plan = planned(tmp_path)
    found = collect(plan)
    assert (found["rows"], found["ablations"], found["over_time"]) == ([], [], None)
    assert draw(found, tmp_path / "figures") == []
    assert "| test region | patches | nearest | bilinear | bicubic | conservative |" in markdown(found, "")


# Scores that earthsr evaluate has not


@pytest.fixture(scope="module")
def trained(tmp_path_factory, any_backend):
    """A run, its data and its backend; only read."""
    root = tmp_path_factory.mktemp("trained")
    data = write_patches(root / "data")
    config = from_mapping(tiny_values(data, root / "run"))
    return earthsr.train(config, backend=any_backend).folder, data, any_backend


def score(run, backend, data, output, **what):
    options = {"symmetries": False, "ensemble": [], "average": None, "over_time": None, **what}
    score_dem.work(
        Namespace(checkpoint=run, data=data, output=output, split="test", amp_level="O0", backend=backend, **options)
    )


def test_self_ensembling_is_the_mean_of_eight_predictions(trained, tmp_path):
    run, data, backend = trained
    score(run, backend, data, tmp_path / "out", symmetries=True)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    model = earthsr.from_pretrained(run, backend=backend)
    patches = earthsr.DemData({"root_dir": data, "patch_size": 8}, "test").read(np.arange(5))
    total = np.zeros(patches.fine.shape)
    for turns in range(4):
        for flip in (lambda field: field, lambda field: field[..., ::-1]):
            turned = np.ascontiguousarray(flip(np.rot90(patches.coarse, turns, (2, 3))))
            total += np.rot90(flip(model.submit(turned).result()), -turns, (2, 3))
    error = (total / 8 - patches.fine)[..., 5:-5, 5:-5]
    # Metres of some hundreds in float32.
    assert found["scores"]["model"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    plain = score_dem.scores(model, load_yaml_config(run / "config.yaml"), "test")["scores"]
    assert found["scores"]["bicubic"] == pytest.approx(plain["bicubic"])
    assert found["scores"]["model"]["rmse"] != pytest.approx(plain["model"]["rmse"], rel=1e-6)


def test_an_ensemble_is_the_mean_of_its_models_under_all_symmetries(trained, tmp_path):
    run, data, backend = trained
    other = RunFolder(run).folder(3)
    score(run, backend, data, tmp_path / "both", symmetries=True, ensemble=[other])
    found = json.loads((tmp_path / "both" / "metrics.json").read_text())
    patches = earthsr.DemData({"root_dir": data, "patch_size": 8}, "test").read(np.arange(5))
    models = [earthsr.from_pretrained(path, backend=backend) for path in (run, other)]
    mean = np.mean([score_dem.Mean([model]).submit(patches.coarse).result() for model in models], axis=0)
    error = (mean - patches.fine)[..., 5:-5, 5:-5]
    assert found["scores"]["model"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    with pytest.raises(InputError, match="--ensemble adds models to --symmetries"):
        score(run, backend, data, tmp_path / "wrong", average=2, ensemble=[other])


def test_averages_and_courses_are_of_the_runs_checkpoints(trained, tmp_path):
    run, data, backend = trained
    score(run, backend, data, tmp_path / "mean", average=2)
    found = json.loads((tmp_path / "mean" / "metrics.json").read_text())
    assert found["averaged"] == ["step-000003", "step-000006"]
    folder = RunFolder(run)
    expected = average_weights([folder.folder(step) for step in (3, 6)]).weights
    written = read_weights(tmp_path / "mean" / "weights.safetensors")
    for name, value in expected.items():
        np.testing.assert_array_equal(written.weights[name], value)
    score(run, backend, data, tmp_path / "course", over_time=5)
    course = json.loads((tmp_path / "course" / "over_time.json").read_text())
    assert [(point["epoch"], point["step"]) for point in course] == [(1, 3), (2, 6)]
    model = earthsr.from_pretrained(folder.folder(6), backend=backend)
    last = score_dem.scores(model, load_yaml_config(run / "config.yaml"), "test")["scores"]["model"]["rmse"]
    assert course[-1]["scores"]["model"]["rmse"] == pytest.approx(last, rel=1e-6)
    with pytest.raises(InputError, match="holds no checkpoint; train first"):
        score_dem.newest(RunFolder(tmp_path), 3)


def test_a_run_that_was_stopped_is_not_finished(trained, tmp_path):
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    require_finished(run)
    state = RunFolder(run).newest() / "state.json"
    notes = json.loads(state.read_text())
    notes["progress"]["finished"] = False
    state.write_text(json.dumps(notes))
    with pytest.raises(InputError, match="training was stopped before its end"):
        require_finished(run)


def test_scores_of_an_earlier_version_may_lack_a_baseline(scored):
    plan, _ = scored
    for model in ("edsr", "demsrnet", "demsrnet-symmetries"):
        path = plan.score(f"one/{model}") / "metrics.json"
        metrics = json.loads(path.read_text())
        for group in metrics["groups"].values():
            del group["scores"]["conservative"]
        path.write_text(json.dumps(metrics))
    lines = markdown(collect(plan), "").splitlines()
    assert "| a | 4 | 20.00 | 15.00 | 10.00 | – | 10.50 | 8.00 | 7.80 | – |" in lines

import json
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from earthsr.config import from_mapping
from earthsr.data.dataset import Dataset
from earthsr.dem.split import DemData
from earthsr.evaluation.figures import comparison, loss_curves, save, score_bars
from earthsr.evaluation.report import score_table, text_table, write_report
from earthsr.evaluation.statistics import ErrorStatistics, baseline, patch_statistics
from earthsr.geo.terrain import hillshade, horn_gradient, slope_degrees, ssim_map
from earthsr.tasks import task_for
from tests.conftest import terrain, tiny_values, write_patches
from tests.reference import demsrnet as reference

BORDER = dict(border=5, value_range=900.0, cell_size_m=None)


def sums(prediction, truth, mask=None, **changes):
    mask = np.ones_like(truth[:, :1], np.uint8) if mask is None else mask
    return patch_statistics(prediction, truth, mask, **{**BORDER, **changes})


def merged(statistics):
    total = ErrorStatistics()
    for each in statistics:
        total = total + each
    return total


def test_scores_equal_their_definitions():
    truth, rng = terrain(0, 4, 40), np.random.default_rng(1)
    prediction = truth + rng.normal(2, 10, size=truth.shape).astype(np.float32)
    scores = merged(sums(prediction, truth)).scores(900.0)
    error = (prediction - truth)[..., 5:-5, 5:-5].astype(np.float64)
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-9)
    assert scores["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert scores["bias"] == pytest.approx(error.mean(), rel=1e-9)
    assert scores["psnr"] == pytest.approx(20 * np.log10(900 / np.sqrt((error**2).mean())), rel=1e-9)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 100))
def test_merged_parts_equal_the_whole_across_uneven_batches(sizes, seed):
    truth = terrain(seed, sum(sizes), 24)
    prediction = truth + np.random.default_rng(seed).normal(0, 5, truth.shape).astype(np.float32)
    cells = np.full((sum(sizes), 2), 90.0)
    whole = merged(sums(prediction, truth, cell_size_m=cells)).scores(900.0)
    parts, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        parts.append(merged(sums(prediction[rows], truth[rows], cell_size_m=cells[rows])))
        start += size
    for key, value in merged(parts).scores(900.0).items():
        assert value == pytest.approx(whole[key], rel=1e-12)


def test_a_mean_of_batch_means_would_be_noticed():
    # MindEarth's evaluation divides a sum of batch means by the number of samples.
    truth = np.zeros((3, 1, 20, 20), np.float32)
    prediction = truth.copy()
    prediction[2] = 6.0
    rmse = merged(sums(prediction, truth)).scores(1.0)["rmse"]
    assert rmse == pytest.approx(np.sqrt(12))


def test_masked_cells_count_in_no_score():
    truth = terrain(0, 2, 40)
    mask = np.ones_like(truth, np.uint8)
    mask[:, :, 10:14, 20:22] = 0
    wild = np.where(mask == 0, 1e6, truth + 3).astype(np.float32)
    cells = np.full((2, 2), 90.0)
    scores = merged(sums(wild, truth, mask, cell_size_m=cells)).scores(900.0)
    assert scores["rmse"] == pytest.approx(3, rel=1e-5)
    assert scores["slope_rmse_deg"] == pytest.approx(0, abs=1e-4)
    assert scores["ssim"] == pytest.approx(1, abs=1e-3)
    nothing = merged(sums(wild, truth, np.zeros_like(mask))).scores(900.0)
    assert set(nothing.values()) == {None}


def test_a_border_of_one_coarse_cell_is_left_out():
    truth = terrain(0, 1, 40)
    prediction = truth.copy()
    prediction[..., :5, :] += 1000
    prediction[..., :, -5:] += 1000
    assert merged(sums(prediction, truth)).scores(900.0)["rmse"] == 0


def test_perfect_predictions_have_no_psnr_but_a_similarity_of_one():
    truth = terrain(0, 2, 40)
    scores = merged(sums(truth, truth)).scores(900.0)
    assert scores["rmse"] == 0
    assert scores["psnr"] is None
    assert scores["ssim"] == pytest.approx(1)
    json.dumps(scores, allow_nan=False)


def test_ssim_equals_a_direct_evaluation_of_its_formula():
    a, b = (terrain(seed, 1, 30)[0, 0].astype(np.float64) for seed in (0, 1))
    # Truncated at 5 cells: sigma 1.5 and a window of 11.
    blur = lambda x: ndimage.gaussian_filter(x, 1.5, truncate=5 / 1.5)  # noqa: E731
    value_range = 700.0
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    np.testing.assert_allclose(ssim_map(a, b, value_range), expected[5:-5, 5:-5], rtol=1e-8)


def test_slope_of_a_plane_is_its_angle():
    # 30 m rise per 90 m towards the east, 40 m per 100 m towards the south.
    rows, columns = np.mgrid[:8, :9]
    plane = 30.0 * columns + 40.0 * rows
    down, east = horn_gradient(plane, dy=100.0, dx=90.0)
    np.testing.assert_allclose(down, 0.4)
    np.testing.assert_allclose(east, 1 / 3)
    np.testing.assert_allclose(slope_degrees(plane, 100.0, 90.0), np.rad2deg(np.arctan(np.hypot(0.4, 1 / 3))))


def test_slope_rmse_is_in_degrees():
    rows = np.mgrid[:20, :20][0][None, None].astype(np.float32)
    truth, prediction = rows * 0, rows * 90.0
    scores = merged(sums(prediction, truth, cell_size_m=np.array([[90.0, 90.0]]))).scores(900.0)
    assert scores["slope_rmse_deg"] == pytest.approx(45)


def test_hillshade_lights_the_north_western_side():
    rows, columns = np.mgrid[:31, :31]
    hill = 200 * np.exp(-((rows - 15.0) ** 2 + (columns - 15.0) ** 2) / 40)
    light = hillshade(hill, 30.0, 30.0)
    assert light.shape == hill.shape
    assert light[11, 11] > light[15, 0] > light[19, 19]
    assert light[0, 0] == pytest.approx(np.sin(np.deg2rad(45)), abs=0.02)


def test_baselines_fill_a_missing_cell_from_its_neighbours():
    coarse = terrain(0, 2, 8)
    coarse[0, 0, 3, 3] = np.nan
    found = baseline(coarse, 5, "bicubic")
    filled = coarse.copy()
    filled[0, 0, 3, 3] = np.nanmean(coarse[0, 0, 2:5, 2:5])
    np.testing.assert_allclose(found, reference.bicubic(filled.astype(np.float64), 5), rtol=1e-5)


def test_the_score_of_bicubic_is_what_it_says(tmp_path):
    root = write_patches(tmp_path)
    task = task_for(from_mapping(tiny_values(root, tmp_path / "run")))
    scores = task.score(None, task.dataset("test")).to_dict()
    source = DemData({"root_dir": root, "patch_size": 8}, "test")
    patches = source.read(np.arange(len(source)))
    error = (reference.bicubic(patches.coarse.astype(np.float64), 5) - patches.fine)[..., 5:-5, 5:-5]
    assert scores["scores"]["bicubic"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert set(scores["scores"]) == {"nearest", "bilinear", "bicubic", "conservative"}


def test_groups_add_up_to_the_whole(tmp_path):
    root = write_patches(tmp_path, splits=(("train", 4), ("valid", 4), ("test", 7)), masks=True)
    config = from_mapping(tiny_values(root, tmp_path / "run"))
    task = task_for(config)
    dataset = Dataset(task.data("test"), shuffle=False).create_dataset(3)
    scores = task.score(None, dataset)
    metrics = scores.to_dict()
    assert set(metrics["groups"]) == {"land", "coast", "ocean", "region/alps", "region/andes"}
    assert sum(metrics["groups"][name]["samples"] for name in ("land", "coast", "ocean")) == metrics["samples"] == 7
    for groups in (("land", "coast", "ocean"), ("region/alps", "region/andes")):
        total = merged(scores.groups[name]["bicubic"] for name in groups)
        assert total.square == pytest.approx(scores.total["bicubic"].square, rel=1e-12)
        assert total.count == scores.total["bicubic"].count


def test_the_contract_of_metrics_json(tmp_path):
    root = write_patches(tmp_path)
    task = task_for(from_mapping(tiny_values(root, tmp_path / "run")))

    def bicubic(coarse, pad_to=None):
        return types.SimpleNamespace(result=lambda: baseline(coarse, 5, "bicubic"))

    model = types.SimpleNamespace(submit=bicubic)
    metrics = task.score(model, task.dataset("test")).to_dict()
    assert {"task", "split", "samples", "units", "scores", "groups", "rmse_reduction_vs_bicubic_percent"} <= set(
        metrics
    )
    assert (metrics["task"], metrics["split"], metrics["units"]) == ("dem_sr", "test", "m")
    assert metrics["rmse_reduction_vs_bicubic_percent"] == pytest.approx(0, abs=1e-9)
    assert metrics["scores"]["model"] == metrics["scores"]["bicubic"]


# Figures and report: that they draw what they are given; people look at them besides.


def test_figures_are_written_whole(tmp_path):
    truth = terrain(0, 1, 40)[0, 0]
    valid = np.ones(truth.shape, bool)
    valid[:5, :5] = False
    coarse = truth.reshape(8, 5, 8, 5).mean(axis=(1, 3))
    figure = comparison(coarse, truth, truth + 1, truth + 2, valid, (92.6, 70.0), "patch", border=5)
    titles = [axes.get_title() for axes in figure.axes]
    assert "Prediction - truth, RMSE 1.00 m" in titles
    assert "Bicubic - truth, RMSE 2.00 m" in titles
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert "elevation (m)" in labels
    assert "error (m)" in labels
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len({image.get_clim() for image in images[:8:2]}) == 1, "elevations share one scale"
    path = save(figure, tmp_path / "a" / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("height", [0.0, 812.5])
def test_flat_ground_is_drawn_in_one_colour_and_says_why_no_slope_is(height):
    """A tile of SRTM at sea, a lake: one slope, which no bins divide."""
    flat = np.full((40, 40), height, np.float32)
    figure = comparison(flat[:8, :8], flat, flat + 0.25, flat, np.ones(flat.shape, bool), None, "sea", border=5)
    elevations = {axes.images[0].get_clim() for axes in figure.axes if axes.get_title().startswith(("Low", "Truth ("))}
    elevations -= {(0.0, 1.0)}  # of hillshades
    assert elevations == {(height - 0.5, height + 0.5)}
    assert any("one slope" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_a_patch_without_a_valid_cell_is_drawn_empty():
    flat = np.zeros((40, 40), np.float32)
    figure = comparison(flat[:8, :8], flat, flat, flat, np.zeros(flat.shape, bool), None, "void")
    assert any("no valid cell" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_curves_are_drawn_from_the_log():
    records = [
        {"step": 1, "epoch": 1, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.0},
        {"step": 2, "epoch": 1, "loss": 0.4, "learning_rate": 1e-3, "valid": {"rmse": 9.0, "bicubic_rmse": 10.0}},
        {"step": 4, "epoch": 2, "loss": 0.2, "learning_rate": 5e-4, "valid": {"rmse": 8.0, "bicubic_rmse": 10.0}},
    ]
    figure = loss_curves(records)
    right = next(axes for axes in figure.axes if axes.get_ylabel() == "validation RMSE (m)")
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [9, 8])
    np.testing.assert_array_equal(np.unique(right.lines[1].get_ydata()), [10])
    loss_curves(records[:1])


def test_what_rounds_to_nothing_has_no_sign():
    scores = {"model": {"rmse": -0.0, "mae": 0.0004, "bias": -0.0002, "psnr": None, "ssim": -0.5, "slope_rmse_deg": 0}}
    text = text_table(scores)
    assert text.count("0.000") == 4
    assert "-0.000" not in text
    assert "+0.000" not in text
    assert "-0.5000" in text


def test_a_report_begins_with_a_figure_folds_years_and_explains_rows(tmp_path):
    picture = save(score_bars({"model": {"rmse": 1.0, "mae": 0.5}}), tmp_path / "bars.png")
    tables = [("Scores", "<table id=all></table>"), ("1999", "<table id=year></table>")]
    page = write_report(
        tmp_path / "r.html", "Land use", "found", tables, [(picture, "a"), (picture, "b")], {"data_source": "x"},
        {"no_prior": "Without any earlier map."},
    ).read_text()  # fmt: skip
    places = [page.index(part) for part in ("<figure>", "id=all", "no prior", "<details><summary>1999", 'alt="b"')]
    assert places == sorted(places)
    assert "<title>Land use</title>" in page
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert "<dt>data source</dt>" in page


def test_the_report_needs_no_other_file(tmp_path):
    scores = {"model": {"rmse": 1.0, "mae": 0.5, "bias": -0.1, "psnr": None, "ssim": 0.9, "slope_rmse_deg": 2.0}}
    scores["bicubic"] = {**scores["model"], "rmse": 2.0}
    picture = save(score_bars(scores), tmp_path / "bars.png")
    tables = [("all of test<b>", score_table(scores))]
    path = write_report(
        tmp_path / "report.html", "title", "1 m on test<b>", tables, [(picture, "bars")], {"checkpoint": "<script>"}
    )
    picture.unlink()
    page = path.read_text()
    assert "data:image/png;base64," in page
    assert "1 m on test" in page
    assert page.count("<tr") == 3
    assert "<script>" not in page
    assert "test<b>" not in page
    assert "http" not in page
    assert "–" in page
    assert "1.000" in text_table(scores)

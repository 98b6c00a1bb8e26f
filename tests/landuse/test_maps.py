import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from earthsr.evaluation.figures import save
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import EARTH_RADIUS_KM, AreaStatistics, cell_areas
from earthsr.landuse.figures import area_curves, class_maps, confusion_figure, iou_bars, rollout_figure
from earthsr.landuse.scores import MapStatistics, change_categories, flicker_statistics

NAMES = ("urban", "cropland", "forest", "water")
COLOURS = ("#d7191c", "#f4c542", "#1b7837", "#3a7ebf")
K = len(NAMES)


def maps(seed, shape=(3, 20, 24), right=0.6, holes=0.1, silent=0.0, classes=K):
    """Truth, prediction and anchor that agree in part; nodata in truth and anchor, and by choice in the prediction."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, np.uint8)
    drawn = [np.where(rng.random(shape) < right, truth, rng.integers(0, classes, shape, np.uint8)) for _ in range(2)]
    prediction, anchor = drawn
    for values, share in ((truth, holes), (anchor, holes), (prediction, silent)):
        values[rng.random(shape) < share] = 255
    return truth, prediction, anchor


def flat(scores):
    """Scores that are better when higher, by name."""
    found = {name: scores[name] for name in ("miou", "accuracy", "balanced_accuracy", "f1_macro", "kappa")}
    found |= {f"iou {name}": value for name, value in scores["iou"].items()}
    found |= {f"f1 {name}": value for name, value in scores["f1"].items()}
    return found | {name: scores["change"][name] for name in ("figure_of_merit", "precision", "recall")}


def fields(statistics):
    return {name: np.asarray(value).tolist() for name, value in vars(statistics).items()}


@pytest.mark.parametrize(("seed", "present"), [(0, K), (1, K), (2, K - 1)])
def test_scores_equal_those_of_scikit_learn(seed, present):
    truth, prediction, _ = maps(seed, classes=present)
    statistics = MapStatistics.of(truth, prediction, None, K)
    scores = statistics.scores(NAMES)
    valid = truth != 255
    t, p = truth[valid], prediction[valid]
    np.testing.assert_array_equal(statistics.confusion, metrics.confusion_matrix(t, p, labels=range(K)))
    iou = metrics.jaccard_score(t, p, labels=range(present), average=None)
    np.testing.assert_allclose([scores["iou"][name] for name in NAMES[:present]], iou, rtol=1e-12)
    f1 = metrics.f1_score(t, p, labels=range(present), average=None)
    np.testing.assert_allclose([scores["f1"][name] for name in NAMES[:present]], f1, rtol=1e-12)
    assert scores["miou"] == pytest.approx(iou.mean(), rel=1e-12)
    assert scores["f1_macro"] == pytest.approx(metrics.f1_score(t, p, average="macro"), rel=1e-12)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(t, p), rel=1e-12)
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(t, p), rel=1e-12)
    assert scores["kappa"] == pytest.approx(metrics.cohen_kappa_score(t, p), rel=1e-12)
    assert scores["cells"] == valid.sum()
    # A class that occurs nowhere has no score, and draws no mean down.
    assert all(scores["iou"][name] is None and scores["f1"][name] is None for name in NAMES[present:])


def test_cells_without_a_prediction_are_missed_truth_for_scikit_learn_too():
    truth, prediction, _ = maps(3, silent=0.2)
    statistics = MapStatistics.of(truth, prediction, None, K)
    scores = statistics.scores(NAMES)
    valid = truth != 255
    # There "no class" is one more class, which the truth never has.
    t, p = truth[valid], np.minimum(prediction[valid], K)
    table = metrics.confusion_matrix(t, p, labels=range(K + 1))
    np.testing.assert_array_equal(statistics.unpredicted, table[:K, K])
    iou = metrics.jaccard_score(t, p, labels=range(K), average=None)
    np.testing.assert_allclose(list(scores["iou"].values()), iou, rtol=1e-12)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(t, p), rel=1e-12)
    recall = metrics.recall_score(t, p, labels=range(K), average="macro")
    assert scores["balanced_accuracy"] == pytest.approx(recall, rel=1e-12)
    assert scores["unpredicted_percent"] == pytest.approx(100 * np.mean(p == K))


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(2, K))
def test_cells_without_a_prediction_raise_no_score(seed, right, classes):
    truth, prediction, anchor = maps(seed, (6, 7), right, classes=classes)
    silent = np.random.default_rng(seed + 1).random(truth.shape) < 0.3
    spoken = MapStatistics.of(np.where(silent, 255, truth).astype(np.uint8), prediction, anchor, K)
    with_silence = MapStatistics.of(truth, np.where(silent, 255, prediction).astype(np.uint8), anchor, K)
    assert with_silence.unpredicted.sum() == (silent & (truth != 255)).sum()
    left_out, counted = flat(spoken.scores(NAMES)), flat(with_silence.scores(NAMES))
    for name, value in left_out.items():
        if value is not None and counted[name] is not None:
            assert counted[name] <= value + 1e-12, name


def test_silence_where_a_right_answer_was_lowers_every_score():
    truth, prediction, anchor = maps(5)
    right = (truth == prediction) & (truth != anchor) & (truth != 255) & (anchor != 255)
    assert all((right & (truth == k)).any() for k in range(K))
    before = flat(MapStatistics.of(truth, prediction, anchor, K).scores(NAMES))
    after = flat(MapStatistics.of(truth, np.where(right, 255, prediction).astype(np.uint8), anchor, K).scores(NAMES))
    assert all(after[name] < before[name] for name in before)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 8), max_size=3))
def test_merged_parts_equal_the_whole_exactly(seed, cuts):
    truth, prediction, anchor = maps(seed, (8, 5, 6), silent=0.1)
    bounds = [0, *sorted(cuts), 8]
    total = MapStatistics.empty(K)
    for start, end in itertools.pairwise(bounds):
        part = slice(start, end)
        total = total + MapStatistics.of(truth[part], prediction[part], anchor[part], K)
    halves = [flicker_statistics(prediction[..., s], K, truth[..., s]) for s in (slice(0, 2), slice(2, 6))]
    total = total + halves[0] + halves[1]
    whole = MapStatistics.of(truth, prediction, anchor, K) + flicker_statistics(prediction, K, truth)
    assert fields(total) == fields(whole)
    assert total.scores(NAMES) == whole.scores(NAMES)


def test_statistics_of_other_classes_do_not_merge():
    with pytest.raises(ValueError, match="3 and of 4 classes"):
        MapStatistics.empty(3) + MapStatistics.empty(4)


def test_change_since_the_anchor_by_hand():
    #              hit hit wrong miss miss miss false right right | left out | silent
    anchor = [[0, 0, 0, 0, 1, 1, 2, 2, 3, 255, 0, 0, 0]]
    truth = [[1, 2, 1, 1, 2, 3, 2, 2, 3, 1, 255, 0, 1]]
    prediction = [[1, 2, 2, 0, 1, 1, 0, 2, 3, 1, 1, 255, 255]]
    anchor, truth, prediction = (np.array(each, np.uint8) for each in (anchor, truth, prediction))
    categories = change_categories(truth, prediction, anchor, K)
    assert categories.tolist() == [[1, 1, 2, 3, 3, 3, 4, 0, 0, 255, 255, 4, 2]]
    change = MapStatistics.of(truth, prediction, anchor, K).scores(NAMES)["change"]
    counts = {name: change[name] for name in ("hits", "wrong_hits", "misses", "false_alarms")}
    assert counts == {"hits": 2, "wrong_hits": 2, "misses": 3, "false_alarms": 2}
    assert change["figure_of_merit"] == pytest.approx(2 / 9)
    assert change["precision"] == pytest.approx(2 / 6)
    assert change["recall"] == pytest.approx(2 / 7)
    assert change["changed_truth_percent"] == pytest.approx(100 * 7 / 11)
    assert change["changed_prediction_percent"] == pytest.approx(100 * 6 / 11)


def test_persistence_has_a_figure_of_merit_of_nothing_however_accurate():
    truth, _, anchor = maps(7, right=0.95, holes=0)
    scores = MapStatistics.of(truth, anchor, anchor, K).scores(NAMES)
    assert scores["accuracy"] > 0.9
    assert scores["change"]["figure_of_merit"] == 0
    assert scores["change"]["precision"] is None
    assert scores["change"]["changed_prediction_percent"] == 0


def test_one_anchor_serves_many_years():
    truth, prediction, anchor = maps(8)
    one = MapStatistics.of(truth, prediction, anchor[0], K)
    many = MapStatistics.of(truth, prediction, np.broadcast_to(anchor[0], truth.shape), K)
    assert fields(one) == fields(many)
    assert one.hits > 0


def test_flicker_by_hand():
    # Five cells over four years: comes back twice, comes back once, changes and stays, constant, no class in a year.
    prediction = np.array([[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 1, 1], [2, 2, 2, 2], [0, 255, 0, 0]], np.uint8).T[:, None]
    truth = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [255, 2, 2, 2], [0, 0, 0, 0]], np.uint8).T[:, None]
    alone = flicker_statistics(prediction, K)
    assert (alone.flicker, alone.triples, alone.truth_triples) == (3, 8, 0)
    both = flicker_statistics(prediction, K, truth)
    # Where the truth says how often to look, no class in between is a flicker as well.
    assert (both.flicker, both.triples) == (4, 9)
    assert (both.truth_flicker, both.truth_triples) == (1, 9)
    scores = both.scores(NAMES)
    assert scores["flicker_percent"] == pytest.approx(100 * 4 / 9)
    assert scores["truth_flicker_percent"] == pytest.approx(100 / 9)
    assert flicker_statistics(prediction[:2], K).triples == 0


def test_scores_of_nothing_are_json_without_numbers():
    scores = MapStatistics.empty(K).scores(NAMES)
    assert set(flat(scores).values()) == {None}
    assert scores["cells"] == 0
    filled = MapStatistics.of(*maps(0), K).scores(NAMES)
    assert json.loads(json.dumps(filled, allow_nan=False)) == filled
    with pytest.raises(ValueError, match="2 names for 4 classes"):
        MapStatistics.empty(K).scores(NAMES[:2])


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and prediction \(1, 4\)"):
        MapStatistics.of(np.zeros((4, 4), np.uint8), np.zeros((1, 4), np.uint8), None, K)


# Areas.


def test_a_cell_of_one_degree_at_60_north_has_the_area_of_the_closed_formula():
    radius_km = 6371.0088
    grid = Grid(10.0, 61.0, 1.0, 1.0, 2, 3)
    expected = radius_km**2 * np.deg2rad(1) * (np.sin(np.deg2rad(61)) - np.sin(np.deg2rad(60)))
    # Nearly the square of a degree of the great circle, narrowed by the cosine of the middle latitude.
    assert expected == pytest.approx((np.pi * radius_km / 180) ** 2 * np.cos(np.deg2rad(60.5)), rel=1e-4)
    areas = cell_areas(grid)
    assert areas.shape == (2, 3)
    np.testing.assert_allclose(areas[0], expected, rtol=1e-12)
    world = cell_areas(Grid(-180.0, 90.0, 10.0, 10.0, 18, 36))
    assert world.sum() == pytest.approx(4 * np.pi * radius_km**2, rel=1e-12)


FINE = Grid(8.0, 50.0, 0.03, 0.03, 40, 44)
COARSE = FINE.coarse(0.25)


def series(seed=0, years=3):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, K, (years, FINE.rows, FINE.columns), np.uint8)
    values[:, rng.random(values.shape[1:]) < 0.05] = 255
    return values


def brute_force(values):
    """Areas by cutting every fine cell where a coarse edge crosses it, one piece at a time."""
    areas, covered = np.zeros((K, COARSE.rows, COARSE.columns)), np.zeros((COARSE.rows, COARSE.columns))
    for r, c in np.ndindex(*values.shape):
        north, west = FINE.north - r * 0.03, FINE.west + c * 0.03
        for i, j in np.ndindex(*covered.shape):
            top = min(north, COARSE.north - i * 0.25)
            bottom = max(north - 0.03, COARSE.north - (i + 1) * 0.25)
            left = max(west, COARSE.west + j * 0.25)
            right = min(west + 0.03, COARSE.west + (j + 1) * 0.25)
            if top > bottom and right > left:
                height = np.sin(np.deg2rad(top)) - np.sin(np.deg2rad(bottom))
                area = EARTH_RADIUS_KM**2 * height * np.deg2rad(right - left)
                covered[i, j] += area
                if values[r, c] < K:
                    areas[values[r, c], i, j] += area
    return areas, covered


def test_agreement_equals_brute_force_on_grids_that_do_not_align():
    values = series(years=1)
    statistics = AreaStatistics.empty(COARSE, 1, K)
    for row, column in ((0, 0), (0, 17), (23, 0), (23, 17)):
        bottom, right = (23 if row == 0 else 40), (17 if column == 0 else 44)
        statistics.add(values[:, row:bottom, column:right], FINE, row, column)
    areas, covered = brute_force(values[0])
    np.testing.assert_allclose(statistics.areas[0], areas, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(statistics.covered, covered, rtol=1e-9, atol=1e-6)

    rng = np.random.default_rng(1)
    forcing = {name: rng.random((1, COARSE.rows, COARSE.columns)) for name in NAMES[:3]}
    forcing["urban"][0, 1, 1] = np.nan
    whole = COARSE.north - 0.25 * np.arange(COARSE.rows + 1)
    assert not np.isclose(whole[-1], FINE.north - 40 * 0.03), "the last row of coarse cells is covered in part"
    used = covered / cell_areas(COARSE) > 0.999
    assert 0 < used.sum() < used.size
    found = statistics.agreement(forcing, NAMES)
    assert found["cells"] == used.sum()
    assert found["classes"]["water"] is None
    for k, name in enumerate(NAMES[:3]):
        gap = 100 * (areas[k] / np.where(covered > 0, covered, 1) - forcing[name][0])[used]
        gap = gap[np.isfinite(gap)]
        assert len(gap) == used.sum() - (name == "urban")
        assert found["classes"][name]["bias"] == pytest.approx(gap.mean(), rel=1e-9)
        assert found["classes"][name]["rmse"] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-9)
    known = [found["classes"][name] for name in NAMES[:3]]
    assert found["mean"]["rmse"] == pytest.approx(np.mean([each["rmse"] for each in known]))
    assert found["mean"]["absolute_bias"] == pytest.approx(np.mean([abs(each["bias"]) for each in known]))
    json.dumps(found, allow_nan=False)


def test_areas_of_tiles_merge_to_those_of_the_whole():
    values = series()
    whole, west, east = (AreaStatistics.empty(COARSE, 3, K) for _ in range(3))
    whole.add(values, FINE, 0, 0)
    west.add(values[..., :19], FINE, 0, 0)
    east.add(values[..., 19:], FINE, 0, 19)
    merged = west + east
    np.testing.assert_allclose(merged.areas, whole.areas, rtol=1e-12)
    np.testing.assert_allclose(merged.covered, whole.covered, rtol=1e-12)
    assert (west.covered < whole.covered - 1).any(), "adding leaves its parts as they were"


def test_an_oracle_forcing_agrees_with_its_own_truth():
    values = series()
    statistics = AreaStatistics.empty(COARSE, 3, K)
    statistics.add(values, FINE, 0, 0)
    fractions = statistics.fractions()
    forcing = {name: fractions[:, k] for k, name in enumerate(NAMES)}
    assert statistics.agreement(forcing, NAMES)["mean"] == {"absolute_bias": 0, "rmse": 0}
    curves = statistics.curves(NAMES)
    for name, areas in statistics.forcing_curves(forcing, NAMES).items():
        assert areas == pytest.approx(curves[name], rel=1e-9)
    shifted = {"urban": forcing["urban"] - 0.02}
    assert statistics.agreement(shifted, NAMES)["classes"]["urban"]["bias"] == pytest.approx(2)


def test_curves_are_in_square_kilometres():
    statistics = AreaStatistics.empty(COARSE, 2, K)
    values = np.full((2, FINE.rows, FINE.columns), 2, np.uint8)
    values[1, :10] = 0
    statistics.add(values, FINE, 0, 0)
    rows = cell_areas(FINE)
    curves = statistics.curves(NAMES)
    assert curves["forest"] == pytest.approx([rows.sum(), rows[10:].sum()])
    assert curves["urban"] == pytest.approx([0, rows[:10].sum()])
    assert set(statistics.forcing_curves({}, NAMES)) == set()


def test_tiles_that_overlap_and_forcings_that_do_not_fit_are_refused():
    statistics = AreaStatistics.empty(COARSE, 1, K)
    for _ in range(2):
        statistics.add(series(years=1), FINE, 0, 0)
    with pytest.raises(ValueError, match="tiles overlap"):
        statistics.agreement({}, NAMES)
    with pytest.raises(ValueError, match="lava"):
        statistics.agreement({"lava": np.zeros((1, COARSE.rows, COARSE.columns))}, NAMES)
    with pytest.raises(ValueError, match=r"urban has shape \(1, 2\)"):
        statistics.agreement({"urban": np.zeros((1, 2))}, NAMES)
    with pytest.raises(ValueError, match="2 maps, expected one for each of 1 years"):
        statistics.add(series(years=2), FINE, 0, 0)


# Figures: that they draw what they are given; people look at them besides.


def texts(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    legends += [artist for axes in figure.axes for artist in axes.artists if hasattr(artist, "get_texts")]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_maps_are_drawn_in_the_colours_of_the_classes_that_occur(tmp_path):
    values = np.array([[0, 0, 2], [2, 255, 2]], np.uint8)
    figure = class_maps([("2000", values), ("2001", values)], NAMES, COLOURS, (8.0, 46.0, 9.0, 47.0), "maps")
    assert texts(figure) == ["urban", "forest", "no class"]
    axes = figure.axes[0]
    assert axes.get_xlabel() == "longitude (°E)"
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(46.5)))
    np.testing.assert_allclose(axes.images[0].get_array()[0, 0] * 255, (0xD7, 0x19, 0x1C))
    assert axes.images[0].get_extent() == [8.0, 9.0, 46.0, 47.0]
    assert save(figure, tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    bare = class_maps([("2000", values)], NAMES, COLOURS, None, "maps")
    assert bare.axes[0].get_xlabel() == ""


def test_the_rollout_figure_shows_hits_and_misses_and_their_scores(tmp_path):
    truth, prediction, anchor = (each[0] for each in maps(0))
    figure = rollout_figure(anchor, truth, prediction, anchor, NAMES, COLOURS, (8.0, 46.0, 9.0, 47.0), "tile 1")
    shown = texts(figure)
    assert set(NAMES) <= set(shown)
    assert [text.split(":")[0] for text in shown if ":" in text] == ["hit", "wrong hit", "miss", "false alarm"]
    merit = MapStatistics.of(truth, prediction, anchor, K).scores(NAMES)["change"]["figure_of_merit"]
    titles = [axes.get_title() for axes in figure.axes]
    assert any(title.startswith("Model, rollout: errors") and f"merit {merit:.3f}" in title for title in titles)
    assert any(title.startswith("Persistence: errors") and "merit 0.000" in title for title in titles)
    assert save(figure, tmp_path / "rollout.png").read_bytes().startswith(b"\x89PNG")


def test_the_confusion_figure_has_percent_of_rows_and_cells(tmp_path):
    confusion = np.array([[30, 10, 0, 0], [0, 1500, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]])
    figure = confusion_figure(confusion, NAMES, "test")
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert {"75.0", "25.0", "30", "10", "1.5k"} <= set(shown)
    # A class that the truth does not have has no percentages.
    assert len(shown) == 2 * 3 * 4
    more = confusion_figure(confusion, NAMES, "test", np.array([40, 0, 0, 0]))
    assert [label.get_text() for label in more.axes[0].get_xticklabels()] == [*NAMES, "no class"]
    assert "37.5" in [text.get_text() for text in more.axes[0].texts]
    assert save(more, tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_bars_have_the_height_of_the_scores(tmp_path):
    truth, prediction, anchor = maps(0, classes=3)
    rows = {
        "rollout": MapStatistics.of(truth, prediction, anchor, K).scores(NAMES),
        "persistence": MapStatistics.of(truth, anchor, anchor, K).scores(NAMES),
    }
    figure = iou_bars(rows, NAMES, "IoU")
    assert texts(figure) == ["rollout", "persistence"]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mean IoU", *NAMES]
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert heights == pytest.approx([rows["rollout"]["miou"], *(rows["rollout"]["iou"][n] for n in NAMES[:3]), 0])
    assert [text.get_text() for text in axes.texts].count("–") == 2, "a class without a score has no bar of height 0"
    assert save(figure, tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_area_curves_are_told_apart_by_their_dashes(tmp_path):
    years = [2000, 2001, 2002]
    curves = {
        "truth": {"urban": [1e4, 2e4, 3e4], "forest": [9e4, 8e4, 7e4]},
        "rollout": {"urban": [None, 2e4, 2e4], "forest": [None, 8e4, 8e4]},
        "forcing": {"urban": [1e4, 1e4, 1e4]},
    }
    figure = area_curves(years, curves, NAMES, COLOURS, "areas", held_out_years=[2001, 2002])
    assert texts(figure) == ["truth", "rollout", "forcing", "held-out years"]
    urban, forest = figure.axes[:2]
    assert (urban.get_title(), forest.get_title()) == ("urban", "forest")
    assert [line.get_linestyle() for line in urban.lines] == ["-", "--", ":"]
    assert len(forest.lines) == 2
    assert figure.get_supylabel() == "area (1000 km²)"
    np.testing.assert_array_equal(urban.lines[0].get_ydata(), [10, 20, 30])
    (shade,) = urban.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (2000.5, 2002.5)
    assert save(figure, tmp_path / "areas.png").read_bytes().startswith(b"\x89PNG")

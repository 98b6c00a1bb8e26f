"""The protocol of evaluation: what a rollout may see, what it is compared with, and what is scored.

The model here is a rule in NumPy that writes down what it is given: it keeps the prior's class where it sees one, and
takes the class with the largest fraction elsewhere.
"""

import dataclasses
import itertools
import json
import shutil

import h5py
import numpy as np
import pytest

from earthsr.config import from_mapping
from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import CheckpointError, DataError
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import EARTH_RADIUS_KM, cell_areas
from earthsr.landuse.classes import HILDA_PLUS, NODATA
from earthsr.landuse.field_task import LandField
from earthsr.landuse.fields import Forcing
from earthsr.landuse.rollout import BASELINES, ROWS, RolloutYears, path_of, predict_maps, region_of
from earthsr.landuse.samples import PriorPlan
from earthsr.landuse.scores import MapStatistics
from earthsr.landuse.task import LandUse, frequency_weights
from earthsr.landuse.write import write_landuse
from earthsr.tasks import task_for
from tests.conftest import landuse_values
from tests.landuse.test_landuse_data import PLAN, TILE, YEARS, Arrays, by_year, fused

K = len(HILDA_PLUS)


class Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


class Copier:
    """Keeps the class of the prior where it is known; else the class with the largest fraction."""

    def __init__(self, layout, static_channels=4):
        self.normalisation = ChannelNormalisation(layout.statistics.static_mean, layout.statistics.static_std)
        self.trained_on = {}
        self.given = []

    def submit_fields(self, inputs, pad_to=None):
        self.given.append({name: np.array(value) for name, value in inputs.items()})
        assert len(inputs["prior"]) <= pad_to
        likely = fused(inputs).argmax(axis=1)
        classes = np.where(inputs["prior_mask"] > 0, inputs["prior"], likely)
        return Done((classes[:, None] == np.arange(K)[:, None, None]).astype(np.float32))


def task_of(root, **sections):
    model = {"static_channels": 4, "depth": 1, "width": 4}
    data = {"batch_size": 4, "coarse_interpolation": "nearest", **sections.pop("data", {})}
    sections = {"model": {**model, **sections.pop("model", {})}, "data": data, **sections}
    return task_for(from_mapping(landuse_values(root, "unused", **sections)))


class Seeing(LandUse):
    """The task, and the maps that it scores."""

    def __init__(self, config):
        super().__init__(config)
        self.maps, self.truth = {}, []

    def _add(self, scores, maps, truth, places):
        for name, made in maps.items():
            self.maps.setdefault(name, []).append(made)
        self.truth.append(truth)
        super()._add(scores, maps, truth, places)

    def seen(self, name):
        """All maps of a row, (years, tiles, P, P)."""
        return np.concatenate(self.truth if name == "truth" else self.maps[name], axis=1)


def scored(root, split="test", rows=ROWS, **sections):
    """Task (with its maps), model (with its inputs) and scores."""
    task = Seeing(task_of(root, **sections).config)
    dataset = task.dataset(split)
    model = Copier(dataset.generator.layout)
    return task, model, task.score(model, dataset, rows=rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    write_landuse(folder, Arrays(), PLAN)
    return folder


@pytest.fixture(scope="module")
def backwards(tmp_path_factory):
    """The first two years held out."""
    folder = tmp_path_factory.mktemp("backwards")
    write_landuse(folder, Arrays(), dataclasses.replace(PLAN, held_out_years=(2000, 2001)))
    return folder


def poisoned(root, target, years, seed=9):
    """A copy of the data whose test file has other classes in some years, and the same forcing."""
    shutil.copytree(root, target)
    with h5py.File(target / "test" / "test.h5", "r+") as handle:
        rng = np.random.default_rng(seed)
        for y, year in enumerate(handle["years"][:]):
            if year in years:
                shape = handle["classes"][:, y].shape
                handle["classes"][:, y] = rng.choice(np.array([*range(K), NODATA], np.uint8), shape)
    return target


# Paths


def test_a_path_goes_from_the_anchor_to_the_last_scored_year(root, backwards, tmp_path):
    source = task_of(root).data("test")
    path = path_of(source)
    assert path == RolloutYears(2006, (2007, 2010), (2007, 2010))
    assert (path.direction, path.steps) == (1, (1, 3))
    path = path_of(task_of(backwards).data("test"))
    assert path == RolloutYears(2003, (2001, 2000), (2001, 2000))
    assert (path.direction, path.steps) == (-1, (2, 1))
    write_landuse(tmp_path, Arrays(), dataclasses.replace(PLAN, held_out_years=(2003, 2007)))
    assert path_of(task_of(tmp_path).data("test")) == RolloutYears(2001, (2003, 2006, 2007), (2003, 2007))


def test_only_years_held_out_are_scored(tmp_path):
    write_landuse(tmp_path, Arrays(), dataclasses.replace(PLAN, held_out_years=(2003, 2007)))
    task, _, scores = scored(tmp_path)
    made = scores.to_dict()
    assert made["protocol"]["rollout_years"] == [2003, 2006, 2007]
    assert made["protocol"]["scored_years"] == [2003, 2007]
    assert list(made["groups"]) == ["2003", "2007"]
    truth = task.seen("truth")[[1, 3]]
    assert made["scores"]["rollout"]["cells"] == (truth != NODATA).sum()
    tiles = truth.shape[1]
    assert (made["tiles"], made["samples"]) == (tiles, 2 * tiles)


# Rows


def test_the_rollout_of_a_copying_model_is_persistence(root):
    task, _, scores = scored(root)
    np.testing.assert_array_equal(task.seen("rollout"), task.seen("persistence"))
    made = scores.to_dict()["scores"]
    assert made["rollout"] == made["persistence"]
    assert made["rollout"]["change"]["figure_of_merit"] == 0
    assert 0 < made["rollout"]["accuracy"] < 1
    for each in scores.to_dict()["groups"].values():
        assert each["scores"]["rollout"] == each["scores"]["persistence"]
    # And what persistence is: the anchor against the truth, counted here by hand.
    truth, kept = task.seen("truth")[1:], task.seen("truth")[:1]
    valid = truth != NODATA
    assert made["persistence"]["accuracy"] == pytest.approx((truth == kept)[valid].mean(), rel=1e-12)


def test_the_true_prior_is_the_truth_of_the_year_before(root):
    task, model, scores = scored(root)
    truth = task.seen("truth")
    made = task.seen("true_prior")
    void = truth[0] == NODATA
    for y in range(len(made)):
        seen = ~void & (truth[y] != NODATA)
        np.testing.assert_array_equal(made[y][seen], truth[y][seen])
        assert (made[y][void] == NODATA).all()
        assert (made[y][~void] != NODATA).all()
    expected = sum((MapStatistics.of(truth[1 + y], made[y], truth[0], K) for y in range(2)), MapStatistics.empty(K))
    assert scores.to_dict()["scores"]["true_prior"]["iou"] == expected.scores(scores.names)["iou"]
    priors = inputs_of(model, "true_prior", "prior", len(truth[0]))
    np.testing.assert_array_equal(priors, truth[:-1])


def inputs_of(model, row, name, tiles, batch=4):
    """An input field over all tiles (years, tiles, ...), of one row."""
    steps = len(model.given) // len(ROWS) // -(-tiles // batch)
    calls = model.given[ROWS.index(row) :: len(ROWS)]
    return np.stack([np.concatenate([call[name] for call in calls[y::steps]]) for y in range(steps)])


def test_no_prior_sees_no_prior_at_all(root):
    task, model, _ = scored(root)
    tiles = task.seen("truth").shape[1]
    assert (inputs_of(model, "no_prior", "prior", tiles) == NODATA).all()
    assert (inputs_of(model, "no_prior", "prior_mask", tiles) == 0).all()
    # Where the fractions have the last word, the two are the same map.
    np.testing.assert_array_equal(task.seen("no_prior"), task.seen("coarse_argmax"))


def test_the_rollout_sees_its_anchor_and_then_its_own_maps(root):
    task, model, _ = scored(root)
    truth, made = task.seen("truth"), task.seen("rollout")
    priors = inputs_of(model, "rollout", "prior", truth.shape[1])
    np.testing.assert_array_equal(priors[0], truth[0])
    np.testing.assert_array_equal(priors[1], made[0])
    masks = inputs_of(model, "rollout", "prior_mask", truth.shape[1])
    np.testing.assert_array_equal(masks, priors != NODATA)
    scalars = inputs_of(model, "rollout", "scalars", truth.shape[1])
    np.testing.assert_allclose(scalars[0, 0], [0.07, 0.1, 1], atol=1e-6)
    np.testing.assert_allclose(scalars[1, 0], [0.10, 0.3, 1], atol=1e-6)


def test_backwards_the_rollout_goes_from_the_first_year_that_training_saw(backwards):
    task, model, scores = scored(backwards)
    tiles = task.seen("truth").shape[1]
    scalars = inputs_of(model, "rollout", "scalars", tiles)
    np.testing.assert_allclose(scalars[:, 0], [[0.01, 0.2, -1], [0.0, 0.1, -1]], atol=1e-6)
    data = task.data("test")
    anchors = np.stack([data.classes(tile, 2003) for tile in range(tiles)])
    np.testing.assert_array_equal(inputs_of(model, "rollout", "prior", tiles)[0], anchors)
    # The truth of the step before, in the order of the path: 2003 for 2001, and 2001 for 2000.
    true = inputs_of(model, "true_prior", "prior", tiles)
    np.testing.assert_array_equal(true[1], np.stack([data.classes(tile, 2001) for tile in range(tiles)]))
    made = scores.to_dict()
    assert made["protocol"]["direction"] == "backwards"
    assert made["protocol"]["anchor_year"] == 2003
    assert set(made["groups"]) == {"2000", "2001"}
    assert made["scores"]["rollout"] == made["scores"]["persistence"]


# Held-out truth


@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_held_out_truth_never_reaches_the_model_nor_the_baselines(root, backwards, tmp_path, way):
    """All truth beyond the anchor is replaced by noise: scores change, and nothing that was made does."""
    clean = root if way == "forwards" else backwards
    years = (2007, 2010) if way == "forwards" else (2000, 2001)
    other = poisoned(clean, tmp_path / "poisoned", years)
    for rows in (("rollout",), ("no_prior",)):
        (_, one, a), (_, two, b) = scored(clean, rows=rows), scored(other, rows=rows)
        assert len(one.given) == len(two.given) > 0
        for x, y in zip(one.given, two.given, strict=True):
            assert x.keys() == y.keys()
            assert {n: v.tobytes() for n, v in x.items()} == {n: v.tobytes() for n, v in y.items()}
        assert a.to_dict()["scores"][rows[0]]["miou"] != b.to_dict()["scores"][rows[0]]["miou"]
    (one, first, a), (two, second, b) = scored(clean), scored(other)
    for name in ("rollout", "no_prior", *BASELINES):
        np.testing.assert_array_equal(one.seen(name), two.seen(name), err_msg=name)
        assert a.total[name].scores(a.names) != b.total[name].scores(b.names), name
    # The row that is said to see the truth does: else the comparison would prove nothing.
    assert (one.seen("true_prior") != two.seen("true_prior")).any()
    tiles = one.seen("truth").shape[1]
    for row, same in (("rollout", True), ("no_prior", True), ("true_prior", False)):
        x, y = (inputs_of(model, row, "prior", tiles) for model in (first, second))
        assert (x.tobytes() == y.tobytes()) is same, row


def test_training_files_hold_no_held_out_truth(root, tmp_path):
    """The same world with other classes in the years held out gives the same training and validation files."""
    other = Arrays()
    other.maps[-2:] = (other.maps[-2:] + 1) % K
    forcing = write_forcing(Arrays())
    for folder, source in (("a", Arrays()), ("b", other)):
        write_landuse(tmp_path / folder, source, PLAN, forcing)
    for split in ("train", "valid"):
        with (
            h5py.File(tmp_path / "a" / split / f"{split}.h5") as a,
            h5py.File(tmp_path / "b" / split / f"{split}.h5") as b,
        ):
            for name in a:
                np.testing.assert_array_equal(a[name][...], b[name][...])
            assert {k: str(v) for k, v in a.attrs.items()} == {k: str(v) for k, v in b.attrs.items()}


def write_forcing(source):
    grid = source.grid.coarse(0.25)
    values = np.random.default_rng(2).dirichlet(np.ones(13), (len(YEARS), grid.rows, grid.columns))
    names = tuple(dict.fromkeys(c for each in HILDA_PLUS.classes for c in each.forcing))
    of_class = {each.name: each.forcing for each in HILDA_PLUS.classes if each.forcing}
    made = values.transpose(0, 3, 1, 2)[:, : len(names)].astype(np.float32)
    return Forcing("scenario", grid, names, YEARS, by_year(YEARS, made), of_class)


def test_cells_without_a_class_at_the_anchor_stay_without_one(root):
    task, _, _ = scored(root)
    void = task.seen("truth")[0] == NODATA
    assert void.any()
    for name in (*ROWS, *BASELINES):
        assert (task.seen(name)[:, void] == NODATA).all(), name
        assert (task.seen(name)[:, ~void] != NODATA).all(), name


# metrics.json


def test_metrics_have_the_keys_of_the_contract(root):
    _, _, scores = scored(root)
    made = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert {k: made[k] for k in ("task", "split", "units", "forcing")} == {
        "task": "land_use", "split": "test", "units": "class", "forcing": "oracle",
    }  # fmt: skip
    assert made["classes"] == list(HILDA_PLUS.names)
    assert list(made["scores"]) == [*ROWS, *BASELINES]
    for row in made["scores"].values():
        assert {"miou", "accuracy", "balanced_accuracy", "kappa", "f1_macro", "change", "flicker_percent"} <= set(row)
        assert set(row["iou"]) == set(HILDA_PLUS.names)
        assert row["area_agreement"]["units"].startswith("percent")
    assert made["protocol"] | {} == {
        **made["protocol"],
        "anchor_year": 2006,
        "rollout_years": [2007, 2010],
        "scored_years": [2007, 2010],
        "held_out_years": [2007, 2010],
        "direction": "forwards",
    }
    assert {"rollout", "no_prior", "true_prior", "persistence"} <= set(made["protocol"])
    assert made["groups"]["2007"]["samples"] == made["tiles"]
    assert scores.headline()["miou"] == made["scores"]["rollout"]["miou"]
    assert scores.reference()["persistence_miou"] == made["scores"]["persistence"]["miou"]


def test_scores_do_not_depend_on_the_batch(root):
    found = [scored(root, data={"batch_size": size})[2].to_dict() for size in (1, 3, 64)]
    assert found[0] == found[1] == found[2]


def test_baselines_are_scored_without_a_model_and_the_watched_rollout_alone(root):
    task = task_of(root)
    dataset = task.dataset("valid")
    alone = task.score(None, dataset).to_dict()["scores"]
    assert list(alone) == list(BASELINES)
    model = Copier(dataset.generator.layout)
    watched = task.watch(model, dataset, baselines=False)
    assert list(watched.total) == ["rollout"]
    assert watched.reference() == {}
    assert len(model.given) == 2 * -(-dataset.generator.layout.tiles // 4)


def test_areas_are_those_of_the_maps(root):
    task, _, scores = scored(root)
    layout = scores.layout
    one = np.deg2rad(layout.fine.cell_x) * EARTH_RADIUS_KM**2
    truth = task.seen("truth")
    places = task.data("test").places
    for k in range(K):
        expected = 0.0
        for tile, (row, _) in enumerate(places):
            sines = np.sin(np.deg2rad(layout.fine.latitude_edges(int(row), TILE)))
            expected += ((truth[0, tile] == k).sum(axis=1) * -np.diff(sines) * one).sum()
        assert scores.areas["truth"].areas[0, k].sum() == pytest.approx(expected, rel=1e-9)
    covered = scores.areas["truth"].cover()
    assert covered.max() <= 1 + 1e-9
    assert covered.max() > 0.999
    assert (cell_areas(scores.areas["truth"].coarse) > 0).all()


def test_an_oracle_forcing_agrees_with_the_truth_where_tiles_cover_its_cells(tmp_path):
    # Tiles and coarse cells begin at the same corner, so that many are covered whole.
    source = Arrays(Grid(8.0, 50.0, 1 / 64, 1 / 64, 48, 160))
    write_landuse(tmp_path, source, dataclasses.replace(PLAN, buffer_cells=16, shares=(0.5, 0.25, 0.25)))
    _, _, scores = scored(tmp_path)
    agreement = scores.row("persistence")["area_agreement"]
    assert agreement["cells"] == scores.layout.tiles == 6
    truth = dataclasses.replace(scores.areas["truth"])
    truth.areas = truth.areas[1:]
    found = truth.agreement({name: values[1:] for name, values in scores.forcing.items()}, scores.names)
    assert found["mean"]["rmse"] < 1e-4
    assert agreement["mean"]["rmse"] > 0.5


def test_tiles_that_overlap_have_no_areas(root, tmp_path):
    write_landuse(tmp_path, Arrays(), dataclasses.replace(PLAN, stride=8))
    for split, separate in (("train", False), ("test", True)):
        task = task_of(tmp_path)
        scores = task.score(None, task.dataset(split))
        assert region_of(task.data(split)).separate is separate
        assert bool(scores.areas) is separate
        assert ("area_agreement" in scores.to_dict()["scores"]["persistence"]) is separate


def test_classes_that_the_forcing_does_not_know_are_left_as_they_are(tmp_path):
    write_landuse(tmp_path, Arrays(), PLAN, write_forcing(Arrays()))
    task = Seeing(task_of(tmp_path, model={"coarse_channels": 13}).config)
    scores = task.score(None, task.dataset("test"))
    region = region_of(task.data("test"))
    assert region.known == (True,) * 5 + (False,) * 2
    assert np.isnan(region.fractions[:, 5:]).all()
    channels = scores.layout.coarse_channels
    with h5py.File(tmp_path / "test" / "test.h5") as handle:
        crops = handle["coarse"][:, [channels.index(c) for c in ("c3ann", "c4ann", "c3per", "c4per", "c3nfx")]].sum(
            axis=1
        )
    inside = crops[:, region.row :, region.column :][:, : region.grid.rows, : region.grid.columns]
    np.testing.assert_allclose(region.fractions[:, 1], inside, rtol=1e-6)
    assert set(scores.forcing) == set(HILDA_PLUS.names[:5])
    assert scores.row("persistence")["area_agreement"]["classes"]["water"] is None
    # Water and bare ground stay where they were.
    anchor = task.seen("truth")[0]
    for unknown in (5, 6):
        assert (task.seen("allocation")[:, anchor == unknown] == unknown).all()
    assert not np.isin(task.seen("coarse_argmax"), (5, 6)).any()


@pytest.mark.parametrize("west", [178.05, 181.05], ids=["across", "beyond"])
def test_baselines_do_not_notice_the_dateline(tmp_path, west):
    """A global forcing that counts from -180, and tiles that reach over 180 E; then both 175 degrees further west."""
    globe = (
        np.random.default_rng(3).dirichlet(np.ones(K), (len(YEARS), 20, 360)).transpose(0, 3, 1, 2).astype(np.float32)
    )
    of_class = {name: (name,) for name in HILDA_PLUS.names}
    found = {}
    for name, turn in (("there", 0), ("here", -175)):
        grid = Grid(-180.0, 60.0, 1.0, 1.0, 20, 360)
        read = by_year(YEARS, np.roll(globe, turn, axis=-1))
        forcing = Forcing("scenario", grid, HILDA_PLUS.names, YEARS, read, of_class)
        source = Arrays(Grid(west + turn, 50.02, 0.03, 0.03, 40, 130))
        write_landuse(tmp_path / name, source, PLAN, forcing)
        task, _, scores = scored(tmp_path / name)
        found[name] = {row: task.seen(row) for row in (*ROWS, *BASELINES)}, scores.to_dict()["scores"]
    for row, maps in found["here"][0].items():
        np.testing.assert_array_equal(found["there"][0][row], maps, err_msg=row)
    assert found["there"][1] == found["here"][1]


# What does not fit


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("target", [None, "lai"])
def test_a_split_without_a_value_is_refused_before_training(tmp_path, split, target):
    """Of class 255 throughout: training went to its end with a loss of 0, and validation failed after an epoch."""
    write_landuse(tmp_path, Arrays(), PLAN)
    path = tmp_path / split / f"{split}.h5"
    with h5py.File(path, "r+") as handle:
        name = target or "classes"
        handle[name][...] = 255
        if target is None:
            handle[name][:, 0] = 0  # the year that all begins with is learnt by nobody
    model = {"head": "continuous", "out_channels": 2} if target else {}
    task = task_of(tmp_path, model=model)
    words = f"{split}\\.h5: .*no (cell|value).* the {split} split"
    with pytest.raises(DataError, match=words):
        task.dataset(split)
    for other in {"train", "valid", "test"} - {split}:
        assert task.dataset(other)


def test_a_split_of_one_year_cannot_be_scored_and_says_so_before_training(tmp_path):
    plan = dataclasses.replace(PLAN, held_out_years=YEARS[1:])
    write_landuse(tmp_path, Arrays(), plan)
    task = task_of(tmp_path)
    assert task.data("train").layout.years == (2000,)
    with pytest.raises(DataError, match=r"valid\.h5: has no year after its anchor 2000, so nothing can be scored"):
        task.dataset("valid")
    assert path_of(task.data("test")).years == YEARS[1:]


def test_a_normalisation_of_other_channels_is_refused(root):
    task = task_of(root)
    dataset = task.dataset("test")
    model = Copier(dataset.generator.layout)
    model.normalisation = ChannelNormalisation((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(CheckpointError, match=r"not of the 4 static fields of .*test\.h5"):
        task.score(model, dataset)


# Weights of classes


def test_weights_by_frequency_have_mean_1_over_cells():
    counts = (100, 10, 0, 1)
    for power in (-0.5, -1.0):
        weights = np.array(frequency_weights(counts, power))
        share = np.array(counts) / 111
        assert (share * weights).sum() == pytest.approx(1)
        assert weights[2] == 0
        assert weights[1] / weights[0] == pytest.approx(10**-power)
    assert frequency_weights((0, 0), -1) == (0, 0)


def test_the_objective_follows_the_configuration(root):
    counts = task_of(root).data("train").layout.statistics.class_counts
    assert task_of(root).objective().class_weights is None
    balanced = task_of(root, train={"class_weights": "balanced", "dice": 0.5, "label_smoothing": 0.1}).objective()
    assert balanced.class_weights == frequency_weights(counts, -1.0)
    assert (balanced.dice, balanced.label_smoothing) == (0.5, 0.1)
    listed = task_of("nowhere", train={"class_weights": [1, 2, 3, 4, 5, 6, 7]}).objective()
    assert listed.class_weights == (1, 2, 3, 4, 5, 6, 7)


def test_samples_follow_the_configuration(root):
    data = {
        "directions": ["backwards"],
        "prior_hidden": 0.11,
        "prior_hidden_blocks": 0.12,
        "prior_block_cells": 13,
        "prior_stale": 0.14,
        "prior_stale_steps": 15,
        "prior_own": 0.16,
        "buffer_tiles": 17,
        "coarse_interpolation": "nearest",
        "augment": True,
        "batch_size": 5,
    }
    task = task_of(root, data=data, train={"seed": 18})
    training, testing = task.dataset("train"), task.dataset("test")
    options = training.options
    assert options.prior == PriorPlan(0.11, 0.12, 13, 0.14, 15, 0.16)
    assert (options.directions, options.method, options.buffer_tiles) == (("backwards",), "nearest", 17)
    assert set(options.fields) == {"coarse", "wy", "wx", "static", "prior", "prior_mask", "scalars"}
    assert (training.seed, training.batch_size, training.shuffle, training.augment) == (18, 5, True, True)
    assert (testing.shuffle, testing.augment) == (False, False)
    assert not {"prior", "prior_mask"} & set(task_of(root, model={"prior": False}).dataset("train").options.fields)


# One step


def test_maps_of_one_tile_are_those_of_many(root):
    task = task_of(root)
    dataset = task.dataset("test")
    source, model = dataset.generator, Copier(dataset.generator.layout)
    composer, path = task.composer(model, source), path_of(source)
    together = predict_maps(model, composer, range(3), path, task.field_names, pad_to=3)
    for tile in range(3):
        alone = predict_maps(model, composer, [tile], path, task.field_names, rows=("rollout",), pad_to=8)
        assert list(alone) == ["rollout"]
        np.testing.assert_array_equal(alone["rollout"][:, 0], together["rollout"][:, tile])


# Continuous fields


class Table:
    """Gives the right values of a field, a constant too high; it looks them up by year and place."""

    def __init__(self, data, normalisation, error):
        self.data, self.normalisation, self.error = data, normalisation, error
        self.trained_on = {}
        self.given = []

    def submit_fields(self, inputs, pad_to=None):
        self.given.append(inputs)
        found = []
        for n in range(len(inputs["static"])):
            year = round(float(inputs["scalars"][n, 0]) * 100 + 2000)
            tile = next(
                t for t in range(self.data.layout.tiles)
                if (self.normalisation.static(self.data.static(t)) == inputs["static"][n]).all()
            )  # fmt: skip
            found.append(self.data.continuous("lai", tile, year))
        return Done(self.normalisation.apply(np.nan_to_num(np.stack(found)) + np.float32(self.error)))


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_a_field_is_scored_in_its_unit_where_it_has_values(root, error):
    task = task_of(root, model={"head": "continuous", "out_channels": 2})
    assert isinstance(task, LandField)
    dataset = task.dataset("test")
    data, statistics = dataset.generator, dataset.generator.layout.statistics
    model = Table(data, statistics.normalisation("lai"), error)
    made = task.score(model, dataset).to_dict()
    assert made["units"] == "m2 m-2"
    assert made["samples"] == data.layout.tiles * 2
    assert made["scores"]["model"]["rmse"] == pytest.approx(error, abs=1e-5)
    assert made["scores"]["model"]["bias"] == pytest.approx(error, abs=1e-5)
    # Cells count where all channels have a value, in the years that are held out.
    pairs = itertools.product(range(data.layout.tiles), (2007, 2010))
    truth = np.stack([data.continuous("lai", tile, year) for tile, year in pairs]).astype(np.float64)
    truth = np.moveaxis(truth, 1, -1)[np.isfinite(truth).all(axis=1)]
    expected = np.sqrt(np.mean((truth - statistics.continuous["lai"][0]) ** 2))
    assert made["scores"]["training_mean"]["rmse"] == pytest.approx(expected, rel=1e-5)
    assert all((call["scalars"][:, 1] == 0).all() for call in model.given)


def test_a_head_of_another_number_of_channels_is_refused(root):
    with pytest.raises(DataError, match=r"lai has 2 channels, model\.out_channels is 12; set it to 2"):
        task_of(root, model={"head": "continuous"}).dataset("train")

"""tools/benchmark_dem.py: what it asks for, and that no region is in training and in what is scored."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from earthsr.config import load_yaml_config
from earthsr.dem.prepare import DemPlan
from earthsr.errors import ConfigError, DataError, InputError
from earthsr.tasks import task_for
from tests.conftest import CONFIGS, write_patches
from tests.tools.benchmark_dem_cases import LAND, named, planned, write_files
from tools.dem_benchmark.config import load_benchmark
from tools.dem_benchmark.plan import Folders, Plan, spread
from tools.dem_benchmark.splits import require_apart, require_whole
from tools.dem_benchmark.stages import chosen, keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"land.epoch": 3}, "unknown key land.epoch; did you mean epochs?"),
        ({"land.epochs": 0}, "land.epochs is 0"),
        ({"land.groups": {"one": ["a"]}}, "land.groups is"),
        ({"land.groups": {"one": ["a"], "two": ["a"]}}, "land.groups name a twice"),
        ({"ocean.fold": "three"}, "ocean.fold is 'three', expected a group of land.groups: one, two"),
        ({"ocean.test": ["o2"]}, "ocean.train, valid and test name o2 twice"),
        ({"ocean.variants.whole.patch": 8}, "ocean.variants.whole has patch, stride or curve"),
        ({"ocean.variants.whole.more_land": 0.5}, "ocean.variants.whole has more_land, which is of land"),
        ({"land.variants.rough.curve": "depth"}, "land.variants.rough has patch, stride or curve"),
        ({"land.variants.rough.set": ["train.los=mse"]}, "unknown key train.los"),
        (
            {"land.variants.edsr": {"topic": "x", "label": "y"}},
            "land.variants.edsr is the name of a model of the table; take another",
        ),
        ({"ablations.variants.wide.stride": None}, "ablations.variants.wide has one of patch and stride"),
        ({"ablations.variants.shallow.curve": "deep"}, "ablations.variants.shallow.curve is 'deep'"),
        ({"ablations.variants.shallow.set": ["model.blocks=3"]}, "unknown key model.blocks"),
        ({"ablations.variants.a/b": {"topic": "x", "label": "y"}}, "'a/b' names files"),
        ({"cut.scale": 4}, "cut.scale is 4, but model.scale of land.yaml is 5"),
        ({"land.config": "nothing.yaml"}, "nothing.yaml: no such configuration file"),
    ],
)
def test_a_wrong_benchmark_says_where_and_why(tmp_path, changes, message):
    path = write_files(tmp_path / "configs", changes)
    with pytest.raises(ConfigError) as error:
        load_benchmark(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"land.groups": {"one": ["a"], "two": ["b"]}}, "c.tif: is in no group of land.groups"),
        ({"land.groups": {"one": ["a"], "two": ["b", "c", "d"]}}, "land.groups name d, which --land"),
        ({"land.validation": ["m9"]}, "land.validation name m9, which --more-land"),
        ({"ocean.train": ["o9"]}, "name o9, which --ocean"),
        ({"ocean.valid": ["o1"], "ocean.train": ["o2"], "ocean.test": ["o3"]}, None),
        ({"ocean": None}, None),
        ({"ablations": None}, None),
    ],
)
def test_regions_and_rasters_have_to_agree(tmp_path, changes, message):
    if message is None:
        assert planned(tmp_path, changes).stages
        return
    with pytest.raises(InputError) as error:
        planned(tmp_path, changes)
    assert message in str(error.value)


def test_an_ocean_raster_that_nobody_names_is_an_error(tmp_path):
    named(tmp_path / "ocean", ["o4"])
    with pytest.raises(InputError, match=r"o4.tif: is in none of ocean.train, ocean.valid and ocean.test"):
        planned(tmp_path)
    with pytest.raises(InputError, match="region a is in --land and in --more-land"):
        planned(tmp_path / "again", more=("m1", "a"))


# Plans


def option(words, name):
    return [words[i + 1] for i, word in enumerate(words) if word == name]


def splits_of(stage):
    """Regions by split that a command of preparing asks for, told by the code that will divide them."""
    words = stage.commands[0].words
    regions = [Path(word).stem for word in words if word.endswith(".tif")]
    kinds = {f"{split}_regions": tuple(option(words, f"--{split}-region")) for split in ("train", "valid", "test")}
    shares = tuple(float(part) for part in option(words, "--shares")[0].split(","))
    given = DemPlan(**kinds, shares=shares).assign(regions)
    return {split: {name for name, its in given.items() if its == split} for split in ("train", "valid", "test")}


def test_every_fold_leaves_its_group_out_whole(tmp_path):
    plan = planned(tmp_path)
    stages = {stage.name: stage for stage in plan.stages}
    for fold, group in LAND.items():
        splits = splits_of(stages[f"data/{fold}"])
        assert splits["test"] == set(group)
        assert splits["valid"] == {"m1"}
        assert splits["train"] == {"a", "b", "c", "m2", "m3"} - set(group)
    assert splits_of(stages["data/one-more-0"])["train"] == {"b", "c"}
    assert splits_of(stages["data/two-more-0"]) == {"train": {"a"}, "valid": {"m1"}, "test": {"b", "c"}}
    assert splits_of(stages["data/ocean"]) == {"train": {"o1"}, "valid": {"o2"}, "test": {"o3"}}


def test_names_are_no_patterns(tmp_path):
    changes = {"land.validation": ["m[1]*"]}
    plan = planned(tmp_path, changes, more=("m[1]*", "m1", "m1x"))
    assert splits_of(plan.stages[0])["valid"] == {"m[1]*"}


def test_each_stage_comes_after_what_it_needs_and_uses_it(tmp_path):
    plan = planned(tmp_path)
    seen = set()
    for stage in plan.stages:
        assert set(stage.needs) <= seen, stage.name
        assert stage.name not in seen
        seen.add(stage.name)
        for command in stage.commands:
            for word in command.words:
                # What lies in the output folder was made by a stage that this one needs, or is its own.
                made = next((s for s in plan.stages if Path(word) in (s.result.parents[0], s.result.parents[1])), None)
                assert made is None or made.name in (*stage.needs, stage.name), (stage.name, word)
    assert {"train/ocean/finetuned", "score/ocean/whole", "score/one/averaged", "score/one/over-time"} <= seen


def test_training_stages_are_configurations_that_load(tmp_path):
    plan = planned(tmp_path, scale_epochs=0.5)
    stages = {stage.name: stage.commands[0] for stage in plan.stages if stage.name.startswith("train/")}
    configs = {}
    for name, command in stages.items():
        assert (command.begin, command.carry_on) == (("--overwrite",), ("--resume",))
        configs[name] = load_yaml_config(command.words[2], option(command.words, "--set"))
    long = configs["train/one/demsrnet"]
    assert long.data.root_dir == str(plan.data("one"))
    # Four epochs, halved; all checkpoints are kept where the curve of time is drawn.
    assert (long.epochs, long.summary.keep_checkpoint_max) == (2, 3)
    assert configs["train/two/demsrnet"].summary.keep_checkpoint_max == 2
    assert configs["train/two/edsr"].epochs == 1
    for fold in ("one", "two"):
        assert (configs[f"train/{fold}/rough"].train.loss, configs[f"train/{fold}/rough"].epochs) == ("mse", 2)
    carried = configs["train/two/tiles"]
    assert carried.summary.ckpt_path == str(plan.run("two/demsrnet"))
    assert carried.data.root_dir == str(plan.data("two-more-0"))
    tuned = configs["train/ocean/finetuned"]
    assert tuned.summary.ckpt_path == str(plan.run("one/demsrnet"))
    assert tuned.train.freeze == ["head", "blocks.0"]
    assert configs["train/ocean/whole"].train.freeze == []
    wide = configs["train/ablation/wide"]
    assert (wide.data.patch_size, wide.data.root_dir) == (16, str(plan.data("one-patch-16")))


def test_a_variant_of_the_land_may_learn_from_tiles_alone_and_is_scored_as_all_are(tmp_path):
    alone = {"topic": "data", "label": "tiles alone", "more_land": 0, "epochs": 7}
    # Without a second stage nobody else asks for these data.
    plan = planned(tmp_path, {"land.variants.alone": alone, "land.tiles": None, "ablations": None})
    stages = {stage.name: stage for stage in plan.stages}
    for fold in ("one", "two"):
        train = stages[f"train/{fold}/alone"]
        config = load_yaml_config(train.commands[0].words[2], option(train.commands[0].words, "--set"))
        assert (config.data.root_dir, config.epochs) == (str(plan.data(f"{fold}-more-0")), 7)
        assert train.needs == (f"data/{fold}-more-0",)
        score = stages[f"score/{fold}/alone"].commands[0].words
        assert option(score, "--data") == option(stages[f"score/{fold}/rough"].commands[0].words, "--data")
    assert splits_of(stages["data/two-more-0"])["train"] == {"a"}


def test_patches_of_another_size_are_scored_on_the_data_of_all(tmp_path):
    stages = {stage.name: stage for stage in planned(tmp_path).stages}
    convert, evaluate = (command.words for command in stages["score/ablation/wide"].commands)
    assert convert[:2] == ("earthsr", "convert")
    assert convert[3] == evaluate[2]
    assert option(evaluate, "--data") == option(stages["score/ablation/shallow"].commands[0].words, "--data")


def test_a_share_of_regions_is_spread_over_them():
    names = [f"r{i:02}" for i in range(79)]
    assert spread(names, 0) == []
    assert spread(names, 1) == names
    for share, count in ((0.25, 20), (0.5, 40)):
        picked = spread(names, share)
        assert len(picked) == len(set(picked)) == count
        gaps = np.diff([names.index(name) for name in picked])
        assert set(gaps) <= {int(1 / share) - 1, int(1 / share), int(1 / share) + 1}


def test_the_shipped_benchmark_is_sound(tmp_path):
    path = CONFIGS / "benchmark_dem.yaml"
    benchmark = load_benchmark(path)
    ocean = benchmark.ocean
    more = [*benchmark.land.validation, *(f"gebco_{i}" for i in range(79))]
    folders = Folders(
        named(tmp_path / "land", [name for names in benchmark.land.groups.values() for name in names]),
        named(tmp_path / "more", more),
        named(tmp_path / "ocean", [*ocean.train, *ocean.valid, *ocean.test]),
        tmp_path / "out",
    )
    plan = Plan(benchmark, path, folders)
    assert (len(ocean.train), len(ocean.valid), len(ocean.test)) == (12, 4, 8)
    assert len(benchmark.land.validation) == 8
    pairs = [group for group in benchmark.land.groups.values() if "N49W123" in group]
    assert pairs == [["N49W123", "N49W124"]], "tiles that touch are left out together"
    for stage in plan.stages:
        if stage.name.startswith("data/") and stage.name != "data/ocean":
            splits = splits_of(stage)
            assert not splits["train"] & (splits["valid"] | splits["test"])
            assert {"N49W123", "N49W124"} <= splits["train"] or {"N49W123", "N49W124"} <= splits["test"]
        if stage.name.startswith("train/"):
            words = stage.commands[0].words
            config = load_yaml_config(words[2], option(words, "--set"))
            task_for(config).spec().select(config.train.freeze)
    topics = {variant.topic for variant in benchmark.ablations.variants.values()}
    wanted = {"residual over", "input", "normalisation", "loss", "data", "depth", "context"}
    assert wanted <= topics
    assert {variant.curve for variant in benchmark.ablations.variants.values()} == {None, "regions", "depth", "patch"}


def test_stages_are_chosen_with_what_they_need(tmp_path):
    stages = planned(tmp_path).stages
    names = lambda *only: [stage.name for stage in chosen(stages, only)]  # noqa: E731
    assert names() == [stage.name for stage in stages]
    assert names("score/two/edsr") == ["data/two", "train/two/edsr", "score/two/edsr"]
    assert names("score/*/edsr") == [
        "data/one", "train/one/edsr", "score/one/edsr",
        "data/two", "train/two/edsr", "score/two/edsr",
        "data/ocean", "score/ocean/edsr",
    ]  # fmt: skip
    assert {name.split("/")[0] for name in names("data")} == {"data"}
    with pytest.raises(InputError, match="--only score/three: no such stage"):
        names("score/three")


def test_a_key_changes_with_commands_inputs_and_what_is_needed(tmp_path):
    plan = planned(tmp_path)
    before = keys(plan.stages)
    assert keys(plan.stages) == before
    (tmp_path / "configs" / "edsr.yaml").write_text("model: {features: 5}\n")
    changed = {name for name, key in keys(plan.stages).items() if key != before[name]}
    assert changed == {name for name in before if name.split("/")[0] in ("train", "score") and name.endswith("edsr")}
    (tmp_path / "ocean" / "o1.tif").write_bytes(b"other")
    changed = {name for name, key in keys(plan.stages).items() if key != before[name]}
    assert "data/ocean" in changed
    assert "score/ocean/finetuned" in changed
    assert "score/one/demsrnet" not in changed


# Splits


def test_regions_in_two_splits_are_refused(tmp_path):
    write_patches(tmp_path)
    with pytest.raises(DataError, match="region alps is in train and in valid; regions are split whole"):
        require_whole(tmp_path, [], {})
    relabel(tmp_path, train="one", valid="two", test="three")
    require_whole(tmp_path, [["one"], ["two"]], {"test": ["three"]})
    with pytest.raises(DataError, match="one, three belong together, and are in train and in test"):
        require_whole(tmp_path, [["one", "three"]], {})
    with pytest.raises(DataError, match="region four is not in test"):
        require_whole(tmp_path, [], {"test": ["four"]})


def relabel(root, **regions):
    """Give each split one region, at a place of its own."""
    for number, (split, name) in enumerate(regions.items()):
        with h5py.File(root / split / f"{split}.h5", "r+") as handle:
            handle["region"][...] = name
            handle["origin"][...] = (10.0 + number, 45.0)


def test_ground_in_two_splits_is_refused_whatever_it_is_called(tmp_path):
    one, other = write_patches(tmp_path / "one"), write_patches(tmp_path / "other")
    relabel(one, train="a", valid="b", test="c")
    relabel(other, train="d", valid="e", test="f")
    with h5py.File(other / "test" / "test.h5", "r+") as handle:
        # 40 cells of 1 / 1200 degrees: a patch of 0.0333 degrees that reaches into the other by a cell.
        handle["origin"][...] = (10.0 + 39 / 1200, 45.0)
    with pytest.raises(DataError, match=r"region a of .* and region f of .* overlap"):
        require_apart(one, "train", other, "test")
    with h5py.File(other / "test" / "test.h5", "r+") as handle:
        handle["origin"][...] = (10.0 + 40 / 1200, 45.0)
    require_apart(one, "train", other, "test")
    with h5py.File(other / "test" / "test.h5", "r+") as handle:
        handle["origin"][...] = (370.0, 45.0)
    with pytest.raises(DataError, match="overlap"):
        require_apart(one, "train", other, "test")

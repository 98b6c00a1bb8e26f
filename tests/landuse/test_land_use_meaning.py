"""That names mean the same on both sides: of a checkpoint and data, of a run and its continuation, of noise."""

import dataclasses
import json
import types

import h5py
import numpy as np
import pytest

from earthsr.check.parity_record import mirrored
from earthsr.config import from_mapping
from earthsr.data.batch import Earlier
from earthsr.errors import CheckpointError, ConfigError, DataError, InputError
from earthsr.landuse.split import LandUseData
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.landuse.write import SplitPlan
from earthsr.models import UNetSpec
from earthsr.samples.world import SyntheticWorld, WorldSpec
from earthsr.tasks import task_for
from tests.conftest import landuse_values


def config_of(root, **sections):
    return from_mapping(landuse_values(root, "unused", **sections))


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("static_channels", ["slope", "elevation", "soil", "distance_to_water", "latitude"]),
        ("coarse_channels", list("abcdefg")),
        ("coarse_interpolation", "nearest"),
        ("class_table", json.dumps({"classes": [{"name": "this"}, {"name": "that"}]})),
    ],
)
def test_a_model_of_fields_with_other_names_is_refused(landuse_dir, key, other):
    task = task_for(config_of(landuse_dir))
    dataset = task.dataset("test")
    known = task.metadata(dataset)
    task.require_fitting(types.SimpleNamespace(trained_on=known), dataset)
    task.require_fitting(types.SimpleNamespace(trained_on={}), dataset)
    with pytest.raises(CheckpointError, match=f"trained with {key}"):
        task.require_fitting(types.SimpleNamespace(trained_on={**known, key: other}), dataset)


def test_what_samples_depend_on_is_what_a_resumed_run_compares(landuse_dir):
    plain = task_for(config_of(landuse_dir)).dataset("train").order
    changes = (
        {"directions": ["backwards"]},
        {"buffer_tiles": 3},
        {"coarse_interpolation": "nearest"},
        {"augment": not plain["augment"]},
    )
    for change in changes:
        assert task_for(config_of(landuse_dir, data=change)).dataset("train").order != plain, change


def test_a_fingerprint_sees_continuous_fields(landuse_copy):
    data = {"root_dir": landuse_copy, "patch_size": 16}
    before = LandUseData(data, "train").fingerprint()
    with h5py.File(landuse_copy / "train" / "train.h5", "r+") as handle:
        handle["lai"][:] = 7
    assert LandUseData(data, "train").fingerprint() != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda statistics: statistics["continuous"].clear(),
        lambda statistics: statistics["static_std"].__setitem__(0, 0.0),
        lambda statistics: statistics["static_std"].pop(),
        lambda statistics: statistics["static_mean"].__setitem__(0, float("nan")),
    ],
)
def test_statistics_that_cannot_normalise_are_refused(landuse_copy, damage):
    path = landuse_copy / "train" / "train.h5"
    with h5py.File(path, "r+") as handle:
        statistics = json.loads(handle.attrs["statistics"])
        damage(statistics)
        handle.attrs["statistics"] = json.dumps(statistics)
    with pytest.raises(DataError, match=r"train\.h5: attribute statistics"):
        LandUseData({"root_dir": landuse_copy, "patch_size": 16}, "train")


def test_the_noise_of_fed_back_batches_is_measured_on_the_same_earlier_steps():
    spec = UNetSpec(coarse_channels=2, static_channels=1, classes=3, width=2, depth=1)
    batch, other = synthetic_tiles(spec, 8, 3, 2).batches
    earlier = {name: other.inputs[name] for name in ("coarse", "prior", "prior_mask", "scalars")}
    given = dataclasses.replace(batch, earlier=Earlier(earlier, np.array([1, 0, 0], np.float32)))
    turned = mirrored([given], spec)[0].earlier
    np.testing.assert_array_equal(turned.own, [0, 0, 1])
    np.testing.assert_array_equal(turned.inputs["prior"], earlier["prior"][::-1].swapaxes(-1, -2))
    back = mirrored(mirrored([given], spec), spec)[0].earlier
    for name, value in earlier.items():
        np.testing.assert_array_equal(back.inputs[name], value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"norm": "group", "width": 16, "norm_groups": 24}}, "divide the 32 features of level 1"),
        ({"optimizer": {"accumulate": 2}}, "model.norm is batch"),
    ],
)
def test_norms_that_cannot_be_are_refused(landuse_dir, sections, words):
    with pytest.raises(ConfigError, match=words):
        config_of(landuse_dir, **sections)


def test_years_held_out_on_both_sides_of_the_first_learnt_are_refused():
    world = SyntheticWorld(WorldSpec(rows=32, columns=96, years=tuple(range(1990, 1996))))
    for held in ((1990, 1995), (1990, 1991, 1993)):
        with pytest.raises(InputError, match="a rollout goes one way"):
            SplitPlan(tile_size=16, held_out_years=held).check(world)
    for held in ((1990, 1991), (1993,), (1994, 1995)):
        SplitPlan(tile_size=16, held_out_years=held).check(world)

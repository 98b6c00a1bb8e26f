"""Whatever is damaged, wherever: one clear line and exit code 2, or the work is done right. Never a traceback."""

import itertools
import json
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthsr.config import from_mapping, load_yaml_config, to_yaml
from earthsr.dem.split import DemData
from earthsr.errors import ConfigError, InputError
from earthsr.landuse.samples import Composer
from earthsr.landuse.split import LandUseData
from earthsr.models import DemSRNetSpec, RunFolder, State, initial_weights, read_checkpoint, read_weights, write_weights
from tests.conftest import CONFIGS, call_cli, small_world, write_patches

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
#: Of what reads files of data, each in a child that looks it over first; tools/hardening.py fuzz tries thousands.
FILES = settings(FIXTURES, max_examples=30)
SPEC = DemSRNetSpec(features=2, num_blocks=1)
COUNTER = itertools.count()


@pytest.fixture(scope="module")
def good_data(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("good"), splits=(("train", 3),), masks=True)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = RunFolder(folder)
    run.create()
    weights = initial_weights(SPEC, 0)
    run.save(7, SPEC, State(weights, weights, weights, step=7), {"normalisation": {"kind": "none"}}, {"progress": {}})
    return folder


def damaged(content, data):
    """Cut, flip or fill a part of some bytes."""
    content = bytearray(content)
    kind = data.draw(st.sampled_from(["cut", "flip", "fill", "insert"]))
    # Half of the damage goes where the structure is: near the beginning.
    place = data.draw(st.one_of(st.integers(0, min(600, len(content) - 1)), st.integers(0, len(content) - 1)))
    if kind == "cut":
        del content[place:]
    elif kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "fill":
        content[place : place + data.draw(st.integers(1, 64))] = bytes([data.draw(st.integers(0, 255))])
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


@FILES
@given(st.data())
def test_damaged_data_files_are_refused_or_read(good_data, tmp_path, data):
    root = tmp_path / f"damaged-{next(COUNTER)}"
    (root / "train").mkdir(parents=True)
    path = root / "train" / "train.h5"
    path.write_bytes(damaged((good_data / "train" / "train.h5").read_bytes(), data))
    try:
        source = DemData({"root_dir": root, "patch_size": 8}, "train", 5)
        source.statistics()
        for patches in source.chunks():
            assert np.isfinite(patches.fine).all()
        source.groups()
        source.fine_cell_size_m()
    except InputError as error:
        assert "train.h5" in str(error)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def good_world(tmp_path_factory):
    size = dict(rows=32, columns=64, years=(1990, 1991), held_out_last=1, shares=(1.0, 0.0, 0.0))
    return small_world(tmp_path_factory.mktemp("world"), **size)


@pytest.mark.slow
@FILES
@given(st.data())
def test_damaged_land_use_files_are_refused_or_read(good_world, tmp_path, data):
    root = tmp_path / f"damaged-{next(COUNTER)}"
    (root / "train").mkdir(parents=True)
    (root / "train" / "train.h5").write_bytes(damaged((good_world / "train" / "train.h5").read_bytes(), data))
    try:
        source = LandUseData({"root_dir": root, "patch_size": 16}, "train")
        source.scan()
        source.fingerprint()
        composer = Composer(source, source.layout.statistics.normalisation(None))
        for tile in range(source.layout.tiles):
            year = source.layout.years[0]
            fields = composer.fields(tile, year, composer.truth(tile, year), 1)
            assert all(np.isfinite(fields[name]).all() for name in ("coarse", "static", "wy", "wx"))
            source.continuous("lai", tile, year)
    except InputError as error:
        assert "train.h5" in str(error)
    shutil.rmtree(root)


@FIXTURES
@given(st.data())
def test_damaged_weights_are_refused_or_read(good_run, tmp_path, data):
    path = tmp_path / "w.safetensors"
    content = (RunFolder(good_run).folder(7) / "weights.safetensors").read_bytes()
    path.write_bytes(damaged(content, data))
    try:
        file = read_weights(path)
        for parameter in file.spec.parameters:
            assert file.weights[parameter.name].shape == parameter.shape
    except InputError as error:
        assert "\n" not in str(error)


@FIXTURES
@given(st.sampled_from(["weights.safetensors", "optimizer.safetensors", "state.json"]), st.data())
def test_damaged_checkpoints_are_refused_or_read(good_run, tmp_path, name, data):
    folder = tmp_path / f"step-{next(COUNTER)}"
    shutil.copytree(RunFolder(good_run).folder(7), folder)
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), data))
    try:
        read_checkpoint(folder).state.require(SPEC)
    except InputError as error:
        assert "\n" not in str(error).strip()
    shutil.rmtree(folder)


@pytest.mark.slow
@FILES
@given(st.data())
def test_damaged_configurations_are_refused_or_read(tmp_path, data):
    path = tmp_path / "c.yaml"
    path.write_bytes(damaged((CONFIGS / "dem_srnet_demo.yaml").read_bytes(), data))
    done = call_cli("config", "validate", path)
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = ("model", "data", "optimizer", "summary", "train")


@FIXTURES
@given(st.sampled_from(SECTIONS), st.data())
def test_any_value_under_a_known_key_is_refused_or_taken(section, data):
    key = data.draw(st.sampled_from(sorted(type(getattr(from_mapping({}), section)).model_fields)))
    value = data.draw(JSON)
    try:
        config = from_mapping({section: {key: value}})
    except ConfigError as error:
        assert section in str(error)
    else:
        assert from_mapping(json.loads(json.dumps(config.model_dump(mode="json")))) == config


@FIXTURES
@given(st.dictionaries(st.sampled_from([*SECTIONS, "backend", "extra"]), JSON, max_size=4))
def test_any_mapping_is_refused_or_taken(values):
    try:
        from_mapping(values)
    except ConfigError as error:
        assert str(error)


@FIXTURES
@given(st.integers(1, 64), st.integers(0, 8), st.sampled_from(["none", "bicubic"]), st.floats(1e-8, 1))
def test_configurations_survive_yaml(tmp_path, features, blocks, surface, rate):
    config = from_mapping(
        {
            "model": {"features": features, "num_blocks": blocks, "residual_over": surface},
            "optimizer": {"learning_rate": rate},
        }
    )
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config))
    assert load_yaml_config(path) == config


@pytest.mark.slow
@FILES
@given(st.sampled_from(["8_8", "40_40", "mask_40", "surface", "region", "origin"]), st.data())
def test_datasets_of_any_shape_and_type_are_refused_or_read(good_data, tmp_path, key, data):
    root = tmp_path / f"shape-{next(COUNTER)}"
    shutil.copytree(good_data, root)
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 8, 40]), max_size=4))
    dtype = data.draw(st.sampled_from(["f4", "f8", "i2", "u1", "S3", "?"]))
    with h5py.File(root / "train" / "train.h5", "r+") as handle:
        del handle[key]
        if data.draw(st.booleans()):
            handle.create_dataset(key, data=np.zeros(shape, dtype))
        else:
            handle.create_group(key)
    try:
        source = DemData({"root_dir": root, "patch_size": 8}, "train", 5)
        source.read(np.arange(len(source)))
        source.groups()
        source.fine_cell_size_m()
    except InputError as error:
        assert "train.h5" in str(error)
    shutil.rmtree(root)


def test_an_unknown_progress_is_refused(good_run):
    from earthsr.errors import CheckpointError
    from earthsr.training.state import Progress

    with pytest.raises(CheckpointError, match="progress is damaged"):
        Progress.from_dict({"stpe": 3}, "state.json")


def test_weights_written_are_weights_read(tmp_path):
    weights = initial_weights(SPEC, 1)
    path = write_weights(tmp_path / "w.safetensors", SPEC, weights, {})
    assert read_weights(path).weights.keys() == weights.keys()

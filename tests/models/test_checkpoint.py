import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from earthsr.errors import CheckpointError
from earthsr.models import (
    DemSRNetSpec,
    RunFolder,
    State,
    initial_weights,
    read_checkpoint,
    read_weights,
    resolve_checkpoint,
    write_weights,
)
from earthsr.models.weights import read_tensors, write_tensors

SPEC = DemSRNetSpec(features=2, num_blocks=1)
WEIGHTS = initial_weights(SPEC, 0)


def save_step(run, step, best=False):
    run.create()
    moments = {name: value * 2 for name, value in WEIGHTS.items()}
    run.save(step, SPEC, State(WEIGHTS, moments, moments, step=step), {"units": "m"}, {"progress": {"step": step}})
    if best:
        run.point("best", step)


def test_weights_come_back_with_spec_and_metadata(tmp_path):
    path = write_weights(tmp_path / "w.safetensors", SPEC, WEIGHTS, {"normalisation": {"kind": "none"}, "units": "m"})
    file = read_weights(path)
    assert file.spec == SPEC
    assert file.metadata["units"] == "m"
    for name, value in WEIGHTS.items():
        np.testing.assert_array_equal(file.weights[name], value)


def test_no_length_of_header_makes_a_weights_file_look_like_a_pickle(tmp_path):
    # The first byte is the low byte of the header's length: 0x80 for one length in 256, which pickles start with.
    firsts = set()
    for filler in range(0, 260, 4):
        path = write_weights(tmp_path / "w.safetensors", SPEC, WEIGHTS, {"filler": "x" * filler})
        firsts.add(path.read_bytes()[0])
        read_weights(path)
    assert 0x80 in firsts


def test_equal_weights_make_equal_bytes(tmp_path):
    paths = [write_weights(tmp_path / f"{i}.safetensors", SPEC, WEIGHTS, {"a": 1, "b": 2, "c": 3}) for i in range(8)]
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_file_without_tensors_comes_back(tmp_path):
    # The moments of a run that is stopped before its first step.
    write_tensors(tmp_path / "optimizer.safetensors", {})
    assert read_tensors(tmp_path / "optimizer.safetensors") == ({}, {})


def test_checkpoints_come_back(tmp_path):
    run = RunFolder(tmp_path)
    save_step(run, 12)
    checkpoint = read_checkpoint(run.newest())
    assert checkpoint.state.step == 12
    assert checkpoint.notes["progress"] == {"step": 12}
    np.testing.assert_array_equal(checkpoint.state.first_moments["up.weight"], WEIGHTS["up.weight"] * 2)


def test_checkpoint_means_best_else_latest(tmp_path):
    run = RunFolder(tmp_path)
    save_step(run, 1)
    save_step(run, 2)
    assert resolve_checkpoint(tmp_path).parent == run.folder(2)
    run.point("best", 1)
    assert resolve_checkpoint(tmp_path).parent == run.folder(1)
    assert resolve_checkpoint(run.folder(2)) == run.folder(2) / "weights.safetensors"
    file = run.folder(2) / "weights.safetensors"
    assert resolve_checkpoint(file) == file
    assert resolve_checkpoint(run.checkpoints / "best").parent == run.folder(1)
    assert resolve_checkpoint(run.checkpoints / "latest").parent == run.folder(2)


@pytest.mark.parametrize("pointer", ["", "step-000099", "../../etc", "step-000001/..", "\x00"])
def test_a_damaged_pointer_is_passed_over(tmp_path, pointer):
    run = RunFolder(tmp_path)
    save_step(run, 3)
    (run.checkpoints / "best").write_text(pointer)
    assert resolve_checkpoint(tmp_path).parent == run.folder(3)


def test_latest_is_the_newest_where_a_kill_came_before_its_pointer(tmp_path):
    run = RunFolder(tmp_path)
    save_step(run, 3)
    pointer = run.checkpoints / "latest"
    before = pointer.read_text()
    save_step(run, 5)
    os.utime(run.folder(5) / "state.json", ns=(2**60, 2**60))  # the clock of some disks is coarse
    pointer.write_text(before)
    os.utime(pointer, ns=(2**60 - 1, 2**60 - 1))
    assert resolve_checkpoint(pointer).parent == run.folder(5)
    assert resolve_checkpoint(tmp_path).parent == run.folder(5)
    # A pointer that is newer than every checkpoint means what it says: training went on from an earlier one.
    os.utime(pointer, ns=(2**60 + 1, 2**60 + 1))
    assert resolve_checkpoint(pointer).parent == run.folder(3)


def test_an_unfinished_checkpoint_is_not_one(tmp_path):
    run = RunFolder(tmp_path)
    save_step(run, 3)
    (run.checkpoints / "step-000004").mkdir()
    assert run.steps() == [3]


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        resolve_checkpoint(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="neither a run folder"):
        resolve_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"\x80\x04\x95rest of a pickle", "pickle"),
        ("w.safetensors", b"PK\x03\x04zipped pickle", "pickle"),
        ("model.ckpt", b"anything", "pickle or another framework's checkpoint"),
        ("w.safetensors", b"", "not a whole safetensors file"),
        ("w.safetensors", b"\xff" * 100, "not a whole safetensors file"),
    ],
)
def test_what_is_not_safetensors_is_refused_unopened(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)


def test_foreign_safetensors_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path)
    with pytest.raises(CheckpointError, match="written by another program"):
        read_weights(path)
    save_file(WEIGHTS, path, {"earthsr": json.dumps({"schema_version": 99, "spec": SPEC.to_dict(), "metadata": {}})})
    with pytest.raises(CheckpointError, match="newer earthsr"):
        read_weights(path)


@pytest.mark.parametrize("damage", ["nan", "missing", "shape", "dtype"])
def test_weights_that_do_not_fit_their_spec_are_refused(tmp_path, damage):
    weights = {name: value.copy() for name, value in WEIGHTS.items()}
    if damage == "nan":
        weights["up.weight"][0] = np.nan
    elif damage == "missing":
        del weights["up.weight"]
    elif damage == "shape":
        weights["up.weight"] = weights["up.weight"][:1]
    else:
        weights["up.weight"] = weights["up.weight"].astype(np.float64)
    path = write_weights(tmp_path / "w.safetensors", SPEC, weights, {})
    with pytest.raises(CheckpointError, match=r"up\.weight"):
        read_weights(path)

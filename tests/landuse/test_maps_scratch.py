"""Scratch fields on disk: carried on with, and refused where they are of another run."""

import numpy as np
import pytest

from earthsr.errors import DataError, InputError
from earthsr.geo import Window
from earthsr.landuse.maps import Scratch
from tests.landuse.test_maps_store import GLOBE, REGION


def test_scratch_is_carried_on_with(tmp_path):
    scratch = Scratch.create_or_open(tmp_path / "s", GLOBE, 2, (8, 16))
    corner = np.random.default_rng(0).normal(size=(2, 1, 2))  # float64 becomes float32
    corner[0, 0, 0] = np.nan
    scratch.write(3, 3, corner)
    again = Scratch.create_or_open(tmp_path / "s", GLOBE, 2, (8, 16))
    assert again == scratch
    assert [again.file(3, 3).exists(), again.file(0, 0).exists()] == [True, False]
    read = again.read(Window(24, 48, 1, 2))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, corner.astype(np.float32))
    with pytest.raises(ValueError, match="read-only"):
        read[...] = 0  # a view of the file, which stays as it was
    np.testing.assert_array_equal(again.read(Window(24, 48, 1, 2)), corner.astype(np.float32))


def test_scratch_that_is_not_written_yet_cannot_be_read(tmp_path):
    scratch = Scratch.create_or_open(tmp_path / "s", GLOBE, 1, (8, 16))
    scratch.write(0, 0, np.ones((1, 8, 16), np.float32))
    assert (scratch.read(Window(0, 0, 8, 16)) == 1).all()
    assert np.isnan(scratch.read(Window(-3, 0, 3, 16))).all()  # beyond the grid nothing is read
    for window in (Window(0, 0, 8, 17), Window(0, -1, 8, 17), Window(0, 50, 9, 16)):
        with pytest.raises(DataError, match=r"chunk \d, \d is not written yet; write it before it is read"):
            scratch.read(window)


def test_scratch_of_another_run_is_refused(tmp_path):
    scratch = Scratch.create_or_open(tmp_path / "s", GLOBE, 2, (8, 16))
    for change in ({"grid": REGION}, {"channels": 3}, {"chunk": (8, 8)}):
        other = {"grid": GLOBE, "channels": 2, "chunk": (8, 16), **change}
        with pytest.raises(InputError, match=r"s: holds fields of another run \(.*\); remove the folder"):
            Scratch.create_or_open(tmp_path / "s", **other)
    scratch.write(0, 0, np.zeros((2, 8, 16), np.float32))
    with pytest.raises(ValueError, match=r"chunk 0, 3 has shape \(2, 8, 16\), expected \(2, 8, 2\)"):
        scratch.write(0, 3, np.zeros((2, 8, 16), np.float32))
    with pytest.raises(ValueError, match="there is no chunk 4, 0 in a grid of 25 x 50 cells"):
        scratch.write(4, 0, np.zeros((2, 8, 16), np.float32))
    file = tmp_path / "s" / "0_0.npy"
    content = file.read_bytes()
    for harm in (content[:-1], b"", content.replace(b"<f4", b"<i4")):
        file.write_bytes(harm)
        with pytest.raises(DataError, match=r"0_0.npy: .*; remove it"):
            scratch.read(Window(0, 0, 1, 1))
    (tmp_path / "s" / "scratch.json").write_text("{")
    with pytest.raises(InputError, match=r"scratch.json: is damaged .*; remove the folder"):
        Scratch.create_or_open(tmp_path / "s", GLOBE, 2, (8, 16))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "thesis.txt").touch()
    with pytest.raises(InputError, match="t is a folder of something else; choose another"):
        Scratch.create_or_open(tmp_path / "t", GLOBE, 2, (8, 16))
    (tmp_path / "u").touch()
    with pytest.raises(InputError, match="u is a file where a folder is to be"):
        Scratch.create_or_open(tmp_path / "u", GLOBE, 2, (8, 16))

"""What inputs are: an output that is one is refused, and one that was replaced is noticed."""

import os

import pytest

from earthsr.errors import InputError
from earthsr.store import absolute, glance, require_other


@pytest.fixture
def dem(tmp_path):
    path = tmp_path / "dem.tif"
    path.write_text("heights")
    (tmp_path / "link.tif").symlink_to(path)
    os.link(path, tmp_path / "hard.tif")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "a.vrt").write_text('<V><SourceFilename relativeToVRT="1">dem.tif</SourceFilename></V>')
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "zarr.json").write_text("{}")
    return path


@pytest.mark.parametrize("output", ["dem.tif", "link.tif", "hard.tif", "folder/dem.tif", "store.zarr/../dem.tif"])
@pytest.mark.parametrize("text", ["{}/dem.tif", "{}/dem.tif:z", "alps={}/dem.tif", "1993={}/link.tif:z", "{}/a.vrt"])
def test_in_all_ways_to_name_it(dem, output, text):
    named = text.format(dem.parent)
    with pytest.raises(InputError, match=r"is the input .* choose another name") as caught:
        require_other([dem.parent / "new.tif", dem.parent / output], [named])
    assert named in str(caught.value)


def test_in_a_store_that_is_read_or_replaced(dem):
    store = dem.parent / "store.zarr"
    (store / "z").mkdir()
    for output, text in ((store, f"{store}:z"), (store / "out.tif", store), (store, store / "z")):
        with pytest.raises(InputError, match="is the input"):
            require_other([output], [text])


def test_others_pass(dem):
    folder = dem.parent
    require_other([folder / "new.tif", folder / "store.zarr"], [dem, f"x={dem}", None, "latitude", "a:b=c"])
    require_other([folder / "run" / "model.onnx"], [folder])


def test_a_glance_sees_size_time_and_some_blocks_and_a_long_look_all(tmp_path):
    path = tmp_path / "elevation.tif"
    path.write_bytes(bytes(8_000_000))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    glimpse, all_of_it = glance(path), glance(path, whole=True)
    with path.open("r+b") as handle:
        handle.seek(300_000)  # between two blocks
        handle.write(b"changed")
    os.utime(path, ns=times)
    assert glance(path) == glimpse
    assert glance(path, whole=True) != all_of_it
    os.utime(path)
    assert glance(path) != glimpse


def test_texts_of_the_command_line_with_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dem.tif", "a=b.tif"):
        (tmp_path / name).touch()
    known = {
        "dem.tif": f"{tmp_path}/dem.tif",
        "dem.tif:z": f"{tmp_path}/dem.tif:z",
        "alps=dem.tif": f"alps={tmp_path}/dem.tif",
        "a=b.tif": f"{tmp_path}/a=b.tif",
        "latitude": "latitude",
        "*.tif": f"{tmp_path}/*.tif",
    }
    assert {text: absolute(text) for text in known} == known

"""An output that is an input is refused, whatever may be overwritten."""

import os

import pytest

from earthsr.errors import InputError
from earthsr.store import require_other


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

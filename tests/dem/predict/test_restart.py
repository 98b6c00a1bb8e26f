"""A prediction that is killed carries on, computes nothing twice, trusts nothing altered, and ends the same."""

import json
import logging
import random

import numpy as np
import pytest

from earthsr.dem.predict import restart
from earthsr.dem.predict.plan import PredictOptions
from earthsr.dem.predict.rasters import predict_raster
from earthsr.errors import InputError
from tests.dem.predict.conftest import hills, write_raster

pytestmark = pytest.mark.usefixtures("small_pieces")

#: Coarse cells of a window: several in a piece.
OPTIONS = PredictOptions(tile=12)
#: Output, degrees of its tiles, pieces of the raster of 80 x 112 fine cells.
OUTPUTS = {"fine.tif": (None, 12), "fine.zarr": (None, 12), "fine.nc": (None, 12), "tiles": (0.1, 6)}


def contents(path):
    """Bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    """What a run that is left alone gives, by the output's name."""
    from earthsr.dem.predict import plan
    from earthsr.geo import cog

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK", 16)
        patch.setattr(plan, "SAMPLE_CELLS", 8)
        patch.setattr(cog, "TILE", 16)
        folder = tmp_path_factory.mktemp("undisturbed")
        values = hills(40, 56)
        values[20:23, 30:33] = np.nan
        source = write_raster(folder / "coarse.tif", values)
        results = {}
        for name, (degrees, _) in OUTPUTS.items():
            predict_raster(model, source, folder / name, OPTIONS, tiles=degrees)
            results[name] = contents(folder / name)
        assert sorted(path.name for path in folder.iterdir()) == sorted([*OUTPUTS, "coarse.tif"])
        return source, results


@pytest.fixture
def killed_after(monkeypatch):
    """Let a run end, as a kill would, when so many pieces are written; gives how many were computed since."""
    computed = []
    write, compute = restart._PieceStages.write, restart._PieceStages.compute

    def counting(self, item, piece):
        computed.append(item)
        return compute(self, item, piece)

    def set_up(count):
        computed.clear()
        left = [count]

        def dying(self, item, made):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return write(self, item, made)

        monkeypatch.setattr(restart._PieceStages, "write", dying if count is not None else write)
        monkeypatch.setattr(restart._PieceStages, "compute", counting)
        return computed

    return set_up


def work_of(folder, name):
    return folder / f".{name}.work"


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_same_call_carries_on_to_the_same_bytes(model, undisturbed, killed_after, tmp_path, name):
    source, expected = undisturbed
    degrees, pieces = OUTPUTS[name]
    target = tmp_path / name
    for _ in range(2):
        killed_after(2)
        with pytest.raises(KeyboardInterrupt):
            predict_raster(model, source, target, OPTIONS, tiles=degrees)
        assert [path.name for path in tmp_path.iterdir()] == [f".{name}.work"]
    computed = killed_after(None)
    result = predict_raster(model, source, target, OPTIONS, tiles=degrees)
    assert len(computed) == pieces - 4
    assert contents(target) == expected[name]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert result["output"] == str(target)


@pytest.mark.parametrize("name", OUTPUTS)
def test_pieces_that_are_absent_short_altered_or_swapped_are_made_again(
    model, undisturbed, killed_after, tmp_path, caplog, name
):
    source, expected = undisturbed
    degrees, pieces = OUTPUTS[name]
    target = tmp_path / name
    killed_after(5)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(model, source, target, OPTIONS, tiles=degrees)
    work = work_of(tmp_path, name)
    lines = [line for file in sorted((work / "done").iterdir()) for line in file.read_text().splitlines()]
    records = [json.loads(line.split(" ", 1)[1]) for line in lines]
    files = [[work / path for path, held in record["files"].items() if held] for record in records]
    chosen = random.Random(name).sample([some for some in files if some], 5)
    absent, short, altered, first, second = (random.Random(name).choice(some) for some in chosen)
    absent.unlink()
    short.write_bytes(short.read_bytes()[:-7])
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    computed = killed_after(None)
    with caplog.at_level(logging.INFO, "earthsr"):
        predict_raster(model, source, target, OPTIONS, tiles=degrees)
    assert len(computed) == pieces
    again = [message for message in caplog.messages if "is made again" in message]
    assert len(again) == 5
    assert any(f"{absent.name} is not there any more" in message for message in again)
    assert any("bytes" in message and short.name in message for message in again)
    assert any(f"{altered.name} holds something else" in message for message in again)
    assert contents(target) == expected[name]


def test_another_request_does_not_carry_on(model, undisturbed, killed_after, tmp_path):
    source, _ = undisturbed
    target = tmp_path / "fine.zarr"
    killed_after(3)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(model, source, target, OPTIONS)
    computed = killed_after(None)
    with pytest.raises(InputError, match=r"fine.zarr: was begun with another conserve; .*--overwrite to begin anew"):
        predict_raster(model, source, target, PredictOptions(tile=12, conserve=True))
    assert work_of(tmp_path, "fine.zarr").is_dir()
    assert not computed
    predict_raster(model, source, target, PredictOptions(tile=12, conserve=True), overwrite=True)
    assert len(computed) == 12


def test_an_input_that_was_replaced_is_another_one(model, killed_after, coarse, tmp_path):
    target = tmp_path / "fine.tif"
    killed_after(3)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(model, coarse, target, OPTIONS)
    killed_after(None)
    write_raster(coarse, hills(40, 56, seed=1))
    with pytest.raises(InputError, match="was begun with another input"):
        predict_raster(model, coarse, target, OPTIONS)


def test_a_kill_between_the_last_step_and_the_end_is_an_end(model, undisturbed, tmp_path, monkeypatch):
    """The output is in its place, and the folder of work is still there."""
    source, expected = undisturbed
    target = tmp_path / "fine.tif"

    def dying(self, *names, **more):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(restart.PredictWork, "remove", dying)
        with pytest.raises(SystemExit):
            predict_raster(model, source, target, OPTIONS)
    assert work_of(tmp_path, "fine.tif").is_dir()
    again = predict_raster(model, source, target, OPTIONS)
    assert again["output_shape"] == [80, 112]
    assert contents(target) == expected["fine.tif"]
    assert [path.name for path in tmp_path.iterdir()] == ["fine.tif"]
    with pytest.raises(InputError, match="is there already"):
        predict_raster(model, source, target, OPTIONS)


def test_what_goes_wrong_before_a_piece_is_done_leaves_nothing(model, undisturbed, tmp_path, monkeypatch):
    source, _ = undisturbed

    def failing(self, item, made):
        raise OSError("no such disk")

    monkeypatch.setattr(restart._PieceStages, "write", failing)
    with pytest.raises(OSError, match="no such disk"):
        predict_raster(model, source, tmp_path / "new" / "fine.tif", OPTIONS)
    assert not list(tmp_path.iterdir())

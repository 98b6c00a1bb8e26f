"""Reconstructions that end, are cut or go wrong: kills, damage, and what is left behind."""

import contextlib
import json
import os
import random
import shutil
import time

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.errors import DataError, InputError, WorkError
from earthsr.landuse.maps import Maps, open_maps
from earthsr.landuse.reconstruct import Options, reconstruct, run
from earthsr.landuse.reconstruct.folder import RolloutFolder
from earthsr.landuse.reconstruct.plan import make_plan, open_inputs
from earthsr.landuse.reconstruct.stages import Worker
from earthsr.landuse.sources import world_inputs
from tests.landuse.reconstruct.cases import SMALL, Killed, box, cut_off, everything, inputs_of, names

YEARS = (1992, 1994)


# What goes wrong ends at once, with one line, and leaves nothing.


@pytest.mark.slow
def test_an_error_in_writing_ends_the_run_at_once(model, part, tmp_path, monkeypatch):
    """The next year waits for the chunk that was not written: not for an hour."""

    def full(self, layer, year, *arguments):
        if year == 1994:
            raise InputError("cannot write maps: No space left on device")
        return write(self, layer, year, *arguments)

    write = Maps.write
    monkeypatch.setattr(Maps, "write", full)
    began = time.monotonic()
    with pytest.raises(InputError, match="No space left"):
        reconstruct(model, part, (1993, 1995), tmp_path / "maps.zarr", Options(chunk=64, batch_size=4))
    assert time.monotonic() - began < 30, "patience is an hour"


def test_an_error_in_computing_ends_the_run_at_once(model, part, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Worker, "compute", broken)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="out of memory"):
        reconstruct(model, part, (1993, 1995), tmp_path / "maps.zarr", Options(chunk=64, batch_size=4))
    assert time.monotonic() - began < 30


def test_what_is_found_while_beginning_leaves_nothing_behind(model, world, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(world / "archives" / "landuse_1993.tif") as source:
        values, profile = source.read(), source.profile
    paths = {}
    for name, code in (("unknown", 98), ("sea", profile["nodata"])):
        paths[name] = tmp_path / f"{name}.tif"
        changed = values.copy() if name == "unknown" else np.full_like(values, code)
        changed[0, 20, 20] = code
        with rasterio.open(paths[name], "w", **profile) as copy:
            copy.write(changed)
    for name, kind, text in (("unknown", DataError, "98"), ("sea", InputError, r"sea\.tif: no cell of the maps")):
        inputs = inputs_of(world / "archives", anchor=f"1993={paths[name]}")
        with pytest.raises(kind, match=text):
            reconstruct(model, inputs, YEARS, tmp_path / "maps.zarr", SMALL)
    assert names(tmp_path) == ["sea.tif", "unknown.tif"]


def test_probabilities_are_not_computed_for_a_format_that_does_not_hold_them(model, part, tmp_path):
    options = Options(chunk=32, batch_size=4, keep=("probabilities",))
    with pytest.raises(InputError, match="GeoTIFFs hold no probabilities"):
        reconstruct(model, part, YEARS, tmp_path / "maps.tif", options)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["maps.zarr", "maps.nc"])
def test_a_folder_of_something_else_is_not_replaced_and_that_is_said_first(model, part, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="folder of something else"):
        reconstruct(model, part, YEARS, tmp_path / name, SMALL, overwrite=True)
    assert names(tmp_path) == [name]
    assert (tmp_path / name / "thesis.txt").exists()


@pytest.mark.slow
def test_what_may_not_be_replaced_at_the_end_is_said_when_carrying_on(model, part, tmp_path):
    target = tmp_path / "maps.zarr"
    cut_off(3, model, part, YEARS, target, SMALL)
    target.mkdir()
    began = names(tmp_path / "maps.zarr.work" / "done")
    with pytest.raises(InputError, match="is there already"):
        reconstruct(model, part, YEARS, target, SMALL)
    assert names(tmp_path / "maps.zarr.work" / "done") == began


# Finishing, and who comes late.


@pytest.mark.slow
def test_after_a_kill_between_moving_the_maps_and_cleaning_up_the_same_command_ends_well(
    model, part, tmp_path, monkeypatch
):
    target = tmp_path / "maps.zarr"

    def killed(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RolloutFolder, "remove", killed)
        with pytest.raises(Killed):
            reconstruct(model, part, YEARS, target, SMALL)
    before = everything(target)
    again = reconstruct(model, part, YEARS, target, SMALL)
    assert again["finished"]
    assert again["chunks"] == 0
    assert names(tmp_path) == ["maps.zarr", "maps_report"]
    assert np.array_equal(everything(target), before)


@pytest.mark.slow
def test_after_a_kill_while_cleaning_up_nothing_is_carried_on_from_what_is_left(model, part, tmp_path, monkeypatch):
    """A record that is gone already is no chunk to be made again, into a store whose priors are gone too."""
    target, rmtree = tmp_path / "maps.nc", shutil.rmtree

    def killed(path, **options):
        if path not in (tmp_path / "maps.nc.work" / name for name in ("done", "static", "maps.zarr")):
            return rmtree(path, **options)
        (tmp_path / "maps.nc.work" / "done" / "1993.jsonl").unlink(missing_ok=True)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            reconstruct(model, part, YEARS, target, SMALL)
    bytes_before = target.read_bytes()
    again = reconstruct(model, part, YEARS, target, SMALL)
    assert again["carried_on"]
    assert target.read_bytes() == bytes_before
    assert names(tmp_path) == ["maps.nc", "maps_report"]


def test_a_worker_of_a_run_that_was_given_up_writes_nothing_into_a_new_one(model, part, tmp_path, monkeypatch):
    """Something else is begun in the same place while it computes."""
    target, compute, folder = tmp_path / "maps.zarr", Worker.compute, RolloutFolder(tmp_path / "maps.zarr")

    def slow(self, step, chunk, piece):
        manifest = folder.read_manifest()
        folder.begin({**manifest, "begun": manifest["begun"] + 1})
        return compute(self, step, chunk, piece)

    monkeypatch.setattr(Worker, "compute", slow)
    with pytest.raises(WorkError, match="begun anew"):
        reconstruct(model, part, YEARS, target, SMALL)
    assert names(folder.done) == ["1993.jsonl"], "the anchor's chunks are done before anything is computed"
    places = open_maps(folder.maps).spec.years
    assert not (folder.maps / "land_use" / "c" / str(places.index(1994))).exists()


@pytest.mark.slow
def test_another_output_of_the_same_name_is_not_taken_for_this_one(model, part, tmp_path):
    reconstruct(model, part, YEARS, tmp_path / "maps.zarr", SMALL)
    other = reconstruct(model, part, YEARS, tmp_path / "maps.nc", SMALL)
    assert other["chunks"] > 0
    assert (tmp_path / "maps.nc").is_file()


def test_a_class_table_with_other_codes_is_another_reconstruction(model, part, world, tmp_path):
    """Codes of the store are those of the table with which it was begun."""
    table = json.loads(model.metadata["class_table"])
    opened = open_inputs(model, part)
    plan = make_plan(model, opened, YEARS, SMALL)
    first = run.identity_of(plan)
    opened.close()
    table["classes"][0]["codes"] = [98]
    with contextlib.ExitStack() as stack:
        patched = Model.from_checkpoint(world / "model.safetensors", backend=model.backend.name)
        patched.metadata["class_table"] = json.dumps(table)
        other = open_inputs(patched, part)
        stack.callback(other.close)
        second = run.identity_of(make_plan(patched, other, YEARS, SMALL))
    assert {key for key in first if first[key] != second[key]} == {"table"}


# What is recorded as done and is not there.


@pytest.fixture(scope="module")
def undisturbed(model, part, tmp_path_factory):
    """Maps of a run to which nothing happened."""
    target = tmp_path_factory.mktemp("undisturbed") / "maps.zarr"
    assert reconstruct(model, part, YEARS, target, SMALL)["finished"]
    return everything(target)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_chunks_that_are_lost_cut_or_swapped_are_made_again_and_said(model, part, undisturbed, tmp_path, seed, caplog):
    """Of a run that was cut off anywhere; maps, confidence and static fields alike."""
    chance, target = random.Random(seed), tmp_path / "maps.zarr"
    options = Options(chunk=32, batch_size=4, keep=("confidence",))
    cut_off(chance.randrange(3, 6), model, part, YEARS, target, options)
    work = RolloutFolder(target)
    layers = (work.maps / "land_use" / "c", work.maps / "confidence" / "c", work.scratch)
    files = sorted(path for folder in layers for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    lost, cut, *swapped = chance.sample(files, 4)
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    contents = [path.read_bytes() for path in swapped]
    for path, content in zip(swapped, reversed(contents), strict=True):
        path.write_bytes(content)
    harmed = {path.relative_to(work.path).as_posix() for path in (lost, cut, *swapped)}
    recorded = [json.loads(line[9:]) for path in work.done.iterdir() for line in path.read_bytes().splitlines() if line]
    pieces = {f"{record['name']} is made again" for record in recorded if harmed & set(record["files"])}
    assert pieces
    assert reconstruct(model, part, YEARS, target, options)["finished"]
    assert np.array_equal(everything(target), undisturbed)
    lines = " ".join(record.message for record in caplog.records)
    assert [piece for piece in pieces if piece not in lines] == []


@pytest.mark.slow
def test_a_chunk_that_goes_after_its_year_was_used_is_made_again_before_the_maps_are_finished(
    model, part, undisturbed, tmp_path, caplog
):
    """A purge while the last chunks are computed; nothing reads the first year's confidence any more."""
    target, options = tmp_path / "maps.zarr", Options(chunk=32, batch_size=4, keep=("confidence",))
    write, lost = Worker.write, []

    def purged(self, step, chunk, made):
        write(self, step, chunk, made)
        if step.year == YEARS[0] and not lost:
            folder = RolloutFolder(target).maps / "confidence" / "c" / "2"
            lost.append(next(path for path in folder.rglob("*") if path.is_file()))
            lost[0].unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "write", purged)
        result = reconstruct(model, part, YEARS, target, options)
    assert result["finished"]
    assert lost
    assert [record.message for record in caplog.records if "1994" in record.message and "made again" in record.message]
    assert np.array_equal(everything(target), undisturbed)
    assert np.isfinite(everything(target, "confidence")).any(axis=(1, 2)).sum() == len(YEARS)


@pytest.mark.slow
def test_inputs_are_hashed_once_and_again_where_they_look_otherwise(model, world, grid, tmp_path, monkeypatch):
    shutil.copytree(world / "archives", tmp_path / "archives")
    inputs, target = inputs_of(tmp_path / "archives", bbox=box(grid, 0, 0, 32, 64)), tmp_path / "maps.zarr"
    cut_off(1, model, inputs, (1993, 1994), target, SMALL)
    hashed, fingerprint = [], world_inputs.fingerprint
    monkeypatch.setattr(world_inputs, "fingerprint", lambda path: hashed.append(path.name) or fingerprint(path))
    cut_off(0, model, inputs, (1993, 1994), target, SMALL)
    assert hashed == []
    os.utime(tmp_path / "archives" / "landuse_1993.tif", (1, 1))
    cut_off(0, model, inputs, (1993, 1994), target, SMALL)
    assert "landuse_1993.tif" in hashed, "it looks otherwise, and is the same"
    with (tmp_path / "archives" / "landuse_1993.tif").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="begun with another inputs"):
        reconstruct(model, inputs, (1993, 1994), target, SMALL)


@pytest.mark.slow
def test_a_second_process_is_refused(model, part, tmp_path):
    target = tmp_path / "maps.zarr"
    cut_off(2, model, part, YEARS, target, SMALL)
    with (
        RolloutFolder(target).owned(target),
        pytest.raises(InputError, match=r"maps\.zarr: is being written by process"),
    ):
        reconstruct(model, part, YEARS, target, SMALL)
    assert reconstruct(model, part, YEARS, target, SMALL)["finished"]


@pytest.mark.parametrize("kind", ["itself", "link"])
def test_maps_do_not_replace_what_they_are_made_from(model, world, tmp_path, kind):
    shutil.copytree(world / "archives", tmp_path / "archives")
    anchor = tmp_path / "archives" / "landuse_1993.tif"
    target = anchor.with_name("landuse.tif")
    if kind == "link":
        (tmp_path / "maps_1993.tif").symlink_to(anchor)
        target = tmp_path / "maps.tif"
    before = anchor.read_bytes()
    with pytest.raises(InputError, match=r"_1993\.tif: is the input"):
        reconstruct(model, inputs_of(tmp_path / "archives"), YEARS, target, SMALL, overwrite=True)
    assert anchor.read_bytes() == before
    assert not target.with_name(f"{target.name}.work").exists()

"""Reconstructions that end, are cut or go wrong: kills, late processes, and what is left behind."""

import contextlib
import json
import os
import shutil
import time

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.errors import DataError, InputError, WorkError
from earthsr.landuse.maps import Maps, open_maps
from earthsr.landuse.reconstruct import Options, Rank, reconstruct, run
from earthsr.landuse.reconstruct.plan import make_plan, open_inputs
from earthsr.landuse.reconstruct.progress import SharedFolder
from earthsr.landuse.reconstruct.run import Worker
from tests.landuse.reconstruct.cases import SMALL, everything, inputs_of, names

YEARS = (1992, 1994)


class Killed(BaseException):
    """Stands for a kill: nothing after it is done, but what the operating system does."""


# What goes wrong ends at once, with one line, and leaves nothing.


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


def test_an_error_in_computing_ends_waiting_for_others(model, part, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Worker, "compute", broken)
    began = time.monotonic()
    with pytest.raises((RuntimeError, WorkError), match="out of memory"):
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
    with pytest.raises(WorkError):
        reconstruct(model, part, YEARS, target, SMALL, rank=Rank(0, 2), patience_s=0.1)
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
        patch.setattr(SharedFolder, "remove", killed)
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
    """A marker that is gone already is no chunk to be made again, into a store whose priors are gone too."""
    target, rmtree = tmp_path / "maps.nc", shutil.rmtree

    def killed(path, **options):
        if path not in (tmp_path / "maps.nc.work" / name for name in ("done", "static", "maps.zarr")):
            return rmtree(path, **options)
        rmtree(tmp_path / "maps.nc.work" / "done" / "1993")
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


@pytest.mark.slow
def test_a_process_without_work_may_come_when_others_have_finished(model, part, tmp_path):
    options, target = Options(chunk=64, batch_size=4), tmp_path / "maps.zarr"
    first = reconstruct(model, part, YEARS, target, options, rank=Rank(0, 2))
    assert first["finished"]
    late = reconstruct(model, part, YEARS, target, options, rank=Rank(1, 2))
    assert late["finished"]
    assert late["chunks"] == 0
    assert names(tmp_path) == ["maps.zarr", "maps_report"]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_process_without_work_may_be_overtaken_by_one_that_finishes(model, part, tmp_path, monkeypatch, overwrite):
    """It has joined, and before it looks further, maps and markers are gone."""
    options, target = Options(chunk=64, batch_size=4), tmp_path / "maps.zarr"
    begun, others = run._begun, []

    def overtaken(*arguments):
        manifest = begun(*arguments)
        if not others:
            others.append(None)
            others[0] = reconstruct(model, part, YEARS, target, options, rank=Rank(0, 2), overwrite=overwrite)
        return manifest

    monkeypatch.setattr(run, "_begun", overtaken)
    late = reconstruct(model, part, YEARS, target, options, rank=Rank(1, 2), overwrite=overwrite)
    assert others[0]["finished"]
    assert late["finished"]
    assert late["by"] == "another process"
    assert names(tmp_path) == ["maps.zarr", "maps_report"]


@pytest.mark.slow
def test_what_another_process_finished_just_now_is_not_made_again_with_overwrite(model, part, tmp_path, monkeypatch):
    options, target = Options(chunk=64, batch_size=4), tmp_path / "maps.zarr"
    opened, others = run.open_inputs, []

    def slow(*arguments):
        if not others:
            others.append(None)
            others[0] = reconstruct(model, part, YEARS, target, options, rank=Rank(0, 2), overwrite=True)
        return opened(*arguments)

    monkeypatch.setattr(run, "open_inputs", slow)
    late = reconstruct(model, part, YEARS, target, options, rank=Rank(1, 2), overwrite=True)
    assert late["carried_on"]
    again = reconstruct(model, part, YEARS, target, options, overwrite=True)
    assert again["chunks"] > 0, "a later command does what it says"


@pytest.mark.slow
def test_a_process_of_a_run_that_was_begun_anew_writes_nothing_into_the_new_one(model, part, tmp_path, monkeypatch):
    target, compute, others = tmp_path / "maps.zarr", Worker.compute, []

    def slow(self, step, chunk, piece):
        if not others:
            others.append(None)
            # Something else is begun in the same place, and waits for its other half.
            with pytest.raises(WorkError):
                reconstruct(
                    model,
                    part,
                    YEARS,
                    target,
                    Options(chunk=32, batch_size=4, match_areas=True),
                    rank=Rank(0, 2),
                    patience_s=0.1,
                    overwrite=True,
                )
        return compute(self, step, chunk, piece)

    monkeypatch.setattr(Worker, "compute", slow)
    with pytest.raises(WorkError, match="begun anew"):
        reconstruct(model, part, YEARS, target, SMALL)
    done = tmp_path / "maps.zarr.work" / "done"
    assert not (done / "1994").exists()
    assert len(names(done / "1993")) == 1, "the half of the anchor's chunks that the other process has"


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


# What is marked as done and is not there.


def half_finished(model, part, target):
    """Chunk 0-0 of all years is done, 0-1 waits for another process."""
    with pytest.raises(WorkError):
        reconstruct(model, part, YEARS, target, SMALL, rank=Rank(0, 2), patience_s=0.1)
    work = SharedFolder(target)
    (marker, *_) = sorted((work.done / "1993").iterdir())
    return work, marker


@pytest.fixture(scope="module")
def undisturbed(model, part, tmp_path_factory):
    """Maps of a run to which nothing happened."""
    target = tmp_path_factory.mktemp("undisturbed") / "maps.zarr"
    assert reconstruct(model, part, YEARS, target, SMALL)["finished"]
    return everything(target)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["absent", "damaged", "static absent", "static damaged"])
def test_what_is_lost_of_a_marked_chunk_is_refused_and_computed_again_where_the_advice_is_typed(
    model, part, undisturbed, tmp_path, damage
):
    target = tmp_path / "maps.zarr"
    work, marker = half_finished(model, part, target)
    i, j = (int(number) for number in marker.stem.split("-"))
    if damage.startswith("static"):
        path = work.scratch / f"{i}_{j}.npy"
    else:
        path = work.maps / "land_use" / "c" / str(open_maps(work.maps).spec.years.index(1993)) / str(i) / str(j)
    if damage.endswith("absent"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"of 1993, chunk {i}-{j}, is marked as done.*: rm ") as caught:
        reconstruct(model, part, YEARS, target, SMALL)
    assert not target.exists()
    os.system("rm " + str(caught.value).rpartition(": rm ")[2])
    assert not marker.exists()
    assert reconstruct(model, part, YEARS, target, SMALL)["finished"]
    assert np.array_equal(everything(target), undisturbed)


def test_a_chunk_that_goes_after_its_year_was_used_is_found_before_the_maps_are_finished(model, part, tmp_path):
    target = tmp_path / "maps.zarr"
    options = Options(chunk=32, batch_size=4, keep=("confidence",))
    reconstruct(model, part, YEARS, target, options, rank=Rank(0, 1))
    assert open_maps(target).complete
    shutil.rmtree(target)
    shutil.rmtree(tmp_path / "maps_report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "finish", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            reconstruct(model, part, YEARS, target, options)
    work = SharedFolder(target)
    place = open_maps(work.maps).spec.years.index(1994)
    lost = next(path for path in (work.maps / "confidence" / "c" / str(place)).rglob("*") if path.is_file())
    lost.unlink()
    with pytest.raises(DataError, match=r"confidence \(not there\) of 1994, chunk .*: rm .*1994"):
        reconstruct(model, part, YEARS, target, options)
    assert not target.exists()


def test_the_same_rank_twice_is_refused(model, part, tmp_path):
    target = tmp_path / "maps.zarr"
    work, _ = half_finished(model, part, target)
    with work.own(Rank()), pytest.raises(InputError, match=r"maps\.zarr: is being written by process"):
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

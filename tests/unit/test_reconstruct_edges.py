"""Reconstructions that end, are cut or go wrong: kills, late processes, borders of coarse cells, outputs."""

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from earthsr.areas import cells_of
from earthsr.backend import Model
from earthsr.data import LandUseData
from earthsr.data.archives.world_inputs import WorldInputs
from earthsr.data.landuse_samples import Composer
from earthsr.data.maps import Maps, open_maps
from earthsr.data.rasters import Window
from earthsr.errors import DataError, InputError, WorkError
from earthsr.inference.reconstruct import Options, Rank, reconstruct, run
from earthsr.inference.reconstruct.chunk import Worker, begun_in
from earthsr.inference.reconstruct.output import thinned
from earthsr.inference.reconstruct.plan import fractions_of_classes, make_plan
from earthsr.inference.reconstruct.progress import Chunk, Progress
from earthsr.inference.reconstruct.run import open_inputs
from earthsr.inference.reconstruct.windows import scalars_of
from earthsr.inference.reconstruct.work import WorkFolder
from earthsr.tasks.rollout import Path as RolloutPath
from earthsr.tasks.rollout import predict_maps
from tests.conftest import call_cli, installed, small_world
from tests.unit.reconstruct_cases import inputs_of, write_model

#: Of a grid of 48 x 256 cells, with coarse cells of 16.
SMALL = Options(chunk=32, batch_size=4)
YEARS = (1992, 1994)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Archives and an untrained network."""
    root = small_world(tmp_path_factory.mktemp("world"), archives=True)
    write_model(root / "model.safetensors", root)
    return root


@pytest.fixture(scope="module")
def model(world, any_backend):
    return Model.from_checkpoint(world / "model.safetensors", backend=any_backend)


@pytest.fixture(scope="module")
def grid(world, model):
    """Of the anchor."""
    opened = open_inputs(model, inputs_of(world / "archives"))
    opened.close()
    return opened.grid


def box(grid, row, column, rows, columns):
    """``--bbox`` of a window, a tenth of a cell inside its edges."""
    west, north = grid.west_deg + column * grid.cell_lon_deg, grid.north_deg - row * grid.cell_lat_deg
    inset = 0.1 * grid.cell_lon_deg
    return (
        west + inset,
        north - rows * grid.cell_lat_deg + inset,
        west + columns * grid.cell_lon_deg - inset,
        north - inset,
    )


@pytest.fixture(scope="module")
def part(world, grid):
    """Inputs of two chunks with land, for tests that need no more."""
    opened = inputs_of(world / "archives", bbox=box(grid, 0, 0, 32, 64))
    return opened


def everything(target, layer="land_use"):
    maps = open_maps(target)
    whole = Window(0, 0, maps.spec.grid.rows, maps.spec.grid.columns)
    return np.stack([maps.read(layer, year, whole) for year in maps.spec.years])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
        patch.setattr(WorkFolder, "remove", killed)
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
    first = run.identity_of(plan, part)
    opened.close()
    table["classes"][0]["codes"] = [98]
    with contextlib.ExitStack() as stack:
        patched = Model.from_checkpoint(world / "model.safetensors", backend=model.backend.name)
        patched.metadata["class_table"] = json.dumps(table)
        other = open_inputs(patched, part)
        stack.callback(other.close)
        second = run.identity_of(make_plan(patched, other, YEARS, SMALL), part)
    assert {key for key in first if first[key] != second[key]} == {"table"}


# Read once, count once.


@pytest.mark.slow
def test_static_fields_are_read_once_a_chunk_and_not_after_a_restart(model, part, tmp_path, monkeypatch):
    read, read_static = [], WorldInputs.static

    def counted(self, window):
        read.append(tuple(window))
        return read_static(self, window)

    monkeypatch.setattr(WorldInputs, "static", counted)
    with pytest.raises(WorkError):
        reconstruct(model, part, (1992, 1995), tmp_path / "maps.zarr", SMALL, rank=Rank(0, 2), patience_s=0.1)
    assert read == [(0, 0, 32, 32)]
    result = reconstruct(model, part, (1992, 1995), tmp_path / "maps.zarr", SMALL)
    assert result["finished"]
    assert read == [(0, 0, 32, 32), (0, 32, 32, 32)]


def test_markers_are_read_one_after_the_other(tmp_path):
    """Those of a year and not of all at once: 251 years of 231 chunks would be a gigabyte."""
    progress = Progress(tmp_path, lambda _: "", 0, 2000, frozenset({Chunk(0, 1)}))
    progress.mark(2001, Chunk(0, 0), {"windows": 1})
    records = progress.records(2001, [Chunk(0, 0), Chunk(0, 1), Chunk(9, 9)])
    assert next(records) == {"windows": 1}
    with pytest.raises(FileNotFoundError):
        next(records)


def test_coarse_cells_of_several_chunks_are_counted_in_one():
    """Of 2 x 4 cells, coarse ones of two columns from the second on; the first cell has no class."""
    index = np.array([[-1, 0, 0, 1], [-1, 2, 2, 3]])
    valid = np.array([[True, False, True, True], [True, True, True, False]])
    whole = slice(0, 2)
    left = begun_in((whole, slice(0, 2)), index, valid, 5)
    right = begun_in((whole, slice(2, 4)), index, valid, 5)
    assert left.tolist() == [False, False, True, False, False]
    assert right.tolist() == [True, True, False, False, False]


@pytest.mark.slow
def test_maps_in_the_report_are_every_nth_cell_of_the_map(model, part, tmp_path):
    reconstruct(model, part, (1993, 1994), tmp_path / "maps.zarr", SMALL)
    maps, whole = open_maps(tmp_path / "maps.zarr"), everything(tmp_path / "maps.zarr")[1]
    for most in (700, 10, 3):
        step = -(-64 // most)
        assert np.array_equal(thinned(maps, 1994, most), whole[step // 2 :: step, step // 2 :: step])


# Areas where chunks, coarse cells and the grid do not end together.


def gaps(model, inputs, target, year):
    """Of every class and coarse cell: fine cells that are too many of it, and whether all of its fine cells count."""
    opened = open_inputs(model, inputs)
    plan = make_plan(model, opened, YEARS, SMALL)
    maps = open_maps(target)
    whole = Window(0, 0, plan.grid.rows, plan.grid.columns)
    classes = maps.read("land_use", year, whole)
    rows, columns = cells_of(opened.scenario.grid, plan.grid, whole)
    fractions = fractions_of_classes(plan, opened.scenario.fractions(year))
    opened.close()
    found = {}
    for i in np.unique(rows):
        for j in np.unique(columns):
            here = classes[np.ix_(rows == i, columns == j)]
            counts = np.bincount(here[here != 255], minlength=len(plan.known))[: len(plan.known)]
            share = np.where(plan.known, fractions[:, i, j], 0)
            if counts.sum() and share.sum() > 0:
                wanted = share / share.sum() * counts[plan.known].sum()
                found[int(i), int(j)] = np.where(plan.known, counts - wanted, 0)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        (0, 0, 11, 13),  # smaller than a tile, a part of one coarse cell
        (5, 7, 37, 61),  # begins and ends within coarse cells, chunks end within them too
    ],
)
def test_areas_add_up_where_nothing_ends_with_a_coarse_cell(model, world, grid, tmp_path, row, column, rows, columns):
    inputs = inputs_of(world / "archives", bbox=box(grid, row, column, rows, columns))
    options = Options(chunk=32, batch_size=4, match_areas=True)
    result = reconstruct(model, inputs, YEARS, tmp_path / "maps.zarr", options)
    maps = everything(tmp_path / "maps.zarr")
    assert maps.shape[1:] == (rows, columns)
    for year in YEARS:
        found = gaps(model, inputs, tmp_path / "maps.zarr", year)
        # Whole cells of rows whose areas differ by a few thousandths: one cell, and a little.
        assert max(np.abs(gap).max() for gap in found.values()) < 1.2
        figures = result["years"][str(year)]
        assert figures["coarse_cells"] >= len(found)
        assert figures["coarse_cells_unmet"] == 0


@pytest.mark.slow
def test_figures_do_not_depend_on_where_chunks_cut_coarse_cells(model, world, grid, tmp_path):
    """One chunk or several: coarse cells on a border are compared whole, and counted once.

    Maps may differ in a few cells: windows of several chunks come in other batches.
    """
    inputs = inputs_of(world / "archives", bbox=box(grid, 5, 7, 37, 121))
    figures = []
    for chunk in (128, 32):
        options = Options(chunk=chunk, batch_size=4, match_areas=True)
        made = reconstruct(model, inputs, (1993, 1994), tmp_path / f"{chunk}.zarr", options)["years"]["1994"]
        figures.append(made)
    assert figures[0]["coarse_cells"] == figures[1]["coarse_cells"]
    for key in ("area_error_percent", "area_error_percent_without_decoder", "cells_changed_by_decoder"):
        # A few of 4477 cells.
        assert figures[0][key] == pytest.approx(figures[1][key], rel=0.01)


@pytest.mark.slow
def test_where_nothing_may_change_the_decoder_is_counted_too(model, part, tmp_path):
    """All classes are fixed: the error without the decoder is that with it, and areas are not met."""
    opened = open_inputs(model, part)
    fixed = opened.table.names
    opened.close()
    options = Options(chunk=32, batch_size=4, match_areas=True, fixed=fixed)
    figures = reconstruct(model, part, (1993, 1995), tmp_path / "maps.zarr", options)["years"]["1995"]
    assert figures["changed_percent"] == 0
    assert figures["area_error_percent"] > 0
    assert figures["area_error_percent_without_decoder"] == figures["area_error_percent"]
    assert figures["coarse_cells_unmet"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("match", [False, True])
def test_protected_cells_keep_their_class_and_others_do_not(model, part, world, tmp_path, match):
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(world / "archives" / "landuse_1993.tif") as source:
        profile = {**source.profile, "dtype": "uint8", "nodata": None, "count": 1}
    marks = np.zeros((profile["height"], profile["width"]), np.uint8)
    marks[8:24, 8:56] = 1
    with rasterio.open(tmp_path / "parks.tif", "w", **{k: v for k, v in profile.items() if k != "photometric"}) as file:
        file.write(marks, 1)
    inputs = dataclasses.replace(part, protected=(str(tmp_path / "parks.tif"),))
    options = Options(chunk=32, batch_size=4, match_areas=match)
    reconstruct(model, inputs, YEARS, tmp_path / "maps.zarr", options)
    maps = everything(tmp_path / "maps.zarr")
    changed = (maps != maps[1]).any(axis=0)
    assert not changed[8:24, 8:56].any()
    assert changed[~marks[:32, :64].astype(bool)].any()


@pytest.mark.slow
def test_backwards_a_region_of_one_tile_is_what_the_evaluation_rolls_out(model, world, grid, tmp_path):
    source = LandUseData({"root_dir": str(world), "patch_size": 16}, "test")
    tile = int(np.argmax([(source.classes(t, 1993) != 255).sum() for t in range(source.layout.tiles)]))
    inputs = inputs_of(world / "archives", bbox=box(grid, *map(int, source.places[tile]), 16, 16))
    reconstruct(model, inputs, (1990, 1993), tmp_path / "maps.zarr", Options())
    path = RolloutPath(1993, (1992, 1991, 1990), (1992, 1991, 1990))
    composer = Composer(source, model.normalisation, "bilinear")
    fields = tuple(field.name for field in model.spec.inputs)
    expected = predict_maps(model, composer, [tile], path, fields, ["rollout"])["rollout"][:, 0]
    assert np.array_equal(everything(tmp_path / "maps.zarr")[:3], expected[::-1])
    # An untrained network may give little for the direction.
    seen = composer.fields(tile, 1992, source.classes(tile, 1993), 1, -1)["scalars"]
    np.testing.assert_array_equal(scalars_of(model.normalisation, 1992, 1993), seen)


# What tools open, and what another backend makes of the same weights.


@pytest.mark.slow
def test_netcdf_opens_with_xarray(model, part, tmp_path):
    xarray = pytest.importorskip("xarray")
    options = Options(chunk=32, batch_size=4, keep=("confidence",))
    reconstruct(model, part, YEARS, tmp_path / "maps.zarr", options)
    reconstruct(model, part, YEARS, tmp_path / "maps.nc", options)
    opened = open_maps(tmp_path / "maps.zarr").spec
    with xarray.open_dataset(tmp_path / "maps.nc", engine="h5netcdf", mask_and_scale=False) as found:
        codes = found["land_use"]
        assert codes.dims == ("time", "lat", "lon")
        assert [int(day.dt.year) for day in found["time"]] == [1992, 1993, 1994]
        assert codes.attrs["flag_meanings"].split() == [name.replace("/", "_") for name in opened.table.names]
        assert found[codes.attrs["grid_mapping"]].attrs["grid_mapping_name"] == "latitude_longitude"
        assert found.attrs["Conventions"].startswith("CF-")
        assert len(json.loads(found.attrs["provenance"])["checkpoint_sha256"]) == 64
        indices = np.full(256, 255)
        indices[list(codes.attrs["flag_values"])] = np.arange(len(opened.table))
        assert np.array_equal(indices[codes.values], everything(tmp_path / "maps.zarr"))


@pytest.mark.slow
def test_geotiffs_open_with_rasterio(model, part, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    reconstruct(model, part, YEARS, tmp_path / "maps.zarr", SMALL)
    reconstruct(model, part, YEARS, tmp_path / "maps.tif", SMALL)
    expected = everything(tmp_path / "maps.zarr")
    spec = open_maps(tmp_path / "maps.zarr").spec
    indices = np.full(256, 255)
    indices[[each.code for each in spec.table.classes]] = np.arange(len(spec.table))
    for place, year in enumerate(range(1992, 1995)):
        with rasterio.open(tmp_path / f"maps_{year}.tif") as found:
            assert found.crs.to_epsg() == 4326
            assert found.nodata == 255
            assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert found.transform.c == pytest.approx(spec.grid.west_deg)
            assert np.array_equal(indices[found.read(1)], expected[place])
    assert not (tmp_path / "maps.tif").exists()


@pytest.mark.slow
def test_a_kill_inside_the_export_of_geotiffs_carries_on(world, grid, any_backend, tmp_path):
    """Killed in the second of three files: the same command, without --overwrite, writes all, and cleans up."""
    bounds = ",".join(f"{edge:.6f}" for edge in box(grid, 0, 0, 32, 64))
    inputs = inputs_of(world / "archives")
    words = ["reconstruct", world / "model.safetensors", "--anchor", inputs.anchor, "--years", "1992:1994"]
    words += [word for path in inputs.scenario for word in ("--scenario", path)]
    words += [word for text in inputs.static for word in ("--static", text)]
    words += ["--chunk", 32, "--batch-size", 4, "--backend", any_backend, f"--bbox={bounds}", "--output"]
    script = """
import os, signal, sys
from earthsr.data.maps import geotiff
write, left = geotiff._write_blocks, [2]
def killed(*arguments):
    write(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
geotiff._write_blocks = killed
from earthsr.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    target = tmp_path / "cut" / "maps.tif"
    command = [sys.executable, "-c", script, *map(str, words), str(target)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    tiffs = [f"maps_{year}.tif" for year in (1992, 1993, 1994)]
    assert [(target.parent / name).exists() for name in tiffs] == [True, False, False]
    assert any(name.startswith(".maps_1993.tif.part-") for name in names(target.parent))
    again = call_cli(*words, target, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["chunks"] == 0
    assert call_cli(*words, tmp_path / "whole" / "maps.tif").returncode == 0
    rasterio = pytest.importorskip("rasterio")
    assert names(target.parent) == names(tmp_path / "whole")
    for name in tiffs:
        with rasterio.open(target.parent / name) as cut, rasterio.open(tmp_path / "whole" / name) as whole:
            assert np.array_equal(cut.read(), whole.read())


@pytest.mark.slow
def test_both_backends_make_nearly_the_same_maps(world, tmp_path):
    """The same weights, five years. All 61,440 cells were equal when this was written.

    A cell in a thousand may differ: float32 sums in another order decide between classes that are equally likely, and
    such a cell is a prior of those around it in the years after.
    """
    maps = {}
    for name in ("torch", "mindspore"):
        if not installed(name):
            pytest.skip(f"backend {name} is not installed")
        model = Model.from_checkpoint(world / "model.safetensors", backend=name)
        reconstruct(model, inputs_of(world / "archives"), (1991, 1995), tmp_path / f"{name}.zarr", SMALL)
        maps[name] = everything(tmp_path / f"{name}.zarr")
    equal = (maps["torch"] == maps["mindspore"])[maps["torch"] != 255].mean()
    assert equal > 0.999

"""Areas and counts where chunks, coarse cells and the grid do not end together."""

import dataclasses

import numpy as np
import pytest
import xarray

from earthsr.errors import DataError
from earthsr.geo import Window
from earthsr.geo.areas import cells_of
from earthsr.landuse.maps import open_maps
from earthsr.landuse.maps.layout import all_chunks
from earthsr.landuse.reconstruct import Options, reconstruct
from earthsr.landuse.reconstruct.chunk import begun_in, scalars_of
from earthsr.landuse.reconstruct.output import thinned
from earthsr.landuse.reconstruct.plan import make_plan, open_inputs
from earthsr.landuse.rollout import RolloutYears, predict_maps
from earthsr.landuse.samples import Composer
from earthsr.landuse.sources.world_inputs import WorldInputs
from earthsr.landuse.split import LandUseData
from tests.landuse.reconstruct.cases import SMALL, box, cut_off, everything, inputs_of

YEARS = (1992, 1994)


# Read once, count once.


@pytest.mark.slow
def test_static_fields_are_read_once_a_chunk_and_not_after_a_restart(model, part, tmp_path, monkeypatch):
    read, read_static = [], WorldInputs.static

    def counted(self, window):
        read.append(tuple(window))
        return read_static(self, window)

    monkeypatch.setattr(WorldInputs, "static", counted)
    cut_off(3, model, part, (1992, 1995), tmp_path / "maps.zarr", SMALL)
    assert read == [(0, 0, 32, 32), (0, 32, 32, 32)]
    result = reconstruct(model, part, (1992, 1995), tmp_path / "maps.zarr", SMALL)
    assert result["finished"]
    assert read == [(0, 0, 32, 32), (0, 32, 32, 32)]


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
    windows = list(all_chunks(maps.spec.grid, maps.spec.chunk))
    for most in (700, 10, 3):
        step = -(-64 // most)
        assert np.array_equal(thinned(maps, 1994, windows, most), whole[step // 2 :: step, step // 2 :: step])


# Areas where chunks, coarse cells and the grid do not end together.


def gaps(model, inputs, target, year):
    """Of every class and coarse cell: fine cells that are too many of it, and whether all of its fine cells count."""
    opened = open_inputs(model, inputs)
    plan = make_plan(model, opened, YEARS, SMALL)
    maps = open_maps(target)
    whole = Window(0, 0, plan.grid.rows, plan.grid.columns)
    classes = maps.read("land_use", year, whole)
    rows, columns = cells_of(opened.scenario.grid, plan.grid, whole)
    fractions = plan.fractions(opened.scenario.fractions(year))
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
    path = RolloutYears(1993, (1992, 1991, 1990), (1992, 1991, 1990))
    composer = Composer(source, model.normalisation, "bilinear")
    fields = tuple(field.name for field in model.spec.inputs)
    expected = predict_maps(model, composer, [tile], path, fields, ["rollout"])["rollout"][:, 0]
    assert np.array_equal(everything(tmp_path / "maps.zarr")[:3], expected[::-1])
    # An untrained network may give little for the direction.
    seen = composer.fields(tile, 1992, source.classes(tile, 1993), 1, -1)["scalars"]
    np.testing.assert_array_equal(scalars_of(1992, 1993), seen)


@pytest.mark.slow
def test_land_without_a_scenario_value_is_refused_or_filled(model, world, part, tmp_path):
    """The scenario says nothing of a coarse cell in which the anchor has land: no map is invented there."""
    place = {"lat": 1, "lon": 2}
    files = []
    for path in part.scenario:
        with xarray.open_dataset(path, decode_times=False) as dataset:
            made = dataset.load()
        for name, field in made.data_vars.items():
            if {"time", "lat", "lon"} <= set(field.dims):
                made[name][{**place}] = np.nan
        files.append(tmp_path / path.name)
        made.to_netcdf(files[-1], engine="h5netcdf")
    latitude, longitude = float(made.lat[1]), float(made.lon[2])
    lacking = dataclasses.replace(part, scenario=tuple(files))
    options = dataclasses.replace(SMALL, match_areas=True)
    target = tmp_path / "maps.zarr"
    with pytest.raises(DataError, match=rf"no value .* at {latitude:g} N, {longitude:g} E .*--fill-scenario nearest"):
        reconstruct(model, lacking, (1993, 1994), target, options)
    assert not target.exists()
    assert not target.with_name("maps.zarr.work").exists(), "nothing half-written stays"
    filled = dataclasses.replace(lacking, fill_scenario="nearest")
    report = reconstruct(model, filled, (1993, 1994), target, options)
    assert report["provenance"]["coarse_cells_filled"] == 1
    assert report["provenance"]["coarse_cells_without_scenario"] == 0
    assert any("1 coarse cells with land" in note for note in report["notes"])
    assert report["years"]["1994"]["coarse_cells_unmet"] == 0

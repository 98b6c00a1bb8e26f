"""``earthsr reconstruct`` from files to files: same maps however the work is cut off, shared out or carried on."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from earthsr.errors import InputError
from earthsr.geo import Window
from earthsr.geo.grid import Grid
from earthsr.inference.journal import Journal
from earthsr.inference.scheduler import make_scheduler
from earthsr.landuse.maps import open_maps
from earthsr.landuse.reconstruct import Options, dry_run, reconstruct
from earthsr.landuse.reconstruct import chunk as chunks
from earthsr.landuse.reconstruct.plan import make_plan, open_inputs
from earthsr.landuse.rollout import RolloutYears, predict_maps
from earthsr.landuse.samples import Composer
from earthsr.landuse.split import LandUseData
from earthsr.samples.world.globe import write_global_archives
from tests.conftest import call_cli
from tests.landuse.reconstruct.cases import SMALL, cut_off, everything, inputs_of

YEARS = (1991, 1995)


@pytest.fixture(scope="module")
def made(world, model, tmp_path_factory):
    """One whole reconstruction, by one process; only read."""
    target = tmp_path_factory.mktemp("made") / "maps.zarr"
    result = reconstruct(model, inputs_of(world / "archives"), YEARS, target, SMALL)
    return target, result


def test_maps_and_report_are_there_and_nothing_else(world, made):
    target, result = made
    assert result["finished"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["maps.zarr", "maps_report"]
    maps = open_maps(target)
    assert maps.spec.years == (1991, 1992, 1993, 1994, 1995)
    found = everything(target)
    layout = LandUseData({"root_dir": str(world), "patch_size": 16}, "test").layout
    assert found.shape == (5, layout.fine.rows, layout.fine.columns)
    assert (found == 255).any()
    assert ((found == 255) == (found[2] == 255)).all(), "cells without a class stay without one"
    assert all((found[i] != found[2]).any() for i in (0, 1, 3, 4)), "the maps change"
    report = json.loads((target.parent / "maps_report" / "reconstruct.json").read_text())
    assert set(report["years"]) == {"1991", "1992", "1993", "1994", "1995"}
    assert report["joins"][0]["year"] == 1994
    assert (target.parent / "maps_report" / "report.html").stat().st_size > 10_000


def test_the_anchor_is_the_map_that_was_given(world, made):
    source = LandUseData({"root_dir": str(world), "patch_size": 16}, "test")
    anchor = everything(made[0])[2]
    for tile, (row, column) in enumerate(source.places):
        here = anchor[row : row + 16, column : column + 16]
        assert np.array_equal(here, source.classes(tile, 1993))


def test_windows_see_what_training_saw(world, model):
    """Fields of a window are those of a tile of the files at the same place, in every input of the network."""
    source = LandUseData({"root_dir": str(world), "patch_size": 16}, "test")
    composer = Composer(source, model.normalisation, "bilinear")
    tile = int(np.argmax([(source.classes(t, 1993) != 255).sum() for t in range(source.layout.tiles)]))
    row, column = (int(i) for i in source.places[tile])
    inputs = open_inputs(model, inputs_of(world / "archives"))
    plan = make_plan(model, inputs, (1993, 1995), SMALL)
    fields = chunks.WindowFields(
        plan.grid, inputs.scenario.grid, 16, "bilinear", tuple(field.name for field in model.spec.inputs)
    )
    window = Window(row, column, 16, 16)
    static = model.normalisation.static(inputs.static(window))
    ground = chunks.WindowGround(window, static, inputs.anchor(window), inputs.scenario.fractions(1994))
    found = fields.of(window, ground, chunks.scalars_of(1994, 1993))
    expected = composer.fields(tile, 1994, source.classes(tile, 1993), 1, 1)
    assert set(found) == set(expected)
    for name in ("static", "prior", "prior_mask", "scalars"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    spread = [each["wy"] @ each["coarse"] @ each["wx"].T for each in (found, expected)]
    # float32 of fractions on either side.
    np.testing.assert_allclose(*spread, atol=1e-6)


@pytest.mark.slow
def test_a_region_of_one_tile_is_what_the_evaluation_rolls_out(world, model, tmp_path):
    source = LandUseData({"root_dir": str(world), "patch_size": 16}, "test")
    tile = int(np.argmax([(source.classes(t, 1993) != 255).sum() for t in range(source.layout.tiles)]))
    row, column = (int(i) for i in source.places[tile])
    fine = source.layout.fine
    west, north = fine.west + column * fine.cell_x, fine.north - row * fine.cell_y
    box = (west, north - 16 * fine.cell_y, west + 16 * fine.cell_x, north)
    inputs = inputs_of(world / "archives", bbox=box)
    reconstruct(model, inputs, (1993, 1995), tmp_path / "maps.zarr", Options())
    composer = Composer(source, model.normalisation, "bilinear")
    fields = tuple(field.name for field in model.spec.inputs)
    path = RolloutYears(1993, (1994, 1995), (1994, 1995))
    expected = predict_maps(model, composer, [tile], path, fields, ["rollout"])["rollout"][:, 0]
    assert np.array_equal(everything(tmp_path / "maps.zarr")[1:], expected)


def command(world, target, *more):
    archives = world / "archives"
    inputs = inputs_of(archives)
    words = ["reconstruct", world / "model.safetensors", "--anchor", inputs.anchor, "--years", "1991:1995"]
    for path in inputs.scenario:
        words += ["--scenario", path]
    for text in inputs.static:
        words += ["--static", text]
    words += ["--output", target, "--chunk", "32", "--batch-size", "4", "--backend", "torch", *more]
    return [str(word) for word in words]


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_make_the_maps_of_one_process(world, model, made, tmp_path, monkeypatch):
    """Killed with ``kill -9`` when a third of the chunks is done; Dask starts another in its place."""
    pytest.importorskip("distributed")
    target, add = tmp_path / "maps.zarr", Journal.add
    with make_scheduler("dask", workers=2) as scheduler:
        client = scheduler._connected()
        before = set(client.run(os.getpid).values())
        victim = min(before)

        def added(self, *record):
            add(self, *record)
            if len(self) == made[1]["chunks"] // 3:
                os.kill(victim, signal.SIGKILL)

        monkeypatch.setattr(Journal, "add", added)
        result = reconstruct(model, inputs_of(world / "archives"), YEARS, target, SMALL, scheduler=scheduler)
        client.wait_for_workers(2, timeout=60)
        after = set(client.run(os.getpid).values())
    assert victim not in after
    assert len(after) == 2
    assert result["chunks"] == made[1]["chunks"]
    assert np.array_equal(everything(target), everything(made[0]))
    assert result["years"] == made[1]["years"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.zarr", "maps_report"]


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 30, 75])
def test_after_a_kill_nothing_is_computed_twice_and_nothing_is_lost(world, made, tmp_path, after):
    """Killed as soon as so many chunks are recorded; the same command then does the others."""
    target = tmp_path / "maps.zarr"
    script = f"""
import os, signal, sys
from earthsr.inference.journal import Journal
add, left = Journal.add, [{after}]
def added(self, *arguments):
    add(self, *arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = added
from earthsr.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    killed = subprocess.run([sys.executable, "-c", script, *command(world, target)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    result = call_cli(*command(world, target, "--json"))
    assert result.returncode == 0, result.stderr
    total = made[1]["chunks"]
    assert json.loads(result.stdout)["chunks"] == total - after
    assert np.array_equal(everything(target), everything(made[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.zarr", "maps_report"]


@pytest.mark.slow
def test_the_same_command_after_the_end_does_nothing_and_another_is_refused(world, tmp_path):
    target = tmp_path / "maps.zarr"
    assert call_cli(*command(world, target)).returncode == 0
    before = (target / "zarr.json").stat().st_mtime_ns
    again = call_cli(*command(world, target))
    assert again.returncode == 0
    assert "was finished before" in again.stdout
    other = call_cli(*command(world, target, "--overlap", "0.5"))
    assert other.returncode == 2
    assert "is there already" in other.stderr
    assert (target / "zarr.json").stat().st_mtime_ns == before
    replaced = call_cli(*command(world, target, "--overlap", "0.5", "--overwrite"))
    assert replaced.returncode == 0, replaced.stderr
    assert (target / "zarr.json").stat().st_mtime_ns != before


@pytest.mark.slow
def test_what_was_begun_otherwise_is_not_carried_on(world, model, tmp_path):
    inputs, target = inputs_of(world / "archives"), tmp_path / "maps.zarr"
    cut_off(3, model, inputs, YEARS, target, SMALL)
    with pytest.raises(InputError, match="was begun with another options"):
        reconstruct(model, inputs, YEARS, target, Options(chunk=32, batch_size=4, match_areas=True))


@pytest.mark.slow
def test_areas_that_are_matched_are_the_scenarios(world, model, tmp_path):
    """To half a fine cell of each class and coarse cell: of 256 fine cells, some thousandths of the area."""
    inputs = inputs_of(world / "archives")
    options = Options(chunk=32, batch_size=4, match_areas=True)
    result = reconstruct(model, inputs, YEARS, tmp_path / "maps.zarr", options)
    for year in ("1991", "1992", "1994", "1995"):
        with_decoder = result["years"][year]["area_error_percent"]
        without = result["years"][year]["area_error_percent_without_decoder"]
        assert with_decoder < 0.5 < 5 < without


@pytest.mark.slow
def test_fixed_classes_keep_their_cells(world, model, tmp_path):
    inputs = inputs_of(world / "archives")
    names = open_inputs(model, inputs).table.names
    water = names.index("water")
    free = reconstruct(model, inputs, (1993, 1995), tmp_path / "free.zarr", SMALL)
    assert free["finished"]
    options = Options(chunk=32, batch_size=4, fixed=("water",), match_areas=True)
    reconstruct(model, inputs, (1993, 1995), tmp_path / "fixed.zarr", options)
    fixed, loose = everything(tmp_path / "fixed.zarr"), everything(tmp_path / "free.zarr")
    at = fixed[0] == water
    assert at.any()
    assert (fixed[:, at] == water).all()
    assert not (loose[:, at] == water).all(), "without the option they change"


@pytest.mark.slow
def test_layers_that_are_kept(world, model, tmp_path):
    inputs = inputs_of(world / "archives")
    options = Options(chunk=32, batch_size=4, keep=("confidence", "probabilities"))
    reconstruct(model, inputs, (1993, 1994), tmp_path / "maps.zarr", options)
    maps = open_maps(tmp_path / "maps.zarr")
    whole = Window(0, 0, maps.spec.grid.rows, maps.spec.grid.columns)
    classes = maps.read("land_use", 1994, whole)
    chances, most = maps.read("probabilities", 1994, whole), maps.read("confidence", 1994, whole)
    valid = classes != 255
    assert np.isnan(most[~valid]).all()
    # Bytes of 0.004: half of that is lost to rounding, seven times where seven are added.
    np.testing.assert_allclose(chances[:, valid].sum(axis=0), 1, atol=7 * 0.002 + 1e-6)
    np.testing.assert_allclose(
        np.take_along_axis(chances, classes[None].clip(0, 6), 0)[0][valid], most[valid], atol=1e-6
    )


def test_a_dry_run_writes_nothing_and_counts_the_windows_that_are_computed(world, model, made, tmp_path):
    planned = dry_run(model, inputs_of(world / "archives"), YEARS, tmp_path / "maps.zarr", SMALL)
    assert list(tmp_path.iterdir()) == []
    assert planned["maps"] == 5
    assert 4 * planned["windows_per_year"] == made[1]["windows"]
    assert planned["estimated_hours"] > 0
    assert planned["windows_computed_twice_percent"] > 20


def turned(folder, target, columns):
    """Copy the archives of a globe with their fields turned by a share of the way around the Earth."""
    xarray, rasterio = pytest.importorskip("xarray"), pytest.importorskip("rasterio")
    target.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".nc":
            with xarray.open_dataset(path, decode_times=False) as found:
                size = found.sizes["lon"]
                fields = [name for name in found.data_vars if "lon" in found[name].dims]
                turn = {name: found[name].roll(lon=columns * size // 128, roll_coords=False) for name in fields}
                found.assign(turn).to_netcdf(target / path.name, engine="h5netcdf")
        elif path.suffix == ".tif":
            with rasterio.open(path) as source:
                values, profile = source.read(), source.profile
            with rasterio.open(target / path.name, "w", **profile) as copy:
                copy.write(np.roll(values, columns, axis=-1))
    return target


@pytest.mark.slow
def test_the_dateline_is_no_edge(world, model, tmp_path):
    """A globe that is turned gives maps that are turned, by as many cells: nothing is special about 180 degrees.

    Windows lie on a lattice that begins at the first column; it is the same after half a turn, where maps are equal.
    """
    spec = {"cell_deg": 2.8125, "years": range(2000, 2003), "seed": 1, "anchor_year": 2000, "coarse_deg": 11.25}
    written = write_global_archives(tmp_path / "globe", **spec)
    assert any(path.name == "static.nc" for path in (tmp_path / "globe").iterdir()), written
    turned(tmp_path / "globe", tmp_path / "turned", 64)
    options = Options(chunk=32, batch_size=4, overlap=0.5, tile=16)
    maps = {}
    for name in ("globe", "turned"):
        folder = tmp_path / name
        inputs = inputs_of(
            folder,
            anchor=f"2000={folder / 'landuse_2000.tif'}",
            scenario=tuple(sorted(folder.glob("scenario_*.nc"))[::-1]),
        )
        reconstruct(model, inputs, (2000, 2002), tmp_path / f"{name}.zarr", options)
        maps[name] = everything(tmp_path / f"{name}.zarr")
    assert open_maps(tmp_path / "globe.zarr").spec.grid == Grid(-180, 90, 2.8125, 2.8125, 64, 128)
    assert (maps["globe"][2] != maps["globe"][0]).mean() > 0.05
    assert np.array_equal(np.roll(maps["globe"], 64, axis=-1), maps["turned"])


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--years", "1985:1995"], "needs fractions of 1985 to 1989"),
        (["--years", "1995:1991"], "expected FIRST:LAST"),
        (["--tile", "15"], "expected a multiple of 2"),
        (["--fixed", "glacier"], "no such class"),
        (["--keep", "entropy"], "expected confidence or probabilities"),
        (["--rank", "0", "--world-size", "2"], "--rank is gone: "),
        (["--patience", "5"], "say --workers N"),
        (["--scheduler", "slurm"], "expected local or dask"),
        (["--output", "maps.hdf"], "expected a name that ends in"),
        (["--bbox", "100,0,110,10"], "100"),
    ],
)
def test_bad_options_get_one_line_and_leave_nothing(world, tmp_path, more, text):
    result = call_cli(*command(world, tmp_path / "maps.zarr", *more), cwd=tmp_path)
    assert result.returncode == 2
    assert text in result.stderr
    assert [line[:6] for line in result.stderr.splitlines()].count("error:") == 1
    assert list(tmp_path.iterdir()) == []

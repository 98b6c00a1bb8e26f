"""From made rasters of elevation to DEM files on the command line, and what is wrong with rasters."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import xarray
from rasterio.transform import Affine

from earthsr.config import from_mapping
from earthsr.geo import Georeference, open_sink
from earthsr.tasks import task_for
from tests.cli.test_bad_input import assert_refused, everything_below
from tests.conftest import call_cli, run_cli
from tests.dem.test_prepare_dem import CELL, NORTH, WEST, cells, files_below, read, srtm_and_gebco, write_dem


@pytest.fixture
def folder(tmp_path):
    """A raster of 200 x 300 fine cells with a void, in the Alps."""
    values = cells(200, 300).astype(np.float32)
    values[:12, :30] = -9999
    write_dem(tmp_path / "alps.tif", values, nodata=-9999)
    return tmp_path


BLOCKS = ("--patch", 8, "--shares", "0.6,0.2,0.2", "--buffer", 2)
WHOLE = ("--patch", 8, "--shares", "1,0,0")


def prepare(folder, *words, hr=("alps.tif",), plan=BLOCKS):
    return call_cli("prepare", "dem", folder / "out", *(folder / name for name in hr), *words, *plan)


def scores(root, split="test"):
    """Scores of interpolation on a split, as evaluation makes them."""
    task = task_for(from_mapping({"data": {"root_dir": str(root), "patch_size": 8}}))
    return task.score(None, task.dataset(split)).to_dict()


def test_patches_from_a_raster(folder):
    """The files are what training and evaluation read; standard output is the result, and nothing else is said."""
    done = prepare(folder, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["patches"].keys() == {"train", "valid", "test"}
    for split, count in said["patches"].items():
        assert len(read(folder / "out", split)[0]["8_8"]) == count
    assert said["regions"] == {split: ["alps"] for split in said["patches"]}
    assert said["surfaces"]["train"]["land"] == said["patches"]["train"]
    assert said["bytes"] == sum(len(content) for content in files_below(folder / "out").values())
    found = scores(folder / "out")
    assert found["samples"] == said["patches"]["test"]
    assert 0 < found["scores"]["bicubic"]["rmse"] < found["scores"]["nearest"]["rmse"]
    assert found["scores"]["bicubic"]["slope_rmse_deg"] > 0
    assert found["groups"].keys() == {"land", "region/alps"}


def test_a_summary_for_people(folder):
    done = prepare(folder)
    assert done.returncode == 0, done.stderr
    assert "train  25 patches (25 land) of 1 regions; 0 left out for voids" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{folder / 'out'}: ")


def test_regions_by_name_and_pattern(folder):
    for number, west in enumerate((20, 30, 40)):
        write_dem(folder / f"N47E0{west}.tif", cells(60, 60 + 10 * number, west).astype(np.float32), west)
    names = ("alps.tif", "N47E020.tif", "N47E030.tif", "N47E040.tif")
    words = ("--valid-region", "N47E02*", "--test-region", "N47E04?", "--test-region", "N47E030", "--json")
    done = prepare(folder, *words, hr=names, plan=WHOLE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["regions"] == {
        "train": ["alps"], "valid": ["N47E020"], "test": ["N47E030", "N47E040"]
    }  # fmt: skip


def test_formats_give_the_same_patches(folder):
    """GeoTIFF from the north, NetCDF from the south, Zarr with packed integers."""
    values = np.rint(cells(100, 120)).astype(np.int16)
    write_dem(folder / "a.tif", values)
    latitude = NORTH - CELL * (np.arange(100) + 0.5)
    longitude = WEST + CELL * (np.arange(120) + 0.5)
    made = xarray.DataArray(values, {"lat": latitude, "lon": longitude}, ("lat", "lon"), name="z", attrs={"units": "m"})
    made.lat.attrs["units"], made.lon.attrs["units"] = "degrees_north", "degrees_east"
    made[::-1].to_dataset().assign(other=made).to_netcdf(folder / "b.nc", engine="h5netcdf")
    made.to_dataset().to_zarr(folder / "c.zarr", encoding={"z": {"scale_factor": 2.0, "dtype": "int16"}})
    halves = made // 2 * 2
    write_dem(folder / "d.tif", halves.values)
    found = {}
    for name in ("a.tif", "b.nc:z", "c.zarr", "d.tif"):
        done = call_cli("prepare", "dem", folder / "out" / name[0], folder / name, *WHOLE)
        assert done.returncode == 0, done.stderr
        found[name[0]] = read(folder / "out" / name[0], "train")
    np.testing.assert_array_equal(found["a"][0]["40_40"], found["b"][0]["40_40"])
    np.testing.assert_allclose(found["a"][0]["origin"], found["b"][0]["origin"], atol=1e-9)
    assert np.abs(found["c"][0]["40_40"] - found["d"][0]["40_40"]).max() <= 2
    file = json.loads(found["b"][1]["provenance"])["files"][0]
    assert (file["name"], file["variable"]) == ("b.nc", "z")
    assert len(json.loads(found["c"][1]["provenance"])["files"][0]["sha256"]) == 64


def test_a_coarse_product_is_registered(tmp_path):
    """What was measured is said on standard error, in the JSON and in the files."""
    hr, lr = srtm_and_gebco(tmp_path, (0.5, 0), (0, 0))
    done = call_cli("prepare", "dem", tmp_path / "out", hr, "--lr", lr, *WHOLE, "--json")
    assert done.returncode == 0, done.stderr
    assert "the coarse product lies 0." in done.stderr
    assert "half a pixel, taken off (+0.50 south, +0.00 east); now 0.0" in done.stderr
    (found,) = json.loads(done.stdout)["registration"]
    assert found["corrected"] == {"rows": 0.5, "columns": 0.0}
    assert json.loads(read(tmp_path / "out", "train")[1]["registration"]) == [found]
    done = call_cli("prepare", "dem", tmp_path / "as_is", hr, "--lr", f"srtm={lr}", *WHOLE, "--register", "report")
    assert done.returncode == 0, done.stderr
    assert "warning: region srtm: the coarse product lies 0." in done.stderr


def test_projected_rasters_are_scored_with_their_slopes(tmp_path):
    write_dem(tmp_path / "utm.tif", cells(100, 200).astype(np.float32), 500_000, 5_200_000, 90, crs="EPSG:32632")
    done = prepare(tmp_path, hr=("utm.tif",))
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path / "out")["scores"]["bicubic"]
    assert found["rmse"] > 0
    assert 0 < found["slope_rmse_deg"] < 45


def test_units_that_nobody_says_are_metres_with_a_warning(folder):
    write_dem(folder / "alps.tif", cells(200, 300).astype(np.float32), units="")
    done = prepare(folder)
    assert done.returncode == 0
    assert done.stderr == "warning: alps.tif: has no units; metres are assumed (--units m says so)\n"
    assert prepare(folder, "--units", "m", "--overwrite").stderr == ""


# Interruption


@pytest.mark.slow
def test_a_killed_preparation_goes_on(folder):
    """SIGKILL once the first shard is there; the resumed run writes the files of one that nothing disturbed."""
    write_dem(folder / "alps.tif", cells(300, 300).astype(np.float32))
    plan = (*BLOCKS, "--stride", 1)
    assert prepare(folder, plan=plan).returncode == 0
    expected = files_below(folder / "out")
    killed = folder / "killed"
    words = [sys.executable, "-m", "earthsr", "prepare", "dem", killed, folder / "alps.tif", *plan]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(killed.glob(".prepare-*/train-*.npz")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "train").exists()
    again = call_cli("prepare", "dem", killed, folder / "alps.tif", *plan)
    assert again.returncode == 2
    notice, error = again.stderr.splitlines()
    assert f"process {process.pid} on" in notice
    assert f"error: {killed} holds an unfinished preparation: --resume carries it on" in error
    other = call_cli("prepare", "dem", killed, folder / "alps.tif", *plan, "--minimum-valid", 0.7, "--resume")
    assert_refused(other, "of another plan or of other files", "--overwrite removes it")
    done = call_cli("prepare", "dem", killed, folder / "alps.tif", *plan, "--resume")
    assert done.returncode == 0, done.stderr
    assert files_below(killed) == expected
    done = call_cli("prepare", "dem", killed, folder / "alps.tif", *plan, "--resume")
    assert done.returncode == 0
    assert "is complete already" in done.stderr


# What is wrong with rasters


@pytest.fixture
def refused(folder):
    """Prepare, which must be refused with one line and leave the folder as it was."""

    def check(*words, arguments=(), **options):
        before = everything_below(folder)
        assert_refused(prepare(folder, *arguments, **options), *words)
        assert everything_below(folder) == before

    return check


def damage(folder, **options):
    write_dem(folder / "alps.tif", options.pop("values", cells(200, 300).astype(np.float32)), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": None}, "alps.tif: has no CRS; rio edit-info --crs EPSG:4326"),
        ({"transform": Affine(CELL, CELL / 9, WEST, CELL / 9, -CELL, NORTH)}, "rotated or mirrored, expected north up"),
        ({"transform": Affine(-CELL, 0, WEST, 0, -CELL, NORTH)}, "rotated or mirrored, expected north up"),
        ({"units": "ft"}, "alps.tif: units are 'ft', expected metres; rio calc '(* 0.3048 (read 1))'"),
        ({"values": np.full((200, 300), -9999, np.float32), "nodata": -9999}, "region alps: holds no value, all is"),
        ({"values": np.full((200, 300), np.nan, np.float32)}, "region alps: holds no value, all is nodata"),
        (
            {"values": np.full((30, 300), 7, np.float32)},
            "has 6 x 60 coarse cells (30 x 300 fine cells), smaller than a",
        ),
        ({"values": np.full((200, 100), 7, np.float32)}, "region alps has 20 coarse columns, too few for 3 blocks"),
    ],
)
def test_rasters_that_cannot_be_used(folder, refused, options, words):
    damage(folder, **options)
    refused(words)


def test_fill_values_that_are_not_declared(folder, refused):
    """In the last corner, which is read last: nothing of what was written before stays."""
    values = cells(200, 300).astype(np.float32)
    values[199, 299] = -32768
    damage(folder, values=values)
    refused("alps.tif: holds -32768 in row 199, column 299", "-12,000 to 9,500 m", "--nodata -32768")
    assert prepare(folder, "--nodata", -32768).returncode == 0
    assert "mask_40" in read(folder / "out", "test")[0]


def test_a_fill_value_that_passes_for_an_elevation(folder, refused):
    values = cells(200, 300).astype(np.float32)
    values[100:110, 60:70] = -9999
    path = folder / "alps.tif"
    path.unlink()
    write_dem(path, values)
    refused("alps.tif: 100 cells hold -9999", "row 100, column 60", "--nodata -9999", "--keep -9999")
    assert prepare(folder, "--nodata", -9999).returncode == 0
    assert "mask_40" in read(folder / "out", "train")[0]


def test_a_fill_value_of_a_raster_that_is_reprojected(folder, refused):
    """Interpolation would spread it over its neighbours, so it is looked for before."""
    values = cells(100, 100).astype(np.float32)
    values[40:44, 40:44] = -9999
    write_dem(folder / "utm.tif", values, 500_000, 5_200_000, 90, crs="EPSG:32632")
    words = ("utm.tif: 16 cells hold -9999", "row 40, column 40", "--nodata -9999")
    refused(*words, hr=("alps.tif", "utm.tif"), arguments=("--crs", "EPSG:4326"))


def test_depths_are_turned_into_heights(folder):
    values = 100 - cells(200, 300).astype(np.float32)
    (folder / "alps.tif").unlink()
    write_dem(folder / "alps.tif", values)
    with rasterio.open(folder / "alps.tif", "r+") as file:
        file.update_tags(positive="down")
    done = prepare(folder, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("alps.tif: depths (positive: down) are turned into heights") == 1
    assert any("turned into heights" in note for note in json.loads(done.stdout)["notes"])
    assert read(folder / "out", "train")[0]["40_40"].min() == pytest.approx(-values.max(), abs=100)
    again = prepare(folder, "--overwrite", "--positive", "up")
    assert again.returncode == 0, again.stderr
    assert read(folder / "out", "train")[0]["40_40"].max() == pytest.approx(values.max(), abs=100)


@pytest.mark.parametrize("crs", ["OGC:CRS84", "EPSG:9518"])
def test_a_coarse_product_in_another_name_of_the_same_crs(folder, crs):
    from earthsr.geo.crs import parse_crs, wkt_of

    coarse = cells(80, 80, 6.95, 47.05, 5 * CELL).astype(np.float32)
    grid = Georeference(6.95, 47.05, 5 * CELL, 5 * CELL, 80, 80, wkt_of(parse_crs(crs, "test")))
    sink = open_sink(folder / "coarse.nc", grid)
    sink.write(0, 0, coarse[None])
    sink.finish({})
    for words in ((), ("--crs", "EPSG:4326", "--overwrite")):
        done = prepare(folder, "--lr", folder / "coarse.nc", *words)
        assert done.returncode == 0, done.stderr


def test_rasters_in_different_crs(folder, refused):
    write_dem(folder / "utm.tif", cells(100, 100).astype(np.float32), 500_000, 5_200_000, 90, crs="EPSG:32632")
    refused(
        "utm.tif: CRS is EPSG:32632, that of the rasters before it EPSG:4326", "--crs CRS reprojects all to one",
        hr=("alps.tif", "utm.tif"),
    )  # fmt: skip
    refused(
        "alps.tif: CRS is EPSG:4326",
        "of the fine rasters EPSG:32632",
        hr=("utm.tif",),
        arguments=("--lr", folder / "alps.tif"),
    )
    refused("CRS 'EPSG:0' is not understood", arguments=("--crs", "EPSG:0"))


@pytest.mark.parametrize(
    ("size", "west", "words"),
    [
        (5, 30, "coarse.tif: does not overlap region alps, which covers 7, 46.8333, 7.25, 47"),
        (4, 6.9, "coarse.tif: cells are 4 x 4 cells of alps.tif (x, y), expected 5 within 1 %; --scale 4 fits"),
        (5.2, 6.9, "coarse.tif: cells are 5.2 x 5.2 cells of alps.tif (x, y), expected 5 within 1 %; take another"),
    ],
)
def test_coarse_products_that_do_not_fit(folder, refused, size, west, words):
    write_dem(
        folder / "coarse.tif", cells(100, 100, west, 47.1, size * CELL).astype(np.float32), west, 47.1, size * CELL
    )
    refused(words, arguments=("--lr", folder / "coarse.tif"))


def test_fill_values_of_a_coarse_product(folder, refused):
    values = cells(80, 80, 6.95, 47.05, 5 * CELL).astype(np.float32)
    values[30, 30] = 1e20
    write_dem(folder / "coarse.tif", values, 6.95, 47.05, 5 * CELL)
    refused(
        "coarse.tif: holds 1e+20 in row 30, column 30", "--lr-nodata 1e+20", arguments=("--lr", folder / "coarse.tif")
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--test-region", "andes"), "--test-region andes: no such region; there are alps"),
        (("--train-region", "al*", "--test-region", "alps"), "region alps is asked for in train and in test"),
        (("--shares", "1,0"), "--shares is '1,0', expected numbers such as 0.7,0.1,0.2"),
        (("--shares", "0.9,0.2,0.1"), "--shares are 0.9,0.2,0.1, expected three of 0 to 1, at most 1 together"),
        (("--coast", "x"), "--coast is 'x', expected numbers such as 0.05,0.95"),
        (("--register", "maybe"), "--register is 'maybe', expected auto, report, off"),
        (("--scale", 12), "--scale is 12, expected 2 to 10"),
        (("--split-axis", "time"), "--split-axis is 'time', expected columns or rows"),
        (("--minimum-valid", 2), "--minimum-valid is 2, expected a share of 0 to 1"),
    ],
)
def test_arguments_out_of_range(refused, arguments, words):
    refused(words, plan=(*BLOCKS, *arguments))


def test_files_that_are_no_rasters(folder, refused):
    refused("nowhere.tif: no such file", hr=("alps.tif", "nowhere.tif"))
    refused("alps.tif is given twice; a raster belongs to one region", hr=("alps.tif", "alps.tif"))
    (folder / "text.tif").write_text("elevation")
    refused("text.tif: cannot be read as a raster", hr=("text.tif",))
    path = folder / "alps.tif"
    path.write_bytes(path.read_bytes()[:100_000])
    refused("alps.tif: cannot be read as a raster")


def test_voids_everywhere_in_a_split(folder, refused):
    values = cells(200, 300).astype(np.float32)
    values[:, 230:] = -9999
    damage(folder, values=values, nodata=-9999)
    refused("no patch of the test split has 50% of valid cells", "--minimum-valid")


def test_a_file_in_the_folder_s_place(folder, refused):
    (folder / "out").write_text("")
    refused("cannot write", "out: there is a file in its place; choose another")
    (folder / "out").unlink()
    (folder / "out").mkdir()
    (folder / "out" / "test").write_text("")
    refused("out/test: there is a file in its place", arguments=("--overwrite",))
    (folder / "out" / "test").unlink()
    (folder / "out" / "valid").mkdir()
    refused("out/valid is there already; choose another folder, or --overwrite")


@contextlib.contextmanager
def ordinary_user():
    """Play nobody in particular: root may write into any folder."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder(folder, monkeypatch):
    assert prepare(folder).returncode == 0  # what is imported on the way is in memory now, readable for all or not
    (folder / "closed").mkdir(mode=0o555)
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    before = everything_below(folder)
    with ordinary_user():
        done = call_cli("prepare", "dem", "closed/out", "alps.tif", *BLOCKS)
    assert_refused(done, "cannot write closed/out: Permission denied; choose a writable place")
    assert everything_below(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [50, 2500], ids=["shard", "file"])
def test_a_full_disk(folder, kilobytes):
    """No file may grow beyond so much: a shard does, or, larger than any shard, the file of training."""
    write_dem(folder / "alps.tif", cells(250, 300).astype(np.float32))
    before = everything_below(folder)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * kilobytes,) * 2)  # noqa: E731
    words = ("prepare", "dem", folder / "out", folder / "alps.tif", *BLOCKS, "--stride", 1)
    assert_refused(run_cli(*words, preexec_fn=limit), f"cannot write {folder / 'out'}", "File too large")
    assert everything_below(folder) == before


def test_help_states_defaults_and_units():
    done = call_cli("prepare", "dem", "--help")
    assert done.returncode == 0
    for words in ("0.7,0.1,0.2", "Coarse cells between the splits", "[default: 4]", "EPSG:32632", "0.25 fine cells"):
        assert words in " ".join(done.stdout.split()), words


def test_a_raster_that_says_point_is_read_as_areas(tmp_path):
    """SRTM's files: centres of pixels on whole arc-seconds, corners half a pixel outwards."""
    with rasterio.open(srtm_and_gebco(tmp_path)[0]) as file:
        assert file.tags()["AREA_OR_POINT"] == "Point"
    done = call_cli("prepare", "dem", tmp_path / "out", tmp_path / "srtm.tif", *WHOLE)
    assert done.returncode == 0, done.stderr
    corner = read(tmp_path / "out", "train")[0]["origin"][0]
    np.testing.assert_allclose(corner, [WEST - CELL / 2, NORTH + CELL / 2], atol=1e-9)


def test_files_of_one_name_in_two_folders_are_two_regions(folder):
    for name, height in (("alps", 1000), ("andes", 4000)):
        (folder / name).mkdir()
        write_dem(folder / name / "dem.tif", (cells(60, 60) * 0 + height).astype(np.float32), west=height / 100)
    done = prepare(folder, "--json", hr=("alps/dem.tif", "andes/dem.tif", "alps.tif"), plan=WHOLE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["regions"]["train"] == ["alps-dem", "andes-dem", "alps"]
    fine = read(folder / "out", "train")[0]["40_40"]
    assert {1000.0, 4000.0} <= set(np.unique(fine[np.isfinite(fine)]).tolist())


def test_files_of_one_name_and_other_suffixes_are_two_regions(folder):
    write_dem(folder / "a.tif", cells(60, 60).astype(np.float32))
    write_dem(folder / "a.img", cells(60, 60).astype(np.float32), west=30)
    done = prepare(folder, "--json", hr=("a.tif", "a.img"), plan=WHOLE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["regions"]["train"] == ["a-tif", "a-img"]

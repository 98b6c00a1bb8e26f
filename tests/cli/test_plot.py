"""``earthsr plot`` and :func:`earthsr.plot`: what pictures show, what is read for them, errors that leave nothing."""

import json
import os
import stat

import numpy as np
import pytest

import earthsr
from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.evaluation.maps import latitude, longitude
from earthsr.geo import Georeference, Window, array_source, open_source
from earthsr.geo.areas import brought_onto
from earthsr.geo.grid import Grid
from earthsr.geo.raster import sampled
from earthsr.geo.readers import open_layers
from earthsr.landuse.class_areas import cell_areas
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.maps import MapsSpec, create_maps, export_geotiffs, export_netcdf, open_maps
from tests.conftest import call_cli

rasterio = pytest.importorskip("rasterio")
xarray = pytest.importorskip("xarray")
Image = pytest.importorskip("PIL.Image")

WEST, NORTH, CELL = 6.0, 48.0, 1 / 60
SMALL = ("--size", "200")


def hills(rows=40, columns=60, seed=0):
    field = np.random.default_rng(seed).normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1)
    return (900 + 300 * (field - field.mean()) / field.std()).astype(np.float32)


def write_tif(path, values, west=WEST, north=NORTH, cell=CELL, units="m", crs="EPSG:4326", nodata=-9999, **more):
    place = rasterio.transform.from_origin(west, north, cell, cell)
    size = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=place, nodata=nodata, **size, **more) as file:
        file.write(values, 1)
        if units:
            file.units = (units,)
    return path


def write_nc(path, values, west=-180.0, north=90.0, cell=1.0, ascending=True, **attrs):
    rows, columns = values.shape
    lat, lon = north - cell * (np.arange(rows) + 0.5), west + cell * (np.arange(columns) + 0.5)
    if ascending:
        lat, values = lat[::-1], values[::-1]
    axes = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    array = xarray.DataArray(values, axes, ("lat", "lon"), "elevation", {"units": "m", **attrs})
    array.to_dataset().to_netcdf(path, engine="h5netcdf")
    return path


GRID = Grid(5.0, 50.0, 1 / 10, 1 / 10, 30, 40)
YEARS = (1990, 1991, 1993, 1995)


def class_map(year):
    """Class indices, urban in the north, more of it with the years, forest south of it; a corner without a class."""
    classes = np.full((GRID.rows, GRID.columns), HILDA_PLUS.names.index("forest"), np.uint8)
    classes[: 5 + year - 1990] = HILDA_PLUS.names.index("urban")
    classes[-6:, :8] = 255
    return classes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    spec = MapsSpec(GRID, "EPSG:4326", YEARS, HILDA_PLUS, (30, 40), ("land_use", "confidence"))
    create_maps(folder / "maps.zarr", spec, {})
    maps = open_maps(folder / "maps.zarr")
    for year in YEARS:
        maps.write("land_use", year, Window(0, 0, 30, 40), class_map(year))
        maps.write("confidence", year, Window(0, 0, 30, 40), np.full((30, 40), 0.5, np.float32))
    maps.finish({})
    export_netcdf(maps, folder / "maps.nc")
    export_geotiffs(maps, folder / "maps.tif")
    return folder


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def share(path, colour):
    """Share of a picture's pixels that have a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (pixels(path) == wanted).all(axis=-1).mean()


def plotted(*words, cwd):
    done = call_cli("plot", *words, *SMALL, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


# Elevation


def test_elevation_is_drawn_under_its_own_name(tmp_path):
    values = hills()
    write_tif(tmp_path / "alps.tif", values)
    shown, heard = plotted("alps.tif", cwd=tmp_path)
    assert (shown["output"], shown["kind"], shown["units"]) == ("alps.png", "elevation", "m")
    assert shown["minimum"] == pytest.approx(values.min(), abs=0.01)
    assert shown["maximum"] == pytest.approx(values.max(), abs=0.01)
    assert shown["bounds"] == pytest.approx([6, 48 - 40 / 60, 7, 48])
    assert heard == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alps.png", "alps.tif"]
    assert len(np.unique(pixels(tmp_path / "alps.png").reshape(-1, 3), axis=0)) > 200


def test_voids_are_blank_and_the_rest_is_not(tmp_path):
    values = hills(60, 60)
    whole = write_tif(tmp_path / "whole.tif", values)
    values[:, :30] = -9999
    write_tif(tmp_path / "half.tif", values)
    for name in ("whole", "half"):
        plotted(f"{name}.tif", cwd=tmp_path)
    assert whole.is_file()
    white = {name: (pixels(tmp_path / f"{name}.png") == 255).all(axis=-1).mean() for name in ("whole", "half")}
    assert white["half"] > white["whole"] + 0.1


def test_sea_is_blue_and_land_is_not(tmp_path):
    values = np.linspace(-3000, 3000, 60, dtype=np.float32)[None].repeat(40, axis=0)
    write_tif(tmp_path / "coast.tif", values)
    plotted("coast.tif", cwd=tmp_path)
    picture = pixels(tmp_path / "coast.png").astype(int)
    middle = picture[picture.shape[0] // 2]
    bluish = (middle[:, 2] > middle[:, 0] + 20).nonzero()[0]
    greenish = (middle[:, 1] > middle[:, 2] + 20).nonzero()[0]
    assert bluish.size > 30
    assert greenish.size > 30
    assert np.median(bluish) < np.median(greenish)


def test_light_falls_on_flanks_in_the_north_west(tmp_path):
    """Two planes of the same heights: the one that faces the north-west is the brighter one."""
    plane = (100 + 8 * np.add.outer(np.arange(60), np.arange(60))).astype(np.float32)
    for name, values in (("lit", plane), ("dark", plane[::-1, ::-1])):
        values = np.ascontiguousarray(values)
        write_tif(tmp_path / f"{name}.tif", values, west=5e5, north=5.3e6, cell=30.0, crs="EPSG:32632")
        plotted(f"{name}.tif", cwd=tmp_path)
    lit, dark = (pixels(tmp_path / f"{name}.png").mean() for name in ("lit", "dark"))
    assert lit > dark + 10


def test_contours_are_drawn_and_too_many_are_refused(tmp_path):
    write_tif(tmp_path / "alps.tif", hills())
    plotted("alps.tif", "plain.png", cwd=tmp_path)
    plotted("alps.tif", "lines.png", "--contours", "100", cwd=tmp_path)
    dark = [(pixels(tmp_path / name).sum(axis=-1) < 200).sum() for name in ("plain.png", "lines.png")]
    assert dark[1] > dark[0] + 100
    for metres, words in (("0.5", "contours over"), ("0", "above 0"), ("nan", "above 0")):
        done = call_cli("plot", "alps.tif", "no.png", "--contours", metres, cwd=tmp_path)
        assert done.returncode == 2
        assert "--contours" in done.stderr
        assert words in done.stderr
    assert not (tmp_path / "no.png").exists()


def test_a_raster_without_units_is_said_to_be_taken_for_metres(tmp_path):
    write_tif(tmp_path / "bare.tif", hills(), units=None)
    shown, heard = plotted("bare.tif", cwd=tmp_path)
    assert "metres are assumed" in heard
    assert "metres are assumed" in shown["notes"][0]


def test_a_fill_value_that_nobody_declares_is_refused(tmp_path):
    values = hills()
    values[3, 4] = -32768
    write_tif(tmp_path / "fill.tif", values)
    done = call_cli("plot", "fill.tif", cwd=tmp_path)
    assert done.returncode == 2
    assert "row 3, column 4" in done.stderr
    assert "nodata -32768" in done.stderr
    assert not (tmp_path / "fill.png").exists()


def test_depths_are_drawn_as_heights(tmp_path):
    write_nc(
        tmp_path / "sea.nc", np.full((20, 30), 800.0), north=10.0, west=0.0, standard_name="sea_floor_depth_below_geoid"
    )
    with pytest.warns(EarthsrWarning, match="turned into heights"):
        shown = earthsr.plot(tmp_path / "sea.nc", tmp_path / "sea.png", size=150)
    assert shown["maximum"] == -800


# Two rasters


def test_equal_rasters_differ_by_nothing(tmp_path):
    values = hills()
    for name in ("a", "b"):
        write_tif(tmp_path / f"{name}.tif", values)
    shown, _ = plotted("a.tif", "both.png", "--beside", "b.tif", cwd=tmp_path)
    assert shown["difference"] | {"units": ""} == {
        "what": "a.tif minus b.tif", "how": "cell by cell", "units": "", "mean": 0, "rmse": 0, "largest": 0,
    }  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
def test_a_coarser_raster_is_compared_on_the_cells_of_the_first(tmp_path, swapped):
    """A plane: means of cells are those of coarse ones, and linear interpolation is exact but for the rim."""
    plane = (100 + np.add.outer(3.0 * np.arange(40), 2.0 * np.arange(60))).astype(np.float32)
    write_tif(tmp_path / "fine.tif", plane + 7)
    write_tif(tmp_path / "coarse.tif", plane.reshape(10, 4, 15, 4).mean(axis=(1, 3)), cell=4 * CELL)
    first, second = ("coarse.tif", "fine.tif") if swapped else ("fine.tif", "coarse.tif")
    shown, _ = plotted(first, "both.png", "--beside", second, cwd=tmp_path)
    about = shown["difference"]
    assert second in about["how"]
    assert ("means" if swapped else "interpolated") in about["how"]
    assert about["mean"] == pytest.approx(-7 if swapped else 7, abs=1e-3)
    assert shown["beside"]["cells"] == ([40, 60] if swapped else [10, 15])


def test_only_what_both_cover_is_compared(tmp_path):
    values = hills(40, 60)
    write_tif(tmp_path / "a.tif", values)
    write_tif(tmp_path / "b.tif", values[10:, 20:] - 5, west=WEST + 20 * CELL, north=NORTH - 10 * CELL)
    shown, _ = plotted("a.tif", "both.png", "--beside", "b.tif", cwd=tmp_path)
    assert shown["cells"] == [30, 40]
    assert shown["difference"]["mean"] == pytest.approx(5, abs=1e-3)
    assert shown["difference"]["rmse"] == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize(
    ("first", "second", "box", "bounds"),
    [
        ("from180.nc", "from0.nc", "", [-180, -90, 180, 90]),
        ("from0.nc", "from180.nc", "", [0, -90, 360, 90]),
        ("from180.nc", "from0.nc", "-20,10,40,50", [-20, 10, 40, 50]),
        ("from180.nc", "from0.nc", "170,-20,-170,20", [170, -20, 190, 20]),
        ("from180.nc", "part.nc", "", [170, -30, 190, 10]),
        ("part.nc", "from180.nc", "", [170, -30, 190, 10]),
        ("part.nc", "west.nc", "", [180, -30, 190, 10]),
    ],
)
def test_longitudes_may_count_otherwise(tmp_path, first, second, box, bounds):
    values = hills(180, 360)
    write_nc(tmp_path / "from180.nc", values)
    write_nc(tmp_path / "from0.nc", np.roll(values, 180, axis=1), west=0.0)
    both = np.concatenate([values, values], axis=1)
    write_nc(tmp_path / "part.nc", both[80:120, 350:370], west=170.0, north=10.0)
    write_nc(tmp_path / "west.nc", values[80:120, :30], north=10.0)
    words = ("--bbox=" + box,) if box else ()
    shown, _ = plotted(first, "a.png", "--beside", second, *words, cwd=tmp_path)
    assert shown["bounds"] == bounds
    assert shown["difference"]["largest"] == 0
    assert shown["difference"]["how"] == "cell by cell"


def test_another_projection_is_brought_along(tmp_path):
    flat = np.full((200, 200), 500.0, np.float32)
    write_tif(tmp_path / "utm.tif", flat, west=500_000.0, north=5_300_000.0, cell=100.0, crs="EPSG:32632")
    write_tif(tmp_path / "deg.tif", np.full((60, 60), 480, np.float32), west=9.02, north=47.83, cell=1 / 400)
    shown, _ = plotted("deg.tif", "both.png", "--beside", "utm.tif", cwd=tmp_path)
    assert "EPSG:32632" in shown["difference"]["how"]
    assert shown["difference"]["mean"] == pytest.approx(-20, abs=1e-3)


def test_rasters_of_other_places_are_refused(tmp_path):
    write_tif(tmp_path / "a.tif", hills())
    write_tif(tmp_path / "b.tif", hills(), west=20.0)
    done = call_cli("plot", "a.tif", "both.png", "--beside", "b.tif", cwd=tmp_path)
    assert done.returncode == 2
    assert "do not overlap" in done.stderr
    assert "20" in done.stderr
    assert not (tmp_path / "both.png").exists()


def test_values_between_cells_ignore_voids_without_weight():
    coarse, fine = Grid(0, 4, 1, 1, 4, 4), Grid(0, 4, 0.5, 0.5, 8, 8)
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    values[0, 0] = np.nan
    there, _ = brought_onto(values, coarse, fine, "c")
    assert np.isnan(there[:2, :2]).all()
    # Every cell but those between the void and its neighbours.
    assert np.isnan(there).sum() == 9
    same, how = brought_onto(values, coarse, coarse, "c")
    assert how == "cell by cell"
    np.testing.assert_array_equal(same, values)
    beyond, _ = brought_onto(values, coarse, Grid(-2, 4, 0.5, 0.5, 8, 8), "c")
    assert np.isnan(beyond[:, :4]).all()


# Classes


@pytest.mark.parametrize("name", ["maps.zarr", "maps.nc", "maps.zarr:land_use"])
def test_a_store_of_years_is_drawn_in_the_colours_of_its_classes(store, tmp_path, name):
    shown, heard = plotted(store / name, "o.png", cwd=tmp_path)
    assert heard == ""
    assert (shown["kind"], shown["years"]) == ("classes", list(YEARS))
    assert [entry["name"] for entry in shown["classes"]] == ["urban", "forest"]
    for entry in shown["classes"]:
        assert share(tmp_path / "o.png", entry["colour"]) > 0.02
    assert share(tmp_path / "o.png", "#f4c542") == 0  # cropland occurs nowhere, nor does its legend
    assert share(tmp_path / "o.png", "#dcdcdc") > 0.002


def test_a_map_of_one_year_has_names_and_colours_of_its_file(store, tmp_path):
    shown, _ = plotted(store / "maps_1993.tif", cwd=tmp_path)
    assert (shown["output"], shown["years"]) == ("maps_1993.png", [1993])
    assert [(entry["code"], entry["name"]) for entry in shown["classes"]] == [(11, "urban"), (40, "forest")]
    plotted(store / "maps_1990.tif", cwd=tmp_path)
    red = [share(tmp_path / f"maps_{year}.png", "#d7191c") for year in (1990, 1993)]
    assert red[1] > red[0] * 1.3


def test_names_come_from_the_file_beside_and_colours_from_the_table(tmp_path):
    codes = np.array([[1, 2], [2, 3]], np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    path = write_tif(tmp_path / "own.tif", codes, units=None, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (10, 20, 30, 255), 2: (200, 0, 0, 255), 3: (0, 0, 200, 255)})
    names = "<Category></Category><Category>bog &amp; fen</Category><Category>heath</Category><Category>dune</Category>"
    (tmp_path / "own.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    shown, heard = plotted("own.tif", cwd=tmp_path)
    assert heard == ""
    assert [entry["name"] for entry in shown["classes"]] == ["bog & fen", "heath", "dune"]
    assert shown["classes"][1]["colour"] == "#c80000"
    assert share(tmp_path / "own.png", "#c80000") > 0.1


def test_codes_that_nobody_explains_are_said_to_be_so(tmp_path):
    codes = np.array([[3, 9], [9, 200]], np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    write_tif(tmp_path / "codes.tif", codes, units=None, nodata=0)
    shown, heard = plotted("codes.tif", cwd=tmp_path)
    assert "does not say what its codes stand for" in heard
    assert [entry["name"] for entry in shown["classes"]] == ["code 3", "code 9", "code 200"]
    write_tif(tmp_path / "hilda.tif", np.where(codes == 3, 11, 44).astype(np.uint8), units=None, nodata=0)
    shown, heard = plotted("hilda.tif", cwd=tmp_path)
    assert "HILDA+" in heard
    assert [entry["name"] for entry in shown["classes"]] == ["urban", "forest"]


def test_colours_that_are_those_of_hilda_bring_its_names(tmp_path):
    """A table of colours alone, as some archives have it."""
    codes = np.array([[11, 40], [40, 77]], np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    own = {code: entry.colour for entry in HILDA_PLUS.classes for code in entry.codes}
    for name, change in (("same", {}), ("other", {40: "#000001"})):
        path = write_tif(tmp_path / f"{name}.tif", codes, units=None, nodata=255)
        with rasterio.open(path, "r+") as file:
            tints = {code: bytes.fromhex(colour[1:]) for code, colour in {**own, **change}.items()}
            file.write_colormap(1, {code: (*tint, 255) for code, tint in tints.items()})
        shown, heard = plotted(f"{name}.tif", cwd=tmp_path)
        names = [entry["name"] for entry in shown["classes"]]
        if name == "same":
            assert (names, heard) == (["urban", "forest", "water"], "")
        else:
            assert names == ["code 11", "code 40", "code 77"]
            assert "no names of classes" in heard


def test_years_are_chosen_and_those_that_are_not_there_refused(store, tmp_path):
    shown, _ = plotted(store / "maps.zarr", "o.png", "--years", "1995,1990", cwd=tmp_path)
    assert shown["years"] == [1990, 1995]
    for words, message in (
        (["--years", "1990,1992"], "no map of 1992; it has 1990 to 1991, 1993, 1995"),
        (["--years", "soon"], "--years is 'soon'"),
        (["--contours", "50"], "--contours is for elevation"),
        (["--beside", store / "maps.nc"], "--beside is for elevation"),
    ):
        done = call_cli("plot", store / "maps.zarr", "no.png", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"]


def test_many_years_become_nine_spread_evenly(tmp_path):
    years = tuple(range(1900, 2001, 5))
    spec = MapsSpec(GRID, "EPSG:4326", years, HILDA_PLUS, (30, 40))
    create_maps(tmp_path / "long.zarr", spec, {})
    maps = open_maps(tmp_path / "long.zarr")
    for year in years:
        maps.write("land_use", year, Window(0, 0, 30, 40), class_map(1990))
    maps.finish({})
    shown, _ = plotted("long.zarr", cwd=tmp_path)
    assert len(shown["years"]) == 9
    assert (shown["years"][0], shown["years"][-1]) == (1900, 2000)
    done = call_cli("plot", "long.zarr", "o.png", "--years", ",".join(map(str, years)), cwd=tmp_path)
    assert done.returncode == 2
    assert ".gif" in done.stderr


def test_an_animation_has_a_picture_for_each_year(store, tmp_path):
    plotted(store / "maps.zarr", "maps.gif", cwd=tmp_path)
    with Image.open(tmp_path / "maps.gif") as film:
        assert film.n_frames == len(YEARS)
        seen = []
        for number in range(film.n_frames):
            film.seek(number)
            frame = np.asarray(film.convert("RGB"))
            seen.append((frame == [0xD7, 0x19, 0x1C]).all(axis=-1).sum())
    assert sorted(seen) == seen
    assert seen[-1] > seen[0] > 0
    done = call_cli("plot", store / "maps_1990.tif", "one.gif", cwd=tmp_path)
    assert done.returncode == 2
    assert "one map" in done.stderr


def test_a_film_needs_ffmpeg_and_is_written_by_it(store, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match=r"ffmpeg.*maps\.gif"):
        earthsr.plot(store / "maps.zarr", tmp_path / "maps.mp4")
    assert not list(tmp_path.iterdir())
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\n/bin/cat > "$last"\n')
    os.chmod(program, stat.S_IRWXU)
    earthsr.plot(store / "maps.zarr", tmp_path / "maps.mp4", size=200)
    film = (tmp_path / "maps.mp4").stat().st_size
    earthsr.plot(store / "maps.zarr", tmp_path / "half.mp4", size=200, years=YEARS[:2])
    assert film == 2 * (tmp_path / "half.mp4").stat().st_size  # raw pictures, of one size


def test_areas_are_those_of_the_sphere_over_all_cells(store, tmp_path):
    shown, _ = plotted(store / "maps.nc", "o.png", "--areas", cwd=tmp_path)
    for year in YEARS:
        expected = cell_areas(GRID)[class_map(year) == HILDA_PLUS.names.index("urban")].sum()
        assert shown["areas_km2"]["urban"][f"{year}_km2"] == pytest.approx(expected, rel=1e-9)
    text = call_cli("plot", store / "maps.nc", "p.png", "--areas", "--years", "1990", cwd=tmp_path).stdout
    urban = shown["areas_km2"]["urban"]["1990_km2"]
    assert f"{urban:,.1f}" in text
    plotted(store / "maps.zarr", "areas.csv", cwd=tmp_path)
    head, *lines = (tmp_path / "areas.csv").read_text().splitlines()
    assert head == "class,code,1990_km2,1991_km2,1993_km2,1995_km2"
    assert lines[0].startswith(f"urban,11,{urban:.3f},")


def test_areas_of_a_projection_are_those_of_its_cells(tmp_path):
    codes = np.full((10, 10), 11, np.uint8)
    write_tif(tmp_path / "c.tif", codes, west=5e5, north=5e6, cell=100.0, crs="EPSG:32632", units=None, nodata=0)
    with pytest.warns(EarthsrWarning, match="HILDA"):
        shown = earthsr.plot(tmp_path / "c.tif", tmp_path / "c.png", areas=True, size=150)
    assert shown["areas_km2"]["urban"] == {"area_km2": pytest.approx(1.0)}


def test_another_field_is_drawn_in_its_own_units(store, tmp_path):
    shown, _ = plotted(store / "maps.zarr:confidence", "--years", "1990", cwd=tmp_path)
    assert (shown["output"], shown["kind"], shown["units"]) == ("maps_confidence.png", "field", "1")
    assert shown["maximum"] == pytest.approx(0.5)
    warm = write_tif(tmp_path / "warm.tif", hills(), units="K")
    shown, _ = plotted(warm, cwd=tmp_path)
    assert (shown["kind"], shown["units"]) == ("field", "K")


# What is read


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_every_so_many_cells_of_a_file_are_those_of_the_whole(tmp_path, ascending, step):
    values = hills(180, 360)
    path = write_nc(tmp_path / "globe.nc", values, ascending=ascending)
    source = open_source(path)
    for window in (Window(0, 0, 180, 360), Window(11, 7, 50, 61)):
        there = sampled(source, window, step)
        part = values[window.row : window.row + window.rows, window.column : window.column + window.columns]
        np.testing.assert_array_equal(there, part[step // 2 :: step, step // 2 :: step])
    # Across the last column, in step with the first part.
    window = Window(20, 340, 40, 50)
    part = np.concatenate([values, values], axis=1)[20:60, 340:390]
    np.testing.assert_array_equal(sampled(source, window, step), part[step // 2 :: step, step // 2 :: step])
    source.close()


def test_sources_of_others_are_read_line_by_line():
    values = hills(50, 70)
    place = Georeference(0.0, 50.0, 1.0, 1.0, 50, 70)
    source = array_source(values, place)
    read, lines = source.read, []

    def counted(window):
        lines.append(window.rows * window.columns)
        return read(window)

    source.read = counted
    np.testing.assert_array_equal(sampled(source, Window(0, 0, 50, 70), 10), values[5::10, 5::10])
    assert sum(lines) <= 5 * 70


def test_a_geotiff_is_read_from_its_overviews(tmp_path):
    """Cells alternate; an overview of their mean has neither value."""
    values = np.where(np.add.outer(np.arange(256), np.arange(256)) % 2, 100, 200).astype(np.float32)
    path = write_tif(tmp_path / "o.tif", values, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    source = open_source(path)
    there = sampled(source, Window(0, 0, 256, 256), 4)
    source.close()
    assert there.shape == (64, 64)
    assert (there == 150).all()


def test_a_large_raster_is_drawn_from_few_of_its_cells(tmp_path, monkeypatch):
    from earthsr.geo.fields import FieldSource

    codes = np.tile(np.array([[11, 44], [33, 55]], np.uint8), (600, 900)).repeat(1, axis=0)
    lat, lon = 60 - (np.arange(1200) + 0.5) / 60, (np.arange(1800) + 0.5) / 60
    axes = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    flags = {"flag_values": np.array([11, 33, 44, 55], np.uint8), "flag_meanings": "urban pasture forest grass"}
    xarray.DataArray(codes, axes, ("lat", "lon"), "land_use", flags).to_dataset().to_netcdf(
        tmp_path / "large.nc", engine="h5netcdf"
    )
    cells, stored = [], FieldSource._stored

    def counted(self, *arguments):
        values = stored(self, *arguments)
        cells.append(values.size)
        return values

    monkeypatch.setattr(FieldSource, "_stored", counted)
    shown = earthsr.plot(tmp_path / "large.nc", tmp_path / "large.png", size=200)
    assert shown["cells_per_pixel"] == 9
    assert sum(cells) < 1.1 * codes.size / 81


def test_a_box_across_the_dateline_is_drawn_in_one_piece(tmp_path):
    values = hills(180, 360)
    write_nc(tmp_path / "globe.nc", values)
    shown, _ = plotted("globe.nc", "o.png", "--bbox=170,-20,-170,20", cwd=tmp_path)
    assert shown["bounds"] == [170, -20, 190, 20]
    part = np.concatenate([values[70:110, 350:], values[70:110, :10]], axis=1)
    assert shown["minimum"] == pytest.approx(part.min(), abs=0.01)
    assert shown["maximum"] == pytest.approx(part.max(), abs=0.01)


def test_the_band_that_is_named_is_taken_of_several(tmp_path):
    place = rasterio.transform.from_origin(WEST, NORTH, CELL, CELL)
    size = {"height": 40, "width": 60, "count": 2, "dtype": "float32"}
    with rasterio.open(tmp_path / "two.tif", "w", driver="GTiff", crs="EPSG:4326", transform=place, **size) as file:
        file.write(np.stack([np.zeros((40, 60), np.float32), hills()]))
        file.descriptions, file.units = ("spread", "elevation"), ("m", "m")
    shown, _ = plotted("two.tif", cwd=tmp_path)
    assert shown["minimum"] == pytest.approx(hills().min(), abs=0.01)
    with pytest.raises(DataError, match="2 bands"):
        open_layers(tmp_path / "two.tif")


def test_coordinates_have_their_letters():
    assert [longitude(x) for x in (-190, -170, 0, 7.5, 180, 190)] == ["170°E", "170°W", "0°", "7.5°E", "180°", "170°W"]
    assert [latitude(y) for y in (-30, 0, 45.25)] == ["30°S", "0°", "45.25°N"]


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.tif"], "absent.tif: no such file"),
        (["alps.tif", "o.jpg"], "'.jpg' is none of a picture; .png, .html, .gif, .mp4, .csv are"),
        (["alps.tif", "there.png"], "there.png is there already"),
        (["alps.tif", "o.gif"], "one map of elevation"),
        (["alps.tif", "o.csv"], "alps.tif holds none"),
        (["alps.tif", "o.png", "--areas"], "areas are those of classes"),
        (["alps.tif", "o.png", "--years", "1990"], "has no years"),
        (["alps.tif", "o.png", "--size", "5"], "--size is 5, expected 100"),
        (["alps.tif", "o.png", "--bbox", "1,2,3"], "--bbox is '1,2,3'"),
        (["alps.tif", "o.png", "--bbox", "50,10,60,20"], "lies outside the raster"),
        (["alps.tif", "o.png", "--beside", "absent.nc"], "absent.nc: no such file"),
        (["alps.tif", "o.png", "--beside", "warm.tif"], "units are 'K'"),
    ],
)
def test_wrong_words_leave_nothing(tmp_path, words, message):
    write_tif(tmp_path / "alps.tif", hills())
    write_tif(tmp_path / "warm.tif", hills(), units="K")
    (tmp_path / "there.png").write_bytes(b"mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = call_cli("plot", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error:") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_what_is_there_is_replaced_where_asked_and_an_input_never(tmp_path):
    write_tif(tmp_path / "alps.tif", hills())
    (tmp_path / "alps.png").write_bytes(b"mine")
    plotted("alps.tif", "--overwrite", cwd=tmp_path)
    assert pixels(tmp_path / "alps.png").size
    os.link(tmp_path / "alps.tif", tmp_path / "link.png")
    done = call_cli("plot", "alps.tif", "link.png", "--overwrite", cwd=tmp_path)
    assert done.returncode == 2
    assert "is the input" in done.stderr
    assert open_source(tmp_path / "alps.tif").georeference.rows == 40


def test_a_failure_while_drawing_leaves_what_was_there(tmp_path, monkeypatch):
    write_tif(tmp_path / "alps.tif", hills())
    (tmp_path / "alps.png").write_bytes(b"mine")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.image.imsave", fail)
    with pytest.raises((InputError, OSError)):
        earthsr.plot(tmp_path / "alps.tif", tmp_path / "alps.png", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alps.png", "alps.tif"]
    assert (tmp_path / "alps.png").read_bytes() == b"mine"


class Echo:
    """A workload of somebody's own, which draws rasters of decibels."""

    title, variables = "sound", ("loudness",)

    def draws(self, source):
        return source.georeference.units == "dB"

    def draw(self, source, request):
        from earthsr.evaluation.figures import new_figure
        from earthsr.evaluation.maps import Drawing, view_of, window_of

        grid = source.georeference
        view = view_of(grid, window_of(grid, request.bbox), request.size)
        return Drawing("sound", view.facts(), lambda: iter([new_figure(2, 2)]))


def test_a_workload_of_ones_own_draws_its_rasters(tmp_path, monkeypatch):
    import earthsr.drawing

    write_tif(tmp_path / "loud.tif", hills(), units="dB")
    write_tif(tmp_path / "alps.tif", hills())
    monkeypatch.setattr(earthsr.drawing, "installed_workloads", lambda: {"echo": Echo()})
    assert earthsr.plot(tmp_path / "loud.tif", tmp_path / "loud.png")["kind"] == "sound"
    assert pixels(tmp_path / "loud.png").shape == (220, 220, 3)
    with pytest.raises(InputError, match=r"alps\.tif: holds values in m.*sound"):
        earthsr.plot(tmp_path / "alps.tif", tmp_path / "alps.png")


# What is written says what it is


def test_info_says_what_codes_stand_for(store):
    told = json.loads(call_cli("info", store / "maps.zarr", "--json").stdout)
    assert (told["field"], told["years"]) == ("maps.zarr: land_use", "1990 to 1991, 1993, 1995")
    assert told["classes"][0] == "11 urban"
    assert json.loads(call_cli("info", store / "maps_1990.tif", "--json").stdout)["classes"][0] == "11 urban"


def test_units_and_voids_may_be_given(tmp_path):
    values = hills()
    values[2:4, 5:9] = -777
    write_tif(tmp_path / "hills.tif", values, units="")
    with pytest.warns(EarthsrWarning, match="metres are assumed"):
        earthsr.plot(tmp_path / "hills.tif", tmp_path / "assumed.png", size=200, nodata=-777)
    done = call_cli(
        "plot",
        tmp_path / "hills.tif",
        tmp_path / "said.png",
        *SMALL,
        "--units",
        "m",
        "--nodata",
        -777,
        "--json",
        check=0,
    )
    drawn = json.loads(done.stdout)
    assert done.stderr == ""
    assert drawn["drawn_without_value"] == 8
    assert drawn["minimum"] == pytest.approx(float(hills().min()))


def test_info_describes_files_of_several_fields_class_tables_and_reports(tmp_path):
    states = {
        name: (("time", "lat", "lon"), np.zeros((3, 4, 5), np.float32), {"units": "1"}) for name in ("c3ann", "urban")
    }
    axes = {"lat": 50 - np.arange(4.0), "lon": 5 + np.arange(5.0)}
    made = xarray.Dataset(states, axes)
    made["lat_bnds"] = (("lat", "bnds"), np.zeros((4, 2)))  # no field
    made.lat.attrs["units"], made.lon.attrs["units"] = "degrees_north", "degrees_east"
    made.to_netcdf(tmp_path / "states.nc", engine="h5netcdf")
    made[["urban", "lat_bnds"]].to_netcdf(tmp_path / "urban.nc", engine="h5netcdf")
    assert json.loads(call_cli("info", tmp_path / "urban.nc", "--json", check=0).stdout)["kind"] == "raster"
    told = json.loads(call_cli("info", tmp_path / "states.nc", "--json", check=0).stdout)
    assert (told["kind"], sorted(told["fields"])) == ("fields", ["c3ann", "urban"])
    assert told["fields"]["c3ann"] == {
        "dimensions": {"time": 3, "lat": 4, "lon": 5},
        "units": "1",
        "meaning": "not said",
    }
    assert told["one_of_them"].endswith("states.nc:c3ann")
    (tmp_path / "classes.yaml").write_text(
        "name: mine\nnodata_codes: [0]\nclasses:\n"
        "- {name: forest, codes: [1, 2], colour: '#00ff00', forcing: [primf]}\n"
        "- {name: water, codes: [3], colour: '#0000ff'}\n"
    )
    told = json.loads(call_cli("info", tmp_path / "classes.yaml", "--json", check=0).stdout)
    assert (told["kind"], told["classes"]) == ("class table", ["1/2 forest", "3 water"])
    assert told["forcing"] == {"forest": ["primf"], "water": "none"}
    (tmp_path / "metrics.json").write_text('{"task": "dem_sr", "scores": {"model": {"rmse": 2.5}}, "lattice": {}}')
    told = json.loads(call_cli("info", tmp_path / "metrics.json", "--json", check=0).stdout)
    assert (told["kind"], told["scores"]["model"]["rmse"]) == ("report", 2.5)
    assert told["keys"] == ["task", "scores", "lattice"]
    (tmp_path / "broken.json").write_text("{")
    refused = call_cli("info", tmp_path / "broken.json")
    assert refused.returncode == 2
    assert "broken.json: is no JSON that can be read" in refused.stderr

"""The accessor of xarray's arrays draws and enlarges them as files are."""

import io

import numpy as np
import pytest

import earthsr
from earthsr.errors import DataError, InputError
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.maps import MapsSpec, create_maps, open_maps

xarray = pytest.importorskip("xarray")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("earthsr.xarray")

YEARS = (1990, 1991, 1993)


def pixels(png):
    with Image.open(png) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def hills(rows=40, columns=60):
    field = np.random.default_rng(0).normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1)
    values = (900 + 300 * (field - field.mean()) / field.std()).astype(np.float32)
    values[3:6, 4:9] = np.nan
    lat, lon = 48 - (np.arange(rows) + 0.5) / 60, 6 + (np.arange(columns) + 0.5) / 60
    axes = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    return xarray.DataArray(values, axes, ("lat", "lon"), "elevation", {"units": "m"})


@pytest.fixture
def maps(tmp_path):
    """A store of maps: urban in the north, more of it with the years, forest south of it."""
    grid = Grid(5.0, 50.0, 1 / 10, 1 / 10, 30, 40)
    create_maps(tmp_path / "maps.zarr", MapsSpec(grid, "EPSG:4326", YEARS, HILDA_PLUS, (30, 40)), {})
    made = open_maps(tmp_path / "maps.zarr")
    for year in YEARS:
        classes = np.full((30, 40), HILDA_PLUS.names.index("forest"), np.uint8)
        classes[: 5 + year - 1990] = HILDA_PLUS.names.index("urban")
        made.write("land_use", year, Window(0, 0, 30, 40), classes)
    made.finish({})
    return tmp_path / "maps.zarr"


def test_an_array_is_drawn_as_its_file_is(tmp_path):
    array = hills()
    array.to_dataset().to_netcdf(tmp_path / "hills.nc", engine="h5netcdf")
    shown = earthsr.plot(tmp_path / "hills.nc", tmp_path / "file.png", size=400, contours=200)
    drawn = array.earthsr.plot(tmp_path / "array.png", size=400, contours=200)
    same = ("kind", "cells", "minimum", "maximum", "drawn_without_value")
    assert {key: drawn[key] for key in same} == {key: shown[key] for key in same}
    ours, theirs = pixels(tmp_path / "array.png"), pixels(tmp_path / "file.png")
    title = 40  # where the names differ
    np.testing.assert_array_equal(ours[title:], theirs[title:])


def test_a_notebook_shows_the_figure():
    figure = hills().earthsr.plot(size=300)
    image = pixels(io.BytesIO(figure._repr_png_()))
    assert 300 < image.shape[1] < 600  # a map of 300 pixels, its axes and its colour bar
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500
    with pytest.raises(InputError, match="--size is 30"):
        hills().earthsr.plot(size=30)


def test_classes_of_years_are_drawn_in_their_colours(maps, tmp_path):
    array = xarray.open_zarr(maps).land_use
    drawn = array.earthsr.plot(tmp_path / "maps.png", size=600)
    shown = earthsr.plot(maps, tmp_path / "file.png", size=600)
    assert drawn["kind"] == "classes"
    assert drawn["years"] == list(YEARS)
    np.testing.assert_allclose(drawn["bounds"], shown["bounds"])
    differ = {"output", "source", "bounds"}
    assert {key: drawn[key] for key in drawn if key not in differ} == {
        key: shown[key] for key in shown if key not in differ
    }
    figure = array.sel(time=array.time.dt.year == 1993).earthsr.plot()
    assert "1993" in figure.get_suptitle() or any("1993" in axes.get_title() for axes in figure.axes)
    assert array.earthsr.plot(tmp_path / "maps.gif", size=200)["output"].endswith("maps.gif")
    table = array.earthsr.plot(tmp_path / "areas.csv")
    assert (tmp_path / "areas.csv").read_text().count("\n") == len(drawn["classes"]) + 1, table


def test_an_array_may_become_a_page(maps, tmp_path):
    pytest.importorskip("bokeh")
    drawn = xarray.open_zarr(maps).land_use.earthsr.plot(tmp_path / "page.html", size=200)
    assert drawn["layers"] == ["Classes", "Change since 1990"]
    assert "urban" in (tmp_path / "page.html").read_text()


def test_what_is_no_map_is_refused():
    with pytest.raises(DataError, match="expected"):
        xarray.DataArray(np.zeros((4, 5)), dims=("a", "b")).earthsr.plot()


def test_units_and_voids_that_the_array_does_not_have_may_be_given(tmp_path):
    array = hills().fillna(-777).assign_attrs(units="")
    drawn = array.earthsr.plot(tmp_path / "hills.png", units="m", nodata=-777, size=200)
    assert drawn["kind"] == "elevation"
    assert drawn["minimum"] == pytest.approx(float(hills().min()))
    assert drawn["drawn_without_value"] == 15


def test_an_array_is_enlarged(any_backend):
    model = earthsr.from_pretrained("demo-dem", backend=any_backend)
    array = hills()
    array = array.assign_coords(lat=48 - (array.lat - 48) / -4, lon=6 + (array.lon - 6) / 4)  # 15 arc-seconds
    fine = array.earthsr.predict(model)
    assert fine.sizes == {"lat": 200, "lon": 300}
    xarray.testing.assert_identical(fine, earthsr.predict(model, array))

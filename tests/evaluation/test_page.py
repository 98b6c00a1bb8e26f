"""Pages of maps: what is in the one file, and what it does in a real browser.

A page is right if it opens without a network and without an error, if the slider changes the picture, if what it says
of a place and of a coarse cell is what the raster has, and if a phone and a keyboard are enough to use it.
"""

import base64
import json
import re
import zlib
from contextlib import contextmanager

import numpy as np
import pytest

import earthsr
from earthsr.errors import DataError, InputError
from earthsr.evaluation.page.layers import pack_classes, pack_values
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.class_areas import cell_areas
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.maps import MapsSpec, create_maps, open_maps
from tests.conftest import call_cli, watched

pytest.importorskip("bokeh")
rasterio = pytest.importorskip("rasterio")
xarray = pytest.importorskip("xarray")

GRID = Grid(5.0, 50.0, 1 / 20, 1 / 20, 40, 60)
YEARS = (1990, 1991, 1993, 1995)
ANCHOR = 1991
URBAN, FOREST = (HILDA_PLUS.names.index(name) for name in ("urban", "forest"))


def class_map(year):
    """Urban in the north, more of it with the years, forest south of it; a corner without a class."""
    classes = np.full((GRID.rows, GRID.columns), FOREST, np.uint8)
    classes[: 5 + 3 * (year - 1990)] = URBAN
    classes[-6:, :8] = 255
    return classes


def write_scenario(path):
    """Shares in cells of 0.25 degrees, 5 x 5 of the maps' cells; of the first coarse cell they say too little urban."""
    urban = np.stack([(class_map(year) == URBAN).reshape(8, 5, 12, 5).mean(axis=(1, 3)) for year in YEARS])
    forest = np.stack([(class_map(year) == FOREST).reshape(8, 5, 12, 5).mean(axis=(1, 3)) for year in YEARS])
    urban[:, 0, 0], forest[:, 0, 0] = 0.6, 0.4
    axes = {
        "time": ("time", [np.datetime64(f"{year}-01-01") for year in YEARS]),
        "lat": ("lat", 50 - 0.25 * (np.arange(8) + 0.5), {"units": "degrees_north"}),
        "lon": ("lon", 5 + 0.25 * (np.arange(12) + 0.5), {"units": "degrees_east"}),
    }
    fields = {"urban": urban, "forest": forest}
    xarray.Dataset(
        {name: (("time", "lat", "lon"), values.astype("f4"), {"units": "1"}) for name, values in fields.items()}, axes
    ).to_netcdf(path, engine="h5netcdf", encoding={"time": {"units": "days since 1850-01-01"}})


def write_tif(path, values, grid):
    place = rasterio.transform.from_origin(grid.west, grid.north, grid.cell_x, grid.cell_y)
    size = {"height": grid.rows, "width": grid.columns, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:4326", transform=place, nodata=-9999, **size) as file:
        file.write(values.astype("f4"), 1)
        file.units = ("m",)


def heights(grid):
    y, x = np.mgrid[0 : grid.rows, 0 : grid.columns]
    return (400 + 300 * np.sin(x / 7) * np.cos(y / 5)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    spec = MapsSpec(GRID, "EPSG:4326", YEARS, HILDA_PLUS, (40, 60), ("land_use", "confidence"))
    create_maps(folder / "maps.zarr", spec, {})
    maps = open_maps(folder / "maps.zarr")
    for number, year in enumerate(YEARS):
        maps.write("land_use", year, Window(0, 0, 40, 60), class_map(year))
        sure = np.full((40, 60), 0.5 + 0.1 * number, np.float32)
        sure[class_map(year) == 255] = np.nan
        maps.write("confidence", year, Window(0, 0, 40, 60), sure)
    maps.finish({"provenance": {"anchor_year": ANCHOR}, "title": "Maps of <b>nowhere</b>"})
    write_scenario(folder / "scenario.nc")
    write_tif(folder / "fine.tif", heights(GRID), GRID)
    coarse = Grid(GRID.west, GRID.north, 1 / 4, 1 / 4, 8, 12)
    write_tif(folder / "coarse.tif", heights(GRID).reshape(8, 5, 12, 5).mean(axis=(1, 3)), coarse)
    done = call_cli(
        *("plot", folder / "maps.zarr", folder / "maps.html", "--json"),
        *("--scenario", folder / "scenario.nc", "--relief", folder / "fine.tif"),
        check=0,
    )
    (folder / "facts.json").write_text(done.stdout)
    done = call_cli("plot", folder / "fine.tif", folder / "dem.html", "--beside", folder / "coarse.tif", check=0)
    return folder


def data_of(path):
    """What a page's script reads, and its blobs."""
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.S)[1])
    blobs = [
        zlib.decompress(base64.b64decode(blob))
        for blob in re.findall(r'<script type="text/plain" id="blob-\d+">(.*?)</script>', text)
    ]
    return data, blobs


# The file


def test_maps_come_back_from_what_is_packed():
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 7, (9, 11), dtype=np.uint8) for _ in range(20)]
    packed = pack_classes(maps)
    whole = [np.frombuffer(zlib.decompress(chunk), np.uint8).reshape(9, 11) for chunk in packed.chunks]
    assert [number for number, key in enumerate(packed.keys) if key is None] == [0, 16]
    for number, key in enumerate(packed.keys):
        np.testing.assert_array_equal(whole[number] if key is None else whole[number] ^ whole[key], maps[number])


@pytest.mark.parametrize(("bits", "step"), [(8, 0.01), (16, 0.001)])
def test_values_come_back_to_the_step_that_they_are_rounded_to(bits, step):
    values = np.random.default_rng(1).random((9, 11)).astype(np.float32)
    values[3, 4:6] = np.nan
    (chunk,) = pack_values([values], 0.0, step, bits).chunks
    stored = np.frombuffer(zlib.decompress(chunk), np.uint8)
    if bits == 16:
        stored = stored[:99].astype(np.uint16) << 8 | stored[99:]
    numbers = np.cumsum(stored.reshape(9, 11), axis=1) % 2**bits
    void = numbers == 2**bits - 1
    np.testing.assert_array_equal(void, np.isnan(values))
    np.testing.assert_allclose(numbers[~void] * step, values[~void], atol=step / 2 + 1e-6)


def test_a_page_is_one_file_that_asks_for_nothing(files):
    text = (files / "maps.html").read_text(encoding="utf-8")
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""(?:src|href)=(?!["']data:)""", ours)
    assert "<b>nowhere" not in ours
    assert len(text) < 2_000_000
    assert {path.name for path in files.glob("maps*")} == {"maps.html", "maps.zarr"}


def test_a_page_holds_years_layers_anchor_and_areas(files):
    data, blobs = data_of(files / "maps.html")
    assert (data["frames"], data["anchor"]) == ([str(year) for year in YEARS], YEARS.index(ANCHOR))
    assert [layer["name"] for layer in data["layers"]] == ["classes", "confidence", "change", "scenario"]
    names = [entry["name"] for entry in data["layers"][0]["classes"]]
    assert names == ["urban", "forest"]
    areas = cell_areas(GRID)
    for name, line in zip(names, data["curves"]["whole"]["map"], strict=True):
        wanted = [areas[class_map(year) == HILDA_PLUS.names.index(name)].sum() for year in YEARS]
        np.testing.assert_allclose(line, wanted, atol=0.06)
    scenario = data["layers"][3]
    numbers = np.frombuffer(blobs[scenario["blobs"][0]], np.uint8)
    count = len(numbers) // 2
    steps = (numbers[:count].astype(np.uint16) << 8 | numbers[count:]).reshape(-1, scenario["columns"])
    apart = np.cumsum(steps, axis=1) % 65536
    west, _, _, north = scenario["bounds"]
    place = round((north - GRID.north) / 0.25), round((GRID.west - west) / 0.25)
    assert apart[place] * scenario["step"] == pytest.approx(40, abs=0.1)
    assert apart[place[0] + 2, place[1] + 3] * scenario["step"] == pytest.approx(0, abs=0.1)
    assert json.loads((files / "facts.json").read_text())["layers"][-1] == "Scenario against maps"


def test_a_raster_without_years_has_a_page_without_a_slider(tmp_path):
    write_tif(tmp_path / "a.tif", heights(GRID), GRID)
    earthsr.plot(tmp_path / "a.tif", tmp_path / "a.html")
    data, _ = data_of(tmp_path / "a.html")
    assert (data["frames"], data["years"], len(data["shade"])) == (["a.tif"], None, 1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["maps.zarr", "o.png", "--relief", "fine.tif"], ["--relief", ".html"]),
        (["maps.zarr", "o.html", "--scenario", "fine.tif"], ["fine.tif"]),
        (["maps.zarr", "o.html", "--relief", "absent.tif"], ["absent.tif: no such file"]),
        (["fine.tif", "o.html", "--relief", "fine.tif"], ["--relief", "fine.tif"]),
        (["fine.tif", "o.html", "--contours", "20"], ["--contours", ".png"]),
        (["fine.tif", "o.png", "--beside", "coarse.tif", "--beside", "coarse.tif"], ["2 rasters", ".html"]),
        (["maps.zarr:confidence", "o.html", "--scenario", "scenario.nc"], ["--scenario", "confidence"]),
    ],
)
def test_what_a_page_cannot_show_is_named_and_nothing_is_left(files, words, wanted):
    done = call_cli("plot", *words, cwd=files)
    assert done.returncode == 2
    for part in wanted:
        assert part in done.stderr
    assert not list(files.glob("o.*"))


def test_without_bokeh_the_message_says_what_to_install(files, monkeypatch):
    monkeypatch.setattr("earthsr.evaluation.page.write.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"earthsr\[page\].*fine\.png"):
        earthsr.plot(files / "fine.tif", files / "fine.html")


# In a browser


@contextmanager
def opened(browser, path, *view):
    """A page of maps that has been drawn."""
    with watched(browser, *view) as page:
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60000)
        yield page


@pytest.fixture(scope="module")
def wide(files, chromium):
    """The page of maps, opened once; tests move its slider to where they begin."""
    with opened(chromium, files / "maps.html") as view:
        assert view.inner_text("#now") == str(ANCHOR)
        yield view


def colours(view):
    """Pixels of the map's middle, away from its axes."""
    from io import BytesIO

    from PIL import Image

    box = view.locator("#map").bounding_box()
    clip = {key: box[key] + box[size] / 4 for key, size in (("x", "width"), ("y", "height"))}
    clip |= {size: box[size] / 2 for size in ("width", "height")}
    with Image.open(BytesIO(view.screenshot(clip=clip))) as image:
        return np.asarray(image.convert("RGB"))


def slide(view, value):
    view.locator("#frame").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", str(value))
    view.wait_for_function("(v) => document.documentElement.dataset.painted.split(',')[1] === v", arg=str(value))


def near(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(pixels.astype(int) - wanted).max(axis=-1) <= 2).mean()


def reading(view, dx=0.5, dy=0.5):
    """Put the pointer on the map; what is read there, with latitude and longitude in degrees."""
    box = view.locator("#map").bounding_box()
    view.mouse.move(box["x"] + box["width"] * dx, box["y"] + box["height"] * dy)
    view.wait_for_function("document.getElementById('reading').textContent.includes('°')")
    text = view.inner_text("#reading")
    lat, lon = (float(number) for number in re.match(r"([\d.]+)°N ([\d.]+)°E", text).groups())
    return text, lat, lon


@pytest.mark.slow
def test_the_slider_changes_the_picture_to_that_of_its_year(wide):
    view = wide
    view.uncheck("#shade")
    urban = {}
    for number in (0, 3):
        slide(view, number)
        urban[number] = near(colours(view), HILDA_PLUS.colours[URBAN])
        assert view.inner_text("#now") == str(YEARS[number])
    assert urban[0] < urban[3] - 0.1
    view.click("#play")
    view.wait_for_function("document.getElementById('now').textContent === '1991'")
    view.click("#play")
    view.check("#shade")


@pytest.mark.slow
def test_layers_are_painted_and_values_are_the_rasters(wide):
    view = wide
    slide(view, 3)
    for dy in (0.25, 0.75):
        text, lat, lon = reading(view, dy=dy)
        row, column = int((GRID.north - lat) / GRID.cell_y), int((lon - GRID.west) / GRID.cell_x)
        index = class_map(YEARS[3])[row, column]
        assert HILDA_PLUS.names[index] in text
        assert "confidence 0.80" in text
        if index != class_map(ANCHOR)[row, column]:
            assert "was forest in 1991" in text
    pictures = []
    for number in range(4):
        view.select_option("#layer", str(number))
        view.wait_for_timeout(150)
        pictures.append(colours(view).tobytes())
    assert len(set(pictures)) == 4
    view.select_option("#layer", "0")


@pytest.mark.slow
def test_a_click_gives_the_areas_of_the_coarse_cell(wide):
    view = wide
    slide(view, 1)
    _, lat, lon = reading(view, dx=0.4, dy=0.3)
    box = view.locator("#map").bounding_box()
    view.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.3)
    view.wait_for_function("document.getElementById('where').textContent.includes('coarse cell')")
    row, column = int((50 - lat) / 0.25) * 5, int((lon - 5) / 0.25) * 5
    cell = class_map(YEARS[1])[row : row + 5, column : column + 5]
    weights = cell_areas(GRID)[row : row + 5, column : column + 5]
    wanted = 100 * weights[cell == FOREST].sum() / weights.sum()
    line = re.search(r"forest\s+([\d.]+) %\s+([\d.]+) %", view.inner_text("#legend"))
    assert float(line[1]) == pytest.approx(wanted, abs=0.1)
    assert float(line[2]) == pytest.approx(wanted, abs=0.3)
    view.click("#everything")
    assert view.inner_text("#where") == "Areas in the whole map"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maps", "dem"])
def test_a_phone_and_the_dark_are_enough(files, chromium, name):
    with opened(chromium, files / f"{name}.html", 390, 844, "dark") as view:
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60
        for name in ("#play", "#frame", "#layer", "#map"):
            box = view.locator(name).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
        assert view.locator("#play").bounding_box()["height"] >= 44
        assert view.locator("#map").bounding_box()["height"] >= 200


@pytest.mark.slow
def test_a_keyboard_is_enough(wide):
    view = wide
    view.keyboard.press("Tab")
    for _ in range(12):
        if view.evaluate("document.activeElement.id") == "frame":
            break
        view.keyboard.press("Tab")
    view.keyboard.press("End")
    assert view.inner_text("#now") == "1995"
    view.focus("#map")
    before = colours(view)
    view.keyboard.press("+")
    view.keyboard.press("ArrowUp")
    view.wait_for_timeout(200)
    assert (colours(view) != before).any()
    view.keyboard.press("[")
    assert view.inner_text("#now") == "1993"
    view.keyboard.press("Enter")
    view.wait_for_function("document.getElementById('where').textContent.includes('coarse cell')")
    view.keyboard.press("0")
    assert "°N" in view.inner_text("#reading")


@pytest.mark.slow
def test_rasters_of_elevation_pass_into_each_other(files, chromium):
    with opened(chromium, files / "dem.html") as view:
        first = colours(view)
        slide(view, 1)
        second = colours(view)
        slide(view, 0.5)
        between = colours(view)
        assert "50 %" in view.inner_text("#now")
        assert len({first.tobytes(), second.tobytes(), between.tobytes()}) == 3
        slide(view, 0)
        text, lat, lon = reading(view)
        row, column = int((GRID.north - lat) / GRID.cell_y), int((lon - GRID.west) / GRID.cell_x)
        shown = float(re.search(r"elevation ([\d.]+) m", text)[1])
        assert shown == pytest.approx(heights(GRID)[row, column], abs=0.02)


def test_what_no_scenario_covers_is_refused(files, tmp_path):
    whole = xarray.open_dataset(files / "scenario.nc", engine="h5netcdf").load()
    whole.assign_coords(lon=whole.lon + 90).to_netcdf(tmp_path / "far.nc", engine="h5netcdf")
    with pytest.raises((InputError, DataError), match=r"far\.nc"):
        earthsr.plot(files / "maps.zarr", tmp_path / "o.html", scenario=tmp_path / "far.nc")
    assert not (tmp_path / "o.html").exists()


def test_a_relief_that_is_no_elevation_is_refused(files, tmp_path):
    write_tif(tmp_path / "warm.tif", heights(GRID), GRID)
    with rasterio.open(tmp_path / "warm.tif", "r+") as file:
        file.units = ("K",)
    with pytest.raises(InputError, match=r"warm\.tif.*'K'"):
        earthsr.plot(files / "maps.zarr", tmp_path / "o.html", relief=tmp_path / "warm.tif")

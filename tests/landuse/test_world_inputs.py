"""What a reconstruction reads: windows anywhere, parts and other cells of the anchor, and inputs that do not fit."""

import concurrent.futures
import hashlib
import json

import numpy as np
import pytest
import xarray

from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.geo import Window as RasterWindow
from earthsr.geo.areas import aligned, sample
from earthsr.geo.geotiff import GdalSource
from earthsr.geo.grid import Grid, Window
from earthsr.landuse.classes import HILDA_PLUS, ClassTable
from earthsr.landuse.sources.rasters import ClassMaps
from earthsr.landuse.sources.statics import open_statics
from earthsr.landuse.sources.world_inputs import Inputs, open_world, output_grid, touched
from tests.cli.test_prepare_landuse import CODES, code_map, indices_of, states, write_nc, write_tif

#: 5 degrees, once around the Earth.
ROWS, COLUMNS = 36, 72
HIGH = np.random.default_rng(1).normal(500, 300, (ROWS, COLUMNS)).astype(np.float32)
HIGH[20:22, 70:] = np.nan
WINDOWS = [
    Window(0, 0, ROWS, COLUMNS),
    Window(3, 60, 9, 30),
    Window(-4, -7, 12, 20),
    Window(30, 65, 20, 80),
    Window(10, 700, 5, 9),
    Window(-20, 3, 10, 10),
    Window(36, 0, 4, 4),
    Window(5, -150, 3, 200),
]


def around(values, window, empty):
    """Cells of a global array in any window, one by one."""
    found = np.full((window[2], window[3]), empty, values.dtype)
    for i in range(window[2]):
        for j in range(window[3]):
            if 0 <= window[0] + i < values.shape[0]:
                found[i, j] = values[window[0] + i, (window[1] + j) % values.shape[1]]
    return found


def write_anchor(path, codes, **options):
    return write_tif(path, codes, **{"west": -180, "north": 90, "cell": 5, **options})


@pytest.fixture
def folder(tmp_path):
    """A globe: anchor of 2000, elevation, a forcing of one channel."""
    write_anchor(tmp_path / "anchor_2000.tif", code_map(7, ROWS, COLUMNS))
    write_anchor(tmp_path / "high.tif", HIGH, tags={"units": "m"})
    forcing = states(range(1999, 2002), west=-180.0, north=90.0, rows=18, columns=36, cell=10.0)
    write_nc(tmp_path / "states.nc", forcing[["urban"]])
    return tmp_path


@pytest.fixture
def opened(folder):
    worlds = []

    def work(*static, anchor=None, names=None, coarse_channels=("urban",), **options):
        names = [each.partition("=")[0].partition(":")[0] for each in static] if names is None else names
        anchor = str(anchor or folder / "anchor_2000.tif")
        inputs = Inputs(anchor, (folder / "states.nc",), static, **options)
        worlds.append(open_world(inputs, HILDA_PLUS, static_names=names, coarse_channels=coarse_channels))
        return worlds[-1]

    yield work
    for each in worlds:
        each.close()


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_anywhere(opened, folder, window):
    """Once around the Earth, and nothing beyond the poles; windows of both kinds do."""
    marks = (np.random.default_rng(3).random((ROWS, COLUMNS)) < 0.3).astype(np.uint8)
    write_anchor(folder / "parks.tif", marks)
    world = opened(f"elevation={folder / 'high.tif'}", "longitude", protected=[str(folder / "parks.tif")])
    codes = indices_of(code_map(7, ROWS, COLUMNS))
    window = RasterWindow(*window)
    np.testing.assert_array_equal(world.anchor(window), around(codes, window, 255))
    np.testing.assert_array_equal(world.protected(window), around(marks == 1, window, False))
    found = world.static(window)
    np.testing.assert_array_equal(found[0], around(HIGH, window, np.nan))
    longitudes = np.tile(np.arange(-177.5, 180, 5, np.float32), (ROWS, 1))
    np.testing.assert_array_equal(found[1], around(longitudes, window, np.nan))
    assert (world.anchor(window).dtype, found.dtype, world.protected(window).dtype) == (np.uint8, np.float32, bool)


def test_what_is_known_of_the_inputs(opened, folder):
    world = opened(f"elevation={folder / 'high.tif'}", "latitude")
    assert world.grid == Grid(-180, 90, 5, 5, ROWS, COLUMNS)
    assert world.crs == "EPSG:4326"
    assert world.table is HILDA_PLUS
    assert world.anchor_year == 2000
    assert [(each.name, each.units) for each in world.static_channels] == [
        ("elevation", "m"),
        ("latitude", "degrees_north"),
    ]
    assert world.scenario.years == (1999, 2000, 2001)
    assert world.scenario.grid.periodic
    assert not world.protected(Window(0, 0, 4, 4)).any()


def test_provenance_has_every_file_and_no_folder(opened, folder):
    write_anchor(folder / "parks.tif", np.zeros((ROWS, COLUMNS), np.uint8))
    static = ("slope", f"elevation={folder / 'high.tif'}")
    world = opened(*static, names=["slope"], protected=[str(folder / "parks.tif")], bbox=(0, 0, 40, 40))
    said = world.provenance
    found = [said["anchor"]["file"], *said["scenario"], *said["protected"], said["static"][1]["file"]]
    assert [each["name"] for each in found] == ["anchor_2000.tif", "states.nc", "parks.tif", "high.tif"]
    for each in found:
        content = (folder / each["name"]).read_bytes()
        assert each["bytes"] == len(content)
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
    assert (said["anchor"]["year"], said["class_table"], said["bbox"]) == (2000, "HILDA+", [0, 0, 40, 40])
    assert str(folder) not in json.dumps(said)


# Parts


@pytest.mark.parametrize("box", [(168, -12, -161, 33), (168, -12, 199, 33), (-192, -12, -161, 33)])
def test_a_part_across_the_dateline(opened, folder, box):
    """Its longitudes are contiguous, and what is read there is what the whole has there."""
    static = (f"elevation={folder / 'high.tif'}", "longitude", "distance_to_coast")
    whole, part = opened(*static), opened(*static, bbox=box)
    assert part.grid == Grid(165, 35, 5, 5, 10, 7)
    inside = Window(11, 69, 10, 7)
    np.testing.assert_array_equal(part.anchor(Window(0, 0, 10, 7)), whole.anchor(inside))
    np.testing.assert_array_equal(part.static(Window(0, 0, 10, 7)), whole.static(inside))
    np.testing.assert_array_equal(part.static(Window(4, 2, 3, 4)), whole.static(Window(15, 71, 3, 4)))
    beyond = part.anchor(Window(-2, -3, 14, 13))
    np.testing.assert_array_equal(beyond[2:12, 3:10], whole.anchor(inside))
    assert (beyond != 255).sum() == (whole.anchor(inside) != 255).sum()
    assert np.isfinite(part.static(Window(-2, -3, 14, 13))[1]).sum() == 70
    assert part.scenario.grid == Grid(150, 50, 10, 10, 8, 6)


def test_cells_that_a_box_touches():
    world, region = Grid(-180, 90, 5, 5, 36, 72), Grid(170, 10, 1, 1, 20, 30)
    assert touched(world, (-180, -90, 180, 90)) == Window(0, 0, 36, 72)
    assert touched(world, (0, -5, 360, 5)) == Window(17, 0, 2, 72), "all longitudes: the grid's own"
    assert touched(world, (-179.9, 80, 179.9, 94.9)) == Window(0, 0, 2, 72)
    assert output_grid(world, None, (3, 80, 2, 90)).periodic, "all but one degree, which is in a cell that is touched"
    assert touched(world, (-5, 0, 5, 10)) == Window(16, 35, 2, 2), "edges are no cells"
    assert touched(world, (-5.01, 0, 5, 10)) == Window(16, 34, 2, 3)
    assert touched(world, (350, 0, 351, 1)) == Window(17, 34, 1, 1)
    assert output_grid(world, None, (190, 0, 194, 1)).west == -170
    assert touched(region, (175, 0, -175, 5)) == Window(5, 5, 5, 10)
    assert touched(region, (-179, 0, -175, 5)) == Window(5, 11, 5, 4)
    with pytest.warns(EarthsrWarning, match="--bbox 160,-90,171,90 reaches beyond the anchor; what comes out covers"):
        assert touched(region, (160, -90, 171, 90)) == Window(0, 0, 20, 1), "as far as there are cells"
    with pytest.warns(EarthsrWarning, match="reaches beyond the anchor"):
        assert touched(world, (-200, 80, 200, 95)) == Window(0, 0, 2, 72)


@pytest.mark.parametrize(
    ("grid", "box", "words"),
    [
        (Grid(0, 10, 1, 1, 10, 10), (20, 0, 30, 5), "--bbox 20,0,30,5 lies outside the anchor, which covers 0,0,10,10"),
        (Grid(0, 10, 1, 1, 10, 10), (2, 20, 3, 25), "lies outside the anchor"),
        (Grid(0, 10, 1, 1, 10, 10), (5, 0, 2, 5), "is a box across the dateline, which the anchor does not reach"),
        (Grid(-180, 90, 5, 5, 36, 72), (170, 0, -200, 5), "west < east"),
        (Grid(-180, 90, 5, 5, 36, 72), (0, 5, 10, 5), "expected finite numbers, south < north"),
        (Grid(-180, 90, 5, 5, 36, 72), (0, 5, np.nan, 6), "expected finite numbers"),
        (Grid(-180, 90, 5, 5, 36, 72), (0, 91, 10, 95), "lies outside the anchor"),
    ],
)
def test_boxes_that_are_none(grid, box, words):
    with pytest.raises(InputError, match=words):
        touched(grid, box)


def test_static_rasters_need_only_cover_the_part(opened, folder):
    write_tif(folder / "soil.tif", np.ones((8, 8), np.float32), west=10, north=40, cell=5)
    static = f"soil={folder / 'soil.tif'}"
    np.testing.assert_array_equal(opened(static, bbox=(10, 0, 50, 40)).static(Window(0, 0, 8, 8)), np.ones((1, 8, 8)))
    with pytest.raises(DataError, match=r"soil\.tif: static field soil covers 0 to 40 N"):
        opened(static)


# Cells of another size


def test_finer_and_coarser_cells_take_the_class_at_their_centre(opened, folder):
    codes = indices_of(code_map(7, ROWS, COLUMNS))
    static = f"elevation={folder / 'high.tif'}"
    fine = opened(static, cell_size_deg=2.5)
    assert fine.grid == Grid(-180, 90, 2.5, 2.5, 72, 144)
    doubled = codes.repeat(2, axis=0).repeat(2, axis=1)
    for window in (Window(0, 0, 72, 144), Window(-3, 130, 20, 40)):
        np.testing.assert_array_equal(fine.anchor(window), around(doubled, window, 255))
    # Bilinear: a centre lies a quarter of a cell from that of the anchor's cell.
    found = fine.static(Window(5, 11, 1, 1))[0, 0, 0]
    near = HIGH[2:4, 5:7].astype(float)
    assert found == pytest.approx(near[0, 0] * 0.5625 + (near[0, 1] + near[1, 0]) * 0.1875 + near[1, 1] * 0.0625)
    thirds = opened(cell_size_deg=15, bbox=(0, 0, 180, 90))
    assert thirds.grid == Grid(0, 90, 15, 15, 6, 12)
    np.testing.assert_array_equal(thirds.anchor(Window(0, 0, 6, 12)), codes[1:18:3, 37::3])
    # A centre on an edge belongs to the cell south and east of it.
    halves = opened(cell_size_deg=10)
    np.testing.assert_array_equal(halves.anchor(Window(0, 0, 18, 36)), codes[1::2, 1::2])
    odd = opened(cell_size_deg=4, bbox=(168, -20, -168, 20))
    rows, columns = (90 - odd.grid.latitudes()) // 5, (odd.grid.longitudes() + 180) // 5 % COLUMNS
    window = Window(0, 0, odd.grid.rows, odd.grid.columns)
    np.testing.assert_array_equal(odd.anchor(window), codes[np.ix_(rows.astype(int), columns.astype(int))])


def test_a_distance_to_the_coast_is_that_on_the_anchors_grid(opened):
    whole = opened("distance_to_coast")
    found = opened("distance_to_coast", cell_size_deg=2.5, bbox=(20, 10, 60, 50))
    before = whole.static(Window(7, 39, 10, 10))[0]
    expected = (before[:-1, :-1] * 9 + before[1:, :-1] * 3 + before[:-1, 1:] * 3 + before[1:, 1:]) / 16
    np.testing.assert_allclose(found.static(Window(0, 0, 16, 16))[0, 1::2, 1::2], expected[1:, 1:], rtol=1e-5)


def test_cell_sizes_that_do_not_divide_the_extent():
    anchor = Grid(-180, 90, 1 / 120, 1 / 120, 21600, 43200)
    assert output_grid(anchor, 0.01) == Grid(-180, 90, 0.01, 0.01, 18000, 36000)
    assert output_grid(anchor, 0.00833333) == anchor, "written in six digits"
    with pytest.raises(InputError, match=r"cells of 0\.007 degrees do not divide the anchor's 180 x 360 degrees"):
        output_grid(anchor, 0.007)
    for size in (0.0, -1.0, np.nan, 1000.0):
        with pytest.raises(InputError, match="--cell-size"):
            output_grid(anchor, size)


# Seams


def test_nothing_shows_where_the_dateline_is(folder):
    """A globe whose first column lies elsewhere has the same distances and slopes."""
    codes = np.where(np.random.default_rng(5).random((ROWS, COLUMNS)) < 0.02, 99, 22).astype(np.uint8)
    fields = []
    for turn in (0, 30):
        write_anchor(folder / "sea_2000.tif", np.roll(codes, turn, axis=1))
        write_anchor(folder / "rolled.tif", np.roll(HIGH, turn, axis=1), tags={"units": "m"})
        maps = ClassMaps([str(folder / "sea_2000.tif")], HILDA_PLUS)
        specs = ("distance_to_coast", "slope", f"elevation={folder / 'rolled.tif'}")
        statics = open_statics(specs, maps, 2000, [])
        found = [each.read(Window(0, 0, ROWS, COLUMNS)) for each in statics.fields]
        fields.append([np.roll(each, -turn, axis=1) for each in found])
        statics.close()
        maps.close()
    assert np.isfinite(fields[0][1]).sum() > 0.9 * ROWS * COLUMNS
    for first, second in zip(*fields, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


# Anchors


def two_years(folder, years=(1990, 2000), name="hilda.nc"):
    codes = np.stack([code_map(year, ROWS, COLUMNS, np.int8) for year in years])
    axes = {"time": list(years), "latitude": np.arange(87.5, -90, -5), "longitude": np.arange(-177.5, 180, 5)}
    field = {"LULC_states": (("time", "latitude", "longitude"), codes)}
    xarray.Dataset(field, axes).to_netcdf(folder / name, engine="h5netcdf")
    return folder / name


def test_an_anchor_of_several_years_needs_the_year(opened, folder):
    path = two_years(folder)
    with pytest.raises(InputError, match=r"hilda\.nc has the years 1990, 2000; write YEAR=hilda\.nc"):
        opened(anchor=path)
    with pytest.raises(InputError, match=r"LULC_states has no map of 1995; it has 1990, 2000"):
        opened(anchor=f"1995={path}")
    for year in (1990, 2000):
        world = opened(anchor=f"{year}={path}")
        assert world.anchor_year == year
        np.testing.assert_array_equal(
            world.anchor(Window(0, 0, ROWS, COLUMNS)), indices_of(code_map(year, ROWS, COLUMNS))
        )
    with pytest.raises(DataError, match="has 2 steps in 2000, expected one step a year"):
        opened(anchor=f"2000={two_years(folder, (1999, 2000, 2000), 'twice.nc')}")
    with pytest.raises(InputError, match="give it without 1990="):
        ClassMaps([f"1990={path}"], HILDA_PLUS)


def test_a_year_that_the_name_does_not_have(opened, folder):
    path = write_anchor(folder / "map.tif", code_map(1, ROWS, COLUMNS))
    with pytest.raises(InputError, match=r"map\.tif: the name has no year, .* write YEAR=map\.tif"):
        opened(anchor=path)
    assert opened(anchor=f"1850={path}").anchor_year == 1850


def test_a_code_outside_the_table(opened, folder):
    codes = code_map(1, ROWS, COLUMNS)
    codes[30, 70] = 12
    world = opened(anchor=write_anchor(folder / "map_2001.tif", codes), bbox=(140, -90, -140, 0))
    with pytest.raises(DataError, match=r"map_2001\.tif \(2001\): code 12 at row 30, column 70 is in no class"):
        world.anchor(Window(0, 0, 18, 16))


@pytest.mark.parametrize(("kind", "nodata"), [(np.uint8, None), (np.uint8, 255), (np.int8, -1), (np.uint8, 22)])
def test_bytes_mean_what_the_table_says(tmp_path, kind, nodata, monkeypatch):
    """All codes that have a meaning; once looked up, they are not compared with the table again."""
    codes = np.array([*CODES, *([] if nodata is None else [nodata])], kind)
    path = write_tif(tmp_path / "m_2000.tif", codes[None], cell=0.5, nodata=nodata)
    expected = HILDA_PLUS.index(codes[None], "", codes[None] != nodata)
    maps = ClassMaps([str(path)], HILDA_PLUS)
    np.testing.assert_array_equal(maps.indices(2000, Window(0, 0, 1, len(codes))), expected)
    monkeypatch.delattr(ClassTable, "index")
    np.testing.assert_array_equal(maps.indices(2000, Window(0, 0, 1, len(codes))), expected)


def test_only_what_a_window_needs_is_read(opened, folder, monkeypatch):
    """A window of 300 x 300 cells of a large anchor, across the dateline, and again."""
    asked = []
    stored = GdalSource._stored
    monkeypatch.setattr(GdalSource, "_stored", lambda self, w: asked.append(w) or stored(self, w))
    path = folder / "large_2000.tif"
    codes = np.full((3600, 7200), 22, np.uint8)
    codes[1650:1700, 7190:] = 11
    write_tif(path, codes, west=-180, north=90, cell=0.05, tiled=True, compress="deflate")
    world = opened(f"soil={path}", anchor=path, protected=[str(path)])
    assert not asked, "opening reads nothing"
    found = world.anchor(Window(1550, 7050, 300, 300))
    assert (found == 0).sum() == 500
    # Whole blocks of 512 x 512 that the window touches: two each way.
    assert sum(w.rows * w.columns for w in asked) <= 4 * 512**2
    del asked[:]
    np.testing.assert_array_equal(world.anchor(Window(1600, 7100, 100, 200)), found[50:150, 50:250])
    assert not asked, "blocks are kept"
    world.static(Window(1550, 7050, 300, 300))
    world.protected(Window(1550, 7050, 300, 300))
    assert sum(w.rows * w.columns for w in asked) == 2 * 300 * 300


def test_two_threads_read_what_one_reads(opened, folder):
    world = opened(f"elevation={folder / 'high.tif'}", "slope", protected=[str(folder / "high.tif")])
    windows = [Window(i % 30, 7 * i - 50, 9, 21) for i in range(60)]

    def read(window):
        return world.anchor(window), world.static(window), world.protected(window), world.scenario.fractions(2000)

    alone = [read(window) for window in windows]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for first, second in zip(alone, pool.map(read, windows), strict=True):
            for a, b in zip(first, second, strict=True):
                np.testing.assert_array_equal(a, b)


# Static fields and protected areas


def test_the_order_of_static_fields_is_the_models(opened, folder):
    static = ("latitude", f"elevation={folder / 'high.tif'}", "longitude")
    world = opened(*static, names=["longitude", "latitude", "elevation"])
    found = world.static(Window(2, 3, 1, 1)).ravel()
    np.testing.assert_allclose(found, [-162.5, 77.5, HIGH[2, 3]])
    # What the slope is computed from need not be the model's.
    assert [each.name for each in opened("slope", static[1], names=["slope"]).static_channels] == ["slope"]
    none = opened()
    assert none.static(Window(0, 0, 3, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("static", "names", "words"),
    [
        (
            ["latitude"],
            ["elevation", "latitude", "longitude"],
            r"reads the static fields elevation, latitude, longitude; missing: elevation, longitude; "
            r"add --static elevation=PATH --static longitude$",
        ),
        (["latitude", "longitude"], ["latitude"], "it does not know longitude: leave out --static longitude"),
        (["latitude", "elevation=x", "slope=y"], ["latitude", "slope"], "does not know elevation"),
        (["latitude"], [], "reads the static fields none; it does not know latitude"),
        (["lat itude"], ["latitude"], "--static 'lat itude' is not NAME=PATH"),
        (["latitude", "latitude"], ["latitude"], "--static latitude is given twice"),
        (["slope"], ["slope"], "slope is computed from elevation; add --static elevation=PATH"),
    ],
)
def test_static_fields_that_are_not_the_models(opened, static, names, words):
    with pytest.raises(InputError, match=words):
        opened(*static, names=names)


def test_a_grid_that_is_too_large_for_a_distance(opened, monkeypatch):
    """A globe counts twice: the coast is looked for beyond the dateline too."""
    monkeypatch.setattr("earthsr.landuse.sources.statics._LARGEST_MASK", 2 * ROWS * COLUMNS - 1)
    with pytest.raises(InputError, match=r"give a raster of it: distance_to_coast:km=PATH"):
        opened("distance_to_coast")


def test_protected_areas_of_several_rasters(opened, folder):
    """One on other cells that reaches beyond the dateline, one with nodata."""
    marks = np.zeros((10, 40), np.float32)
    marks[2:6, 8:12] = 7
    regional = write_tif(folder / "parks.tif", marks, west=170, north=20, cell=0.5)
    other = np.full((ROWS, COLUMNS), 255, np.uint8)
    other[3, 4], other[5, 6] = 1, 0
    sparse = write_anchor(folder / "sparse.tif", other, nodata=255)
    world = opened(protected=[str(regional), str(sparse)], cell_size_deg=1)
    found = world.protected(Window(0, 0, 180, 360))
    expected = np.zeros((180, 360), bool)
    expected[15:20, 20:25] = True
    # From 17 to 19 N and 174 to 176 E; centres at half degrees lie on the edges, and belong to the south and east.
    expected[71:73, 354:356] = True
    np.testing.assert_array_equal(found, expected)
    assert any("parks.tif does not cover all of the maps" in note for note in world.notes)
    with pytest.raises(DataError, match=r"parks\.tif: --protected covers 15 to 20 N, 170 to 190 E, and nothing of"):
        opened(protected=[str(regional)], bbox=(0, 0, 20, 20))
    with pytest.raises(DataError, match=r"absent\.tif: no such file"):
        opened(protected=[str(folder / "absent.tif")])


def test_cells_of_another_grid_on_both_sides_of_a_seam():
    """A region across the dateline, on a globe that begins there and on one that is no globe."""
    values = np.arange(30.0).reshape(3, 10)
    region = Grid(177.5, 3, 0.5, 1, 3, 10)
    globe = Grid(-180, 3, 0.5, 1, 3, 720)

    def read(window):
        return values[window.row : window.row + window.rows, window.column : window.column + window.columns]

    found = sample(np.full((3, 720), -1.0), globe, Window(0, 0, 3, 720), region, read)
    np.testing.assert_array_equal(found[:, :5], values[:, 5:])
    np.testing.assert_array_equal(found[:, -5:], values[:, :5])
    assert (found[:, 5:-5] == -1).all()
    assert aligned(region, globe) == (0, 715)
    assert aligned(Grid(-182.5, 3, 0.5, 1, 3, 10), region) == (0, 0)
    assert aligned(Grid(177.6, 3, 0.5, 1, 3, 10), region) is None
    assert aligned(Grid(177.5, 3, 0.505, 1, 3, 10), region) is None


# What does not fit together


def test_a_scenario_that_does_not_fit(opened, folder):
    with pytest.raises(DataError, match=r"states\.nc: has no variable primf, which the model reads; it has urban"):
        opened(coarse_channels=["urban", "primf"])
    write_nc(folder / "states.nc", states([2000])[["urban"]])
    with pytest.raises(DataError, match=r"states\.nc covers 48 to 54 N, -6 to 2 E, the maps need -87\.5 to 87\.5 N"):
        opened()
    assert opened(bbox=(-5, 51, 0, 53)).scenario.grid == Grid(-5.25, 54, 0.25, 0.25, 17, 22)

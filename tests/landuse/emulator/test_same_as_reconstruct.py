"""The emulator's maps are those of ``earthsr reconstruct``, cell by cell: one function makes both."""

import numpy as np
import pytest
import rasterio

from earthsr import Emulator
from earthsr.backend import Model
from earthsr.geo.grid import Window
from earthsr.landuse.maps import open_maps
from earthsr.landuse.reconstruct import Options, reconstruct
from earthsr.samples.world.globe import write_global_archives
from tests.landuse.emulator.cases import PART, forcing_of, opened
from tests.landuse.reconstruct.cases import box, everything, inputs_of


def rolled(model, archives, target, years, bbox=PART, protected=(), **options):
    """Codes and confidence of every year, as a reconstruction in one chunk makes them."""
    options = {"batch_size": 4, "keep": ("confidence",), **options}
    inputs = inputs_of(archives, bbox=bbox, protected=protected)
    reconstruct(model, inputs, years, target, Options(**options))
    maps = open_maps(target)
    whole = Window(0, 0, maps.spec.grid.rows, maps.spec.grid.columns)
    codes = {year: maps.stored("land_use", year, whole) for year in maps.spec.years}
    return codes, dict(zip(maps.spec.years, everything(target, "confidence"), strict=True)), maps.spec.grid


def agree(codes, confidence, made, year):
    assert np.array_equal(made["land_use"], codes[year]), year
    # On disk it is rounded to 0.004.
    assert np.allclose(made["confidence"], confidence[year], atol=0.0021, equal_nan=True)


@pytest.fixture
def protected(world, tmp_path):
    """The western third of the part."""
    path = tmp_path / "parks.tif"
    with rasterio.open(world / "archives" / "landuse_1993.tif") as file:
        profile = {**file.profile, "nodata": None}
    profile.pop("colormap", None)
    values = np.zeros((profile["height"], profile["width"]), np.uint8)
    values[:, :21] = 1
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("match", [False, True])
def test_forwards_year_by_year(model, world, static, scenario, anchor, protected, tmp_path, match):
    options = {"bbox": PART, "match_areas": match, "fixed": ("water",), "batch_size": 4}
    codes, confidence, grid = rolled(
        model, world / "archives", tmp_path / "maps.zarr", (1993, 1995), protected=(protected,), **options
    )
    emulator = Emulator(model, static=static, protected=protected, **options)
    assert emulator.grid == grid
    assert np.array_equal(emulator.start(anchor)["land_use"], codes[1993])
    for year in (1994, 1995):
        agree(codes, confidence, emulator.step(forcing_of(scenario, year), year), year)
    changed = codes[1995] != codes[1993]
    assert changed[:, 21:].any(), "nothing changed, so that nothing was shown"
    assert not changed[:, :21].any(), "protected cells keep their class"
    assert not changed[codes[1993] == 77].any(), "fixed classes keep their cells"


@pytest.mark.slow
def test_backwards_and_years_between(model, world, static, scenario, anchor, tmp_path):
    codes, confidence, _ = rolled(model, world / "archives", tmp_path / "maps.zarr", (1991, 1992), match_areas=True)
    emulator = Emulator(model, static=static, bbox=PART, batch_size=4)
    emulator.start(anchor)
    agree(codes, confidence, emulator.step(forcing_of(scenario, 1992), 1992), 1992)
    agree(codes, confidence, emulator.step(forcing_of(scenario, 1991), 1991), 1991)
    emulator.start(anchor)
    made = emulator.step(scenario[0], 1991)
    agree(codes, confidence, made, 1991)
    assert made.attrs["direction"] == "backwards"


def test_a_trained_direction_is_all_that_is_not_warned_of(model, static, scenario, anchor, caplog):
    told = Model(model.spec, model.weights, {**model.metadata, "directions": ["forwards"]}, backend=model.backend)
    emulator = Emulator(told, static=static, bbox=PART, batch_size=4)
    state = emulator.start(anchor)
    with caplog.at_level("WARNING", "earthsr"):
        emulator.step(forcing_of(scenario, 1994), 1994, prior=state)
        assert not caplog.records
        for _ in range(2):
            emulator.step(forcing_of(scenario, 1992), 1992, prior=state)
    assert [record.getMessage().split(" in time")[0] for record in caplog.records] == ["1992 is stepped backwards"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_in_several_chunks_and_without_whole_coarse_cells(model, world, static, scenario, anchor, tmp_path, method):
    """A part that begins inside a coarse cell, in chunks that end inside one: neighbours' maps are read."""
    model = Model(model.spec, model.weights, {**model.metadata, "coarse_interpolation": method}, backend=model.backend)
    part = box(Emulator(model, static=static).grid, 5, 11, 40, 90)
    options = {"match_areas": True, "chunk": 24}
    codes, confidence, _ = rolled(model, world / "archives", tmp_path / "maps.zarr", (1993, 1995), part, **options)
    emulator = Emulator(model, static=static, bbox=part, batch_size=4, **options)
    emulator.start(anchor)
    for year in (1994, 1995):
        agree(codes, confidence, emulator.step(forcing_of(scenario, year), year), year)


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """Archives of the whole Earth in 120 x 240 cells."""
    folder = tmp_path_factory.mktemp("globe")
    write_global_archives(folder, 1.5, range(1992, 1996), 3, anchor_year=1993, coarse_deg=12.0)
    return folder


@pytest.fixture(scope="module")
def large(model):
    """The same network for coarse cells of the globe."""
    metadata = {**model.metadata, "input_cell_size_deg": [12.0, 12.0]}
    return Model(model.spec, model.weights, metadata, backend=model.backend)


def years_of(folder):
    return tuple(opened(path) for path in sorted(folder.glob("scenario_*.nc"), reverse=True))


@pytest.mark.slow
def test_once_around_the_earth_whatever_longitude_comes_first(large, globe, tmp_path):
    codes, confidence, _ = rolled(large, globe, tmp_path / "maps.zarr", (1993, 1994), None, match_areas=True)
    static, forcing = opened(globe / "static.nc"), forcing_of(years_of(globe), 1994)
    emulator = Emulator(large, static=static, batch_size=4)
    assert emulator.grid.periodic
    assert emulator.forcing_grid.periodic
    emulator.start(str(globe / "landuse_1993.tif"))
    agree(codes, confidence, emulator.step(forcing, 1994), 1994)
    eastern = {
        name: each.roll(lon=120, roll_coords=True) for name, each in (("static", static), ("map", emulator.state))
    }
    eastern = {name: each.assign_coords(lon=each["lon"] % 360) for name, each in eastern.items()}
    assert eastern["static"]["lon"].values[0] == 0.75
    turned = Emulator(large, static=eastern["static"], batch_size=4)
    turned.start(str(globe / "landuse_1993.tif"))
    made = turned.step(forcing, 1994)
    assert np.array_equal(made["lon"], eastern["map"]["lon"])
    assert np.array_equal(made["land_use"], eastern["map"]["land_use"])


@pytest.mark.slow
def test_a_part_across_the_dateline(large, globe, tmp_path):
    part = (150.1, -29.9, -138.1, 29.9)
    codes, confidence, grid = rolled(large, globe, tmp_path / "maps.zarr", (1993, 1994), part, match_areas=True)
    static, forcing = opened(globe / "static.nc"), forcing_of(years_of(globe), 1994)
    emulator = Emulator(large, static=static, bbox=part, batch_size=4)
    assert emulator.grid == grid
    assert grid.west + grid.columns * grid.cell_x > 180
    emulator.start(str(globe / "landuse_1993.tif"))
    agree(codes, confidence, emulator.step(forcing, 1994), 1994)
    # The same region as an array whose longitudes go 178.5, -180 …
    cut = static.isel(lat=slice(40, 80)).roll(lon=120, roll_coords=True).isel(lon=slice(100, 148))
    assert cut["lon"].values[0] > 0 > cut["lon"].values[-1]
    given = Emulator(large, static=cut, batch_size=4)
    assert given.grid == grid
    made = given.step(forcing, 1994, prior=emulator.start(str(globe / "landuse_1993.tif")))
    agree(codes, confidence, made, 1994)

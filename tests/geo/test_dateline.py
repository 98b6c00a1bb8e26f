"""Rasters that go once round the globe: no seam at the dateline, wherever their columns begin."""

import json
from dataclasses import replace

import numpy as np
import pytest

import earthsr
from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict import plan as module
from earthsr.dem.predict.enlarge import area_mean, area_weights, enlarge
from earthsr.dem.predict.ensemble import halo_of
from earthsr.dem.predict.plan import PredictOptions, make_plan, survey
from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.geo import Georeference, MemorySink, Window, array_source
from earthsr.geo.raster import read_window
from earthsr.models import DemSRNetSpec, write_weights
from tests.conftest import call_cli

SCALE = 3
ROWS, COLUMNS = 24, 96
CELL = 360 / COLUMNS
#: Columns from -180, rows from 45 degrees north.
GLOBE = Georeference(-180.0, 45.0, CELL, CELL, ROWS, COLUMNS)
#: Metres. Float32 keeps 400 m to 3e-5 m. What the network adds, up to 20 m, is summed in another order in a window that
#: lies elsewhere or has another shape: some 4e-6 of it, as in tests/backends/test_enlarge.py.
ROUNDING_M = 3e-5 + 4e-6 * 20
MODES = {
    "exact": PredictOptions("exact", tile=16),
    "gaussian": PredictOptions(tile=20, overlap=0.4),
    "exact, conserved": PredictOptions("exact", tile=16, conserve=True),
    "gaussian, conserved": PredictOptions(tile=20, overlap=0.4, conserve=True),
}


def model_of(backend, **fields):
    """A small model that adds some metres to a bicubic surface, as a trained one does."""
    spec = DemSRNetSpec(**{"scale": SCALE, "features": 4, "num_blocks": 1, "residual_over": "bicubic", **fields})
    rng = np.random.default_rng(0)
    weights = {p.name: (rng.normal(size=p.shape) * p.fan_in**-0.5).astype(np.float32) for p in spec.parameters}
    weights["out.weight"] *= 0.1
    return Model(spec, weights, {"normalisation": Normalisation("patch", 0.0, 100.0).to_dict()}, backend=backend)


def smooth(rows=ROWS, columns=COLUMNS):
    """Hills that close upon themselves, metres; steepest at the first column, as steep at two others."""
    longitude = 2 * np.pi * np.arange(columns) / columns
    latitude = np.pi * np.arange(rows) / rows
    field = 150 * np.sin(3 * longitude)[None, :] * (0.5 + np.sin(latitude))[:, None]
    return (200 + field).astype(np.float32)


def rough(rows=ROWS, columns=COLUMNS):
    values = smooth(rows, columns) + np.random.default_rng(1).normal(scale=20, size=(rows, columns))
    values[5:7, -2:] = np.nan
    values[6, 0] = np.nan
    return values.astype(np.float32)


def run(model, values, options, grid=GLOBE, bbox=None):
    source = array_source(values, grid, "made")
    plan = make_plan([model], source, options, bbox)
    sink = MemorySink(plan.output, plan.bands)
    outcome = enlarge(plan, sink, survey(source).mean)
    return sink.values[0], plan, outcome


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of which a small raster has several, one of them shorter."""
    monkeypatch.setattr(module, "CHUNK", 36)
    monkeypatch.setattr(module, "SAMPLE_CELLS", 8)


# Reading


class Counted:
    """A source that remembers what was read of it."""

    def __init__(self, values, grid):
        self._source = array_source(values, grid, "made")
        self.georeference, self.name, self.windows = grid, "made", []

    def read(self, window):
        self.windows.append(window)
        return self._source.read(window)

    @property
    def cells(self):
        return sum(window.rows * window.columns for window in self.windows)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    "window",
    [
        Window(2, 3, 4, 5),
        Window(0, -3, 24, 10),
        Window(5, 90, 3, 20),
        Window(5, 190, 3, 20),
        Window(5, -300, 3, 20),
        Window(1, -5, 2, 400),
        Window(0, 0, 24, 96),
        Window(0, 40, 24, 96),
        Window(-3, -2, 40, 30),
        Window(-9, 0, 4, 4),
        Window(30, 0, 4, 4),
    ],
)
def test_any_window_is_read_round_the_globe_and_blank_beyond_the_poles(window, periodic):
    values = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    source = Counted(values, GLOBE if periodic else replace(GLOBE, cell_x=1.0))
    rows, columns = window.row + np.arange(window.rows), window.column + np.arange(window.columns)
    expected = values[np.clip(rows, 0, ROWS - 1)][:, columns % COLUMNS]
    expected[(rows < 0) | (rows >= ROWS)] = np.nan
    if not periodic:
        expected[:, (columns < 0) | (columns >= COLUMNS)] = np.nan
    np.testing.assert_array_equal(read_window(source, window), expected)
    # Nothing is read twice, and nothing that is not wanted.
    inside = ((rows >= 0) & (rows < ROWS)).sum()
    wanted = len(np.unique(columns % COLUMNS)) if periodic else ((columns >= 0) & (columns < COLUMNS)).sum()
    assert source.cells == inside * wanted
    assert len(source.windows) <= 2


@pytest.mark.parametrize("columns", [COLUMNS, 3600, 1441])
@pytest.mark.parametrize("west", [-180.0, 0.0, 0.01])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_dateline_is_one_place_whatever_longitude_the_columns_begin_with(columns, west, share):
    # Edges of cells, or their centres, on the meridian: rounding moves it to neither side.
    cell = 360 / columns
    grid = replace(GLOBE, columns=columns, cell_x=cell, west=west - share * cell)
    assert abs((grid.west + grid.dateline * cell) % 360 - 180) <= 0.75 * cell + 1e-9
    for shift in range(-columns, columns):
        rolled = replace(grid, west=grid.west + shift * cell)
        assert (rolled.dateline + shift - grid.dateline) % columns == 0


# Enlarging


@pytest.mark.parametrize("shift", [1, 37])
@pytest.mark.parametrize("mode", MODES)
def test_a_globe_that_begins_elsewhere_comes_out_the_same(any_backend, mode, shift):
    model, values = model_of(any_backend), rough()
    found, plan, _ = run(model, values, MODES[mode])
    assert len(plan.chunks) == 3
    rolled = np.roll(values, -shift, axis=1)
    other, _, _ = run(model, rolled, MODES[mode], replace(GLOBE, west=-180 + shift * CELL))
    np.testing.assert_allclose(np.roll(other, shift * SCALE, axis=1), found, atol=ROUNDING_M)
    if "exact" in mode:
        # No window leaves a trace: what counts is the terrain alone, not where on Earth it is said to be.
        other, _, _ = run(model, rolled, MODES[mode])
        np.testing.assert_allclose(np.roll(other, shift * SCALE, axis=1), found, atol=ROUNDING_M)
    # What the same comparison says of columns that do not wrap.
    flat = replace(GLOBE, geographic=False)
    edged, other = (run(model, field, MODES[mode], flat)[0] for field in (values, rolled))
    assert np.nanmax(np.abs(np.roll(other, shift * SCALE, axis=1) - edged)) > 1


@pytest.mark.parametrize("columns", [COLUMNS, 40, 7])
def test_exact_is_the_raster_repeated_without_end_in_one_piece(any_backend, columns):
    # Halos reach farther than once round the two narrow ones.
    model, values = model_of(any_backend), rough(columns=columns)
    grid = replace(GLOBE, columns=columns, cell_x=360 / columns)
    found, plan, _ = run(model, values, MODES["exact"], grid)
    halo = halo_of(plan.group)
    repeated = np.pad(values, ((0, 0), (halo, halo)), mode="wrap")
    mean = float(np.nanmean(values, dtype=np.float64))
    expected = model.submit(repeated[None, None], None, mean).result()[0, 0][:, halo * SCALE : -halo * SCALE]
    valid = np.isfinite(values).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    np.testing.assert_array_equal(np.isfinite(found), valid)
    assert np.abs(found - expected)[valid].max() < ROUNDING_M


def jumps(fine):
    """Largest step across the dateline, and the largest one anywhere else, metres."""
    steps = np.abs(np.diff(fine, axis=1, append=fine[:, :1])).max(axis=0)
    return steps[-1], steps[:-1].max()


@pytest.mark.parametrize("mode", MODES)
def test_the_dateline_is_no_larger_a_step_than_others(any_backend, mode):
    model = model_of(any_backend)
    here, elsewhere = jumps(run(model, smooth(), MODES[mode])[0])
    # The field is as steep at two other places, and windows lie otherwise there.
    assert 0 < here <= elsewhere
    here, elsewhere = jumps(run(model, smooth(), MODES[mode], replace(GLOBE, geographic=False))[0])
    assert here > 1.5 * elsewhere


def test_rows_end_at_the_poles(any_backend):
    # What happens in the south does not reach the north over the top of the globe, nor over the bottom.
    model, values = model_of(any_backend), smooth(rows=48)
    grid = replace(GLOBE, rows=48, north=90.0)
    changed = values.copy()
    changed[40:] += 100
    options = PredictOptions("exact", tile=16)
    source = array_source(values, grid)
    fields = []
    for field in (values, changed):
        plan = make_plan([model], array_source(field, grid), options)
        sink = MemorySink(plan.output)
        enlarge(plan, sink, survey(source).mean)
        fields.append(sink.values[0])
    gap = np.abs(fields[0] - fields[1]).max(axis=1)
    assert gap[: 24 * SCALE].max() < ROUNDING_M
    assert gap[44 * SCALE :].min() > 1


def test_what_is_conserved_goes_round_too(any_backend):
    model, values = model_of(any_backend), rough()
    found, _, outcome = run(model, values, MODES["gaussian, conserved"])
    means = area_mean(found, area_weights(GLOBE, 0, ROWS, SCALE))
    valid = np.isfinite(values)
    # float32 keeps 500 m to 3e-5 m.
    assert np.abs(means - values)[valid].max() < 6e-5
    assert outcome.after.count == valid.sum()
    # The smooth surface that is added reads two cells to each side: across the dateline too, where chunks meet.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 1000)
        whole, _, _ = run(model, values, MODES["gaussian, conserved"])
    np.testing.assert_allclose(found, whole, atol=ROUNDING_M)


def test_the_comparison_with_the_exact_mode_goes_round_too(any_backend):
    model, values = model_of(any_backend), smooth()
    blended, _, outcome = run(model, values, replace(MODES["gaussian"], compare=True))
    exact, _, _ = run(model, values, MODES["exact"])
    assert outcome.compared == ROWS * COLUMNS
    assert outcome.difference == pytest.approx(np.abs(blended - exact).max(), rel=1e-4)


def test_a_gaussian_window_wider_than_the_globe_is_a_turn_wide(any_backend):
    model, values = model_of(any_backend), smooth(columns=30)
    grid = replace(GLOBE, columns=30, cell_x=12.0)
    found, plan, _ = run(model, values, PredictOptions(), grid)
    assert plan.tiles.shape == (ROWS, 30)
    here, elsewhere = jumps(found)
    assert 0 < here <= elsewhere


# Boxes


@pytest.mark.parametrize(
    ("west", "box", "column", "columns"),
    [
        (-180.0, (165, -30, -165, 30), 92, 8),
        (-180.0, (165, -30, 195, 30), 92, 8),
        (-180.0, (-195, -30, -165, 30), -4, 8),
        (0.0, (165, -30, -165, 30), 44, 8),
        (0.0, (-15, -30, 15, 30), -4, 8),
        (0.0, (345, -30, 15, 30), 92, 8),
        (-180.0, (345, -30, 375, 30), 140, 8),
        (-180.0, (0, -30, 360, 30), 48, 96),
        (0.0, (-180, -30, 180, 30), -48, 96),
        (-180.0, (30, -30, 15, 30), 56, 92),
        (-180.0, (-15, -30, 15, 30), 44, 8),
        (-180.0, (-180, -30, 180, 30), 0, 96),
        (-180.0, (-1000, -30, 1000, 30), 0, 96),
        (-180.0, (14.9, -30, 14.8, 30), 51, 96),
    ],
)
def test_boxes_count_longitudes_as_they_like(west, box, column, columns):
    grid = replace(GLOBE, west=west)
    window = grid.window(box)
    assert window == Window(4, column, 16, columns)
    found = grid.part(window)
    if columns < 96:
        end = box[2] + 360 * (box[2] < box[0])
        assert found.bounds == pytest.approx((box[0], -30, end, 30))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, -30, 10, 30), "west < east"),
        ((10, 30, 20, 30), "south < north"),
        ((float("nan"), -30, 10, 30), "finite numbers"),
        ((600, -30, 620, 30), "lies outside the raster, which covers -180, -45, 180, 45"),
        ((-400, -30, -390, 30), "lies outside"),
        ((10, 50, 20, 60), "lies outside"),
    ],
)
def test_boxes_that_are_none_are_refused(box, words):
    with pytest.raises(InputError, match=words):
        GLOBE.window(box)


def test_a_box_beyond_an_edge_is_cut_with_a_warning():
    with pytest.warns(
        EarthsrWarning, match="--bbox 0,30,15,60 reaches beyond the raster; what comes out covers 0,30,15,45"
    ):
        assert GLOBE.window((0, 30, 15, 60)) == Window(0, 48, 4, 4)
    region = replace(GLOBE, columns=48)
    with pytest.warns(
        EarthsrWarning, match="--bbox -15,0,15,30 reaches beyond the raster; what comes out covers -15,0,0,"
    ):
        assert region.window((-15, 0, 15, 30)) == Window(4, 44, 8, 4)
    # Less than a cell: a box in round numbers around a raster's edge.
    assert region.window((-15, 0, 1, 46)) == Window(0, 44, 12, 4)


def test_only_a_raster_round_the_globe_has_boxes_across_the_dateline():
    for grid in (replace(GLOBE, columns=90), replace(GLOBE, west=0.0, columns=95)):
        with pytest.raises(InputError, match=r"west < east.*a box across the dateline needs a raster that goes once"):
            grid.window((170, -30, -170, 30))
    with pytest.raises(InputError, match=r"south < north$"):
        replace(GLOBE, geographic=False).window((170, -30, -170, 30))


def test_a_part_reads_both_ends_and_no_more(any_backend):
    model = model_of(any_backend)
    # 2,400 columns, of which the windows of 20 around a box of 8 need less than 60.
    grid = Georeference(-180.0, 3.0, 0.15, 0.15, 40, 2400)
    values = smooth(40, 2400)
    source = Counted(values, grid)
    plan = make_plan([model], source, PredictOptions(tile=20, overlap=0.4), (179.4, -1.2, -179.4, 1.2))
    assert plan.wanted == Window(12, 2396, 16, 8)
    sink = MemorySink(plan.output)
    mean = survey(source, plan.wanted).mean
    surveyed = source.cells
    assert surveyed == 16 * 8
    enlarge(plan, sink, mean)
    assert source.cells - surveyed < 40 * 100
    whole = run(model, values, PredictOptions(tile=20, overlap=0.4), grid)[0]
    expected = np.concatenate([whole[:, -4 * SCALE :], whole[:, : 4 * SCALE]], axis=1)
    np.testing.assert_allclose(sink.values[0], expected[12 * SCALE : 28 * SCALE], atol=ROUNDING_M)


def test_what_is_no_elevation_is_named_by_its_place_in_the_raster(any_backend):
    values = smooth()
    values[7, 93] = -32768
    source = array_source(values, GLOBE, "made")
    for column in (-10, 90):
        with pytest.raises(DataError, match="row 7, column 93"):
            survey(source, Window(0, column, ROWS, 12))
    plan = make_plan([model_of(any_backend)], source, MODES["exact"], (-180, -30, -170, 30))
    with pytest.raises(DataError, match="row 7, column 93"):
        enlarge(plan, MemorySink(plan.output), 0.0)


# Files


@pytest.fixture(scope="module")
def weights(tmp_path_factory, any_backend):
    model = model_of(any_backend)
    parameters = {p.name: model.weights[p.name] for p in model.spec.parameters}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return write_weights(path, model.spec, parameters, {**model.metadata, "units": "m"})


def write_globe(path, values, west=-180.0):
    rasterio = pytest.importorskip("rasterio")
    place = rasterio.Affine(CELL, 0.0, west, 0.0, -CELL, 45.0)
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:4326", transform=place, nodata=-9999, **shape) as file:
        file.write(values, 1)
        file.units = ("m",)
    return path


@pytest.mark.parametrize("suffix", [".tif", ".nc", ".zarr"])
def test_a_file_across_the_dateline_has_contiguous_longitudes(weights, any_backend, tmp_path, suffix):
    xarray, rasterio = pytest.importorskip("xarray"), pytest.importorskip("rasterio")
    source, target = write_globe(tmp_path / "globe.tif", smooth()), tmp_path / f"part{suffix}"
    words = ["predict", weights, source, target, "--exact", "--backend", any_backend, "--json"]
    done = call_cli(*words, "--bbox", "165,-30,-165,30")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bounds"] == [165.0, -30.0, 195.0, 30.0]
    fine = CELL / SCALE
    if suffix == ".tif":
        with rasterio.open(target) as file:
            assert file.bounds == (165.0, -30.0, 195.0, 30.0)
            assert file.crs.to_epsg() == 4326
            found = file.read(1)
    else:
        opened = xarray.open_zarr(target) if suffix == ".zarr" else xarray.open_dataset(target)
        with opened:
            np.testing.assert_allclose(opened["lon"], 165 + (np.arange(8 * SCALE) + 0.5) * fine, rtol=0, atol=1e-9)
            np.testing.assert_allclose(opened["lat"], 30 - (np.arange(16 * SCALE) + 0.5) * fine, rtol=0, atol=1e-9)
            found = opened["elevation"].values
    whole = run(model_of(any_backend), smooth(), MODES["exact"])[0]
    expected = np.concatenate([whole[:, -4 * SCALE :], whole[:, : 4 * SCALE]], axis=1)[4 * SCALE : 20 * SCALE]
    np.testing.assert_allclose(found, expected, atol=ROUNDING_M)


def test_a_file_that_ends_at_the_dateline_has_no_box_across_it(weights, any_backend, tmp_path):
    source = write_globe(tmp_path / "half.tif", smooth()[:, :48])
    words = ["predict", weights, source, tmp_path / "part.tif", "--backend", any_backend]
    done = call_cli(*words, "--bbox", "165,-30,-165,30")
    assert done.returncode == 2
    assert "west < east" in done.stderr
    assert "needs a raster that goes once round the globe" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.tif"]


def test_a_dataarray_from_zero_gives_what_lies_around_greenwich(any_backend):
    xarray = pytest.importorskip("xarray")
    values = smooth()
    grid = replace(GLOBE, west=0.0)
    array = xarray.DataArray(values, {"lat": grid.y(), "lon": grid.x()}, ("lat", "lon"), attrs={"units": "m"})
    fine = earthsr.predict(model_of(any_backend), array, mode="exact", tile=16, bbox=(-15, -30, 15, 30))
    np.testing.assert_allclose(fine["lon"], -15 + (np.arange(8 * SCALE) + 0.5) * CELL / SCALE, rtol=0, atol=1e-9)
    whole = run(model_of(any_backend), values, MODES["exact"], grid)[0]
    expected = np.concatenate([whole[:, -4 * SCALE :], whole[:, : 4 * SCALE]], axis=1)[4 * SCALE : 20 * SCALE]
    np.testing.assert_allclose(fine.values, expected, atol=ROUNDING_M)

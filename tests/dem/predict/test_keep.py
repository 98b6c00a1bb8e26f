"""Finer rasters stay, the model fills the rest without a wall, and a layer says which is which."""

import numpy as np
import pytest
import rasterio
from rasterio import warp

from earthsr.dem.predict.keep import KeepRequest, Kept, onto, open_kept, seam_shift, split_keep
from earthsr.dem.predict.plan import PredictOptions
from earthsr.dem.predict.rasters import predict_dataarray, predict_raster
from earthsr.errors import EarthsrWarning, InputError
from earthsr.geo import Window, open_source
from earthsr.geo.elevations import elevations
from tests.dem.predict.conftest import CELL, SCALE, hills, read_band, write_raster

OPTIONS = PredictOptions(tile=12)
FINE = CELL / SCALE


def fine_of(values):
    """A finer product of the same ground, 12 m higher."""
    return values.repeat(SCALE, axis=0).repeat(SCALE, axis=1) + 12


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    return write_raster(folder / "coarse.tif", hills(40, 56)), hills(40, 56)


def test_numbers_are_told_from_rasters():
    assert split_keep(["-9999", "srtm/N46*.tif", 0, "./5"]) == ((-9999.0, 0.0), ("srtm/N46*.tif", "./5"))


@pytest.mark.usefixtures("small_pieces")
def test_what_is_finer_stays_to_the_bit_and_is_named(model, ground, tmp_path):
    source, values = ground
    fine = fine_of(values)
    fine[:, 60:] = np.nan
    fine[30:40, 20:30] = np.nan  # a void in it
    first = write_raster(tmp_path / "first.tif", fine[:, :40], cell=FINE)
    second = write_raster(tmp_path / "second.tif", fine + 5, cell=FINE)
    plain = predict_raster(model, source, tmp_path / "plain.tif", OPTIONS)
    assert plain["bands"] == ["elevation"]
    result = predict_raster(model, source, tmp_path / "o.tif", OPTIONS, keep=[first, second], feather=8)
    assert result["bands"] == ["elevation", "source"]
    elevation, codes = read_band(tmp_path / "o.tif"), read_band(tmp_path / "o.tif", 2)
    expected = np.where(np.isfinite(fine), 2, 0)
    expected[:, :40][np.isfinite(fine[:, :40])] = 1
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(elevation[expected == 1], fine.astype(np.float32)[expected == 1])
    np.testing.assert_array_equal(elevation[expected == 2], (fine + 5).astype(np.float32)[expected == 2])
    # Far from what is kept the model is as it was.
    np.testing.assert_allclose(elevation[:, 60 + 8 + 1 :], read_band(tmp_path / "plain.tif")[:, 69:], atol=1e-2)
    provenance = result["provenance"]
    assert provenance["source_0"] == "the model"
    assert provenance["source_1"].startswith("first.tif; ")
    assert provenance["source_2"].startswith("second.tif; ")
    assert provenance["feather_cells"] == 8


@pytest.mark.usefixtures("small_pieces")
def test_pieces_of_any_size_give_the_same_seams(model, ground, tmp_path, monkeypatch):
    from earthsr.dem.predict import plan

    source, values = ground
    fine = fine_of(values)
    fine[:, 60:] = np.nan
    path = write_raster(tmp_path / "fine.tif", fine, cell=FINE)
    predict_raster(model, source, tmp_path / "small.zarr", OPTIONS, keep=[path], feather=8)
    monkeypatch.setattr(plan, "CHUNK", 64)
    predict_raster(model, source, tmp_path / "whole.zarr", OPTIONS, keep=[path], feather=8)
    small, whole = (open_source(tmp_path / f"{name}.zarr:elevation") for name in ("small", "whole"))
    with_pieces, without = (raster.read(Window(0, 0, 80, 112)) for raster in (small, whole))
    np.testing.assert_allclose(with_pieces, without, atol=2e-2)  # batches of another size round otherwise


def test_the_mean_difference_is_taken_out_gradually():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :200]
    truth = (200 * np.sin(columns / 40) * np.cos(rows / 30)).astype(np.float32)
    model = truth - 40 + rng.normal(size=truth.shape).astype(np.float32)
    kept = np.where(columns < 100, truth, np.float32(np.nan))
    kept[50:60, 40:50] = np.nan
    merged, _ = Kept([], 32).merged(model, kept, np.isfinite(kept).astype(np.float32), (0, 0))
    error = merged - truth
    assert (error[:, :100][np.isfinite(kept[:, :100])] == 0).all()
    # No wall: on the other side of the seam the mean is that of this side.
    assert abs(error[:, 100].mean()) < 1
    # A void is filled, shifted to fit.
    assert abs(error[50:60, 40:50].mean()) < 1
    # The shift ends, and it ends without a step.
    profile = (merged - model).mean(axis=0)
    assert profile[100] == pytest.approx(40, abs=1)
    assert profile[116] == pytest.approx(20, abs=3)
    assert abs(profile[132:]).max() < 1e-3
    assert abs(np.diff(profile[100:])).max() < 3
    wall, _ = Kept([], 0).merged(model, kept, np.isfinite(kept).astype(np.float32), (0, 0))
    assert (wall - truth)[:, 100].mean() == pytest.approx(-40, abs=1)


def test_a_shift_does_not_depend_on_the_window():
    rng = np.random.default_rng(1)
    valid = rng.random((160, 160)) > 0.995
    valid[:, :40] = True
    delta = np.where(valid, rng.normal(size=valid.shape), np.nan).astype(np.float32)
    whole = seam_shift(delta, valid, 8, (32, 64))
    part = slice(21, 150), slice(13, 149)
    window = seam_shift(delta[part], valid[part], 8, (32 + 21, 64 + 13))
    inner = slice(32, -32), slice(32, -32)
    np.testing.assert_allclose(window[inner], whole[part][inner], atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "north", "tolerance"), [(FINE, 47.0, 0), (FINE / 3, 47.0, 1e-3), (FINE, 47.0 + FINE / 2, 0.2)]
)
def test_finer_cells_come_onto_the_outputs(tmp_path, cell, north, tolerance):
    """The same cells are copied, smaller ones averaged, shifted ones interpolated: a plane shows where they lie."""
    rows, columns = round(60 * FINE / cell), round(60 * FINE / cell)
    latitude = north - (np.arange(rows) + 0.5) * cell
    longitude = 7 + (np.arange(columns) + 0.5) * cell
    path = write_raster(
        tmp_path / "plane.tif", 3000 * (latitude[:, None] - 46) + 900 * longitude, cell=cell, north=north
    )
    source = elevations(open_source(path))
    grid = elevations(open_source(write_raster(tmp_path / "c.tif", hills(20, 20)))).georeference.refined(SCALE)
    values = onto(source, grid)
    expected = 3000 * (grid.latitudes()[:, None] - 46) + 900 * grid.longitudes()
    inner = slice(2, -2), slice(2, -2)
    np.testing.assert_allclose(values[inner], expected[inner], atol=max(tolerance, 1e-3) + 1e-3)


def test_a_flat_sea_is_no_measurement(tmp_path):
    values = hills(48, 48) / 20
    values[:, :24] = -80 + hills(48, 24, seed=2) / 100
    fine = np.maximum(fine_of(values) - 12, 0)
    source = elevations(open_source(write_raster(tmp_path / "c.tif", values)))
    path = write_raster(tmp_path / "srtm.tif", fine, cell=FINE)
    kept = open_kept(KeepRequest((str(path),)), source, SCALE)
    assert "its sea of exactly 0 m is not kept" in "; ".join(kept.rasters[0].words)
    elevation, codes = kept.read(source, Window(0, 0, 48, 48), SCALE)
    assert np.isnan(elevation[:, :40]).all()
    assert (codes[:, :40] == 0).all()
    assert (codes[:, 56:] == 1).all()


def test_registration_is_measured_and_said(tmp_path):
    from earthsr.geo.resample import block_mean, interpolate

    values = interpolate(hills(30, 30).astype(np.float64), 4, "bicubic")
    source = elevations(open_source(write_raster(tmp_path / "c.tif", block_mean(values, SCALE))))
    # Half a fine cell too far north.
    shifted = write_raster(tmp_path / "high.tif", values, cell=FINE, north=47 + FINE / 2)
    with pytest.warns(EarthsrWarning, match=r"--keep high.tif: lies .* \+0.4\d\d north of the input.*--register"):
        kept = open_kept(KeepRequest((str(shifted),)), source, SCALE)
    assert "standard error" in kept.provenance()["source_1"]


def test_a_dataarray_has_a_layer_of_sources(model, ground, tmp_path):
    xarray = pytest.importorskip("xarray")
    _, values = ground
    axes = {"lat": 47 - (np.arange(40) + 0.5) * CELL, "lon": 7 + (np.arange(56) + 0.5) * CELL}
    array = xarray.DataArray(values.astype(np.float32), axes, ("lat", "lon"), attrs={"units": "m"})
    path = write_raster(tmp_path / "fine.tif", fine_of(values)[:, :40], cell=FINE)
    result = predict_dataarray(model, array, OPTIONS, keep=[path])
    assert set(result.data_vars) == {"elevation", "source"}
    assert result.source.attrs["units"] == "1"
    assert (result.source.values[:, :40] == 1).all()
    assert (result.source.values[:, 40:] == 0).all()


def test_a_raster_in_another_crs_stays_where_it_is_on_the_ground(model, ground, tmp_path):
    """A plane in degrees, written in metres of UTM: what stays is the plane again, and the provenance says how."""
    source, _ = ground
    with rasterio.open(source) as file:
        west, _, _, north = file.bounds

    def plane(longitude, latitude):
        return 500 + 2000 * (longitude - west) + 3000 * (latitude - north)

    left, top = (axis[0] for axis in warp.transform("EPSG:4326", "EPSG:32632", [west + 0.02], [north - 0.02]))
    size, rows, columns = 70.0, 90, 70
    x, y = np.meshgrid(left + size * (np.arange(columns) + 0.5), top - size * (np.arange(rows) + 0.5))
    longitude, latitude = warp.transform("EPSG:32632", "EPSG:4326", x.ravel(), y.ravel())
    values = plane(np.array(longitude), np.array(latitude)).reshape(rows, columns)
    utm = write_raster(tmp_path / "utm.tif", values, west=left, north=top, cell=size, crs="EPSG:32632")
    result = predict_raster(model, source, tmp_path / "o.tif", OPTIONS, keep=[utm], feather=4)
    elevation, codes = read_band(tmp_path / "o.tif"), read_band(tmp_path / "o.tif", 2)
    kept = codes == 1
    # At its edge a cell is interpolated from what lies inside alone.
    inner = [np.roll(kept, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    row, column = np.nonzero(np.logical_and.reduce(inner))
    assert len(row) > 500
    expected = plane(west + (column + 0.5) * FINE, north - (row + 0.5) * FINE)
    # GDAL's warper places cells to an eighth of one; from cell to cell the plane rises by 4 and by 6 m.
    np.testing.assert_allclose(elevation[row, column], expected, atol=0.6)
    assert "interpolated from EPSG:32632 onto" in result["provenance"]["source_1"]


def test_what_cannot_be_kept_is_refused(ground, tmp_path):
    source, values = ground
    raster = elevations(open_source(source))
    coarse = write_raster(tmp_path / "same.tif", values)
    for names, words in (
        ((str(coarse),), "same.tif: its cells are"),
        ((str(write_raster(tmp_path / "far.tif", values, west=50.0, cell=FINE)),), "far.tif: shares no ground"),
        ((str(tmp_path / "no*.tif"),), "no file has such a name"),
    ):
        with pytest.raises(InputError, match=words):
            open_kept(KeepRequest(names), raster, SCALE)
    with pytest.raises(InputError, match="--feather is -1"):
        open_kept(KeepRequest((), -1), raster, SCALE)

"""``earthsr predict`` from raster to raster, and its errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import earthsr
from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.dem.predict.plan import PredictOptions
from earthsr.dem.predict.rasters import predict_raster
from earthsr.errors import EarthsrWarning, InputError
from earthsr.models import DemSRNetSpec, write_weights
from tests.conftest import call_cli

rasterio = pytest.importorskip("rasterio")
xarray = pytest.importorskip("xarray")

SCALE = 5
CELL = 1 / 240  # 15 arc-seconds
WEST, NORTH = 7.25, 47.125


def write_model(path, seed=0, cell=CELL, zero=False, **fields):
    spec = DemSRNetSpec(**{"features": 4, "num_blocks": 1, "residual_over": "bicubic", **fields})
    rng = np.random.default_rng(seed)
    factor = 0.0 if zero else 1.0
    weights = {p.name: (factor * rng.normal(size=p.shape) * p.fan_in**-0.5).astype(np.float32) for p in spec.parameters}
    metadata = {
        "task": "dem_sr",
        "units": "m",
        "normalisation": Normalisation("patch", 0.0, 200.0).to_dict(),
        "input_cell_size_deg": cell,
        "output_cell_size_deg": cell / SCALE,
    }
    write_weights(path, spec, weights, metadata)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def hills(rows=40, columns=60, seed=0):
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1)
    return np.round(1500 + 300 * (field - field.mean()) / field.std())


def write_tif(path, values, dtype="int16", nodata=-32768, crs="EPSG:4326", transform=None, units="m", **tags):
    from rasterio.transform import from_origin

    rows, columns = values.shape
    transform = transform or from_origin(WEST, NORTH, CELL, CELL)
    profile = {"driver": "GTiff", "height": rows, "width": columns, "count": 1, "dtype": dtype}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata) as file:
        stored = values if nodata is None else np.where(np.isnan(values), nodata, values)
        file.write(stored.astype(dtype), 1)
        file.update_tags(**tags)
        if units:
            file.units = (units,)
    return path


@pytest.fixture
def tif(tmp_path):
    values = hills()
    values[10:13, 20:24] = np.nan
    return write_tif(tmp_path / "coarse.tif", values)


def read_tif(path, band=1):
    with rasterio.open(path) as file:
        stored = file.read(band).astype(np.float32)
        return np.where(stored == file.nodata, np.nan, stored)


def predict(weights, backend, source, target, *options, code=0):
    done = call_cli("predict", weights, source, target, "--backend", backend, *options)
    assert done.returncode == code, done.stderr
    return done


def in_one_piece(weights, backend, values, **options):
    model = Model.from_checkpoint(weights, backend=backend)
    return model.submit(values.astype(np.float32)[None, None]).result()[0, 0]


def test_a_geotiff_becomes_a_finer_one_in_its_place(weights, any_backend, tif, tmp_path):
    done = predict(weights, any_backend, tif, tmp_path / "fine.tif", "--exact", "--json")
    result = json.loads(done.stdout)
    with rasterio.open(tif) as coarse, rasterio.open(tmp_path / "fine.tif") as fine:
        # The input's corner, and its cells divided by the scale: to the last bit.
        assert (fine.transform.c, fine.transform.f) == (coarse.transform.c, coarse.transform.f)
        assert (fine.transform.a, fine.transform.e) == (coarse.transform.a / SCALE, coarse.transform.e / SCALE)
        assert fine.shape == (200, 300)
        assert fine.bounds == pytest.approx(coarse.bounds, abs=1e-12)
        assert fine.crs == coarse.crs
        assert fine.nodata == -32768
        assert fine.units == ("m",)
        assert fine.dtypes == ("float32",)
        assert fine.profile["tiled"]
        assert fine.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert fine.descriptions == ("elevation",)
        tags = fine.tags()
        assert tags["mode"] == "exact"
        assert tags["source"] == "coarse.tif"
        assert tags["checkpoint"].endswith("model.safetensors")
        assert tags["earthsr_version"] == earthsr.__version__
    values = read_tif(tif)
    found = read_tif(tmp_path / "fine.tif")
    void = np.isnan(values).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    np.testing.assert_array_equal(np.isnan(found), void)
    expected = in_one_piece(weights, any_backend, values)
    np.testing.assert_allclose(found[~void], expected[~void], atol=0.02)
    assert result["output_shape"] == [200, 300]
    assert result["valid_cells"] == int((~void).sum())
    assert result["area_mean_residual_m"]["before"]["largest"] > 0
    assert "MB" not in done.stderr


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_other_formats_say_the_same(weights, any_backend, tif, tmp_path, suffix):
    predict(weights, any_backend, tif, tmp_path / "fine.tif", "--exact")
    predict(weights, any_backend, tif, tmp_path / f"fine{suffix}", "--exact")
    opened = (
        xarray.open_zarr(tmp_path / "fine.zarr") if suffix == ".zarr" else xarray.open_dataset(tmp_path / "fine.nc")
    )
    with opened:
        field = opened["elevation"].load()
        np.testing.assert_array_equal(field.values, read_tif(tmp_path / "fine.tif"))
        assert field.attrs["units"] == "m"
        latitude, longitude = field[field.dims[0]], field[field.dims[1]]
        assert latitude.attrs["standard_name"] == "latitude"
        np.testing.assert_allclose(longitude.values, WEST + (np.arange(300) + 0.5) * CELL / SCALE, atol=1e-12)
        np.testing.assert_allclose(latitude.values, NORTH - (np.arange(200) + 0.5) * CELL / SCALE, atol=1e-12)
        assert opened.attrs["mode"] == "exact"
    # And what was written is read again.
    half = write_model(tmp_path / "again.safetensors", cell=CELL / SCALE)
    predict(half, any_backend, tmp_path / f"fine{suffix}", tmp_path / "finer.tif", "--bbox", "7.3,47.0,7.35,47.05")
    with rasterio.open(tmp_path / "finer.tif") as finer:
        assert finer.transform.a == pytest.approx(CELL / 25, rel=1e-12)


def test_a_box_is_the_same_as_in_the_whole(weights, any_backend, tif, tmp_path):
    predict(weights, any_backend, tif, tmp_path / "whole.tif", "--exact")
    west, south = WEST + 10 * CELL, NORTH - 30 * CELL
    east, north = WEST + 45 * CELL, NORTH - 5 * CELL
    predict(weights, any_backend, tif, tmp_path / "part.tif", "--exact", "--bbox", f"{west},{south},{east},{north}")
    with rasterio.open(tmp_path / "part.tif") as part:
        assert part.bounds == pytest.approx((west, south, east, north), abs=1e-9)
    np.testing.assert_allclose(
        read_tif(tmp_path / "part.tif"), read_tif(tmp_path / "whole.tif")[25:150, 50:225], atol=0.02
    )


def test_terrain_stays_where_it_is_on_the_map(any_backend, tmp_path):
    # Zero weights leave the interpolated surface. A ramp of 1 m per coarse cell, as a pixel-is-point file has it:
    # its values belong to the centres of its cells, and so do those of the output.
    from rasterio.transform import from_origin

    weights = write_model(tmp_path / "zero.safetensors", zero=True)
    lon, lat = WEST + (np.arange(60) + 0.5) * CELL, NORTH - (np.arange(40) + 0.5) * CELL
    ramp = 1000 + 240 * (lon[None, :] - WEST) + 480 * (lat[:, None] - 47)
    for kind in ("Area", "Point"):
        path = write_tif(
            tmp_path / f"{kind}.tif",
            ramp,
            "float32",
            None,
            transform=from_origin(WEST, NORTH, CELL, CELL),
            AREA_OR_POINT=kind,
        )
        predict(weights, any_backend, path, tmp_path / "fine.tif", "--exact", "--overwrite")
        with rasterio.open(tmp_path / "fine.tif") as fine:
            columns, rows = np.meshgrid(np.arange(300), np.arange(200))
            x, y = rasterio.transform.xy(fine.transform, rows.ravel(), columns.ravel())
            found = fine.read(1).ravel()
        expected = 1000 + 240 * (np.array(x) - WEST) + 480 * (np.array(y) - 47)
        inner = ((columns > 15) & (columns < 285) & (rows > 15) & (rows < 185)).ravel()
        # A hundredth of a fine cell on the gentler slope, and float32's rounding at 1,000 m.
        assert np.abs(found - expected)[inner].max() < 0.01 * 1 / SCALE + 1.3e-4


def test_conserving_and_the_ensemble(weights, any_backend, tif, tmp_path):
    second = write_model(tmp_path / "second.safetensors", seed=1)
    options = ["--conserve", "--symmetries", "--ensemble", second, "--exact", "--json"]
    result = json.loads(predict(weights, any_backend, tif, tmp_path / "fine.tif", *options).stdout)
    assert result["members"] == 16
    assert result["bands"] == ["elevation", "spread"]
    residual = result["area_mean_residual_m"]
    # float32 keeps 2,500 m to 1.2e-4 m.
    assert residual["before"]["largest"] > 1
    assert residual["after"]["largest"] < 2.5e-4
    with rasterio.open(tmp_path / "fine.tif") as fine:
        assert fine.descriptions == ("elevation", "spread")
        assert fine.units == ("m", "m")
    elevation, spread = (read_tif(tmp_path / "fine.tif", band) for band in (1, 2))
    np.testing.assert_array_equal(np.isnan(elevation), np.isnan(spread))
    assert np.nanmin(spread) >= 0
    assert np.nanmax(spread) > 1
    # One degree is some 0.007 % of a cell's height here: area means and plain means differ by less than rounding.
    means = elevation.reshape(40, SCALE, 60, SCALE).astype(np.float64).mean(axis=(1, 3))
    np.testing.assert_allclose(means, read_tif(tif), atol=0.01)


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(weights, any_backend, tif, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = predict(weights, any_backend, tif, tmp_path / "fine.tif", "--dry-run", "--json")
    result = json.loads(done.stdout)
    assert result["output_shape"] == [200, 300]
    assert result["windows"] == 1
    assert result["bytes_uncompressed"] == 4 * 200 * 300
    assert result["bytes_free"] > 0
    assert result["estimated_seconds"] > 0
    assert sorted(tmp_path.iterdir()) == before
    # Folders that the output needs are made when it is written.
    text = predict(
        weights, any_backend, tif, tmp_path / "new" / "folder" / "fine.tif", "--dry-run", "--tile", "16"
    ).stdout
    assert " GB free" in text
    assert sorted(tmp_path.iterdir()) == before
    assert "windows of 16 x 16 coarse cells" in text
    assert "nothing was written" in text


def test_gaussian_says_how_far_it_is_from_exact(weights, any_backend, tif, tmp_path):
    words = ["--tile", "16", "--overlap", "0.5", "--compare-exact", "--json"]
    result = json.loads(predict(weights, any_backend, tif, tmp_path / "a.tif", *words).stdout)
    predict(weights, any_backend, tif, tmp_path / "b.tif", "--exact")
    gap = np.nanmax(np.abs(read_tif(tmp_path / "a.tif") - read_tif(tmp_path / "b.tif")))
    assert result["difference_from_exact_m"] == pytest.approx(float(gap), rel=1e-3)
    assert result["compared_coarse_cells"] == 40 * 60


def test_from_python_a_dataarray_in_and_one_out(weights, any_backend, tif):
    model = earthsr.from_pretrained(weights, backend=any_backend)
    values = read_tif(tif)
    lat, lon = NORTH - (np.arange(40) + 0.5) * CELL, WEST + (np.arange(60) + 0.5) * CELL
    array = xarray.DataArray(
        values[::-1], {"lat": lat[::-1], "lon": lon}, ("lat", "lon"), name="topo", attrs={"units": "m"}
    )
    fine = earthsr.predict(model, array, mode="exact")
    assert fine.dims == ("lat", "lon")
    assert fine.shape == (200, 300)
    assert fine.lat.values[0] < fine.lat.values[-1]
    np.testing.assert_allclose(fine.lon.values, WEST + (np.arange(300) + 0.5) * CELL / SCALE, atol=1e-12)
    expected = in_one_piece(weights, any_backend, values)
    valid = np.isfinite(fine.values[::-1])
    np.testing.assert_allclose(fine.values[::-1][valid], expected[valid], atol=0.02)
    assert fine.attrs["units"] == "m"
    both = earthsr.predict(model, array, symmetries=True)
    assert set(both.data_vars) == {"elevation", "spread"}
    part = earthsr.predict(model, array, mode="exact", bbox=(WEST, NORTH - 10 * CELL, WEST + 10 * CELL, NORTH))
    np.testing.assert_allclose(part.values, fine.values[150:, :50], atol=0.02)
    with pytest.raises(TypeError, match="smoothness"):
        earthsr.predict(model, array, smoothness=3)
    with pytest.raises(InputError, match=r"mode: .*DataArray"):
        earthsr.predict(model, values, mode="exact")


def test_cells_of_another_size_are_warned_about(any_backend, tif, tmp_path):
    model = write_model(tmp_path / "other.safetensors", cell=CELL / 5)
    with pytest.warns(EarthsrWarning, match=r"cells of 0\.00416667 degrees; the model was trained on 0\.000833333"):
        predict_raster(earthsr.from_pretrained(model, backend=any_backend), tif, tmp_path / "fine.tif")


def test_heights_that_no_patch_had_are_warned_about(weights, any_backend, tmp_path):
    values = hills()
    values[:, 30:] += 4000
    path = write_tif(tmp_path / "high.tif", values)
    model = earthsr.from_pretrained(weights, backend=any_backend)
    with pytest.warns(EarthsrWarning, match="Gaussian mode, or a model with local_mean"):
        predict_raster(model, path, tmp_path / "a.tif", PredictOptions("exact"))
    local = write_model(tmp_path / "local.safetensors", local_mean=4)
    model = earthsr.from_pretrained(local, backend=any_backend)
    predict_raster(model, path, tmp_path / "b.tif", PredictOptions("exact"))


def test_a_part_of_a_large_raster_does_not_read_all_of_it(weights, any_backend, tmp_path, monkeypatch):
    from earthsr.geo.geotiff import GdalSource

    path = write_tif(tmp_path / "large.tif", hills(400, 1200))
    local = write_model(tmp_path / "local.safetensors", local_mean=4)
    box = ["--bbox", f"{WEST + 5 * CELL},{NORTH - 25 * CELL},{WEST + 25 * CELL},{NORTH - 5 * CELL}", "--overwrite"]
    read = GdalSource.read
    cells = []

    def counted(self, window):
        cells.append(window.rows * window.columns)
        return read(self, window)

    monkeypatch.setattr(GdalSource, "read", counted)
    # The Gaussian mode normalises each window by itself; local means make the raster's own one immaterial.
    for model, words in ((weights, []), (local, ["--exact"])):
        cells.clear()
        predict(model, any_backend, path, tmp_path / "part.tif", *box, *words)
        assert 0 < sum(cells) < 400 * 1200 / 4
    cells.clear()
    predict(weights, any_backend, path, tmp_path / "part.tif", *box, "--exact")
    assert sum(cells) > 400 * 1200


# Bad input: one line, exit code 2, and nothing written


def refused(weights, backend, source, target, *words, options=()):
    folder = Path(target).parent
    before = sorted(folder.rglob("*"))
    done = call_cli("predict", weights, source, target, "--backend", backend, *options)
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert sorted(folder.rglob("*")) == before
    return lines[0]


def test_rasters_that_cannot_be_placed(weights, any_backend, tmp_path):
    from affine import Affine

    no_crs = write_tif(tmp_path / "no.tif", hills(), crs=None)
    refused(weights, any_backend, no_crs, tmp_path / "o.tif", "no.tif", "CRS", "rio edit-info --crs")
    rotated = Affine.translation(WEST, NORTH) * Affine.rotation(20) * Affine.scale(CELL, -CELL)
    turned = write_tif(tmp_path / "turned.tif", hills(), transform=rotated)
    refused(weights, any_backend, turned, tmp_path / "o.tif", "turned.tif", "rotated", "rio warp")


def test_a_fill_value_that_is_not_declared_is_refused_and_its_remedy_works(weights, any_backend, tmp_path):
    values = hills()
    values[10:13, 20:24] = -9999
    undeclared = write_tif(tmp_path / "bare.tif", values, nodata=None)
    words = ("bare.tif", "12 cells hold -9999", "row 10, column 20", "--nodata -9999")
    refused(weights, any_backend, undeclared, tmp_path / "o.tif", *words)
    predict(weights, any_backend, undeclared, tmp_path / "o.tif", "--nodata", "-9999")
    assert np.isnan(read_tif(tmp_path / "o.tif")).sum() == 12 * SCALE**2


def test_several_void_values(weights, any_backend, tmp_path):
    values = hills()
    values[10:13, 20:24] = np.nan
    values[30, 30], values[31, 5] = -32768, 32767
    merged = write_tif(tmp_path / "merged.tif", values, nodata=-9999)
    refused(weights, any_backend, merged, tmp_path / "o.tif", "merged.tif", "holds -32768 in row 30", "--nodata -32768")
    predict(weights, any_backend, merged, tmp_path / "o.tif", "--nodata", "-32768", "--nodata", "32767")
    found = read_tif(tmp_path / "o.tif")
    assert np.isnan(found).sum() == 14 * SCALE**2
    assert np.nanmin(found) > -3000  # with a void taken for ground it is near -10,000


def test_depths_become_heights(weights, any_backend, tmp_path):
    values = hills()
    source = write_tif(tmp_path / "depth.tif", values, standard_name="sea_floor_depth_below_geoid")
    done = predict(weights, any_backend, source, tmp_path / "o.tif")
    assert "depth.tif: depths" in done.stderr
    with rasterio.open(tmp_path / "o.tif") as file:
        assert "depths" in file.tags()["input_notes"]
        assert file.tags(1)["standard_name"] == "altitude"
    found = read_tif(tmp_path / "o.tif")
    assert np.nanmean(found) == pytest.approx(-values.mean(), abs=300)
    predict(weights, any_backend, source, tmp_path / "up.tif", "--positive", "up")
    assert np.nanmean(read_tif(tmp_path / "up.tif")) == pytest.approx(values.mean(), abs=300)
    refused(weights, any_backend, source, tmp_path / "no.tif", "--positive is 'left'", options=("--positive", "left"))


def test_metres_that_are_assumed_are_written(weights, any_backend, tmp_path):
    source = write_tif(tmp_path / "bare.tif", hills(), units="")
    done = predict(weights, any_backend, source, tmp_path / "o.nc")
    assert "bare.tif: has no units; metres are assumed" in done.stderr
    with xarray.open_dataset(tmp_path / "o.nc") as dataset:
        assert dataset.elevation.attrs["units"] == "m"
        assert dataset.elevation.attrs["standard_name"] == "height_above_mean_sea_level"
        assert "has no units, metres are assumed" in dataset.attrs["input_notes"]
        assert "has no standard_name, height_above_mean_sea_level is assumed" in dataset.attrs["input_notes"]
    again = predict(weights, any_backend, tmp_path / "o.nc", tmp_path / "again.tif")
    assert "units" not in again.stderr
    with rasterio.open(tmp_path / "again.tif") as file:
        assert (file.units, file.tags(1)["standard_name"]) == (("m",), "height_above_mean_sea_level")
        assert "standard_name" not in file.tags().get("input_notes", "")
    ellipsoidal = write_tif(tmp_path / "wgs.tif", hills(), units="", vertical_datum="WGS 84 ellipsoid")
    predict(weights, any_backend, ellipsoidal, tmp_path / "o.zarr")
    with xarray.open_zarr(tmp_path / "o.zarr") as dataset:
        assert dataset.elevation.attrs["standard_name"] == "height_above_reference_ellipsoid"
        assert dataset.elevation.attrs["units"] == "m"


def test_what_is_written_is_held_to_what_is_read(any_backend, tmp_path):
    """Weights that overshoot, as a model does beside a spike."""
    wild = write_model(tmp_path / "wild.safetensors", residual_over="bicubic")
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(wild, "np") as handle:
        arrays, metadata = {key: handle.get_tensor(key) * 40 for key in list(handle.keys())}, handle.metadata()
    save_file(arrays, wild, metadata)
    source = write_tif(tmp_path / "coarse.tif", hills())
    before = sorted(tmp_path.rglob("*"))
    done = call_cli("predict", wild, source, tmp_path / "o.tif", "--backend", any_backend)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in (
        "error: coarse.tif: the prediction is",
        "row",
        "of the output",
        "-12,000 to 9,500 m",
        "the input there",
    ):
        assert word in last
    assert sorted(tmp_path.rglob("*")) == before
    clipped = call_cli("predict", wild, source, tmp_path / "o.tif", "--backend", any_backend, "--clip", "--json")
    assert clipped.returncode == 0
    count = json.loads(clipped.stdout)["clipped_cells"]
    assert count > 0
    assert f"{count} cells were predicted beyond" in clipped.stderr
    assert json.loads(clipped.stdout)["provenance"]["clipped_cells"] == count
    written = read_tif(tmp_path / "o.tif")
    assert (written.min(), written.max()) == (-12_000, 9_500)


@pytest.mark.parametrize("scale", [4, 5])
@pytest.mark.parametrize("suffix", [".tif", ".nc"])
def test_a_globe_of_nodes_ends_at_the_poles_and_goes_round(any_backend, tmp_path, suffix, scale):
    rows, columns = 37, 73
    latitude, longitude = np.linspace(90, -90, rows), np.linspace(-180, 180, columns)
    values = 100 * np.cos(np.deg2rad(latitude))[:, None] * np.cos(np.deg2rad(longitude))[None, :]
    source = tmp_path / f"nodes{suffix}"
    if suffix == ".tif":
        from rasterio.transform import from_origin

        write_tif(source, values, dtype="float32", nodata=None, transform=from_origin(-182.5, 92.5, 5, 5))
    else:
        coordinates = {"lat": latitude[::-1], "lon": longitude}
        xarray.DataArray(values[::-1], coordinates, name="z", attrs={"units": "m"}).to_netcdf(source)
    model = write_model(tmp_path / "model.safetensors", cell=5.0, scale=scale, zero=True)
    predict(model, any_backend, source, tmp_path / "o.nc", "--exact")
    with xarray.open_dataset(tmp_path / "o.nc") as dataset:
        found = dataset.elevation.load()
    assert found.shape == ((rows - 1) * scale + scale % 2, (columns - 1) * scale)
    assert abs(found.lat).max() <= 90
    assert found.lat.max() > 90 - 5 / scale
    wanted = 100 * np.cos(np.deg2rad(found.lat)) * np.cos(np.deg2rad(found.lon))
    assert float(abs(found - wanted).max()) < 2
    predict(model, any_backend, source, tmp_path / "part.nc", "--bbox", "170,-20,-170,0")
    with xarray.open_dataset(tmp_path / "part.nc") as dataset:
        assert float(dataset.elevation.max()) < -90
        assert 167 < float(dataset.lon.min()) < 190 < float(dataset.lon.max()) < 193


def test_cells_in_survey_feet_have_their_size_in_metres(weights, any_backend, tmp_path):
    from rasterio.transform import from_origin

    side = CELL * np.pi / 180 * 6_371_008.8 * 3937 / 1200  # 15 arc-seconds in US survey feet
    source = write_tif(tmp_path / "a.tif", hills(), crs="EPSG:2264", transform=from_origin(1e6, 5e5, side, side))
    assert "model was trained" not in predict(weights, any_backend, source, tmp_path / "o.tif").stderr


def test_a_decoded_dataarray_gives_what_the_command_gives(weights, any_backend, tmp_path):
    values = hills() - 1500
    values[values < -100] = 0
    stored = ((values + 500) / 0.5).round()
    stored[3, 4] = 0  # the fill value; 0 m is stored as 1000
    array = xarray.DataArray(
        stored.astype(np.int16),
        {"lat": NORTH - CELL * (np.arange(40) + 0.5), "lon": WEST + CELL * (np.arange(60) + 0.5)},
        name="elevation",
        attrs={"units": "m", "scale_factor": 0.5, "add_offset": -500.0, "_FillValue": np.int16(0)},
    )
    array.to_netcdf(tmp_path / "packed.nc")
    predict(weights, any_backend, tmp_path / "packed.nc", tmp_path / "o.nc")
    model = Model.from_checkpoint(weights, backend=any_backend)
    with xarray.open_dataset(tmp_path / "packed.nc") as dataset, xarray.open_dataset(tmp_path / "o.nc") as command:
        found = earthsr.predict(model, dataset.elevation)
        assert int(np.isnan(found).sum()) == SCALE**2
        np.testing.assert_array_equal(found.values, command.elevation.values)


def test_values_that_are_no_elevations_in_metres(weights, any_backend, tmp_path):
    feet = write_tif(tmp_path / "feet.tif", hills(), units="ft")
    refused(weights, any_backend, feet, tmp_path / "o.tif", "feet.tif", "ft", "metres")
    predict(weights, any_backend, feet, tmp_path / "forced.tif", "--units", "m")
    void = write_tif(tmp_path / "void.tif", np.full((20, 20), np.nan))
    refused(weights, any_backend, void, tmp_path / "o.tif", "void.tif", "no cell has a value", "--bbox")
    values = hills()
    values[7, 9] = -32768
    fill = write_tif(tmp_path / "fill.tif", values, nodata=None)
    line = refused(weights, any_backend, fill, tmp_path / "o.tif", "fill.tif", "-32768", "row 7, column 9", "--nodata")
    assert "-12,000 to 9,500 m" in line
    predict(weights, any_backend, fill, tmp_path / "filled.tif", "--nodata", "-32768")
    assert np.isnan(read_tif(tmp_path / "filled.tif")[35:40, 45:50]).all()


def test_a_box_beyond_the_raster_is_cut_and_said(weights, any_backend, tif, tmp_path):
    box = f"{WEST - 1},{NORTH - 10 * CELL},{WEST + 10 * CELL},{NORTH}"
    done = predict(weights, any_backend, tif, tmp_path / "part.tif", "--bbox", box)
    assert "reaches beyond the raster; what comes out covers" in done.stderr
    assert read_tif(tmp_path / "part.tif").shape == (50, 50)


def test_what_other_options_would_change_is_said(weights, any_backend, tif, tmp_path):
    plain = predict(weights, any_backend, tif, tmp_path / "plain.tif")
    assert "(--conserve makes them equal)" in plain.stdout
    conserved = predict(weights, any_backend, tif, tmp_path / "conserved.tif", "--conserve")
    assert "; conserved: largest" in conserved.stdout
    assert "--conserve" not in conserved.stdout


def test_keep_takes_numbers_and_rasters(weights, any_backend, tmp_path):
    values = hills()
    values[10:13, 20:24] = -9999
    bare = write_tif(tmp_path / "bare.tif", values, nodata=None)
    transform = rasterio.Affine(CELL / SCALE, 0, WEST, 0, -CELL / SCALE, NORTH)
    finer = write_tif(tmp_path / "finer.tif", hills(100, 150, seed=3), transform=transform)
    options = ("--keep", "-9999", "--keep", finer, "--feather", "4", "--json")
    done = predict(weights, any_backend, bare, tmp_path / "o.tif", *options)
    assert json.loads(done.stdout)["bands"] == ["elevation", "source"]
    assert "--keep finer.tif: " in done.stderr
    np.testing.assert_array_equal(read_tif(tmp_path / "o.tif")[:100, :150], read_tif(finer))
    source = read_tif(tmp_path / "o.tif", 2)
    assert (source[:100, :150] == 1).all()
    assert source.sum() == 100 * 150
    refused(
        weights, any_backend, bare, tmp_path / "n.tif", "absent.tif: no such file", options=["--keep", "absent.tif"]
    )


def test_tiles_are_a_folder_with_a_vrt(weights, any_backend, tif, tmp_path):
    predict(weights, any_backend, tif, tmp_path / "tiles", "--tiles", "0.25")
    names = {path.name for path in (tmp_path / "tiles").iterdir()}
    assert names == {"N46.75E007.25.tif", "N47.00E007.25.tif", "tiles.vrt", "collection.json", "items"}
    refused(weights, any_backend, tif, tmp_path / "t.tif", "without .tif", options=["--tiles", "0.25"])
    refused(weights, any_backend, tif, tmp_path / "o.npz", "in one piece", options=["--tiles", "1"])


@pytest.mark.slow
def test_workers_of_dask_give_the_same_bytes(weights, any_backend, tif, tmp_path):
    pytest.importorskip("distributed")
    predict(weights, any_backend, tif, tmp_path / "here.tif", "--tile", "16")
    options = ("--tile", "16", "--scheduler", "dask", "--workers", "2")
    predict(weights, any_backend, tif, tmp_path / "there.tif", *options)
    assert (tmp_path / "here.tif").read_bytes() == (tmp_path / "there.tif").read_bytes()
    refused(weights, any_backend, tif, tmp_path / "o.tif", "expected local or dask", options=["--scheduler", "slurm"])


def test_options_that_do_not_fit(weights, any_backend, tif, tmp_path):
    refused(
        weights,
        any_backend,
        tif,
        tmp_path / "o.tif",
        "--bbox 50,50,51,51",
        "outside",
        options=["--bbox", "50,50,51,51"],
    )
    refused(
        weights,
        any_backend,
        tif,
        tmp_path / "o.tif",
        "--bbox is '1,2,3'",
        "west,south,east,north",
        options=["--bbox", "1,2,3"],
    )
    refused(weights, any_backend, tif, tmp_path / "o.tif", "west < east", options=["--bbox", "8,46,7,47"])
    refused(weights, any_backend, tif, tmp_path / "o.tif", "finite numbers", options=["--bbox", "-inf,46,inf,47"])
    refused(weights, any_backend, tif, tmp_path / "o.tif", "--overlap is 1", options=["--overlap", "1"])
    refused(weights, any_backend, tif, tmp_path / "o.tif", "leave --exact out", options=["--exact", "--compare-exact"])
    refused(weights, any_backend, tif, tmp_path / "o.npz", "in one piece", options=["--overlap", "0.5"])
    refused(weights, any_backend, tif, tmp_path / "o.tif", "--tile is 0", options=["--tile", "0"])
    refused(weights, any_backend, tif, tmp_path / "o.tif", "--batch-size is -1", options=["--batch-size", "-1"])
    other = write_model(tmp_path / "twice.safetensors", scale=2)
    refused(weights, any_backend, tif, tmp_path / "o.tif", "enlarges by 2", options=["--ensemble", other])


def test_places_that_cannot_be_written(weights, any_backend, tif, tmp_path):
    refused(weights, any_backend, tif, tmp_path / "o.xyz", ".xyz", ".tif", ".nc", ".zarr")
    (tmp_path / "there.tif").write_text("something")
    refused(weights, any_backend, tif, tmp_path / "there.tif", "is there already", "--overwrite")
    predict(weights, any_backend, tif, tmp_path / "there.tif", "--overwrite")
    (tmp_path / "file").write_text("no folder")
    refused(weights, any_backend, tif, tmp_path / "file" / "o.tif", "file")
    refused(weights, any_backend, tmp_path / "absent.tif", tmp_path / "o.tif", "absent.tif: no such file")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(tif.read_bytes()[:3000])
    refused(weights, any_backend, cut, tmp_path / "o.tif", "cut.tif")


@pytest.mark.parametrize("suffix", [".tif", ".nc", ".zarr"])
def test_a_read_only_folder(weights, any_backend, tif, tmp_path, suffix):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        # Root may write anywhere but where the kernel keeps its own.
        folder = Path("/sys/kernel")
        if not folder.is_dir():
            pytest.skip("no folder here is read-only")
    target = folder / f"fine{suffix}"
    done = call_cli("predict", weights, tif, target, "--backend", any_backend)
    assert done.returncode == 2, done.stderr
    assert f"cannot write {target}" in done.stderr
    assert not list(folder.glob("*fine*"))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tif", ".nc", ".zarr"])
def test_a_full_disk_leaves_nothing_behind(weights, any_backend, tif, tmp_path, suffix):
    # A limit on the size of files stands for the disk: writing fails half way.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from earthsr.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    target = tmp_path / "out" / f"fine{suffix}"
    words = ["predict", weights, tif, target, "--backend", any_backend]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "fine" in lines[-1]
    assert not target.parent.exists()  # it was made for the file


@pytest.mark.slow
def test_a_kill_leaves_no_file_that_looks_whole(any_backend, tmp_path):
    weights = write_model(tmp_path / "big.safetensors", features=32, num_blocks=8)
    source = write_tif(tmp_path / "coarse.tif", hills(900, 900))
    target = tmp_path / "out" / "fine.tif"
    words = [sys.executable, "-m", "earthsr", "predict", weights, source, target, "--backend", any_backend]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (target.parent.is_dir() and any(target.parent.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = list(target.parent.iterdir())
    assert left
    assert all(path.name.startswith(".") for path in left)

"""Kernels fitted to products that were made with known ones, and coarse cells that are made with them again."""

import json

import numpy as np
import pytest

from earthsr.config import from_mapping
from earthsr.dem.degradation import Degradation, Redraw
from earthsr.dem.prepare import DemPlan, prepare_dem
from earthsr.errors import InputError
from earthsr.geo.resample import block_mean
from tests.cli.test_bad_input import assert_refused
from tests.conftest import call_cli
from tests.dem.test_prepare_dem import CELL, NORTH, WEST, files_below, read, write_dem

SIDE, SCALE = 300, 5
ROUND = (1.6, 2.4)
PLAN = ("--patch", 8, "--shares", "0.6,0.2,0.2", "--buffer", 2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Terrain of all wave lengths, and a product that a bell made of it, wider along columns; heights to the metre."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE)))
    wave = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    fine = np.fft.irfft2(spectrum / np.maximum(wave, 1 / SIDE) ** 1.8)
    fine = np.round(800 + 300 * fine / fine.std())
    hr = write_dem(folder / "srtm.tif", fine.astype(np.float32))
    coarse = np.round(Degradation.bell(SCALE, ROUND).coarse(fine, SCALE))
    coarse[np.isnan(coarse)] = -9999
    lr = write_dem(folder / "gebco.tif", coarse.astype(np.float32), cell=CELL * SCALE, nodata=-9999)
    return hr, lr, fine


@pytest.mark.slow
def test_the_kernel_of_a_product_is_found_and_written_beside_the_files(pair, tmp_path):
    hr, lr, _ = pair
    done = call_cli("prepare", "dem", tmp_path / "out", hr, "--lr", lr, *PLAN, "--fit-degradation")
    assert done.returncode == 0, done.stderr
    held = json.loads((tmp_path / "out" / "degradation.json").read_text())
    fit = held["regions"]["srtm"]
    # Heights are whole metres: a third of one is what rounding leaves of any fit.
    assert fit["residual_m"] < 0.4
    assert fit["bell_residual_m"] < 0.4
    assert fit["block_mean_residual_m"] > 5 * fit["bell_residual_m"]
    assert fit["bell"]["sigma"] == pytest.approx(ROUND, abs=0.03)
    assert (fit["bell"]["south"], fit["bell"]["east"]) == pytest.approx((0, 0), abs=0.03)
    kernel = Degradation.parse(str(tmp_path / "out" / "degradation.json"), SCALE)
    assert sum(kernel.rows) == pytest.approx(1, abs=1e-9)
    bell = Degradation.bell(SCALE, ROUND)
    expected = dict(enumerate(bell.rows, start=bell.first[0]))
    for cell, weight in enumerate(kernel.rows, start=kernel.first[0]):
        assert weight == pytest.approx(expected.get(cell, 0), abs=0.01)
    assert (tmp_path / "out" / "degradation.png").read_bytes().startswith(b"\x89PNG")
    assert "sigma 1.6" in done.stderr
    _, attributes = read(tmp_path / "out", "train")
    assert json.loads(attributes["provenance"])["degradation"]["srtm"] == fit
    # Another preparation in the folder has no kernel, and leaves none.
    again = call_cli("prepare", "dem", tmp_path / "out", hr, *PLAN, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert not list((tmp_path / "out").glob("degradation.*"))


def test_coarse_cells_made_by_a_degradation_are_those_of_the_terrain_around_the_patch_too(pair, tmp_path):
    hr, _, fine = pair
    plan = DemPlan(patch=8, shares=(1, 0, 0), degradation="bell:1.6x2.4")
    prepare_dem(tmp_path / "bell", [hr], plan=plan, units="m")
    data, attributes = read(tmp_path / "bell", "train")
    assert attributes["coarse"] == "bell:1.6x2.4"
    assert "bell:1.6x2.4" in attributes["source"]
    whole = Degradation.bell(SCALE, ROUND).coarse(fine, SCALE)
    for patch, (west, north) in zip(data["8_8"][:, 0], data["origin"], strict=True):
        row, column = round((NORTH - north) / CELL / SCALE), round((west - WEST) / CELL / SCALE)
        np.testing.assert_allclose(patch, whole[row : row + 8, column : column + 8], rtol=1e-6)
    edge = np.isnan(data["8_8"])
    assert edge.any()
    assert not data["mask_40"][edge.repeat(SCALE, -1).repeat(SCALE, -2)].any()
    prepare_dem(tmp_path / "mean", [hr], plan=DemPlan(patch=8, shares=(1, 0, 0)), units="m")
    means, attributes = read(tmp_path / "mean", "train")
    assert attributes["coarse"] == "block mean"
    np.testing.assert_allclose(means["8_8"], block_mean(means["40_40"], SCALE), rtol=1e-6)


def test_a_fitted_kernel_makes_the_product_again_in_prepare_and_in_training(pair, tmp_path):
    hr, lr, _ = pair
    fitted = tmp_path / "fit"
    assert call_cli("prepare", "dem", fitted, hr, "--lr", lr, *PLAN, "--fit-degradation").returncode == 0
    kernel = fitted / "degradation.json"
    done = call_cli("prepare", "dem", tmp_path / "made", hr, *PLAN, "--degradation", kernel)
    assert done.returncode == 0, done.stderr
    product, made = (read(root, "test")[0] for root in (fitted, tmp_path / "made"))
    both = np.isfinite(product["8_8"]) & np.isfinite(made["8_8"])
    gap = (product["8_8"] - made["8_8"])[both]
    # Rounding to whole metres is 0.29 m.
    assert np.sqrt(np.square(gap).mean()) < 0.4
    config = from_mapping(
        {"data": {"patch_size": 16, "degradation": "fitted", "degradation_kernel": str(kernel), "crop": 8}}
    )
    redraw = Redraw.of(config.data, SCALE)
    assert redraw.fitted.rows == Degradation.read(kernel, SCALE).rows
    assert redraw.means == 0


def test_what_cannot_be_fitted_or_made_is_refused_and_leaves_nothing(pair, tmp_path):
    hr, lr, _ = pair
    out = tmp_path / "out"
    assert_refused(call_cli("prepare", "dem", out, hr, "--fit-degradation", *PLAN), "--fit-degradation", "--lr")
    done = call_cli("prepare", "dem", out, hr, "--lr", lr, "--degradation", "bell:1.8", *PLAN)
    assert_refused(done, "--degradation bell:1.8", "gebco.tif")
    assert_refused(call_cli("prepare", "dem", out, hr, "--degradation", "blur", *PLAN), "'blur'", "bell:1.85")
    broken = tmp_path / "broken.json"
    assert_refused(call_cli("prepare", "dem", out, hr, "--degradation", broken, *PLAN), "broken.json", "No such file")
    for text, part in (
        ("{", "holds no fitted degradation"),
        ('{"scale": 5, "kernel": {"rows": [1], "columns": [2], "first": [2, 2]}}', "add up to 1 and 2"),
        ('{"scale": 5, "kernel": {"rows": [1], "columns": [1], "first": [2, 999]}}', "within 4 blocks"),
        ('{"scale": 3, "kernel": {"rows": [1], "columns": [1], "first": [2, 2]}}', "of 3 fine ones, expected 5"),
        ("[" * 100_000, "holds no fitted degradation"),
    ):
        broken.write_text(text)
        with pytest.raises(InputError, match=part):
            Degradation.parse(str(broken), SCALE)
    assert not out.exists()
    assert files_below(tmp_path).keys() == {"broken.json"}

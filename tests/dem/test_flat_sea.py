"""A sea at exactly 0 m beside a coarse product with the sea floor, as SRTM beside GEBCO."""

import json
import warnings

import numpy as np
import pytest

from earthsr.dem.prepare import DemPlan, prepare_dem
from earthsr.errors import EarthsrWarning, InputError
from earthsr.geo.resample import block_mean
from tests.dem.test_prepare_dem import CELL, NORTH, WEST, cells, read, write_dem

PLAN = {"patch": 8, "shares": (1.0, 0.0, 0.0), "minimum_valid": 0.0}
#: Coarse columns: land, and a sea 300 m deep from here on.
COAST = 16


def ground(rows=40, columns=32, flat=True):
    """Fine truth and the coarse product over the same ground, metres."""
    fine = cells(rows * 5, columns * 5).astype(np.float32)
    floor = -300 + 0.2 * (fine - 1000)
    # Land comes down to the sea: a wall of 1000 m along all of it would be a fill value's.
    fine *= np.clip((COAST * 5 - np.arange(columns * 5)) / 40, 0.02, 1).astype(np.float32)
    deep = np.where(np.arange(columns * 5) >= COAST * 5, floor, fine)
    fine = np.where(np.arange(columns * 5) >= COAST * 5, np.float32(0), fine) if flat else deep
    return fine.astype(np.float32), block_mean(deep, 5)


def written(folder, fine, coarse):
    return (
        write_dem(folder / "srtm.tif", fine),
        write_dem(folder / "gebco.tif", coarse.astype(np.float32), cell=5 * CELL),
    )


@pytest.fixture
def pair(tmp_path):
    return written(tmp_path, *ground())


def fine_cells(root):
    """Fine cells by column of the raster, NaN where masked, and the coarse cells that belong to them."""
    data, attributes = read(root, "train")
    place = np.round((data["origin"][:, 0] - WEST) / CELL).astype(int)
    return data, place, attributes


@pytest.mark.parametrize("choice", ["mask", "fill", "keep"])
def test_what_becomes_of_a_flat_sea_is_a_named_choice(tmp_path, pair, choice):
    srtm, gebco = pair
    with pytest.warns(EarthsrWarning, match=r"region srtm: 100 % .* exactly 0 m") as caught:
        prepare_dem(tmp_path / "out", [srtm], [gebco], plan=DemPlan(**PLAN, flat_sea=choice))
    assert any("--flat-sea" in str(w.message) for w in caught) == (choice != "fill")
    data, place, attributes = fine_cells(tmp_path / "out")
    sea = place >= COAST * 5
    assert sea.any() == (choice != "mask")  # patches without a valid cell are left out
    land = data["40_40"][place < (COAST - 8) * 5]
    assert np.isfinite(land).all()
    if choice == "keep":
        assert (data["40_40"][sea] == 0).all()
    if choice == "fill":
        depth = data["40_40"][sea]
        # Half a coarse cell along the product's own edges lies beyond its outermost centres: nothing is known there.
        assert 0.5 < np.isfinite(depth).mean() < 1
        assert np.nanmax(depth) <= 0  # interpolated across a coast of 1300 m, and no water is above the sea
        means = block_mean(depth[:, 0], 5)[:, :, 2:]
        assert np.nanmax(means) < -100
        np.testing.assert_allclose(means, np.where(np.isnan(means), np.nan, data["8_8"][sea][:, 0, :, 2:]), atol=10)
    record = json.loads(attributes["provenance"] if "provenance" in attributes else data["provenance"][()])
    assert record["flat_sea"][0]["choice"] == choice
    assert record["flat_sea"][0]["lowest_coarse_m"] < -200


def test_water_on_the_coast_is_masked_with_the_sea(tmp_path):
    """The coarse cell on the coast is above 0 m as a mean, and the water in it is as flat as that beside it."""
    fine, coarse = ground()
    fine[:, COAST * 5 - 2 : COAST * 5] = 0
    srtm, gebco = written(tmp_path, fine, coarse)
    with pytest.warns(EarthsrWarning, match="masked"):
        prepare_dem(tmp_path / "out", [srtm], [gebco], plan=DemPlan(**PLAN))
    data, place, _ = fine_cells(tmp_path / "out")
    for patch, first in zip(data["40_40"], place, strict=True):
        columns = first + np.arange(40)
        assert np.isnan(patch[0][:, columns >= COAST * 5 - 2]).all()
        assert np.isfinite(patch[0][:, columns < COAST * 5 - 2]).all()


def test_a_truth_with_a_sea_floor_is_left_alone(tmp_path):
    """Some of its cells are exactly 0 m, along the coast."""
    fine, coarse = ground(flat=False)
    fine[:, COAST * 5] = 0
    srtm, gebco = written(tmp_path, fine, coarse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_dem(tmp_path / "out", [srtm], [gebco], plan=DemPlan(**PLAN))
    data, _, _ = fine_cells(tmp_path / "out")
    assert np.isfinite(data["40_40"]).all()
    assert (data["40_40"] == 0).any()


def test_registration_is_estimated_on_land(tmp_path):
    """Half a fine cell, by the georeference of the coarse product, is measured and taken off beside a flat sea."""
    fine, coarse = ground(rows=48, columns=64)
    srtm = write_dem(tmp_path / "srtm.tif", fine)
    gebco = write_dem(
        tmp_path / "gebco.tif", coarse.astype(np.float32), cell=5 * CELL, west=WEST - 0.5 * CELL, north=NORTH
    )
    with pytest.warns(EarthsrWarning, match="exactly 0 m"):
        done = prepare_dem(tmp_path / "out", [srtm], [gebco], plan=DemPlan(**PLAN))
    corrected, measured = done.registration[0]["corrected"], done.registration[0]["measured"]
    assert corrected["columns"] == -0.5
    assert abs(measured["columns"] + 0.5) < 0.1  # the block means' own error, as without a sea


def test_an_unknown_choice_names_the_others(tmp_path, pair):
    srtm, gebco = pair
    with pytest.raises(InputError, match=r"--flat-sea.*mask, fill, keep"):
        prepare_dem(tmp_path / "out", [srtm], [gebco], plan=DemPlan(flat_sea="blue"))
    assert not (tmp_path / "out").exists()

"""Degradations: what coarse cells are made of, and patches whose coarse cells are drawn anew."""

import numpy as np
import pytest

from earthsr.data.batch import make_batch, relief_of
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import PADDING, Patches
from earthsr.dem.config import DemDataSection
from earthsr.dem.degradation import Degradation, Redraw
from earthsr.errors import ConfigError, InputError
from earthsr.geo.resample import block_mean


def terrain(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1) * 10


def test_a_block_mean_is_that_of_the_blocks():
    fine = terrain(20, 30)
    np.testing.assert_allclose(Degradation.block_mean(5).coarse(fine, 5), block_mean(fine, 5), rtol=1e-12)


def test_a_block_mean_off_its_blocks_counts_divided_cells_by_their_part():
    fine = terrain(20, 30)
    shifted = Degradation.block_mean(5, (1.0, -2.0)).coarse(fine, 5, (5, 5), (2, 4))
    np.testing.assert_allclose(shifted, block_mean(fine[6:16, 3:23], 5), rtol=1e-12)
    half = Degradation.block_mean(5, (0.5, 0.0)).coarse(fine, 5, (5, 5), (2, 4))
    whole = [block_mean(fine[5 + down : 15 + down, 5:25], 5) for down in (0, 1)]
    np.testing.assert_allclose(half, np.mean(whole, axis=0), rtol=1e-12)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, -0.25)])
def test_a_bell_is_the_sum_that_its_formula_says(offset):
    fine, sigma, scale = terrain(40, 40), 1.85, 5
    coarse = Degradation.bell(scale, sigma, offset).coarse(fine, scale, (10, 15), (3, 2))
    cells = np.arange(40)
    for row, column in np.ndindex(3, 2):
        centre = 10 + 5 * row + 2 + offset[0], 15 + 5 * column + 2 + offset[1]
        weights = [np.where(abs(cells - c) <= 4 * sigma, np.exp(-(((cells - c) / sigma) ** 2) / 2), 0) for c in centre]
        down, across = (w / w.sum() for w in weights)
        assert coarse[row, column] == pytest.approx(down @ fine @ across, rel=1e-10)


def test_a_void_or_the_edge_under_a_weight_leaves_no_value_and_elsewhere_does_no_harm():
    fine = terrain(40, 40)
    bell = Degradation.bell(5, 1.85)
    expected = bell.coarse(fine, 5, (10, 10), (4, 4))
    fine[10, 10] = np.nan
    coarse = bell.coarse(fine, 5, (10, 10), (4, 4))
    reach = bell.reach(5)
    touched = np.zeros((4, 4), bool)
    for row, column in np.ndindex(4, 4):
        corner = 10 + 5 * row - reach, 10 + 5 * column - reach
        touched[row, column] = all(first <= 10 < first + 5 + 2 * reach for first in corner)
    assert 1 < touched.sum() < 16
    np.testing.assert_array_equal(np.isnan(coarse), touched)
    np.testing.assert_allclose(coarse[~touched], expected[~touched], rtol=1e-12)
    at_edge = bell.coarse(terrain(40, 40), 5)
    assert np.isnan(at_edge[0]).all()
    assert np.isnan(at_edge[:, -1]).all()
    assert np.isfinite(at_edge[2:-2, 2:-2]).all()


@pytest.mark.parametrize("text", ["block_mean", "bell:1.85", "bell:1.85:0.5,-0.25", "bell:1.6x2.4", "block_mean:0,1"])
def test_a_degradation_is_read_from_its_own_words(text):
    degradation = Degradation.parse(text, 5)
    assert degradation.words == text
    assert Degradation.parse(degradation.words, 5) == degradation


@pytest.mark.parametrize(
    "text", ["mean", "bell", "bell:x", "bell:-1", "bell:1:2", "block_mean:9,0", "bell:nan", "bell:1:2,3,4"]
)
def test_words_that_are_no_degradation_are_refused(text):
    with pytest.raises(InputError, match=r"bell"):
        Degradation.parse(text, 5) if text != "block_mean:9,0" else Degradation.parse("bell:1:9,0", 5)


def patches_of(count=3, side=16, scale=5):
    fine = np.stack([terrain(side * scale, side * scale, seed) for seed in range(count)])[:, None].astype(np.float32)
    mask = np.ones(fine.shape, np.uint8)
    mask[1, 0, 40, 40] = 0
    fine[mask == 0] = 0
    indices = np.arange(count)
    indices[-1] = PADDING
    return Patches(np.full((count, 1, side, side), np.nan, np.float32), fine, mask, indices)


def test_drawn_patches_are_windows_whose_coarse_cells_are_degraded_from_their_own_terrain():
    patches, redraw = patches_of(), Redraw(5, crop=10, means=0.5, sigma=(1.0, 2.0), aspect=(1.0, 1.4), offset=0.5)
    shares = np.array([[0.2, 0.5, 0.5, 0.5, 0.5, 0.0, 0.999], [0.9, 0.25, 0.5, 1.0, 0.0, 0.5, 0.5], [0.1] * 7])
    drawn = redraw(patches, shares)
    assert drawn.coarse.shape == (3, 1, 10, 10)
    assert drawn.fine.shape == drawn.mask.shape == (3, 1, 50, 50)
    reach, room = redraw.reach, 80 - 50 - 2 * redraw.reach + 1
    top, left = reach, reach + int(0.999 * room)
    np.testing.assert_array_equal(drawn.fine[0, 0], patches.fine[0, 0, top : top + 50, left : left + 50])
    np.testing.assert_allclose(drawn.coarse[0, 0], block_mean(drawn.fine[0, 0], 5), rtol=1e-5)
    place = reach + int(0.5 * room)
    heights = np.where(patches.mask[1, 0], patches.fine[1, 0], np.nan)
    expected = Degradation.bell(5, (1.25, 1.5), (0.5, -0.5)).coarse(heights, 5, (place, place), (10, 10))
    np.testing.assert_array_equal(drawn.coarse[1, 0], expected)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(drawn.mask[1, 0], np.isfinite(expected).repeat(5, 0).repeat(5, 1))
    assert not drawn.fine[1, 0][drawn.mask[1, 0] == 0].any()
    assert not drawn.mask[2].any(), "padding stays empty"
    assert not drawn.coarse[2].any()


def test_every_place_is_drawn():
    patches, redraw = patches_of(1 + 1), Redraw(5, crop=12, means=1.0)
    patches.fine[0, 0] = np.arange(80 * 80).reshape(80, 80)
    places = set()
    for share in np.linspace(0, 1, 200, endpoint=False):
        drawn = redraw(patches, np.array([[0, 0, 0, 0, 0, share, share]] * 2))
        places.add(int(drawn.fine[0, 0, 0, 0]) // 80)
    assert places == set(range(80 - 60 + 1))


def test_a_crop_that_does_not_fit_is_refused_with_what_would():
    data = DemDataSection(degradation="mixed", patch_size=16, crop=14)
    with pytest.raises(InputError, match=r"data.crop is 14.*at most 11"):
        Redraw.of(data, 5)
    assert Redraw.of(DemDataSection(degradation="mixed", patch_size=16), 5).crop == 10
    assert Redraw.of(DemDataSection(), 5) is None
    with pytest.raises((ConfigError, ValueError), match=r"data.shift to false"):
        DemDataSection(degradation="bell", shift=True)


def test_samples_weigh_one_over_their_relief_and_flat_ones_hardly():
    rough = terrain(12, 12, 3)
    coarse = np.stack([rough, 10 * rough, np.zeros_like(rough), rough + np.arange(12) * 500])[:, None].astype(
        np.float32
    )
    relief = relief_of(coarse)
    bends = np.concatenate([np.diff(rough, n=2, axis=axis).ravel() for axis in (0, 1)])
    assert relief[0] == pytest.approx(np.sqrt(np.mean(bends**2)), rel=1e-4)
    assert relief[3] == pytest.approx(relief[0], rel=1e-3), "neither height nor slope enters"
    fine = np.zeros((4, 1, 60, 60), np.float32)
    patches = Patches(coarse, fine, np.ones(fine.shape, np.uint8), np.array([0, 1, 2, PADDING]))
    weight = make_batch(patches, Normalisation(), by_relief=True).sample_weight
    assert weight[0] / weight[1] == pytest.approx(10, rel=0.1)
    assert weight[2] < 0.01 * weight[0]
    assert weight[3] == 0

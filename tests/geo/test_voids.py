import numpy as np
import pytest

from earthsr.data.batch import make_batch
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import Patches
from earthsr.evaluation.statistics import baseline
from earthsr.geo.voids import REACH, fill_voids


def ramp(rows=24, columns=30):
    return (4000 + 50 * np.arange(columns)[None, :] + 20 * np.arange(rows)[:, None]).astype(np.float32)


def test_nothing_is_copied_where_nothing_is_missing():
    field = ramp()
    assert fill_voids(field) is field


def test_a_small_void_takes_its_neighbours_height():
    field = ramp()
    expected = field[10, 12]
    field[10, 12] = np.nan
    filled = fill_voids(field)
    # The eight neighbours of a cell of a plane have its height as their mean.
    assert filled[10, 12] == pytest.approx(expected, abs=1e-3)
    known = np.isfinite(field)
    np.testing.assert_array_equal(filled[known], field[known])
    assert np.isnan(field[10, 12])


def test_a_wide_void_is_filled_ring_by_ring_and_no_farther():
    field = ramp(60, 60)
    field[10:50, 10:50] = np.nan
    filled = fill_voids(field, reach=4)
    inside = np.isnan(filled)
    assert inside[14:46, 14:46].all()
    assert inside.sum() == 32 * 32
    assert filled[10, 30] == pytest.approx(np.mean(field[9, 29:32]), abs=1e-3)


def test_a_filled_cell_depends_on_what_is_near_alone():
    # What a tile with a halo relies on.
    rng = np.random.default_rng(0)
    field = ramp(60, 60) + rng.normal(size=(60, 60)).astype(np.float32) * 30
    field[rng.random((60, 60)) < 0.3] = np.nan
    field[20:40, 20:40] = np.nan
    whole = fill_voids(field)
    part = fill_voids(field[5:50, 3:55])
    inner = (slice(REACH, -REACH), slice(REACH, -REACH))
    # The same sums about another mean: float32's rounding at 6,000 m.
    np.testing.assert_allclose(part[inner], whole[5:50, 3:55][inner], rtol=2.4e-7)


def test_every_plane_is_filled_by_itself():
    fields = np.stack([ramp(), ramp() * 0 - 3000, ramp()])[:, None]
    fields[0, 0, 3, 3] = fields[1, 0, 5, 5] = np.nan
    filled = fill_voids(fields)
    assert filled[1, 0, 5, 5] == -3000
    assert filled[0, 0, 3, 3] == pytest.approx(ramp()[3, 3], abs=1e-3)
    np.testing.assert_array_equal(filled[2], fields[2])


def test_a_field_without_any_value_stays_so():
    assert np.isnan(fill_voids(np.full((1, 4, 4), np.nan, np.float32))).all()


def test_batches_and_baselines_see_the_same_filled_field():
    coarse = ramp(16, 16)[None, None]
    coarse[0, 0, 7, 7] = np.nan
    fine = np.zeros((1, 1, 80, 80), np.float32)
    normalisation = Normalisation("patch", 0.0, 100.0)
    batch = make_batch(Patches(coarse, fine, np.ones((1, 1, 80, 80), np.uint8), np.arange(1)), normalisation)
    offset = normalisation.offsets(coarse)
    seen = normalisation.undo(batch.inputs["elevation"], offset)
    np.testing.assert_allclose(seen, fill_voids(coarse), rtol=1e-6)
    # A plane with a hole is interpolated as the plane: a fill with the patch's mean would leave a pit.
    whole = baseline(ramp(16, 16)[None, None], 5, "bicubic")
    np.testing.assert_allclose(baseline(coarse, 5, "bicubic"), whole, atol=1e-2)

"""Steps at the edges of coarse cells, which hillshades show and root mean squares do not."""

import numpy as np
import pytest

from earthsr.dem.lattice import FilterSums, Lattice, SurfaceSums, lattice_of
from earthsr.geo.resample import block_mean, interpolate
from tests.conftest import terrain

SCALE = 5


@pytest.fixture(scope="module")
def truth():
    return terrain(0, 8, 160)


def measured(methods, truth, **options):
    mask = options.pop("mask", np.ones_like(truth, np.uint8))
    options = {"scale": SCALE, "border": SCALE, **options}
    return lattice_of(methods, truth, mask, np.arange(len(truth)), **options)


def test_terrain_bends_alike_in_every_phase(truth):
    found = measured({}, truth).to_dict()["surfaces"]["truth"]
    assert 0.9 < found["edge_step_ratio"] < 1.1
    assert found["curvature_ratio"] < 1.1
    assert len(found["curvature_by_phase_m"]) == SCALE


def test_steps_of_a_known_height_are_measured(truth):
    """A chequerboard of 0 and 3 m, one square a coarse cell: 3 m across every edge, and nothing within."""
    cells = (np.indices((32, 32)).sum(axis=0) % 2 * 3.0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    sums = SurfaceSums.of(cells[None], np.ones((1, 160, 160), bool), SCALE)
    steps, bends = sums.steps[0] / sums.steps[1], sums.bends[0] / sums.bends[1]
    np.testing.assert_allclose(steps, [3, 0, 0, 0, 0])
    np.testing.assert_allclose(bends, [3, 0, 0, 0, 3])
    assert sums.to_dict()["curvature_ratio"] is None


def test_a_correction_that_is_constant_in_a_cell_shows_and_a_smooth_one_does_not(truth):
    coarse = block_mean(truth, SCALE)
    methods = {name: interpolate(coarse, SCALE, name) for name in ("conservative", "mean_preserving")}
    found = measured(methods, truth, border=8 * SCALE).to_dict()["surfaces"]
    # Any interpolated surface is steepest between centres; one that jumps there is steeper, and bends in the two cells
    # beside an edge, where one whose slope is continuous has its inflections.
    assert found["conservative"]["edge_step_ratio"] > found["mean_preserving"]["edge_step_ratio"] * 1.1
    beside = {name: np.mean([v["curvature_by_phase_m"][i] for i in (0, 4)]) for name, v in found.items()}
    assert beside["conservative"] > 2 * beside["mean_preserving"]


def test_voids_and_borders_take_no_part(truth):
    damaged, mask = truth.copy(), np.ones_like(truth, np.uint8)
    damaged[:, :, 40:60, 70:90] = 1e6
    mask[:, :, 40:60, 70:90] = 0
    damaged[:, :, :SCALE] = -1e6
    found = measured({"model": damaged + 1}, damaged, mask=mask)
    hole = measured({"model": truth + 1}, truth, mask=mask)
    assert found.to_dict() == hole.to_dict()


def test_parts_add_up_to_the_whole(truth):
    model = interpolate(block_mean(truth, SCALE), SCALE, "bicubic")
    whole, total = measured({"model": model}, truth), Lattice()
    for part in (slice(0, 3), slice(3, 8)):
        total += lattice_of(
            {"model": model[part]}, truth[part], np.ones_like(truth[part], np.uint8), np.arange(8)[part],
            scale=SCALE, border=SCALE,
        )  # fmt: skip
    for name, sums in whole.surfaces.items():
        np.testing.assert_allclose(total.surfaces[name].bends, sums.bends, rtol=1e-12)
    assert total.filter.gain() == pytest.approx(whole.filter.gain(), rel=1e-6)


def test_a_filter_by_phase_gains_where_one_was_left_out(truth):
    """A prediction whose every third phase is too high by a tenth of the local relief: the filter takes it off."""
    model = truth.copy()
    smooth = interpolate(block_mean(truth, SCALE), SCALE, "bicubic")
    model[..., 2::SCALE] += 0.1 * (truth - np.roll(truth, 1, axis=-1))[..., 2::SCALE]
    found = measured({"model": model}, truth).filter.gain()
    assert found > 0.8
    assert measured({"model": smooth}, truth).filter.gain() > 0.01  # as linear filters beat bicubic


def test_noise_that_nothing_explains_is_no_gain(truth):
    """Errors independent of the surface: weights fitted on one half gain nothing on the other."""
    rough = np.random.default_rng(99).normal(size=truth.shape)
    halves = FilterSums.of(
        truth[:, 0], (truth + rough)[:, 0], np.ones(truth[:, 0].shape, bool), np.arange(8) % 2, SCALE
    )
    assert abs(halves.gain()) < 0.05


def test_a_perfect_prediction_leaves_no_gain_to_speak_of(truth):
    assert measured({"model": truth}, truth).to_dict()["phase_filter_gain_percent"] is None

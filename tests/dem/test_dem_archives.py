"""The parts of a preparation that need no files: plans, splits, alignment of grids, interpolation."""

import itertools

import numpy as np
import pytest

from earthsr.dem.prepare import DemPlan
from earthsr.dem.prepare.pairs import align, interpolated, overlap, require_ratio
from earthsr.dem.prepare.plan import Ground, require_apart, shards, starts
from earthsr.errors import DataError, InputError
from earthsr.geo import Georeference, Window, array_source
from tests.dem.test_prepare_dem import CELL, NORTH, WEST

# Plans


def test_starts_cover_the_length_with_at_most_the_step_between_them():
    for length, patch, step in ((240, 32, 32), (240, 32, 2), (33, 32, 30), (32, 32, 7), (100, 8, 6)):
        found = starts(5, length, patch, step)
        assert found[0] == 5
        assert found[-1] + patch == 5 + length
        assert all(0 < b - a <= step for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_blocks_lie_apart_and_fill_the_region(axis):
    plan = DemPlan(patch=32, axis=axis)
    blocks = plan.blocks("alps", 240, 240, None)
    along = [(b.column, b.columns) if axis == "columns" else (240 - b.row - b.rows, b.rows) for b in blocks.values()]
    # 232 cells besides two buffers of 4; a tenth of them is less than a patch, so validation has a patch's width.
    assert along == [(0, 154), (158, 32), (194, 46)]
    assert list(blocks) == ["train", "valid", "test"]
    assert plan.blocks("alps", 240, 240, "valid") == {"valid": Window(0, 0, 240, 240)}


def test_a_region_too_small_is_refused():
    with pytest.raises(DataError, match=r"region alps has 20 x 300 coarse cells \(100 x 1500 fine cells\), smaller"):
        DemPlan().blocks("alps", 20, 300, "train")
    with pytest.raises(DataError, match="region alps has 100 coarse columns, too few for 3 blocks of a patch of 32"):
        DemPlan().blocks("alps", 300, 100, None)
    assert list(DemPlan(shares=(0.5, 0, 0.5)).blocks("alps", 300, 100, None)) == ["train", "test"]


def test_patterns_give_regions_to_splits():
    plan = DemPlan(valid_regions=("cape*",), test_regions=("N46E008", "N4[78]*"))
    assert plan.assign(["N46E008", "N47E008", "capetown", "andes"]) == {
        "N46E008": "test", "N47E008": "test", "capetown": "valid", "andes": None
    }  # fmt: skip
    assert DemPlan(shares=(1, 0, 0)).assign(["a", "b"]) == {"a": "train", "b": "train"}
    with pytest.raises(InputError, match="--test-region alps: no such region; there are a, b"):
        DemPlan(test_regions=("alps",)).assign(["a", "b"])
    with pytest.raises(InputError, match="region a is asked for in train and in test"):
        DemPlan(train_regions=("*",), test_regions=("a",)).assign(["a", "b"])


def test_jobs_hold_every_patch_once_in_windows_that_fit_into_memory():
    plan = DemPlan(stride=16)
    block = Window(3, 5, 64, 30_000)
    jobs = list(plan.jobs("ocean", "train", block))
    corners = [(job.row, column) for job in jobs for column in job.columns]
    assert len(set(corners)) == len(corners) == 3 * (-(-(30_000 - 32) // 16) + 1)
    widest = max(job.columns[-1] + 32 - job.columns[0] for job in jobs)
    assert widest * 5 * 160 <= 2**22
    pieces = shards(jobs, 1000)
    assert [job for piece in pieces for job in piece] == jobs
    assert all(sum(len(job.columns) for job in piece) >= 1000 for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scale": 11}, "--scale is 11, expected 2 to 10"),
        ({"patch": 3}, "--patch is 3, expected at least 4"),
        ({"stride": 0}, "--stride is 0"),
        ({"axis": "diagonal"}, "--split-axis is 'diagonal', expected columns or rows"),
        ({"shares": (0.7, 0.3, 0.2)}, "--shares are 0.7,0.3,0.2, expected three of 0 to 1, at most 1 together"),
        ({"shares": (0, 0, 0)}, "--shares are 0,0,0"),
        ({"buffer": -1}, "--buffer is -1"),
        ({"minimum_valid": 1.5}, "--minimum-valid is 1.5"),
        ({"coast": (0.9, 0.1)}, "--coast is 0.9,0.1"),
    ],
)
def test_plans_out_of_range(wrong, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        DemPlan(**wrong).check()


def test_ground_in_two_splits_is_refused():
    def ground(region, split, west, width=1.0):
        return Ground(region, split, (west, 0.0, west + width, 1.0), CELL)

    # SRTM tiles share a row or column of cells, which blocks of five leave out.
    side = [ground("a", "train", 0.0), ground("b", "test", 1.0)]
    assert "lie side by side" in require_apart(side, 20, True)[0]
    assert require_apart([ground("a", "train", 0.0), ground("b", "test", 1.1)], 20, True) == []
    assert require_apart([ground("a", "train", 0.0), ground("b", "train", 0.5)], 20, True) == []
    for other in (0.5, 360.5, -359.5, 1 - CELL, 0.2):
        with pytest.raises(DataError, match=r"regions a \(train\) and b \(test\) overlap"):
            require_apart([ground("a", "train", 0.0), ground("b", "test", other, 0.5)], 20, True)
    require_apart([ground("a", "train", 0.0), ground("b", "test", 360.5)], 20, False)
    with pytest.raises(DataError, match="overlap"):
        require_apart([ground("a", "train", 179.5), ground("b", "test", -180.2)], 20, True)


# Alignment and interpolation


def grid(rows, columns, west, north, cell, geographic=True):
    return Georeference(west, north, cell, cell, rows, columns, "EPSG:4326", geographic)


def test_blocks_lie_nearest_to_the_coarse_cells():
    """The centre of each block, computed from its edges, against the centre of the coarse cell that it falls into."""
    coarse = grid(100, 100, 6.9, 47.1, 5 * CELL)
    for shift in (0, 1, 2, 3, 4, 0.3, 2.5, 7.9):
        fine = grid(203, 207, WEST + shift * CELL, NORTH - 2 * shift * CELL, CELL)
        found = align(fine, coarse, 5)
        for axis, edge, sign, lr_edge in (
            (found.columns, fine.west, 1, coarse.west),
            (found.rows, fine.north, -1, coarse.north),
        ):
            assert 0 <= axis.first < 5
            centre = edge + sign * (axis.first + 2.5 + 5 * np.arange(axis.blocks)) * CELL
            position = sign * (centre - lr_edge) / (5 * CELL) - 0.5
            np.testing.assert_allclose(axis.positions(0, axis.blocks), position, atol=1e-9)
            # Never more than half a fine cell off, which is a tenth of a coarse one.
            assert np.abs(position - np.round(position)).max() < 0.1 + 1e-9
            assert axis.first + 5 * axis.blocks > (203 if axis is found.rows else 207) - 5
    here, beyond = (align(grid(200, 200, west, NORTH, CELL), coarse, 5).columns for west in (WEST, WEST + 360))
    assert beyond.position == pytest.approx(here.position)
    assert overlap(grid(200, 200, WEST + 360, NORTH, CELL), coarse)
    assert not overlap(grid(200, 200, WEST + 3, NORTH, CELL), coarse)


def test_the_ratio_of_cell_sizes_is_named():
    fine = grid(100, 100, WEST, NORTH, CELL)
    require_ratio(fine, grid(20, 20, WEST, NORTH, 5.04 * CELL), 5, "srtm.tif", "gebco.nc")
    with pytest.raises(DataError, match=r"gebco.nc: cells are 5.06 x 5.06 cells of srtm.tif .* expected 5 within 1 %"):
        require_ratio(fine, grid(20, 20, WEST, NORTH, 5.06 * CELL), 5, "srtm.tif", "gebco.nc")
    with pytest.raises(DataError, match=r"cells are 10 x 10 .* expected 5 within 1 %; --scale 10 fits"):
        require_ratio(fine, grid(20, 20, WEST, NORTH, 10 * CELL), 5, "srtm.tif", "gebco.nc")


def test_interpolation_copies_centres_and_is_exact_for_parabolas():
    row, column = np.mgrid[:12, :15].astype(np.float32)
    values = 3 * row**2 - 2 * column**2 + row * column
    source = array_source(values, grid(12, 15, 0, 12, 1))
    rows, columns = np.array([3.0, 3.25, 4.00001]), np.array([5.0, 7.5, 8.9])
    found = interpolated(source, rows, columns)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    # Keys' kernel is of third order: parabolas are its own.
    np.testing.assert_allclose(found, 3 * y**2 - 2 * x**2 + y * x, atol=1e-3)
    assert found[0, 0] == values[3, 5]
    assert found[2, 0] == values[4, 5]  # so near that it is the centre, rounded
    np.testing.assert_array_equal(interpolated(source, np.arange(12.0), np.arange(15.0)), values)


def test_voids_and_edges_are_never_averaged_in():
    row, column = np.mgrid[:12, :15].astype(np.float32)
    plane = 7 * row + 3 * column
    values = plane.copy()
    values[6, 6] = np.nan
    source = array_source(values, grid(12, 15, 0, 12, 1))
    rows, columns = np.arange(-0.5, 12), np.arange(0.3, 15)
    found = interpolated(source, rows, columns)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], (7 * y + 3 * x)[known], atol=1e-4)
    # Nothing where one of the four cells around is void or beyond the edge, and only there.
    lower, left = np.floor(y), np.floor(x)
    beyond = (lower < 0) | (lower + 1 > 11) | (left < 0) | (left + 1 > 14)
    void = ((lower == 6) | (lower == 5)) & ((left == 6) | (left == 5))
    np.testing.assert_array_equal(known, ~(beyond | void))
    # A void beside a centre that is hit does no harm.
    assert interpolated(source, np.array([6.0]), np.array([5.0]))[0, 0] == plane[6, 5]


def test_columns_of_a_global_raster_go_round():
    values = np.tile(np.arange(36, dtype=np.float32), (18, 1))
    source = array_source(values, grid(18, 36, -180, 90, 10))
    found = interpolated(source, np.array([9.0]), np.arange(30.0, 42))
    np.testing.assert_array_equal(found[0], np.arange(30, 42) % 36)
    np.testing.assert_array_equal(interpolated(source, np.array([9.0]), np.arange(-3.0, 2))[0], [33, 34, 35, 0, 1])

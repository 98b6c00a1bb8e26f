import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from earthsr.geo.grid import Grid
from earthsr.landuse.baselines import (
    allocate,
    allocate_series,
    argmax_fractions,
    changed_counts,
    cut_cells,
    nearest_cells,
    persistence,
    squared_distance,
    target_counts,
)

K = 4
ALL = (True,) * K


def blobs(seed, shape=(40, 44), sigma=3.0):
    """A smooth random class map with some nodata."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), sigma) for _ in range(K)]
    found = np.argmax(fields, axis=0).astype(np.uint8)
    found[:3, :5] = 255
    return found


def blocks(shape, size=9):
    """Index of square coarse cells, the last ones cut, and the shape of their grid."""
    rows, columns = (np.arange(n) // size for n in shape)
    width = int(columns[-1]) + 1
    return rows[:, None] * width + columns, (int(rows[-1]) + 1, width)


def fractions_for(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(K), shape).transpose(2, 0, 1)


def counted(values, index, cells):
    return np.stack([np.bincount(index[values == k], minlength=cells) for k in range(K)], axis=1)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.005, 0.05, 0.5]))
def test_distances_equal_those_of_scipy(seed, height, width, share):
    rng = np.random.default_rng(seed)
    features = rng.random((2, height, width)) < share
    features[:, rng.integers(height), rng.integers(width)] = True
    for each, square in zip(features, squared_distance(features), strict=True):
        np.testing.assert_allclose(np.sqrt(square), ndimage.distance_transform_edt(~each), rtol=1e-12)


def test_distance_to_nothing_is_far_and_equal_everywhere():
    features = np.zeros((2, 5, 7), bool)
    features[1, 2, 3] = True
    square = squared_distance(features)
    assert square[0].min() == square[0].max() >= 2**40
    assert square[1].max() == 4 + 9


def test_every_fine_cell_belongs_to_the_coarse_cell_of_its_centre():
    fine = Grid(8.1, 50.0, 0.03, 0.03, 40, 44)
    coarse = fine.coarse(0.25)
    index = nearest_cells(coarse, fine)
    for r, c in ((0, 0), (8, 4), (8, 5), (39, 43)):
        latitude, longitude = 50.0 - 0.03 * (r + 0.5), 8.1 + 0.03 * (c + 0.5)
        i, j = divmod(int(index[r, c]), coarse.columns)
        assert coarse.north - 0.25 * (i + 1) <= latitude <= coarse.north - 0.25 * i
        assert coarse.west + 0.25 * j <= longitude <= coarse.west + 0.25 * (j + 1)
    np.testing.assert_array_equal(nearest_cells(coarse, fine, 7, 9, (11, 13)), index[7:18, 9:22])
    assert len(np.unique(index)) == coarse.rows * coarse.columns


def test_the_dateline_is_no_edge_and_other_edges_are():
    globe = Grid(-180.0, 90.0, 0.25, 0.25, 720, 1440)
    index = nearest_cells(globe, Grid(179.9, 10.0, 0.1, 0.1, 1, 3))
    assert (index[0] % 1440).tolist() == [1439, 0, 0]
    region = Grid(0.0, 10.0, 0.25, 0.25, 4, 4)
    index = nearest_cells(region, Grid(-0.1, 10.1, 0.1, 0.1, 2, 3))
    assert index.tolist() == [[-1, -1, -1], [-1, 0, 0]]


def test_persistence_is_the_anchor_and_another_array():
    anchor = blobs(0)
    kept = persistence(anchor)
    np.testing.assert_array_equal(kept, anchor)
    kept[:] = 0
    assert anchor.any()


def test_argmax_takes_the_largest_known_fraction():
    fractions = np.array([[0.2, 0.1, 0.0, np.nan], [0.3, 0.6, 0.0, np.nan], [0.5, 0.3, 0.9, np.nan]])[:, None]
    valid = np.array([[True, False, True, True]])
    assert argmax_fractions(fractions, valid, (True,) * 3).tolist() == [[2, 255, 2, 255]]
    # The third class is unknown to the forcing; where it leaves nothing to say, the anchor does.
    known = (True, True, False)
    assert argmax_fractions(fractions, valid, known).tolist() == [[1, 255, 255, 255]]
    anchor = np.array([[0, 1, 2, 1]], np.uint8)
    assert argmax_fractions(fractions, valid, known, anchor).tolist() == [[1, 255, 2, 1]]


@given(st.integers(0, 1000), st.integers(3, 15))
def test_targets_add_up_and_are_within_one_cell_of_the_fractions(seed, size):
    previous = blobs(seed, (20, 23))
    index, shape = blocks(previous.shape, size)
    fractions = fractions_for(seed, shape)
    targets = target_counts(fractions, previous, index, ALL)
    cells = np.bincount(index[previous != 255], minlength=targets.shape[0])
    np.testing.assert_array_equal(targets.sum(axis=1), cells)
    assert np.abs(targets - fractions.reshape(K, -1).T * cells[:, None]).max() < 1


def test_the_largest_remainders_are_rounded_up():
    previous = np.zeros((1, 10), np.uint8)
    fractions = np.array([0.16, 0.37, 0.26, 0.21])[:, None, None]
    targets = target_counts(fractions, previous, np.zeros((1, 10), np.int64), ALL)
    # Quotas 1.6, 3.7, 2.6, 2.1: two of ten cells are left for 0.7 and the first 0.6.
    assert targets.tolist() == [[2, 4, 2, 2]]


def test_classes_that_the_forcing_does_not_know_keep_their_cells():
    previous = blobs(3)
    index, shape = blocks(previous.shape)
    fractions = fractions_for(1, shape)
    fractions[3] = np.nan
    fractions[:3, 1, 1] = 0
    known = (True, True, True, False)
    targets = target_counts(fractions, previous, index, known)
    before = counted(previous, index, len(targets))
    np.testing.assert_array_equal(targets[:, 3], before[:, 3])
    silent = 1 * shape[1] + 1
    np.testing.assert_array_equal(targets[silent], before[silent])
    found = allocate(previous, targets, index)
    np.testing.assert_array_equal(found == 3, previous == 3)
    np.testing.assert_array_equal(found[index == silent], previous[index == silent])
    assert (found != previous).any()


@pytest.mark.parametrize("seed", range(5))
def test_allocation_meets_its_targets_with_the_fewest_changes(seed):
    previous = blobs(seed)
    index, shape = blocks(previous.shape)
    index[-4:] = -1
    targets = target_counts(fractions_for(seed, shape), previous, index, ALL)
    found = allocate(previous, targets, index)
    inside = index >= 0
    after = np.where(inside, found, 255)
    np.testing.assert_array_equal(counted(after, np.maximum(index, 0), len(targets)), targets)
    before = counted(np.where(inside, previous, 255), np.maximum(index, 0), len(targets))
    assert (found != previous).sum() == np.abs(targets - before).sum() // 2
    # Nothing that has no class, and nothing beyond the forcing, is touched.
    np.testing.assert_array_equal(found == 255, previous == 255)
    np.testing.assert_array_equal(found[~inside], previous[~inside])
    np.testing.assert_array_equal(allocate(previous.copy(), targets.copy(), index.copy()), found)
    np.testing.assert_array_equal(allocate(np.asfortranarray(previous), targets, index), found)
    assert previous.tolist() == blobs(seed).tolist(), "the map before is left as it was"


def test_allocation_equals_a_plain_search_for_the_nearest_pair():
    previous = blobs(11, (14, 15), sigma=1.5)
    index, shape = blocks(previous.shape, 7)
    targets = target_counts(fractions_for(2, shape), previous, index, ALL)
    expected = previous.copy()
    counts = counted(previous, index, len(targets))
    distance = [ndimage.distance_transform_edt(previous != k) for k in range(K)]
    while (counts != targets).any():
        offers = [
            (distance[k][r, c], r, c, k)
            for r, c in np.argwhere((expected == previous) & (previous != 255))
            for k in range(K)
            if counts[index[r, c], k] < targets[index[r, c], k]
            and counts[index[r, c], previous[r, c]] > targets[index[r, c], previous[r, c]]
        ]
        _, r, c, k = min(offers)
        counts[index[r, c], k] += 1
        counts[index[r, c], previous[r, c]] -= 1
        expected[r, c] = k
    assert (expected != previous).sum() > 20
    np.testing.assert_array_equal(allocate(previous, targets, index), expected)


def test_the_nearest_cells_change_first_and_ties_go_by_position():
    previous = np.zeros((5, 7), np.uint8)
    previous[2, 3] = 1
    targets = np.array([[30, 5, 0, 0]])
    cross = allocate(previous, targets, np.zeros((5, 7), np.int64))
    assert np.argwhere(cross == 1).tolist() == [[1, 3], [2, 2], [2, 3], [2, 4], [3, 3]]
    three = allocate(previous, np.array([[32, 3, 0, 0]]), np.zeros((5, 7), np.int64))
    assert np.argwhere(three == 1).tolist() == [[1, 3], [2, 2], [2, 3]]


def test_a_tie_of_two_classes_goes_by_position_before_class():
    # Class 0 has one cell to give; cell 1 is as near to class 2 as cell 3 to class 1.
    previous = np.array([[2, 0, 0, 0, 1, 255, 3, 3]], np.uint8)
    found = allocate(previous, np.array([[2, 2, 2, 1]]), np.zeros((1, 8), np.int64))
    assert found.tolist() == [[2, 2, 0, 0, 1, 255, 1, 3]]


def test_neighbours_in_the_next_coarse_cell_count_as_near():
    previous = np.zeros((3, 8), np.uint8)
    previous[1, 7] = 2
    index = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 3, axis=0)
    targets = np.array([[10, 0, 2, 0], [11, 0, 1, 0]])
    found = allocate(previous, targets, index)
    assert np.argwhere(found[:, :4] == 2).tolist() == [[0, 3], [1, 3]]


def test_a_class_that_is_nowhere_begins_in_the_order_of_rows():
    previous = np.full((3, 4), 2, np.uint8)
    previous[0, 0] = 255
    found = allocate(previous, np.array([[2, 0, 9, 0]]), np.zeros((3, 4), np.int64))
    assert np.argwhere(found == 0).tolist() == [[0, 1], [0, 2]]


def test_targets_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"coarse cell 0 add up to 11, but it has 12 cells"):
        allocate(np.zeros((3, 4), np.uint8), np.array([[2, 0, 9, 0]]), np.zeros((3, 4), np.int64))


def test_targets_that_are_met_already_change_nothing():
    previous = blobs(0)
    index, shape = blocks(previous.shape)
    targets = counted(previous, index, shape[0] * shape[1])
    np.testing.assert_array_equal(allocate(previous, targets, index), previous)
    nothing = np.full_like(previous, 255)
    targets = target_counts(fractions_for(0, shape), nothing, index, ALL)
    assert not targets.any()
    np.testing.assert_array_equal(allocate(nothing, targets, index), nothing)


def test_years_are_allocated_one_after_the_other():
    anchor = blobs(4)
    index, shape = blocks(anchor.shape)
    fractions = np.stack([fractions_for(seed, shape) for seed in range(3)])
    maps = allocate_series(anchor, fractions, index, ALL)
    assert maps.shape == (3, *anchor.shape)
    previous = anchor
    for year, each in zip(maps, fractions, strict=True):
        np.testing.assert_array_equal(year, allocate(previous, target_counts(each, previous, index, ALL), index))
        previous = year
    straight = allocate(anchor, target_counts(fractions[2], anchor, index, ALL), index)
    assert (straight != maps[2]).any(), "the way matters"


def oracle(maps, coarse, fine, k=K):
    """Fractions (Y, K, h, w) of maps that cover coarse cells whole."""
    index = nearest_cells(coarse, fine)
    counts = [
        [np.bincount(index[made == c], minlength=coarse.rows * coarse.columns) for c in range(k)] for made in maps
    ]
    whole = np.bincount(index.ravel(), minlength=coarse.rows * coarse.columns)
    return (np.array(counts) / whole).reshape(len(maps), k, coarse.rows, coarse.columns).astype(np.float32)


def patchy(rng, rows, columns, k=K):
    """A map of blocks, in which parts of a coarse cell have other classes than its whole."""
    return np.kron(rng.integers(0, k, (rows // 4, columns // 4)), np.ones((4, 4))).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tile", [20, 13], ids=["whole cells", "tiles that cut cells"])
def test_with_oracle_fractions_allocation_changes_no_more_than_the_truth(seed, tile):
    """A tile that cuts a coarse cell knows the fractions of the whole: imposed on the part they are a change alone.

    Of a part only what they change is asked: the parts together change as the whole does, but for rounding.
    """
    rng = np.random.default_rng(seed)
    coarse, fine = Grid(0.0, 40.0, 10.0, 10.0, 4, 4), Grid(0.0, 40.0, 1.0, 1.0, 40, 40)
    anchor = patchy(rng, 40, 40)
    truth = np.where(rng.random((40, 40)) < 0.06, patchy(rng, 40, 40), anchor).astype(np.uint8)
    before, after = oracle([anchor, truth], coarse, fine)
    known, moved, imposed = (True,) * K, 0, 0
    for row in range(0, 40, tile):
        for column in range(0, 40, tile):
            part = anchor[row : row + tile, column : column + tile]
            index = nearest_cells(coarse, fine, row, column, part.shape)
            cut = cut_cells(coarse, fine, row, column, part.shape)
            assert cut.any() == (tile == 13)
            (made,) = allocate_series(part, after[None], index, known, before, cut.ravel())
            (plain,) = allocate_series(part, after[None], index, known)
            moved += int((made != part).sum())
            imposed += int((plain != part).sum())
    changed = int((truth != anchor).sum())
    assert 0 < moved <= changed
    assert (imposed > changed) == (tile == 13), "the case is one in which it matters"


def test_parts_of_coarse_cells_are_known_as_such():
    """Of 10 x 10 fine cells a window of 7 x 8 from (2, 5), coarse cells of 4: the raster's last ones are smaller."""
    coarse, fine = Grid(0.0, 12.0, 4.0, 4.0, 3, 3), Grid(0.0, 12.0, 1.0, 1.0, 10, 10)
    assert cut_cells(coarse, fine, 2, 5, (8, 5)).astype(int).tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]


def test_a_part_that_lacks_what_is_taken_away_gives_what_it_has():
    coarse, fine = Grid(0.0, 1.0, 1.0, 1.0, 1, 1), Grid(0.0, 1.0, 0.25, 0.25, 4, 4)
    anchor = np.array([[0, 0, 0, 1]], np.uint8)
    before, after = (np.array(shares, np.float32).reshape(3, 1, 1) for shares in ([0, 0.5, 0.5], [0.5, 0.0, 0.5]))
    index = nearest_cells(coarse, fine, 0, 0, (1, 4))
    assert changed_counts(after, before, anchor, index, (True,) * 3).tolist() == [[4, 0, 0]]
    assert changed_counts(before, before, anchor, index, (True,) * 3).tolist() == [[3, 1, 0]]
    nothing = np.zeros_like(before)
    assert changed_counts(nothing, before, anchor, index, (True,) * 3).tolist() == [[3, 1, 0]]
    assert changed_counts(after, before, anchor, index, (True, False, True)).tolist() == [[3, 1, 0]]

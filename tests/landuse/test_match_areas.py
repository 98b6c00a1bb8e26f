import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from earthsr.geo.grid import Grid
from earthsr.landuse.area_assignment import assign, scores_of
from earthsr.landuse.baselines import nearest_cells, target_counts
from earthsr.landuse.match_areas import area_error, match_areas

K = 4
ALL = np.ones(K, bool)


def probabilities_for(seed, shape, k=K, step=0.0, zeros=0.0):
    """Random probabilities; rounded up to multiples of ``step`` so that many are equal, and some exactly 0."""
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.full(k, 0.5), shape).transpose(2, 0, 1)
    if step:
        values = np.ceil(values / step) * step
    values[rng.random(values.shape) < zeros] = 0.0
    return values.astype(np.float32)


def fractions_for(seed, shape, k=K):
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.7), shape).transpose(2, 0, 1).astype(np.float32)


def blocks(shape, size):
    """Index of square coarse cells with sides of ``size`` fine ones, whole or not, and the shape of their grid."""
    rows, columns = (np.floor((np.arange(n) + 0.5) / size).astype(np.int64) for n in shape)
    width = int(columns[-1]) + 1
    return rows[:, None] * width + columns, (int(rows[-1]) + 1, width)


def counted(classes, index, cells, k=K):
    return np.stack([np.bincount(index[classes == c], minlength=cells) for c in range(k)], axis=1)


def best_sum(scores, quotas):
    """Largest sum of scores (K, N) with so many cells of each class, by scipy's assignment of cells to places."""
    places = np.repeat(np.arange(len(quotas)), quotas)
    cell, place = linear_sum_assignment(scores[places].T, maximize=True)
    return scores[places[place], cell].sum()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.05, 0.25]),
    st.sampled_from([0.0, 0.3]),
)
def test_no_map_with_the_wanted_counts_is_likelier(seed, k, sizes, step, zeros):
    rng = np.random.default_rng(seed)
    scores = scores_of(probabilities_for(seed, (len(sizes), max(sizes)), k, step, zeros))
    shares = rng.dirichlet(np.full(k, 0.5), len(sizes))
    quotas = np.stack([rng.multinomial(n, share) for n, share in zip(sizes, shares, strict=True)])
    found = assign(scores, quotas, np.array(sizes))
    for g, n in enumerate(sizes):
        np.testing.assert_array_equal(np.bincount(found[g, :n], minlength=k), quotas[g])
        assert (found[g, n:] == 255).all()
        # Scores are whole numbers: sums are exact, and so is the comparison.
        assert scores[found[g, :n], g, np.arange(n)].sum() == best_sum(scores[:, g, :n], quotas[g])


@pytest.mark.parametrize("k", [7, 14])
def test_the_likeliest_map_is_found_in_cells_of_full_size(k):
    rng = np.random.default_rng(k)
    scores = scores_of(rng.dirichlet(np.full(k, 0.2), (2, 900)).transpose(2, 0, 1).astype(np.float32))
    quotas = rng.multinomial(900, rng.dirichlet(np.full(k, 0.5)), 2)
    found = assign(scores, quotas, np.array([900, 900]))
    for g in range(2):
        np.testing.assert_array_equal(np.bincount(found[g], minlength=k), quotas[g])
        assert scores[found[g], g, np.arange(900)].sum() == best_sum(scores[:, g], quotas[g])


@pytest.mark.parametrize(("quotas", "said"), [([[2, 1]], "4 in all"), ([[5, -1]], "none below 0")])
def test_quotas_that_do_not_add_up_are_an_error(quotas, said):
    with pytest.raises(ValueError, match=said):
        assign(np.zeros((2, 1, 4)), np.array(quotas), np.array([4]))


@pytest.mark.parametrize("size", [30, 7.3, 2, 1, 100])
def test_every_area_is_less_than_one_cell_from_the_wanted_one(size):
    index, shape = blocks((61, 75), size)
    fractions = fractions_for(1, shape)
    matched = match_areas(probabilities_for(2, (61, 75)), fractions, index, ALL)
    counts = counted(matched.classes, index, shape[0] * shape[1])
    wanted = fractions.reshape(K, -1).T * counts.sum(axis=1, keepdims=True)
    # Fractions in float32 add up to 1 but for 1e-7, and quotas are rounded to 1e-6 cells.
    assert np.abs(counts - wanted).max() < 1 + 1e-3
    assert counts.sum() == 61 * 75
    assert matched.statistics.unmet == matched.unmet.size == 0


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_counts_are_those_of_allocation_where_classes_are_unknown_or_the_scenario_is_silent(seed):
    index, shape = blocks((40, 44), 9)
    index[:, :3] = -1
    probabilities, fractions = probabilities_for(seed, (40, 44)), fractions_for(seed, shape)
    fractions[:, 1, 2] = 0.0
    known = np.array([True, False, True, True])
    likeliest = probabilities.argmax(axis=0).astype(np.uint8)
    found = match_areas(probabilities, fractions, index, known).classes
    cells = shape[0] * shape[1]
    targets = target_counts(fractions, likeliest, index, known)
    inside = index >= 0
    np.testing.assert_array_equal(counted(found[inside], index[inside], cells), targets)
    stays = ~inside | (likeliest == 1) | (index == np.ravel_multi_index((1, 2), shape))
    np.testing.assert_array_equal(found[stays], likeliest[stays])
    assert not (found[~stays] == 1).any()


def test_a_class_is_unknown_where_its_fraction_is_missing():
    index, shape = blocks((10, 20), 10)
    probabilities, fractions = probabilities_for(3, (10, 20)), fractions_for(3, shape)
    fractions[2, 0, 0] = np.nan
    fractions[:, 0, 1] = np.nan
    likeliest = probabilities.argmax(axis=0)
    found = match_areas(probabilities, fractions, index, ALL).classes
    np.testing.assert_array_equal(found[:, :10] == 2, likeliest[:, :10] == 2)
    np.testing.assert_array_equal(found[:, 10:], likeliest[:, 10:])
    known = fractions[[0, 1, 3], 0, 0]
    wanted = known / known.sum() * (likeliest[:, :10] != 2).sum()
    counts = counted(found[:, :10], index[:, :10], 1)[0, [0, 1, 3]]
    assert np.abs(counts - wanted).max() < 1


def test_cells_without_probabilities_have_no_class_and_no_area():
    index, shape = blocks((20, 20), 10)
    probabilities, fractions = probabilities_for(4, (20, 20)), fractions_for(4, shape)
    probabilities[:, :10, :10] = np.nan
    probabilities[1, 10:, 3] = np.nan
    void = np.isnan(probabilities).any(axis=0)
    matched = match_areas(probabilities, fractions, index, ALL)
    np.testing.assert_array_equal(matched.classes == 255, void)
    counts = counted(matched.classes, index, 4)
    wanted = fractions.reshape(K, -1).T * counts.sum(axis=1, keepdims=True)
    assert counts.sum(axis=1).tolist() == [0, 100, 90, 100]
    assert np.abs(counts - wanted).max() < 1
    assert (matched.statistics.fine_cells, matched.statistics.coarse_cells) == (290, 3)


def test_a_window_without_any_value_stays_so():
    index, shape = blocks((6, 6), 3)
    matched = match_areas(np.full((K, 6, 6), np.nan, np.float32), fractions_for(0, shape), index, ALL)
    assert (matched.classes == 255).all()
    assert matched.statistics.coarse_cells == matched.statistics.fine_cells == 0


def test_one_class_is_everywhere():
    index, shape = blocks((6, 6), 4)
    matched = match_areas(np.ones((1, 6, 6), np.float32), np.full((1, *shape), 0.3), index, np.array([True]))
    assert (matched.classes == 0).all()
    assert matched.statistics.changed == 0


def test_an_impossible_class_has_its_area_where_it_costs_least():
    doubt = np.linspace(0.0, 0.4, 16).reshape(4, 4)
    probabilities = np.stack([1 - doubt, doubt, 0 * doubt]).astype(np.float32)
    fractions = np.array([0.5, 0.25, 0.25]).reshape(3, 1, 1)
    found = match_areas(probabilities, fractions, np.zeros((4, 4), np.int64), np.ones(3, bool)).classes
    # Least is lost where nothing is sure; class 1 is likely in the same cells, and there its own loss is least.
    assert np.bincount(found.ravel()).tolist() == [8, 4, 4]
    assert (found.ravel()[:8] == 0).all()


def test_equal_cells_change_in_the_order_of_rows_and_of_classes():
    index = np.zeros((3, 4), np.int64)
    found = match_areas(np.full((3, 3, 4), 1 / 3, np.float32), np.full((3, 1, 1), 1 / 3), index, np.ones(3, bool))
    assert found.classes.tolist() == [[1, 1, 1, 1], [2, 2, 2, 2], [0, 0, 0, 0]]
    assert found.statistics.loss_nats == 0


def test_fixed_cells_stay_and_count():
    index, shape = blocks((20, 20), 10)
    probabilities, fractions = probabilities_for(5, (20, 20)), np.full((K, *shape), 1 / K)
    fixed = np.where(np.random.default_rng(5).random((20, 20)) < 0.3, 0, 255).astype(np.uint8)
    fixed[0, 0], fixed[5, 5] = 1, 2
    probabilities[:, 0, 0] = np.nan
    fixed[15:, 15:] = 255
    matched = match_areas(probabilities, fractions, index, ALL, fixed=fixed)
    held = fixed != 255
    np.testing.assert_array_equal(matched.classes[held], fixed[held])
    fixed_counts = counted(fixed, index, 4)
    # Coarse cells with room have exactly a quarter of each class, and the likeliest of all such maps.
    room = fixed_counts.max(axis=1) <= 25
    assert room.any()
    assert not room.all()
    assert matched.unmet.tolist() == np.nonzero(~room)[0].tolist()
    for cell in np.nonzero(room)[0]:
        free = (index == cell) & ~held
        quotas = 25 - fixed_counts[cell]
        np.testing.assert_array_equal(np.bincount(matched.classes[free], minlength=K), quotas)
        scores = scores_of(probabilities[:, free])
        assert scores[matched.classes[free], np.arange(free.sum())].sum() == best_sum(scores, quotas)


def test_what_is_fixed_beyond_its_share_is_missed_as_little_as_possible_and_reported():
    fixed = np.full((10, 10), 255, np.uint8)
    fixed[:7] = 2
    fractions = np.array([0.5, 0.3, 0.2, 0.0]).reshape(K, 1, 1)
    matched = match_areas(probabilities_for(6, (10, 10)), fractions, np.zeros((10, 10), np.int64), ALL, fixed=fixed)
    # The thirty cells that are free are shared as 5 to 3: 18.75 and 11.25.
    assert np.bincount(matched.classes.ravel(), minlength=K).tolist() == [19, 11, 70, 0]
    assert matched.unmet.tolist() == [0]
    statistics = matched.statistics
    assert statistics.unmet == 1
    np.testing.assert_allclose(statistics.wanted, [50, 30, 20, 0])
    np.testing.assert_allclose(statistics.missed, [31, 19, 50, 0])


def test_a_class_that_is_full_may_leave_another_one_full():
    fixed = np.full((10, 10), 255, np.uint8)
    fixed[:6], fixed[6, :8] = 0, 1
    # 60 cells of class 0 leave 40, of which class 1 would have 40 * 15 / 90 = 6.7: it has the 8 that are fixed.
    fractions = np.array([0.1, 0.15, 0.35, 0.4]).reshape(K, 1, 1)
    index = np.zeros((10, 10), np.int64)
    found = match_areas(probabilities_for(7, (10, 10)), fractions, index, ALL, fixed=fixed)
    assert np.bincount(found.classes.ravel(), minlength=K).tolist() == [60, 8, 15, 17]


def test_fixed_cells_of_an_unknown_class_leave_the_others_less():
    fixed = np.full((10, 10), 255, np.uint8)
    fixed[:2] = 3
    probabilities = probabilities_for(8, (10, 10))
    probabilities[3] = 0.0
    fractions = np.array([0.5, 0.25, 0.25, 0.9]).reshape(K, 1, 1)
    known = np.array([True, True, True, False])
    found = match_areas(probabilities, fractions, np.zeros((10, 10), np.int64), known, fixed=fixed)
    assert np.bincount(found.classes.ravel()).tolist() == [40, 20, 20, 20]
    assert found.statistics.unmet == 0


def test_windows_that_hold_a_coarse_cell_agree_on_it():
    coarse, fine = Grid(0.0, 80.0, 0.25, 0.25, 6, 8), Grid(0.0, 80.0, 1 / 90, 1 / 90, 135, 180)
    probabilities, fractions = probabilities_for(9, (135, 180), step=0.05), fractions_for(9, (6, 8))
    area = np.cos(np.deg2rad(fine.latitudes()))
    whole = match_areas(probabilities, fractions, nearest_cells(coarse, fine), ALL, pixel_area=area).classes
    # Rows 22.5 and columns 22.5 fine cells high and wide: the window holds the coarse cells of rows 1 to 3, columns 2
    # to 5, and parts of others.
    rows, columns = slice(20, 95), slice(40, 140)
    index = nearest_cells(coarse, fine, 20, 40, (75, 100))
    part = match_areas(probabilities[:, rows, columns], fractions, index, ALL, pixel_area=area[rows]).classes
    held = np.isin(index, [i * 8 + j for i in (1, 2, 3) for j in (2, 3, 4, 5)])
    assert 12 * 22**2 <= held.sum() <= 12 * 23**2
    np.testing.assert_array_equal(part[held], whole[rows, columns][held])
    assert (part != whole[rows, columns]).any()


@pytest.mark.parametrize("south", [60.0, 85.0, 89.75])
def test_areas_are_met_where_rows_differ_in_area(south):
    edges = np.deg2rad(south + 0.25 - np.arange(31) / 120)
    area = np.sin(edges[:-1]) - np.sin(edges[1:])
    index, shape = blocks((30, 60), 30)
    rng = np.random.default_rng(10)
    # Class 0 prefers the north, where rows are small.
    odds = rng.normal(size=(K, 30, 60))
    odds[0] -= np.linspace(-4, 4, 30)[:, None]
    probabilities = (np.exp(odds) / np.exp(odds).sum(axis=0)).astype(np.float32)
    fractions = fractions_for(10, shape)
    matched = match_areas(probabilities, fractions, index, ALL, pixel_area=area)
    for cell in range(2):
        inside = index == cell
        areas = np.broadcast_to(area[:, None], index.shape)[inside]
        found = np.bincount(matched.classes[inside], areas, minlength=K)
        wanted = fractions.reshape(K, -1)[:, cell] * areas.sum()
        assert np.abs(found - wanted).max() <= area.max() * (1 + 1e-5)
    assert matched.statistics.unmet == 0
    by_count = match_areas(probabilities, fractions, index, ALL).classes
    error = area_error(by_count, fractions, index, ALL, area)
    assert area_error(matched.classes, fractions, index, ALL, area).in_all <= error.in_all
    if south > 80:
        assert error.differences.max() > 2 * area.max()


def test_rows_beyond_a_pole_are_left_as_they_are():
    probabilities = probabilities_for(11, (4, 6))
    area = np.array([0.0, -0.1, 1.0, 1.0])
    index = np.zeros((4, 6), np.int64)
    matched = match_areas(probabilities, np.array([1.0, 0, 0, 0]).reshape(K, 1, 1), index, ALL, pixel_area=area)
    np.testing.assert_array_equal(matched.classes[:2], probabilities[:, :2].argmax(axis=0))
    assert (matched.classes[2:] == 0).all()
    assert matched.statistics.wanted.tolist() == [12, 0, 0, 0]


def test_statistics_tell_areas_changes_and_loss_and_merge():
    index, shape = blocks((40, 40), 10)
    probabilities, fractions = probabilities_for(12, (40, 40), step=0.01), fractions_for(12, shape)
    area = np.linspace(1.0, 1.1, 40)
    whole = match_areas(probabilities, fractions, index, ALL, pixel_area=area)
    likeliest = probabilities.argmax(axis=0)
    found, weights = whole.classes, np.broadcast_to(area[:, None], (40, 40))
    statistics = whole.statistics
    np.testing.assert_allclose(statistics.before, np.bincount(likeliest.ravel(), weights.ravel(), minlength=K))
    np.testing.assert_allclose(statistics.after, np.bincount(found.ravel(), weights.ravel(), minlength=K))
    cell_areas = np.bincount(index.ravel(), weights.ravel())
    np.testing.assert_allclose(statistics.wanted, fractions.reshape(K, -1) @ cell_areas, rtol=1e-6)
    assert statistics.changed == (found != likeliest).sum() > 0
    chosen = np.take_along_axis(probabilities, found[None].astype(int), axis=0)
    # Scores are rounded to 1e-9 nat.
    np.testing.assert_allclose(
        statistics.loss_nats,
        np.log(probabilities.max(axis=0), dtype=float).sum() - np.log(chosen, dtype=float).sum(),
        rtol=1e-6,
    )
    halves = [
        match_areas(probabilities[:, rows], fractions, index[rows], ALL, pixel_area=area[rows]).statistics
        for rows in (slice(0, 20), slice(20, 40))
    ]
    merged = halves[0] + halves[1]
    for name in ("wanted", "before", "after", "missed", "fine_cells", "changed", "coarse_cells", "loss_nats"):
        np.testing.assert_allclose(getattr(merged, name), getattr(statistics, name), err_msg=name)


def test_matching_removes_the_area_error():
    index, shape = blocks((90, 90), 30)
    probabilities, fractions = probabilities_for(13, (90, 90)), fractions_for(13, shape)
    before = area_error(probabilities.argmax(axis=0).astype(np.uint8), fractions, index, ALL)
    matched = match_areas(probabilities, fractions, index, ALL)
    after = area_error(matched.classes, fractions, index, ALL)
    assert before.in_all > 0.1
    # Less than one of 900 cells for each class, and half of the sum over four.
    assert after.by_class.max() < 1 / 900
    assert after.in_all < 2 / 900


def test_area_errors_are_means_over_coarse_cells_by_area():
    # Two coarse cells of 2 x 2 with rows of area 1 and 3; one fine cell has no class.
    classes = np.array([[0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)
    index, shape = blocks((2, 4), 2)
    fractions = np.zeros((3, *shape))
    fractions[0], fractions[1] = [[0.5, 0.25]], [[0.5, 0.75]]
    known = np.array([True, True, False])
    error = area_error(classes, fractions, index, known, np.array([1.0, 3.0]))
    # West: areas of 5 and 3 of 8, wanted 4 and 4. East: 0 and 5 of 8 (3 have no class), wanted 2 and 6.
    np.testing.assert_allclose(error.by_class, [(1 + 2) / 16, (1 + 1) / 16, np.nan])
    # West one unit has the wrong class; east three units of no class should have one.
    assert error.in_all == pytest.approx((1 + 3) / 16)
    # East, among 5 units that have a class: 0 and 5, wanted 1.25 and 3.75.
    among = area_error(classes, fractions, index, known, np.array([1.0, 3.0]), among_known=True)
    np.testing.assert_allclose(among.by_class, [(1 + 1.25) / 13, (1 + 1.25) / 13, np.nan])
    assert among.in_all == pytest.approx((1 + 1.25) / 13)
    halves = [
        area_error(classes[:, c], fractions, index[:, c], known, np.array([1.0, 3.0]))
        for c in (slice(0, 2), slice(2, 4))
    ]
    merged = halves[0] + halves[1]
    np.testing.assert_allclose(merged.by_class, error.by_class)
    assert merged.in_all == pytest.approx(error.in_all)


def test_coarse_cells_without_a_class_are_not_compared():
    classes = np.array([[0, 255]], np.uint8)
    fractions = np.full((2, 1, 2), 0.5)
    error = area_error(classes, fractions, np.array([[0, 1]]), np.ones(2, bool))
    np.testing.assert_allclose(error.by_class, 0.5)
    nothing = area_error(classes[:, 1:], fractions, np.array([[1]]), np.ones(2, bool))
    assert np.isnan(nothing.in_all)
    assert np.isnan(nothing.by_class).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(known=np.ones(3, bool)), "known of 3"),
        (dict(fractions=np.ones((3, 1, 1))), "fractions of 3"),
        (dict(cell_index=np.zeros((2, 2), np.int64)), r"cell_index has shape \(2, 2\)"),
        (dict(cell_index=np.full((2, 3), 1)), "reaches 1, but there are 1"),
        (dict(fixed=np.zeros((3, 2), np.uint8)), r"fixed has shape \(3, 2\)"),
        (dict(fixed=np.full((2, 3), 4, np.uint8)), "fixed holds class 4"),
        (dict(pixel_area=np.ones(3)), r"pixel_area has shape \(3,\)"),
        (dict(probabilities=np.full((K, 2, 3), np.inf)), "infinite"),
    ],
)
def test_what_does_not_fit_is_an_error(change, said):
    arguments = dict(
        probabilities=probabilities_for(0, (2, 3)),
        fractions=np.ones((K, 1, 1)),
        cell_index=np.zeros((2, 3), np.int64),
        known=ALL,
    )
    with pytest.raises(ValueError, match=said):
        match_areas(**(arguments | change))

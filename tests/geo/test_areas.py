"""Grids of longitude and latitude, against what a loop over cells and NumPy's own interpolation say."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthsr.errors import DataError
from earthsr.geo.areas import class_areas, overlap, overlaps, window_matrix, window_size
from earthsr.geo.grid import Grid

FINE = Grid(8.1, 50.02, 0.03, 0.03, 40, 44)


# Grids


def test_edges_and_centres_count_from_the_north_west():
    grid = Grid(10.0, 60.0, 0.5, 0.25, 4, 3)
    np.testing.assert_array_equal(grid.latitude_edges(), [60, 59.75, 59.5, 59.25, 59])
    np.testing.assert_array_equal(grid.longitude_edges(), [10, 10.5, 11, 11.5])
    np.testing.assert_array_equal(grid.latitudes(), [59.875, 59.625, 59.375, 59.125])
    np.testing.assert_array_equal(grid.longitudes(1, 2), [10.75, 11.25])
    np.testing.assert_array_equal(grid.latitudes(2, 1), [59.375])
    # A window may go on beyond the grid: what lies there is the caller's to know.
    np.testing.assert_array_equal(grid.longitude_edges(2, 2), [11, 11.5, 12])
    assert grid.transform == (0.5, 0.0, 10.0, 0.0, -0.25, 60.0)


@pytest.mark.parametrize(
    ("cell", "columns", "periodic"),
    [
        (0.25, 1440, True),
        (0.25, 1439, False),
        (0.25, 1441, False),
        (1 / 3, 1080, True),
        (0.1, 3600, True),
        (1, 36, False),
    ],
)
def test_a_grid_is_periodic_where_it_goes_once_around(cell, columns, periodic):
    assert Grid(-180.0, 90.0, cell, cell, 2, columns).periodic is periodic
    assert Grid(0.0, 90.0, cell, cell, 2, columns).periodic is periodic


@given(
    st.floats(-179, 170), st.floats(-60, 80), st.sampled_from([1 / 120, 0.01, 0.03, 1 / 64, 0.1, 0.3]),
    st.integers(1, 80), st.integers(1, 80), st.sampled_from([0.1, 0.25, 0.5, 1.0]),
)  # fmt: skip
def test_the_coarse_grid_covers_and_has_no_cell_too_many(west, north, cell, rows, columns, coarse_cell):
    fine = Grid(west, north, cell, cell, rows, columns)
    coarse = fine.coarse(coarse_cell)
    for edges, inner in (
        (-coarse.latitude_edges(), -fine.latitude_edges()),
        (coarse.longitude_edges(), fine.longitude_edges()),
    ):
        np.testing.assert_allclose(edges / coarse_cell, np.round(edges / coarse_cell), atol=1e-6)
        assert edges[0] <= inner[0] + 1e-6
        assert edges[-1] >= inner[-1] - 1e-6
        # The outermost cells hold more than a sliver of the fine grid.
        assert edges[1] > inner[0]
        assert edges[-2] < inner[-1]


def test_a_grid_whose_edges_are_multiples_keeps_them():
    # 0.1 + 0.2 and its like must not make a cell more.
    fine = Grid(0.1 + 0.2, 3 * 1.1, 0.1, 0.1, 30, 27)
    assert fine.coarse(0.3) == Grid(0.3, pytest.approx(3.3), 0.3, 0.3, 10, 9)


# Overlaps


def brute_overlap(a, b):
    pairs = itertools.pairwise
    return np.array([[max(min(x1, y1) - max(x0, y0), 0.0) for y0, y1 in pairs(b)] for x0, x1 in pairs(a)])


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=8),
    st.lists(st.floats(0.01, 3), min_size=1, max_size=12),
    st.floats(-5, 5),
)
def test_overlap_is_the_shared_length(coarse, fine, start):
    a, b = np.cumsum([0.0, *coarse]), start + np.cumsum([0.0, *fine])
    expected = brute_overlap(a, b)
    np.testing.assert_allclose(overlap(a, b), expected, atol=1e-8)
    # The other direction of the axes, as latitudes have it.
    np.testing.assert_allclose(overlap(a[::-1], b[::-1]), expected[::-1, ::-1], atol=1e-8)


def test_edges_that_are_meant_to_be_the_same_share_nothing():
    edges = 0.1 * np.arange(8)
    shared = overlap(edges[::3], edges + 1e-13)
    assert (shared > 0).sum() == 6
    assert (overlap(edges, edges + 1e-13) > 0).sum() == 7


def test_overlaps_of_a_window_are_a_part_of_those_of_the_grid():
    coarse = FINE.coarse(0.25)
    rows, columns = overlaps(coarse, FINE)
    some_rows, some_columns = overlaps(coarse, FINE, 5, 9, (11, 13))
    np.testing.assert_allclose(some_rows, rows[:, 5:16], atol=1e-12)
    np.testing.assert_allclose(some_columns, columns[:, 9:22], atol=1e-12)
    np.testing.assert_allclose(columns.sum(axis=0), 0.03, rtol=1e-9)
    sines = np.sin(np.deg2rad(FINE.latitude_edges()))
    np.testing.assert_allclose(rows.sum(axis=0), -np.diff(sines), rtol=1e-6)
    # Half a degree at 60 N is as large as a quarter at the equator, but for the curvature.
    wide = overlaps(Grid(0, 60.5, 1, 1, 1, 1), Grid(0, 60.5, 1, 1, 1, 1))[0].item()
    low = overlaps(Grid(0, 0.5, 1, 1, 1, 1), Grid(0, 0.5, 1, 1, 1, 1))[0].item()
    assert wide / low == pytest.approx(0.5, abs=1e-3)


def test_nothing_lies_beyond_the_pole():
    rows, _ = overlaps(Grid(0, 90.25, 0.5, 0.5, 2, 1), Grid(0, 90.25, 0.5, 0.5, 2, 1))
    assert rows[0, 0] == pytest.approx(1 - np.sin(np.deg2rad(89.75)), rel=1e-6)


@pytest.mark.parametrize("cell", [0.25, 0.07, 1.0], ids=["larger", "in no ratio", "one holds all"])
def test_areas_of_classes_are_those_of_a_loop(cell):
    coarse = FINE.coarse(cell)
    classes = np.random.default_rng(0).choice(np.array([0, 1, 2, 7, 255], np.uint8), (FINE.rows, FINE.columns))
    areas, covered = class_areas(classes, 3, *overlaps(coarse, FINE))
    expected = np.zeros((3, coarse.rows, coarse.columns))
    whole = np.zeros((coarse.rows, coarse.columns))
    south, west = FINE.latitude_edges(), FINE.longitude_edges()
    top, left = coarse.latitude_edges(), coarse.longitude_edges()
    for i in range(coarse.rows):
        for k in range(FINE.rows):
            high, low = min(top[i], south[k]), max(top[i + 1], south[k + 1])
            if high <= low:
                continue
            height = np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low))
            for j in range(coarse.columns):
                for m in range(FINE.columns):
                    width = max(min(left[j + 1], west[m + 1]) - max(left[j], west[m]), 0.0)
                    whole[i, j] += height * width
                    if classes[k, m] < 3:
                        expected[classes[k, m], i, j] += height * width
    np.testing.assert_allclose(areas, expected, atol=1e-9 * whole.max())
    np.testing.assert_allclose(covered, whole, atol=1e-9 * whole.max())
    assert (areas.sum(axis=0) < covered).any(), "cells without a class belong to none"


# Windows


def interpolated(values, centres, first, step, method, periodic):
    """What the cells of a coarse axis give at some centres, by NumPy alone."""
    axis = first + step * np.arange(len(values))
    span = abs(step) * len(values)
    if method == "nearest":
        distance = np.abs(np.subtract.outer(centres, axis))
        distance = np.minimum(distance % span, -distance % span) if periodic else distance
        return values[distance.argmin(axis=1)]
    order = np.argsort(axis)
    return np.interp(centres, axis[order], values[order], period=span if periodic else None)


@given(st.data())
def test_a_window_gives_what_direct_interpolation_gives(data):
    """Any ratio and any offset, up to the edges; the window has always room for what is needed."""
    method = data.draw(st.sampled_from(["bilinear", "nearest"]))
    periodic = data.draw(st.booleans())
    count = data.draw(st.integers(2, 40))
    step = 360 / count if periodic else data.draw(st.sampled_from([0.25, 0.1, 1 / 3, 1.0]))
    sign = -1 if not periodic and data.draw(st.booleans()) else 1
    first = data.draw(st.floats(-180, 180))
    ratio = data.draw(st.one_of(st.floats(0.01, 3), st.sampled_from([1 / 16, 0.12, 1 / 3, 0.5, 1.0, 2.0])))
    most = int((count - 1e-6) / ratio)
    cells = data.draw(st.integers(1, max(min(most, 64), 1)))
    fine = ratio * step
    length = cells * fine
    room = count * step - length
    if room < 0:
        return
    # Once around or more, where the axis has no end; else anywhere inside, the very edges too.
    offset = data.draw(st.floats(-500, 500) if periodic else st.sampled_from([0.0, 1.0]) | st.floats(0, 1)) * (
        1 if periodic else room
    )
    centres = first + sign * (offset - step / 2 + fine * (np.arange(cells) + 0.5))
    size = window_size(cells, fine, step)
    indices, weights = window_matrix(centres, first, sign * step, count, size, method, periodic)
    assert indices.shape == (size,)
    assert weights.shape == (cells, size)
    assert weights.dtype == np.float32
    assert ((indices >= 0) & (indices < count)).all()
    assert (weights > -1e-5).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    values = np.random.default_rng(count).normal(size=count)
    found = weights.astype(np.float64) @ values[indices]
    expected = interpolated(values, centres, first, sign * step, method, periodic)
    if method == "nearest":
        place = (centres - first) / step
        apart = np.abs(place - np.floor(place) - 0.5) > 1e-6  # as near to one as to another
        found, expected = found[apart], expected[apart]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_window_is_no_larger_than_needed():
    # 16 cells of 1/16: at most 2 coarse cells hold their centres, and bilinear needs one more.
    assert window_size(16, 1 / 16, 1.0) == 3
    assert window_size(1, 1.0, 1.0) == 3
    assert window_size(64, 0.25 / 16, 0.25) == 6


def test_the_outermost_cell_goes_on_to_its_edge():
    indices, weights = window_matrix(np.array([0.1, 0.3, 0.6]), 0.5, 1.0, 3, 3)
    np.testing.assert_allclose(weights @ np.array([5.0, 7.0, 9.0])[indices], [5, 5, 5.2], rtol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("west", [170.0, -190.0, 530.0], ids=["170", "-190", "530"])
def test_a_tile_across_the_dateline_equals_that_of_a_rolled_grid(method, west):
    values = np.random.default_rng(1).random(144)
    tile = Grid(west, 10.0, 0.3, 0.3, 1, 64).longitudes()
    size = window_size(64, 0.3, 2.5)
    indices, weights = window_matrix(tile, -178.75, 2.5, 144, size, method, periodic=True)
    assert 0 in indices
    assert 143 in indices
    across = weights @ values[indices]
    # The same values on a grid that counts from 0: the tile lies in its middle.
    middle = tile - (360 if west > 180 else 0) + (360 if west < 0 else 0)
    indices, weights = window_matrix(middle, 1.25, 2.5, 144, size, method)
    np.testing.assert_allclose(across, weights @ np.roll(values, 72)[indices], atol=1e-6)


@pytest.mark.parametrize(
    ("centres", "first", "step", "named"),
    [
        ([9.9, 10.1], 10.5, 1.0, "9.9000"),
        ([12.9, 13.1], 10.5, 1.0, "13.1000"),
        ([10.1, 9.9], 12.5, -1.0, "9.9000"),
        ([13.1, 12.9], 12.5, -1.0, "13.1000"),
    ],
)
def test_what_lies_outside_is_named_with_what_is_covered(centres, first, step, named):
    with pytest.raises(DataError, match=rf"{named} degrees lie outside the coarse grid, which covers 10 to 13"):
        window_matrix(np.array(centres), first, step, 3, 3)
    # The edge itself is inside.
    window_matrix(np.array([10.0, 13.0]), first, step, 3, 5)

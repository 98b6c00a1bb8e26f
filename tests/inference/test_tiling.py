"""How rasters are cut, weighed and made to add up; no network here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthsr.data.samples import restore, transform
from earthsr.dem.predict.enlarge import Residual, area_mean, area_weights, conserved
from earthsr.errors import InputError
from earthsr.geo import Georeference, Window
from earthsr.geo.resample import block_mean, interpolate
from earthsr.inference.pipeline import flow
from earthsr.inference.tiling import BlendedTiles, ChunkSums, ExactTiles, Lattice, bell, chunks, covering, grown, slices

extents = st.integers(1, 70)


@given(extents, extents, st.integers(1, 40), st.integers(0, 12), st.integers(1, 50), st.data())
@settings(max_examples=80, deadline=None)
def test_exact_tiles_keep_every_cell_once_and_far_from_cut_edges(rows, columns, tile, halo, side, data):
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    wanted = Window(top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left)))
    plan = ExactTiles(rows, columns, tile, halo)
    seen = np.zeros((rows, columns), int)
    for chunk in chunks(wanted, side):
        for each in plan.tiles(chunk):
            window, keep = each.window, each.keep
            assert window[2:] == plan.shape
            assert window.row >= 0
            assert window.column >= 0
            assert window.row + window.rows <= rows
            assert window.column + window.columns <= columns
            seen[slices(keep, Window(0, 0, rows, columns))] += 1
            for kept, kept_size, start, size, extent in (
                (keep.row, keep.rows, window.row, window.rows, rows),
                (keep.column, keep.columns, window.column, window.columns, columns),
            ):
                assert start <= kept
                assert kept + kept_size <= start + size
                assert start == 0 or kept - start >= halo
                assert start + size == extent or start + size - kept - kept_size >= halo
    inside = np.zeros_like(seen)
    inside[slices(wanted, Window(0, 0, rows, columns))] = 1
    np.testing.assert_array_equal(seen, inside)


@given(extents, extents, st.integers(1, 40), st.floats(0, 0.9), st.integers(1, 50), st.integers(1, 3), st.data())
@settings(max_examples=80, deadline=None)
def test_blended_windows_add_up_to_one_and_to_the_same_in_any_part(rows, columns, tile, overlap, side, scale, data):
    plan = BlendedTiles(rows, columns, tile, overlap)
    whole = Window(0, 0, rows, columns)
    field = np.random.default_rng(0).normal(size=(1, rows * scale, columns * scale)).astype(np.float32)

    def filled(part):
        sums = ChunkSums(plan, part, scale)
        for each in plan.tiles(part):
            assert each.window[2:] == plan.shape
            sums.add(each, field[(slice(None), *slices(each.window, whole, scale))])
        return sums.values

    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    part = Window(top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left)))
    # A field that all windows agree on comes out as it is: weights add up to 1, to float32's rounding.
    np.testing.assert_allclose(filled(whole), field, atol=2e-6)
    for chunk in chunks(part, side):
        np.testing.assert_array_equal(filled(chunk), filled(whole)[(slice(None), *slices(chunk, whole, scale))])


@given(extents, extents, st.integers(1, 40), st.integers(0, 40), st.integers(1, 50), st.integers(-90, 90))
@settings(max_examples=80, deadline=None)
def test_exact_tiles_round_the_globe_have_their_halo_everywhere(rows, columns, tile, halo, side, left):
    plan = ExactTiles(rows, columns, tile, halo, periodic=True)
    wanted = Window(0, left, rows, columns)
    seen = np.zeros((rows, columns), int)
    for chunk in chunks(wanted, side):
        tiles = list(plan.tiles(chunk))
        # Unwrapped: what is read is what the part has, and the halo to each side of it.
        cover = covering(tiles)
        assert cover.column == chunk.column - halo
        assert cover.columns < chunk.columns + 2 * halo + min(tile, columns)
        for each in tiles:
            assert each.window[2:] == plan.shape
            assert each.window.row >= 0
            assert each.window.row + each.window.rows <= rows
            before, behind = each.keep.column - each.window.column, each.keep.column + each.keep.columns
            assert before == halo
            assert each.window.column + each.window.columns - behind >= halo
            for column in range(each.keep.column, behind):
                seen[each.keep.row : each.keep.row + each.keep.rows, column % columns] += 1
    np.testing.assert_array_equal(seen, 1)


@given(extents, st.integers(1, 70), st.integers(1, 70), st.integers(-90, 90))
@settings(max_examples=80, deadline=None)
def test_a_periodic_lattice_closes_upon_itself(extent, side, step, origin):
    side = min(side, extent)
    axis = Lattice(extent, side, min(step, side), True, origin)
    starts = [axis.start(i) for i in range(axis.count + 1)]
    # As many windows as are needed, as even as whole cells allow; the one after the last is the first, a turn farther.
    assert axis.count == -(-extent // axis.step)
    assert starts == [origin + round(i * extent / axis.count) for i in range(axis.count + 1)]
    assert starts[-1] == origin + extent
    gaps = np.diff(starts)
    assert gaps.max() <= axis.step
    assert gaps.max() - gaps.min() <= 1
    # Every window that touches a part is found, whichever turn it is of.
    everything = [axis.start(i) for i in range(-3 * axis.count, 4 * axis.count)]
    for first in range(origin - 2 * extent, origin + 2 * extent, 7):
        last = first + min(9, extent)
        assert axis.starts(first, last) == [start for start in everything if start < last and start + side > first]


@pytest.mark.slow
@given(
    st.integers(1, 20),
    extents,
    st.integers(1, 40),
    st.floats(0, 0.9),
    st.integers(1, 50),
    st.integers(-90, 90),
    st.integers(-90, 90),
)
@settings(max_examples=80, deadline=None)
def test_periodic_windows_add_up_to_one_and_to_the_same_in_any_turn(rows, columns, tile, overlap, side, left, origin):
    plan = BlendedTiles(rows, columns, tile, overlap, periodic=True, origin=origin)
    noise = np.random.default_rng(0).normal(size=(3, rows, columns)).astype(np.float32)

    def filled(part, agree):
        sums = ChunkSums(plan, part, 1)
        for each in plan.tiles(part):
            row, column, height, width = each.window
            assert (height, width) == plan.shape
            assert 0 <= row <= rows - height
            # Each window has numbers of its own, the same ones in each turn; or those of the one field.
            field = noise[0 if agree else (row + column % columns) % 3]
            sums.add(each, field[None, row : row + height][:, :, np.arange(column, column + width) % columns])
        return sums.values

    # More than a turn: the same cells come again.
    part = Window(0, left, rows, columns + 9)
    turns = np.arange(left, left + columns + 9) % columns
    np.testing.assert_allclose(filled(part, True), noise[:1][:, :, turns], atol=2e-6)
    whole = filled(Window(0, 0, rows, columns), False)
    np.testing.assert_array_equal(filled(part, False), whole[:, :, turns])
    for chunk in chunks(part, side):
        expected = whole[
            :, chunk.row : chunk.row + chunk.rows, np.arange(chunk.column, chunk.column + chunk.columns) % columns
        ]
        np.testing.assert_array_equal(filled(chunk, False), expected)


def test_columns_are_periodic_and_rows_are_not():
    down, across = BlendedTiles(64, 64, 20, 0.25, periodic=True).axes
    assert (down.starts(0, 64), across.starts(0, 64)) == ([0, 15, 30, 44], [-13, 0, 13, 26, 38, 51])
    down, across = BlendedTiles(64, 64, 20, 0.25).axes
    assert down.starts(0, 64) == across.starts(0, 64) == [0, 15, 30, 44]
    assert grown(Window(1, 5, 3, 3), 2, 10, 9, periodic=True) == Window(0, 3, 6, 7)
    assert grown(Window(1, 0, 9, 9), 2, 10, 9, periodic=True) == Window(0, -2, 10, 13)


@given(extents, extents, st.integers(1, 90), st.floats(0, 0.8), st.integers(9, 50), st.booleans())
@settings(max_examples=40, deadline=None)
def test_whole_tiles_keep_their_side_and_still_add_up_to_one(rows, columns, tile, overlap, side, periodic):
    periodic = periodic and columns >= tile
    plan = BlendedTiles(rows, columns, tile, overlap, periodic=periodic, whole=True)
    for part in chunks(Window(0, 0, rows, columns), side):
        sums = ChunkSums(plan, part, 1)
        for each in plan.tiles(part):
            assert each.window[2:] == plan.shape == (tile, tile)
            for start, extent, wraps in ((each.window.row, rows, False), (each.window.column, columns, periodic)):
                if tile > extent:
                    assert start == (extent - tile) // 2  # the raster is in the middle
                elif not wraps:
                    assert 0 <= start <= extent - tile  # moved inwards, as ever
            sums.add(each, np.ones((1, tile, tile), np.float32))
        np.testing.assert_allclose(sums.values, 1, atol=2e-6)


def test_whole_tiles_do_not_overlap_themselves():
    assert BlendedTiles(10, 64, 64, 0.25, periodic=True, whole=True).shape == (64, 64)
    with pytest.raises(InputError, match="once round the globe in 63 columns, and tiles of 64 cells"):
        BlendedTiles(10, 63, 64, 0.25, periodic=True, whole=True)
    assert BlendedTiles(10, 63, 64, 0.25, periodic=True).shape == (10, 63)


def test_blending_forgets_the_edges_of_windows():
    # Windows that disagree by 1: nowhere does the blend jump by more than a small part of it.
    plan = BlendedTiles(1, 64, 32, 0.5)
    part = Window(0, 0, 1, 64)
    sums = ChunkSums(plan, part, 5)
    for i, each in enumerate(plan.tiles(part)):
        sums.add(each, np.full((1, 5, 160), i % 2, np.float32))
    # The steepest place between two bells 16 cells apart with sigma 4 is where both weigh the same: 16 / 4**2 / 4 per
    # cell, a fifth of it per fine cell.
    assert np.abs(np.diff(sums.values[0, 0])).max() < 16 / 16 / 4 / 5 * 1.01


def test_a_bell_is_symmetric_and_never_nothing():
    weights = bell(40)
    np.testing.assert_array_equal(weights, weights[::-1])
    assert weights.min() > 1e-4
    assert weights.max() <= 1


@pytest.mark.parametrize(
    ("tile", "overlap", "word"), [(0, 0.2, "--tile"), (8, 1.0, "--overlap"), (8, -0.1, "--overlap")]
)
def test_sizes_that_make_no_sense_are_refused(tile, overlap, word):
    with pytest.raises(InputError, match=word):
        BlendedTiles(10, 10, tile, overlap)


def test_margins_stay_inside():
    assert grown(Window(1, 5, 3, 3), 2, 10, 9) == Window(0, 3, 6, 6)
    tiles = list(ExactTiles(20, 20, 5, 3).tiles(Window(5, 5, 10, 5)))
    assert covering(tiles) == Window(2, 2, 16, 11)


@pytest.mark.parametrize("symmetry", range(8))
def test_every_symmetry_is_undone(symmetry):
    field = np.arange(24).reshape(1, 1, 4, 6)
    np.testing.assert_array_equal(restore(transform(field, symmetry), symmetry), field)


def grid(rows=6, columns=4, north=60.0, geographic=True):
    return Georeference(5.0, north, 0.5, 0.5, rows, columns, geographic=geographic)


def test_area_weights_are_those_of_the_sphere():
    weights = area_weights(grid(), 1, 2, 5)
    assert weights.shape == (2, 5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-15)
    # Half a degree below 59.5: rows get longer towards the equator.
    latitudes = 59.5 - (np.arange(5) + 0.5) / 10
    expected = np.cos(np.deg2rad(latitudes))
    np.testing.assert_allclose(weights[0], expected / expected.sum(), rtol=1e-6)
    np.testing.assert_array_equal(area_weights(grid(geographic=False), 0, 3, 4), np.full((3, 4), 0.25))


def test_conserving_makes_area_means_equal_the_coarse_values():
    rng = np.random.default_rng(1)
    coarse = (rng.normal(size=(6, 4)) * 300 + 2000).astype(np.float32)
    fine = interpolate(coarse, 5, "bicubic") + rng.normal(size=(30, 20)).astype(np.float32) * 20
    coarse[2, 1] = np.nan
    weights = area_weights(grid(), 0, 6, 5)
    shifted = conserved(fine, coarse, weights)
    gaps = (area_mean(shifted, weights) - coarse)[np.isfinite(coarse)]
    # float32 keeps 2,000 m to 1.2e-4 m; the mean of 25 such values is nearer than that.
    assert np.abs(gaps).max() < 1.2e-4
    assert Residual.of(fine, coarse, weights).to_dict()["largest"] > 1
    # A plain mean is something else at 60 degrees north.
    assert np.abs((block_mean(shifted, 5) - coarse)[np.isfinite(coarse)]).max() > 1e-3


def test_conserving_adds_no_steps_between_cells():
    coarse = np.zeros((8, 24), np.float32)
    fine = np.zeros((40, 120), np.float32)
    coarse[:] = np.linspace(0, 230, 24)  # what is missing is a ramp of 2 m per fine cell
    shifted = conserved(fine, coarse, area_weights(grid(8, 24, geographic=False), 0, 8, 5))
    # Edges are replicated, where a ramp bends: so far from them nothing is left of it.
    np.testing.assert_allclose(np.diff(shifted[20, 55:65]), 2.0, atol=1e-4)


def test_residuals_merge():
    one = Residual(2, 1.0, 1.0, 0.9) + Residual(1, -1.0, 1.0, 1.0)
    assert one.to_dict() == {"mean": 0.0, "rms": pytest.approx(np.sqrt(2 / 3)), "largest": 1.0}
    assert Residual().to_dict() == {"mean": None, "rms": None, "largest": None}


def test_a_flow_keeps_the_order_and_hands_errors_on():
    seen = []
    times = flow(list(range(20)), lambda i: i * 2, lambda i, v: (i, v), lambda i, made: seen.append(made))
    assert seen == [(i, 2 * i) for i in range(20)]
    assert times.total > 0

    def fails(i, made):
        if i == 3:
            raise OSError("disk full")

    for stage in range(3):
        work = [lambda i: i, lambda i, v: v, lambda i, made: None]
        work[stage] = (lambda i: fails(i, None)) if stage == 0 else fails
        with pytest.raises(OSError, match="disk full"):
            flow(list(range(9)), *work)


def test_a_flow_reads_no_farther_ahead_than_its_depth():
    reads, most = [], []

    def compute(i, value):
        most.append(len(reads) - i)
        return value

    flow(list(range(30)), reads.append, compute, lambda i, made: None, depth=2)
    assert max(most) <= 4

"""The parts of a reconstruction that can be checked by hand: order of years, chunks, what comes after what, counts."""

import numpy as np
import pytest

from earthsr.geo import Window
from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.reconstruct.ledger import add_up, by_decade, count, yearly
from earthsr.landuse.reconstruct.plan import Chunk, chunk_side, make_plan, open_inputs, steps_of
from earthsr.landuse.reconstruct.stages import RolloutPieces, key_of
from earthsr.ranks import device_of
from tests.landuse.reconstruct.cases import SMALL, inputs_of


def test_each_map_has_the_one_before_it_as_prior_in_both_directions():
    steps = [(step.year, step.before, step.earlier, step.direction) for step in steps_of(2000, 1998, 2002)]
    assert steps == [
        (2000, None, None, 1),
        (2001, 2000, None, 1),
        (2002, 2001, 2000, 1),
        (1999, 2000, None, -1),
        (1998, 1999, 2000, -1),
    ]


@pytest.mark.parametrize(
    ("span", "years"), [((2003, 2004), [2001, 2002, 2003, 2004]), ((1997, 1998), [1999, 1998, 1997])]
)
def test_years_between_the_anchor_and_a_span_are_made_too(span, years):
    assert [step.year for step in steps_of(2000, *span)[1:]] == years


def test_processes_of_one_machine_take_a_gpu_each():
    assert device_of("auto", {"LOCAL_RANK": "1"}) == "auto:1"
    assert device_of("gpu", {"LOCAL_RANK": "0"}) == "gpu"
    assert device_of("gpu", {"SLURM_LOCALID": "3"}) == "gpu:3"
    assert device_of("cpu", {"LOCAL_RANK": "1"}) == "cpu"
    assert device_of("gpu:3", {"LOCAL_RANK": "1"}) == "gpu:3"


def test_a_chunk_comes_after_those_that_its_windows_touch(world, model):
    """Of 2 x 8 chunks; windows of 16 cells reach into the chunks beside one of 32."""
    opened = open_inputs(model, inputs_of(world / "archives"))
    plan = make_plan(model, opened, (1991, 1995), SMALL)
    opened.close()
    pieces = RolloutPieces(plan, frozenset({Chunk(0, 0)}))
    assert len(pieces) == len(list(pieces)) == 5 * len(plan.lattice)
    seen = set()
    for key, piece in pieces.items():
        assert set(piece.after) <= seen, "each comes after those that it depends on"
        seen.add(key)
    assert pieces[key_of(1993, Chunk(1, 2))].after == ()
    around = [Chunk(i, j) for i in (0, 1) for j in (1, 2, 3)]
    first, third = pieces[key_of(1994, Chunk(1, 2))], pieces[key_of(1991, Chunk(1, 2))]
    assert set(first.after) == {key_of(1993, chunk) for chunk in around}
    by_hand = {key_of(year, chunk) for year in (1992, 1993) for chunk in around}
    assert set(third.after) == by_hand, "the anchor has the static fields, and is two years before"
    assert third.item == (1991, 1, 2)


def test_counts_by_hand():
    """Two coarse cells of two fine ones each; rows of 1 and 3 km2."""
    classes = np.array([[0, 1], [1, 255]], np.uint8)
    before = np.array([[1, 1], [1, 255]], np.uint8)
    earlier = np.array([[0, 0], [1, 255]], np.uint8)
    cells = np.array([0, 0]), np.array([0, 1])
    fractions = np.array([[[0.5, 0.0]], [[0.5, 0.5]]], np.float32)
    found = count(classes, 2, np.array([1.0, 3.0]), np.array([True, True]), cells, fractions, before, earlier)
    assert found.valid_km2 == 5
    assert found.areas_km2 == [1, 4]
    # Either coarse cell has 4 km2, of which fractions are; 3 of the right one are sea.
    assert found.forcing_km2 == [2, 4]
    assert found.difference_km2 == [1, 2]
    assert found.covered_km2 == 5
    assert found.transitions_km2 == [[0, 0], [1, 4]]
    assert found.reverted_km2 == 1, "the first cell was 0, then 1, and is 0 again"


def test_cells_of_which_the_scenario_says_nothing_count_in_no_error():
    classes = np.array([[0, 1]], np.uint8)
    fractions = np.array([[[0.0, 1.0]], [[0.0, 0.0]]], np.float32)
    found = count(classes, 2, np.array([1.0]), np.array([True, True]), (np.zeros(1, int), np.arange(2)), fractions)
    assert found.covered_km2 == 1
    assert found.difference_km2 == [1, 1]


def test_classes_that_the_scenario_does_not_know_count_in_no_error():
    classes = np.array([[0, 1]], np.uint8)
    fractions = np.array([[[0.25]], [[np.nan]]], np.float32)
    found = count(classes, 2, np.array([1.0]), np.array([True, False]), (np.zeros(1, int), np.zeros(2, int)), fractions)
    assert found.forcing_km2 == [0.5, 0]
    assert found.difference_km2 == [0.5, 0]


def test_sums_of_chunks_are_added_up_and_drift_follows():
    classes = np.array([[0, 1]], np.uint8)
    one = count(
        classes,
        2,
        np.array([2.0]),
        np.array([True, True]),
        (np.zeros(1, int), np.zeros(2, int)),
        np.full((2, 1, 1), 0.5),
    )
    two = count(classes, 2, np.array([2.0]), np.array([True, True]), before=np.array([[0, 0]], np.uint8))
    total = add_up([one.to_dict(), two.to_dict()])
    assert total["areas_km2"] == [4, 4]
    assert total["covered_km2"] == 4, "the other chunk was not compared"
    figures = yearly({2003: total, 2011: total}, ("a", "b"))
    assert figures[2003]["changed_percent"] == pytest.approx(100 * 2 / 8)
    assert figures[2003]["area_error_percent"] == 0
    decades = by_decade(figures)
    assert [each["years"] for each in decades] == [[2003, 2003], [2011, 2011]]


def test_areas_of_cells_add_up_to_the_earth():
    grid = Grid(-180, 90, 1, 1, 180, 360)
    whole = row_areas(grid).sum() * 360
    # Moritz (2000): a sphere of the mean radius has 510.0656 million km2.
    assert whole == pytest.approx(510.0656e6, rel=1e-6)


def test_coarse_cells_of_a_window_over_the_dateline():
    fine, coarse = Grid(-180, 90, 0.5, 0.5, 360, 720), Grid(-180, 90, 1, 1, 180, 360)
    rows, columns = cells_of(coarse, fine, Window(358, -3, 4, 6))
    assert rows.tolist() == [179, 179, -1, -1]
    assert columns.tolist() == [358, 359, 359, 0, 0, 1]


@pytest.mark.parametrize(
    ("wanted", "extent", "ratio", "side"),
    [
        (2048, 43_200, 30, 2070),  # 21 chunks instead of 22, of which the last would be a sliver
        (2048, 2048, 30, 2048),
        (2048, 36_000, 25, 2000),
        (32, 48, 16, 32),
        (32, 256, 16, 32),
        (10, 100, 30, 30),  # never less than a coarse cell
        (10, 100, 7.3, 10),  # nothing to keep whole
        (2048, 500, 30, 500),
    ],
)
def test_chunks_hold_whole_coarse_cells_and_none_is_a_sliver(wanted, extent, ratio, side):
    assert chunk_side(wanted, extent, ratio) == side

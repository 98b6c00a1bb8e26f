"""The parts of a reconstruction that can be checked by hand: order of years, shares, chunks, markers, counts."""

import threading
import time

import numpy as np
import pytest

from earthsr.errors import InputError, WorkError
from earthsr.geo import Window
from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.reconstruct import Rank, device_of, rank_of
from earthsr.landuse.reconstruct.ledger import add_up, by_decade, count, yearly
from earthsr.landuse.reconstruct.plan import chunk_side, steps_of
from earthsr.landuse.reconstruct.progress import Chunk, ChunkProgress, shares


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


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Rank(1, 4)),
        ({"RANK_ID": "3", "MS_WORKER_NUM": "4"}, Rank(3, 4)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, Rank(2, 3)),
        # A batch script without srun is one process.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Rank(0, 1)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "30",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "10",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "4",
            },
            Rank(9, 12),
        ),
        ({"RANK": "1"}, Rank(0, 1)),
    ],
)
def test_the_rank_is_what_the_launcher_says(environment, rank):
    assert rank_of(environment) == rank


@pytest.mark.parametrize("environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "a", "WORLD_SIZE": "2"}])
def test_a_rank_that_cannot_be_is_refused(environment):
    with pytest.raises(InputError, match="expected"):
        rank_of(environment)


def test_processes_of_one_machine_take_a_gpu_each():
    assert device_of("auto", {"LOCAL_RANK": "1"}) == "auto:1"
    assert device_of("gpu", {"LOCAL_RANK": "0"}) == "gpu"
    assert device_of("gpu", {"SLURM_LOCALID": "3"}) == "gpu:3"
    assert device_of("cpu", {"LOCAL_RANK": "1"}) == "cpu"
    assert device_of("gpu:3", {"LOCAL_RANK": "1"}) == "gpu:3"


def test_shares_are_even_in_work_and_the_same_wherever_they_are_computed():
    costs = [9, 1, 1, 1, 5, 4, 0, 0]
    owners = shares(costs, 2)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == rank) for rank in range(2)]
    assert sorted(loads) == [10, 11]
    assert {owners[6], owners[7]} == {0, 1}, "what costs nothing is given out in turn"
    assert set(shares([3.0], 4)) == {0}


def test_waiting_ends_when_the_marker_is_there_and_names_who_is_waited_for(tmp_path):
    progress = ChunkProgress(tmp_path, lambda chunk: f"rank {chunk.j} of 2", 0.3, 2000)
    with pytest.raises(WorkError, match=r"chunk 0-1 of 2000, which\s+rank 1 of 2 computes"):
        progress.wait(2000, [Chunk(0, 1)])
    patient = ChunkProgress(tmp_path, lambda _: "", 60, 2000)
    other = ChunkProgress(tmp_path, lambda _: "", 60, 2000)

    def later():
        time.sleep(0.3)
        other.mark(2000, Chunk(0, 1), {"windows": 3})

    thread = threading.Thread(target=later)
    began = time.monotonic()
    thread.start()
    patient.wait(2000, [Chunk(0, 1)])
    assert time.monotonic() - began > 0.2
    thread.join()
    assert patient.read(2000, Chunk(0, 1)) == {"windows": 3}


def test_chunks_without_a_class_have_nothing_to_do_but_at_the_anchor(tmp_path):
    progress = ChunkProgress(tmp_path, lambda _: "", 0, 2000, frozenset({Chunk(0, 0)}))
    assert progress.done(2001, Chunk(0, 0))
    assert progress.read(2001, Chunk(0, 0)) is None
    assert not progress.done(2000, Chunk(0, 0))


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

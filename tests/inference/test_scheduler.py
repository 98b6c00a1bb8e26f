"""Work in pieces: each after those that it depends on, none twice, none from files that are not what was written."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from earthsr.errors import DataError, InputError
from earthsr.inference.journal import Guard, Journal, Key
from earthsr.inference.pieces import Place
from earthsr.inference.scheduler import LocalScheduler, make_scheduler
from tests.inference.steps import STEPS, Sums, expected, journal_of, key_of, made, pieces


def run(folder, scheduler=None, **more):
    return (scheduler or LocalScheduler()).run(Sums(folder, **more), pieces(), journal_of(folder))


def wrote(folder):
    return (folder / "wrote").read_text().split()


def test_pieces_come_after_those_that_they_depend_on_and_the_same_call_does_nothing_again(tmp_path):
    times = run(tmp_path)
    assert made(tmp_path) == expected()
    assert times.pieces == len(pieces()) == len(set(wrote(tmp_path)))
    assert run(tmp_path).pieces == 0
    assert [counts["value"] for counts in journal_of(tmp_path).counts("5")] == expected()[5]
    assert journal_of(tmp_path).engines == {"python"}


@pytest.mark.parametrize("seed", range(12))
def test_what_is_absent_short_or_altered_is_made_again_and_said(tmp_path, seed, caplog):
    """At random, with records of a run that was cut off after any number of pieces."""
    chance = random.Random(seed)
    run(tmp_path)
    names = [f"{key.shard}-{key.name}" for key in pieces()]
    kept = chance.randrange(8, len(names) + 1)
    for shard in range(STEPS):
        records = tmp_path / "done" / f"{shard}.jsonl"
        lines = records.read_bytes().splitlines(keepends=True)
        part = lines[: max(0, kept - 4 * shard)]
        if not part:
            records.unlink()
        else:
            records.write_bytes(b"".join(part) + (lines[len(part)][:20] if len(part) < len(lines) else b""))
    done = [f"{key.shard}-{key.name}" for key in pieces() if key in journal_of(tmp_path)]
    assert len(done) == kept
    harmed = chance.sample(done, 4)
    (tmp_path / harmed[0]).unlink()
    (tmp_path / harmed[1]).write_bytes((tmp_path / harmed[1]).read_bytes()[:-1])
    swapped = [tmp_path / name for name in harmed[2:]]
    texts = [path.read_text() for path in swapped]
    for path, text in zip(swapped, reversed(texts), strict=True):
        path.write_text(text)
    before = len(wrote(tmp_path))
    journal = journal_of(tmp_path)
    for key, reason in journal.faults(pieces()).items():
        journal.drop(key, reason)
    assert LocalScheduler().run(Sums(tmp_path), pieces(), journal)
    assert made(tmp_path) == expected()
    again = {harmed[0], harmed[1], *(harmed[2:] if texts[0] != texts[1] else ())}
    assert set(wrote(tmp_path)[before:]) == again | set(names) - set(done)
    assert sum("is made again" in record.message for record in caplog.records) == len(again)


@pytest.mark.parametrize("harm", ["absent", "short", "altered"])
def test_a_file_that_goes_while_others_are_made_is_made_again_before_it_is_read(tmp_path, harm, caplog):
    """Steps 0 to 3 are there; what harms a piece of step 2 comes after the start."""
    LocalScheduler().run(Sums(tmp_path), pieces(4), journal_of(tmp_path))
    path = tmp_path / "3-1"

    class Harming(Sums):
        def open(self, place):
            text = path.read_text()
            path.unlink()
            if harm != "absent":
                path.write_text(text[:-1] if harm == "short" else f"{text[:-1]}{(int(text[-1]) + 1) % 10}")
            return self

    LocalScheduler().run(Harming(tmp_path), pieces(), journal_of(tmp_path))
    assert made(tmp_path) == expected()
    assert [record.message for record in caplog.records if "3/1 is made again" in record.message]


def test_a_disk_that_alters_what_it_is_given_is_an_error_and_not_an_endless_run(tmp_path, monkeypatch):
    add = Journal.add

    def added(self, key, sums, written):
        add(self, key, sums, written)
        if key == key_of(0, 0):
            (tmp_path / "0-0").write_text("0")

    monkeypatch.setattr(Journal, "add", added)
    with pytest.raises(DataError, match=r"piece 0/0 was made 4 times"):
        run(tmp_path)


def test_an_error_of_a_stage_ends_the_run_and_what_was_written_is_kept(tmp_path):
    class Broken(Sums):
        def compute(self, item, values):
            if item[0] == 2:
                raise InputError("cannot compute")
            return Sums.compute(self, item, values)

    with pytest.raises(InputError, match="cannot compute"):
        LocalScheduler().run(Broken(tmp_path), pieces(), journal_of(tmp_path))
    assert len(journal_of(tmp_path)) == 8
    run(tmp_path)
    assert made(tmp_path) == expected()
    assert len(wrote(tmp_path)) == len(pieces())


def test_a_record_that_is_altered_or_of_nothing_says_nothing(tmp_path):
    run(tmp_path)
    records = tmp_path / "done" / "0.jsonl"
    records.write_bytes(records.read_bytes().replace(b'"value":2', b'"value":7'))
    journal = journal_of(tmp_path)
    assert key_of(0, 1) not in journal
    assert len(journal) == len(pieces()) - 1
    run(tmp_path)
    assert wrote(tmp_path)[-1] == "0-1"
    assert len(journal_of(tmp_path)) == len(pieces())


def test_a_file_where_none_was_written_is_a_fault(tmp_path):
    guard = Guard(tmp_path)
    sums = guard.sums(["void"])
    assert sums == (("void", None),)
    assert guard.fault(sums) == ""
    (tmp_path / "void").touch()
    assert "none was written" in guard.fault(sums)


def test_what_was_read_once_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "map"
    path.write_text("values")
    guard = Guard(tmp_path)
    sums = guard.sums(["map"])
    assert guard.fault(sums) == ""
    opened, open_file = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or open_file(self, *a, **k))
    assert guard.fault(sums) == ""
    assert opened == []
    os.replace(_other(tmp_path), path)
    assert "something else" in guard.fault(sums)


def _other(folder):
    (folder / "other").write_text("eulavs")
    return folder / "other"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("slurm",), "expected local or dask"),
        (("local", None, 2), "--scheduler dask"),
        (("dask", "tcp://node:1", 2), "give one"),
        ((None, None, 0), "expected 1 or more"),
        (("dask",), "--workers N"),
        (("dask", "nowhere.json"), "nowhere.json: no such file"),
    ],
)
def test_schedulers_that_cannot_be_are_refused(words, text, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=text), make_scheduler(*words) as scheduler:
        scheduler.run(Sums(tmp_path), pieces(), journal_of(tmp_path))


def test_workers_of_a_machine_take_an_accelerator_each():
    assert Place(2, alone=False).device("auto") == "auto:2"
    assert Place(0, alone=False).device("gpu") == "gpu"
    assert Place(1, alone=False).device("ascend") == "ascend:1"
    assert Place(1, alone=False).device("gpu:3") == "gpu:3"
    assert Place(1, alone=False).device("cpu") == "cpu"
    assert Place().device("auto") == "auto"


@pytest.mark.slow
def test_dask_replaces_a_worker_that_dies_and_does_its_pieces_again(tmp_path):
    pytest.importorskip("distributed")
    with make_scheduler("dask", workers=2) as scheduler:
        times = scheduler.run(Sums(tmp_path, die_at=(2, 1), pause_s=0.05), pieces(), journal_of(tmp_path))
        assert made(tmp_path) == expected()
        opened = [line.split()[1] for line in (tmp_path / "opened").read_text().splitlines()]
        assert (tmp_path / "died").exists()
        assert {"0", "1"} == set(opened), "an accelerator each"
        assert len(opened) <= 3, "stages open once in each worker, and in the one that takes the dead one's place"
        assert times.workers == 2
        assert times.pieces == len(journal_of(tmp_path)) == len(pieces())
        scheduler._connected().wait_for_workers(2, timeout=60)
        (tmp_path / "5-2").write_text("1")
        (tmp_path / "4-2").unlink()
        journal = journal_of(tmp_path)
        journal.drop(Key("5", "2"), "a try")
        scheduler.run(Sums(tmp_path), pieces(), journal)
        assert made(tmp_path) == expected()


@pytest.mark.slow
def test_tasks_of_a_slurm_step_share_the_work(tmp_path):
    """Four of them, as srun starts them: one schedules, one is the command, two work."""
    pytest.importorskip("dask_jobqueue")
    script = """
from pathlib import Path
from earthsr.inference.scheduler import make_scheduler
from tests.inference.steps import Sums, journal_of, pieces
if __name__ == "__main__":
    with make_scheduler("dask") as scheduler:
        times = scheduler.run(Sums(Path("out"), pause_s=0.05), pieces(), journal_of(Path("out")))
    print(times.pieces, times.workers)
"""
    (tmp_path / "work.py").write_text(script)
    (tmp_path / "out").mkdir()
    step = {
        "SLURM_NTASKS": "4",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_JOB_ID": "7",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, "work.py"],
            cwd=tmp_path,
            env={**os.environ, **step, "SLURM_PROCID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(4)
    ]
    texts = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0, 0]
    assert texts == ["", f"{len(pieces())} 2\n", "", ""]
    assert made(tmp_path / "out") == expected()
    assert sorted(line.split()[1] for line in (tmp_path / "out" / "opened").read_text().splitlines()) == ["0", "1"]
    assert list(tmp_path.glob("dask-*.json")) == [], "the scheduler's file is gone with it"

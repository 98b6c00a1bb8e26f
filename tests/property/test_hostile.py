"""Files that ask for what no file may ask for are refused in one line; the cases of tools/hardening.py hostile."""

import os

import pytest

from earthsr.errors import ALLOW_EXTERNAL, printable
from earthsr.store import untrusted
from tests.conftest import call_cli, installed
from tools.hardening_parts.hostile import CASES, judged
from tools.hardening_parts.outcomes import Outcome, Tally

#: The one runs until its time is over, the other unpacks as much as may be.
LONG = ("hdf5 attributes without end", "zip bomb as elevation")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (case.name in LONG)) for case in CASES],
)
def test_a_hostile_file_is_refused(case, tmp_path, monkeypatch):
    if "torch" in case.words and not installed("torch"):
        pytest.skip("backend torch is not installed")
    # A file that has no end is tried for a shorter time; the limit is the kernel's, whatever it is.
    monkeypatch.setattr(untrusted, "PROBE_SECONDS", 2)
    case.make(tmp_path)
    done = call_cli(*case.words, cwd=tmp_path)
    outcome = Outcome(done.returncode, done.stderr, done.stdout)
    assert outcome.fault() is None
    assert judged(case, tmp_path, done.returncode, done.stderr + done.stdout) is None
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("own", "secret.bin", "secret.h5")) == (
        ["card.md"] if "card.md" in case.words else []
    )
    assert ALLOW_EXTERNAL not in os.environ


def test_a_vrt_of_its_own_folder_is_read(tmp_path):
    make = next(case.make for case in CASES if case.name == "vrt of the folder above")
    make(tmp_path)
    vrt = tmp_path / "own" / "a.vrt"
    (tmp_path / "own" / "heights.bin").write_bytes((tmp_path / "secret.bin").read_bytes())
    vrt.write_text(vrt.read_text().replace("../secret.bin", "heights.bin"))
    done = call_cli("predict", "demo-dem", vrt, tmp_path / "o.tif", "--backend", "torch", "--dry-run")
    assert "--allow-external" not in done.stderr


def test_what_moves_a_cursor_is_spelled_out_and_words_are_not():
    assert printable("a\x1b[2J\x07b\u202ec\x00") == "a\\x1b[2J\\x07b\\u202ec\\x00"
    assert printable("Höhe in m²,\n高程\t\u00a0×") == "Höhe in m²,\n高程\t\u00a0×"


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(0, ""), None),
        (Outcome(2, "warning: w\nerror: a.tif: is damaged"), None),
        (Outcome(2, "error: a\nerror: b"), "2 lines of error"),
        (Outcome(1, "error: IndexError: x; --traceback shows where"), "unforeseen"),
        (Outcome(1, "Traceback (most recent call last):\nKeyError: 3"), "KeyError: 3"),
        (Outcome(-11, ""), "signal 11"),
        (Outcome(-9, "", timed_out=True), "time"),
        (Outcome(0, "", "\x1b[2J"), "terminal"),
    ],
)
def test_what_a_campaign_takes_for_a_failure(outcome, fault):
    assert outcome.fault() is None if fault is None else fault in outcome.fault()


def test_equal_failures_are_counted_as_one():
    tally = Tally("fuzz")
    tally.add("dem.tif info", 3, "error: /data/x1/a.tif at 77")
    tally.add("dem.tif info", 9, "error: /data/x2/a.tif at 5")
    tally.add("dem.tif info", 10, None)
    values = tally.to_dict()
    assert (values["tried"], values["survived"]) == (3, 1)
    (cases,) = values["failures"].values()
    assert [(kind, seed) for kind, seed, _ in cases] == [("dem.tif info", 3), ("dem.tif info", 9)]
    assert cases[0][2] == "error: /data/x1/a.tif at 77", "the text of each is there, as it was"
    assert "2 x dem.tif" in tally.table()

"""The check of an accelerator runs its stages on a processor, and tells of those that fail or hang."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed"),
]


def check(folder, *words):
    """Run the tool; its exit code, stages and what it prints."""
    script = REPOSITORY / "tools" / "accelerator_check.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--output", folder / "report.json", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, json.loads((folder / "report.json").read_text())["stages"], done.stdout


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    import accelerator_check

    return accelerator_check


def test_stages_pass_on_a_processor(tmp_path, tool):
    """In this process, where torch is loaded; the tool gives each a process of its own."""
    place = tool.Place("torch", "cpu", True, str(tmp_path))
    ended = {name: tool._in_this_process(name, place) for name in ("contract", "precision", "half", "profile")}
    assert {name: one["state"] for name, one in ended.items()} == {
        "contract": "passed",
        "precision": "passed",
        "half": "left out",
        "profile": "passed",
    }, ended
    assert ended["contract"]["found"]["repeats_bit_for_bit"]
    assert len(ended["profile"]["found"]) == 5


def test_a_device_that_is_not_there_is_told_in_the_report(tmp_path):
    code, stages, said = check(tmp_path, "--device", "gpu:7", "--only", "doctor")
    assert code == 1
    assert stages["doctor"]["state"] == "failed"
    assert stages["doctor"]["why"][:100] in said


def test_a_stage_that_hangs_ends_at_its_limit(tmp_path, tool, monkeypatch):
    monkeypatch.setitem(tool.STAGES, "doctor", (tool.doctor, 0.2))
    ended = tool.run_stage("doctor", tool.Place("torch", "cpu", True, str(tmp_path)))
    assert (ended["state"], ended["limit_s"]) == ("too long", 0.2)

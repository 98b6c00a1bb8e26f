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


def test_stages_pass_on_a_processor(tmp_path):
    code, stages, said = check(tmp_path, "--device", "cpu", "--only", "contract", "precision", "half", "profile")
    assert code == 0, said
    assert {name: ended["state"] for name, ended in stages.items()} == {
        "contract": "passed",
        "precision": "passed",
        "half": "left out",
        "profile": "passed",
    }
    assert stages["contract"]["found"]["repeats_bit_for_bit"]
    assert len(stages["profile"]["found"]) == 5


def test_a_device_that_is_not_there_is_told_and_the_other_stages_go_on(tmp_path):
    code, stages, said = check(tmp_path, "--device", "gpu:7", "--only", "doctor", "contract")
    assert code == 1
    assert [ended["state"] for ended in stages.values()] == ["failed", "failed"]
    assert all(ended["why"] in said or ended["why"][:100] in said for ended in stages.values())


def test_a_stage_that_hangs_ends_at_its_limit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    import accelerator_check as tool

    monkeypatch.setitem(tool.STAGES, "doctor", (tool.doctor, 0.2))
    ended = tool.run_stage("doctor", tool.Place("torch", "cpu", True, str(tmp_path)))
    assert (ended["state"], ended["limit_s"]) == ("too long", 0.2)

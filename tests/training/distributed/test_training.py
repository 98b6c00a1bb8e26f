"""Two processes that share each batch learn what one does, and what goes wrong with one of them ends them all."""

import json
import re
import signal

import numpy as np
import pytest

from tests.conftest import backend_parameters, call_cli, landuse_values, tiny_values, write_patches
from tests.training.distributed.launch import TOLERANCE, apart, launch, newest

pytestmark = pytest.mark.slow


def written(path, values):
    path.write_text(json.dumps(values))
    return path


def assert_same_run(one, two, tolerance=TOLERANCE):
    a, b = newest(one), newest(two)
    assert a.notes["progress"]["step"] == b.notes["progress"]["step"]
    found = apart(a.weights.weights, b.weights.weights)
    assert max(found.values()) < tolerance, found
    records = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert len(records[0]) == len(records[1])
    for mine, other in zip(*records, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        if "valid" in mine:
            known = {key: value for key, value in mine["valid"].items() if value is not None}
            assert {key: other["valid"][key] for key in known} == pytest.approx(known, rel=1e-4)
    return found


@pytest.mark.parametrize("backend", backend_parameters())
def test_two_ranks_learn_what_one_does(tmp_path, backend):
    """Masks, a padded last batch (14 samples in fours, so that one rank's share of it is empty), 20 steps."""
    data = write_patches(tmp_path / "data", (("train", 13), ("valid", 5), ("test", 5)), masks=True)
    sections = {"optimizer": {"epochs": 5, "clip_norm": 0.5}, "train": {"seed": 3, "distribute": True}}
    values = {name: tiny_values(data, tmp_path / name, **sections) for name in ("one", "two")}
    assert call_cli("train", written(tmp_path / "one.json", values["one"]), "--backend", backend).returncode == 0
    done = launch(backend, 2, tmp_path, "train", written(tmp_path / "two.json", values["two"]), "--backend", backend)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert "2 ranks together" in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("run folder") == 1, "one rank speaks for all"


@pytest.mark.parametrize("backend", backend_parameters())
def test_two_ranks_learn_classes_as_one_does(landuse_dir, tmp_path, backend):
    """Class weights, the Dice loss, a first pass that feeds own maps back, group norm."""
    sections = {
        "model": {"norm": "group", "norm_groups": 2},
        "train": {"seed": 3, "distribute": True, "class_weights": "sqrt", "dice": 0.5},
        "data": {"prior_own": 0.5},
    }
    values = {name: landuse_values(landuse_dir, tmp_path / name, **sections) for name in ("one", "two")}
    assert call_cli("train", written(tmp_path / "one.json", values["one"]), "--backend", backend).returncode == 0
    done = launch(backend, 2, tmp_path, "train", written(tmp_path / "two.json", values["two"]), "--backend", backend)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two")


# What goes wrong with one of them.

#: The command line, with something that happens to one rank after a step.
PROGRAM = """
import os, signal, sys
from earthsr.backend import Engine
from earthsr.cli.main import main
from earthsr.ranks import launched_rank
from earthsr.training.trainer import Trainer

def after(step):
    if step == int(os.environ["AT_STEP"]) and launched_rank().number == 1 and not int(os.environ.get(
            "TORCHELASTIC_RESTART_COUNT", "0")):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

record = Trainer._record
def told(self, line, event):
    record(self, line, event)
    after(self.progress.step)
Trainer._record = told
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def small(tmp_path):
    """Data and a program; what writes a configuration of 16 steps, and a run of it that nothing happened to."""
    data = write_patches(tmp_path / "data", (("train", 16), ("valid", 5), ("test", 5)))
    (tmp_path / "program.py").write_text(PROGRAM)

    def make(name):
        sections = {"optimizer": {"epochs": 4}, "train": {"seed": 3, "distribute": True}}
        return written(tmp_path / f"{name}.json", tiny_values(data, tmp_path / name, **sections))

    return make


def finished(run):
    return newest(run).notes["progress"]["finished"]


@pytest.mark.parametrize("backend", backend_parameters())
def test_a_signal_to_one_rank_stops_all_at_one_step_and_one_alone_carries_on(small, tmp_path, backend):
    env = {"AT_STEP": "6", "SIGNAL": str(int(signal.SIGTERM))}
    words = ("train", small("cut"), "--backend", backend)
    done = launch(
        backend, 2, tmp_path, *words, program=tmp_path / "program.py", env={k: str(v) for k, v in env.items()}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    step = newest(tmp_path / "cut").notes["progress"]["step"]
    assert (tmp_path / "cut" / "interrupted").read_text() == f"SIGTERM at step {step} of 16\n"
    assert step == 7, "ranks ask each other where losses are read, here at every step"
    again = call_cli(*words, "--resume")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "cut" / "interrupted").exists()
    assert call_cli("train", small("whole"), "--backend", backend).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("backend", backend_parameters())
def test_a_rank_that_dies_ends_the_run_and_leaves_a_checkpoint(small, tmp_path, backend):
    env = {"AT_STEP": "10", "SIGNAL": str(int(signal.SIGKILL))}
    words = ("train", small("cut"), "--backend", backend)
    done = launch(backend, 2, tmp_path, *words, program=tmp_path / "program.py", env=env)
    assert done.returncode != 0
    assert newest(tmp_path / "cut").notes["progress"]["step"] == 8
    assert not finished(tmp_path / "cut")
    again = launch(backend, 2, tmp_path, *words, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert launch(backend, 2, tmp_path, "train", small("whole"), "--backend", backend).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 1e-7)


def test_torchrun_starts_again_and_the_run_goes_on(small, tmp_path):
    pytest.importorskip("torch")
    env = {"AT_STEP": "10", "SIGNAL": str(int(signal.SIGKILL))}
    words = ("train", small("cut"), "--backend", "torch")
    done = launch("torch", 2, tmp_path, *words, program=tmp_path / "program.py", env=env, options=["--max-restarts", 1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming at step 8" in done.stderr
    assert launch("torch", 2, tmp_path, "train", small("whole"), "--backend", "torch").returncode == 0
    found = assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert max(found.values()) == 0, "the same ranks add the same numbers in the same order"


def test_processes_that_do_not_belong_together_are_refused(small, tmp_path):
    pytest.importorskip("torch")
    config = small("run")
    done = launch("torch", 2, tmp_path, "train", config, "--backend", "torch", "--set", "train.distribute=false")
    assert done.returncode != 0
    # Whichever rank is first ends the other one, which may not have come to say so.
    assert re.search(r"rank [01]: error: 2 processes were started, and train\.distribute is false", done.stderr)
    assert not (tmp_path / "run").exists()
    done = launch("torch", 2, tmp_path, "train", config, "--backend", "torch", "--set", "data.batch_size=3")
    assert "data.batch_size is 3, over all ranks, which 2 ranks cannot share evenly" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", backend_parameters())
def test_batch_norm_of_two_ranks_differs_and_both_say_the_same(landuse_dir, tmp_path, backend):
    """Each rank normalises by its own half of a batch; running statistics are means over ranks."""
    values = landuse_values(landuse_dir, tmp_path / "two", train={"seed": 3, "distribute": True})
    done = launch(backend, 2, tmp_path, "train", written(tmp_path / "two.json", values), "--backend", backend)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = newest(tmp_path / "two").weights.weights
    assert all(np.isfinite(array).all() for array in weights.values())
    means = [array for name, array in weights.items() if name.endswith("running_mean")]
    assert means
    assert any(np.abs(mean).max() > 0 for mean in means)

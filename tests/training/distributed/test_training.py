"""Two processes that share each batch learn what one does, and what goes wrong with one of them ends them all."""

import json
import re
import signal

import numpy as np
import pytest

from tests.conftest import (
    BACKENDS,
    backend_parameters,
    call_cli,
    installed,
    landuse_values,
    tiny_values,
    write_patches,
)
from tests.training.distributed.launch import TOLERANCE, Launch, apart, newest
from tests.training.distributed.steps import over_all_ranks, small_weight

pytestmark = pytest.mark.slow
STEPS = "tests.training.distributed.steps"


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


class Runs:
    """A folder of a backend's runs, and what two ranks did there in two launches: in the first, one of them dies."""

    def __init__(self, backend, folder, landuse):
        self.backend, self.folder = backend, folder
        masked = write_patches(folder / "masked", (("train", 13), ("valid", 5), ("test", 5)), masks=True)
        self.small = write_patches(folder / "small", (("train", 16), ("valid", 5), ("test", 5)))
        shared = {"seed": 3, "distribute": True}
        # Clipped as the masked ones are, for MindSpore compiles that once then.
        for name in ("killed", "stopped", "whole", "alone", "again"):
            self.write(tiny_values, self.small, name, optimizer={"epochs": 4, "clip_norm": 0.5}, train=shared)
        model = {"norm": "group", "norm_groups": 2}
        weighted = {**shared, "class_weights": "sqrt", "dice": 0.5}
        for ranks in ("one", "two"):
            optimizer = {"epochs": 5, "clip_norm": 0.5}
            self.write(tiny_values, masked, f"masked-{ranks}", optimizer=optimizer, train=shared)
            data = {"prior_own": 0.5}
            self.write(landuse_values, landuse, f"classes-{ranks}", model=model, train=weighted, data=data)
        self.write(landuse_values, landuse, "batch-norm", train=shared)
        self.dying = Launch(backend, folder, [self.train("killed", step=10, signal=int(signal.SIGKILL))])

    def write(self, values, root, name, /, **sections):
        (self.folder / f"{name}.yaml").write_text(json.dumps(values(root, self.folder / name, **sections)))

    def train(self, name, *words, **event):
        command = ["train", f"{self.folder / name}.yaml", "--backend", self.backend, *words]
        return {"name": name, "words": command, **event}

    def finish(self):
        """Let one rank do its part, wait for the one that dies, and let two others do all the rest."""
        for name in ("masked-one", "classes-one", "alone"):
            call_cli(*self.train(name)["words"], check=0)
        small_weight(self.backend, f"{self.folder / 'small_weight'}-1.npz")
        over_all_ranks(self.backend, f"{self.folder / 'over_all_ranks'}-1.npz")
        self.died = self.dying.end()
        self.at_death = newest(self.folder / "killed").notes["progress"]
        pieces = [
            self.train("masked-two"),
            self.train("classes-two"),
            self.train("batch-norm"),
            self.train("stopped", step=6, signal=int(signal.SIGTERM)),
            self.train("whole"),
            self.train("killed", "--resume"),
            *(
                {"name": step, "call": [f"{STEPS}:{step}", self.backend, f"{self.folder / step}-2.npz"]}
                for step in ("over_all_ranks", "small_weight")
            ),
        ]
        all_of_them = Launch(self.backend, self.folder, pieces)
        done = all_of_them.end()
        assert done.returncode == 0, done.stdout + done.stderr
        self.work = all_of_them.work()
        assert {name: work.codes for name, work in self.work.items()} == {piece["name"]: [0, 0] for piece in pieces}
        return self


@pytest.fixture(scope="module")
def begun(landuse_dir, tmp_path_factory):
    """Runs of which the dying ones are begun: MindSpore's scheduler waits half a minute for a rank that has died."""
    return {name: Runs(name, tmp_path_factory.mktemp(name), landuse_dir) for name in BACKENDS if installed(name)}


@pytest.fixture(scope="module", params=backend_parameters())
def runs(request, begun):
    """What two ranks of each backend do; starting them takes longer than that, so all tests share it."""
    return begun[request.param].finish()


def test_two_ranks_learn_what_one_does(runs):
    """Masks, a padded last batch (14 samples in fours, so that one rank's share of it is empty), 20 steps."""
    assert_same_run(runs.folder / "masked-one", runs.folder / "masked-two")
    text = runs.work["masked-two"].text
    assert "2 ranks together" in text
    assert text.count("run folder") == 1, "one rank speaks for all"


def test_two_ranks_learn_classes_as_one_does(runs):
    """Class weights, the Dice loss, a first pass that feeds own maps back, group norm."""
    assert_same_run(runs.folder / "classes-one", runs.folder / "classes-two")


def test_batch_norm_of_two_ranks_differs_and_both_say_the_same(runs):
    """Each rank normalises by its own half of a batch; running statistics are means over ranks."""
    weights = newest(runs.folder / "batch-norm").weights.weights
    assert all(np.isfinite(array).all() for array in weights.values())
    means = [array for name, array in weights.items() if name.endswith("running_mean")]
    assert means
    assert any(np.abs(mean).max() > 0 for mean in means)


def test_batch_norm_over_all_ranks_is_that_of_one(runs):
    """Steps of two ranks are those of one, running statistics included; MindSpore says that it has no such norm."""
    if runs.backend == "mindspore":
        texts = [(runs.folder / f"over_all_ranks-2.npz.{rank}.txt").read_text() for rank in (0, 1)]
        expected = "backend mindspore has no batch norm over all ranks: set model.norm to group"
        assert all(expected in text for text in texts), texts
        return
    differences = apart(*(dict(np.load(runs.folder / f"over_all_ranks-{ranks}.npz")) for ranks in (1, 2)))
    assert len(differences) > 20
    assert any("running_mean" in name for name in differences)
    assert max(differences.values()) < TOLERANCE, differences


def test_two_ranks_divide_by_the_weight_of_both(runs):
    """All that counts is the first one's, and its weight is small (tests/backends/test_loss.py is of one alone)."""
    one, two = (dict(np.load(runs.folder / f"small_weight-{ranks}.npz")) for ranks in (1, 2))
    assert one["losses"][0] > 0.5
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-6 * np.abs(value).max(), err_msg=name)


# What goes wrong with one of them.


def test_a_signal_to_one_rank_stops_all_at_one_step_and_one_alone_carries_on(runs):
    cut = runs.folder / "stopped"
    step = newest(cut).notes["progress"]["step"]
    assert (cut / "interrupted").read_text() == f"SIGTERM at step {step} of 16\n"
    assert step == 7, "ranks ask each other where losses are read, here at every step"
    again = call_cli(*runs.train("stopped", "--resume")["words"])
    assert again.returncode == 0, again.stderr
    assert not (cut / "interrupted").exists()
    assert_same_run(runs.folder / "alone", cut)


def test_a_rank_that_dies_ends_the_run_and_leaves_a_checkpoint(runs):
    assert runs.died.returncode != 0
    assert runs.at_death["step"] == 8
    assert not runs.at_death["finished"]
    assert newest(runs.folder / "killed").notes["progress"]["finished"]
    assert_same_run(runs.folder / "whole", runs.folder / "killed", 1e-7)


@pytest.mark.parametrize("runs", backend_parameters()[:1], indirect=True)
def test_torchrun_starts_again_and_the_run_goes_on(runs):
    piece = runs.train("again", step=10, signal=int(signal.SIGKILL))
    restarting = Launch("torch", runs.folder, [piece], options=["--max-restarts", 1])
    done = restarting.end()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming at step 8" in restarting.work()["again"].text
    found = assert_same_run(runs.folder / "whole", runs.folder / "again")
    assert max(found.values()) == 0, "the same ranks add the same numbers in the same order"


@pytest.mark.parametrize("runs", backend_parameters()[:1], indirect=True)
def test_processes_that_do_not_belong_together_are_refused(runs):
    config, run = runs.folder / "refused.yaml", runs.folder / "refused"
    runs.write(tiny_values, runs.small, "refused", train={"distribute": True})
    words = ["train", str(config), "--backend", runs.backend]
    done = Launch(
        runs.backend, runs.folder, [{"name": "refused", "words": [*words, "--set", "train.distribute=false"]}]
    ).end()
    assert done.returncode != 0
    # Whichever rank is first ends the other one, which may not have come to say so.
    assert re.search(
        r"rank [01]: error: 2 processes were started, and train\.distribute is false", done.stdout + done.stderr
    )
    assert not run.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        done = call_cli(*words, "--set", "data.batch_size=3", check=2)
    assert "data.batch_size is 3, over all ranks, which 2 ranks cannot share evenly" in done.stderr
    assert not run.exists()

"""The paper's recipe in two commands: pre-train on land, fine-tune on ocean with named layer groups frozen.

What is frozen is compared byte by byte: fine-tuning may not touch it, in no bit, whatever the precision and however
often the run was stopped.
"""

import json
import os
import signal

import h5py
import numpy as np
import pytest

import earthsr
from earthsr.config import load_yaml_config
from earthsr.data.normalise import Normalisation
from earthsr.dem.split import DemData
from earthsr.models import RunFolder, read_checkpoint, read_weights
from earthsr.tasks import task_for
from earthsr.training import Trainer
from tests.backends.test_training import assert_same_run
from tests.conftest import BACKENDS, CONFIGS, call_cli, installed, terrain, write_patches

PAIRS = {"full": ("dem_srnet", "dem_srnet_ocean"), "small": ("dem_srnet_small_land", "dem_srnet_small_ocean")}

# What makes a second of the small pair; what the recipe is made of (rates, schedule, frozen groups) stays as shipped.
TINY = [
    "model.features=2",
    "model.num_blocks=12",
    "data.patch_size=8",
    "data.batch_size=4",
    "optimizer.epochs=2",
    "summary.log_every=1",
]


def each_backend():
    """PyTorch in the quick run too; MindSpore compiles graphs for many seconds."""
    absent = {name: pytest.mark.skipif(not installed(name), reason=f"{name} is not installed") for name in BACKENDS}
    return [
        pytest.param(name, marks=[absent[name], *([pytest.mark.slow] if name == "mindspore" else [])])
        for name in BACKENDS
    ]


def sea_floor(root):
    """Patches whose mean, roughness and range are none of those of the land's."""
    root = write_patches(root)
    for seed, split in enumerate(("train", "valid", "test")):
        with h5py.File(root / split / f"{split}.h5", "r+") as handle:
            fine = -4000 + 0.2 * terrain(50 + seed, len(handle["40_40"]), 40)
            handle["40_40"][...] = fine
            handle["8_8"][...] = fine.reshape(len(fine), 1, 8, 5, 8, 5).mean(axis=(3, 5))
            del handle.attrs["statistics"]
    return root


@pytest.fixture(scope="module", params=each_backend())
def stages(request, tmp_path_factory):
    """Both stages of the small pair, each trained by one command."""
    folder = tmp_path_factory.mktemp("recipe")
    write_patches(folder / "land")
    sea_floor(folder / "ocean")
    settings = [word for value in TINY for word in ("--set", value)]
    land, ocean = (CONFIGS / f"{name}.yaml" for name in PAIRS["small"])
    commands = {
        "pre-trained": [land, "--set", f"data.root_dir={folder / 'land'}"],
        "tuned": [
            *(ocean, "--set", f"data.root_dir={folder / 'ocean'}"),
            *("--set", f"summary.ckpt_path={folder / 'pre-trained'}"),
        ],
    }
    for name, words in commands.items():
        done = call_cli("train", *words, *settings, "--output", folder / name, "--backend", request.param)
        assert done.returncode == 0, done.stderr
    return folder, request.param


def weights_of(folder):
    return read_weights(folder / "weights.safetensors")


def test_frozen_tensors_are_byte_identical_and_the_others_learn(stages):
    folder, _ = stages
    before = weights_of(RunFolder(folder / "pre-trained").pointed("best")).weights
    frozen = {name for name in before if name.startswith("head") or name.split(".")[:2][-1] in set("0123456789")}
    run = RunFolder(folder / "tuned")
    assert len(run.steps()) == 2
    for step in run.steps():
        checkpoint = read_checkpoint(run.folder(step))
        after = checkpoint.weights.weights
        assert {name for name in before if after[name].tobytes() == before[name].tobytes()} == frozen
        # Nothing is kept for them that a later step could apply.
        assert not frozen & {name for name, value in checkpoint.state.first_moments.items() if np.any(value)}
    groups = {name.rsplit(".", 2)[0] if name.startswith("blocks") else name.split(".")[0] for name in before}
    assert len(groups) == 12 + 4
    assert {name.split(".")[0] for name in set(before) - frozen} == {"blocks", "body", "up", "out"}


def test_the_checkpoints_normalisation_is_inherited_though_the_new_data_have_another(stages):
    folder, _ = stages
    land = weights_of(RunFolder(folder / "pre-trained").pointed("best")).metadata["normalisation"]
    tuned = weights_of(RunFolder(folder / "tuned").pointed("best")).metadata["normalisation"]
    assert tuned == land
    own = Normalisation.choose("patch", DemData({"root_dir": folder / "ocean", "patch_size": 8}).statistics())
    assert own.scale < 0.5 * land["scale"], "the test's sea floor must differ, or this shows nothing"


def test_fine_tuning_runs_at_its_own_rate(stages):
    folder, _ = stages
    rates = [
        json.loads(line)["learning_rate"] for line in (folder / "tuned" / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(rates) == rates[0] == 1e-5
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.3e-5


def test_a_fine_tuning_that_was_stopped_and_resumed_equals_one_that_was_not(stages, tmp_path):
    folder, backend = stages
    words = [*TINY, f"data.root_dir={folder / 'ocean'}", f"summary.ckpt_path={folder / 'pre-trained'}"]

    def config():
        loaded = load_yaml_config(CONFIGS / "dem_srnet_small_ocean.yaml", words)
        loaded.summary.summary_dir = str(tmp_path / "stopped")
        return loaded

    class Stopped(Trainer):
        def _record(self, record, event):
            super()._record(record, event)
            if event == "log" and record["step"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    first = config()
    done = Stopped(first, earthsr.init_model(first, backend), task_for(first).objective()).train()
    assert (done.interrupted_by, done.steps) == ("SIGTERM", 2)
    again = earthsr.train(config(), backend=backend, resume=True)
    assert again.result.steps == 6
    stopped, whole = RunFolder(again.folder), RunFolder(folder / "tuned")
    assert stopped.steps() == [2, *whole.steps()]
    stop = stopped.folder(2)
    for file in stop.iterdir():
        file.unlink()
    stop.rmdir()
    assert_same_run(again.folder, folder / "tuned")


@pytest.mark.parametrize("pair", PAIRS)
def test_the_shipped_stages_fit_together(pair):
    land, ocean = (load_yaml_config(CONFIGS / f"{name}.yaml") for name in PAIRS[pair])
    assert land.train.run_mode == "train"
    assert ocean.train.run_mode == "finetune"
    assert ocean.train.load_ckpt
    assert ocean.summary.ckpt_path == land.summary.summary_dir
    assert ocean.summary.summary_dir != land.summary.summary_dir
    assert ocean.data.root_dir != land.data.root_dir
    spec = task_for(ocean).spec()
    assert spec == task_for(land).spec()
    frozen = spec.select(ocean.train.freeze)
    learning = {name.split(".")[0] for name in set(spec.learning) - frozen}
    assert learning == {"blocks", "body", "up", "out"}
    assert ocean.learning_rate == 1e-5
    assert {land.train.early_stopping_patience, ocean.train.early_stopping_patience} == {6}


def test_the_full_recipe_is_the_papers():
    land, ocean = (load_yaml_config(CONFIGS / f"{name}.yaml") for name in PAIRS["full"])
    for stage, rate in ((land, 1e-4), (ocean, 1e-5)):
        assert (stage.optimizer.name, stage.learning_rate) == ("adam", rate)
        assert (stage.optimizer.schedule, stage.epochs, stage.train.early_stopping_patience) == ("exponential", 300, 6)
    spec = task_for(ocean).spec()
    frozen = {name.rsplit(".", 2)[0] for name in spec.select(ocean.train.freeze) if name.startswith("blocks")}
    assert frozen == {f"blocks.{number}" for number in range(32)}

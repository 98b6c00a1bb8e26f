"""What a run promises: it resumes exactly, wherever it was stopped, and leaves nothing half-written.

Runs are compared by their losses, scores and weights, bit for bit: on one machine the same operations on the same
numbers in the same order give the same bits.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import earthsr
from earthsr.config import from_mapping
from earthsr.errors import CheckpointError, EarthsrWarning, InputError, TrainingError
from earthsr.models import RunFolder, read_checkpoint, read_weights, write_weights
from earthsr.training import Callback, Trainer
from tests.conftest import backend_parameters, call_cli, tiny_values, write_mindearth, write_patches

TIMING = ("samples_per_s",)


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines]


def assert_same_run(a, b):
    assert metrics(a) == metrics(b)
    runs = RunFolder(a), RunFolder(b)
    assert runs[0].steps() == runs[1].steps()
    assert runs[0].pointed("best").name == runs[1].pointed("best").name
    for step in runs[0].steps():
        for file in ("weights.safetensors", "optimizer.safetensors"):
            assert (runs[0].folder(step) / file).read_bytes() == (runs[1].folder(step) / file).read_bytes(), file
        notes = [json.loads((run.folder(step) / "state.json").read_text())["progress"] for run in runs]
        assert notes[0] == notes[1]


class StopAfter(Callback):
    """Sends a signal to this process after a step."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def log(self, trainer, record):
        if record["step"] == self.step:
            os.kill(os.getpid(), self.number)


def trainer_of(config, backend, extra=()):
    """A trainer whose evaluating callback is followed by others."""
    model = earthsr.init_model(config, backend)

    class Watched(Trainer):
        def _record(self, record, event):
            super()._record(record, event)
            for callback in extra:
                getattr(callback, event)(self, record)

    return Watched(config, model, earthsr.MSELoss())


@pytest.mark.slow
@pytest.mark.parametrize("backend_name", backend_parameters())
def test_a_run_stopped_after_any_step_and_resumed_equals_one_that_was_not(tiny, tmp_path, backend_name):
    settings = dict(
        optimizer={"epochs": 3, "schedule": "cosine", "warmup_steps": 2}, data={"batch_size": 5, "shift": True}
    )
    whole = tiny("whole", **settings)
    trainer_of(whole, backend_name).train()
    # 12 patches in batches of 5: three steps per epoch, nine in all; steps 3 and 6 end epochs.
    stops = range(1, 9) if backend_name == "torch" else (2, 6)
    for step in stops:
        config = tiny(f"stopped-{step}", **settings)
        first = trainer_of(config, backend_name, [StopAfter(step)]).train()
        assert first.interrupted_by == "SIGTERM"
        assert first.steps == step
        second = trainer_of(config, backend_name).train(resume=True)
        assert second.interrupted_by is None
        # A stop writes a checkpoint of its own; beside it both runs have the same.
        extra = set(RunFolder(first.folder).steps()) - set(RunFolder(tmp_path / "whole").steps())
        assert extra <= {step}
        assert metrics(first.folder) == metrics(tmp_path / "whole")
        ends = [RunFolder(folder).newest() for folder in (first.folder, tmp_path / "whole")]
        for file in ("weights.safetensors", "optimizer.safetensors"):
            assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes()


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_exactly(tiny_file, tmp_path, any_backend):
    settings = dict(
        optimizer={"epochs": 12},
        # Reads of the loss, checkpoints and epochs of six steps at different beats.
        summary={"save_checkpoint_steps": 5, "keep_checkpoint_max": 50, "log_every": 4},
        data={"batch_size": 2},
        train={"early_stopping_patience": None},
    )
    words = [sys.executable, "-m", "earthsr", "train", "--backend", any_backend, "--resume"]
    whole = tiny_file("whole", **settings)
    call_cli(*words[3:], whole, check=0)
    killed = tiny_file("killed", **settings)
    kills = 0
    for records in (3, 9, 17):
        with subprocess.Popen([*words, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            log = tmp_path / "killed" / "metrics.jsonl"
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if log.exists() and len(log.read_text().splitlines()) >= records:
                    process.kill()
                    break
                time.sleep(0.001)
        kills += process.returncode == -signal.SIGKILL
    assert kills, "the run was over before it could be killed; make it longer"
    call_cli(*words[3:], killed, check=0)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(".*.part-*"))


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_exits_with_zero(tiny_file, tmp_path, any_backend):
    config = tiny_file("run", optimizer={"epochs": 500}, train={"early_stopping_patience": None})
    words = [sys.executable, "-m", "earthsr", "train", str(config), "--backend", any_backend, "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) > 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    result = json.loads(output)
    assert result["interrupted_by"] == "SIGTERM"
    newest = RunFolder(tmp_path / "run").newest()
    assert newest.name == f"step-{result['steps']:06d}"
    assert "--resume carries on" in errors


def test_normalisation_is_chosen_once_and_stays_with_the_checkpoint(tiny, tmp_path, any_backend):
    config = tiny("a", data={"normalisation": "global"})
    run = earthsr.train(config, backend=any_backend)
    kept = read_weights(run.best / "weights.safetensors").metadata["normalisation"]
    statistics = earthsr.DemData(config.data, "train").statistics()
    assert kept == {"kind": "global", "offset": statistics.mean, "scale": statistics.std}
    other = write_patches(tmp_path / "other", patch=8)
    later = tiny(
        "b",
        data={"root_dir": str(other), "normalisation": "patch"},
        summary={"ckpt_path": str(run.folder)},
        train={"load_ckpt": True, "run_mode": "finetune", "freeze": ["head", "blocks"]},
        optimizer={"finetune_lr": 1e-4, "epochs": 1},
    )
    fine = earthsr.train(later, backend=any_backend)
    tuned = read_weights(fine.best / "weights.safetensors")
    assert tuned.metadata["normalisation"] == kept
    rates = {record["learning_rate"] for record in metrics(fine.folder)}
    assert rates == {1e-4}
    before = read_weights(run.best / "weights.safetensors").weights
    for name, value in before.items():
        frozen = name.startswith(("head", "blocks"))
        assert (tuned.weights[name].tobytes() == value.tobytes()) == frozen, name


def test_early_stopping_ends_the_run_and_restores_the_best_weights(tiny, any_backend):
    config = tiny(optimizer={"epochs": 60, "learning_rate": 0.3}, train={"early_stopping_patience": 2})
    model = earthsr.init_model(config, any_backend)
    trainer = Trainer(config, model, earthsr.MSELoss())
    result = trainer.train()
    assert result.stopped_early
    assert result.epochs < 60
    run = RunFolder(result.folder)
    scores = [record["valid"]["rmse"] for record in metrics(result.folder) if "valid" in record]
    assert result.best_score == min(scores)
    assert len(scores) - 1 - scores.index(min(scores)) == 2
    best = read_weights(run.pointed("best") / "weights.safetensors").weights
    for name, value in model.weights.items():
        np.testing.assert_array_equal(value, best[name])


def test_old_checkpoints_are_removed_but_best_and_latest_stay(tiny, any_backend):
    config = tiny(
        optimizer={"epochs": 8, "learning_rate": 0.2},
        summary={"keep_checkpoint_max": 2},
        train={"early_stopping_patience": None},
    )
    result = Trainer(config, earthsr.init_model(config, any_backend), earthsr.MSELoss()).train()
    run = RunFolder(result.folder)
    best = run.pointed("best")
    assert run.steps()[-2:] == [21, 24]
    assert set(run.steps()) == {21, 24, int(best.name[5:])}
    assert run.pointed("latest") == run.folder(24)


def test_validation_follows_its_frequency_and_the_last_epoch(tiny, any_backend):
    config = tiny(optimizer={"epochs": 5}, summary={"valid_frequency": 2})
    result = earthsr.train(config, backend=any_backend).result
    scored = [record["epoch"] for record in metrics(result.folder) if "valid" in record]
    assert scored == [2, 4, 5]


@pytest.mark.slow
def test_validation_agrees_with_evaluate(tiny, any_backend):
    run = earthsr.train(tiny(), backend=any_backend)
    assert run.model.backend.name == any_backend  # also where several are installed
    scores = earthsr.evaluate(run.folder, split="valid", backend=any_backend).metrics["scores"]
    assert scores["model"]["rmse"] == pytest.approx(run.result.best_score, rel=1e-6)


@pytest.mark.slow
def test_accumulation_fills_up_the_last_step(tiny, any_backend):
    # 12 patches in batches of 4 are three batches: with two per step, the last step has one and an empty one.
    config = tiny(optimizer={"epochs": 1, "accumulate": 2})
    result = earthsr.train(config, backend=any_backend).result
    assert result.steps == 2
    assert np.isfinite([record["loss"] for record in metrics(result.folder)]).all()


def test_a_folder_with_a_run_is_not_overwritten_unasked(tiny, any_backend):
    earthsr.train(tiny(), backend=any_backend)
    with pytest.raises(InputError, match="--resume"):
        earthsr.train(tiny(), backend=any_backend)
    again = earthsr.train(tiny(), backend=any_backend, overwrite=True)
    assert again.result.steps == 6


def test_resuming_without_a_checkpoint_starts_anew_and_says_so(tiny, any_backend, caplog):
    assert earthsr.train(tiny(), backend=any_backend, resume=True).result.steps == 6
    assert "holds no checkpoint to resume from" in caplog.text


def test_resuming_a_finished_run_says_that_there_is_nothing_to_do(tiny, any_backend, caplog):
    earthsr.train(tiny(), backend=any_backend)
    assert earthsr.train(tiny(), backend=any_backend, resume=True).result.steps == 6
    assert "the run ended at step 6 (epoch 2): nothing to do" in caplog.text


def test_a_kill_after_the_last_checkpoint_leaves_no_pointer_behind_and_nothing_that_was_to_go(tiny, any_backend):
    """Killed when the last checkpoint had its name, before pointers moved and older ones went: resuming mends it."""
    config = tiny(summary={"save_checkpoint_steps": 1, "keep_checkpoint_max": 2})
    trainer = trainer_of(config, any_backend)
    trainer.train()
    run = trainer.run
    kept, last = run.steps(), run.pointed("latest").name
    older = run.folder(kept[0] - 1)
    shutil.copytree(run.folder(kept[0]), older)
    run.point("latest", kept[-2])
    resumed = trainer_of(config, any_backend)
    resumed.train(resume=True)
    assert run.steps() == kept
    assert run.pointed("latest").name == last


def test_a_batch_larger_than_the_split_is_warned_of(tiny, any_backend):
    with pytest.warns(EarthsrWarning, match="batch_size is 50, but the training split has 12 samples"):
        earthsr.train(tiny(data={"batch_size": 50}, optimizer={"epochs": 1}), backend=any_backend)


def test_a_finished_run_goes_on_when_it_gets_more_epochs(tiny, any_backend):
    earthsr.train(tiny(), backend=any_backend)
    more = earthsr.train(tiny(optimizer={"epochs": 3}), backend=any_backend, resume=True)
    assert more.result.steps == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"features": 6}}, "another model: features 4 there, 6 here"),
        ({"train": {"seed": 4}}, "seed 3"),
        ({"data": {"batch_size": 3}}, "batch_size 4"),
    ],
)
def test_resuming_another_run_is_refused(tiny, any_backend, change, message):
    run = earthsr.train(tiny(), backend=any_backend)
    before = sorted(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    with pytest.raises(CheckpointError, match=message):
        earthsr.train(tiny(**change), backend=any_backend, resume=True)
    assert sorted(path.read_bytes() for path in run.folder.rglob("*") if path.is_file()) == before


def test_resuming_on_other_data_is_refused(tiny, tmp_path, any_backend):
    earthsr.train(tiny(), backend=any_backend)
    other = write_patches(tmp_path / "other", splits=(("valid", 12), ("train", 12)))
    with pytest.raises(CheckpointError, match="other data"):
        earthsr.train(tiny(data={"root_dir": str(other)}), backend=any_backend, resume=True)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(tiny, any_backend):
    config = tiny(optimizer={"learning_rate": 1e30, "epochs": 4})
    with pytest.raises(TrainingError, match=r"at step \d+"):
        earthsr.train(config, backend=any_backend)


def rewritten_weights(folder, change):
    """Change the weights of a checkpoint as a training that goes wrong does."""
    file = read_weights(folder / "weights.safetensors")
    weights = {name: change(value) for name, value in file.weights.items()}
    write_weights(folder / "weights.safetensors", file.spec, weights, file.metadata)


def test_a_run_that_diverges_says_at_which_step_and_keeps_what_was_finite(tiny, any_backend):
    """At a rate of 1e6 the first step's loss is finite and its weights are not to be used."""
    config = tiny(optimizer={"learning_rate": 1e6, "epochs": 4}, summary={"save_checkpoint_steps": 1})
    with pytest.raises(TrainingError, match=r"diverged.*at step \d+.*optimizer\.learning_rate"):
        earthsr.train(config, backend=any_backend)
    for line in (Path(config.summary.summary_dir) / "metrics.jsonl").read_text().splitlines():
        assert "Infinity" not in line
        assert "NaN" not in line


def test_a_run_resumes_from_the_newest_weights_that_did_not_diverge(tiny, any_backend):
    run = earthsr.train(tiny(summary={"save_checkpoint_epochs": 1}), backend=any_backend)
    newest = sorted((run.folder / "checkpoints").glob("step-*"))[-1]
    undisturbed = read_weights(newest / "weights.safetensors").weights
    rewritten_weights(newest, lambda array: np.full_like(array, 1e30))
    with pytest.warns(EarthsrWarning, match=rf"{newest.name}.*diverged.*not resumed from"):
        earthsr.train(tiny(), backend=any_backend, resume=True)
    again = read_weights(newest / "weights.safetensors").weights
    for name, array in undisturbed.items():
        np.testing.assert_array_equal(again[name], array)


def test_a_run_of_which_nothing_is_left_is_not_resumed(tiny, any_backend):
    run = earthsr.train(tiny(), backend=any_backend)
    for folder in (run.folder / "checkpoints").glob("step-*"):
        rewritten_weights(folder, lambda array: np.full_like(array, 1e30))
    with pytest.raises(CheckpointError, match="--overwrite"), pytest.warns(EarthsrWarning):
        earthsr.train(tiny(), backend=any_backend, resume=True)


@pytest.mark.slow
def test_mindearth_files_without_our_additions_train(tmp_path, any_backend):
    root = write_mindearth(tmp_path / "plain")
    config = from_mapping(tiny_values(root, tmp_path / "run"))
    run = earthsr.train(config, backend=any_backend)
    metrics_ = earthsr.evaluate(run.folder, backend=any_backend).metrics
    assert metrics_["scores"]["model"]["slope_rmse_deg"] is None  # no cell size: no slope
    assert metrics_["groups"] == {}


@pytest.mark.slow
def test_masked_data_train_and_count(tmp_path, any_backend):
    root = write_patches(tmp_path / "masked", masks=True)
    config = from_mapping(tiny_values(root, tmp_path / "run"))
    run = earthsr.train(config, backend=any_backend)
    assert set(earthsr.evaluate(run.folder, backend=any_backend).metrics["groups"]) == {
        "coast", "land", "ocean", "region/alps", "region/andes",
    }  # fmt: skip


def test_a_run_for_several_processes_is_one_of_one_where_nobody_launched_them(tiny, any_backend):
    plain, shared = (
        earthsr.train(tiny(name, train={"distribute": name == "shared"}), backend=any_backend)
        for name in ("plain", "shared")
    )
    assert shared.result.best_score == plain.result.best_score


@pytest.mark.slow
def test_tensorboard_and_mlflow_record_the_run(tiny, any_backend, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = tiny(summary={"tensorboard": True, "mlflow": True})
    run = earthsr.train(config, backend=any_backend)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()["tensors"] + events.Tags()["scalars"]
    assert "epoch/valid/rmse" in tags
    assert "step/loss" in tags
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run.folder / "mlruns").resolve().as_uri())
    record = client.get_run((run.folder / "mlflow-run").read_text().strip())
    assert record.info.status == "FINISHED"
    assert record.data.params["model.features"] == "4"
    assert record.data.metrics["epoch/valid/rmse"] == pytest.approx(metrics(run.folder)[-1]["valid"]["rmse"])


def test_a_native_loss_gives_the_same_as_its_spec(tiny, tmp_path):
    torch = pytest.importorskip("torch")
    results = []
    for folder, loss in (("spec", earthsr.MSELoss()), ("native", torch.nn.MSELoss())):
        config = tiny(folder, data={"batch_size": 4})
        Trainer(config, earthsr.init_model(config, "torch"), loss).train()
        results.append([record["loss"] for record in metrics(tmp_path / folder)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_checkpoints_hold_what_the_design_says(tiny, any_backend):
    run = earthsr.train(tiny(), backend=any_backend)
    checkpoint = read_checkpoint(run.best)
    notes = checkpoint.notes
    assert notes["schema_version"] == 1
    for key in ("progress", "spec", "config", "backend", "sampler", "data_fingerprint", "earthsr_version"):
        assert notes[key], key
    assert checkpoint.weights.metadata["units"] == "m"
    assert checkpoint.weights.metadata["output_cell_size_deg"] == pytest.approx(1 / 1200)
    assert (run.folder / "config.yaml").is_file()
    assert (run.folder / "figures" / "loss.png").is_file()


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_one_before_it_whole(tiny_file, tmp_path, any_backend):
    """A limit on the size of files stands for the disk: the kernel refuses to write on."""
    config = tiny_file(model={"features": 24}, optimizer={"epochs": 2})
    assert call_cli("train", config, "--backend", any_backend, "--set", "optimizer.epochs=1").returncode == 0
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from earthsr.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", script, "train", str(config), "--backend", any_backend, "--resume"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    run = RunFolder(tmp_path / "run")
    assert run.steps() == [3]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best", "latest", "step-000003"]
    again = call_cli("train", config, "--backend", any_backend, "--resume")
    assert again.returncode == 0, again.stderr
    assert read_checkpoint(run.newest()).notes["progress"]["finished"]

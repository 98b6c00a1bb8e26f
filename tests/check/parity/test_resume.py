"""One checkpoint: a run that changes the framework goes on as if nothing had happened."""

import dataclasses
import json

import numpy as np
import pytest

from earthsr.backend import get_backend
from earthsr.check.parity_compare import BY_NAME
from earthsr.errors import CheckpointError
from earthsr.models import State, initial_weights
from tests.backends.test_engine import SPEC, make_batch, ready
from tests.backends.test_training import StopAfter, metrics, trainer_of
from tests.conftest import BACKENDS, call_cli, installed

both = pytest.mark.skipif(not all(map(installed, BACKENDS)), reason="needs both backends")

#: What a resumed run has to take over shows in these: a rate that rises and falls, clipping, decay, patience.
SETTINGS = {
    "optimizer": {
        "epochs": 4,
        "name": "adamw",
        "weight_decay": 0.01,
        "clip_norm": 0.5,
        "schedule": "cosine",
        "warmup_steps": 3,
        "learning_rate": 3e-3,
    },
    "train": {"early_stopping_patience": 3, "seed": 5},
    "summary": {"log_every": 1, "save_checkpoint_steps": 2},
}


def last_notes(folder):
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return json.loads((newest / "state.json").read_text())


@both
@pytest.mark.parametrize(
    "legs",
    [
        ("torch", "mindspore"),
        ("mindspore", "torch"),
        ("torch", "mindspore", "torch"),
    ],
    ids="-then-".join,
)
@pytest.mark.slow
def test_a_run_changes_the_framework(tiny, tmp_path, legs):
    trainer_of(tiny("whole", **SETTINGS), legs[0]).train()
    # Stops in the middle of an epoch (three steps each), so that the sampler's position counts.
    for leg, name in enumerate(legs):
        last = leg == len(legs) - 1
        callbacks = [] if last else [StopAfter(4 * leg + 4)]
        trainer_of(tiny("mixed", **SETTINGS), name, callbacks).train(resume=leg > 0)
    a, b = (metrics(tmp_path / name) for name in ("whole", "mixed"))
    assert [record["step"] for record in a] == [record["step"] for record in b]
    bound = BY_NAME["losses"].tolerance
    for one, other in zip(a, b, strict=True):
        assert one["learning_rate"] == other["learning_rate"]
        assert one["loss"] == pytest.approx(other["loss"], rel=bound)
        if "valid" in one:
            assert one["valid"]["rmse"] == pytest.approx(other["valid"]["rmse"], rel=bound)
    notes = [last_notes(tmp_path / name) for name in ("whole", "mixed")]
    assert [note["backend"]["name"] for note in notes] == [legs[0], legs[-1]]
    for key in ("step", "epoch", "step_in_epoch", "best_step", "evaluations_without_gain", "finished"):
        assert notes[0]["progress"][key] == notes[1]["progress"][key], key
    assert notes[0]["progress"]["best_score"] == pytest.approx(notes[1]["progress"]["best_score"], rel=bound)
    assert notes[0]["sampler"] == notes[1]["sampler"]
    assert notes[0]["engine"]["step"] == notes[1]["engine"]["step"]


@both
@pytest.mark.parametrize(("first", "second"), [("torch", "mindspore"), ("mindspore", "torch")])
def test_a_state_crosses_without_losing_a_bit(first, second):
    one = ready(get_backend(first))
    one.run([make_batch(i) for i in range(3)], [1e-2] * 3).result()
    state = dataclasses.replace(one.export_state(), loss_scale=4096.0, loss_scale_good_steps=17, skipped_steps=2)
    other = ready(get_backend(second), weights=initial_weights(SPEC, 9))
    other.load_state(state)
    found = other.export_state()
    for kind in ("weights", "first_moments", "second_moments"):
        for name, value in getattr(state, kind).items():
            assert getattr(found, kind)[name].tobytes() == value.tobytes(), (kind, name)
    for key in ("step", "loss_scale", "loss_scale_good_steps", "skipped_steps"):
        assert getattr(found, key) == getattr(state, key), key
    # And the next step is the same one.
    batch = make_batch(7)
    a, b = one.run([batch], [1e-2]).result(), other.run([batch], [1e-2]).result()
    assert a.losses[0] == pytest.approx(b.losses[0], rel=BY_NAME["loss"].tolerance)
    for name, value in one.export_state().first_moments.items():
        bound = BY_NAME["first_moments_1"].tolerance * np.abs(value).max()
        np.testing.assert_allclose(other.export_state().first_moments[name], value, atol=bound)


@pytest.mark.slow
def test_a_float32_engine_hands_on_a_loss_scale_that_it_does_not_use(backend):
    engine = ready(backend)
    engine.load_state(State(initial_weights(SPEC, 0), loss_scale=512.0, loss_scale_good_steps=3, skipped_steps=1))
    engine.run([make_batch()], [1e-3]).result()
    state = engine.export_state()
    assert (state.loss_scale, state.loss_scale_good_steps, state.skipped_steps) == (512.0, 3, 1)


def test_what_does_not_belong_is_named(backend):
    engine = ready(backend)
    state = engine.export_state()
    weights = {**state.weights, "tail.weight": np.zeros(1, np.float32)}
    weights.pop("up.weight")
    with pytest.raises(CheckpointError, match=r"missing up\.weight; left over tail\.weight"):
        engine.load_state(State(weights))


@both
@pytest.mark.slow
def test_the_command_line_changes_the_framework(tiny_file, tmp_path):
    config = tiny_file("run", **SETTINGS)
    first = call_cli("train", config, "--backend", "mindspore", "--set", "optimizer.epochs=2")
    assert first.returncode == 0, first.stderr
    second = call_cli("train", config, "--backend", "torch", "--resume")
    assert second.returncode == 0, second.stderr
    assert "resuming at step 6" in second.stderr
    steps = [record["step"] for record in metrics(tmp_path / "run")]
    assert steps == sorted(steps)
    assert steps[-1] == 12

"""earthsr parity: two backends here, one backend and a record, and what it refuses."""

import json

import pytest

from earthsr.check.parity import read_record, write_record
from tests.conftest import BACKENDS, backend_parameters, call_cli, installed, run_cli

both = pytest.mark.skipif(not all(map(installed, BACKENDS)), reason="needs both backends")
FAST = ("--steps", 3)


@both
@pytest.mark.slow
def test_two_backends_in_one_process(tiny_file, tmp_path):
    done = call_cli("parity", tiny_file(), "--backends", "mindspore", "torch", *FAST)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mindspore 2.10")
    assert "against  torch" in lines[0]
    assert any(line.startswith("all ") and line.endswith(" arrays agree") for line in lines)
    folder = tmp_path / "run-parity"
    assert (folder / "parity.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "parity.json").read_text())
    assert report["agree"] is True
    assert len(report["losses"][0]) == 3
    assert report["about"][0]["inputs"].endswith("(12 patches)")
    quantities = report["quantities"]
    assert {"layers", "gradients", "second_moments_1", "updates_n", "raster", "scores"} <= set(quantities)
    assert all(0 <= q["difference"] <= q["tolerance"] for q in quantities.values())
    assert quantities["gradients"]["own_noise"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", backend_parameters())
def test_a_record_from_another_process(tiny_file, tmp_path, name):
    """One machine records; another one, here another process and where there is one another backend, compares."""
    record = tmp_path / "record.safetensors"
    done = run_cli("parity", tiny_file(), "--backend", name, "--record", record, *FAST, "--synthetic", check=0)
    assert "recorded" in done.stdout
    assert not (tmp_path / "run-parity").exists()
    other = next((b for b in reversed(BACKENDS) if installed(b) and b != name), name)
    against = call_cli(
        "parity", tiny_file(), "--backend", other, "--against", record, *FAST, "--synthetic", "--json",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert against.returncode == 0, against.stderr + against.stdout
    report = json.loads(against.stdout)
    assert report["agree"] is True
    assert [about["backend"] for about in report["about"]] == [other, name]
    assert (tmp_path / "out" / "parity.png").exists()


@pytest.fixture
def recorded(tiny_file, tmp_path, any_backend):
    """A configuration, and a record of it by one backend."""
    path = tmp_path / "record.safetensors"
    config = tiny_file()
    done = call_cli("parity", config, "--backend", any_backend, "--record", path, *FAST, "--no-noise")
    assert done.returncode == 0, done.stderr
    return config, path, any_backend


def test_a_difference_past_tolerance_exits_with_1_and_is_named(recorded, tmp_path):
    config, path, backend = recorded
    record = read_record(path)
    record.arrays["gradients"]["up.weight"][5] *= 1.01
    write_record(path, record)
    done = call_cli("parity", config, "--backend", backend, "--against", path, *FAST, "--no-noise")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "TOO LARGE" in line]
    assert line.startswith("gradients")
    assert "up.weight" in line
    report = json.loads((tmp_path / "run-parity" / "parity.json").read_text())
    assert report["agree"] is False
    wrong = [row for row in report["rows"] if not row["agree"]]
    assert [(row["quantity"], row["name"]) for row in wrong] == [("gradients", "up.weight")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 4), "is 3 in the record, 4 here"),
        (("--steps", 3, "--set", "model.features=5"), "spec is"),
        (("--steps", 3, "--set", "optimizer.learning_rate=1e-4"), "rates is"),
        (("--steps", 3, "--set", "optimizer.eps=1e-4"), "optimizer is"),
        (("--steps", 3, "--set", "train.seed=4"), "other inputs: weights/head.weight"),
        (("--steps", 3, "--synthetic"), "inputs is"),
    ],
)
def test_a_record_of_another_run_is_refused(recorded, tmp_path, arguments, message):
    config, path, backend = recorded
    done = call_cli("parity", config, "--backend", backend, "--against", path, "--no-noise", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "layers" not in done.stderr  # found out before anything is computed
    assert not (tmp_path / "run-parity").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "safetensors"), (b"\x80garbage", "record"), ("weights", "no parity record")],
    ids=["missing", "empty", "garbage", "weights"],
)
def test_a_damaged_record_is_named_before_anything_is_computed(tiny_file, tmp_path, any_backend, content, message):
    path = tmp_path / "record.safetensors"
    if content == "weights":
        from earthsr.models import DemSRNetSpec, initial_weights, write_weights

        spec = DemSRNetSpec(features=2, num_blocks=0)
        write_weights(path, spec, initial_weights(spec, 0), {})
    elif content is not None:
        path.write_bytes(content)
    done = call_cli("parity", tiny_file(), "--backend", any_backend, "--against", path)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert message in done.stderr
    assert "layers" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "torch"), "--against"),
        (("--backends", "torch", "torch"), "twice"),
        (("--backends", "torch", "jax"), "unknown backend 'jax'"),
        (("--backends", "torch", "mindspore", "--record", "r.safetensors"), "--backend"),
        (("--steps", 0), "--steps"),
    ],
)
def test_contradicting_arguments_are_refused(tiny_file, arguments, message):
    if "jax" in arguments and not installed("torch"):
        pytest.skip("backend torch is not installed")
    done = call_cli("parity", tiny_file(), *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_one_backend_alone_is_told_what_it_can_do(tiny_file, monkeypatch):
    from earthsr.backend import available_backends

    backend = available_backends()["mindspore"]
    monkeypatch.setattr(backend, "installed", classmethod(lambda cls: False))
    done = call_cli("parity", tiny_file())
    assert done.returncode == 2
    assert "--record" in done.stderr


def test_without_data_terrain_is_made_and_said(tiny_file, tmp_path, any_backend):
    config = tiny_file(data={"root_dir": str(tmp_path / "nowhere")})
    record = tmp_path / "record.safetensors"
    done = call_cli("parity", config, "--backend", any_backend, "--record", record, *FAST, "--no-noise")
    assert done.returncode == 0, done.stderr
    assert "synthetic inputs are used" in done.stderr
    assert read_record(record).about["inputs"] == "synthetic terrain, seed 0"


def test_data_that_do_not_fit_are_named(tiny_file, any_backend):
    config = tiny_file(data={"patch_size": 9})
    done = call_cli("parity", config, "--backend", any_backend, "--record", "r.safetensors")
    assert done.returncode == 2
    assert "9_9" in done.stderr
    assert "--synthetic" in done.stderr

"""earthsr bench: what it says, what it writes, what it refuses."""

import json

import pytest

from tests.conftest import call_cli, installed, landuse_values, tiny_values, write_patches

FAST = ("--steps", 4, "--warmup", 1)


def quick(name, monkeypatch):
    """Repeat bare operators as rarely as is allowed."""
    monkeypatch.setattr(f"earthsr_{name}.timing.SECONDS", 0.0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, any_backend):
    """A run on real data: the folder it ran in, what it printed and what it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    root = write_patches(folder / "data")
    config = folder / "tiny.yaml"
    config.write_text(json.dumps(tiny_values(root, folder / "run", optimizer={"accumulate": 2})))
    work = folder / "work"
    work.mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.MonkeyPatch.context() as patch:
        quick(any_backend, patch)
        done = call_cli(
            "bench", config, "--backend", any_backend, *FAST, "--json", "--output", folder / "out" / "bench.json",
            cwd=work,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    return folder, json.loads(done.stdout), before, after


def test_json_is_the_same_printed_and_written(measured):
    folder, values, *_ = measured
    assert json.loads((folder / "out" / "bench.json").read_text()) == values


def test_nothing_else_is_written(measured):
    folder, _, before, after = measured
    new = {path: time for path, time in after.items() if path not in before}
    assert set(new) == {folder / "out", folder / "out" / "bench.json"}
    assert {path: after[path] for path in before if path != folder} == {p: t for p, t in before.items() if p != folder}


def test_figures_agree_with_each_other(measured):
    consistent(measured[1], batches=2)


def consistent(values, batches=1):
    """Figures that follow from each other do."""
    about = values["about"]
    assert values["samples_per_step"] == about["batch_size"] * batches
    assert values["steps_per_s"] == pytest.approx(1 / values["step_s"])
    assert values["samples_per_s"] == pytest.approx(values["samples_per_step"] * values["steps_per_s"])
    flop = 3 * about["flop_per_sample_forward"] * values["samples_per_step"]
    assert values["flop_per_s"] == pytest.approx(flop / values["step_s"])
    peaks = values["peaks"]
    assert values["share_of_matmul"] == pytest.approx(values["flop_per_s"] / peaks["matmul_flop_per_s"])
    assert values["share_of_convolution"] == pytest.approx(values["flop_per_s"] / peaks["convolution_flop_per_s"])
    assert values["first_step_s"] > 0
    assert values["compile_s"] == pytest.approx(max(values["first_step_s"] - values["step_s"], 0))
    assert values["peak_memory_mib"] > 20
    phases = values["phases"]
    parts = [phases[f"{name}_s"] for name in ("transfer", "forward", "backward", "optimiser")]
    assert all(part >= 0 for part in parts)
    assert phases["forward_s"] > 0
    # That they add up to a step is shown with a clock of its own (tests/check/test_bench.py): on a busy machine two
    # measurements of one thing, seconds apart, differ a hundredfold.
    if values["loader"] is None:
        assert values["loader_headroom"] is None
    else:
        rate = values["loader"]["samples_per_s"]
        assert values["loader_headroom"] == pytest.approx(rate / values["samples_per_s"])
        assert phases["loading_s"] == pytest.approx(values["samples_per_step"] / rate)
    assert phases["waiting_s"] >= 0


def test_the_loader_is_measured_on_real_data(measured):
    values = measured[1]
    assert values["inputs"].endswith("(12 samples)")
    assert values["loader"]["samples"] % 12 == 0
    assert values["loader_headroom"] > 0
    assert values["plain"] is None


def test_a_table_for_people(tiny_file, any_backend, monkeypatch):
    quick(any_backend, monkeypatch)
    done = call_cli(
        "bench", tiny_file(), "--backend", any_backend, *FAST, "--synthetic", "--compare-plain",
        "--set", "train.amp_level=O2", "--set", "data.batch_size=2", "--set", "train.recompute=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {line[:19].strip(): line[19:].strip() for line in done.stdout.splitlines() if line[:1].strip()}
    assert "samples/s" in rows["rate"]
    assert "steps/s" in rows["rate"]
    assert "FLOP/s" in rows["arithmetic"]
    assert rows["samples per step"].startswith("2 ")
    assert rows["precision"].startswith("O2")
    assert rows["precision"].endswith("blocks computed again")
    assert rows["loading"].startswith("not measured")
    assert rows["loading"].endswith("made batches")
    assert "MiB" in rows["peak memory"]
    assert "float32" in rows["plain setting"]
    assert rows["against plain"].endswith(" x")
    for name in ("transfer", "forward", "backward", "optimiser", "waiting for batches"):
        assert "% of a step" in rows[name]
    assert "loader headroom" not in rows


@pytest.mark.slow
# MindSpore compiles four graphs for each; without own priors they are those of elevations, below.
@pytest.mark.parametrize(("name", "own"), [("torch", 0.0), ("torch", 0.5), ("mindspore", 0.5)])
def test_land_use_with_its_own_priors(landuse_dir, tmp_path, name, own, monkeypatch):
    if not installed(name):
        pytest.skip(f"backend {name} is not installed")
    quick(name, monkeypatch)
    path = tmp_path / "landuse.yaml"
    values = landuse_values(landuse_dir, tmp_path / "run", data={"prior_own": own}, model={"depth": 1})
    path.write_text(json.dumps(values))
    done = call_cli("bench", path, "--backend", name, *FAST, "--json", "--compare-plain")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    consistent(values)
    assert values["plain"]["step_s"] > 0
    ratio = values["samples_per_s"] / values["plain"]["samples_per_s"]
    assert values["plain"]["speedup_over_plain"] == pytest.approx(ratio)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_mindspore_on_elevations(tiny_file, monkeypatch):
    if not installed("mindspore"):
        pytest.skip("backend mindspore is not installed")
    quick("mindspore", monkeypatch)
    done = call_cli("bench", tiny_file(), "--backend", "mindspore", *FAST, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    consistent(values)
    assert values["phases"]["how"] == "from differences of three graphs"
    # A graph is compiled in its first step, which takes longer than running it.
    assert values["compile_s"] > values["step_s"]


def refused(*arguments):
    done = call_cli("bench", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_bad_arguments_are_refused_in_one_line(tiny_file, tmp_path, any_backend):
    config = tiny_file()
    assert "--steps" in refused(config, "--steps", 0)
    assert "--warmup" in refused(config, "--warmup", -1)
    assert f"{tmp_path} is a folder" in refused(config, "--output", tmp_path)
    assert "trian" in refused(config, "--set", "trian.seed=1")
    (tmp_path / "empty").mkdir()
    line = refused(config, "--backend", any_backend, "--set", f"data.root_dir={tmp_path / 'empty'}")
    assert "--synthetic" in line

"""The average of a run's checkpoints: what it is, what it refuses, and that every verb takes it for a checkpoint."""

import dataclasses
import json

import numpy as np
import pytest

import earthsr
from earthsr.errors import CheckpointError, EarthsrWarning, InputError
from earthsr.models import (
    DemSRNetSpec,
    RunFolder,
    UNetSpec,
    WeightsFile,
    average_weights,
    initial_weights,
    read_weights,
    write_weights,
)
from tests.conftest import call_cli

SPEC = DemSRNetSpec(features=3, num_blocks=1, scale=2)
METRES = {"normalisation": {"kind": "patch", "offset": 0.0, "scale": 64.0}, "units": "m", "earthsr_version": "1"}


def made(seed, spec=SPEC, path=None, **metadata):
    return WeightsFile(spec, initial_weights(spec, seed), {**METRES, **metadata}, path)


def test_the_average_is_the_mean_in_float64(tmp_path):
    files = [made(seed) for seed in range(3)]
    found = average_weights(files)
    assert found.spec == SPEC
    assert found.path is None
    assert found.metadata == {key: METRES[key] for key in ("normalisation", "units")} | {"averaged": 3}
    for name, value in found.weights.items():
        mean = np.mean([file.weights[name].astype(np.float64) for file in files], axis=0)
        np.testing.assert_array_equal(value, mean.astype(np.float32))
        assert value.dtype == np.float32
    # Paths and what was read of them are the same; the result is itself a checkpoint.
    paths = [write_weights(tmp_path / f"{i}.safetensors", SPEC, f.weights, f.metadata) for i, f in enumerate(files)]
    again = read_weights(write_weights(tmp_path / "mean.safetensors", SPEC, found.weights, found.metadata))
    for one in (average_weights(iter(paths)), again, average_weights([again])):
        for name, value in found.weights.items():
            np.testing.assert_array_equal(one.weights[name], value)


def test_many_checkpoints_lose_no_digits():
    """Float32 sums of a thousand checkpoints would."""
    file = made(0)
    near = [dataclasses.replace(file, weights={k: v + np.float32(1) for k, v in file.weights.items()})] * 1000
    for name, value in average_weights(near).weights.items():
        np.testing.assert_array_equal(value, near[0].weights[name])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made(1, DemSRNetSpec(features=4, num_blocks=1, scale=2)), "checkpoint 2: .*features 4 there, 3 here"),
        (made(1, UNetSpec()), "another model"),
        (made(1, normalisation={"kind": "patch", "offset": 0.0, "scale": 70.0}), r"normalisation .*70.*64"),
        (made(1, units="ft"), "has units ft, the first one m"),
        (
            made(1, path="b.safetensors", classes=["forest"]),
            "b.safetensors: has classes .*forest.*, the first one None",
        ),
    ],
)
def test_what_is_not_the_same_is_refused(other, message):
    with pytest.raises(CheckpointError, match=message):
        average_weights([made(0), other])


def test_cells_of_nearly_one_size_are_one_size():
    """Tiles of one product differ in the fourth digit; an ensemble takes them too."""

    def of(seed, cell):
        return dataclasses.replace(made(seed), metadata={**METRES, "input_cell_size_deg": cell})

    mean = average_weights([of(0, 0.0041666), of(1, 0.0041660)])
    assert mean.metadata["input_cell_size_deg"] == 0.0041666
    average_weights([of(0, [0.25, 0.25]), of(1, [0.2501, 0.25])])
    for first, other in ((0.0041666, 0.00425), ([0.25, 0.25], [0.25, 0.3]), (0.25, [0.25, 0.25]), (0.25, None)):
        with pytest.raises(CheckpointError, match=r"has input_cell_size_deg .*, the first one"):
            average_weights([of(0, first), of(1, other)])


def test_no_checkpoint_has_no_average(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        average_weights([])
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        average_weights([tmp_path / "absent.safetensors"])


def test_averaged_running_statistics_are_warned_of():
    spec = UNetSpec(coarse_channels=3, static_channels=2, classes=4, width=4, depth=1)
    with pytest.warns(EarthsrWarning, match="batch norms"):
        average_weights([made(0, spec), made(1, spec)])
    average_weights([made(0, spec)])
    plain = dataclasses.replace(spec, norm="group", norm_groups=2)
    average_weights([made(0, plain), made(1, plain)])


@pytest.mark.slow
def test_the_average_of_a_run_is_scored_and_predicts_like_any_checkpoint(tiny, tmp_path, any_backend):
    config = tiny(summary={"summary_dir": str(tmp_path / "run"), "log_every": 1, "save_checkpoint_steps": 1})
    run = earthsr.train(config, backend=any_backend, device="cpu")
    folder = RunFolder(run.folder)
    last = [folder.folder(step) for step in folder.steps()[-3:]]
    mean = average_weights(last)
    path = write_weights(tmp_path / "mean.safetensors", mean.spec, mean.weights, mean.metadata)
    words = ("--backend", any_backend, "--output", tmp_path / "scores", "--json")
    done = call_cli("evaluate", path, "--data", config.data.root_dir, *words)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert 0 < scores["scores"]["model"]["rmse"] < 1000
    source = f"{config.data.root_dir}/test/test.h5"
    done = call_cli("predict", path, source, tmp_path / "out.npz", "--backend", any_backend)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["elevation"].shape == (5, 1, 40, 40)
        assert np.isfinite(archive["elevation"]).all()
    # The mean lies between the checkpoints, and is none of them.
    assert all(
        (mean.weights["body.weight"] != read_weights(each / "weights.safetensors").weights["body.weight"]).any()
        for each in last
    )

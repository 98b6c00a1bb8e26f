"""Verbs whose work is shared out to workers of Dask write what one process writes, byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from earthsr.api import train
from earthsr.config import from_mapping
from earthsr.inference.scheduler import make_scheduler
from tests.cli import test_prepare_dem as dem
from tests.cli import test_prepare_landuse as landuse
from tests.conftest import call_cli, landuse_values, tiny_values, write_patches
from tests.dem.test_prepare_dem import cells, files_below, write_dem

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workers():
    """Address of two workers of this machine."""
    pytest.importorskip("distributed")
    with make_scheduler(workers=2) as scheduler:
        yield scheduler._connected().scheduler.address


def data_files(root):
    """Files of data by name; nothing else is there."""
    files = files_below(root)
    assert {Path(name).suffix for name in files} == {".h5"}
    return files


def test_patches_of_elevation(tmp_path, workers):
    for number, name in enumerate(("alps", "andes")):
        values = cells(200, 300).astype(np.float32) + 100 * number
        values[:12, :30] = -9999
        write_dem(tmp_path / f"{name}.tif", values, nodata=-9999, west=7.0 + 30 * number)
    plan = (*dem.BLOCKS, "--degradation", "bell:1.8")
    written = []
    for options in ((), ("--scheduler-address", workers)):
        done = dem.prepare(tmp_path, *options, "--overwrite", hr=("alps.tif", "andes.tif"), plan=plan)
        assert done.returncode == 0, done.stderr
        written.append(data_files(tmp_path / "out"))
    assert written[0] == written[1]


def test_tiles_of_land_use(tmp_path, workers, monkeypatch):
    monkeypatch.setattr("earthsr.landuse.tile_work._BYTES", 2 * 16 * 16 * (4 * 2 + 3))  # two tiles a piece
    for year in (2001, 2002, 2003):
        landuse.write_tif(tmp_path / f"20221006_classes_{year}.tif", landuse.code_map(year))
    scenario = landuse.write_nc(tmp_path / "states.nc", landuse.states())
    written = []
    for options in ((), ("--scheduler-address", workers)):
        done = landuse.prepare(
            tmp_path, "--scenario", scenario, *options, "--overwrite", static=("latitude", "distance_to_coast")
        )
        assert done.returncode == 0, done.stderr
        written.append(data_files(tmp_path / "out"))
    assert written[0] == written[1]


@pytest.mark.parametrize("workload", ["dem", "landuse"])
def test_scores(tmp_path, workers, any_backend, landuse_dir, workload):
    if workload == "dem":
        root = write_patches(tmp_path / "data", splits=(("train", 12), ("valid", 5), ("test", 21)), masks=True)
        values = tiny_values(root, tmp_path / "run", data={"batch_size": 4})
    else:
        values = landuse_values(landuse_dir, tmp_path / "run")
    train(from_mapping({**values, "optimizer": {"epochs": 1}}), backend=any_backend)
    metrics = []
    for options in ((), ("--scheduler-address", workers)):
        words = ("--backend", any_backend, "--output", tmp_path / "evaluation", "--json", *options)
        done = call_cli("evaluate", tmp_path / "run", *words, check=0)
        assert not [path.name for path in (tmp_path / "evaluation").iterdir() if path.name.startswith(".")]
        metrics.append(json.loads(done.stdout))
        assert metrics[-1] == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics[0] == metrics[1]
    assert metrics[0]["samples"] > 4

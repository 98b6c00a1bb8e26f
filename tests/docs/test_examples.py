"""Examples of the public docstrings do what they show, one after another in a folder as README's commands leave it.

That is: a clone's ``configs``, ``runs/demo-data`` and ``runs/demo`` (a smaller network, two epochs), a small synthetic
world with its archives in ``runs/landuse-data``, and a raster ``elevation.tif``.
"""

import doctest
import inspect
import logging
import shutil

import matplotlib
import numpy as np
import pytest
import yaml

import earthsr
from earthsr.samples.dem import jacksboro, write_sample_dem
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import WorldSpec
from tests.conftest import CONFIGS, installed

pytestmark = [
    pytest.mark.docs,
    pytest.mark.slow,
    pytest.mark.skipif(not installed("torch"), reason="the examples name backend torch"),
]

PUBLIC = {name: getattr(earthsr, name) for name in earthsr.__all__ if callable(getattr(earthsr, name))}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(CONFIGS, folder / "configs")
    demo = folder / "configs" / "dem_srnet_demo.yaml"
    values = yaml.safe_load(demo.read_text("utf-8"))
    values["model"].update(features=4, num_blocks=1)
    values["data"]["batch_size"] = 8
    values["optimizer"].update(epochs=2, warmup_steps=1)
    values["summary"].update(save_checkpoint_epochs=1, valid_frequency=1)
    demo.write_text(yaml.safe_dump(values), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_sample_dem("runs/demo-data", stride=16)
        world = WorldSpec(rows=128, columns=384)
        write_sample_landuse("runs/landuse-data", world, shares=(1, 0, 0), archives=True)
        earthsr.train("configs/dem_srnet_demo.yaml", backend="torch")
        _write_raster("elevation.tif")
    return folder


def _write_raster(path):
    import rasterio

    terrain = jacksboro()
    cell = terrain.cell_size_deg
    place = rasterio.transform.from_origin(terrain.west_deg, terrain.north_deg, cell, cell)
    rows, columns = terrain.elevation.shape
    shape = dict(height=rows, width=columns, count=1, dtype="float32")
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:4326", transform=place, **shape) as raster:
        raster.write(terrain.elevation.astype(np.float32), 1)


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    matplotlib.use("agg")
    yield
    for handler in list(logging.getLogger("earthsr").handlers):
        logging.getLogger("earthsr").removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_docstring_has_an_example_that_holds(name, here):
    docstring = inspect.getdoc(PUBLIC[name]) or ""
    examples = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    assert examples.examples, f"earthsr.{name} has no example: a section Examples with lines that begin with >>>"
    assert examples.examples[0].source == "import earthsr\n"
    shown = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(examples, out=shown.append)
    assert runner.failures == 0, "".join(shown)

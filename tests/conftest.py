"""Fixtures: made data, small configurations, and the backends that are installed here.

What only one backend can run is skipped where its framework is missing, with one line that says so.
"""

import contextlib
import dataclasses
import gc
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before a framework is imported: several processes with a thread per core each are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import pytest

from earthsr.backend import available_backends, get_backend
from earthsr.cli import main
from earthsr.config import from_mapping
from earthsr.data.normalise import Statistics
from earthsr.data.samples import Patches
from earthsr.dem.write import Split, write_split
from earthsr.geo.resample import block_mean
from earthsr.samples.dem import write_sample_dem
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import WorldSpec
from tests.graphs import share_graphs

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs"
BACKENDS = ("torch", "mindspore")
#: Files of about half a minute of processor time and more, longest first: they train, compile or start processes.
LONGEST = (
    "docs/test_commands.py",
    "tutorials/test_notebooks.py",
    "backends/test_training.py",
    "training/distributed/test_training.py",
    "tools/test_benchmark_dem_run.py",
    "check/parity/test_parity.py",
    "landuse/reconstruct/test_ending.py",
    "backends/test_engine.py",
    "backends/test_export.py",
    "cli/test_landuse.py",
    "backends/test_unet.py",
    "cli/test_bench.py",
    "landuse/reconstruct/test_whole.py",
    "check/parity/test_resume.py",
    "docs/test_site.py",
    "docs/test_examples.py",
    "cli/test_export.py",
    "cli/test_landuse_demo.py",
    "property/test_damage.py",
    "cli/test_parity.py",
    "cli/test_cli.py",
    "backends/test_enlarge.py",
    "landuse/reconstruct/test_areas.py",
    "contributing/test_examples.py",
    "test_api.py",
)
#: Folders whose tests are of documents and of scripts beside the package, and get the marker docs.
ABOUT_DOCUMENTS = ("contributing", "docs", "tools", "tutorials")


def installed(name):
    backend = available_backends().get(name)
    return backend is not None and backend.installed()


def backend_parameters():
    skip = lambda name: pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed")  # noqa: E731
    return [pytest.param(name, marks=skip(name)) for name in BACKENDS]


def pytest_sessionstart():
    """MindSpore compiles once what several tests need."""
    if installed("mindspore"):
        share_graphs()


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: whole files are shared out, and one that begins late ends alone."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(REPOSITORY / "tests").as_posix(), len(rank)))
    for item in items:
        if item.get_closest_marker("slow"):
            # Coverage is that of the quick tests (pyproject.toml).
            item.add_marker("no_cover")
        if any(item.path.is_relative_to(REPOSITORY / "tests" / folder) for folder in ABOUT_DOCUMENTS):
            item.add_marker("docs")


#: Modules that were there when garbage was last set aside.
SET_ASIDE = {"modules": 0}


def leave_out_what_is_there():
    """Leave what is there by now out of later collections of garbage, of which MindSpore makes one for each graph."""
    gc.collect()
    gc.freeze()
    SET_ASIDE["modules"] = len(sys.modules)


def pytest_collection_finish():
    leave_out_what_is_there()


def pytest_runtest_logfinish():
    """A framework that a test has imported is half a million objects, a third of a second for each collection."""
    if len(sys.modules) > SET_ASIDE["modules"] + 300:
        leave_out_what_is_there()


def pytest_terminal_summary(terminalreporter):
    """Say in one line which backends were not tested."""
    absent = [name for name in BACKENDS if not installed(name)]
    if absent:
        count = len(terminalreporter.stats.get("skipped", []))
        terminalreporter.write_line(f"not installed: {', '.join(absent)}; {count} tests that need it were skipped")


@pytest.fixture(params=backend_parameters())
def backend(request):
    """Each installed backend in turn."""
    return get_backend(request.param)


@pytest.fixture(scope="session")
def any_backend():
    """Name of one installed backend: PyTorch where it is there, since its small runs are faster."""
    for name in BACKENDS:
        if installed(name):
            return name
    pytest.skip("no backend is installed")


@pytest.fixture(scope="session")
def sample_dem(tmp_path_factory):
    """The embedded sample data set, few training patches."""
    root = tmp_path_factory.mktemp("sample")
    write_sample_dem(root, stride=10)
    return root


def terrain(seed, samples, size):
    """Smooth random hills, (samples, 1, size, size) float32 metres."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(samples, 1, size, size))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    smooth = np.fft.ifft2(np.fft.fft2(rough) / (0.02 + frequency) ** 1.5).real
    return (300 + 100 * smooth / smooth.std()).astype(np.float32)


def write_patches(root, splits=(("train", 12), ("valid", 5), ("test", 5)), patch=8, scale=5, masks=False):
    """Write a small data set with our additions; returns its folder."""
    made = {}
    for seed, (name, samples) in enumerate(splits):
        fine = terrain(seed, samples, patch * scale)
        rng = np.random.default_rng(seed + 100)
        mask = (rng.random(fine.shape) > 0.1).astype(np.uint8) if masks else None
        made[name] = Split(
            coarse=block_mean(fine, scale),
            fine=fine,
            origin=np.stack([rng.uniform(-10, 10, samples), rng.uniform(30, 50, samples)], axis=1),
            surface=np.arange(samples) % 3,
            region=np.array([("alps", "andes")[i % 2] for i in range(samples)]),
            mask=mask,
        )
    train = made[splits[0][0]]
    mask = np.ones_like(train.fine, np.uint8) if train.mask is None else train.mask
    statistics = Statistics.of([Patches(train.coarse, train.fine, mask, np.arange(len(train.fine)))])
    for name, split in made.items():
        write_split(
            Path(root) / name / f"{name}.h5", split, statistics, {"crs": "EPSG:4326", "cell_size_deg": 1 / 1200}
        )
    return Path(root)


def write_mindearth(root, splits=(("train", 12), ("valid", 5), ("test", 5)), patch=8, scale=5, units=True):
    """Write a data set as MindEarth's: the two datasets and nothing else (but units, by option)."""
    for seed, (name, samples) in enumerate(splits):
        fine = terrain(seed, samples, patch * scale)
        path = Path(root) / name / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as handle:
            handle[f"{patch}_{patch}"] = block_mean(fine, scale)
            handle[f"{patch * scale}_{patch * scale}"] = fine
            if units:
                handle.attrs["units"] = "m"
    return Path(root)


@pytest.fixture
def data_dir(tmp_path):
    return write_patches(tmp_path / "data")


def tiny_values(root, folder, **sections):
    """Values of a configuration that trains in a second or two."""
    values = {
        "model": {"features": 4, "num_blocks": 1, "residual_over": "bicubic"},
        "data": {"root_dir": str(root), "patch_size": 8, "batch_size": 4, "num_workers": 1},
        "optimizer": {"learning_rate": 1e-3, "epochs": 2},
        "summary": {"summary_dir": str(folder), "log_every": 1, "save_checkpoint_epochs": 1},
        "train": {"seed": 3},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return values


@pytest.fixture
def tiny(data_dir, tmp_path):
    """Make a small configuration; sections given go before the defaults."""

    def make(folder="run", **sections):
        return from_mapping(tiny_values(data_dir, tmp_path / folder, **sections))

    return make


@pytest.fixture
def tiny_file(data_dir, tmp_path):
    """Write a small configuration to a YAML file."""

    def make(folder="run", **sections):
        path = tmp_path / f"{folder}.yaml"
        path.write_text(json.dumps(tiny_values(data_dir, tmp_path / folder, **sections)))  # JSON is YAML
        return path

    return make


def run_cli(*arguments, check=None, timeout=300, **options):
    """Run the command line in a process of its own; ``check`` is the expected exit code."""
    words = [sys.executable, "-m", "earthsr", *map(str, arguments)]
    environment = {**os.environ, **options.pop("env", {})}
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment, **options)
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def call_cli(*arguments, check=None, cwd=None):
    """Run the command line in this process, which is faster; the result looks like a finished process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if cwd is not None:
            stack.enter_context(contextlib.chdir(cwd))
        code = main([str(word) for word in arguments])
    # As it was before a command set it up: other tests of this process look at what is logged.
    logger = logging.getLogger("earthsr")
    logger.handlers.clear()
    logger.propagate = True
    if check is not None:
        assert code == check, f"exit {code}\n{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


# Land use: a synthetic world of a few tiles, and a configuration that learns it in a second.


def small_world(root, **options):
    """Write a small synthetic world, 21 tiles of 16 cells to train on, six years, the last two held out.

    ``options`` are those of ``write_sample_landuse`` and of ``WorldSpec``; returns the folder.
    """
    size = {"rows": 48, "columns": 256, "years": tuple(range(1990, 1996)), "seed": 3}
    of_world = {field.name for field in dataclasses.fields(WorldSpec)}
    spec = WorldSpec(**{**size, **{key: value for key, value in options.items() if key in of_world}})
    rest = {key: value for key, value in options.items() if key not in of_world}
    write_sample_landuse(root, spec, **{"tile_size": 16, "held_out_last": 2, **rest})
    return Path(root)


@pytest.fixture(scope="session")
def landuse_dir(tmp_path_factory):
    """A small world; only read."""
    return small_world(tmp_path_factory.mktemp("landuse"))


@pytest.fixture
def landuse_copy(landuse_dir, tmp_path):
    """The same data, to be damaged."""
    return Path(shutil.copytree(landuse_dir, tmp_path / "data"))


def landuse_values(root, folder, **sections):
    """Values of a configuration that trains on a small world in a second."""
    values = {
        "model": {"name": "unet", "coarse_channels": 7, "static_channels": 5, "classes": 7, "width": 4, "depth": 2},
        "data": {"root_dir": str(root), "patch_size": 16, "batch_size": 8, "num_workers": 1},
        "optimizer": {"learning_rate": 1e-2, "epochs": 1},
        "summary": {"summary_dir": str(folder), "log_every": 1, "save_checkpoint_epochs": 1},
        "train": {"seed": 3},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return values


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome on the PATH")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield started
        started.close()


@contextlib.contextmanager
def watched(browser, width=1200, height=800, scheme="light"):
    """A tab of a browser; afterwards nothing may have gone wrong in it, and nothing been asked of a network."""
    view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    wrong = []
    view.on("console", lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    yield view
    view.close()
    assert wrong == []

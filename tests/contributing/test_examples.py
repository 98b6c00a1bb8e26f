"""The examples of CONTRIBUTING.md do what the page says they do."""

import importlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

import earthsr
from earthsr.backend import available_backends
from earthsr.dem.predict.rasters import predict_raster
from earthsr.errors import BackendError, DataError, InputError
from earthsr.geo import Georeference, Window, open_sink, open_source, same_crs
from earthsr.geo.readers import SOURCES, Format
from earthsr.geo.writers import SINKS
from earthsr.models import DemSRNetSpec, UNetSpec, initial_weights
from earthsr.models.objective import Precision
from tests.conftest import call_cli, installed
from tests.contributing.blocks import DOCUMENT, NETWORK, PLUG_IN, apply_diff, blocks, run_there
from tests.contributing.cases import MODEL, WGS84, write_grid
from tests.reference.demsrnet import forward

BACKEND_PACKAGES = ("earthsr_torch", "earthsr_mindspore")
needs_torch = pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
needs_mindspore = pytest.mark.skipif(not installed("mindspore"), reason="backend mindspore is not installed")


# A backend


@pytest.fixture
def numpy_backend(branch, monkeypatch):
    """The plug-in, found as an installed one is: by the metadata that its setup.py wrote."""
    monkeypatch.syspath_prepend(branch / PLUG_IN)
    available_backends.cache_clear()
    yield available_backends()["numpy"]()
    monkeypatch.undo()
    available_backends.cache_clear()
    sys.modules.pop("earthsr_numpy", None)


VARIANTS = [
    {},
    {"global_skip": "input", "resize": "asymmetric", "residual_scale": 0.1},
    {"bias": True, "kernel_size": 5, "residual_over": "bilinear"},
    {"residual_over": "conservative", "in_channels": 2, "out_channels": 2},
    {"num_blocks": 0, "residual_over": "bicubic", "kernel_size": 1},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant) or "paper")
def test_the_numpy_backend_equals_the_float64_reference(numpy_backend, variant):
    spec = DemSRNetSpec(**{"features": 6, "num_blocks": 2, "scale": 3, **variant})
    weights = initial_weights(spec, 1, keep_zeros=False)
    x = np.random.default_rng(0).normal(size=(2, spec.in_channels, 7, 9)).astype(np.float32)
    expected = forward(spec, weights, x)
    found = numpy_backend.engine(spec, weights).submit({"elevation": x}).result()
    assert found.dtype == np.float32
    # Sums of at most 150 products in float32, over some six layers: 1e-5 of the largest value leaves room for all.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@needs_torch
def test_the_numpy_backend_agrees_with_pytorch_on_the_network_of_the_demo(numpy_backend, demo):
    metres = np.random.default_rng(0).normal(500, 100, (1, 1, 16, 16)).astype(np.float32)
    models = [earthsr.from_pretrained(demo, backend=name) for name in ("numpy", "torch")]
    assert type(models[0].backend) is type(numpy_backend)
    layers = [model.engine.activations({"elevation": (metres - 500) / 100}) for model in models]
    assert list(layers[0]) == list(models[0].spec.layers)
    for name, found in layers[0].items():
        # float32 sums of 576 products in another order, 20 layers deep; a wrong edge or registration shows at 1e-2.
        expected = layers[1][name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)
    fine = [model.submit(metres).result() for model in models]
    np.testing.assert_allclose(fine[0], fine[1], rtol=0, atol=2e-5 * np.abs(fine[1] - 500).max())


SMALL = {"features": 2, "num_blocks": 1, "scale": 2}
REFUSED = [
    (DemSRNetSpec(**SMALL, upsampler="pixel_shuffle"), {}, "neither pixel_shuffle"),
    (DemSRNetSpec(**SMALL, residual_over="bicubic", local_mean=1), {}, "nor local_mean"),
    (UNetSpec(coarse_channels=2, static_channels=1, classes=2, width=2, depth=1), {}, "no network of kind 'unet'"),
    (DemSRNetSpec(**SMALL), {"device": "gpu:1"}, "use --device cpu"),
    (DemSRNetSpec(**SMALL), {"precision": Precision("O2")}, "not in O2"),
    (DemSRNetSpec(**SMALL), {"graph": True}, "predicts only"),
    (DemSRNetSpec(**SMALL), {"distribute": True}, "predicts only"),
]


@pytest.mark.parametrize(("spec", "options", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_the_numpy_backend_says_what_it_does_not_do(numpy_backend, spec, options, words):
    with pytest.raises(BackendError, match=words):
        numpy_backend.engine(spec, initial_weights(spec, 0), **options)


def test_the_numpy_backend_refuses_to_train(numpy_backend, tiny):
    spec = DemSRNetSpec(**SMALL)
    with pytest.raises(BackendError, match="predicts only"):
        numpy_backend.training_engine(spec, initial_weights(spec, 0), device="cpu:0")
    config = tiny(model={"features": 2})
    with pytest.raises(BackendError, match="predicts only"):
        earthsr.train(config, backend="numpy")


@pytest.mark.slow
def test_the_command_line_finds_the_numpy_backend_and_the_format(branch, checkpoint, tmp_path):
    write_grid(tmp_path / "dem.asc")
    words = [
        "-m",
        "earthsr",
        "predict",
        checkpoint,
        "dem.asc",
        "fine.asc",
        "--units",
        "m",
        "--backend",
        "numpy",
        "--json",
    ]
    told = json.loads(run_there(branch, words, tmp_path).stdout)
    assert told["output_shape"] == [12 * 5, 14 * 5]
    assert (tmp_path / "fine.asc").is_file()


@pytest.mark.slow
def test_the_doctor_lists_the_numpy_backend_and_why_it_does_not_train(branch, tmp_path):
    told = json.loads(run_there(branch, ["-m", "earthsr", "doctor", "--json"], tmp_path).stdout)
    found = told["backends"]["numpy"]
    assert found["version"] == np.__version__
    assert "predicts only" in found["not supported"]["training"]
    assert set(told["backends"]) >= {"numpy", "torch", "mindspore"}


# A raster format


@pytest.fixture
def ascii_grid(branch, monkeypatch):
    """The format, in the tables of this process."""
    name = "earthsr.geo.ascii_grid"
    spec = importlib.util.spec_from_file_location(name, branch / f"{name.replace('.', '/')}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(SOURCES, "ASCII grid", Format(module.is_ascii_grid, module.open_ascii_grid))
    monkeypatch.setitem(SINKS, ".asc", module.AsciiGridSink)
    return module


@pytest.mark.parametrize("header", [("xllcorner -84.5", "yllcorner 36.25"), ("XLLCENTER -84.375", "YLLCENTER 36.375")])
def test_an_ascii_grid_is_read_with_its_place(ascii_grid, tmp_path, header):
    expected = write_grid(tmp_path / "dem.asc", header)
    source = open_source(tmp_path / "dem.asc", units="m")
    here = source.georeference
    assert here.bounds == (-84.5, 36.25, -81.0, 39.25)
    assert (here.rows, here.columns, here.geographic, here.nodata) == (12, 14, True, -32768)
    np.testing.assert_array_equal(source.read(Window(2, 3, 5, 6)), expected[2:7, 3:9])


def test_an_ascii_grid_is_predicted_into_another_in_place(ascii_grid, numpy_backend, checkpoint, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    write_grid(tmp_path / "dem.asc")
    model = earthsr.from_pretrained(checkpoint, backend="numpy")
    predict_raster(model, tmp_path / "dem.asc", tmp_path / "fine.asc", units="m")
    predict_raster(model, tmp_path / "dem.asc", tmp_path / "fine.tif", units="m")
    found, before = (open_source(tmp_path / name, units="m").georeference for name in ("fine.asc", "dem.asc"))
    # Exactly: all of these numbers are sums of powers of two, but the cell, which is written with all its digits.
    assert found.transform == before.refined(5).transform
    assert same_crs(found.crs_wkt, before.crs_wkt)
    with rasterio.open(tmp_path / "fine.asc") as grid, rasterio.open(tmp_path / "fine.tif") as tif:
        assert grid.driver == "AAIGrid"
        assert grid.crs == tif.crs
        assert grid.shape == tif.shape == (60, 70)
        np.testing.assert_allclose(grid.transform, tif.transform, rtol=1e-12)  # GDAL's own arithmetic on the header
        np.testing.assert_array_equal(grid.read(1, masked=True), tif.read(1, masked=True))
        assert np.ma.count_masked(grid.read(1, masked=True)) == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dem.asc",
        "dem.prj",
        "fine.asc",
        "fine.prj",
        "fine.tif",
    ]


def test_predict_on_the_command_line_takes_the_format(ascii_grid, numpy_backend, checkpoint, tmp_path):
    write_grid(tmp_path / "dem.asc")
    words = ("predict", checkpoint, tmp_path / "dem.asc", tmp_path / "fine.asc", "--units", "m", "--backend", "numpy")
    assert call_cli(*words).returncode == 0
    again = call_cli(*words)
    assert again.returncode == 2
    assert "is there already" in again.stderr


DAMAGE = [
    (lambda path: path.with_suffix(".prj").unlink(), "has no CRS; write it as WKT to dem.prj"),
    (lambda path: path.write_text(path.read_text()[:-20]), "no whole ASCII grid"),
    (lambda path: path.write_text(path.read_text().replace("nrows", "rows")), "no whole ASCII grid"),
    (lambda path: path.write_text(path.read_text().replace("yllcorner", "y")), "no whole ASCII grid"),
    (lambda path: path.with_suffix(".prj").write_text("moon"), "CRS 'moon' is not understood"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=[words for _, words in DAMAGE])
def test_a_damaged_ascii_grid_is_refused_in_one_line(ascii_grid, tmp_path, damage, words):
    write_grid(tmp_path / "dem.asc")
    damage(tmp_path / "dem.asc")
    with pytest.raises(DataError, match=words) as caught:
        open_source(tmp_path / "dem.asc")
    assert "\n" not in str(caught.value)


def test_an_ascii_grid_takes_blocks_in_any_order_and_keeps_every_bit(ascii_grid, tmp_path):
    place = Georeference(100.0, 50.0, 1 / 1200, 1 / 1200, 5, 7, crs_wkt=WGS84)
    # From 1000 to 1024 two singles may agree in eight digits.
    values = np.random.default_rng(2).uniform(1000, 1024, (5, 7)).astype(np.float32)
    values[4, 0] = np.nan
    sink = open_sink(tmp_path / "out.asc", place)
    for row, column in ((3, 4), (0, 0), (3, 0), (0, 4)):
        sink.write(row, column, values[None, row : row + 3, column : column + 4])
    assert not (tmp_path / "out.asc").exists()
    sink.finish({})
    found = open_source(tmp_path / "out.asc", units="m")
    np.testing.assert_array_equal(found.read(Window(0, 0, 5, 7)), values)
    here = found.georeference
    assert (here.west, here.cell_x, here.cell_y, here.nodata) == (100.0, 1 / 1200, 1 / 1200, -9999)
    # The format names the southern edge: going there and back in doubles costs an ulp of 50 degrees at most.
    assert abs(here.north - 50) <= np.spacing(50.0)
    sink = open_sink(tmp_path / "other.asc", place)
    sink.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.asc", "out.prj"]


def test_an_ascii_grid_has_square_cells_and_one_band(ascii_grid, tmp_path):
    place = Georeference(0.0, 2.0, 0.5, 0.25, 4, 4, "x")
    for grid, bands in ((place, ("elevation",)), (place.refined(1), ("elevation", "spread"))):
        with pytest.raises(InputError, match="one band of square cells"):
            open_sink(tmp_path / "out.asc", grid, bands)
    assert not list(tmp_path.iterdir())


# A model


def logged(run):
    """Losses by step, scores by epoch."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if "valid" not in r], [r["valid"] for r in records if "valid" in r]


@pytest.mark.slow
@needs_torch
def test_the_model_learns_from_the_sample_terrain(branch, tmp_path):
    said = run_there(branch, [branch / "try_srcnn.py"], tmp_path).stdout
    run = tmp_path / "runs" / "srcnn"
    losses, scores = logged(run)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    # It starts as the bicubic surface, so that any learning at all shows against it.
    assert scores[-1]["rmse"] < scores[-1]["bicubic_rmse"]
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())["scores"]
    assert f"model {metrics['model']['rmse']:.3f} m" in said
    assert metrics["model"]["rmse"] < metrics["bicubic"]["rmse"]
    told = json.loads(run_there(branch, ["-m", "earthsr", "info", run, "--json"], tmp_path).stdout)
    assert "srcnn" in json.dumps(told)
    words = ["-m", "earthsr", "evaluate", run, "--backend", "torch", "--workers", "2", "--output", "shared", "--json"]
    shared = json.loads(run_there(branch, words, tmp_path).stdout)["scores"]["model"]
    # A worker computes with one thread, and sums of a convolution may be added up in another order.
    assert shared["rmse"] == pytest.approx(metrics["model"]["rmse"], rel=1e-6)
    words = ["-m", "earthsr", "train", run / "config.yaml", "--set", "model.features=5000"]
    assert "model.features" in run_there(branch, words, tmp_path, check=2).stderr
    words = ["-m", "earthsr", "train", run / "config.yaml", "--resume", "--set", "optimizer.epochs=4", "--json"]
    assert json.loads(run_there(branch, words, tmp_path).stdout)["epochs"] == 4
    assert logged(run)[0][: len(losses)] == losses
    write_grid(tmp_path / "dem.asc")
    words = ["-m", "earthsr", "predict", run, "dem.asc", "fine.tif", "--units", "m", "--backend", "torch", "--json"]
    assert json.loads(run_there(branch, words, tmp_path).stdout)["output_shape"] == [60, 70]


@pytest.mark.slow
@needs_torch
def test_the_model_is_what_its_spec_says(branch, tmp_path):
    run_there(branch, ["-c", MODEL], tmp_path)


@pytest.mark.slow
@needs_torch
@needs_mindspore
def test_both_backends_compute_the_same_model(branch, tmp_path):
    values = {"model": {"name": "srcnn", "features": 4, "scale": 3}, "data": {"patch_size": 8, "batch_size": 2}}
    (tmp_path / "srcnn.yaml").write_text(json.dumps(values))  # JSON is YAML
    words = ["srcnn.yaml", "--backends", "torch", "mindspore", "--synthetic", "--steps", "2", "--no-noise"]
    # Exit code 0: layers, gradients, moments and weights are within the tolerances of docs/parity.md.
    said = run_there(branch, ["-m", "earthsr", "parity", *words], tmp_path).stdout
    assert "arrays agree" in said


# The page


def test_every_python_block_is_run_by_a_test():
    """What lies in the sources or the plug-in is imported by the tests above; each script has a test that names it."""
    titles = [each.title for each in blocks("python")]
    assert len(titles) == len(set(titles)) > 0
    assert "" not in titles
    tests = {name: value for name, value in globals().items() if name.startswith("test_")}
    assert set(titles) == set(RUN_BY)
    for name in RUN_BY.values():
        assert name in tests, name


def test_the_examples_keep_the_style_of_the_house(branch):
    pytest.importorskip("ruff")
    files = [each.title for each in (*blocks("python"), *blocks("diff"))]
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        ruff = [sys.executable, "-m", "ruff", *words, *files]
        done = subprocess.run(ruff, cwd=branch, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_examples_keep_the_floors_and_both_backends_alike(branch, tmp_path):
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    assert "0 broken" in run_there(branch, ["-c", code], branch).stdout
    names = [{path.name for path in (branch / "backends" / name).glob("*.py")} for name in BACKEND_PACKAGES]
    assert names[0] == names[1]


def test_a_stale_diff_is_noticed():
    assert apply_diff("a\nb\nc\n", " a\n-b\n+B\n", "x") == "a\nB\nc\n"
    assert apply_diff("a\nb\nc\n", "-a\n@@\n+x\n c\n", "x") == "b\nx\nc\n"
    for stale in (" b\n+x\n a\n", "-B\n", " b\n@@\n-B\n"):
        with pytest.raises(AssertionError, match="stand there 0 times"):
            apply_diff("a\nb\nc\n", stale, "x")


def test_every_block_with_a_title_or_a_language_is_known():
    """A fence that the reader of blocks does not see would be code that nobody runs."""
    fences = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(blocks())
    assert {each.language for each in blocks()} == {"python", "diff", "sh"}


RUN_BY = {
    f"{PLUG_IN}/earthsr_numpy/__init__.py": "test_the_numpy_backend_equals_the_float64_reference",
    f"{PLUG_IN}/setup.py": "test_the_command_line_finds_the_numpy_backend_and_the_format",
    f"{NETWORK}/earthsr_srcnn/__init__.py": "test_the_model_is_what_its_spec_says",
    f"{NETWORK}/earthsr_srcnn/on_torch.py": "test_the_model_learns_from_the_sample_terrain",
    f"{NETWORK}/earthsr_srcnn/on_mindspore.py": "test_both_backends_compute_the_same_model",
    f"{NETWORK}/setup.py": "test_the_model_learns_from_the_sample_terrain",
    "try_srcnn.py": "test_the_model_learns_from_the_sample_terrain",
    "earthsr/geo/ascii_grid.py": "test_an_ascii_grid_is_predicted_into_another_in_place",
}
"""Title of each Python block, and the test that runs it."""

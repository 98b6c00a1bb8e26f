"""What `import earthsr` offers: every verb, typed, found by type checkers and editors where it is installed."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_overloads

import numpy as np
import pytest

import earthsr
from earthsr.errors import InputError
from tests.conftest import REPOSITORY

VERBS = (
    "train",
    "evaluate",
    "predict",
    "reconstruct",
    "prepare_dem",
    "prepare_landuse",
    "export",
    "convert",
    "plot",
    "from_pretrained",
)


def test_every_public_name_is_there():
    for name in earthsr.__all__:
        assert getattr(earthsr, name) is not None
    assert set(earthsr.__all__) <= set(dir(earthsr))
    assert set(VERBS) <= set(earthsr.__all__)


def test_a_name_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"from_pretraind.*'from_pretrained'"):
        earthsr.from_pretraind  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'xyz'$"):
        earthsr.xyz  # noqa: B018


def test_type_checkers_read_the_names_that_python_finds():
    tree = ast.parse((REPOSITORY / "earthsr" / "__init__.py").read_text("utf-8"))
    read = {
        (name.asname, node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    read = {(name, room) for name, room in read if room.startswith("earthsr")}
    assert read == set(earthsr._PUBLIC.items())


def test_verbs_say_the_types_of_all_that_they_take():
    for name in VERBS:
        signature = inspect.signature(getattr(earthsr, name))
        for parameter in signature.parameters.values():
            assert parameter.annotation not in (inspect.Parameter.empty, "Any"), f"{name}: {parameter}"
            assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), f"{name}: {parameter}"
    for overload in [earthsr.predict, *get_overloads(earthsr.predict)]:
        signature = inspect.signature(overload)
        assert not re.search(r"\bAny\b", str(signature))
    assert (
        len(get_overloads(earthsr.predict)) == 5
    )  # arrays, DataArrays, ensembles of them, files, and these into memory


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (["field.tif"], {"overwrite": True}, r"overwrite: .*target"),
        ([np.zeros((4, 4))], {"mode": "exact", "tile": 4}, r"mode, tile: .*DataArray"),
        ([np.zeros((4, 4)), "fine.tif"], {"nodata": 0.0}, r"nodata, target: .*files"),
        (["field.npz", "fine.npz"], {"conserve": True, "units": "m"}, r"conserve, units: .*arrays"),
    ],
)
def test_options_of_another_kind_of_elevation_are_refused(any_backend, arguments, options, words):
    model = earthsr.from_pretrained("demo-dem", backend=any_backend)
    with pytest.raises(InputError, match=words):
        earthsr.predict(model, *arguments, **options)


def test_an_ensemble_needs_a_raster(any_backend):
    model = earthsr.from_pretrained("demo-dem", backend=any_backend)
    with pytest.raises(InputError, match=r"2 models.*DataArray or a raster"):
        earthsr.predict([model, model], np.zeros((16, 16), np.float32))


def test_a_file_of_arrays_and_a_raster_are_predicted_to_a_file(any_backend, tmp_path):
    model = earthsr.from_pretrained("demo-dem", backend=any_backend)
    coarse = np.random.default_rng(0).normal(300, 20, (16, 16)).astype(np.float32)
    np.savez(tmp_path / "coarse.npz", elevation=coarse)
    earthsr.predict(model, tmp_path / "coarse.npz", tmp_path / "fine.npz")
    with np.load(tmp_path / "fine.npz") as fine:
        np.testing.assert_allclose(fine["elevation"], earthsr.predict(model, coarse), atol=1e-3)
    xarray = pytest.importorskip("xarray")
    lat, lon = 45 - np.arange(16) / 240, 7 + np.arange(16) / 240
    array = xarray.DataArray(coarse, {"lat": lat, "lon": lon}, ("lat", "lon"), "elevation", {"units": "m"})
    array.to_netcdf(tmp_path / "coarse.nc", engine="h5netcdf")
    done = earthsr.predict(model, tmp_path / "coarse.nc", tmp_path / "fine.nc", mode="exact", conserve=True)
    assert done["output_shape"] == [80, 80]
    assert (tmp_path / "fine.nc").is_file()


# An editable install, as README has it, of a clone called earthsr; scripts lie beside the clone.

RIGHT = """
import numpy as np
import xarray as xr

import earthsr

model = earthsr.from_pretrained("demo-dem", backend="torch")
fine: np.ndarray = earthsr.predict(model, np.zeros((16, 16), np.float32))
named: xr.DataArray = earthsr.predict(model, xr.DataArray(fine), mode="exact")
pair = earthsr.predict([model, model], xr.DataArray(fine))
done = earthsr.predict(model, "coarse.nc", "fine.tif", conserve=True)
done["output"]
name: str = earthsr.train("demo.yaml").best.name
plan = earthsr.DemPlan(patch=16)
earthsr.prepare_dem("patches", ["fine.tif"], plan=plan).counts["train"] + 1


class Own(earthsr.Trainer):
    def get_optimizer(self) -> earthsr.OptimizerSpec:
        return earthsr.OptimizerSpec(name="adamw")
"""
#: Lines that mypy refuses, and the code that it gives.
WRONG = (
    ("earthsr.from_pretraind('x')", "attr-defined"),
    ("earthsr.from_pretrained(3)", "arg-type"),
    ("earthsr.predict(model, {'a': 1})", "call-overload"),
    ("earthsr.predict(model, 'coarse.nc', 'fine.tif', modus='exact')", "call-overload"),
    ("earthsr.train('demo.yaml', resume='yes')", "arg-type"),
    ("earthsr.evaluate('run', split=1)", "arg-type"),
    ("earthsr.train('demo.yaml').bset", "attr-defined"),
)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Folder with a clone called ``earthsr``, installed by README's line into a virtual environment, and its Python."""
    parent = tmp_path_factory.mktemp("parent")
    clone = parent / "earthsr"
    for name in ("earthsr", "backends", "tools/packaging"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt", "MANIFEST.in"):
        shutil.copy(REPOSITORY / name, clone / name)
    line = next(
        line for line in (clone / "README.md").read_text("utf-8").splitlines() if line.startswith("pip install")
    )
    words = shlex.split(line, comments=True)[2:]
    assert "--editable" in words
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", parent / "venv"], check=True)
    python = parent / "venv" / "bin" / "python"
    # What earthsr needs comes from where the tests run; but not earthsr, which lies there in a .pth file.
    packages = Path(np.__file__).parents[1]
    place = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], **TEXT, check=True)
    (Path(place.stdout.strip()) / "others.pth").write_text(f"{packages}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, *offline, *words], cwd=clone, **TEXT)
    assert done.returncode == 0, done.stderr
    return parent, python


INSIDE = [
    "PIL",
    "click",
    "dask",
    "distributed",
    "fsspec",
    "h5py",
    "matplotlib",
    "mlflow",
    "pandas",
    "rasterio",
    "scipy",
    "tensorboard",
    "torch",
    "tqdm",
    "typer",
    "zarr",
]
TEXT = dict(capture_output=True, text=True)


@pytest.mark.slow
def test_a_model_says_what_it_is_takes_arrays_and_is_saved_whole(any_backend, tmp_path):
    model = earthsr.from_pretrained("demo-dem", backend=any_backend)
    assert re.search(rf"demsrnet, 5 x, 240,192 parameters, {any_backend} on auto, from .*demo-dem", repr(model))
    field = np.random.default_rng(0).normal(400, 50, (16, 16)).astype(np.float32)
    fine = model(field)
    assert fine.shape == (80, 80)
    np.testing.assert_array_equal(model(field[None])[0], fine)
    np.testing.assert_array_equal(model(field[None, None])[0, 0], fine)
    with_void = field.copy()
    with_void[3, 5] = np.nan
    void = np.isnan(model(with_void))
    assert void[15:20, 25:30].all(), "nothing is invented where there is nothing"
    assert void.sum() == 25
    with pytest.raises(InputError, match=r"shape \(16,\), expected"):
        model(field[0])
    assert model.save(tmp_path / "kept") == tmp_path / "kept" / "weights.safetensors"
    with pytest.raises(InputError, match="--overwrite"):
        model.save(tmp_path / "kept")
    again = earthsr.Model.from_checkpoint(tmp_path / "kept", backend=any_backend)
    np.testing.assert_array_equal(again(field), fine)


def test_a_file_without_a_target_is_predicted_into_memory(any_backend, tmp_path, monkeypatch):
    rasterio, xarray = pytest.importorskip("rasterio"), pytest.importorskip("xarray")
    monkeypatch.setenv("EARTHSR_BACKEND", any_backend)
    field = np.random.default_rng(0).normal(400, 50, (16, 20)).astype(np.float32)
    place = rasterio.transform.from_origin(8, 47, 1 / 240, 1 / 240)
    size = {"height": 16, "width": 20, "count": 1, "dtype": "float32", "crs": "EPSG:4326", "transform": place}
    with rasterio.open(tmp_path / "dem.tif", "w", driver="GTiff", **size) as file:
        file.write(field, 1)
        file.units = ("m",)
    fine = earthsr.predict("demo-dem", tmp_path / "dem.tif")
    assert isinstance(fine, xarray.DataArray)
    assert (fine.shape, fine.attrs["units"]) == ((80, 100), "m")
    earthsr.predict("demo-dem", tmp_path / "dem.tif", tmp_path / "fine.tif")
    with rasterio.open(tmp_path / "fine.tif") as file:
        np.testing.assert_array_equal(file.read(1), fine.values)
    np.savez(tmp_path / "dem.npz", elevation=field)
    np.testing.assert_array_equal(earthsr.predict("demo-dem", tmp_path / "dem.npz"), earthsr.predict("demo-dem", field))
    with pytest.raises(InputError, match="overwrite: with a target"):
        earthsr.predict("demo-dem", tmp_path / "dem.tif", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dem.npz", "dem.tif", "fine.tif"]


@pytest.mark.slow
def test_scripts_beside_a_clone_called_earthsr_find_the_package(beside):
    parent, python = beside
    code = "import earthsr, earthsr_torch, earthsr_onnx; print(earthsr.__file__, earthsr.predict.__name__)"
    (parent / "script.py").write_text(code)
    for words in (["script.py"], ["-c", code]):
        done = subprocess.run([python, *words], cwd=parent, **TEXT)
        assert done.stdout.split() == [str(parent / "earthsr" / "earthsr" / "__init__.py"), "predict"], done.stderr
    done = subprocess.run([parent / "venv" / "bin" / "earthsr", "--version"], cwd=parent, **TEXT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_mypy_knows_the_names_and_their_types(beside):
    parent, python = beside
    (parent / "right.py").write_text(RIGHT)
    head = "import earthsr\n\nmodel = earthsr.from_pretrained('demo-dem')\n"
    (parent / "wrong.py").write_text(head + "".join(f"{line}\n" for line, _ in WRONG))
    # Types of what earthsr uses inside are not in question, and would take most of the time.
    (parent / "mypy.ini").write_text(
        "[mypy]\n" + "".join(f"[mypy-{room}.*]\nfollow_imports = skip\n" for room in INSIDE)
    )
    done = subprocess.run([python, "-m", "mypy", "right.py", "wrong.py"], cwd=parent, **TEXT)
    errors = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    expected = [("wrong.py", str(number), code) for number, (_, code) in enumerate(WRONG, start=4)]
    assert list(dict.fromkeys(errors)) == expected, done.stdout + done.stderr


@pytest.mark.slow
def test_editors_complete_names_and_arguments(beside):
    jedi = pytest.importorskip("jedi")
    parent, python = beside
    environment = jedi.create_environment(python, safe=False)

    def script(code):
        project = jedi.Project(parent)
        return jedi.Script(
            f"import earthsr\n{code}", path=parent / "edited.py", environment=environment, project=project
        )

    for name in VERBS:
        assert name in [completion.name for completion in script(f"earthsr.{name[:-2]}").complete()]
    signature = script("earthsr.evaluate(").get_signatures()[0]
    assert signature.name == "evaluate"
    assert [parameter.name for parameter in signature.params][:3] == ["checkpoint", "data", "split"]
    shown = {parameter.name for each in script("earthsr.predict(").get_signatures() for parameter in each.params}
    assert {"model", "elevation", "target", "conserve", "nodata"} <= shown

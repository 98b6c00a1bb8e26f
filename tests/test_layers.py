"""The layering rules of the design, each held by a check, and each check shown to fail when one breaks it."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import REPOSITORY

PYPROJECT = REPOSITORY / "pyproject.toml"
FRAMEWORKS = {"torch", "mindspore", "onnx", "onnxruntime"}
BACKEND_PACKAGES = {"earthsr_torch", "earthsr_mindspore", "earthsr_onnx"}


BREACHES = [
    ("earthsr/dem/split.py", "import earthsr.landuse.classes", "floors"),
    ("earthsr/landuse/split.py", "import earthsr.dem.split", "floors"),
    ("earthsr/inference/evaluate.py", "import earthsr.dem.split", "floors"),
    ("earthsr/tasks/base.py", "import earthsr.landuse.classes", "floors"),
    ("earthsr/config/load.py", "import earthsr.data", "floors"),
    ("earthsr/models/spec.py", "from earthsr.evaluation import statistics", "floors"),
    ("earthsr/training/trainer.py", "import earthsr.inference", "floors"),
    ("earthsr/data/batch.py", "from earthsr.backend import Model", "floors"),
    ("earthsr/store/whole.py", "import earthsr.config", "floors"),
    ("earthsr/dem/predict/arrays.py", "import earthsr.cli", "floors"),
    ("earthsr/training/trainer.py", "import torch", "neutral"),
    ("earthsr/backend/registry.py", "import earthsr_torch", "neutral"),
    ("earthsr/evaluation/figures.py", "def f():\n    import mindspore", "neutral"),
    ("backends/earthsr_torch/engine.py", "import mindspore", "torch-alone"),
    ("backends/earthsr_torch/engine.py", "import earthsr_mindspore", "torch-alone"),
    ("backends/earthsr_mindspore/engine.py", "import torch", "mindspore-alone"),
    ("earthsr/check/export.py", "import onnxruntime", "neutral"),
    ("earthsr/backend/exported.py", "import earthsr_onnx", "neutral"),
    ("backends/earthsr_onnx/engine.py", "import torch", "onnx-alone"),
    ("backends/earthsr_onnx/engine.py", "import earthsr_torch", "onnx-alone"),
    ("backends/earthsr_onnx/engine.py", "import earthsr.check.export", "backends-low"),
    ("earthsr/data/samples.py", "import earthsr.data.batch", "no-circles"),
    ("earthsr/check/info.py", "from earthsr.dem.predict.arrays import predict_array", "task-alone"),
    ("earthsr/check/bench.py", "import earthsr.landuse.task", "task-alone"),
    ("backends/earthsr_torch/engine.py", "import earthsr.training", "backends-low"),
]
"""File, line that is added to it, and the contract (its id in pyproject.toml) that the line breaks."""


@pytest.fixture(scope="module")
def linted(tmp_path_factory):
    """Contracts on a copy of the sources, as it is and with the breaches; see ``import_graph.py``."""
    pytest.importorskip("importlinter")
    folder = tmp_path_factory.mktemp("sources")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "earthsr", folder / "earthsr", ignore=ignore)
    shutil.copytree(REPOSITORY / "backends", folder / "backends", ignore=ignore)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    (folder / "breaches.json").write_text(json.dumps(BREACHES))
    words = [sys.executable, str(REPOSITORY / "tests" / "import_graph.py"), "breaches.json"]
    environment = {"PYTHONPATH": f"{folder}:{folder / 'backends'}", "PATH": ""}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_layers_hold(linted):
    assert linted["kept"] == dict.fromkeys(contracts(), True)


def contracts():
    return [contract["id"] for contract in tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]]


def test_each_contract_is_broken_once():
    assert {contract for _, _, contract in BREACHES} == set(contracts())


@pytest.mark.parametrize("number", range(len(BREACHES)), ids=[f"{b[0]}-{b[1].split()[-1]}" for b in BREACHES])
def test_a_breach_is_noticed(linted, number):
    assert linted["seen"][number], "the linter does not see this import"
    assert linted["noticed"][number]


def imported_names(path):
    """Top-level packages that a file imports, by statement or by name in ``import_module``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0]


@pytest.mark.slow
def test_no_import_by_name_goes_round_the_linter(tmp_path):
    for path in (REPOSITORY / "earthsr").rglob("*.py"):
        assert not (FRAMEWORKS | BACKEND_PACKAGES) & set(imported_names(path)), path
    sly = tmp_path / "sly.py"
    sly.write_text("import importlib\nimportlib.import_module('torch.nn')\n")
    assert "torch" in set(imported_names(sly))


def unpickles(text):
    """Calls and imports that could unpickle."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.split(".")[0] in ("pickle", "dill", "joblib", "shelve"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            # torch.load is safe with weights_only=True, written out where it is called.
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            if (owner, node.func.attr) in (("torch", "load"), ("ms", "load"), ("yaml", "unsafe_load")) and not safe:
                yield f"{owner}.{node.func.attr}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    yield "allow_pickle"


#: mindspore.load reads MindIR, a protocol buffer, after a check that its graph runs no code.
NO_PICKLE = {"backends/earthsr_mindspore/export.py": ["ms.load"]}


def test_nothing_unpickles():
    for folder in ("earthsr", "backends", "tools"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            known = NO_PICKLE.get(str(path.relative_to(REPOSITORY)), [])
            assert list(unpickles(path.read_text())) == known, path
    bad = [
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "torch.load(p, weights_only=x)",
        "np.load(p, allow_pickle=True)",
    ]
    assert all(list(unpickles(text)) for text in bad)
    assert not list(unpickles("torch.load(p, weights_only=True)"))


def test_backend_packages_mirror_each_other():
    torch, mindspore = (REPOSITORY / "backends" / name for name in ("earthsr_torch", "earthsr_mindspore"))
    assert {path.name for path in torch.glob("*.py")} == {path.name for path in mindspore.glob("*.py")}

    def public(path):
        tree = ast.parse(path.read_text())
        return {
            node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_"
        }

    for file in ("networks.py", "demsrnet.py", "unet.py", "objectives.py", "optimizers.py"):
        assert public(torch / file) == public(mindspore / file), file
    assert "export" in public(torch / "export.py") & public(mindspore / "export.py")


def test_importing_the_onnx_backend_loads_no_runtime():
    code = "import sys, earthsr_onnx; print('onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False False", done.stderr


NO_FRAMEWORK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mindspore"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""


def run_without_frameworks(code):
    return subprocess.run([sys.executable, "-c", NO_FRAMEWORK + code], capture_output=True, text=True, timeout=120)


def test_data_metrics_and_plots_work_with_neither_framework(tmp_path):
    code = f"""
import numpy as np
from earthsr.samples.dem import write_sample_dem
write_sample_dem({str(tmp_path)!r}, stride=16)
from earthsr.config import from_mapping
from earthsr.tasks import task_for
config = from_mapping({{"data": {{"root_dir": {str(tmp_path)!r}, "patch_size": 16}}}})
task = task_for(config)
scores = task.score(None, task.dataset("test")).to_dict()["scores"]
from earthsr.evaluation.figures import save, score_bars
save(score_bars(scores), {str(tmp_path / "bars.png")!r})
print(round(scores["bicubic"]["rmse"], 2))
"""
    done = run_without_frameworks(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
    assert (tmp_path / "bars.png").is_file()


def test_with_neither_framework_a_backend_is_asked_for_in_one_line():
    code = """
import importlib.util
found = importlib.util.find_spec
absent = ("torch", "mindspore", "onnxruntime")
importlib.util.find_spec = lambda name, *a: None if name in absent else found(name, *a)
from earthsr.backend import choose_backend
from earthsr.errors import BackendError
for wish in (None, "torch"):
    try:
        choose_backend(wish)
    except BackendError as error:
        print(error)
"""
    done = run_without_frameworks(code)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("no backend is installed; choose")
    assert "pip install 'earthsr[mindspore]'" in lines[0]
    assert lines[1].startswith("backend torch is not installed: pip install 'earthsr[torch]'")


def test_importing_earthsr_and_its_command_line_loads_nothing_heavy():
    code = """
import sys
import earthsr, earthsr.cli.main
heavy = [name for name in ("torch", "mindspore", "numpy", "h5py", "matplotlib", "pydantic") if name in sys.modules]
print(heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr

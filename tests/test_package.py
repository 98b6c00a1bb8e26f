"""What a built package holds: its code, the backends' packages beside it, its metadata; and what other machines run."""

import email
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

from tests.conftest import LONGEST, REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, as ``pip wheel`` without a network builds it; what is built on the way stays out of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    source = folder / "source"
    source.mkdir()
    for name in ("earthsr", "backends", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / name).symlink_to(REPOSITORY / name)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as archive:
        yield archive


def test_it_holds_every_file_of_the_sources(wheel):
    names = set(wheel.namelist())
    sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "earthsr").rglob("*.py")}
    sources |= {str(path.relative_to(REPOSITORY / "backends")) for path in (REPOSITORY / "backends").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    weights = {f"earthsr/pretrained/{path.name}" for path in (REPOSITORY / "earthsr" / "pretrained").glob("demo-*.*")}
    assert len(weights) >= 4
    assert names > weights | {"earthsr/py.typed"}
    assert names > {f"earthsr/evaluation/page/page.{suffix}" for suffix in ("html", "css", "js")}


def test_its_metadata_name_backends_extras_and_licence(wheel):
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "earthsr = earthsr.cli:main" in points
    assert all(f"{name} = earthsr_{name}:" in points for name in ("torch", "mindspore", "onnx"))
    metadata = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"torch", "mindspore", "geo", "dask", "onnx", "export", "bmi", "page", "hub", "logging"}
    extras |= {"tutorials", "docs", "dev"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    needs = metadata.get_all("Requires-Dist")
    core = {re.match(r"[\w-]+", need).group() for need in needs if "extra ==" not in need}
    assert core == {"numpy", "h5py", "hdf5plugin", "PyYAML", "matplotlib", "pydantic", "typer", "tqdm", "safetensors"}
    assert not [need for need in needs if need.startswith("dask") and "geo" in need]


def dry_run(target):
    words = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hooks_before_a_commit_are_the_linters_of_make():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in hooks]
    # Run by another make, a make says which folder it enters and leaves.
    commands = [line for line in dry_run("lint").splitlines() if not line.startswith("make[")]
    assert entries == [line.removesuffix(" .") for line in commands[-len(hooks) :]]


def test_the_workflow_runs_the_two_commands_with_the_python_that_they_need():
    job = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["make"]
    matrix = job["strategy"]["matrix"]
    assert (matrix["target"], matrix["python"]) == (["test", "demo"], ["3.11"])
    assert matrix["include"] == [{"target": "test", "python": version} for version in ("3.12", "3.13")]
    assert all(dry_run(target) for target in matrix["target"])
    (python,) = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python")]
    assert python["python-version"] == "${{ matrix.python }}"
    assert all(list(REPOSITORY.glob(name)) for name in python["cache-dependency-path"].split())


def test_the_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_files_that_tests_begin_with_are_there():
    assert [name for name in LONGEST if not (REPOSITORY / "tests" / name).is_file()] == []

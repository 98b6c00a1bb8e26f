"""tools/journeys.py: what it counts of a tree that is known line by line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.journeys import Walk, size, table

FILES = {
    "earthsr/__init__.py": '"""Nothing."""\n',
    "earthsr/near.py": (
        "from earthsr.far.away import work\n\n\ndef go(values):\n    '''Go.'''\n"
        "    here = sorted(values, key=lambda each: work(each))\n    return here  # as it is\n"
    ),
    "earthsr/far/__init__.py": "",
    "earthsr/far/away.py": (
        "def work(value):\n    return [found for found in range(value)]\n\n\ndef idle():\n    pass\n"
    ),
    "backends/one.py": "x = 1\n",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_calls_are_counted_with_those_through_libraries_and_imports_are_not(tree):
    scope = {}
    for name in ("earthsr/far/away.py", "earthsr/near.py"):
        text = FILES[name].replace("from earthsr.far.away import work\n", "")
        exec(compile(text, str(tree / name), "exec"), scope)
    walk = Walk(tree)
    with walk.walking():
        exec(compile("class Made:\n    pass\n", str(tree / "earthsr/far/other.py"), "exec"), {})
        scope["go"]([2, 1])
    # go and work; the lambda, called by sorted, belongs to go's file, and the class body to an import.
    assert walk.counts() == {"files": 2, "functions": 2, "changes of room": 1, "changes of folder": 1}


def test_the_size_of_a_tree(tree):
    numbers = size(tree)
    assert (numbers["earthsr: files"], numbers["earthsr: folders"], numbers["backends: files"]) == (4, 2, 1)
    assert (numbers["earthsr: lines"], numbers["earthsr: lines of code"]) == (14, 8)
    bound = {name: numbers[f"earthsr: bound to {name}"] for name in ("found", "said", "each", "here")}
    assert bound == {"found": 1, "said": 0, "each": 1, "here": 1}


def test_trees_stand_side_by_side():
    lines = table({"a": {"files": 10, "old": 1}, "b": {"files": 9}}).splitlines()
    assert [line.split() for line in lines] == [["a", "b"], ["files", "10", "9"], ["old", "1", "-"]]


def test_a_folder_without_the_package_is_refused(tmp_path):
    words = [sys.executable, str(REPOSITORY / "tools" / "journeys.py"), "--tree", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{Path(tmp_path)}: holds no earthsr" in done.stderr


@pytest.mark.slow
def test_this_tree_is_walked():
    words = [sys.executable, str(REPOSITORY / "tools" / "journeys.py"), "--journey", "predict"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    numbers = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert 10 < int(numbers["predict: files"]) < int(numbers["earthsr: files"])

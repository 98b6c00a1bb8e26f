"""The code of CONTRIBUTING.md: its blocks by title, and a copy of the sources in which they lie where they belong."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "CONTRIBUTING.md"
PLUG_IN = "earthsr-numpy"
NETWORK = "earthsr-srcnn"
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    title: str
    text: str


def blocks(language=None):
    """Blocks in the order of the page."""
    found = [Block(*match) for match in _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))]
    return [block for block in found if language in (None, block.language)]


def apply_diff(text, diff, where):
    """Make the changes of a diff without line numbers; ``@@`` parts its places, each of which has to be there once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " +-" for line in lines), f"{where}: {hunk}"
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"{where}: these lines stand there {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_branch(folder):
    """Copy the sources, and do there what the page says."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("earthsr", "backends"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for each in blocks("python"):
        write(folder / each.title, each.text)
    for each in blocks("diff"):
        path = folder / each.title
        path.write_text(apply_diff(path.read_text(encoding="utf-8"), each.text, each.title), encoding="utf-8")
    # What pip does with plug-ins, without a network: their metadata, entry points included, beside their packages.
    words = [sys.executable, "setup.py", "--quiet", "egg_info"]
    for name in (PLUG_IN, NETWORK):
        subprocess.run(words, cwd=folder / name, check=True, capture_output=True, timeout=60)
    return folder


def run_there(branch, words, cwd, check=0):
    """Run Python in a process of its own that sees the branch before anything installed."""
    path = os.pathsep.join(str(branch / name) for name in (".", "backends", PLUG_IN, NETWORK))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done

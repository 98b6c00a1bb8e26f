"""How far a reader has to walk: files, functions and changes of room of three journeys through the code.

    python tools/journeys.py                         # the tree that this script lies in
    python tools/journeys.py --tree OLD --tree .     # two trees side by side

The journeys are command lines that any tree of earthsr knows: a training of one epoch on the sample terrain
(``train``), a small GeoTIFF enlarged by the model that travels with the package (``predict``), and six years of a
synthetic world (``reconstruct``). Each runs in a process of its own that sees the tree before anything that is
installed, with PyTorch on the processor and a profiler (``sys.setprofile``); data are made before counting begins.
Counted is what runs in ``earthsr`` and ``backends``:

- *files* and *functions* in which a line ran (imports and class bodies are not counted);
- *changes of room* and *of folder*: distinct pairs of caller and called that lie in two files, or in two folders;
  libraries in between are looked through.

Beside them stand the size of each tree, and how often a local name says the grammar of its line (``found``, ``said``,
``each``, ``here``) and not what the value is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import tokenize
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).resolve().parent.parent
JOURNEYS = ("train", "predict", "reconstruct")
IDLE_NAMES = ("found", "said", "each", "here")
SOURCES = ("earthsr", "backends")


class Walk:
    """What a profiler saw of one tree."""

    def __init__(self, tree: Path) -> None:
        self.roots = [str(tree / name) + os.sep for name in SOURCES]
        self.codes: set[CodeType] = set()
        self.pairs: set[tuple[str, str]] = set()
        self._own: dict[str, bool] = {}

    def owns(self, path: str) -> bool:
        """Whether a file belongs to the tree."""
        if path not in self._own:
            self._own[path] = any(path.startswith(root) for root in self.roots)
        return self._own[path]

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call; as :func:`sys.setprofile` calls it."""
        code = frame.f_code
        if event != "call" or not self.owns(code.co_filename) or _is_import(code):
            return
        self.codes.add(code)
        caller = frame.f_back
        while caller is not None and (not self.owns(caller.f_code.co_filename) or _is_import(caller.f_code)):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != code.co_filename:
            self.pairs.add((caller.f_code.co_filename, code.co_filename))

    @contextlib.contextmanager
    def walking(self):
        """Count what is called inside, in threads that begin there too."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def counts(self) -> dict[str, int]:
        """Numbers of the table."""
        folders = {(str(Path(a).parent), str(Path(b).parent)) for a, b in self.pairs}
        return {
            "files": len({code.co_filename for code in self.codes}),
            "functions": sum(not code.co_name.startswith("<") for code in self.codes),
            "changes of room": len(self.pairs),
            "changes of folder": sum(a != b for a, b in folders),
        }


def _is_import(code: CodeType) -> bool:
    # Bodies of modules and classes: they have no optimised locals.
    return not code.co_flags & 0x1


def _hills(path: Path) -> None:
    import numpy as np
    import rasterio

    rows, columns = np.mgrid[0:48, 0:64]
    heights = (800 + 300 * np.sin(rows / 7) * np.cos(columns / 9)).astype(np.float32)
    transform = rasterio.transform.from_origin(10, 47, 1 / 240, 1 / 240)
    with rasterio.open(path, "w", "GTiff", 64, 48, 1, "EPSG:4326", transform, dtype="float32", nodata=-32768) as raster:
        raster.write(heights, 1)
        raster.units = ("m",)


def _words(journey: str, folder: Path, tree: Path, run: Any) -> list[str]:
    """Make the data of a journey, and return its command line."""
    if journey == "train":
        run("sample", "dem", folder / "data", "--stride", "12")
        config = tree / "configs" / "dem_srnet_demo.yaml"
        keys = {
            "data.root_dir": folder / "data",
            "summary.summary_dir": folder / "run",
            "optimizer.epochs": 1,
            "model.features": 4,
            "model.num_blocks": 1,
        }
        settings = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        return ["train", str(config), "--backend", "torch", "--device", "cpu", *settings]
    if journey == "predict":
        _hills(folder / "hills.tif")
        return ["predict", "demo-dem", str(folder / "hills.tif"), str(folder / "fine.tif"), "--backend", "torch"]
    world = ("--rows", 128, "--columns", 960, "--years", "1990:1995", "--held-out-years", 2)
    run("sample", "landuse", folder / "data", *world, "--archives")
    archives = folder / "data" / "archives"
    names = ("elevation", "slope", "soil", "distance_to_water", "latitude")
    return [
        *("reconstruct", "demo-landuse", "--backend", "torch", "--years", "1990:1995", "--match-areas"),
        *("--anchor", str(archives / "landuse_1993.tif"), "--output", str(folder / "maps.zarr")),
        *("--scenario", str(archives / "scenario_historical.nc"), "--scenario", str(archives / "scenario_future.nc")),
        *(word for name in names for word in ("--static", f"{name}={archives / 'static.nc'}")),
    ]


def _walk_here(journey: str, tree: Path) -> dict[str, int]:
    """Go one way in this process, which has to see the tree."""
    import earthsr
    from earthsr.cli import main

    assert Path(str(earthsr.__file__)).is_relative_to(tree), earthsr.__file__

    def run(*words: object) -> None:
        log = io.StringIO()
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = main([str(word) for word in words])
        if code:
            raise SystemExit(f"{tree}: earthsr {' '.join(map(str, words))} ended with {code}\n{log.getvalue()}")

    walk = Walk(tree)
    with tempfile.TemporaryDirectory() as folder:
        words = _words(journey, Path(folder), tree, run)
        with walk.walking():
            run(*words)
    return walk.counts()


def _code_lines(text: str) -> int:
    """Lines that hold code: neither blank, nor comments, nor documentation alone."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    idle = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in idle:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def _bound(text: str) -> list[str]:
    """Names that are bound: targets of assignments and loops, and parameters."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
    return names


def size(tree: Path) -> dict[str, int]:
    """Files, folders, lines and idle names of a tree's ``earthsr`` and ``backends``."""
    numbers = {}
    for source in SOURCES:
        texts = {path: path.read_text(encoding="utf-8") for path in sorted((tree / source).rglob("*.py"))}
        numbers[f"{source}: files"] = len(texts)
        numbers[f"{source}: folders"] = len({path.parent for path in texts})
        numbers[f"{source}: lines"] = sum(len(text.splitlines()) for text in texts.values())
        numbers[f"{source}: lines of code"] = sum(map(_code_lines, texts.values()))
        bound = [name for text in texts.values() for name in _bound(text)]
        for name in IDLE_NAMES:
            numbers[f"{source}: bound to {name}"] = bound.count(name)
    return numbers


def count(tree: Path, journeys: tuple[str, ...] = JOURNEYS) -> dict[str, int]:
    """All numbers of one tree."""
    numbers = size(tree)
    path = os.pathsep.join(str(tree / name) for name in (".", "backends"))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for journey in journeys:
        words = [sys.executable, str(Path(__file__).resolve()), "--walk", journey, "--tree", str(tree)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tempfile.gettempdir())
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        for name, number in json.loads(done.stdout.splitlines()[-1]).items():
            numbers[f"{journey}: {name}"] = number
    return numbers


def table(columns: dict[str, dict[str, int]]) -> str:
    """Rows of numbers, a column for each tree."""
    heads = ["", *columns]
    keys = list(dict.fromkeys(key for numbers in columns.values() for key in numbers))
    rows = [heads, *([key, *(str(numbers.get(key, "-")) for numbers in columns.values())] for key in keys)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, action="append", help="a clone of earthsr; repeat to compare")
    parser.add_argument("--journey", choices=JOURNEYS, action="append", help="one of the three alone; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--walk", choices=JOURNEYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    trees = [tree.resolve() for tree in options.tree or [HERE]]
    if options.walk:
        print(json.dumps(_walk_here(options.walk, trees[0])))
        return
    for tree in trees:
        if not (tree / "earthsr" / "__init__.py").is_file():
            parser.error(f"{tree}: holds no earthsr/__init__.py; name the root of a clone")
    columns = {str(tree): count(tree, tuple(options.journey or JOURNEYS)) for tree in trees}
    print(json.dumps(columns, indent=2) if options.json else table(columns))


if __name__ == "__main__":
    main()

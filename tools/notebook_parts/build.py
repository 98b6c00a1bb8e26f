"""Executing sources, and writing notebooks of them."""

from __future__ import annotations

import base64
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from .check import CLOCK, differences
from .source import LANGUAGES, Cell, Code, NotebookError, compose, place, read_source

Outputs = dict[str, list[list[Any]]]
"""Of the code cells of each language's notebook, in order."""

# A cell may train for minutes on a busy machine; what hangs still ends.
_TIMEOUT_S: Final = 3600

_COLOURS: Final = re.compile(r"\x1b\[[\d;]*m")


def execute(name: str, cells: Sequence[Cell], configs: Path) -> tuple[Any, float]:
    """Execute code cells in a temporary folder; return the notebook (English) and the seconds it took.

    Raises
    ------
    NotebookError
        If a cell fails; the message has the cell and the traceback.
    """
    notebook = compose(name, cells, "en")
    with tempfile.TemporaryDirectory(prefix="earthsr-notebook-") as folder:
        root = Path(folder)
        shutil.copytree(configs, root / "configs")
        (root / "tutorials").mkdir()
        environment = {
            **os.environ,
            # ``%%bash`` cells call the ``earthsr`` that belongs to this interpreter.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
            # Start-up files of whoever builds are not part of a notebook.
            "IPYTHONDIR": str(root / "ipython"),
            "PYTHONHASHSEED": "0",
        }
        # nbclient's inline pictures need no display; the backend of a test run must not reach the kernel.
        environment.pop("MPLBACKEND", None)
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            startup_timeout=300,
            kernel_name="python3",
            # Errors alone: it would warn, on each start, that it talks to this process unencrypted.
            extra_arguments=["--IPKernelApp.log_level=40"],
            resources={"metadata": {"path": str(root / "tutorials")}},
            record_timing=False,
        )
        began = time.perf_counter()
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise NotebookError(f"{name}: {_COLOURS.sub('', str(error))}") from None
        seconds = time.perf_counter() - began
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["metadata"] = {}
            cell["outputs"] = tidy(cell.outputs)
    return notebook, seconds


def tidy(outputs: Sequence[Any]) -> list[Any]:
    """Join pieces of a stream, and take the time of day off log lines: it would change with every build."""
    made: list[Any] = []
    for output in outputs:
        output = nbformat.from_dict(output)
        if output.output_type == "stream" and made and made[-1].get("name") == output.name:
            made[-1]["text"] += output.text
            continue
        if "metadata" in output:
            output["metadata"] = {}
        made.append(output)
    for output in made:
        if output.output_type == "stream":
            output["text"] = CLOCK.sub("", output.text)
    return made


def _with_labels(cells: Sequence[Cell]) -> list[Cell]:
    """Cells to execute for every language at once: one with Chinese labels again with these, right after it."""
    made: list[Cell] = []
    for cell in cells:
        made.append(cell)
        if isinstance(cell, Code) and cell.chinese:
            made.append(Code(cell.chinese))
    return made


def _outputs(cells: Sequence[Cell], executed: Any) -> Outputs:
    """Sort the outputs of what :func:`_with_labels` gave by language."""
    outputs = iter([cell.outputs for cell in executed.cells if cell.cell_type == "code"])
    made: Outputs = {language: [] for language in LANGUAGES}
    for cell in cells:
        if isinstance(cell, Code):
            english = next(outputs)
            made["en"].append(english)
            made["zh"].append(next(outputs) if cell.chinese else english)
    return made


def build(folder: Path, name: str, configs: Path) -> float:
    """Execute a source and write its notebooks; return the seconds that the execution took.

    Raises
    ------
    NotebookError
        If the source is not in order, a cell fails, or an output is not fit to be committed; nothing is written then.
    """
    cells = read_source(folder / "src" / f"{name}.py")
    executed, seconds = execute(name, _with_labels(cells), configs)
    _write(folder, name, cells, _outputs(cells, executed))
    return seconds


def renew_texts(folder: Path, name: str) -> None:
    """Write both notebooks with the source's texts and the outputs that they have.

    Raises
    ------
    NotebookError
        If the source's code is not what was executed; nothing is written then.
    """
    cells = read_source(folder / "src" / f"{name}.py")
    outputs: Outputs = {}
    for language in LANGUAGES:
        built = nbformat.read(place(folder, name, language), as_version=4)
        code = [cell for cell in built.cells if cell.cell_type == "code"]
        if [cell.source for cell in code] != [cell.of(language) for cell in cells if isinstance(cell, Code)]:
            raise NotebookError(f"{name}: its code has changed since it was executed; build it")
        outputs[language] = [cell.outputs for cell in code]
    _write(folder, name, cells, outputs)


def _write(folder: Path, name: str, cells: Sequence[Cell], outputs: Outputs) -> None:
    """Write the notebooks of all languages with their outputs; all of them or none."""
    made = {}
    for language in LANGUAGES:
        notebook = compose(name, cells, language)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, (cell, shown) in enumerate(zip(code, outputs[language], strict=True), start=1):
            cell["execution_count"], cell["outputs"] = count, shown
        problems = list(differences(notebook, cells, language))
        if problems:
            raise NotebookError(f"{name}: not written: {'; '.join(problems)}")
        made[place(folder, name, language)] = nbformat.writes(notebook, version=4) + "\n"
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_pictures(notebook: Any, folder: Path) -> list[Path]:
    """Write PNG outputs, and GIFs that stand in HTML, as files called after their cells."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for cell in notebook.cells:
        for number, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            embedded = re.findall(r'"data:image/(\w+);base64,([^"]+)"', data.get("text/html", ""))
            if "image/png" in data:
                embedded.append(("png", data["image/png"]))
            for kind, letters in embedded:
                files.append(folder / f"{cell.id}-{number}.{kind}")
                files[-1].write_bytes(base64.b64decode(letters))
    return files


def printed(notebook: Any) -> list[str]:
    """Texts that the cells of an executed notebook have shown."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            texts.append(text.rstrip("\n"))
    return texts

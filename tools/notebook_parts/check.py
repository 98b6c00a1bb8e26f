"""Whether built notebooks follow from their sources, and are fit to be committed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import nbformat

from .source import LANGUAGES, Cell, Code, NotebookError, compose, place, read_source, start

MOST_BYTES: Final = 600_000
"""Of one notebook: pictures of modest size, so that the repository stays small."""

CLOCK: Final = re.compile(r"^\d\d:\d\d:\d\d (?=\S)", re.MULTILINE)
"""Time of day at the beginning of a log line."""

_UNWANTED: Final = {
    # The notebooks work in their repository with relative paths; an absolute one is a machine's own.
    "an absolute path": re.compile(r"(?<![\w.:/<>~-])/[A-Za-z][\w.-]*/[\w.-]+"),
    "a carriage return (a progress bar?)": re.compile(r"\r"),
    "an escape sequence of a terminal": re.compile(r"\x1b"),
    "a warning": re.compile(r"Warning\b|\bWARNING\b"),
    "an address in memory": re.compile(r" at 0x[0-9a-f]{6,}"),
    "a time of day": CLOCK,
}


def problems(folder: Path, name: str) -> list[str]:
    """Whatever keeps committed notebooks from being what their source gives; empty where all is well."""
    try:
        cells = read_source(folder / "src" / f"{name}.py")
    except NotebookError as error:
        return [str(error)]
    notes: list[str] = []
    outputs: dict[str, Any] = {}
    labelled = [bool(cell.chinese) for cell in cells if isinstance(cell, Code)]
    for language in LANGUAGES:
        path = place(folder, name, language)
        try:
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
        except (OSError, ValueError, nbformat.ValidationError) as error:
            notes.append(f"{path}: cannot be read ({str(error).splitlines()[0]}); build it")
            continue
        notes += [f"{path}: {problem}" for problem in differences(notebook, cells, language)]
        if path.stat().st_size > MOST_BYTES:
            notes.append(f"{path}: {path.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}; draw smaller")
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        # A figure with labels of its own is another picture; that there is one, and all that is printed, stay the same.
        outputs[language] = [
            (cell.execution_count, [_drawn(output) for output in cell.outputs] if labels else cell.outputs)
            for cell, labels in zip(code, labelled, strict=False)
        ]
    if len(outputs) == len(LANGUAGES) and any(shown != outputs["en"] for shown in outputs.values()):
        notes.append(f"{name}: the languages' outputs differ; build it, which executes once for both")
    return notes


def _drawn(output: Any) -> Any:
    """Return what the languages share of an output of a cell with labels: what it prints, and what kinds it shows."""
    return output if output.output_type == "stream" else (output.output_type, sorted(output.get("data", {})))


def differences(notebook: Any, cells: Sequence[Cell], language: str) -> Iterator[str]:
    """Problems of one notebook, measured by its source."""
    wanted = compose("any", cells, language).cells
    if len(notebook.cells) != len(wanted):
        yield f"{len(notebook.cells)} cells, the source has {len(wanted)}; build it"
        return
    count = pictures = 0
    for number, (cell, want) in enumerate(zip(notebook.cells, wanted, strict=True), start=1):
        if (cell.cell_type, cell.source) != (want.cell_type, want.source):
            yield f"cell {number} ({start(cell.source)}) is not what the source has; build it"
        if cell.cell_type != "code":
            continue
        count += 1
        if cell.execution_count != count:
            yield f"cell {number} ({start(cell.source)}) was executed as {cell.execution_count}, expected {count}"
        if shows(cell.source) and not cell.outputs:
            yield f"cell {number} ({start(cell.source)}) has no output, and its code shows something"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {number} ended with {output.ename}: {output.evalue}"
            pictures += any(kind.startswith("image/") for kind in output.get("data", {}))
            for what, text in _unwanted(output):
                yield f"cell {number} shows {what}: {text!r}"
    if not pictures:
        yield "has no picture"


def _unwanted(output: Any) -> Iterator[tuple[str, str]]:
    """What a committed output must not have, with the line in which it is."""
    texts = [output.get("text", "")]
    texts += [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    for text in texts:
        # The letters of an embedded picture mean nothing.
        plain = re.sub(r"data:image/[^\"']+", "", str(text))
        for what, pattern in _UNWANTED.items():
            match = pattern.search(plain)
            if match:
                line = plain[plain.rfind("\n", 0, match.start()) + 1 :].split("\n")[0]
                yield what, line[:120]


def shows(code: str) -> bool:
    """Whether a cell's code prints, draws, calls a shell, or ends with a value."""
    if code.lstrip().startswith(("%%", "!")):
        return True
    try:
        body = ast.parse(code).body
    except SyntaxError:
        # A line with a magic; Python's own grammar cannot say.
        return bool(re.search(r"^\s*!|\bprint\(", code, re.MULTILINE))
    calls = {"print", "display", "show"}
    for statement in body:
        # What functions and classes do is not done here.
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                called = node.func
                if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in calls:
                    return True
    last = body[-1] if body else None
    return isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call) and not code.rstrip().endswith(";")

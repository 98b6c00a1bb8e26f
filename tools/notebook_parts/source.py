"""Sources of notebooks: code cells once, texts and labels in every language; and notebooks made of them.

Labels of figures follow the cell that draws them, in a raw cell with ``lang="zh"``. A line ``elevation -> 高程`` says
what stands in a string in the Chinese notebook; a line ``+ code`` stands at the cell's end there. Both languages'
cells are run in one kernel: what a cell leaves behind must not depend on its labels.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import jupytext
import nbformat

LANGUAGES: Final = {"en": Path(), "zh": Path("zh")}
"""Folder of each language under ``tutorials``."""

_METADATA: Final = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_FULL_SIGNS: Final = "[，。、；：？！（）《》“”]"
_FULL: Final = "[\u2e80-\u9fff\uf900-\ufaff，。、；：？！（）《》“”]"


class NotebookError(Exception):
    """A source or a notebook is not as it has to be; one line says which, where, and what to do."""


@dataclass(frozen=True)
class Code:
    """A code cell."""

    source: str
    chinese: str = ""
    """The same with the labels of the Chinese notebook; empty where it has none of its own."""

    def of(self, language: str) -> str:
        """Return the cell as a language's notebook has it."""
        return self.chinese if language == "zh" and self.chinese else self.source


@dataclass(frozen=True)
class Text:
    """A markdown cell in every language."""

    words: dict[str, str]


Cell = Code | Text


def names(folder: Path) -> list[str]:
    """Notebooks that ``tutorials`` has sources of."""
    return sorted(path.stem for path in (folder / "src").glob("*.py"))


def read_source(path: Path) -> list[Cell]:
    """Read a source's cells.

    Raises
    ------
    NotebookError
        If it is missing, or a text lacks a language; the message quotes how the cell begins.
    """
    if not path.is_file():
        raise NotebookError(f"{path}: no such source; there are {', '.join(names(path.parent.parent)) or 'none'}")
    cells: list[Cell] = []
    words: dict[str, str] = {}
    for cell in jupytext.read(path, fmt="py:percent").cells:
        if cell.cell_type == "markdown":
            expected, language = list(LANGUAGES)[len(words)], cell.metadata.get("lang")
            if language != expected:
                given = f'lang="{language}"' if language else "no lang"
                raise NotebookError(
                    f"{path}: the text that begins {start(cell.source)} has {given}, expected "
                    f'lang="{expected}": every text stands in English and, right after it, in Chinese'
                )
            if not cell.source.strip():
                raise NotebookError(f'{path}: a text with lang="{language}" is empty')
            words[expected] = cell.source
            if len(words) == len(LANGUAGES):
                cells.append(Text(words))
                words = {}
            continue
        if words:
            break
        if cell.cell_type == "raw":
            last = cells[-1] if cells else None
            if cell.metadata.get("lang") != "zh" or not isinstance(last, Code):
                raise NotebookError(
                    f'{path}: the labels that begin {start(cell.source)} have to follow a code cell, with lang="zh"'
                )
            cells[-1] = replace(last, chinese=_labelled(last.source, cell.source, path))
            continue
        cells.append(Code(cell.source))
    if words:
        lacking = ", ".join(language for language in LANGUAGES if language not in words)
        raise NotebookError(f"{path}: the text that begins {start(next(iter(words.values())))} lacks {lacking}")
    return cells


def _labelled(code: str, labels: str, path: Path) -> str:
    """Put Chinese labels into code, and the lines that only the Chinese notebook has at its end."""
    made, added = code, ""
    for line in labels.splitlines():
        if line.startswith("+"):
            added += f"\n{line.removeprefix('+').removeprefix(' ')}"
            continue
        english, arrow, chinese = line.partition(" -> ")
        if not arrow or english not in made:
            raise NotebookError(f"{path}: the label {line!r} is not 'words of the cell before -> their Chinese'")
        made = made.replace(english, chinese)
    if _without_words(made, path) != _without_words(code, path):
        raise NotebookError(f"{path}: the labels that begin {start(labels)} change more than strings of the code")
    return made + added


def _without_words(code: str, path: Path) -> str:
    """Structure of code, its strings emptied but for keys: ``record["step"]`` is no label."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise NotebookError(f"{path}: a cell with labels is no Python ({error})") from None
    keys = {id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            node.values = [part for part in node.values if not isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in keys:
            node.value = ""
    return ast.dump(tree)


def start(text: str) -> str:
    """How a text begins, quoted."""
    return repr(text.strip().split("\n")[0][:60])


def parameters_replaced(cells: Sequence[Cell], **values: str | bool) -> list[Cell]:
    """Replace the lines ``name = …`` of code cells; each has to be there once.

    Raises
    ------
    NotebookError
        If a line is missing, or there several times.
    """
    made = list(cells)
    for name, value in values.items():
        line = re.compile(rf"^{name} = .*$", re.MULTILINE)
        lines = [(i, n) for i, cell in enumerate(made) if isinstance(cell, Code) for n in line.findall(cell.source)]
        if len(lines) != 1:
            raise NotebookError(f"the line '{name} = …' is there {len(lines)} times, expected once")
        where = lines[0][0]
        cell = made[where]
        assert isinstance(cell, Code)
        text = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
        made[where] = replace(cell, source=line.sub(text, cell.source), chinese=line.sub(text, cell.chinese))
    return made


def compose(name: str, cells: Sequence[Cell], language: str) -> Any:
    """Return the notebook in one language, without outputs; the same source gives the same bytes."""
    notebook = nbformat.v4.new_notebook(metadata=_METADATA)
    for number, cell in enumerate(cells):
        if isinstance(cell, Code):
            made = nbformat.v4.new_code_cell(cell.of(language))
        else:
            made = nbformat.v4.new_markdown_cell(_joined(cell.words[language]))
        made["id"] = f"{name.replace('_', '-')}-{number:02d}"
        notebook.cells.append(made)
    return notebook


def _joined(text: str) -> str:
    """Take line breaks out of Chinese sentences: a page would show each as a gap. Lists keep theirs."""
    item = r"(?!- |\d+\. |#)"
    within = rf"(?<={_FULL})\n *(?={_FULL})|(?<={_FULL_SIGNS})\n *{item}(?=\S)|\n *(?={_FULL_SIGNS})"
    return re.sub(within, "", text)


def place(folder: Path, name: str, language: str) -> Path:
    """Where a notebook lies."""
    return folder / LANGUAGES[language] / f"{name}.ipynb"

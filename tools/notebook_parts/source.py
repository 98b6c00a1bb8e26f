"""Sources of notebooks: code cells once, texts in every language; and notebooks without outputs made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
        cells.append(Code(cell.source))
    if words:
        lacking = ", ".join(language for language in LANGUAGES if language not in words)
        raise NotebookError(f"{path}: the text that begins {start(next(iter(words.values())))} lacks {lacking}")
    return cells


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
        made[where] = Code(line.sub(text, cell.source))
    return made


def compose(name: str, cells: Sequence[Cell], language: str) -> Any:
    """Return the notebook in one language, without outputs; the same source gives the same bytes."""
    notebook = nbformat.v4.new_notebook(metadata=_METADATA)
    for number, cell in enumerate(cells):
        if isinstance(cell, Code):
            made = nbformat.v4.new_code_cell(cell.source)
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

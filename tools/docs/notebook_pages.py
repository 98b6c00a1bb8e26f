"""Pages of the site from committed notebooks: texts, code, and the outputs of the execution that they were built with.

They are Markdown, so that the theme colours the code, the search finds them, and a strict build follows their links.
Converters to HTML bring style sheets of half a megabyte a page and scripts from elsewhere.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nbformat

from tools.docs import repository

#: What stands above a notebook in each language, whose folder below ``tutorials`` is the key.
ABOVE: Final = {
    "": "*A notebook, with what it printed and drew when it was last built: [download it]({file}).*",
    "zh": "*本页由 notebook 生成，输出与图来自最近一次构建时的运行结果：[下载 notebook]({file})。*",
}

_EMBEDDED: Final = re.compile(r"data:image/(\w+);base64,([^\"']+)")


@dataclass(frozen=True)
class NotebookPage:
    """A page, and the pictures that it shows."""

    title: str
    """First heading."""
    text: str
    """Markdown."""
    pictures: dict[str, bytes]
    """By their place in the site."""


def notebooks(root: Path) -> dict[str, str]:
    """Notebooks of the repository by the place of their page, in English and then in Chinese."""
    files = [file for folder in ABOVE for file in sorted((root / repository.NOTEBOOKS / folder).glob("*.ipynb"))]
    sources = [file.relative_to(root).as_posix() for file in files]
    return {_page_of(source): source for source in sources}


def notebook_page(root: Path, source: str) -> NotebookPage:
    """Make the page of a notebook."""
    notebook: Any = nbformat.read(root / source, as_version=4)
    page = _page_of(source)
    pictures: dict[str, bytes] = {}
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(repository.site_links(cell.source, source, page, root))
            continue
        parts.append(_code(cell.source))
        for output in cell.outputs:
            stem = f"{page.removesuffix('.md')}_files/{number:02d}-{len(pictures)}"
            parts.append(_output(output, stem, pictures))
    title, *texts = parts
    language = source.removeprefix(f"{repository.NOTEBOOKS}/").rpartition("/")[0]
    heading, _, introduction = title.partition("\n")
    file = ("../" * page.count("/")) + f"{repository.FOLDER}/{source}"
    body = [heading, ABOVE[language].format(file=file), introduction.strip(), *texts]
    return NotebookPage(heading.removeprefix("# "), "\n\n".join(filter(None, body)) + "\n", pictures)


def _page_of(source: str) -> str:
    return f"{source.removesuffix('.ipynb')}.md"


def _code(source: str) -> str:
    """Make a block of code; of a shell where the cell's first line says so."""
    first, _, rest = source.partition("\n")
    return _block("bash", rest) if first.strip() == "%%bash" else _block("python", source)


def _block(words: str, text: str) -> str:
    fence = "```" + "`" * text.count("```")
    return f"{fence}{words}\n{text.rstrip()}\n{fence}"


def _output(output: Any, stem: str, pictures: dict[str, bytes]) -> str:
    """Markdown of one output; its pictures are put among the others."""
    data = output.get("data", {})
    if "image/png" in data:
        pictures[f"{stem}.png"] = base64.b64decode(data["image/png"])
        return f"![what the code above draws]({Path(stem).parent.name}/{Path(stem).name}.png){{.drawn}}"
    if "text/html" in data:
        return _EMBEDDED.sub(lambda match: _kept(match, stem, pictures), data["text/html"])
    return _block("{.text .output .no-copy}", output.get("text") or data.get("text/plain", ""))


def _kept(match: re.Match[str], stem: str, pictures: dict[str, bytes]) -> str:
    name = f"{stem}.{match[1]}"
    pictures[name] = base64.b64decode(match[2])
    return f"{Path(stem).parent.name}/{Path(name).name}"

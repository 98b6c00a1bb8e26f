"""Fenced blocks of the documents, and the commands in them."""

import re
from dataclasses import dataclass

from tests.conftest import REPOSITORY

#: Languages whose blocks a reader types; ``console`` has a prompt and answers.
TYPED = ("sh", "bash", "shell", "console", "python")
#: Languages of blocks that are shown and not typed.
SHOWN = ("", "text", "json", "yaml", "toml", "make", "diff", "c", "fortran")

#: Documents outside of ``docs/``, beside the README.
OTHERS = ("CONTRIBUTING.md", "examples/README.md", "tutorials/README.md")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[^\n`]*$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language and its text; a title says of which file it is the text."""

    document: str
    line: int
    language: str
    text: str
    title: str = ""

    def __str__(self):
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a block of the shell: its line, and its words as they stand, comments and continuations gone."""

    document: str
    line: int
    text: str

    def __str__(self):
        return f"{self.document}:{self.line}: {self.text}"


def documents():
    """Paths of the documents from the repository's root, in the order in which one reads them."""
    fixed = [path for path in ("README.md", *OTHERS) if (REPOSITORY / path).is_file()]
    pages = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md"))
    return [fixed[0], *pages, *fixed[1:]]


def blocks(document, text=None):
    """Blocks of a document, in order."""
    if text is None:
        text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        indent = len(fence["indent"])
        body = "".join(line[indent:] for line in fence["text"].splitlines(keepends=True))
        line = text.count("\n", 0, fence.start()) + 2
        language, _, rest = fence["language"].strip().partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        found.append(Block(document, line, language, body, title[1] if title else ""))
    return found


def commands(block):
    """Commands of a block of the shell, in order."""
    found, words, begun = [], "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        if block.language == "console":
            if not line.startswith("$ ") and not words:
                continue
            line = line.removeprefix("$ ")
        line = _without_comment(line).strip()
        if not line and not words:
            continue
        begun = begun if words else number
        words = f"{words} {line}".strip()
        if words.endswith("\\"):
            words = words[:-1].rstrip()
            continue
        found.append(Command(block.document, begun, words))
        words = ""
    return found


def _without_comment(line):
    """Drop what follows a ``#`` that stands alone, outside of quotes."""
    quote = ""
    for index, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (index == 0 or line[index - 1] in " \t"):
            return line[:index]
    return line

"""Small pieces of Markdown: text that means itself, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Escape text so that it is shown as it stands; ``code`` between double backticks stays code."""
    parts = re.split(r"(``[^`]+``)", " ".join(text.split()))
    return "".join(f"`{part[2:-2]}`" if part.startswith("``") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Return text as code in a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown cells."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])

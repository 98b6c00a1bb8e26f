"""How a model card looks: as text in a terminal, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from earthsr.errors import printable

#: Heading of a section, by its key.
_HEADINGS: Final = {
    "architecture": "Architecture",
    "training_data": "Training data",
    "training": "Training",
    "scores": "Scores",
    "intended_use": "Intended use",
    "limits": "Limits",
    "licence": "Licence",
    "citation": "How to cite",
}
#: Names of a list that a page shows; the number of the others stands behind them.
_NAMES_SHOWN: Final = 12
_LABELS: Final = {
    "rmse": "RMSE", "mae": "MAE", "ssim": "SSIM", "miou": "mIoU", "slope_rmse_deg": "slope RMSE (degrees)",
    "figure_of_merit": "figure of merit of change",
}  # fmt: skip
_WITH_UNITS: Final = ("rmse", "mae", "bias")


def card_text(card: Mapping[str, Any]) -> str:
    """Return a card as plain text, sections indented, scores as an aligned table."""
    lines = [str(card["name"])]
    if card.get("summary"):
        lines.append(f"  {card['summary']}")
    for key, heading in _HEADINGS.items():
        lines += ["", heading]
        section = card[key]
        if key == "scores":
            lines += [f"  {line}" for line in _facts_text(_score_facts(section))]
            lines += [f"  {line}" for line in _aligned(_table(section))]
        elif isinstance(section, Mapping):
            lines += [f"  {line}" for line in _facts_text(section)]
        else:
            lines += [f"  - {sentence}" for sentence in section]
    return "\n".join(lines)


def card_markdown(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown, one heading a section, facts and scores as tables."""
    lines = [f"# {card['name']}", ""]
    if card.get("summary"):
        lines += [str(card["summary"]), ""]
    for key, heading in _HEADINGS.items():
        lines += [f"## {heading}", ""]
        section = card[key]
        if key == "scores":
            lines += [*_bullets(f"{_words(k)}: {_plain(v)}" for k, v in _score_facts(section).items()), ""]
            lines += _markdown_table(_table(section))
        elif isinstance(section, Mapping):
            lines += _markdown_table([["", ""], *([_words(k), _plain(v)] for k, v in section.items())])
        else:
            lines += [*_bullets(section), ""]
    return _harmless("\n".join(lines).rstrip()) + "\n"


def _harmless(text: str) -> str:
    """Return Markdown in which words of a file are no HTML, no link that runs a program, and move no cursor."""
    text = printable(text).replace("<", "&lt;")
    return re.sub(r"\]\((?!https?://)|\]:", lambda match: f"\\{match[0]}", text)


def _score_facts(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key != "rows" and value is not None}


def _facts_text(values: Mapping[str, Any]) -> list[str]:
    return [f"{_words(key)}: {_plain(value)}" for key, value in values.items()]


def _words(key: str) -> str:
    return key.replace("_", " ")


def _plain(value: Any) -> str:
    """Return a value in one line."""
    if isinstance(value, Mapping):
        spelled = (f"{_words(key)} {_plain(item)}" for key, item in value.items())
        return ("; " if any(isinstance(item, list) for item in value.values()) else ", ").join(spelled)
    if isinstance(value, list):
        if value and all(isinstance(item, int) for item in value) and value == list(range(value[0], value[-1] + 1)):
            return f"{value[0]} to {value[-1]}" if len(value) > 1 else str(value[0])
        shown = [_plain(item) for item in value[:_NAMES_SHOWN]]
        more = len(value) - len(shown)
        return (", ".join(shown) or "none") + (f" and {more} more" if more else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(scores: Mapping[str, Any]) -> list[list[str]]:
    """Heading and rows of a table of scores; none where nobody scored the model."""
    rows = scores.get("rows") or {}
    columns = list(dict.fromkeys(key for values in rows.values() for key in values))
    if not columns:
        return []
    units = scores.get("units")
    heading = [
        _LABELS.get(key, _words(key)) + (f" ({units})" if units and key in _WITH_UNITS else "") for key in columns
    ]
    body = [
        [_words(row), *(f"{values[key]:.4g}" if key in values else "" for key in columns)]
        for row, values in rows.items()
    ]
    return [["", *heading], *body]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))] if table else []
    return [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in table)
    ]


def _markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    spelled = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rows = ["| " + " | ".join(row) + " |" for row in spelled]
    return [rows[0], "|" + "---|" * len(table[0]), *rows[1:], ""]


def _bullets(sentences: Any) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]

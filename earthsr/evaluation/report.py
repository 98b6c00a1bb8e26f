"""A self-contained HTML page of an evaluation: scores, figures, provenance; no file beside it is needed."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earthsr.store import write_text

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2733; --soft: #5a6877; --line: #d5dce3; --band: #eef4fa; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14191e; --ink: #e4e9ee; --soft: #a3b0bc; --line: #37424c; --band: #1f2a34; }
}
body { font-family: system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--ground); line-height: 1.45; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
a { color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { padding: .3rem .9rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; } tr.best td { font-weight: 600; }
.headline { background: var(--band); padding: .8rem 1.1rem; border-radius: .4rem; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
img { max-width: 100%; background: #fff; border-radius: .3rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); gap: .2rem 1rem;
  font-size: .92rem; }
dt { color: var(--soft); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin-top: .6rem; font-weight: 600; }
@media (max-width: 600px) {
  body { margin: 1rem auto; } td, th { padding: .3rem .5rem; }
  dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: .4rem; }
}
"""

#: Key of a score (with dots into nested ones), heading, format.
Columns = Sequence[tuple[str, str, str]]

ELEVATION: Columns = (
    ("rmse", "RMSE (m)", ".3f"),
    ("mae", "MAE (m)", ".3f"),
    ("bias", "bias (m)", "+.3f"),
    ("psnr", "PSNR (dB)", ".2f"),
    ("ssim", "SSIM", ".4f"),
    ("slope_rmse_deg", "slope RMSE (°)", ".3f"),
)

MAPS: Columns = (
    ("miou", "mIoU", ".4f"),
    ("accuracy", "accuracy", ".4f"),
    ("balanced_accuracy", "balanced acc.", ".4f"),
    ("f1_macro", "F1", ".4f"),
    ("kappa", "kappa", ".4f"),
    ("change.figure_of_merit", "fig. of merit", ".4f"),
    ("flicker_percent", "flicker (%)", ".3f"),
    ("area_agreement.mean.rmse", "area RMSE (%)", ".3f"),
)

YEARS: Columns = (
    ("miou", "mIoU", ".4f"),
    ("accuracy", "accuracy", ".4f"),
    ("figure_of_merit", "fig. of merit", ".4f"),
)


def field_columns(units: str) -> Columns:
    """Columns for a continuous field in ``units``."""
    return (("rmse", f"RMSE ({units})", ".4f"), ("mae", f"MAE ({units})", ".4f"), ("bias", f"bias ({units})", "+.4f"))


def _value(values: Mapping[str, Any], key: str) -> float | None:
    value: Any = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    text = format(value, form)
    # What rounds to nothing has no sign.
    return text.lstrip("+-") if not text.strip("+-0.") else text


def _words(key: Any) -> str:
    """A key of ``metrics.json`` as people write it."""
    return str(key).replace("_", " ")


def score_table(
    scores: Mapping[str, Mapping[str, Any]], columns: Columns = ELEVATION, best: str = "model", of: str = "method"
) -> str:
    """HTML table of methods and scores, or of what ``of`` says; the row ``best`` stands out."""
    head = "".join(f"<th>{html.escape(label)}</th>" for _, label, _ in columns)
    rows = []
    for method, values in scores.items():
        cells = "".join(f"<td>{_cell(_value(values, key), form)}</td>" for key, _, form in columns)
        rows.append(f"<tr{' class=best' if method == best else ''}><td>{html.escape(_words(method))}</td>{cells}</tr>")
    return f"<table><tr><th>{html.escape(of)}</th>{head}</tr>{''.join(rows)}</table>"


def text_table(scores: Mapping[str, Mapping[str, Any]], columns: Columns = ELEVATION) -> str:
    """Return the same table for a terminal."""
    first = max(10, *(len(method) + 1 for method in scores))
    lines = [f"{'method':<{first}}" + "".join(f"{label:>16}" for _, label, _ in columns)]
    for method, values in scores.items():
        cells = "".join(f"{_cell(_value(values, key), form):>16}" for key, _, form in columns)
        lines.append(f"{_words(method):<{first}}{cells}")
    return "\n".join(lines)


def write_report(
    path: str | Path,
    title: str,
    headline: str,
    tables: Sequence[tuple[str, str]],
    figures: Sequence[tuple[Path, str]],
    provenance: Mapping[str, Any],
    terms: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html``: the most telling figure, the tables, those of single years folded, the other figures.

    Parameters
    ----------
    path : str or Path
        Destination.
    title, headline : str
        Plain text; the headline is what was found, in a sentence or two.
    tables : sequence of (str, str)
        Headings and HTML of :func:`score_table`.
    figures : sequence of (Path, str)
        PNG files to embed, with captions.
    provenance : mapping
        Checkpoint, data, backend and others, shown as a list.
    terms : mapping of str to str, optional
        What the rows of the tables are, a sentence each.
    """
    pictures = [_figure(file, caption) for file, caption in figures]
    parts = [f"<p class=headline>{html.escape(headline)}</p>", *pictures[:1]]
    years = [(heading, table) for heading, table in tables if heading.isdecimal()]
    for heading, table in tables:
        if not heading.isdecimal():
            parts.append(f"<h2>{html.escape(heading)}</h2><div class=wide>{table}</div>")
    if terms:
        parts.append(f"<h2>What the rows are</h2>{_list(terms)}")
    if years:
        parts.append("<h2>By year</h2>")
    parts += [f"<details><summary>{year}</summary><div class=wide>{table}</div></details>" for year, table in years]
    parts += pictures[1:]
    parts.append(f"<h2>Provenance</h2>{_list(provenance)}")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )
    return write_text(path, page)


def _figure(file: Path, caption: str) -> str:
    data = base64.b64encode(Path(file).read_bytes()).decode("ascii")
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _list(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{html.escape(_words(key))}</dt><dd>{html.escape(_said(value))}</dd>" for key, value in values.items()
    )
    return f"<dl>{items}</dl>"


def _said(value: Any) -> str:
    """A value of the provenance for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{_words(key)}: {_said(item)}" for key, item in value.items()) or "none"
    return "none" if value is None or value == "" else str(value)

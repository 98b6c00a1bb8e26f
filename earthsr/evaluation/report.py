"""A self-contained HTML page of an evaluation: scores, figures, provenance; no file beside it is needed."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earthsr.store import write_text

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .9rem; border-bottom: 1px solid #d5dce3; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr.best td { font-weight: 600; }
.headline { background: #eef4fa; padding: .8rem 1.1rem; border-radius: .4rem; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption { color: #5a6877; font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1rem; font-size: .92rem; }
dt { color: #5a6877; } dd { margin: 0; overflow-wrap: anywhere; }
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
    return "–" if value is None else format(value, form)


def score_table(scores: Mapping[str, Mapping[str, Any]], columns: Columns = ELEVATION, best: str = "model") -> str:
    """HTML table of methods and scores; the row ``best`` stands out."""
    head = "".join(f"<th>{html.escape(label)}</th>" for _, label, _ in columns)
    rows = []
    for method, values in scores.items():
        cells = "".join(f"<td>{_cell(_value(values, key), form)}</td>" for key, _, form in columns)
        rows.append(f"<tr{' class=best' if method == best else ''}><td>{html.escape(method)}</td>{cells}</tr>")
    return f"<table><tr><th>method</th>{head}</tr>{''.join(rows)}</table>"


def text_table(scores: Mapping[str, Mapping[str, Any]], columns: Columns = ELEVATION) -> str:
    """Return the same table for a terminal."""
    first = max(10, *(len(method) + 1 for method in scores))
    lines = [f"{'method':<{first}}" + "".join(f"{label:>16}" for _, label, _ in columns)]
    for method, values in scores.items():
        cells = "".join(f"{_cell(_value(values, key), form):>16}" for key, _, form in columns)
        lines.append(f"{method:<{first}}{cells}")
    return "\n".join(lines)


def write_report(
    path: str | Path,
    title: str,
    headline: str,
    tables: Sequence[tuple[str, str]],
    figures: Sequence[tuple[Path, str]],
    provenance: Mapping[str, Any],
) -> Path:
    """Write ``report.html``.

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
    """
    parts = [f"<p class=headline>{html.escape(headline)}</p>"]
    parts += [f"<h2>{html.escape(heading)}</h2>{table}" for heading, table in tables]
    for file, caption in figures:
        data = base64.b64encode(Path(file).read_bytes()).decode("ascii")
        text = html.escape(caption)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )
    items = "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in provenance.items())
    parts.append(f"<h2>Provenance</h2><dl>{items}</dl>")
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>earthsr evaluation</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )
    return write_text(path, page)

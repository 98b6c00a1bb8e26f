"""A self-contained HTML page of an evaluation: scores, figures, provenance; no file beside it is needed."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earthsr.files import write_text

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

_COLUMNS = (
    ("rmse", "RMSE (m)", ".3f"),
    ("mae", "MAE (m)", ".3f"),
    ("bias", "bias (m)", "+.3f"),
    ("psnr", "PSNR (dB)", ".2f"),
    ("ssim", "SSIM", ".4f"),
    ("slope_rmse_deg", "slope RMSE (°)", ".3f"),
)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def score_table(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """HTML table of methods and scores."""
    head = "".join(f"<th>{html.escape(label)}</th>" for _, label, _ in _COLUMNS)
    rows = []
    for method, values in scores.items():
        cells = "".join(f"<td>{_cell(values.get(key), form)}</td>" for key, _, form in _COLUMNS)
        rows.append(f"<tr{' class=best' if method == 'model' else ''}><td>{html.escape(method)}</td>{cells}</tr>")
    return f"<table><tr><th>method</th>{head}</tr>{''.join(rows)}</table>"


def text_table(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return the same table for a terminal."""
    lines = [f"{'method':<10}" + "".join(f"{label:>16}" for _, label, _ in _COLUMNS)]
    for method, values in scores.items():
        lines.append(f"{method:<10}" + "".join(f"{_cell(values.get(key), form):>16}" for key, _, form in _COLUMNS))
    return "\n".join(lines)


def write_report(
    path: str | Path,
    metrics: Mapping[str, Any],
    figures: Sequence[tuple[Path, str]],
    provenance: Mapping[str, Any],
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    path : str or Path
        Destination.
    metrics : mapping
        The contents of ``metrics.json``.
    figures : sequence of (Path, str)
        PNG files to embed, with captions.
    provenance : mapping
        Checkpoint, data, backend and others, shown as a list.
    """
    reduction = metrics.get("rmse_reduction_vs_bicubic_percent")
    gain = "" if reduction is None else f" That is {reduction:.2f} % below bicubic interpolation."
    headline = (
        f"RMSE {_cell(metrics['scores']['model']['rmse'], '.3f')} m over {metrics['samples']} patches of the "
        f"{html.escape(str(metrics['split']))} split.{gain}"
    )
    parts = [f"<p class=headline>{headline}</p>", "<h2>Scores</h2>", score_table(metrics["scores"])]
    for label, values in metrics.get("groups", {}).items():
        if values["samples"] == metrics["samples"]:
            continue  # a group that holds every patch says nothing more
        parts.append(f"<h2>{html.escape(label)} ({values['samples']} patches)</h2>{score_table(values['scores'])}")
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
        f"<h1>DEM super-resolution: evaluation</h1>{''.join(parts)}</html>\n"
    )
    return write_text(path, page)

"""Figures of a benchmark: regions, ablations, and curves of what more data, depth, context and time give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthsr.evaluation.figures import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of a model and of its symmetries; variants take what is left, in turn.
_COLOURS = {
    "edsr": ("0.55",),
    "demsrnet": ("tab:blue", "#7fb2dd"),
    "tiles": ("#0b3a6b", "#5b7fa8"),
    "finetuned": ("tab:green", "#93cf93"),
}
_OTHERS = (("tab:orange", "#ffbe86"), ("tab:purple", "#c5b0d5"), ("tab:brown", "#c49c94"))
_LABEL = "RMSE below bicubic (%)"

#: Curves: name, axis, key of an ablation's entry.
CURVES = (
    ("regions", "training regions", "training_regions"),
    ("depth", "residual blocks", "blocks"),
    ("patch", "patch side (coarse cells)", "patch_size"),
)


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to draw; returns the files."""
    drawn = []
    for name, figure in (
        ("regions", region_bars(results)),
        ("ablations", ablation_bars(results["ablations"])),
        ("curves", curves(results["ablations"], results["over_time"])),
    ):
        if figure is not None:
            drawn.append(save(figure, folder / f"{name}.png"))
    return drawn


def region_bars(results: Mapping[str, Any]) -> Figure | None:
    """Percent below bicubic of every test region, land and ocean side by side."""
    rows, cells, models = results["rows"], results["cells"], results["models"]
    colours = _colours(list(models))
    kinds = [kind for kind in ("land", "ocean") if any(row["kind"] == kind for row in rows)]
    if not kinds:
        return None
    rows_of = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    figure = new_figure(max(2.0 + 0.85 * len(rows), 8.0), 4.8, gap=0.03)
    grid = figure.subplots(
        1, len(kinds), squeeze=False, sharey=True, width_ratios=[max(len(rows_of[kind]), 2) for kind in kinds]
    )
    legend: dict[str, Any] = {}
    for axes, kind in zip(grid[0], kinds, strict=True):
        gains = [row["percent_below_bicubic"] for row in rows_of[kind]]
        # A model that has been trained on some folds alone would be compared where it is not: it waits for the others,
        # unless nobody has them all.
        shown = [name for name in models if all(name in gain for gain in gains)]
        shown = shown or [name for name in models if any(name in gain for gain in gains)]
        width = 0.84 / len(shown)
        for i, name in enumerate(shown):
            place = np.arange(len(rows_of[kind])) + (i - (len(shown) - 1) / 2) * width
            values = [row["percent_below_bicubic"].get(name, np.nan) for row in rows_of[kind]]
            base = name.removesuffix("-symmetries")
            words = models[name] if base == name else f"{models[base]}, symmetries"
            axes.bar(place, values, 0.94 * width, color=colours[name], label=words)
        names = [f"{row['region']}\n{row['rmse_m']['bicubic']:.1f} m" for row in rows_of[kind]]
        axes.set_xticks(np.arange(len(names)), names, fontsize=8, rotation=0 if len(rows) < 6 else 35)
        if len(rows) >= 6:
            for label in axes.get_xticklabels():
                label.set_ha("right")
        axes.axhline(0, color="0.3", lw=0.8)
        axes.grid(axis="y", alpha=0.25)
        size = cells[kind]
        words = "" if size is None else f", {size['coarse']:g} to {size['fine']:g} arc-seconds"
        axes.set_title(f"{kind}{words}", fontsize=9)
        axes.set_xlabel("region, RMSE of bicubic", fontsize=9)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            legend.setdefault(name, handle)
    grid[0, 0].set_ylabel(_LABEL)
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def _colours(models: Sequence[str]) -> dict[str, str]:
    """Colour of every model; one with symmetries is a lighter one of the model's own."""
    alone = [name for name in models if not name.endswith("-symmetries")]
    others = [name for name in alone if name not in _COLOURS]
    pairs = _COLOURS | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {name: pairs[name.removesuffix("-symmetries")][name.endswith("-symmetries")] for name in models}


def ablation_bars(entries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Percent below bicubic of every variant, by topic: of test regions, and of validation regions as a dot."""
    if not entries:
        return None
    figure = new_figure(8.6, 0.9 + 0.3 * len(entries))
    axes = figure.subplots()
    place = -np.arange(len(entries), dtype=float)
    values = [entry["test_percent_below_bicubic"] or 0.0 for entry in entries]
    colours = [_bar_colour(entry) for entry in entries]
    axes.barh(place, values, 0.72, color=colours, label="test regions")
    for y, value in zip(place, values, strict=True):
        axes.text(0.995, y, f"{value:.1f}", transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8)
    valid = [entry.get("valid_percent_below_bicubic") for entry in entries]
    known = [(x, y) for x, y in zip(valid, place, strict=True) if x is not None]
    if known:
        axes.plot(*np.transpose(known), "d", color="0.2", ms=4.5, label="validation regions")
    reference = next((entry for entry in entries if entry["topic"] == "reference"), None)
    if reference is not None:
        axes.axvline(reference["test_percent_below_bicubic"] or 0.0, color="0.4", lw=0.9, ls="--")
    axes.axvline(0, color="0.3", lw=0.8)
    names = [f"{'ocean, ' * (entry['kind'] == 'ocean')}{entry['topic']}: {entry['label']}" for entry in entries]
    axes.set_yticks(place, names, fontsize=8)
    axes.set_xlabel(_LABEL)
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="x", alpha=0.25)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def _bar_colour(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "ocean":
        return "#93cf93"
    return "tab:blue" if entry["topic"] in ("reference", "time") else "#7fb2dd"


def curves(entries: Sequence[Mapping[str, Any]], over_time: Mapping[str, Any] | None) -> Figure | None:
    """Percent below bicubic against training regions, depth, patch size and time: where more of it stops paying."""
    points = {name: _points(entries, name, key) for name, _, key in CURVES}
    if not any(points.values()) and over_time is None:
        return None
    figure = new_figure(9.6, 6.4, gap=0.06)
    grid = figure.subplots(2, 2, sharey=True)
    for axes, (name, label, _) in zip(grid.flat, CURVES, strict=False):
        _curve(axes, points[name], label)
    axes = grid[1, 1]
    _axes(axes, "epoch of the long run")
    for split, marker in (("test", "o-"), ("valid", "d--")):
        course = (over_time or {}).get(split, [])
        x, y = [p["epoch"] for p in course], [p["percent_below_bicubic"] for p in course]
        axes.plot(x, y, marker, **_style(split))
    axes.xaxis.get_major_locator().set_params(integer=True)
    shown = [axes for axes in grid.flat if any(len(line.get_xdata()) for line in axes.lines)]
    shown[0].legend(fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel(_LABEL)
    return figure


def _points(entries: Sequence[Mapping[str, Any]], curve: str, key: str) -> list[Mapping[str, Any]]:
    """Entries of a curve with the reference, by what they are drawn against."""
    own = [entry for entry in entries if entry["curve"] == curve]
    reference = [entry for entry in entries if entry["topic"] == "reference"]
    return sorted([*own, *reference], key=lambda entry: entry[key]) if own else []


def _style(split: str) -> dict[str, Any]:
    test = split == "test"
    label = "test regions" if test else "validation regions"
    return {"color": "tab:blue" if test else "0.35", "ms": 5, "lw": 1.4, "label": label}


def _axes(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.25)


def _curve(axes: Axes, points: Sequence[Mapping[str, Any]], label: str) -> None:
    _axes(axes, label)
    key = next(key for _, words, key in CURVES if words == label)
    for split, marker in (("test", "o-"), ("valid", "d--")):
        pairs = [(point[key], point[f"{split}_percent_below_bicubic"]) for point in points]
        known = [pair for pair in pairs if pair[1] is not None]
        # The reference alone is no curve.
        x, y = zip(*known, strict=True) if len(known) > 1 else ((), ())
        axes.plot(x, y, marker, **_style(split))
    if points:
        axes.set_xticks([point[key] for point in points])
    else:
        axes.text(0.5, 0.5, "not run", ha="center", va="center", color="0.5", transform=axes.transAxes)

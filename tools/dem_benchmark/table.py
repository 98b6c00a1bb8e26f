"""The tables of a benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .results import BASELINES
from .run import duration


def markdown(results: Mapping[str, Any], commands: str) -> str:
    """All tables, with what has to be said beside them."""
    parts = ["# DEM-SRNet: RMSE by region, metres", "", *_rmse(results), "", *_gains(results), "", *_notes(results)]
    if results["ablations"]:
        parts += ["", "## What each change bought", "", *_ablations(results["ablations"])]
    if results["data"]:
        parts += ["", "## Data", "", *_data(results["data"])]
    parts += ["", "## Time and memory", "", *_times(results["times"]), "", f"`{commands}`"]
    return "\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def _shown(results: Mapping[str, Any]) -> list[str]:
    """Models that have been scored anywhere."""
    return [name for name in results["models"] if any(name in row["rmse_m"] for row in results["rows"])]


def _lines(results: Mapping[str, Any], key: str, columns: Sequence[str], form: str) -> list[str]:
    lines = []
    for kind in ("land", "ocean"):
        rows = [row for row in results["rows"] if row["kind"] == kind]
        for row in rows:
            cells = [_number(row[key].get(name), form) for name in columns]
            lines.append(_line([row["region"], str(row["patches"]), *cells]))
        mean = results["means"][kind]
        if mean is not None:
            cells = [f"**{_number(mean[key].get(name), form)}**" if name in mean[key] else "–" for name in columns]
            patches = str(sum(row["patches"] for row in rows))
            lines.append(_line([f"**mean of {mean['regions']} {kind} regions**", patches, *cells]))
    return lines


def _rmse(results: Mapping[str, Any]) -> list[str]:
    columns = [*BASELINES, *_shown(results)]
    head = _head(["test region", "patches", *BASELINES, *(results["models"][name] for name in _shown(results))])
    return [*head, *_lines(results, "rmse_m", columns, ".2f")]


def _gains(results: Mapping[str, Any]) -> list[str]:
    columns = _shown(results)
    head = _head(["RMSE below bicubic, %", "patches", "conservative", *(results["models"][name] for name in columns)])
    return [*head, *_lines(results, "percent_below_bicubic", ["conservative", *columns], ".1f")]


def _notes(results: Mapping[str, Any]) -> list[str]:
    paper = results["paper"]
    low, high = paper["land_percent_below_bicubic"]
    deep, shallow = paper["ocean_percent_below_bicubic"]
    lines = [
        f"The paper ({paper['source']}): {paper['average_percent_below_bicubic']} % below bicubic on average, "
        f"land {low} to {high} %, ocean {deep} to {shallow} %, against the bicubic of another product. Here the low "
        "resolution is the mean of the truth itself: there is no difference between products that a network could "
        "learn, and the two are not the same thing.",
        "",
        "Every region was in neither training nor validation of the models that it scores. Means count regions once.",
    ]
    if any(row["kind"] == "ocean" for row in results["rows"]):
        fold = next(row["fold"] for row in results["rows"] if row["kind"] == "ocean")
        lines += ["", f"{_stand_in(results['cells'])}Pre-trained models of ocean rows are those of the fold {fold}."]
    return lines


def _stand_in(cells: Mapping[str, Mapping[str, float] | None]) -> str:
    """What a reader of ocean rows has to know, where their cells are not the land's."""
    land, ocean = cells["land"], cells["ocean"]
    if land is None or ocean is None or land == ocean:
        return ""
    of_ocean, of_land = (f"{size['coarse']:g} to {size['fine']:g}" for size in (ocean, land))
    return (
        f"Ocean: {of_ocean} arc-seconds stand in for {of_land}, for which there is no truth of the sea floor here. "
        "GEBCO's sea floor is largely interpolated between soundings, so that a low error there "
        "partly means a smooth target. "
    )


def _ablations(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _head(
        ["topic", "variant", "test, % below bicubic", "validation", "RMSE (m)", "regions", "patches seen", "training"]
    )
    for entry in entries:
        seen = entry["epochs"] * entry["training_patches"] if "epochs" in entry else None
        seconds = entry.get("train_seconds")
        lines.append(
            _line(
                [
                    f"{'ocean, ' * (entry['kind'] == 'ocean')}{entry['topic']}",
                    entry["label"],
                    _number(entry["test_percent_below_bicubic"]),
                    _number(entry.get("valid_percent_below_bicubic")),
                    _number(entry["test_rmse_m"]),
                    str(entry.get("training_regions", "–")),
                    "–" if seen is None else f"{seen:,}",
                    "–" if seconds is None else duration(seconds),
                ]
            )
        )
    return lines


def _data(data: Mapping[str, Any]) -> list[str]:
    lines = _head(["data", "train", "validation", "test"])
    for name, splits in data.items():
        cells = [f"{splits[s]['patches']:,} patches of {splits[s]['regions']}" for s in ("train", "valid", "test")]
        lines.append(_line([name, *cells]))
    return lines


def _times(times: Mapping[str, Any]) -> list[str]:
    lines = _head(["stage", "wall time", "peak memory", "threads", "state"])
    for name, record in times["stages"].items():
        memory = f"{record['peak_mib']:,.0f} MiB"
        lines.append(_line([name, duration(record["seconds"]), memory, str(record["threads"]), record["state"]]))
    lines.append(_line(["all", duration(times["total_seconds"]), f"{times['peak_mib']:,.0f} MiB", "", ""]))
    return lines

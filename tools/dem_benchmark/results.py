"""What came out, read from the files that stages wrote: rows of the table, ablations, curves.

What is not there yet is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from earthsr.data.hdf5 import open_h5, reading

from .config import Benchmark, Variant
from .plan import Plan, reference
from .run import Records, times
from .splits import regions_of, split_file

BASELINES = ("nearest", "bilinear", "bicubic", "conservative")

PAPER = {
    "source": "Zhang et al., Science Bulletin 2022",
    "average_percent_below_bicubic": 23.75,
    "land_percent_below_bicubic": [29.9, 39.2],
    "ocean_percent_below_bicubic": [3.6, 34.9],
}


def read_json(path: Path) -> Any:
    """Contents of a JSON file; None where it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def reduction(model: float | None, bicubic: float | None) -> float | None:
    """Percent below bicubic."""
    return None if model is None or not bicubic else 100 * (1 - model / bicubic)


def models(benchmark: Benchmark) -> dict[str, str]:
    """Models of the table with their headings; keys are the names of their scores."""
    headings = {"edsr": "EDSR"}
    for name, variant in benchmark.land.variants.items():
        headings |= {name: f"DEM-SRNet, {variant.label}", f"{name}-symmetries": "… with symmetries"}
    stages = {"demsrnet": "pre-trained", "tiles": "carried on with tiles alone", "finetuned": "fine-tuned"}
    if benchmark.land.tiles is None:
        del stages["tiles"]
    for name, stage in stages.items():
        headings |= {name: f"DEM-SRNet, {stage}", f"{name}-symmetries": "… with symmetries"}
    return headings


def collect(plan: Plan) -> dict[str, Any]:
    """Everything of ``table.json``."""
    benchmark = plan.benchmark
    land = [_row(plan, fold, region, "land") for fold, group in benchmark.land.groups.items() for region in group]
    ocean = [] if benchmark.ocean is None else [_row(plan, "ocean", name, "ocean") for name in benchmark.ocean.test]
    rows = [row for row in (*land, *ocean) if row is not None]
    return {
        "models": models(benchmark),
        "rows": rows,
        "means": {kind: _mean([row for row in rows if row["kind"] == kind]) for kind in ("land", "ocean")},
        "paper": PAPER,
        "cells": {"land": _cells(plan, next(iter(benchmark.land.groups))), "ocean": _cells(plan, "ocean")},
        "data": _data(plan),
        "ablations": _ablations(plan),
        "over_time": _over_time(plan),
        "times": times(plan.folders.output, plan.stages),
    }


def _row(plan: Plan, place: str, region: str, kind: str) -> dict[str, Any] | None:
    """Scores of one region under every method; None where there is none yet."""
    rmse: dict[str, float] = {}
    patches = 0
    for model in models(plan.benchmark):
        metrics = read_json(plan.score(f"{place}/{model}") / "metrics.json")
        group = (metrics or {}).get("groups", {}).get(f"region/{region}")
        if group is None:
            continue
        patches = group["samples"]
        # A score of an earlier version may lack a baseline.
        rmse |= {name: group["scores"][name]["rmse"] for name in BASELINES if name in group["scores"]}
        rmse[model] = group["scores"]["model"]["rmse"]
    if not rmse:
        return None
    compared = [name for name in ("conservative", *models(plan.benchmark)) if name in rmse]
    gains = {name: reduction(rmse[name], rmse["bicubic"]) for name in compared}
    fold = place if kind == "land" or plan.benchmark.ocean is None else plan.benchmark.ocean.fold
    return {
        "region": region,
        "kind": kind,
        "fold": fold,
        "patches": patches,
        "rmse_m": rmse,
        "percent_below_bicubic": gains,
    }


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Means over regions, each counting once: of RMSEs, and of percentages."""
    if not rows:
        return None
    mean_scores: dict[str, Any] = {"regions": len(rows)}
    for key in ("rmse_m", "percent_below_bicubic"):
        shared = [name for name in rows[0][key] if all(row[key].get(name) is not None for row in rows)]
        mean_scores[key] = {name: fmean(row[key][name] for row in rows) for name in shared}
    return mean_scores


def _cells(plan: Plan, data: str) -> dict[str, float] | None:
    """Cell sizes of what is scored, arc-seconds; None where there is no such data."""
    path = split_file(plan.data(data), "test")
    if not path.is_file():
        return None
    with reading(path), open_h5(path) as handle:
        fine = round(3600 * float(handle.attrs["cell_size_deg"]), 3)
    return {"fine": fine, "coarse": round(fine * plan.benchmark.cut.scale, 3)}


def _data(plan: Plan) -> dict[str, Any]:
    """Regions and patches of every data set that is there."""
    data_sets = {}
    for stage in plan.stages:
        if stage.name.startswith("data/"):
            name = stage.name.partition("/")[2]
            held = {split: regions_of(plan.data(name), split) for split in ("train", "valid", "test")}
            if any(held.values()):
                data_sets[name] = {
                    split: {"regions": len(regions), "patches": sum(regions.values())}
                    for split, regions in held.items()
                }
    return data_sets


def _ablations(plan: Plan) -> list[dict[str, Any]]:
    """Runs beside the long ones, and what else was made of these."""
    ablations, land, ocean = plan.benchmark.ablations, plan.benchmark.land, plan.benchmark.ocean
    entries = []
    if ablations is not None:
        fold = ablations.fold
        for name, variant in {"reference": reference(ablations), **ablations.variants}.items():
            data = plan.variant_data(fold, variant)
            entries.append(_entry(plan, name, variant, f"ablation/{name}", f"ablation/{name}", data))
        long = Variant(label=f"{plan.epochs(land.epochs)} epochs", topic="time")
        entries.append(_entry(plan, "long", long, f"{fold}/demsrnet", f"{fold}/demsrnet", fold))
        for name, variant in land.variants.items():
            label = f"{variant.label}, {plan.epochs(variant.epochs or land.epochs)} epochs"
            longer = variant.model_copy(update={"label": label})
            run, data = f"{fold}/{name}", plan.variant_data(fold, variant)
            entries.append(_entry(plan, f"long-{name}", longer, run, run, data))
        mean = f"mean of the long run's last {ablations.average_last} checkpoints"
        if land.tiles is not None:
            carried = Variant(
                label=f"carried on with tiles alone, {plan.epochs(land.tiles.epochs)} epochs", topic="data"
            )
            entries.append(_entry(plan, "tiles", carried, f"{fold}/tiles", f"{fold}/tiles", plan.tiles_data(fold)))
        others = ", ".join(variant.label for variant in land.variants.values())
        for name, label, topic in (
            ("averaged", mean, "weight averaging"),
            ("demsrnet-symmetries", "the long run, mean of the eight symmetries", "self-ensembling"),
            ("ensemble", f"the same, and of the long run of {others}", "ensemble"),
        ):
            made = Variant(label=label, topic=topic)
            entries.append(_entry(plan, name, made, f"{fold}/demsrnet", f"{fold}/{name}", fold, of_run=False))
    if ocean is not None:
        for name, variant in {
            "finetuned": Variant(label="as the recipe", topic="fine-tuning"),
            **ocean.variants,
        }.items():
            entries.append(_entry(plan, name, variant, f"ocean/{name}", f"ocean/{name}", "ocean"))
    return [entry for entry in entries if entry is not None]


def _entry(
    plan: Plan, name: str, variant: Variant, run: str, score: str, data: str, of_run: bool = True
) -> dict[str, Any] | None:
    metrics = read_json(plan.score(score) / "metrics.json")
    if metrics is None:
        return None
    folder = plan.run(run)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    curve = validation(folder)
    regions = regions_of(plan.data(data), "train")
    record = Records(plan.folders.output).read(f"train/{run}")
    bicubic = metrics["scores"]["bicubic"]["rmse"]
    best = min((point["rmse"] for point in curve), default=None)
    entry: dict[str, Any] = {
        "name": name,
        "topic": variant.topic,
        "label": variant.label,
        "kind": "ocean" if data == "ocean" else "land",
        "curve": variant.curve,
        "test_rmse_m": metrics["scores"]["model"]["rmse"],
        "test_bicubic_rmse_m": bicubic,
        "test_percent_below_bicubic": reduction(metrics["scores"]["model"]["rmse"], bicubic),
        "test_regions": {
            label.partition("/")[2]: reduction(group["scores"]["model"]["rmse"], group["scores"]["bicubic"]["rmse"])
            for label, group in metrics["groups"].items()
            if label.startswith("region/")
        },
    }
    if of_run:
        patches = sum(regions.values())
        # Patches of another size leave out other cells: their tests are those of all, their validation is like none.
        alike = bool(curve) and variant.patch is None
        entry |= {
            "valid_percent_below_bicubic": reduction(best, curve[0]["bicubic_rmse"] if alike else None),
            "epochs": len(curve),
            "training_regions": len(regions),
            "training_patches": patches,
            "blocks": config["model"].get("num_blocks"),
            "patch_size": config["data"]["patch_size"],
            "train_seconds": None if record is None else record.seconds,
        }
    return entry


def validation(run: Path) -> list[Mapping[str, Any]]:
    """Scores of the validation regions by epoch."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [{"epoch": record["epoch"], **record["valid"]} for record in records if "valid" in record]


def _over_time(plan: Plan) -> dict[str, Any] | None:
    """Percent below bicubic over the epochs of the long run: of the validation regions, and of the test's."""
    if plan.benchmark.ablations is None:
        return None
    fold = plan.benchmark.ablations.fold
    points = read_json(plan.score(f"{fold}/over-time") / "over_time.json")
    if points is None:
        return None
    return {
        "valid": [
            {"epoch": point["epoch"], "percent_below_bicubic": reduction(point["rmse"], point["bicubic_rmse"])}
            for point in validation(plan.run(f"{fold}/demsrnet"))
        ],
        "test": [
            {"epoch": point["epoch"], "percent_below_bicubic": point["rmse_reduction_vs_bicubic_percent"]}
            for point in points
        ],
    }

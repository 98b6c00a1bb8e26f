"""The model card: what a trained model is, what made it, how good it is, what it is for and what not.

A card is made of a spec and the metadata that travel with the weights; files beside them (``state.json`` of a
checkpoint, ``metrics.json`` of an evaluation) add what they know. What nobody recorded is said to be so. Sentences
on use, limits and citation follow from facts in the metadata; a publisher adds others under ``about`` (``limits``,
``intended_use``, ``data_licence``, ``weights_licence``, ``citation``). It is shown as text or as Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from earthsr.errors import printable
from earthsr.models.checkpoint import evaluation_folder
from earthsr.models.spec import NetworkSpec
from earthsr.store.untrusted import parse_json

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


#: How a value is given that neither weights nor files beside them hold.
NOT_RECORDED: Final = "not recorded"

_NAMES = {"demsrnet": "DEM-SRNet", "unet": "U-Net"}
#: Of a row's many scores those that a card shows, where the row has them.
_SCORES = ("rmse", "mae", "bias", "ssim", "slope_rmse_deg", "miou", "accuracy", "kappa")
_PATCH = 32
CODE_LICENCE: Final = "Apache-2.0"

_EARTHSR = "earthsr: deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore (Apache-2.0)"
_DEM_SRNET = (
    "Zhang et al., Super-resolution reconstruction of a 3 arc-second global DEM dataset, Science Bulletin (2022): "
    "the network"
)
_AI4LAND = "AI4Land, arXiv:2606.11793: the task and the use of a U-Net for it"
_UNET = "Ronneberger et al., U-Net, MICCAI (2015): the network"


def model_card(
    spec: NetworkSpec,
    metadata: Mapping[str, Any],
    *,
    name: str,
    notes: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put a model card together, as plain JSON-able values.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    metadata : mapping
        What travels with the weights in a weights file, an ONNX file or another format: ``normalisation``, ``task``,
        ``training``, ``scores``, ``about`` and others; any of them may be missing.
    name : str
        What the model is called, where its publisher gave it no name.
    notes : mapping, optional
        ``state.json`` of the checkpoint.
    metrics : mapping, optional
        ``metrics.json`` of an evaluation; it goes before scores in ``metadata``.

    Returns
    -------
    dict
        ``name``, ``summary`` and the sections ``architecture``, ``training_data``, ``training``, ``scores``,
        ``intended_use``, ``limits``, ``licence`` and ``citation``.
    """
    record = _record(metadata, notes or {})
    about = _mapping(metadata.get("about"))
    data = _data(spec, metadata, record)
    known = (spec, metadata, data, about)
    return {
        "name": about.get("name") or name,
        "summary": about.get("summary"),
        "architecture": _architecture(spec, metadata, record),
        "training_data": data,
        "training": _training(metadata, record),
        "scores": _scores(metadata, record, metrics),
        "intended_use": intended_use(*known),
        "limits": limits(*known),
        "licence": licences(about),
        "citation": citations(*known),
    }


def packed_scores(metrics: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what a card shows of ``metrics.json``, small enough to travel with weights as ``metadata["scores"]``.

    Parameters
    ----------
    metrics : mapping
        Of one evaluation.
    source : str
        Where the numbers come from, in words.
    """
    rows = {}
    for row, values in _mapping(metrics.get("scores")).items():
        merit = _mapping(values.get("change")).get("figure_of_merit")
        known = {**values, "figure_of_merit": merit} if merit is not None else values
        rows[row] = {key: known[key] for key in (*_SCORES, "figure_of_merit") if _is_number(known.get(key))}
    kept = {key: metrics[key] for key in ("task", "field", "split", "samples", "units") if key in metrics}
    reduction = metrics.get("rmse_reduction_vs_bicubic_percent")
    origin = _mapping(metrics.get("provenance"))
    return {
        "from": source,
        **kept,
        "backend": origin.get("backend"),
        "data_fingerprint": origin.get("data fingerprint"),
        "rows": rows,
        **({} if reduction is None else {"rmse_reduction_vs_bicubic_percent": reduction}),
    }


def metrics_beside(weights: str | Path) -> dict[str, Any] | None:
    """Contents of ``metrics.json`` of the evaluation in the run folder of a checkpoint, or beside bare weights.

    None where there is none, or it is of another checkpoint: an evaluation of an earlier one says nothing of this.
    """
    weights = Path(weights)
    inside = weights.parent.parent.name == "checkpoints"
    try:
        metrics = parse_json((evaluation_folder(weights) / "metrics.json").read_text(encoding="utf-8"))
        scored = Path(str(metrics["provenance"]["checkpoint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # By name and not by the whole path: run folders move.
    end = (weights.parent.name, weights.name) if inside else (weights.name,)
    return dict(metrics) if scored.parts[-len(end) :] == end else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _record(metadata: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the training: the weights' own record, else what ``state.json`` of an older run has of it."""
    own = metadata.get("training")
    if isinstance(own, Mapping):
        return dict(own)
    config = _mapping(notes.get("config"))
    if not config:
        return {}
    data, optimizer, train = (_mapping(config.get(key)) for key in ("data", "optimizer", "train"))
    progress, backend, sampler = (_mapping(notes.get(key)) for key in ("progress", "backend", "sampler"))
    spelled = f"{backend.get('name')} {backend.get('version')}" if backend else None
    return {
        "name": train.get("name"),
        "data": {
            "name": data.get("name"),
            "fingerprint": notes.get("data_fingerprint"),
            "samples": sampler.get("samples"),
            "patch_size": data.get("patch_size"),
        },
        "settings": {
            "loss": train.get("loss"),
            "optimizer": optimizer.get("name"),
            "learning_rate": optimizer.get("learning_rate"),
            "schedule": optimizer.get("schedule"),
            "batch_size": data.get("batch_size"),
            "amp_level": train.get("amp_level"),
            "seed": train.get("seed"),
        },
        "epoch": progress.get("epoch"),
        "step": progress.get("step"),
        "backend": spelled,
        "device": backend.get("device"),
        "precision": backend.get("precision"),
        "validation": {"value": progress.get("best_score"), "step": progress.get("best_step")},
    }


def _or_not(value: Any) -> Any:
    return NOT_RECORDED if value is None or value in ("", [], {}) else value


def _architecture(spec: NetworkSpec, metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    size = metadata.get("tile_size") or _mapping(record.get("data")).get("patch_size") or _PATCH
    # Options that came later are left out where they are off, as files older than them have it.
    kept = spec.to_dict()
    options = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name in kept}
    return {
        "network": f"{_NAMES.get(spec.kind, spec.kind)} ({spec.kind})",
        "parameters": spec.parameter_count,
        f"gflop_per_sample_of_{size}x{size}_cells": round(spec.flops(size, size) / 1e9, 3),
        "receptive_radius_cells": spec.receptive_radius,
        "output_cells_per_input_cell_and_axis": spec.scale,
        "inputs": [f"{field.name} {_extents(field.shape)} {field.dtype}" for field in spec.inputs],
        "options": options,
        "layer_groups": list(dict.fromkeys(group.split(".")[0] for group in spec.groups)),
    }


def _extents(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if extent is None else str(extent) for extent in shape)})"


def _data(spec: NetworkSpec, metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    about, data = _mapping(metadata.get("about")), _mapping(record.get("data"))
    facts = {
        "name": data.get("name"),
        "source": about.get("data_source") or data.get("source") or metadata.get("data_source"),
        "fingerprint": data.get("fingerprint"),
        "samples": data.get("samples"),
        "units": metadata.get("units"),
        "input_cell_size_deg": metadata.get("input_cell_size_deg"),
        "output_cell_size_deg": metadata.get("output_cell_size_deg"),
        "normalisation": _mapping(metadata.get("normalisation")).get("kind"),
        "splits": about.get("splits"),
    }
    if spec.kind == "unet":
        facts |= {
            "years": data.get("years"),
            "held_out_years": data.get("held_out_years"),
            "bounds_deg": data.get("bounds_deg"),
            "directions": metadata.get("directions"),
            "forcing": metadata.get("forcing"),
            "coarse_channels": metadata.get("coarse_channels"),
            "static_channels": metadata.get("static_channels"),
            "classes": _class_names(metadata),
        }
    else:
        facts["regions"] = data.get("regions")
    return {key: _or_not(value) for key, value in facts.items() if key != "splits" or value}


def _class_names(metadata: Mapping[str, Any]) -> list[str] | None:
    try:
        return [str(entry["name"]) for entry in parse_json(metadata["class_table"])["classes"]]
    except (KeyError, TypeError, ValueError):
        return None


def _training(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    settings = _mapping(record.get("settings"))
    return {
        "name": _or_not(record.get("name")),
        "steps": _or_not(record.get("step")),
        "epochs": _or_not(record.get("epoch")),
        **({"checkpoints_averaged": metadata["averaged"]} if "averaged" in metadata else {}),
        "backend": _or_not(record.get("backend")),
        "device": _or_not(record.get("device")),
        "precision": _or_not(record.get("precision")),
        "settings": dict(settings) or NOT_RECORDED,
        "earthsr_version": _or_not(metadata.get("earthsr_version")),
    }


def _scores(
    metadata: Mapping[str, Any], record: Mapping[str, Any], metrics: Mapping[str, Any] | None
) -> dict[str, Any]:
    if metrics is not None:
        return packed_scores(metrics, "evaluation/metrics.json beside the checkpoint (earthsr evaluate)")
    packed = metadata.get("scores")
    if isinstance(packed, Mapping) and isinstance(packed.get("rows"), Mapping):
        return dict(packed)
    validation = _mapping(record.get("validation"))
    if validation.get("value") is None:
        return {"from": f"{NOT_RECORDED}: nobody scored this file; earthsr evaluate does, with --data", "rows": {}}
    score = validation.get("score") or ("miou" if metadata.get("task") == "land_use" else "rmse")
    return {
        "from": f"validation during training, best of all epochs (step {validation.get('step')}); the split that chose "
        "it, and no baseline: earthsr evaluate scores a test split beside baselines",
        "split": "valid",
        "units": metadata.get("units"),
        "rows": {"model": {score: validation["value"]}},
    }


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value.startswith(NOT_RECORDED))


def intended_use(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What the model is made for, and what nobody should use it for."""
    if spec.kind == "demsrnet":
        sentences = [
            f"Elevation in metres on a regular grid, enlarged {spec.scale} times along each axis: earthsr predict, "
            "earthsr.predict.",
            "Detail is estimated and not measured: not for navigation, engineering or the safety of people.",
        ]
    elif metadata.get("task") == "land_field":
        field = metadata.get("field", "a continuous field")
        sentences = [f"Maps of {field} from class maps, coarse fractions and static fields: earthsr evaluate, Python."]
    else:
        sentences = [
            "Annual maps of land-use classes from one map, coarse fractions of a scenario and static fields, each "
            "year's map the next one's prior: earthsr reconstruct.",
            "A map is one that agrees with the scenario, not a forecast of what a place will be used for.",
        ]
    return [*_list(about.get("intended_use")), *sentences]


def limits(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What the model has not learnt, as far as its metadata tell."""
    sentences = _list(about.get("limits"))
    sentences += _dem_limits(spec, metadata) if spec.kind == "demsrnet" else _land_limits(metadata, data)
    if not any(_known(data.get(key)) for key in ("regions", "bounds_deg", "source")):
        sentences.append("Where it learnt is not recorded: try it where truth is known before you trust it elsewhere.")
    elif spec.kind == "demsrnet":
        sentences.append("Terrain unlike what it learnt from, and other products, are extrapolation.")
    return sentences


def _dem_limits(spec: NetworkSpec, metadata: Mapping[str, Any]) -> list[str]:
    sentences = [f"The scale is {spec.scale} and no other."]
    cell = metadata.get("input_cell_size_deg")
    if cell:
        sentences.append(
            f"Made for coarse cells of {cell:.6g} degrees; earthsr predict warns of cells that are a quarter larger or "
            "a fifth smaller."
        )
    else:
        sentences.append("The cell size that it learnt is not recorded, so that nothing warns of other cells.")
    kind = _mapping(metadata.get("normalisation")).get("kind")
    if kind == "patch" and not getattr(spec, "local_mean", 0):
        sentences.append("It knows heights near their patch's mean: take the Gaussian mode on rasters of much relief.")
    if getattr(spec, "resize", "half_pixel") == "asymmetric":
        sentences.append(
            f"Its upsampling is asymmetric and shifts terrain by {(spec.scale - 1) / 2:g} fine cells along each axis, "
            "unless training undid it; earthsr evaluate measures the offset."
        )
    if getattr(spec, "residual_over", "none") == "conservative":
        sentences.append("It takes coarse cells for area means: points picked from a finer grid are another input.")
    return sentences


def _land_limits(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    sentences = []
    if _known(data.get("classes")):
        sentences.append(f"It knows the classes {', '.join(data['classes'])}, and no others.")
    directions = _list(metadata.get("directions"))
    missing = [word for word in ("forwards", "backwards") if directions and word not in directions]
    if missing:
        sentences.append(f"Not trained to roll out {missing[0]}: maps drift there, and earthsr reconstruct warns.")
    years = data.get("years")
    if isinstance(years, list) and years:
        sentences.append(f"Learnt from the years {min(years)} to {max(years)}; others are extrapolation.")
    else:
        sentences.append("The years that it learnt from are not recorded.")
    bounds = data.get("bounds_deg")
    if isinstance(bounds, list):
        box = ", ".join(f"{value:g}" for value in bounds)
        sentences.append(f"Learnt inside west, south, east, north {box} degrees; elsewhere is extrapolation.")
    if metadata.get("forcing") == "oracle":
        sentences.append(
            "Learnt from an oracle: coarse fractions aggregated from the true maps. A scenario disagrees with maps, "
            "and scores with one are lower."
        )
    cells = metadata.get("output_cell_size_deg")
    if isinstance(cells, list) and cells:
        sentences.append(f"Cells of {cells[0]:.6g} degrees; other sizes are extrapolation.")
    return sentences


def licences(about: Mapping[str, Any]) -> dict[str, str]:
    """Licences of code, weights and data; those of weights and data are their publishers' to say."""
    weights = about.get("weights_licence") or "not recorded: for whoever trained the model to say"
    data = about.get("data_licence") or "not recorded: the data's files name none; that of their source holds"
    return {"code": CODE_LICENCE, "weights": str(weights), "training_data": str(data)}


def citations(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What to cite: this package, the network, the task, and the data's sources."""
    method = [_DEM_SRNET] if spec.kind == "demsrnet" else [_AI4LAND, _UNET]
    sources = _list(about.get("citation"))
    if not sources:
        known = data.get("source")
        sources = [f"the training data's source: {known}" if _known(known) else "the training data, once known"]
    return [_EARTHSR, *method, *sources]

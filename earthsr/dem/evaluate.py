"""What an evaluation of elevation finds: scores and errors by slope, offsets, pictures of patches and regions."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.data.dataset import Dataset
from earthsr.data.patches import Patches
from earthsr.dem.ground_errors import GroundErrors, ground_errors
from earthsr.dem.lattice import Lattice, lattice_of
from earthsr.dem.region_figures import THIN, profile_figure
from earthsr.dem.regions import draw_regions
from earthsr.dem.split import DemData
from earthsr.evaluation.baselines import baseline
from earthsr.evaluation.figures import comparison, save, score_bars
from earthsr.evaluation.report import ELEVATION, Columns, score_table
from earthsr.tasks.base import TaskScores
from earthsr.tasks.findings import Findings, Pictures, Tables, provenance_of

#: Fine cells from which on the headline speaks of an offset, where it is beyond two standard errors.
WORTH_SAYING: Final = 0.1

OFFSETS: Columns = (
    ("east_cells", "east (fine cells)", "+.3f"),
    ("south_cells", "south (fine cells)", "+.3f"),
    ("standard_error_cells", "standard error", ".3f"),
)

LATTICE: Columns = (
    ("edge_step_ratio", "step across coarse edges / within", ".3f"),
    ("curvature_ratio", "curvature, largest / smallest phase", ".3f"),
)

_REGION = "Errors share one scale, red where the surface is too high. Blank: no value, or no patch of the split."
_PROFILES = (
    "Root mean square error by slope and by elevation of the truth over the whole split, how far the model's is below "
    f"bicubic's, and how many cells there are. Hollow: fewer than {THIN:,} cells."
)


def _chosen_patches(source: DemData) -> dict[str, int]:
    """Patches to draw, by caption: those whose elevations spread (standard deviation) most, and as the median does."""
    spread: list[float] = []
    for patches in source.chunks():
        valid = np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)
        spread += [float(fine[ok].std()) if ok.any() else -1.0 for fine, ok in zip(patches.fine, valid, strict=True)]
    order = np.argsort(spread, kind="stable")
    chosen = {"largest spread of elevation": int(order[-1])}
    middle = int(order[len(order) // 2])
    if middle not in chosen.values() and spread[middle] >= 0:
        chosen["median spread of elevation"] = middle
    return chosen


def _draw(model: Model, patches: Patches, source: DemData, title: str, path: Path) -> Path:
    scale = model.spec.scale
    prediction = model.submit(patches.coarse).result()
    bicubic = baseline(patches.coarse, scale, "bicubic")
    cells = source.fine_cell_size_m()
    index = int(patches.indices[0])
    where = source.centre(index)
    if where is not None and cells is not None:
        size = np.array(patches.fine.shape[-2:]) * cells[index] / 1000
        title += f"; {where}, {size[1]:.1f} x {size[0]:.1f} km (east-west x north-south)"
    figure = comparison(
        patches.coarse[0, 0],
        patches.fine[0, 0],
        prediction[0, 0],
        bicubic[0, 0],
        patches.mask[0, 0].astype(bool),
        None if cells is None else (float(cells[index, 0]), float(cells[index, 1])),
        title,
        border=scale,
    )
    return save(figure, path)


def evaluation_findings(model: Model, source: DemData, dataset: Dataset, score: Callable[..., TaskScores]) -> Findings:
    """Score a split of elevations.

    Parameters
    ----------
    model : Model
        With weights and normalisation.
    source : DemData
        The split.
    dataset : Dataset
        Its batches, in the order of the file.
    score : callable
        Scores them, and shows every batch to ``observe``.

    Raises
    ------
    DataError
        If the split is damaged.
    """
    # Scoring reads every value, so damage shows before anything is written.
    cells, errors, lattice, split = source.fine_cell_size_m(), GroundErrors(), Lattice(), source.split
    scale = model.spec.scale

    def observe(patches: Patches, methods: Mapping[str, NDArray[np.float32]]) -> None:
        nonlocal errors, lattice
        sizes = None if cells is None else cells[patches.indices]
        errors += ground_errors(methods, patches.fine, patches.mask, border=scale, cell_size_m=sizes)
        lattice += lattice_of(methods, patches.fine, patches.mask, patches.indices, scale=scale, border=scale)

    scores = score(model, dataset, observe=observe)
    metrics = {**scores.to_dict(), **errors.to_dict(), "lattice": lattice.to_dict()}
    provenance = {
        **provenance_of(model, source, source.layout.attributes.get("source", "not stated in the file")),
        "definitions": "nearest: every fine cell has its coarse cell's value; bilinear, bicubic (cubic convolution, "
        "a = -1/2): between the centres of coarse cells; conservative: bicubic with a smooth surface added, so that "
        f"the mean over each coarse cell is its value; a border of {model.spec.scale} fine cells of each patch is left "
        "out of every score; bias is prediction minus truth",
    }

    def draw(folder: Path) -> tuple[Pictures, Tables]:
        pictures: Pictures = []
        for name, index in _chosen_patches(source).items():
            patches = source.read(np.array([index]))
            title = f"{split} patch {index} ({name}), {model.spec.scale}x"
            path = _draw(model, patches, source, title, folder / f"patch-{index:05d}.png")
            pictures.append((path, f"{title}. Elevations share one scale; so do errors."))
        bars = score_bars(metrics["scores"], f"{split} split, {metrics['samples']} patches")
        caption = "Root mean square and mean absolute error of the model and of interpolation."
        pictures.append((save(bars, folder / "scores.png"), caption))
        regions, left_out = draw_regions(model, source, folder)
        pictures += [(path, f"{caption} {_REGION}") for path, caption in regions]
        profiles = profile_figure(metrics["profiles"], f"{split} split: errors by slope and elevation of the truth")
        pictures.append((save(profiles, folder / "profiles.png"), _PROFILES))
        not_drawn = [("Regions without a picture", f"<p>{html.escape(', '.join(left_out))}</p>")] if left_out else []
        return pictures, not_drawn

    return Findings(
        title="DEM super-resolution: evaluation",
        metrics=metrics,
        provenance=provenance,
        headline=_headline(metrics),
        columns=ELEVATION,
        tables=[
            ("Scores", score_table(metrics["scores"])),
            *_group_tables(metrics),
            *_offset_table(metrics),
            *_lattice_table(metrics),
        ],
        draw=draw,
        curves="Training loss and learning rate by step; validation RMSE by epoch.",
    )


def _headline(metrics: dict[str, Any]) -> str:
    rmse, reduction = metrics["scores"]["model"]["rmse"], metrics.get("rmse_reduction_vs_bicubic_percent")
    gain = "" if reduction is None else f", {reduction:.2f} % below bicubic"
    shown = "–" if rmse is None else f"{rmse:.3f}"
    return f"RMSE {shown} m{gain} on {metrics['samples']} patches of the {metrics['split']} split{_shift(metrics)}"


def _shift(metrics: dict[str, Any]) -> str:
    """The model's offset where it is worth a word."""
    offset = metrics["offset"]["model"]
    east, south = offset["east_cells"] or 0.0, offset["south_cells"] or 0.0
    error = offset["standard_error_cells"] or 0.0
    if np.hypot(east, south) <= max(WORTH_SAYING, 2 * error):
        return ""
    words = f"{abs(east):.2f} fine cells {'east' if east > 0 else 'west'}"
    words += f" and {abs(south):.2f} {'south' if south > 0 else 'north'}"
    return f"; predictions lie {words} of the truth (standard error {error:.2f}, not corrected)"


def _offset_table(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    heading = "Offset from the truth, fitted over the split (reported, never corrected)"
    return [(heading, score_table(metrics["offset"], OFFSETS))]


def _lattice_table(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    gain = metrics["lattice"]["phase_filter_gain_percent"]
    behind = "" if gain is None else f"; a 7 x 7 filter by phase behind the model would gain {gain:.1f} % of its RMSE"
    heading = f"Whether the coarse grid shows: as in the truth, or not{behind}"
    return [(heading, score_table(metrics["lattice"]["surfaces"], LATTICE))]


def _group_tables(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Tables of the groups; one that holds every patch says nothing more."""
    return [
        (f"{label} ({values['samples']} patches)", score_table(values["scores"]))
        for label, values in metrics.get("groups", {}).items()
        if values["samples"] != metrics["samples"]
    ]

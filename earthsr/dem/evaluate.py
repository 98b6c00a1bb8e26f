"""What an evaluation of elevation finds: scores and errors by slope, offsets, pictures of patches and regions."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.data.dataset import Dataset
from earthsr.data.samples import Patches
from earthsr.dem.ground_errors import GroundErrors, ground_errors
from earthsr.dem.lattice import Lattice, lattice_of
from earthsr.dem.page import Surface, elevation_page
from earthsr.dem.region_figures import THIN, profile_figure, region_figure
from earthsr.dem.region_views import View, choose_regions, view
from earthsr.dem.split import DemData
from earthsr.evaluation.figures import comparison, save, score_bars
from earthsr.evaluation.metrics import Metric, MetricSums, add_scores, metric_sums
from earthsr.evaluation.page.write import PAGE, write_page
from earthsr.evaluation.report import ELEVATION, Columns, score_table
from earthsr.evaluation.statistics import add_up, baseline
from earthsr.geo.resample import interpolate
from earthsr.ranks import Rank
from earthsr.store import atomic_file
from earthsr.tasks.base import Findings, Pictures, Tables, TaskScores, provenance_of

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


#: What stands in the rows.
_TERMS = {
    "model": "The network's prediction.",
    "nearest": "Every fine cell has its coarse cell's value.",
    "bilinear": "Straight between the centres of coarse cells.",
    "bicubic": "Cubic convolution, a = -1/2, between the centres of coarse cells.",
    "conservative": "Bicubic with a smooth surface added, so that the mean over each coarse cell is its value.",
}


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


@dataclass(frozen=True)
class Tally:
    """What is counted of a split, or of a share of it; ``a + b`` adds up."""

    scores: TaskScores
    errors: GroundErrors
    lattice: Lattice
    metrics: MetricSums
    """Of scores of one's own."""

    def __add__(self, other: Tally) -> Tally:
        metrics = {name: add_up(sums, other.metrics[name]) for name, sums in self.metrics.items()}
        scores: Any = self.scores
        return Tally(scores + other.scores, self.errors + other.errors, self.lattice + other.lattice, metrics)


def tally_of(
    model: Model, dataset: Dataset, share: Rank, score: Callable[..., TaskScores], metrics: Mapping[str, Metric]
) -> Tally:
    """Score patches, and look at their errors by the ground and for the coarse grid.

    Parameters
    ----------
    model : Model
        With weights and normalisation.
    dataset : Dataset
        Batches of a split, in the order of the file.
    share : Rank
        Every n-th batch alone.
    score : callable
        Scores them, and shows every batch to ``observe``.
    metrics : mapping of str to Metric
        Scores of one's own.

    Raises
    ------
    DataError
        If the split is damaged.
    """
    cells, errors, lattice = dataset.generator.fine_cell_size_m(), GroundErrors(), Lattice()
    scale = model.spec.scale
    sums: MetricSums = {name: {} for name in metrics}

    def observe(patches: Patches, methods: Mapping[str, NDArray[np.float32]]) -> None:
        nonlocal errors, lattice, sums
        sizes = None if cells is None else cells[patches.indices]
        errors += ground_errors(methods, patches.fine, patches.mask, border=scale, cell_size_m=sizes)
        lattice += lattice_of(methods, patches.fine, patches.mask, patches.indices, scale=scale, border=scale)
        if metrics:
            # As other scores do, without the border of a coarse cell.
            inner = (..., slice(scale, -scale), slice(scale, -scale))
            truth = patches.fine[inner]
            flat = (-1, *truth.shape[-2:])  # every channel is a field
            valid = np.broadcast_to(patches.mask[inner].astype(bool), truth.shape).reshape(flat)
            fields = {name: fine[inner].reshape(flat) for name, fine in methods.items()}
            of_batch = metric_sums(metrics, fields, truth.reshape(flat), valid)
            sums = {name: add_up(of_metric, of_batch[name]) for name, of_metric in sums.items()}

    scores = score(model, dataset, observe=observe, share=share)
    return Tally(scores, errors, lattice, sums)


def evaluation_findings(
    model: Model, source: DemData, tally: Tally, metrics_of_ones_own: Mapping[str, Metric]
) -> Findings:
    """Say what was counted of a split of elevations.

    Parameters
    ----------
    model : Model
        With weights and normalisation.
    source : DemData
        The split.
    tally : Tally
        Of all of it.
    metrics_of_ones_own : mapping of str to Metric
        Whose sums the tally has.
    """
    split, scale = source.split, model.spec.scale
    metrics = {**tally.scores.to_dict(), **tally.errors.to_dict(), "lattice": tally.lattice.to_dict()}
    columns = [*ELEVATION, *add_scores(metrics["scores"], tally.metrics, metrics_of_ones_own)]
    provenance = {
        **provenance_of(model, source, source.layout.attributes.get("source", "not stated in the file")),
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
        columns=columns,
        tables=[
            ("Scores", score_table(metrics["scores"], columns)),
            *_group_tables(metrics),
            *_offset_table(metrics),
            *_lattice_table(metrics),
        ],
        draw=draw,
        curves="Training loss and learning rate by step; validation RMSE by epoch.",
        terms={
            **{row: text for row, text in _TERMS.items() if row in metrics["scores"]},
            "scores": f"A border of {scale} fine cells of each patch is left out; bias is prediction minus truth.",
        },
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


def draw_regions(model: Model, source: DemData, folder: Path) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    """Draw a picture of each chosen region.

    The prediction is made of the whole view in one piece, as ``earthsr predict`` does, so that it has no seams.

    Returns
    -------
    tuple
        Files with captions, and the regions that were not drawn.
    """
    chosen = choose_regions(source)
    scale, cells = model.spec.scale, source.fine_cell_size_m()
    drawn = []
    for number, (name, index) in enumerate(chosen.patches.items(), start=1):
        piece = view(source, index)
        field = piece.coarse[None]
        prediction = model.submit(field).result()[0, 0]
        bicubic = baseline(field, scale, "bicubic")[0, 0]
        where = source.centre(index)
        place = f" near {where}" if where is not None else ""
        size, extent = None, ""
        if cells is not None:
            size = float(cells[index, 0]), float(cells[index, 1])
            high, wide = np.array(piece.valid.shape) * size / 1000
            extent = f"; {wide:.0f} x {high:.0f} km (east-west x north-south)"
        figure = region_figure(
            piece.coarse[0],
            piece.truth[0],
            prediction,
            bicubic,
            piece.valid,
            size,
            f"{name}, enlarged {scale} times{',' if place else ''}{place}{extent}",
            border=scale,
        )
        if number == 1:
            _write_page(name, piece, bicubic, prediction, scale, folder.parent / PAGE)
        path = save(figure, folder / f"region-{number}-{re.sub('[^A-Za-z0-9._-]+', '-', name)}.png")
        drawn.append((path, f"Region {name}: around its steepest patch of the {source.split} split{place}."))
    return drawn, chosen.left_out


def _write_page(
    name: str, piece: View, bicubic: NDArray[np.float32], prediction: NDArray[np.float32], scale: int, path: Path
) -> None:
    """Write a page to slide from what went in to the truth, where Bokeh is there and the file says where cells lie."""
    if piece.grid is None or find_spec("bokeh") is None:
        return
    low = interpolate(piece.coarse[0], scale, "nearest").astype(np.float32, copy=False)
    truth = np.where(piece.valid, piece.truth[0], np.float32(np.nan))
    titles = ("low resolution", "bicubic", "prediction", "truth")
    shown = [Surface(title, v, v) for title, v in zip(titles, (low, bicubic, prediction, truth), strict=True)]
    notes = (f"{name}: {piece.grid.rows} x {piece.grid.columns} cells, enlarged {scale} times",)
    page = elevation_page("Low resolution, bicubic, prediction and truth", piece.grid, shown, notes, truth=3)
    with atomic_file(path) as temporary:
        write_page(page, temporary)

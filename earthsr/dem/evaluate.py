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
from earthsr.data.hdf5 import open_h5, reading
from earthsr.data.samples import Patches
from earthsr.dem.ground_errors import GroundErrors, ground_errors
from earthsr.dem.lattice import Lattice, lattice_of
from earthsr.dem.page import Surface, elevation_page
from earthsr.dem.region_figures import THIN, profile_figure, region_figure
from earthsr.dem.split import DemData
from earthsr.evaluation.figures import comparison, save, score_bars
from earthsr.evaluation.metrics import Metric, MetricSums, add_scores, metric_sums
from earthsr.evaluation.page.write import PAGE, write_page
from earthsr.evaluation.report import ELEVATION, Columns, score_table
from earthsr.evaluation.statistics import add_up, baseline
from earthsr.geo.grid import Grid
from earthsr.geo.resample import interpolate
from earthsr.geo.terrain import slope_degrees
from earthsr.ranks import Rank
from earthsr.store import atomic_file
from earthsr.tasks.base import Findings, Pictures, Tables, TaskScores, provenance_of

#: Regions that are drawn at most; the report lists the others.
MOST_REGIONS: Final = 8

# Sides of a picture in patches, where there are neighbours.
_SIDE: Final = 2

_METRES_PER_DEGREE: Final = np.pi * 6_371_008.8 / 180

# Fine cells of files that do not say how large they are: which of their patches is steepest does not depend on it.
_ASSUMED_M: Final = (90.0, 90.0)

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
            inner = (slice(None), 0, slice(scale, -scale), slice(scale, -scale))
            fields = {name: fine[inner] for name, fine in methods.items()}
            of_batch = metric_sums(metrics, fields, patches.fine[inner], patches.mask[inner].astype(bool))
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


@dataclass(frozen=True)
class View:
    """A piece of a region, put together from neighbouring patches."""

    coarse: NDArray[np.float32]
    """(C, h, w), metres; NaN where no patch is or none has a value."""
    truth: NDArray[np.float32]
    """(C, H, W), metres."""
    valid: NDArray[np.bool_]
    """(H, W)."""
    grid: Grid | None
    """Of the truth, degrees; None where the file does not say where patches lie."""


@dataclass(frozen=True)
class Chosen:
    """What is drawn of a split."""

    patches: Mapping[str, int]
    """By region: its steepest patch. Those regions that have most patches, in their order."""
    left_out: tuple[str, ...]
    """Other regions."""


def choose_regions(source: DemData, most: int = MOST_REGIONS) -> Chosen:
    """Choose the regions with most patches, and of each the patch with the steepest ground.

    Nothing where the file does not name regions. A void counts as flat ground, so that a patch with few cells is not
    chosen for them.
    """
    labels = source.groups().get("region")
    if labels is None:
        return Chosen({}, ())
    cells = _cell_sizes(source)
    steepness = np.full(len(source), -1.0)
    for patches in source.chunks():
        dy, dx = (cells[patches.indices, i, None, None, None] for i in (0, 1))
        known = np.broadcast_to(patches.mask.astype(bool), patches.fine.shape)
        slope = slope_degrees(np.where(known, patches.fine, np.nan), dy, dx)
        steepness[patches.indices] = np.nan_to_num(slope).mean(axis=(1, 2, 3))
    names, counts = np.unique(labels, return_counts=True)
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    chosen = {}
    for name in sorted(str(names[i]) for i in order[:most]):
        patches_of_region = np.flatnonzero(labels == name)
        chosen[name] = int(patches_of_region[np.argmax(steepness[patches_of_region])])
    return Chosen(chosen, tuple(sorted(str(names[i]) for i in order[most:])))


def view(source: DemData, index: int) -> View:
    """Put the surroundings of a patch together from its region's patches, up to two patches wide.

    The patch alone where the file does not say where patches lie.
    """
    places = _places(source, index)
    p, scale = source.layout.patch_size, source.layout.scale
    low, high = (find(np.stack(list(places.values())), axis=0) for find in (np.min, np.max))
    side = np.minimum(_SIDE * p, high + p - low)
    start = _fullest(np.stack(list(places.values())), p, side, low, high + p)
    channels = source.layout.channels
    coarse = np.full((channels, *side), np.nan, np.float32)
    truth = np.zeros((channels, *(side * scale)), np.float32)
    valid = np.zeros(side * scale, bool)
    near = [i for i, place in places.items() if np.all(place + p > start) and np.all(place < start + side)]
    for i in near:
        patch = source.read(np.array([i]))
        inside = tuple(
            slice(max(at, first), min(at + p, first + length))
            for at, first, length in zip(places[i], start, side, strict=True)
        )
        to = tuple(slice(s.start - first, s.stop - first) for s, first in zip(inside, start, strict=True))
        of = tuple(slice(s.start - at, s.stop - at) for s, at in zip(inside, places[i], strict=True))
        coarse[..., *to] = patch.coarse[0][..., *of]
        fine_to, fine_of = (tuple(slice(s.start * scale, s.stop * scale) for s in cut) for cut in (to, of))
        truth[..., *fine_to] = patch.fine[0][..., *fine_of]
        valid[fine_to] = patch.mask[0, 0][fine_of] != 0
    return View(coarse, truth, valid, _grid_of(source, index, start, valid.shape))


def _grid_of(source: DemData, index: int, start: NDArray[np.int64], shape: tuple[int, ...]) -> Grid | None:
    """Fine grid of a view that begins so many coarse rows and columns from a patch."""
    cells, origins = source.fine_cell_size_m(), _origins(source)
    if cells is None or origins is None:
        return None
    fine = cells[index, 0] / _METRES_PER_DEGREE
    coarse = fine * source.layout.scale
    west, north = origins[index]
    return Grid(west + start[1] * coarse, north - start[0] * coarse, fine, fine, shape[0], shape[1])


def _origins(source: DemData) -> NDArray[np.float64] | None:
    """Longitude and latitude of each patch's north-western corner, (N, 2)."""
    with reading(source.path), open_h5(source.path) as handle:
        return np.asarray(handle["origin"][...], np.float64) if "origin" in handle else None


def _fullest(
    places: NDArray[np.int64], patch: int, side: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """First row and column of the window around the patch at 0, 0 that patches cover most; of equals the middle one."""
    covered = np.zeros(high - low, np.int64)
    for row, column in places - low:
        covered[row : row + patch, column : column + patch] = 1
    sums = np.pad(covered.cumsum(0).cumsum(1), [(1, 0), (1, 0)])
    rows, columns = (
        np.arange(max(first, patch - length), min(0, last - length) + 1)
        for first, last, length in zip(low, high, side, strict=True)
    )
    top, left = (rows - low[0])[:, None], (columns - low[1])[None, :]
    area = sums[top + side[0], left + side[1]] - sums[top, left + side[1]] - sums[top + side[0], left] + sums[top, left]
    distance = np.abs(2 * rows + side[0] - patch)[:, None] + np.abs(2 * columns + side[1] - patch)[None, :]
    best = np.lexsort((distance.ravel(), -area.ravel()))[0]
    row, column = np.unravel_index(best, area.shape)
    return np.array([rows[row], columns[column]])


def _places(source: DemData, index: int) -> dict[int, NDArray[np.int64]]:
    """Rows and columns of the region's patches on the coarse grid, seen from one of them, by their positions."""
    steps = {index: np.zeros(2, np.int64)}
    labels, cells = source.groups().get("region"), source.fine_cell_size_m()
    if labels is None or cells is None:
        return steps
    origin = _origins(source)
    if origin is None:
        return steps
    degrees = cells[index, 0] / _METRES_PER_DEGREE * source.layout.scale
    for i in np.flatnonzero(labels == labels[index]):
        east = (origin[i, 0] - origin[index, 0] + 180) % 360 - 180
        place = np.array([origin[index, 1] - origin[i, 1], east]) / degrees
        whole = np.round(place)
        # Tiles of a region may lie on grids of their own.
        if np.abs(place - whole).max() < 0.02 and np.isclose(cells[i, 0], cells[index, 0], rtol=1e-6):
            steps[int(i)] = whole.astype(np.int64)
    return steps


def _cell_sizes(source: DemData) -> NDArray[np.float64]:
    cells = source.fine_cell_size_m()
    return np.tile(np.array(_ASSUMED_M), (len(source), 1)) if cells is None else cells


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

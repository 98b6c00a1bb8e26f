"""Models beside linear rivals on whole tiles that none was fitted to: block means, bells, and real pairs of products.

    python tools/benchmark_products.py --output DIR --fit TILE… --test NAME=TILE… --degradation block_mean --model M=RUN
    python tools/benchmark_products.py --output DIR --fit TILE… --pair NAME=COARSE,TILE --model M=RUN

``--degradation`` makes coarse cells of the ``--test`` tiles; a ``--pair`` has them from a product, which is registered
first and scored on land alone. Rivals are interpolations (nearest to cubic spline), the back-projected surface that
keeps means, and the linear filter: 7 x 7 coarse cells to the 25 fine cells of the middle one, least squares on the
``--fit`` tiles, degraded as the test is (of a pair as ``--pair-degradation`` says). Scores are of blocks of 24 coarse
cells, two cells away from every void and edge; intervals are of 95 %, by 1,000 bootstraps of these blocks. Runs of one
model that differ in their seed are scored as one (``M=RUN,RUN``): its score is the mean of theirs, its interval draws
seeds as it draws blocks.

Draws hillshades of bicubic interpolation, the first model and the truth. Writes ``scores.json``, and appends a line to
``scorings.jsonl``: how often a test was looked at, and with which models.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthsr.api import from_pretrained
from earthsr.backend import Model
from earthsr.dem.degradation import Degradation
from earthsr.dem.lattice import lattice_of
from earthsr.dem.predict.ensemble import ensemble
from earthsr.dem.prepare.pairs import align, read_padded
from earthsr.dem.prepare.register import register_region
from earthsr.errors import EarthsrError, InputError
from earthsr.evaluation.figures import new_figure, save
from earthsr.geo import Source, open_source
from earthsr.geo.elevations import elevations
from earthsr.geo.resample import interpolate
from earthsr.geo.terrain import hillshade
from earthsr.geo.voids import fill_voids
from earthsr.store import make_folder, write_json

SCALE = 5
#: Coarse cells per side of a block, and around it that hold a value.
BLOCK, AWAY = 24, 2
#: Coarse cells to each side that the linear filter reads.
REACH = 3
#: Metres below which land of a pair is not scored: a product knows the sea's floor there, and the truth does not.
SHORE_M = 5.0

Field = NDArray[np.float64]
Method = Callable[[Field], Field]


class Scene(NamedTuple):
    """Coarse cells (h, w) and the truth (h * scale, w * scale), metres, NaN for voids."""

    coarse: Field
    truth: Field
    cell_m: tuple[float, float]
    """North-south and east-west size of the fine cells, metres."""


def cell_sizes(source: Source) -> tuple[float, float]:
    """Size of the cells of a grid of latitude and longitude, at its middle, metres."""
    grid = source.georeference
    metres = np.pi * 6_371_008.8 / 180
    middle = np.deg2rad(grid.north - grid.rows * grid.cell_y / 2)
    return grid.cell_y * metres, grid.cell_x * metres * float(np.cos(middle))


def whole(source: Source) -> Field:
    grid = source.georeference
    return read_padded(source, 0, grid.rows - 1, 0, grid.columns - 1)


def degraded(tile: str, degradation: Degradation) -> Scene:
    """Return the scene of a tile whose coarse cells a degradation makes."""
    source = elevations(open_source(tile, units="m"))
    fine = whole(source)
    rows, columns = (size - size % SCALE for size in fine.shape)
    fine = fine[:rows, :columns]
    return Scene(degradation.coarse(fine, SCALE), fine, cell_sizes(source))


def paired(name: str, coarse: str, tile: str) -> tuple[Scene, dict[str, Any]]:
    """Return the scene of a product over a tile, registered, with what was found of its place."""
    hr, lr = (elevations(open_source(path, units="m")) for path in (tile, coarse))
    registration = register_region(name, hr, lr, SCALE, "auto", flat_sea=True)
    alignment = align(hr.georeference, lr.georeference, SCALE, registration.corrected)
    rows, columns = alignment.rows, alignment.columns
    first = [round(float(axis.positions(0, 1)[0])) for axis in (rows, columns)]
    values = read_padded(lr, first[0], first[0] + rows.blocks - 1, first[1], first[1] + columns.blocks - 1)
    ends = rows.first + SCALE * rows.blocks - 1, columns.first + SCALE * columns.blocks - 1
    truth = read_padded(hr, rows.first, ends[0], columns.first, ends[1])
    truth[truth < SHORE_M] = np.nan
    return Scene(values, truth, cell_sizes(hr)), registration.to_dict()


class LinearFilter:
    """7 x 7 coarse cells to the fine cells of the middle one: the least squares of some scenes."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        size = (2 * REACH + 1) ** 2
        normal, right = 1e-6 * np.eye(size), np.zeros((size, SCALE**2))
        for coarse, truth, _ in scenes:
            taps, middle = self._taps(coarse)
            height, width = coarse.shape
            fine = truth.reshape(height, SCALE, width, SCALE).transpose(0, 2, 1, 3).reshape(-1, SCALE**2) - middle
            known = np.isfinite(taps).all(axis=1) & np.isfinite(fine).all(axis=1)
            normal += taps[known].T @ taps[known]
            right += taps[known].T @ fine[known]
        self.weights = np.linalg.solve(normal, right)

    @staticmethod
    def _taps(coarse: Field) -> tuple[Field, Field]:
        """Departures of the cells around each from it, and the cell itself."""
        padded = np.pad(coarse, REACH, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * REACH + 1,) * 2)
        middle = coarse.reshape(-1, 1)
        return windows.reshape(len(middle), -1) - middle, middle

    def __call__(self, coarse: Field) -> Field:
        """Coarse cells (h, w) to fine ones, metres."""
        height, width = coarse.shape
        taps, middle = self._taps(coarse)
        fine = (taps @ self.weights + middle).reshape(height, width, SCALE, SCALE)
        return fine.transpose(0, 2, 1, 3).reshape(height * SCALE, width * SCALE)


def spline(coarse: Field) -> Field:
    """Cubic spline through the centres of the coarse cells."""
    values: Field = ndimage.zoom(coarse, SCALE, order=3, mode="nearest", grid_mode=True)
    return values


def network(model: Model, symmetries: bool) -> Method:
    """Predict in one piece, as the mean over the symmetries where asked for."""
    members = ensemble([model], symmetries)

    def predict(coarse: Field) -> Field:
        batch = coarse[None, None].astype(np.float32)
        return np.mean([member.start(batch, None, 1).result()[0, 0] for member in members], axis=0, dtype=np.float64)

    return predict


def blocks_of(field: Field, corners: Sequence[tuple[int, int]], scale: int = SCALE) -> NDArray[np.float64]:
    side = BLOCK * scale
    return np.stack(
        [field[row * scale : row * scale + side, column * scale : column * scale + side] for row, column in corners]
    )


def clear_cells(scene: Scene) -> NDArray[np.bool_]:
    """Fine cells (H, W) that are scored: two coarse cells away from every void and edge.

    A product over a steep shore has the sea's floor in its cells, which land cannot be told from.
    """
    coarse, truth, _ = scene
    height, width = coarse.shape
    lacking = np.isnan(truth).reshape(height, SCALE, width, SCALE).any(axis=(1, 3))
    void = ~np.isfinite(coarse) | lacking
    near = ndimage.maximum_filter(np.pad(void, 1, constant_values=True), 2 * AWAY + 1)[1:-1, 1:-1]
    clear: NDArray[np.bool_] = np.isfinite(truth) & ~near.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return clear


def score(scene: Scene, methods: dict[str, list[Method]], seed: int) -> dict[str, Any]:
    """Score every method, each with one or more seeds, on a scene.

    Root mean squares, what they are below bicubic's, and the coarse grid's traces (those of the first seed).
    """
    coarse, truth = scene.coarse, scene.truth
    height, width = coarse.shape
    clear = clear_cells(scene)
    filled = np.nan_to_num(fill_voids(coarse[None, None].astype(np.float32))[0, 0].astype(np.float64))
    corners = [(r, c) for r in range(0, height - BLOCK + 1, BLOCK) for c in range(0, width - BLOCK + 1, BLOCK)]
    valid = blocks_of(clear.astype(np.float64), corners) > 0
    some = valid.mean(axis=(1, 2)) > 0.2
    corners, valid = [corner for corner, use in zip(corners, some, strict=True) if use], valid[some]
    if not corners:
        raise InputError("no block of a scene has land in a fifth of its cells: take another tile")
    target = np.nan_to_num(blocks_of(truth, corners))
    cells = valid.sum(axis=(1, 2))
    draws = np.random.default_rng(seed)
    picks = draws.integers(0, len(corners), (1000, len(corners)))
    result: dict[str, Any] = {"blocks": len(corners), "cells": int(cells.sum())}
    reference = np.zeros(0)
    for name, members in methods.items():
        squares, first = np.zeros((len(members), len(corners))), np.zeros(0)
        for place, member in enumerate(members):
            field = blocks_of(np.nan_to_num(member(filled)), corners)
            squares[place] = np.where(valid, (field - target) ** 2, 0).sum(axis=(1, 2))
            first = field if place == 0 else first
        # Bicubic comes first, and is what the others are below.
        reference = squares[0] if name == "bicubic" else reference
        below = 100 * (1 - np.sqrt(squares.sum(axis=1) / reference.sum()))
        runs = draws.integers(0, len(members), (len(picks), len(members)))
        ratios = squares[runs[:, :, None], picks[:, None, :]].sum(axis=2) / reference[picks].sum(axis=1)[:, None]
        low, high = np.percentile(100 * (1 - np.sqrt(ratios)).mean(axis=1), [2.5, 97.5])
        lattice = lattice_of(
            {"model": first[:, None]}, target[:, None], valid[:, None].astype(np.uint8),
            np.arange(len(corners)), scale=SCALE, border=0,
        ).to_dict()  # fmt: skip
        result[name] = {
            "rmse_m": float(np.sqrt(squares.sum(axis=1) / cells.sum()).mean()),
            "below_bicubic_percent": float(below.mean()),
            "interval_percent": [float(low), float(high)],
            "seeds_percent": [float(value) for value in below],
            "lattice": lattice,
        }
    return result


def draw(scene: Scene, methods: dict[str, Method], title: str, path: Path) -> None:
    """Draw hillshades of bicubic interpolation, a model and the truth, where a window with few voids has most relief.

    Cells that are not scored are blank.
    """
    side = min(280, *scene.truth.shape)
    clear = clear_cells(scene)
    shares = {
        (row, column): clear[row : row + side, column : column + side].mean()
        for row in range(0, scene.truth.shape[0] - side + 1, 4 * SCALE)
        for column in range(0, scene.truth.shape[1] - side + 1, 4 * SCALE)
    }
    corners = [corner for corner, share in shares.items() if share >= min(0.8, max(shares.values()))]
    top, left = max(corners, key=lambda at: np.nanstd(scene.truth[at[0] : at[0] + side, at[1] : at[1] + side]))
    window = (slice(top, top + side), slice(left, left + side))
    filled = np.nan_to_num(fill_voids(scene.coarse[None, None].astype(np.float32))[0, 0].astype(np.float64))
    blank = ~clear[window]
    panels = {name: np.where(blank, np.nan, method(filled)[window]) for name, method in methods.items()}
    truth = np.where(blank, np.nan, scene.truth[window])
    figure = new_figure(4.2 * (len(panels) + 1), 4.4)
    for axes, (name, field) in zip(
        figure.subplots(1, len(panels) + 1), {**panels, "truth": truth}.items(), strict=True
    ):
        light = hillshade(np.nan_to_num(field, nan=float(np.nanmin(field))), *scene.cell_m)
        light = np.where(ndimage.maximum_filter(np.isnan(field), 3), np.nan, light)
        axes.imshow(light, cmap="gray", vmin=0, vmax=1, aspect=scene.cell_m[0] / scene.cell_m[1])
        rmse = float(np.sqrt(np.nanmean((field - truth) ** 2)))
        axes.set_title(name if name == "truth" else f"{name}: RMSE {rmse:.1f} m", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def named(text: str, option: str) -> tuple[str, str]:
    name, separator, rest = text.partition("=")
    if not separator:
        raise InputError(f"{option} is {text!r}, expected NAME=PATH")
    return name, rest


def run(words: argparse.Namespace) -> dict[str, Any]:
    """Score all scenes with all methods."""
    models: dict[str, list[Method]] = {}
    for text in words.model:
        name, checkpoints = named(text, "--model")
        runs = [from_pretrained(checkpoint, backend=words.backend) for checkpoint in checkpoints.split(",")]
        models[name] = [network(model, False) for model in runs]
        if words.symmetries:
            models[f"{name}, symmetries"] = [network(model, True) for model in runs]
    scenes: dict[str, tuple[Scene, str]] = {}
    report: dict[str, Any] = {"scenes": {}, "registration": {}}
    for text in words.test:
        name, tile = named(text, "--test")
        for degradation in words.degradation:
            scenes[f"{name}, {degradation}"] = degraded(tile, Degradation.parse(degradation, SCALE)), degradation
    for text in words.pair:
        name, paths = named(text, "--pair")
        coarse, _, tile = paths.partition(",")
        scene, report["registration"][name] = paired(name, coarse, tile)
        scenes[f"{name}, product"] = scene, words.pair_degradation
    filters: dict[str, LinearFilter] = {}
    for label, (scene, degradation) in scenes.items():
        if degradation not in filters:
            parsed = Degradation.parse(degradation, SCALE)
            filters[degradation] = LinearFilter([degraded(tile, parsed) for tile in words.fit])
        methods: dict[str, list[Method]] = {
            "bicubic": [partial(interpolate, scale=SCALE, method="bicubic")],
            "nearest": [partial(interpolate, scale=SCALE, method="nearest")],
            "bilinear": [partial(interpolate, scale=SCALE, method="bilinear")],
            "spline": [spline],
            "keeps means": [partial(interpolate, scale=SCALE, method="mean_preserving")],
            "linear filter": [filters[degradation]],
            **models,
        }
        row = report["scenes"][label] = score(scene, methods, words.seed)
        shown = {name: methods[name][0] for name in ("bicubic", *list(models)[:1])}
        draw(scene, shown, label, words.output / f"{label.replace(', ', '-').replace(':', '-')}.png")
        print(f"{label} ({row['blocks']} blocks, bicubic {row['bicubic']['rmse_m']:.2f} m)")
        for name in methods:
            own = row[name]
            low, high = own["interval_percent"]
            gain = own["lattice"]["phase_filter_gain_percent"]
            curvature = own["lattice"]["surfaces"]["model"]["curvature_ratio"]
            print(
                f"  {name:24} {own['rmse_m']:8.2f} m {own['below_bicubic_percent']:6.1f} % ({low:.1f} to {high:.1f})"
                + (
                    f", seeds {', '.join(f'{value:.1f}' for value in own['seeds_percent'])}"
                    if len(methods[name]) > 1
                    else ""
                )
                + (f", curvature by phase 1 : {curvature:.2f}" if curvature else "")
                + (f", a phase filter gains {gain:.1f} %" if gain is not None else ""),
                flush=True,
            )
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--test", nargs="+", default=[], metavar="NAME=TILE")
    parser.add_argument("--pair", nargs="+", default=[], metavar="NAME=COARSE,TILE")
    parser.add_argument(
        "--fit", nargs="+", required=True, metavar="TILE", help="tiles that the linear filter is fitted to"
    )
    parser.add_argument("--degradation", action="append", default=[], help="as in earthsr prepare dem; may be repeated")
    parser.add_argument(
        "--pair-degradation", default="bell:1.8x2.1", help="what the linear filter of pairs is fitted to"
    )
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=CHECKPOINT[,CHECKPOINT…]")
    parser.add_argument("--symmetries", action="store_true", help="score each model's mean over the symmetries too")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    words = parser.parse_args()
    try:
        make_folder(words.output)
        report = run(words)
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(words.output / "scores.json", report)
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "scenes": list(report["scenes"]), "models": words.model}
    with (words.output / "scorings.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    times = (words.output / "scorings.jsonl").read_text(encoding="utf-8").count("\n")
    print(f"{words.output / 'scores.json'}; these tests were scored {times} times (scorings.jsonl)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

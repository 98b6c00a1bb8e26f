"""A year's land use from an exported model with NumPy and onnxruntime alone: docs/without-python.md, line by line.

Nothing of earthsr is imported. It is there to be read, and to be written again in another language; maps are those of
`earthsr reconstruct` and of the emulator. `tests/landuse/emulator/test_without_earthsr.py` compares them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_KM = 6371.0088
NO_CLASS = 255


@dataclass
class Axis:
    """Cells along an axis: centres are first + i * step degrees, i from 0 to count - 1; latitudes go southwards."""

    first: float
    step: float
    count: int

    def centres(self, start: int, count: int) -> NDArray[np.float64]:
        """Centres of some cells, those beyond the axis too."""
        return self.first + self.step * np.arange(start, start + count)


@dataclass
class Region:
    """Axes of the maps and of the forcing, which ends no closer than the maps do."""

    lat: Axis
    lon: Axis
    coarse_lat: Axis
    coarse_lon: Axis


class Year:
    """Makes maps of a region that does not go round the globe.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of a file that `earthsr export` wrote.
    region : Region
        Where.
    static : ndarray of shape (S, rows, columns)
        Fields that ``static_channels`` names, NaN where there is no value.
    overlap : float
        Share of its side that a window has in common with the next.
    """

    def __init__(self, session: Any, region: Region, static: NDArray[np.float32], overlap: float = 0.25) -> None:
        about = json.loads(session.get_modelmeta().custom_metadata_map["earthsr"])["metadata"]
        normal = about["normalisation"]
        mean, std = (np.array(normal[key], np.float32)[:, None, None] for key in ("static_mean", "static_std"))
        self.session, self.region = session, region
        self.static = np.nan_to_num((static - mean) / std)
        self.side = about["tile_size"]
        self.step = max(1, round(self.side * (1 - overlap)))
        self.method = about.get("coarse_interpolation", "bilinear")
        self.classes = json.loads(about["class_table"])["classes"]
        self.channels = about["coarse_channels"]
        self.inputs = {given.name for given in session.get_inputs()}

    def make(
        self,
        fractions: NDArray[np.float32],
        year: int,
        prior: NDArray[np.uint8],
        prior_year: int,
        free: NDArray[np.bool_],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Classes (rows, columns) of a year, as places in the table, and their probabilities (K, rows, columns).

        ``fractions`` (C, h, w) have 0 in the ocean; ``prior`` has 255 where there is no class; cells that are not
        ``free`` keep what they have.
        """
        probabilities = self.blended(fractions, year, prior, prior_year, free)
        likeliest = np.where(free, probabilities.argmax(0).astype(np.uint8), prior)
        matched = self.matched(probabilities, fractions, likeliest, free)
        return np.where(free, matched, prior), probabilities

    # 3 of the page: windows.

    def starts(self, count: int) -> list[int]:
        """First cells of the windows along an axis."""
        if self.side > count:
            return [(count - self.side) // 2]
        last = count - self.side
        return [min(i * self.step, last) for i in range(1 + math.ceil(last / self.step))]

    def weights(self, count: int) -> dict[int, NDArray[np.float32]]:
        """By first cell of a window: weights of its cells along an axis, 0 beyond it; they add up to 1 at each cell."""
        bell = np.exp(-0.5 * ((np.arange(self.side) - (self.side - 1) / 2) / (0.125 * self.side)) ** 2)
        total = np.zeros(count)
        for start in self.starts(count):
            inside = slice(max(start, 0), min(start + self.side, count))
            total[inside] += bell[inside.start - start : inside.stop - start]
        weights = {}
        for start in self.starts(count):
            weights[start] = np.zeros(self.side, np.float32)
            inside = slice(max(start, 0), min(start + self.side, count))
            part = slice(inside.start - start, inside.stop - start)
            weights[start][part] = bell[part] / total[inside]
        return weights

    def blended(
        self,
        fractions: NDArray[np.float32],
        year: int,
        prior: NDArray[np.uint8],
        prior_year: int,
        free: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Probabilities (K, rows, columns): of all windows with a free cell, by their weights."""
        rows, columns = prior.shape
        down, across = self.weights(rows), self.weights(columns)
        direction = 1 if year > prior_year else -1
        scalars = np.array([(year - 2000) / 100, abs(year - prior_year) / 10, direction], np.float32)
        margin = self.side
        static = np.pad(self.static, ((0, 0), (margin, margin), (margin, margin)))
        padded = np.pad(prior, margin, constant_values=NO_CLASS)
        sums = np.zeros((len(self.classes), rows + 2 * margin, columns + 2 * margin), np.float32)
        for top, vertical in down.items():
            for left, horizontal in across.items():
                if not free[max(top, 0) : top + self.side, max(left, 0) : left + self.side].any():
                    continue
                window = (
                    slice(top + margin, top + margin + self.side),
                    slice(left + margin, left + margin + self.side),
                )
                fields = {
                    "coarse": fractions,
                    "wy": self.spread(self.region.lat, self.region.coarse_lat, top),
                    "wx": self.spread(self.region.lon, self.region.coarse_lon, left),
                    "static": static[(slice(None), *window)],
                    "prior": padded[window],
                    "prior_mask": (padded[window] != NO_CLASS).astype(np.uint8),
                    "scalars": scalars,
                }
                batch = {name: value[None] for name, value in fields.items() if name in self.inputs}
                sums[(slice(None), *window)] += self.session.run(None, batch)[0][0] * vertical[:, None] * horizontal
        return sums[:, margin:-margin, margin:-margin]

    # 2 of the page: matrices.

    def spread(self, fine: Axis, coarse: Axis, start: int) -> NDArray[np.float32]:
        """Weights (side, coarse cells) that bring coarse values onto the cells of a window."""
        place = (fine.centres(start, self.side) - coarse.first) / coarse.step
        if self.method == "nearest":
            place = np.floor(np.clip(place, -0.5, coarse.count - 0.5) + 0.5)
        place = np.clip(place, 0, coarse.count - 1)
        return np.maximum(0, 1 - abs(place[:, None] - np.arange(coarse.count))).astype(np.float32)

    # 4 of the page: the decoder.

    def matched(
        self,
        probabilities: NDArray[np.float32],
        fractions: NDArray[np.float32],
        likeliest: NDArray[np.uint8],
        free: NDArray[np.bool_],
    ) -> NDArray[np.uint8]:
        """Classes whose areas in each coarse cell are those of the forcing."""
        region, result = self.region, likeliest.copy()
        lat, lon = (axis.centres(0, axis.count) for axis in (region.lat, region.lon))
        i = np.floor((lat - region.coarse_lat.first) / region.coarse_lat.step + 0.5).astype(int)
        j = np.floor((lon - region.coarse_lon.first) / region.coarse_lon.step + 0.5).astype(int)
        edges = np.sin(np.deg2rad(np.append(lat - region.lat.step / 2, lat[-1] + region.lat.step / 2)))
        area = -np.diff(edges) * np.deg2rad(region.lon.step) * EARTH_RADIUS_KM**2
        wanted = self.of_classes(fractions)
        for row in np.unique(i):
            for column in np.unique(j):
                cells = np.ix_(i == row, j == column)
                share = wanted[:, row, column]
                areas = np.broadcast_to(area[i == row, None], likeliest[cells].shape)
                has = likeliest[cells] != NO_CLASS
                if not (np.nan_to_num(share) > 0).any() or not has.any():
                    continue
                part = result[cells]
                part[has] = decode(
                    probabilities[(slice(None), *cells)][:, has], share, likeliest[cells][has], free[cells][has],
                    areas[has],
                )  # fmt: skip
                result[cells] = part
        return result

    def of_classes(self, fractions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fractions of classes (K, h, w) from those of channels; NaN for classes that the forcing does not know."""
        wanted = np.full((len(self.classes), *fractions.shape[1:]), np.nan, np.float32)
        for k, land_class in enumerate(self.classes):
            forcing = land_class["forcing"]
            tied = [name for name in forcing if name in self.channels]
            if not tied or any(name not in self.channels for name in forcing if name != "pltns"):
                tied = [name for name in (land_class["name"],) if name in self.channels]
            if tied:
                wanted[k] = fractions[[self.channels.index(name) for name in tied]].sum(axis=0)
        return wanted


def decode(
    probabilities: NDArray[np.float32],
    share: NDArray[np.float32],
    likeliest: NDArray[np.uint8],
    free: NDArray[np.bool_],
    areas: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Classes (n,) of the n fine cells of one coarse cell; cells that are not free have theirs in ``likeliest``."""
    k = len(share)
    known = np.isfinite(share)
    share = np.where(known, np.maximum(share, 0), 0).astype(np.float64)
    share /= share.sum()
    area_of = lambda cells: np.bincount(likeliest[cells], areas[cells], k)  # noqa: E731
    shared = known[likeliest]
    held = area_of(shared & ~free)
    goal = beside(share * area_of(shared).sum(), held) - held
    movable = np.flatnonzero(shared & free)
    result = likeliest.copy()
    if movable.size:
        scores = np.rint(np.log(np.maximum(probabilities[:, movable].astype(np.float64), 2.0**-150)) * 2.0**30)
        classes = assign(scores, whole_cells(goal, movable.size))
        trim(classes, scores, areas[movable], goal)
        result[movable] = classes
    return result


def beside(wanted: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas nearest to the wanted ones that are not below the held ones, with the same sum."""
    full = np.zeros(len(wanted), bool)
    areas = wanted
    while (more := ~full & (held > areas)).any():
        full |= more
        base = np.where(full, 0, wanted)
        left = max(wanted.sum() - held[full].sum(), 0)
        areas = np.where(full, held, base * (left / base.sum() if base.any() else 0))
    return areas


def whole_cells(areas: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """So many cells, in proportion to areas, by largest remainder; of equal remainders the first class has it."""
    exact = np.round(areas / areas.sum() * count, 6)
    cells = np.floor(exact).astype(int)
    cells[np.argsort(cells - exact, kind="stable")[: count - cells.sum()]] += 1
    return cells


def assign(scores: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Classes with these counts and the largest sum of scores: from the likeliest, along cheapest paths."""
    k = len(counts)
    classes = scores.argmax(0)
    while (extra := np.bincount(classes, minlength=k) - counts).any():
        # From class a to class b: the cell of a that loses least by becoming b.
        cost, cell = np.full((k, k), np.inf), np.zeros((k, k), int)
        for a in range(k):
            members = np.flatnonzero(classes == a)
            if members.size:
                loss = scores[a, members] - scores[:, members]
                cell[a], cost[a] = members[loss.argmin(1)], loss.min(1)
        distance, before = np.where(extra > 0, 0.0, np.inf), np.full(k, -1)
        for _ in range(k):
            for a in range(k):
                for b in range(k):
                    if a != b and distance[a] + cost[a, b] < distance[b]:
                        distance[b], before[b] = distance[a] + cost[a, b], a
        b = int(np.where(extra < 0, distance, np.inf).argmin())
        while before[b] >= 0:
            classes[cell[before[b], b]] = b
            b = before[b]
    return classes.astype(np.uint8)


def trim(
    classes: NDArray[np.uint8], scores: NDArray[np.float64], areas: NDArray[np.float64], goal: NDArray[np.float64]
) -> None:
    """Move cells until no class is more than the largest cell from its area, in place."""
    gap = goal - np.bincount(classes, areas, len(goal))
    while abs(gap).max() > areas.max() * (1 + 1e-6):
        rich, poor = gap.argmin(), gap.argmax()
        loss = np.where(classes == rich, (scores[rich] - scores[poor]) / areas, np.inf)
        cell = loss.argmin()
        classes[cell] = poor
        gap[rich] += areas[cell]
        gap[poor] -= areas[cell]

"""Class maps of tiles, year after year: with the model's own maps as priors, with none, or with true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.landuse.classes import NODATA
from earthsr.landuse.samples import Composer, stack
from earthsr.landuse.split import LandUseData
from earthsr.tasks.base import Predictor

Row = Literal["rollout", "no_prior", "true_prior"]

#: ``rollout`` is the headline; ``true_prior`` sees the truth of the year before, which no projection has.
ROWS: Final[tuple[Row, ...]] = ("rollout", "no_prior", "true_prior")


@dataclass(frozen=True)
class Path:
    """Years of a rollout, from its anchor on."""

    anchor: int
    years: tuple[int, ...]
    """In the order of the rollout, the anchor left out."""
    scored: tuple[int, ...]
    """Those that count."""

    @property
    def direction(self) -> int:
        """1 forwards, -1 backwards in time."""
        return 1 if self.years[-1] > self.anchor else -1

    @property
    def steps(self) -> tuple[int, ...]:
        """Years from each map to the next."""
        whole = (self.anchor, *self.years)
        return tuple(abs(b - a) for a, b in zip(whole, self.years, strict=False))


def path_of(source: LandUseData) -> Path:
    """Years of the rollout that a split is scored by: from its anchor to the last of its scored years."""
    anchor, scored = source.anchor_year, source.scored_years
    forwards = max(scored) > anchor
    years = source.layout.years
    if forwards:
        path = tuple(year for year in years if anchor < year <= max(scored))
    else:
        path = tuple(year for year in reversed(years) if min(scored) <= year < anchor)
    return Path(anchor, path, tuple(year for year in path if year in scored))


def predict_maps(
    model: Predictor,
    composer: Composer,
    tiles: Sequence[int],
    path: Path,
    fields: Sequence[str],
    rows: Sequence[Row] = ROWS,
    pad_to: int | None = None,
) -> dict[Row, NDArray[np.uint8]]:
    """Maps of some tiles for all years of a path.

    Cells without a class at the anchor stay without one. The truth of later years is read for ``true_prior`` alone.

    Parameters
    ----------
    model : Predictor
        Gives probabilities (N, K, P, P).
    composer : Composer
        Of the split.
    tiles : sequence of int
        N tiles.
    path : Path
        Anchor and years.
    fields : sequence of str
        Input fields that the network takes.
    rows : sequence of str
        Which priors.
    pad_to : int, optional
        Run a batch of this size, so that one compiled graph serves all.

    Returns
    -------
    dict of str to ndarray of shape (Y, N, P, P)
        Class indices in the order of the path, by row.
    """
    anchors = np.stack([composer.truth(tile, path.anchor) for tile in tiles])
    void = anchors == NODATA
    made: dict[Row, list[NDArray[np.uint8]]] = {row: [] for row in rows}
    before = path.anchor
    for year, step in zip(path.years, path.steps, strict=True):
        waiting = {}
        for row in rows:
            if row == "rollout":
                priors = made[row][-1] if made[row] else anchors
            elif row == "true_prior":
                priors = np.stack([composer.truth(tile, before) for tile in tiles])
            else:
                priors = np.full_like(anchors, NODATA)
            samples = [
                composer.fields(tile, year, prior, step, path.direction)
                for tile, prior in zip(tiles, priors, strict=True)
            ]
            waiting[row] = model.submit_fields(stack([{name: s[name] for name in fields} for s in samples]), pad_to)
        for row in rows:
            classes = waiting[row].result().argmax(axis=1).astype(np.uint8)
            made[row].append(np.where(void, NODATA, classes).astype(np.uint8))
        before = year
    return {row: np.stack(maps) for row, maps in made.items()}

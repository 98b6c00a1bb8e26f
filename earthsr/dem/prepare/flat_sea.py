"""A sea that the fine product has at exactly 0 m while the coarse one goes down to the floor: SRTM beside GEBCO.

There the pair says that a bay of -234 m is a plain of 0 m: as truth it teaches that water has no depth. What shall
become of such cells is a choice with a name; where the two products are registered they count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

FlatSea = Literal["mask", "fill", "keep"]
FLAT_SEA: Final[tuple[FlatSea, ...]] = get_args(FlatSea)

#: Share of the fine cells under the coarse product's sea from which on "exactly 0 m" is a flat sea and no coincidence:
#: a product with a sea floor has some cells of 0 m along its coasts.
_FLAT_SHARE: Final = 0.5

_DONE: Final = {
    "mask": "they are masked (--flat-sea fill takes the coarse product there, keep leaves 0 m as truth)",
    "fill": "the coarse product, interpolated, stands there as truth",
    "keep": "0 m stays the truth there, as --flat-sea keep says",
}


@dataclass(frozen=True)
class SeaCells:
    """Fine cells where the coarse product is below 0 m; ``a + b`` merges."""

    cells: int = 0
    flat: int = 0
    """Of these at exactly 0 m."""
    lowest_m: float = 0.0
    """Of the coarse product."""

    def __add__(self, other: SeaCells) -> SeaCells:
        return SeaCells(self.cells + other.cells, self.flat + other.flat, min(self.lowest_m, other.lowest_m))

    @classmethod
    def of(cls, coarse: NDArray[np.float32], fine: NDArray[np.float32]) -> SeaCells:
        """Count in a window of coarse (h, w) and fine (h * scale, w * scale) elevations, metres, NaN for voids."""
        scale = fine.shape[0] // coarse.shape[0]
        below = (coarse < 0).repeat(scale, axis=0).repeat(scale, axis=1) & ~np.isnan(fine)
        if not below.any():
            return cls()
        return cls(int(below.sum()), int((fine[below] == 0).sum()), float(np.nanmin(coarse)))

    @property
    def is_flat(self) -> bool:
        """Whether the fine product knows no sea floor."""
        return self.cells > 0 and self.flat >= _FLAT_SHARE * self.cells

    def to_dict(self, region: str, choice: FlatSea) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "region": region,
            "cells_below_0_in_the_coarse_product": self.cells,
            "of_these_exactly_0": self.flat,
            "lowest_coarse_m": self.lowest_m,
            "choice": choice,
        }

    def warning(self, region: str, choice: FlatSea) -> str:
        """What to warn about."""
        share = 100 * self.flat / self.cells
        return (
            f"region {region}: {share:.0f} % of the fine cells below which the coarse product has sea (down to "
            f"{self.lowest_m:.0f} m) are exactly 0 m; {_DONE[choice]}"
        )


def flat_sea_cells(coarse: NDArray[np.float32], fine: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which fine cells are flat sea: exactly 0 m in a block that is below 0 m in the coarse product, or beside one.

    Parameters
    ----------
    coarse : ndarray of shape (h + 2, w + 2)
        Metres, with one block around the window; NaN where there is no value.
    fine : ndarray of shape (h * scale, w * scale)
        Metres.

    Returns
    -------
    ndarray of bool of shape (h * scale, w * scale)
        Beside: a block on a coast is above 0 m as a mean, and its water is as flat.
    """
    height, width = coarse.shape[0] - 2, coarse.shape[1] - 2
    scale = fine.shape[0] // height
    below = coarse < 0
    near = np.zeros((height, width), bool)
    for down in range(3):
        for across in range(3):
            near |= below[down : down + height, across : across + width]
    return near.repeat(scale, axis=0).repeat(scale, axis=1) & (fine == 0)

"""The embedded sample data set: SRTM terrain that matplotlib ships, cut into patches.

``jacksboro_fault_dem.npz`` holds 344 x 403 cells of 3 arc-seconds in Tennessee, rows from north to south.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthsr.data.normalise import Statistics
from earthsr.data.samples import Patches
from earthsr.dem.write import Split, write_split
from earthsr.errors import InputError
from earthsr.geo.resample import block_mean
from earthsr.store import files_together, require_free

SOURCE = "SRTM 3 arc-second elevation of the Jacksboro fault, Tennessee (jacksboro_fault_dem.npz of matplotlib)"
BUFFER_CELLS = 1
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Terrain:
    """A georeferenced elevation grid, rows from north to south."""

    elevation: NDArray[np.float32]
    """(H, W), metres."""
    cell_size_deg: float
    west_deg: float
    north_deg: float


def jacksboro() -> Terrain:
    """Read the terrain from matplotlib's sample data."""
    from matplotlib import cbook

    with np.load(cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as grid:
        # The file calls the northern edge ymin.
        return Terrain(
            elevation=grid["elevation"].astype(np.float32),
            cell_size_deg=float(grid["dx"]),
            west_deg=float(grid["xmin"]),
            north_deg=float(max(grid["ymin"], grid["ymax"])),
        )


def _starts(first: int, last: int, patch: int, step: int) -> NDArray[np.int64]:
    """Evenly spaced first cells of patches that cover ``first … last`` with at most ``step`` between them."""
    room = last - first - patch
    count = -(-room // step) + 1
    return np.round(np.linspace(first, last - patch, count)).astype(np.int64)


def column_blocks(columns: int, patch: int) -> dict[str, tuple[int, int]]:
    """Coarse columns of train (west), valid and test (east), with a buffer of one coarse cell between blocks.

    Raises
    ------
    InputError
        If the grid is too narrow for three blocks of this patch size.
    """
    test = (columns - patch, columns)
    valid = (test[0] - BUFFER_CELLS - patch, test[0] - BUFFER_CELLS)
    train = (0, valid[0] - BUFFER_CELLS)
    if train[1] < patch:
        largest = (columns - 2 * BUFFER_CELLS) // 3
        raise InputError(
            f"patches of {patch} coarse cells do not fit three times into {columns}; take at most {largest}"
        )
    return {"train": train, "valid": valid, "test": test}


def write_sample_dem(
    root: str | Path, patch_size: int = 16, scale: int = 5, stride: int = 2, overwrite: bool = False
) -> dict[str, int]:
    """Write the sample data set in MindEarth's layout.

    Coarse elevations are block means. Training patches overlap (a new one every ``stride`` coarse cells); validation
    and test patches overlap by the border that scores leave out, so that these tile their blocks.

    Parameters
    ----------
    root : str or Path
        Folder to write ``{train,valid,test}/{train,valid,test}.h5`` into.
    patch_size : int
        Coarse cells per patch side.
    scale : int
        Fine cells per coarse cell, 2 to 10.
    stride : int
        Coarse cells between training patches.
    overwrite : bool
        Replace data that the folder holds already.

    Returns
    -------
    dict of str to int
        Patches per split.

    Raises
    ------
    InputError
        If patches of that size do not fit, the folder holds data already, or it is not writable.
    """
    require_free(Path(root), _SPLITS, overwrite)
    if not 2 <= scale <= 10:
        raise InputError(f"scale is {scale}, expected 2 to 10")
    if patch_size < 4 or stride < 1:
        raise InputError(f"patch size {patch_size} and stride {stride}: expected at least 4 and 1")
    terrain = jacksboro()
    rows, columns = (extent // scale for extent in terrain.elevation.shape)
    if patch_size > rows:
        raise InputError(f"patches of {patch_size} coarse cells are taller than the grid of {rows}; take fewer")
    fine = terrain.elevation[: rows * scale, : columns * scale]
    coarse = block_mean(fine, scale)
    splits = {}
    for name, (first, last) in column_blocks(columns, patch_size).items():
        step = stride if name == "train" else patch_size - 2
        corners = [(r, c) for r in _starts(0, rows, patch_size, step) for c in _starts(first, last, patch_size, step)]
        p, q = patch_size, patch_size * scale
        splits[name] = Split(
            coarse=np.stack([coarse[r : r + p, c : c + p] for r, c in corners])[:, None],
            fine=np.stack([fine[r * scale : r * scale + q, c * scale : c * scale + q] for r, c in corners])[:, None],
            origin=np.array(
                [
                    (
                        terrain.west_deg + c * scale * terrain.cell_size_deg,
                        terrain.north_deg - r * scale * terrain.cell_size_deg,
                    )
                    for r, c in corners
                ]
            ),
            surface=np.zeros(len(corners), np.uint8),
            region=np.array(["jacksboro"] * len(corners)),
        )
    train = splits["train"]
    everywhere = np.ones((len(train.coarse), 1, *train.fine.shape[-2:]), np.uint8)
    statistics = Statistics.of([Patches(train.coarse, train.fine, everywhere, np.arange(len(train.coarse)))])
    attributes = {"crs": "EPSG:4326", "cell_size_deg": terrain.cell_size_deg, "source": SOURCE}
    with files_together(Path(root), _SPLITS, overwrite) as folder:
        for name, split in splits.items():
            write_split(folder / name / f"{name}.h5", split, statistics, attributes)
    return {name: len(split.coarse) for name, split in splits.items()}

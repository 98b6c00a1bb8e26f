"""Whether splits share a region or its ground: read from the files that training and scoring read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from earthsr.data.hdf5 import open_h5, reading
from earthsr.errors import DataError

SPLITS = ("train", "valid", "test")


def split_file(folder: Path, split: str) -> Path:
    """The file of a split."""
    return folder / split / f"{split}.h5"


def regions_of(folder: Path, split: str) -> dict[str, int]:
    """Regions of a split with their numbers of patches; none where there is no such split."""
    path = split_file(folder, split)
    if not path.is_file():
        return {}
    with reading(path), open_h5(path) as handle:
        names = [value.decode() if isinstance(value, bytes) else str(value) for value in handle["region"][...]]
    regions, counts = np.unique(names, return_counts=True)
    return {str(name): int(count) for name, count in zip(regions, counts, strict=True)}


def bounds_of(folder: Path, split: str) -> dict[str, tuple[float, float, float, float]]:
    """West, south, east and north of every region's patches, degrees."""
    path = split_file(folder, split)
    if not path.is_file():
        return {}
    with reading(path), open_h5(path) as handle:
        names = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in handle["region"][...]])
        origin = np.asarray(handle["origin"][...], float)
        # Where sizes are mixed every patch has its own.
        cell = handle["cell_size_deg"][...] if "cell_size_deg" in handle else handle.attrs["cell_size_deg"]
        fine = max(int(key.split("_")[0]) for key in handle if key.replace("_", "").isdigit())
    side = np.broadcast_to(np.asarray(cell, float), names.shape) * fine
    bounds = {}
    for name in np.unique(names):
        inside = names == name
        west, north = origin[inside, 0], origin[inside, 1]
        bounds[str(name)] = (
            float(west.min()),
            float((north - side[inside]).min()),
            float((west + side[inside]).max()),
            float(north.max()),
        )
    return bounds


def require_whole(folder: Path, groups: Iterable[Sequence[str]], wanted: dict[str, Sequence[str]]) -> None:
    """Check that every region, and every group of regions, is in one split, and that the splits hold what they should.

    Parameters
    ----------
    folder : Path
        Of ``train``, ``valid`` and ``test``.
    groups : iterable of sequence of str
        Regions that belong together.
    wanted : dict of str to sequence of str
        Regions by split, of those that are asked for by name.

    Raises
    ------
    DataError
        If not; the message names region and splits.
    """
    held = {split: set(regions_of(folder, split)) for split in SPLITS}
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = sorted(held[first] & held[second])
        if both:
            raise DataError(f"{folder}: region {both[0]} is in {first} and in {second}; regions are split whole")
    for group in groups:
        inside = [split for split in SPLITS if held[split] & set(group)]
        if len(inside) > 1:
            raise DataError(
                f"{folder}: {', '.join(group)} belong together, and are in {' and in '.join(inside)}; they touch, and "
                "terrain goes on across"
            )
    for split, names in wanted.items():
        missing = sorted(set(names) - held[split])
        if missing:
            raise DataError(f"{folder}: region {missing[0]} is not in {split}; it may have too many voids")
    require_apart(folder, "train", folder, "test")
    require_apart(folder, "train", folder, "valid")


def require_apart(one: Path, split: str, other: Path, other_split: str) -> None:
    """Check that two splits, perhaps of different data, share no ground.

    Raises
    ------
    DataError
        If a region of one overlaps a region of the other.
    """
    theirs = bounds_of(other, other_split)
    for name, (west, south, east, north) in bounds_of(one, split).items():
        for their_name, (w, s, e, n) in theirs.items():
            # A millionth of a degree is a tenth of a metre: rounding, not ground.
            wide = max(min(east, e + turn) - max(west, w + turn) for turn in (-360, 0, 360))
            if wide > 1e-6 and min(north, n) - max(south, s) > 1e-6:
                raise DataError(
                    f"region {name} of {split_file(one, split)} and region {their_name} of "
                    f"{split_file(other, other_split)} overlap: what is scored would have been trained on"
                )

"""From shards to the files of the splits: what they hold summed up, statistics, attributes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

import earthsr
from earthsr.data.normalise import Statistics
from earthsr.data.samples import Patches
from earthsr.dem.degradation import Degradation
from earthsr.dem.prepare.pairs import TOLERANCE
from earthsr.dem.prepare.plan import DemPlan, Job, Layout, Split
from earthsr.dem.prepare.register import Mode
from earthsr.dem.prepare.shards import Shards, read_shard
from earthsr.dem.prepare.sources import Archive, Reading
from earthsr.dem.split import SURFACES
from earthsr.dem.write import Split as Pieces
from earthsr.dem.write import write_pieces
from earthsr.errors import DataError, listed
from earthsr.geo import crs_name
from earthsr.geo.crs import metres_per_unit
from earthsr.store import require_room

#: Attributes of HDF5 hold 64 KB; longer texts go into a dataset of the same name.
MOST_BYTES: Final = 60_000

#: Of shards and of what is in them: those of another version are not taken over.
_FORMAT: Final = 1


@dataclass(frozen=True)
class Provenance:
    """What decides a preparation's numbers."""

    files: list[dict[str, Any]]
    """Name, bytes and SHA-256 of every source, with its region and part."""
    parameters: dict[str, Any]
    source: str
    """One sentence."""

    @classmethod
    def of(cls, archive: Archive, plan: DemPlan, reading: Reading, mode: Mode) -> Provenance:
        """Collect it; reads every file once for its checksum."""
        parameters = {**asdict(plan), **asdict(reading), "register": mode}
        for name in ("nodata", "lr_nodata"):
            # JSON has no word for some.
            parameters[name] = [number if math.isfinite(number) else str(number) for number in parameters[name]]
        if plan.degradation.endswith(".json"):
            # The file may be another one next time.
            parameters["degradation_kernel"] = Degradation.parse(plan.degradation, plan.scale).to_dict()
        return cls(archive.files(), parameters, _sentence(archive, plan))

    @property
    def key(self) -> str:
        """Hash of parameters, sources and version."""
        parts = [_FORMAT, earthsr.__version__, self.files, self.parameters]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def document(
        self, archive: Archive, registration: Sequence[dict[str, Any]], rest: dict[str, Any]
    ) -> dict[str, Any]:
        """All that is written, JSON-able."""
        regions = {
            name: {
                "fine_cells": [grid.rows, grid.columns],
                "cell_size": [grid.cell_x, grid.cell_y],
                "west_north": [grid.west, grid.north],
                "tags": {key: str(value) for key, value in grid.attributes.items()},
            }
            for name, grid in archive.grids.items()
        }
        return {
            "earthsr": earthsr.__version__,
            "preparation": self.key,
            "files": self.files,
            "parameters": self.parameters,
            "regions": regions,
            "registration": list(registration),
            **rest,
        }


def _sentence(archive: Archive, plan: DemPlan) -> str:
    def some(files: Sequence[str]) -> str:
        return ", ".join(files) if len(files) <= 3 else f"{files[0]} and {len(files) - 1} more files"

    fine = [name for region in archive.regions.values() for name in archive.names(region.hr)]
    coarse = list(dict.fromkeys(name for region in archive.regions.values() for name in archive.names(region.lr)))
    if coarse:
        text = f"{some(coarse)}, interpolated (cubic convolution) at the centres of blocks of the fine cells"
    else:
        text = f"means of {plan.scale} x {plan.scale} fine cells"
        if plan.degradation != DemPlan.degradation:
            text = f"fine cells by the degradation {plan.degradation}"
    return f"fine cells of {some(fine)}; coarse cells: {text}"


#: Patches whose statistics are made together, in float64.
_AT_ONCE: Final = 32


@dataclass(frozen=True)
class Summary:
    """What the shards hold."""

    counts: dict[str, int]
    """Patches per split."""
    left_out: dict[str, int]
    surfaces: dict[str, dict[str, int]]
    regions: dict[str, list[str]]
    """Regions with patches, per split."""
    masked: dict[str, bool]
    """Whether anything is masked, per split."""
    empty: list[str]
    """Regions without a patch."""
    statistics: dict[str, Any] | None
    """Of training; None where nothing is for training."""

    def result(self) -> dict[str, Any]:
        """What is reported of it."""
        return {key: getattr(self, key) for key in ("counts", "left_out", "surfaces", "regions")}


def summarise(work: Shards, plan: DemPlan, layout: Layout, pieces: Mapping[Split, list[list[Job]]]) -> Summary:
    """Read all shards once.

    Raises
    ------
    DataError
        If a region holds no value at all, or a split no patch.
    """
    valid = dict.fromkeys(layout.blocks, 0)
    summary = Summary({}, {}, {}, {}, {}, [], None)
    for split, shards in pieces.items():
        count, left, masked = 0, 0, False
        surfaces, regions = np.zeros(len(SURFACES), np.int64), dict.fromkeys(layout.blocks, 0)
        for number, jobs in enumerate(shards):
            patches, left_out, cells = read_shard(work.shard(split, number))
            count, left = count + len(patches.coarse), left + int(left_out.sum())
            masked = masked or bool(np.isnan(patches.fine).any())
            surfaces += np.bincount(patches.surface, minlength=len(SURFACES))
            for name in patches.region:
                regions[str(name)] += 1
            for job, own in zip(jobs, cells, strict=True):
                valid[job.region] += int(own)
        summary.counts[split], summary.left_out[split], summary.masked[split] = count, left, masked
        summary.surfaces[split] = {name: int(n) for name, n in zip(SURFACES, surfaces, strict=True)}
        summary.regions[split] = [name for name, n in regions.items() if n]
    for name, cells_of in valid.items():
        if not cells_of:
            raise DataError(
                f"region {name}: holds no value, all is nodata or without a coarse value; check the files and what "
                "they call nodata (--nodata, --lr-nodata)"
            )
    for name, count in summary.counts.items():
        if not count:
            raise DataError(
                f"no patch of the {name} split has {plan.minimum_valid:.0%} of valid cells; take other regions or "
                "shares, smaller patches (--patch), or a lower --minimum-valid"
            )
    with_patches = {name for of_region in summary.regions.values() for name in of_region}
    return replace(
        summary,
        empty=[name for name in layout.blocks if name not in with_patches],
        statistics=_statistics(work, len(pieces["train"])) if "train" in pieces else None,
    )


def _statistics(work: Shards, shards: int) -> dict[str, Any]:
    """Statistics of the training split in one pass, one shard in memory at a time."""

    def chunks() -> Iterator[Patches]:
        for number in range(shards):
            piece, _, _ = read_shard(work.shard("train", number))
            assert piece.mask is not None
            for start in range(0, len(piece.coarse), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                number_of = np.arange(len(piece.coarse[some]))
                yield Patches(piece.coarse[some], piece.fine[some], piece.mask[some], number_of)

    return Statistics.of(chunks()).to_dict()


def assemble(
    work: Shards,
    archive: Archive,
    plan: DemPlan,
    summary: Summary,
    split: str,
    shards: int,
    provenance: Provenance,
    document: dict[str, Any],
) -> None:
    """Write the file of a split from its shards, into the work folder."""
    geographic = archive.geographic
    size_key = "cell_size_deg" if geographic else "cell_size_m"
    factor = 1.0 if geographic else metres_per_unit(archive.wkt)

    def pieces() -> Iterator[Pieces]:
        for number in range(shards):
            piece, _, _ = read_shard(work.shard(split, number))
            columns = dict(piece.columns)
            sizes = columns.pop("cell_size") * factor
            if plan.mix_cell_sizes:
                columns[size_key] = sizes
            yield replace(piece, columns=columns)

    # Regions may differ in size where that is allowed; the size that a model makes is then that of the test split.
    size = _one_size(archive, summary.regions[split]) or _one_size(archive, summary.regions.get("test", []))
    name = crs_name(archive.wkt)
    attributes: dict[str, Any] = {
        "crs": name if ":" in name else archive.wkt,
        "split": split,
        "scale": plan.scale,
        "source": provenance.source,
        "coarse": "product" if archive.coarse else plan.degradation.replace("_", " "),
        "mask_convention": "1 = valid; fine values are NaN where it is 0, and a coarse cell without a value masks its "
        "block",
        "surface_convention": f"share of valid fine cells at or below 0 m: 0 land below {plan.coast[0]:g}, 2 ocean "
        f"above {plan.coast[1]:g}, 1 coast between",
        "preparation": provenance.key,
    }
    if size is not None:
        attributes[size_key] = size * factor
    texts = {}
    for key, value in (("provenance", document), ("registration", document["registration"])):
        text = json.dumps(value)
        if len(text.encode()) > MOST_BYTES:
            texts[key], text = text, json.dumps(f"in the dataset {key}")
        attributes[key] = text
    statistics = None if summary.statistics is None else Statistics.from_dict(summary.statistics)
    count, masked = summary.counts[split], summary.masked[split]
    require_room(work.path, _bytes(plan, count, masked, texts))
    write_pieces(work.file(split), pieces(), count, masked, statistics, attributes, texts)


def _bytes(plan: DemPlan, count: int, masked: bool, texts: Mapping[str, str]) -> int:
    """Bytes of a file, with some to spare: of a patch besides its cells, and of attributes."""
    p, q = plan.patch, plan.patch * plan.scale
    return count * (4 * (p**2 + q**2) + masked * q**2 + 200) + sum(map(len, texts.values())) + 2**19


def _one_size(archive: Archive, regions: Sequence[str]) -> float | None:
    """Height of the fine cells of some regions; None where they differ, or there are none."""
    sizes = [archive.grids[name].cell_y for name in regions]
    if not sizes or max(sizes) > (1 + TOLERANCE) * min(sizes):
        return None
    return sizes[0]


def finished(root: Path, key: str, splits: Sequence[str]) -> dict[str, Any] | None:
    """Read what is reported of a preparation that is complete; None where it is not this one."""
    provenance: dict[str, Any] | None = None
    for split in splits:
        path = root / split / f"{split}.h5"
        try:
            with h5py.File(path, "r") as handle:
                if handle.attrs.get("preparation") != key:
                    return None
                held = handle["provenance"][()] if "provenance" in handle else handle.attrs["provenance"]
                provenance = json.loads(held)
        except (OSError, KeyError, ValueError):
            return None
    return provenance


def notes_of(summary: Summary, plan: DemPlan) -> list[str]:
    """What was left out."""
    notes = []
    if summary.empty:
        notes.append(f"no patch of {listed(summary.empty)} has {plan.minimum_valid:.0%} of valid cells: left out")
    missing = [split for split in ("train", "valid") if split not in summary.counts]
    notes += [f"no {split} split is written; earthsr train needs one" for split in missing]
    return notes

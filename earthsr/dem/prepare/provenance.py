"""What is written about a preparation, and the hash by which an interrupted one is known again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import earthsr
from earthsr.dem.prepare.plan import DemPlan
from earthsr.dem.prepare.register import Mode
from earthsr.dem.prepare.sources import Archive, Reading

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
    return f"fine cells of {some(fine)}; coarse cells: {text}"

"""Where everything lies: blocks of fine cells in every region, blocks of the splits, and the work that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from earthsr.dem.prepare.align import Alignment, align, own_blocks
from earthsr.dem.prepare.leakage import Ground, require_apart
from earthsr.dem.prepare.plan import SPLITS, DemPlan, Job, Split
from earthsr.dem.prepare.sources import Archive
from earthsr.geo import Georeference
from earthsr.geo.window import Window


@dataclass(frozen=True)
class Layout:
    """What is cut where."""

    alignments: dict[str, Alignment]
    """Of every region."""
    blocks: dict[str, dict[Split, Window]]
    """Coarse cells of every split in every region."""
    jobs: dict[Split, list[Job]]
    """Windows to read, in the order of the files; of the splits that are written."""
    notes: list[str]


def lay_out(archive: Archive, plan: DemPlan, corrections: Mapping[str, tuple[float, float]] | None = None) -> Layout:
    """Align blocks, cut regions into splits, and see that no ground is in two of these.

    Parameters
    ----------
    archive : Archive
        The rasters.
    plan : DemPlan
        How they are divided.
    corrections : mapping, optional
        Per region, how far the coarse product lies to the south and to the east of where its file says, fine cells.

    Raises
    ------
    InputError, DataError
        If something does not fit.
    """
    given = plan.assign(list(archive.regions))
    alignments, blocks = {}, {}
    grounds: list[Ground] = []
    for name, grid in archive.grids.items():
        coarse = archive.coarse.get(name)
        if coarse is None:
            alignment = own_blocks(grid, plan.scale)
        else:
            alignment = align(grid, coarse, plan.scale, (corrections or {}).get(name, (0.0, 0.0)))
        alignments[name] = alignment
        blocks[name] = plan.blocks(name, alignment.rows.blocks, alignment.columns.blocks, given[name])
        for split, block in blocks[name].items():
            grounds.append(Ground(name, split, outer(grid, alignment, plan.scale, block), grid.cell_y))
    notes = require_apart(grounds, plan.buffer * plan.scale, archive.geographic)
    jobs: dict[Split, list[Job]] = {}
    for split in SPLITS:
        found = [job for name, own in blocks.items() if split in own for job in plan.jobs(name, split, own[split])]
        if found:
            jobs[split] = found
    return Layout(alignments, blocks, jobs, notes)


def outer(grid: Georeference, alignment: Alignment, scale: int, window: Window) -> tuple[float, float, float, float]:
    """West, south, east and north edge of a window of blocks, in units of the CRS."""
    fine = Window(
        alignment.rows.first + scale * window.row,
        alignment.columns.first + scale * window.column,
        scale * window.rows,
        scale * window.columns,
    )
    return grid.part(fine).bounds

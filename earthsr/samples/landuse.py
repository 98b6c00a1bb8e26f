"""The synthetic sample of land use: a made-up world, cut into tiles and written as train, valid and test files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.landuse.fields import COARSE_CELL_DEG, Forcing, aggregate
from earthsr.landuse.write import SPLITS, SplitPlan, Written, write_landuse
from earthsr.samples.world import SyntheticWorld, WorldSpec
from earthsr.samples.world.archives import Archives, Fractions, archives_in, check_archives, write_archives
from earthsr.store import files_together, require_free

#: Fine cells between the bands of the splits: one coarse cell of 0.25 degrees in the default world.
BUFFER_CELLS: Final = 16

_ARCHIVES: Final = "archives"


@dataclass
class SampleWritten(Written):
    """What was written, with archives where these were asked for."""

    archives: Archives | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; nothing of archives where there are none."""
        values = super().to_dict() | {"archives": None if self.archives is None else self.archives.to_dict()}
        return {key: value for key, value in values.items() if key != "archives" or value is not None}


def _cells_per_coarse(cell_deg: float) -> int:
    """Fine cells of a coarse one, where these are whole and few enough to begin a band with; else 1."""
    cells = COARSE_CELL_DEG / cell_deg
    return round(cells) if 1 <= cells <= 64 and abs(cells - round(cells)) < 1e-9 else 1


def write_sample_landuse(
    root: str | Path,
    spec: WorldSpec | None = None,
    tile_size: int = 64,
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    held_out_last: int = 10,
    overwrite: bool = False,
    stride: int | None = None,
    archives: bool = False,
) -> SampleWritten:
    """Make a synthetic world and write ``{train,valid,test}/{train,valid,test}.h5`` of it.

    The coarse fractions are aggregated from the fine classes (``forcing: oracle``).

    Parameters
    ----------
    root : str or Path
        Folder to write into.
    spec : WorldSpec, optional
        The world; the default one where absent.
    tile_size : int
        Fine cells per tile side.
    shares : tuple of float
        Shares of training, validation and test, bands from west to east; 0 leaves a split out.
    held_out_last : int
        Years at the end whose truth only the test file has.
    overwrite : bool
        Replace data that the folder holds already.
    stride : int, optional
        Fine cells between training tiles; the tile size (no overlap) where absent.
    archives : bool
        Write ``archives/`` too: the world as rasters and NetCDF, for ``earthsr reconstruct``. Maps are those of the
        first and the last year and of the anchor, which is the last year that training sees.

    Returns
    -------
    SampleWritten
        Tiles and years per split, and archives.

    Raises
    ------
    InputError
        If the world, the tiles or the years do not fit, the folder holds data already, it is not writable, or a package
        that archives need is missing; then nothing is written.
    """
    spec = spec or WorldSpec()
    spec.check()
    root = Path(root)
    folders = (*SPLITS, _ARCHIVES) if archives else SPLITS
    require_free(root, folders, overwrite)
    if not 0 <= held_out_last < len(spec.years):
        raise InputError(
            f"{held_out_last} of the {len(spec.years)} years {spec.years[0]} to {spec.years[-1]} are to be held out, "
            f"expected 0 to {len(spec.years) - 1}; give another number with --held-out-years, or more years"
        )
    plan = SplitPlan(
        tile_size=tile_size,
        axis="columns",
        shares=shares,
        buffer_cells=BUFFER_CELLS,
        stride=stride,
        held_out_years=spec.years[len(spec.years) - held_out_last :],
        align_cells=_cells_per_coarse(spec.cell_deg),
    )
    # What does not fit is said before the world is made, which takes a while.
    world = SyntheticWorld(spec)
    if archives:
        check_archives(world.grid.coarse(COARSE_CELL_DEG))
    plan.check(world)
    plan.tiles(world.grid)
    replaced = [f"{name}/{name}.h5" for name in SPLITS]
    if overwrite:
        replaced += [str(path.relative_to(root)) for path in archives_in(root / _ARCHIVES)]
    with files_together(root, folders, overwrite, replaced) as staging:
        forcing = aggregate(world)
        fractions = {year: forcing.read(year) for year in forcing.years}
        forcing = replace(forcing, read=fractions.__getitem__)
        written = SampleWritten(**vars(write_landuse(staging, world, plan, forcing)))
        if archives:
            written.archives = _write_archives(staging, root, world, forcing)
    return written


def _write_archives(staging: Path, root: Path, world: SyntheticWorld, forcing: Forcing) -> Archives:
    """Write archives where the splits were written, for ``root`` to have them."""
    with h5py.File(staging / "train" / "train.h5") as handle:
        anchor_year = int(handle.attrs["anchor_year"])

    def read(years: Sequence[int], row: int, rows: int) -> NDArray[np.float32]:
        return np.stack([forcing.read(year)[:, row : row + rows] for year in years])

    fractions = Fractions(forcing.grid, forcing.channels, read)
    written = write_archives(staging / _ARCHIVES, world, fractions, anchor_year, (world.years[0], world.years[-1]))
    return replace(written, folder=root / _ARCHIVES)

"""Reconstruction in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from earthsr.backend import Model
from earthsr.inference.scheduler import make_scheduler
from earthsr.landuse import reconstruct as maps
from earthsr.landuse.sources.world_inputs import BBox


def reconstruct(
    model: Model,
    target: str | Path,
    *,
    anchor: str,
    years: tuple[int, int],
    scenario: Sequence[str | Path],
    static: Sequence[str],
    protected: Sequence[str] = (),
    table: str | Path | None = None,
    bbox: BBox | None = None,
    cell_size_deg: float | None = None,
    match_areas: bool = False,
    fixed: Sequence[str] = (),
    keep: Sequence[Literal["confidence", "probabilities"]] = (),
    tile: int | None = None,
    overlap: float = 0.25,
    chunk: int = 2048,
    batch_size: int | None = None,
    scheduler: Literal["local", "dask"] | None = None,
    scheduler_address: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    fill_scenario: Literal["nearest"] | None = None,
) -> dict[str, Any]:
    """Map land use year by year from a scenario's fractions, each year's map the next one's prior.

    Memory follows the chunk, not the grid. The same call carries on after a kill.

    Parameters
    ----------
    model : Model
        Of land-use classes.
    target : str or Path
        ``.zarr``, ``.nc``, or ``.tif`` (one file a year, ``NAME_YEAR.tif``).
    anchor : str
        ``[YEAR=]PATH`` of the class raster from which the rollout starts; its grid is that of the maps.
    years : tuple of int
        First and last year; the rollout goes from the anchor's year forwards and backwards.
    scenario : sequence of str or Path
        ``states.nc`` of LUH2, or of its form; of two files that have a year the first gives it.
    static : sequence of str
        Static fields of the checkpoint: ``NAME[:UNITS]=PATH``, or the names of those that need no file.
    protected : sequence of str
        Rasters, not 0 where cells never change.
    table : str or Path, optional
        Name of a built-in class table, or a YAML file; the model's own where absent.
    bbox : tuple of float, optional
        West, south, east, north, degrees; west > east goes across the dateline.
    cell_size_deg : float, optional
        Degrees per cell of the maps; the anchor's where absent.
    match_areas : bool
        Make class areas of each coarse cell those of the scenario.
    fixed : sequence of str
        Classes whose cells at the anchor never change.
    keep : sequence of {"confidence", "probabilities"}
        Written beside the classes.
    tile : int, optional
        Fine cells per side of a window; as in training where absent.
    overlap : float
        Share of its side that a window has in common with the next.
    chunk : int
        Fine cells per side of what is computed, written and restarted at once.
    batch_size : int, optional
        Windows at once; chosen by their size where absent.
    scheduler : {"local", "dask"}, optional
        Who computes the chunks: this process, or workers of Dask; ``dask`` where one of the next two is given.
    scheduler_address : str, optional
        Scheduler of Dask that runs: ``tcp://HOST:PORT``, or the file that it wrote.
    workers : int, optional
        Processes of Dask that are started on this machine. A script that starts some guards what it does by
        ``if __name__ == "__main__":``, for they read it too.
    overwrite : bool
        Replace an output that is there, and what was begun for it from other inputs.
    fill_scenario : {"nearest"}, optional
        What stands for fractions that the scenario lacks over land; an error that names the cell where absent.

    Returns
    -------
    dict
        Areas by decade, changes, times and files.

    Raises
    ------
    InputError, DataError, CheckpointError
        If something is missing or does not fit; the message names file, channel and year.

    Examples
    --------
    >>> import earthsr
    >>> folder = "runs/landuse-data/archives"
    >>> fields = ("elevation", "slope", "soil", "distance_to_water")
    >>> done = earthsr.reconstruct(
    ...     earthsr.from_pretrained("demo-landuse", backend="torch"),
    ...     "maps.zarr",
    ...     anchor=f"{folder}/landuse_1989.tif",
    ...     years=(1989, 1990),
    ...     scenario=[f"{folder}/scenario_historical.nc", f"{folder}/scenario_future.nc"],
    ...     static=[*(f"{name}={folder}/static.nc" for name in fields), "latitude"],
    ...     overwrite=True,
    ... )
    >>> done["finished"]
    True
    """
    inputs = maps.Inputs(
        anchor,
        tuple(Path(path) for path in scenario),
        tuple(static),
        tuple(protected),
        None if table is None else Path(table),
        bbox,
        cell_size_deg,
        fill_scenario,
    )
    options = maps.Options(tile, overlap, chunk, batch_size, match_areas, tuple(fixed), tuple(keep))
    with make_scheduler(scheduler, scheduler_address, workers) as chosen:
        return maps.reconstruct(model, inputs, years, target, options, scheduler=chosen, overwrite=overwrite)

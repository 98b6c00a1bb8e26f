"""The files of a reconstruction, opened and checked against the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from earthsr.backend import Model
from earthsr.errors import InputError
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import ClassTable
from earthsr.landuse.reconstruct.plan import require_land_use
from earthsr.landuse.sources.gaps import Fill, require_fill
from earthsr.landuse.sources.world_inputs import BBox, WorldInputs, open_world

_logger = logging.getLogger("earthsr")


@dataclass(frozen=True)
class Inputs:
    """Files of a reconstruction, as the command line names them."""

    anchor: str
    """``[YEAR=]PATH`` of a class raster."""
    scenario: tuple[Path, ...]
    """Files of LUH2's form; of two that have a year the first gives it."""
    static: tuple[str, ...]
    """``NAME=PATH``, or fields that need no file."""
    protected: tuple[str, ...] = ()
    """Rasters that are not 0 where cells keep their class."""
    table: Path | None = None
    """Class table; the checkpoint's own where absent."""
    bbox: BBox | None = None
    """West, south, east, north, degrees; west beyond east goes across the dateline."""
    cell_size_deg: float | None = None
    """Size of the maps' cells; the anchor's where absent."""
    fill_scenario: Fill | None = None
    """``nearest``: what stands for fractions that the scenario lacks over land; an error where absent."""

    def paths(self) -> list[str | Path | None]:
        """Return the texts that name files."""
        return [self.anchor, *self.scenario, *self.static, *self.protected, self.table]


def open_inputs(model: Model, inputs: Inputs) -> WorldInputs:
    """Open all files and check them against the model.

    Raises
    ------
    InputError, DataError, CheckpointError
        If something is missing or does not fit; the message names file, channel and year.
    """
    require_land_use(model)
    require_fill(inputs.fill_scenario, "--fill-scenario")
    source = str(model.metadata.get("source", "the model"))
    if inputs.table is None:
        table = ClassTable.from_json(model.metadata["class_table"], source)
    else:
        table = ClassTable.from_yaml(inputs.table)
        trained = ClassTable.from_json(model.metadata["class_table"], source).names
        if table.names != trained:
            raise InputError(
                f"{inputs.table}: has the classes {', '.join(table.names)}; {source} was trained on "
                f"{', '.join(trained)}"
            )
    world = open_world(
        inputs.anchor,
        inputs.static,
        inputs.scenario,
        table,
        static_names=tuple(model.metadata["static_channels"]),
        coarse_channels=tuple(model.metadata["coarse_channels"]),
        protected=inputs.protected,
        bbox=inputs.bbox,
        cell_size_deg=inputs.cell_size_deg,
        fill_scenario=inputs.fill_scenario,
    )
    warn_of_cells(model, world.grid)
    return world


def warn_of_cells(model: Model, grid: Grid) -> None:
    """Say where cells are of another size than those that a model was trained on."""
    trained_deg = model.metadata.get("output_cell_size_deg")
    cells = (grid.cell_y, grid.cell_x)
    if trained_deg and any(abs(a / b - 1) > 0.01 for a, b in zip(cells, trained_deg, strict=True)):
        _logger.warning(
            "cells are %.6g x %.6g degrees, the model was trained on %.6g x %.6g: maps may be worse than its scores",
            *cells,
            *trained_deg,
        )

"""What the Basic Model Interface opens and offers: keys of its YAML file, and its grids and variables.

Keys are checked before anything is opened. Rows go from south to north here, for that is how the interface counts on a
uniform rectilinear grid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from earthsr.config.sections import Count, Section, config_error
from earthsr.errors import ConfigError, InputError
from earthsr.geo.grid import Grid
from earthsr.landuse.class_areas import cell_areas
from earthsr.landuse.classes import NODATA
from earthsr.landuse.emulator.emulator import Emulator
from earthsr.models.checkpoint import pretrained_names

_DATED = re.compile(r"^(?P<year>\d{1,4})=(?P<path>.+)$", re.DOTALL)


class BmiConfig(Section):
    """What ``initialize`` reads. Paths are relative to the file's own folder."""

    checkpoint: str
    """Run folder, checkpoint folder, weights file, exported model, or the name of a pretrained model."""
    static: str | dict[str, str]
    """NetCDF file with the model's static fields, or a file for each."""
    anchor: str
    """``[YEAR=]PATH`` of the class raster that the run begins with."""
    end_year: int
    """Last year; one before the anchor's is reached backwards."""
    start_year: int | None = None
    """The anchor's, to be checked against it."""
    protected: list[str] = Field(default_factory=list)
    """Rasters of cells that keep their class."""
    fixed: list[str] = Field(default_factory=list)
    """Classes whose cells keep their class."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north of the part that is mapped."""
    match_areas: bool = True
    backend: str | None = None
    device: str = "auto"
    precision: str | None = Field(default=None, pattern="^O[0-3]$")
    tile: Count | None = None
    overlap: float = Field(default=0.25, ge=0, lt=1)
    chunk: Count | None = None
    batch_size: Count | None = None
    share: tuple[int, int] | None = None
    """Rank, and number of ranks that make the region together, each in a process of its own."""

    @classmethod
    def read(cls, path: str | Path) -> BmiConfig:
        """Read a file.

        Raises
        ------
        ConfigError
            If it is missing, is not YAML, or a key is unknown, missing or wrong.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file; docs/emulator.md has an example") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected keys such as checkpoint and static, found {type(values).__name__}")
        missing = [key for key, field in cls.model_fields.items() if field.is_required() and key not in values]
        if missing:
            raise ConfigError(f"{path}: lacks {', '.join(missing)}; checkpoint, static, anchor, end_year are needed")
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            raise config_error(error, cls, where="", source=str(path)) from None
        return config._beside(path.absolute().parent)

    def _beside(self, folder: Path) -> BmiConfig:
        """Give the same with paths that begin at the root."""

        def at(text: str) -> str:
            return str(folder / text)

        static = at(self.static) if isinstance(self.static, str) else {k: at(v) for k, v in self.static.items()}
        dated = _DATED.match(self.anchor)
        anchor = f"{dated['year']}={at(dated['path'])}" if dated else at(self.anchor)
        # What is not there may be the name of a model that travels with the package; a file of that name goes first.
        checkpoint = at(self.checkpoint) if (folder / self.checkpoint).exists() else self._named(folder)
        paths = {"checkpoint": checkpoint, "static": static, "anchor": anchor}
        return self.model_copy(update={**paths, "protected": [at(text) for text in self.protected]})

    def _named(self, folder: Path) -> str:
        """Name of a pretrained model, or, of anything else, the path that will be said not to be there."""
        return self.checkpoint if self.checkpoint in pretrained_names() else str(folder / self.checkpoint)

    @property
    def options(self) -> dict[str, Any]:
        """What :meth:`earthsr.landuse.emulator.Emulator.load` takes beside the checkpoint."""
        names = ("static", "fixed", "bbox", "match_areas", "backend", "device", "precision", "tile", "overlap")
        options = {name: getattr(self, name) for name in (*names, "batch_size", "share")}
        options["protected"] = self.protected or None
        return options if self.chunk is None else {**options, "chunk": self.chunk}


#: Numbers of the two grids.
FINE: Final = 0
COARSE: Final = 1

CLASS: Final = "land_surface__land_use_class_code"
CONFIDENCE: Final = "land_surface__land_use_class_probability"
CELL_AREA: Final = "land_surface_grid_cell__area"
#: Where ranks share a region: which makes a cell, and whether this one reads what it was the year before.
RANK: Final = "land_surface_grid_cell__process_rank"
READ: Final = "land_surface_grid_cell__read_flag"


class NotDefinedError(InputError, NotImplementedError):
    """Something that the interface does not define for grids of this type."""


@dataclass(frozen=True)
class Variable:
    """One variable."""

    name: str
    units: str
    """As UDUNITS writes them."""
    grid: int
    values: NDArray[Any]
    """(rows, columns), south to north; the same array from the beginning to the end."""
    is_input: bool = False
    is_exchanged: bool = False
    """Whether an output may be set as well: what other ranks have made of it."""

    @property
    def reference(self) -> NDArray[Any]:
        """The values, flat and without a copy; those of an output cannot be written to."""
        flat = self.values.reshape(-1)
        flat.flags.writeable = self.is_input or self.is_exchanged
        return flat


@dataclass(frozen=True)
class UniformGrid:
    """A grid as the interface has it: cells stand for nodes at their centres."""

    grid: Grid

    @property
    def shape(self) -> NDArray[np.int64]:
        """Rows and columns."""
        return np.array([self.grid.rows, self.grid.columns])

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Degrees between rows and between columns."""
        return np.array([self.grid.cell_y, self.grid.cell_x])

    @property
    def origin(self) -> NDArray[np.float64]:
        """Latitude and longitude of the south-western node, degrees."""
        return np.array([self.y[0], self.x[0]])

    @property
    def x(self) -> NDArray[np.float64]:
        """Longitudes of the columns, west to east, degrees."""
        return self.grid.longitudes()

    @property
    def y(self) -> NDArray[np.float64]:
        """Latitudes of the rows, south to north, degrees."""
        return self.grid.latitudes()[::-1].copy()


def fraction_name(channel: str) -> str:
    """Name of the variable that takes a channel's fractions: ``land_surface_grass-shrub__area_fraction``."""
    return f"land_surface_{_word(channel)}__area_fraction"


def area_name(class_name: str) -> str:
    """Name of the variable that gives a class's areas: ``land_surface_cropland__area``."""
    return f"land_surface_{_word(class_name)}__area"


def _word(text: str) -> str:
    """A word as CSDMS's names have them: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def variables_of(emulator: Emulator) -> dict[str, Variable]:
    """Make the variables of an emulator, inputs first, in the order of its channels and classes.

    Raises
    ------
    InputError
        If two channels or classes have one name.
    """
    fine, coarse = emulator.grid, emulator.forcing_grid
    shapes = (fine.rows, fine.columns), (coarse.rows, coarse.columns)
    _require_apart(emulator.channels)
    _require_apart(emulator.table.names)
    variables = [
        Variable(fraction_name(channel), "1", COARSE, np.full(shapes[1], np.nan), True) for channel in emulator.channels
    ]
    variables.append(Variable(CLASS, "1", FINE, np.full(shapes[0], NODATA, np.uint8)))
    variables.append(Variable(CONFIDENCE, "1", FINE, np.full(shapes[0], np.nan, np.float32)))
    variables.append(Variable(CELL_AREA, "km2", FINE, cell_areas(fine)[::-1].copy()))
    if (share := emulator.share) is not None:
        # What other ranks have made is handed over in the map itself.
        variables[-3] = Variable(CLASS, "1", FINE, variables[-3].values, is_exchanged=True)
        variables.append(Variable(RANK, "1", FINE, share.owner[::-1].copy()))
        variables.append(Variable(READ, "1", FINE, share.reads[::-1].astype(np.uint8)))
    variables += [Variable(area_name(name), "km2", COARSE, np.zeros(shapes[1])) for name in emulator.table.names]
    return {variable.name: variable for variable in variables}


def _require_apart(names: Sequence[str]) -> None:
    words: dict[str, str] = {}
    for name in names:
        if _word(name) in words:
            raise InputError(f"{name} and {words[_word(name)]} have one name in the Basic Model Interface; rename one")
        words[_word(name)] = name

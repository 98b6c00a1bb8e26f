"""What the Basic Model Interface opens: keys of its YAML file, checked before anything is opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from earthsr.config.sections import Count, Section, config_error
from earthsr.errors import ConfigError
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
        options = {name: getattr(self, name) for name in (*names, "batch_size")}
        options["protected"] = self.protected or None
        return options if self.chunk is None else {**options, "chunk": self.chunk}

"""What a store of annual maps holds, and its description in the store itself."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any, Final

from earthsr.errors import DataError, InputError
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.store.untrusted import parse_json

SCHEMA_VERSION: Final = 1

#: Root attributes that are ours: the description, and whether all maps are there.
DESCRIPTION: Final = "earthsr_maps"
COMPLETE: Final = "earthsr_complete"

LAYERS: Final = ("land_use", "confidence", "probabilities")


@dataclass(frozen=True)
class MapsSpec:
    """Grid, years, classes and layers of annual maps.

    Raises
    ------
    InputError
        If years are not ascending, a layer is not known, or a class's code does not fit into a byte.
    """

    grid: Grid
    """Fine grid, longitude and latitude."""
    crs: str
    """A code such as ``EPSG:4326``, or WKT; geographic."""
    years: tuple[int, ...]
    """Ascending; gaps are allowed."""
    table: ClassTable
    """Maps on disk hold each class's first code."""
    chunk: tuple[int, int]
    """Rows and columns that are written at once, and lie in one file."""
    layers: tuple[str, ...] = ("land_use",)
    """``land_use`` always; by choice ``confidence`` (largest probability) and ``probabilities`` (one a class)."""

    def __post_init__(self) -> None:
        years = self.years
        if not years or any(later <= earlier for earlier, later in itertools.pairwise(years)):
            raise InputError(f"maps: years are {_listed(years)}, expected at least one, ascending")
        if years[0] < 1 or years[-1] > 9998:
            raise InputError(f"maps: years are {years[0]} to {years[-1]}, expected years from 1 to 9998")
        if len(self.chunk) != 2 or min(self.chunk) < 1:
            raise InputError(f"maps: chunk is {self.chunk}, expected rows and columns of 1 and more")
        if self.grid.rows < 1 or self.grid.columns < 1:
            raise InputError(f"maps: grid has {self.grid.rows} x {self.grid.columns} cells, expected 1 and more")
        unknown = [layer for layer in self.layers if layer not in LAYERS]
        if unknown or LAYERS[0] not in self.layers or len(set(self.layers)) != len(self.layers):
            raise InputError(
                f"maps: layers are {_listed(self.layers)}, expected land_use and, by choice, {' and '.join(LAYERS[1:])}"
            )
        for land_class in self.table.classes:
            if not 0 <= land_class.code < NODATA:
                raise InputError(
                    f"class table {self.table.name}: code {land_class.code} of {land_class.name} cannot be written "
                    f"into maps, expected 0 to {NODATA - 1}; give the class a first code in this range"
                )

    def shape(self, layer: str) -> tuple[int, ...]:
        """Shape of a layer: (time, lat, lon), or (time, class, lat, lon) for probabilities."""
        classes = (len(self.table),) if layer == "probabilities" else ()
        return (len(self.years), *classes, self.grid.rows, self.grid.columns)

    def chunk_shape(self, layer: str) -> tuple[int, ...]:
        """Shape of what lies in one file of ``layer``: one year, and all classes."""
        shape = self.shape(layer)
        rows, columns = self.chunk
        return (1, *shape[1:-2], min(rows, shape[-2]), min(columns, shape[-1]))

    def to_json(self) -> str:
        """Return the text of the root attribute ``earthsr_maps``."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "grid": self.grid.lonlat,
                "crs": self.crs,
                "years": [int(year) for year in self.years],
                "classes": json.loads(self.table.to_json()),
                "chunk": [int(side) for side in self.chunk],
                "layers": self.layers,
            }
        )

    @classmethod
    def from_json(cls, text: Any, source: str) -> MapsSpec:
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        text : Any
            The attribute as it was read.
        source : str
            Where, for messages.

        Raises
        ------
        DataError
            If it is damaged, or of a later version.
        """
        try:
            values = parse_json(text)
            version = int(values["schema_version"])
            if version > SCHEMA_VERSION:
                raise DataError(f"{source}: schema version {version}, expected {SCHEMA_VERSION}; update earthsr")
            return cls(
                Grid.from_lonlat(values["grid"]),
                str(values["crs"]),
                tuple(int(year) for year in values["years"]),
                ClassTable.from_mapping(values["classes"], source),
                (int(values["chunk"][0]), int(values["chunk"][1])),
                tuple(str(layer) for layer in values["layers"]),
            )
        except DataError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{source}: attribute {DESCRIPTION} is damaged ({reason}); make the maps anew") from None


def _listed(values: tuple[Any, ...]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-2:]]) or "none"

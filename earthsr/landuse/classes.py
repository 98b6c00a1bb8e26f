"""Tables of land-use classes: what codes of a raster mean, how classes are named, drawn, and tied to a forcing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError
from earthsr.store.untrusted import parse_json

#: Value of cells without a class in arrays of class indices.
NODATA: Final = 255

#: States that one generation of scenarios has and another has not, with the state that holds them where they are not
#: told apart: LUH2 counts LUH3's forest plantations as secondary forest.
OPTIONAL_STATES: Final[dict[str, str]] = {"pltns": "secdf"}

_COLOUR = re.compile(r"^#[0-9a-fA-F]{6}$")


@dataclass(frozen=True)
class LandClass:
    """One class. Its index is its place in the table; ``codes`` are what rasters write for it."""

    name: str
    codes: tuple[int, ...]
    """The first one is written into maps."""
    colour: str
    """``#rrggbb``."""
    forcing: tuple[str, ...] = ()
    """Channels of a scenario whose fractions add up to this class; empty where the scenario does not know it."""

    def tied(self, channels: Collection[str]) -> tuple[str, ...]:
        """Those of ``channels`` that add up to the class; none where one is missing that every scenario has."""
        if any(channel not in channels for channel in self.forcing if channel not in OPTIONAL_STATES):
            return ()
        return tuple(channel for channel in self.forcing if channel in channels)

    @property
    def code(self) -> int:
        """Code of the class in maps."""
        return self.codes[0]


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of their indices, ``nodata_codes`` that mean no class, and a name to speak of them by.

    Examples
    --------
    >>> import earthsr
    >>> table = earthsr.ClassTable.from_yaml("runs/landuse-data/archives/classes.yaml")
    >>> len(table)
    7
    """

    name: str
    classes: tuple[LandClass, ...]
    nodata_codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= 254:
            raise InputError(f"class table {self.name}: {len(self.classes)} classes, expected 2 to 254")
        seen: dict[int, str] = dict.fromkeys(self.nodata_codes, "nodata")
        for land_class in self.classes:
            if not land_class.codes:
                raise InputError(f"class table {self.name}: {land_class.name} has no code; give at least one")
            if not _COLOUR.match(land_class.colour):
                raise InputError(
                    f"class table {self.name}: colour of {land_class.name} is {land_class.colour!r}, expected #rrggbb"
                )
            for code in land_class.codes:
                if code in seen:
                    raise InputError(
                        f"class table {self.name}: code {code} means both {seen[code]} and {land_class.name}"
                    )
                seen[code] = land_class.name
        if len(set(self.names)) != len(self.names):
            raise InputError(f"class table {self.name}: a name stands twice among {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of indices."""
        return tuple(land_class.name for land_class in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours in the order of indices."""
        return tuple(land_class.colour for land_class in self.classes)

    def index(
        self, raster: NDArray, source: str, valid: NDArray[np.bool_] | None = None, origin: tuple[int, int] = (0, 0)
    ) -> NDArray[np.uint8]:
        """Turn raster codes into class indices; nodata, NaN and the table's nodata codes become 255.

        Parameters
        ----------
        raster : ndarray
            Codes, of any number type and any shape.
        source : str
            File and year, for errors.
        valid : ndarray of bool, optional
            Which cells have a code, where the raster says so.
        origin : tuple of int
            Row and column of the first cell in its file, for errors.

        Raises
        ------
        DataError
            If a code is not in the table; the message names the code, the first cell that has it, and the file.
        """
        void = ~np.isfinite(raster) if raster.dtype.kind == "f" else np.zeros(raster.shape, bool)
        if valid is not None:
            void |= ~valid
        indices = np.full(raster.shape, NODATA, np.uint8)
        known = void.copy()
        for code in self.nodata_codes:
            known |= raster == code
        for i, land_class in enumerate(self.classes):
            for code in land_class.codes:
                hit = (raster == code) & ~void
                indices[hit] = i
                known |= hit
        if not known.all():
            where = tuple(int(i) for i in np.argwhere(~known)[0])
            row, column = origin[0] + where[-2], origin[1] + where[-1]
            listed = ", ".join(f"{'/'.join(map(str, c.codes))} {c.name}" for c in self.classes)
            raise DataError(
                f"{source}: code {raster[where]:g} at row {row}, column {column} is in no class of table "
                f"{self.name} ({listed}; nodata {', '.join(map(str, self.nodata_codes)) or 'none'}); give a table that "
                "has it with --table: hilda, esa-cci, modis-igbp, corine, or a YAML file"
            )
        return indices

    def to_json(self) -> str:
        """Return the text of the attribute ``classes`` of our files."""
        return json.dumps(
            {
                "name": self.name,
                "nodata_codes": self.nodata_codes,
                "classes": [{"index": i, "code": c.code, **asdict(c)} for i, c in enumerate(self.classes)],
            }
        )

    @classmethod
    def from_json(cls, text: Any, source: str) -> ClassTable:
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        text : str
            The attribute.
        source : str
            File, for errors.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            return cls.from_mapping(parse_json(text), source)
        except (ValueError, TypeError) as error:
            raise DataError(f"{source}: attribute classes is damaged ({error})") from None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> ClassTable:
        """Build from ``name``, ``nodata_codes`` and ``classes`` (each ``name``, ``codes``, ``colour``, ``forcing``).

        Parameters
        ----------
        values : mapping
            As a YAML file has them.
        source : str
            File, for errors.

        Raises
        ------
        DataError
            If something is missing or of the wrong type.
        """
        try:
            classes = tuple(
                LandClass(
                    str(row["name"]),
                    tuple(int(code) for code in row["codes"]),
                    str(row["colour"]),
                    tuple(str(channel) for channel in row.get("forcing") or ()),
                )
                for row in values["classes"]
            )
            nodata = tuple(int(code) for code in values.get("nodata_codes") or ())
            return cls(str(values.get("name", Path(source).stem)), classes, nodata)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise DataError(
                f"{source}: is no class table ({error!r}); expected classes: a list of name, codes, colour and, by "
                "choice, forcing; and nodata_codes"
            ) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> ClassTable:
        """Read a table from a YAML file.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        DataError
            If the file is missing, is not YAML, or is no class table.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such class table") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: is no class table; expected the keys name, classes and nodata_codes")
        return cls.from_mapping(values, str(path))


#: HILDA+ (Winkler et al., 2021) of v1 and v2.1 with its crop and forest types as one class each; beside it the states
#: of LUH2 (Hurtt et al., 2020) and LUH3. Codes are those of the readme of v2.1 (hildap_vGLOB-2.1-crop): 22 annual
#: crops (v1: cropland), 23 tree crops, 24 agroforestry; 40 to 45 forest, unknown or other, evergreen needle leaf,
#: evergreen broad leaf, deciduous needle leaf, deciduous broad leaf, mixed; 0 ocean, 99 no data.
HILDA_PLUS: Final = ClassTable(
    "HILDA+",
    (
        LandClass("urban", (11,), "#d7191c", ("urban",)),
        LandClass("cropland", (22, 23, 24), "#f4c542", ("c3ann", "c4ann", "c3per", "c4per", "c3nfx")),
        LandClass("pasture", (33,), "#c8e07a", ("pastr", "range")),
        LandClass("forest", (40, 41, 42, 43, 44, 45), "#1b7837", ("primf", "secdf", "pltns")),
        LandClass("grass/shrub", (55,), "#a08a4f", ("primn", "secdn")),
        LandClass("sparse", (66,), "#bdb7ad"),
        LandClass("water", (77,), "#3a7ebf"),
    ),
    nodata_codes=(0, 99),
)


def class_fractions(
    values: NDArray[np.float32], channels: Sequence[str], of_class: Mapping[str, Sequence[str]], names: Sequence[str]
) -> NDArray[np.float32]:
    """Fractions of classes, the sums of those of their channels.

    Parameters
    ----------
    values : ndarray of shape (..., C, h, w)
        Of the channels.
    channels, names : sequence of str
        Of the C channels and the K classes.
    of_class : mapping
        Channels of each class that the forcing knows.

    Returns
    -------
    ndarray of shape (..., K, h, w)
        NaN for classes that the forcing does not know.
    """
    by_class = np.full((*values.shape[:-3], len(names), *values.shape[-2:]), np.nan, np.float32)
    for k, name in enumerate(names):
        places = [channels.index(channel) for channel in of_class.get(name, ())]
        if places:
            by_class[..., k, :, :] = values[..., places, :, :].sum(axis=-3)
    return by_class

"""Class tables of well-known maps: ESA CCI land cover, MODIS (IGBP), CORINE, and HILDA+; each tied to LUH2's states.

Classes that no scenario tells apart are one: kinds of forest, crops with mosaics of crops. Where a map has no pasture
of its own, pastures and rangelands of a scenario are among its grass and shrubs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from earthsr.errors import DataError
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass

_URBAN: Final = ("#d7191c", ("urban",))
_CROPS: Final = ("#f4c542", ("c3ann", "c4ann", "c3per", "c4per", "c3nfx"))
_FOREST: Final = ("#1b7837", ("primf", "secdf", "pltns"))
_OPEN: Final = ("#a08a4f", ("primn", "secdn", "pastr", "range"))
_WETLAND, _SPARSE, _WATER, _ICE = "#5ab4ac", "#bdb7ad", "#3a7ebf", "#e8f4fb"

#: ESA CCI and Copernicus C3S land cover, 300 m, ``lccs_class`` (Product User Guide 2.0, table 3-1, with the regional
#: classes of two digits and one): mosaics with more than half of crops are crops, the others grass and shrub.
ESA_CCI: Final = ClassTable(
    "ESA CCI",
    (
        LandClass("urban", (190,), *_URBAN),
        LandClass("cropland", (10, 11, 12, 20, 30), *_CROPS),
        LandClass("forest", (50, 60, 61, 62, 70, 71, 72, 80, 81, 82, 90, 160, 170), *_FOREST),
        LandClass("grass/shrub", (130, 40, 100, 110, 120, 121, 122), *_OPEN),
        LandClass("wetland", (180,), _WETLAND),
        LandClass("sparse", (200, 140, 150, 151, 152, 153, 201, 202), _SPARSE),
        LandClass("water", (210,), _WATER),
        LandClass("ice", (220,), _ICE),
    ),
    nodata_codes=(0,),
)

#: MODIS MCD12Q1 and MCD12C1, ``LC_Type1`` (IGBP; Friedl and Sulla-Menashe, 2019): water is 17, and 0 in MCD12C1. Woody
#: savannas have a third of trees and more, and are forest.
MODIS_IGBP: Final = ClassTable(
    "MODIS IGBP",
    (
        LandClass("urban", (13,), *_URBAN),
        LandClass("cropland", (12, 14), *_CROPS),
        LandClass("forest", (5, 1, 2, 3, 4, 8), *_FOREST),
        LandClass("grass/shrub", (10, 6, 7, 9), *_OPEN),
        LandClass("wetland", (11,), _WETLAND),
        LandClass("sparse", (16,), _SPARSE),
        LandClass("water", (17, 0), _WATER),
        LandClass("ice", (15,), _ICE),
    ),
    nodata_codes=(255,),
)


#: CORINE Land Cover (nomenclature of 44 classes): the numbers 1 to 44 of its rasters, and the codes 111 to 523.
CORINE: Final = ClassTable(
    "CORINE",
    (
        LandClass("urban", (*range(1, 12), 111, 112, 121, 122, 123, 124, 131, 132, 133, 141, 142), *_URBAN),
        LandClass(
            "cropland",
            (*range(12, 18), *range(19, 23), 211, 212, 213, 221, 222, 223, 241, 242, 243, 244),
            *_CROPS,
        ),
        LandClass("pasture", (18, 231), "#c8e07a", ("pastr",)),
        LandClass("forest", (*range(23, 26), 311, 312, 313), *_FOREST),
        LandClass("grass/shrub", (*range(26, 30), 321, 322, 323, 324), _OPEN[0], ("primn", "secdn", "range")),
        LandClass("wetland", (*range(35, 40), 411, 412, 421, 422, 423), _WETLAND),
        LandClass("sparse", (*range(30, 34), 331, 332, 333, 334), _SPARSE),
        LandClass("water", (*range(40, 45), 511, 512, 521, 522, 523), _WATER),
        LandClass("ice", (34, 335), _ICE),
    ),
    nodata_codes=(48, 255, 990, 995, 999, -128, -9999),
)

#: By the names that ``--table`` takes.
TABLES: Final[dict[str, ClassTable]] = {
    "hilda": HILDA_PLUS,
    "esa-cci": ESA_CCI,
    "modis-igbp": MODIS_IGBP,
    "corine": CORINE,
}


def class_table(text: str | Path) -> ClassTable:
    """Return a built-in table by its name, or read one from a YAML file.

    Parameters
    ----------
    text : str or Path
        A name of :data:`TABLES`, or a file; one of such a name is ``./hilda``.

    Raises
    ------
    DataError
        If there is neither, or the file is no class table.

    Examples
    --------
    >>> class_table("esa-cci").names[:3]
    ('urban', 'cropland', 'forest')
    """
    known = TABLES.get(str(text).lower())
    if known is not None:
        return known
    if not Path(text).exists() and Path(text).suffix == "":
        raise DataError(f"{text}: no such class table; there are {', '.join(TABLES)}, or name a YAML file")
    return ClassTable.from_yaml(text)

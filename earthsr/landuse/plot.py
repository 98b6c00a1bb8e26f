"""Pictures of land-use rasters: classes in their colours with a legend, years beside or after each other, areas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning, InputError, listed
from earthsr.evaluation.figures import DPI
from earthsr.evaluation.maps import (
    PAGE,
    Drawing,
    MapRequest,
    View,
    blank_voids,
    colour_bar,
    draw_map,
    entitle,
    figure_text,
    holds_codes,
    map_figure,
    note_voids,
    shape_ratio,
    view_of,
    window_of,
)
from earthsr.geo.cf import spans
from earthsr.geo.crs import metres_per_unit
from earthsr.geo.fields import FieldSource
from earthsr.geo.grid import Grid, Window, pieces
from earthsr.geo.raster import sampled
from earthsr.geo.readers import split_variable
from earthsr.landuse.class_areas import row_areas
from earthsr.landuse.classes import HILDA_PLUS, NODATA, ClassTable
from earthsr.landuse.figures import NODATA_COLOUR, coloured, legend_patches
from earthsr.landuse.sources.rasters import year_of_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Maps beside each other, at most.
_MOST_PANELS: Final = 9
#: Cells that are counted at once.
_COUNTED: Final = 2**24
#: Colours of codes whose file gives none.
_TINTS: Final = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#994f00", "#e1be6a", "#40b0a6", "#5d3a9b",
    "#d35fb7", "#1a85ff", "#8b8b3a", "#a6611a", "#80cdc1", "#f4a582",
)  # fmt: skip
_FIELD: Final = "viridis"


@dataclass(frozen=True)
class DrawnClasses:
    """Codes of a raster that are drawn, in the order of their indices."""

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def index(self, codes: Any) -> NDArray[np.uint8]:
        """Class indices of stored numbers; 255 where there is no class."""
        if not self.codes:
            return np.full(codes.stored.shape, NODATA, np.uint8)
        order = np.argsort(self.codes)
        known = np.array(self.codes)[order]
        place = np.minimum(np.searchsorted(known, codes.stored), len(known) - 1)
        held = codes.valid & (known[place] == codes.stored)
        return np.where(held, order[place], NODATA).astype(np.uint8)


def draw_land(source: Any, request: MapRequest) -> Drawing:
    """Draw maps of classes, or of another field of the land surface.

    Parameters
    ----------
    source : Source
        Open; NetCDF and Zarr may have a layer a year.
    request : MapRequest
        Part, size, years.

    Raises
    ------
    InputError
        If a year is not there, or something is asked for that is of elevation or of several years.
    DataError
        If a number is no code of a class.
    """
    require_of_land(source, request)
    codes = holds_codes(source)
    years = years_of(source, request)
    moving = request.suffix in (".gif", ".mp4")
    if moving and len(years) < 2:
        raise InputError(
            f"{source.name} is one map, and {request.suffix} shows years one after the other; name a .png, or a raster "
            "of several years"
        )
    grid = source.georeference
    rows, columns = (
        (1, 1) if moving else _arrangement(len(years), shape_ratio(grid.part(window_of(grid, request.bbox))))
    )
    view = view_of(grid, window_of(grid, request.bbox), request.size / max(rows, columns))
    if not codes:
        return _field(source, request, view, years, (rows, columns))
    return _maps(source, request, view, years, (rows, columns))


def require_of_land(source: Any, request: MapRequest) -> None:
    """Check that nothing is asked for that is of elevation, or of classes where there are none.

    Raises
    ------
    InputError
        If it is.
    """
    if request.beside or request.contours is not None:
        option = "--beside" if request.beside else "--contours"
        raise InputError(f"{option} is for elevation, and {source.name} holds {_what(source)}; leave it out")
    if request.suffix != PAGE:
        for option, given in (("--scenario", request.scenario), ("--relief", request.relief)):
            if given:
                raise InputError(f"{option} is for a page; name a .html")
    if request.areas and not holds_codes(source):
        raise InputError(f"{source.name} holds no classes, and areas are those of classes; leave --areas out")


def _what(source: Any) -> str:
    return "classes" if holds_codes(source) else f"values in {source.georeference.units}"


def years_of(source: Any, request: MapRequest) -> dict[int | None, int]:
    """Find the layer of each year that is drawn; None for a map of no year.

    Raises
    ------
    InputError
        If a year is not there, or a picture would hold too many.
    DataError
        If a year has several maps.
    """
    there = source.years() if isinstance(source, FieldSource) else None
    if there is None:
        try:
            year = None if request.text is None else year_of_name(split_variable(request.text)[0])
        except InputError:
            year = None
        if request.years not in (None, (year,)):
            raise InputError(
                f"{source.name} is one map{'' if year is None else f', of {year}'}, and --years names "
                f"{listed([str(y) for y in request.years or ()])}; leave it out"
            )
        return {year: 0}
    layers = {year: number for number, year in enumerate(there)}
    if len(layers) < len(there):
        raise DataError(f"{source.name}: has several maps of one year, expected one; cdo yearmax FILE OUT makes it so")
    if request.years is not None:
        missing = [year for year in request.years if year not in layers]
        if missing:
            raise InputError(
                f"--years: {source.name} has no map of {listed([str(year) for year in missing])}; it has {spans(there)}"
            )
        wanted = sorted(set(request.years))
        if request.suffix == ".png" and len(wanted) > _MOST_PANELS:
            raise InputError(
                f"--years names {len(wanted)} years, and a picture holds {_MOST_PANELS}; name fewer, or a .gif"
            )
    else:
        wanted = sorted(layers)
        if request.suffix == ".png":
            places = np.linspace(0, len(wanted) - 1, min(len(wanted), _MOST_PANELS))
            wanted = [wanted[round(place)] for place in places]
    return {year: layers[year] for year in wanted}


def _arrangement(count: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of so many maps that need the least of a square."""
    shapes = [(rows, -(-count // rows)) for rows in range(1, count + 1)]
    return min(shapes, key=lambda shape: (max(shape[0] * ratio, shape[1]), shape[0] * shape[1]))


def _maps(
    source: Any, request: MapRequest, view: View, years: dict[int | None, int], shape: tuple[int, int]
) -> Drawing:
    stored = {year: sampled(source, view.window, view.step, "codes", layer) for year, layer in years.items()}
    occurring = sorted({int(code) for codes in stored.values() for code in np.unique(codes.stored[codes.valid])})
    table: list[list[Any]] = []
    if request.areas or request.suffix == ".csv":
        areas = {year: _areas(source, view.window, layer) for year, layer in years.items()}
        occurring = sorted({*occurring, *(code for sums in areas.values() for code in sums)})
    classes = classes_of(source, occurring)
    if request.areas or request.suffix == ".csv":
        table = [["class", "code", *("area_km2" if year is None else f"{year}_km2" for year in years)]]
        table += [
            [name, code, *(sums.get(code, 0.0) for sums in areas.values())]
            for name, code in zip(classes.names, classes.codes, strict=True)
        ]
    maps = {year: classes.index(codes) for year, codes in stored.items()}
    facts = {
        **view.facts(),
        "years": [year for year in years if year is not None],
        "classes": [
            {"code": code, "name": name, "colour": colour}
            for code, name, colour in zip(classes.codes, classes.names, classes.colours, strict=True)
        ],
        "drawn_without_class": int(sum((values == NODATA).sum() for values in maps.values())),
    }
    if table:
        facts["areas_km2"] = {row[0]: dict(zip(table[0][2:], row[2:], strict=True)) for row in table[1:]}

    def figures() -> Iterator[Figure]:
        moving = request.suffix in (".gif", ".mp4")
        for group in [[year] for year in maps] if moving else [list(maps)]:
            yield _class_figure({year: maps[year] for year in group}, classes, source.name, view, request.size, shape)

    return Drawing("classes", facts, figures, table)


def classes_of(source: Any, occurring: Sequence[int]) -> DrawnClasses:
    """Find names and colours of the codes that occur: the file's, HILDA+'s where it has none and all are its codes."""
    categories = getattr(source, "categories", None)
    if categories is not None:
        names = dict(zip(categories.codes, categories.names, strict=True))
        colours = dict(zip(categories.codes, categories.colours, strict=True))
        if not any(categories.names):
            of_table = {code: entry for entry in HILDA_PLUS.classes for code in entry.codes}
            shown = [code for code in occurring if code in names]
            if shown and all(code in of_table and colours[code] == of_table[code].colour for code in shown):
                names |= {code: of_table[code].name for code in shown}  # the same codes in the same colours
            else:
                _say(source, "the file has colours and no names of classes; the legend shows their codes")
        codes = [code for code in occurring if code in names]
        unknown = [code for code in occurring if code not in names]
        if unknown:
            _say(
                source, f"holds codes that stand for no class, {listed([str(c) for c in unknown])}; they have no names"
            )
            codes = list(occurring)
    else:
        table = HILDA_PLUS
        by_code = {code: land_class for land_class in table.classes for code in land_class.codes}
        codes = [code for code in occurring if code not in table.nodata_codes]
        names, colours = {}, {}
        if codes and all(code in by_code for code in codes):
            _say(source, f"does not say what its codes stand for; they are taken for those of {table.name}")
            return _merged(table, codes)
        codes = list(occurring)
        _say(source, "does not say what its codes stand for; the legend shows the codes")
    tints = iter(_TINTS * (1 + len(codes) // len(_TINTS)))
    return DrawnClasses(
        tuple(codes),
        tuple(names.get(code) or f"code {code}" for code in codes),
        tuple(colours.get(code) or next(tints) for code in codes),
    )


def _merged(table: ClassTable, codes: Sequence[int]) -> DrawnClasses:
    """The classes of codes, each code with the name and colour of its class."""
    of_code = {code: land_class for land_class in table.classes for code in land_class.codes}
    several = {code: sum(other in of_code[code].codes for other in codes) > 1 for code in codes}
    names = (f"{of_code[code].name} ({code})" if several[code] else of_code[code].name for code in codes)
    return DrawnClasses(tuple(codes), tuple(names), tuple(of_code[code].colour for code in codes))


def _say(source: Any, text: str) -> None:
    warnings.warn(f"{source.name}: {text}", EarthsrWarning, stacklevel=2)


def _areas(source: Any, window: Window, layer: int) -> dict[int, float]:
    """Area of each code in a window, km2: every cell is counted, not those alone that are drawn."""
    grid = source.georeference
    options = {"layer": layer} if isinstance(source, FieldSource) else {}
    height = max(1, _COUNTED // max(window.columns, 1))
    sums: dict[int, float] = {}
    for part, _, _ in pieces(window, grid.rows, grid.columns, grid.periodic):
        for row in range(part.row, part.row + part.rows, height):
            rows = min(height, part.row + part.rows - row)
            stored, valid = source.codes(Window(row, part.column, rows, part.columns), **options)
            areas = row_km2(grid, row, rows)
            for code in np.unique(stored[valid]):
                cells = ((stored == code) & valid).sum(axis=1)
                sums[int(code)] = sums.get(int(code), 0.0) + float(cells @ areas)
    return sums


def row_km2(grid: Grid, row: int, rows: int) -> NDArray[np.float64]:
    """Return the area of a cell of each row, km2: on the sphere, or on the plane of a projection."""
    if grid.geographic:
        return row_areas(grid, row, rows)
    return np.full(rows, grid.cell_x * grid.cell_y * (metres_per_unit(grid.crs_wkt) / 1000) ** 2)


def _canvas(view: View, size: int, shape: tuple[int, int], right: float, below: float) -> tuple[Figure, list[Any]]:
    """A figure with axes for so many rows and columns of maps, and room beside and below them, inches."""
    rows, columns = shape
    ratio, long = shape_ratio(view.grid), size / DPI
    width = min(long / columns, long / rows / ratio)
    edge, above = 0.6, 0.55
    figure = map_figure(max(columns * (width + edge) + right, 3.2), rows * (width * ratio + above) + 0.4 + below)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _class_figure(
    maps: dict[int | None, NDArray[np.uint8]],
    classes: DrawnClasses,
    name: str,
    view: View,
    size: int,
    shape: tuple[int, int],
) -> Figure:
    """Maps of classes with one legend of all that occur, in this picture or in another of the same years."""
    indices = [*range(len(classes.codes))]
    if any((values == NODATA).any() for values in maps.values()):
        indices.append(NODATA)
    entries = legend_patches(classes.names, classes.colours, indices)
    rows, columns = shape
    ratio = shape_ratio(view.grid)
    wide = rows * ratio < columns * 0.75
    # A handle needs 0.6 inches, a letter 0.08.
    longest = 0.6 + 0.08 * max((len(name) for name in classes.names), default=8)
    across = max(1, min(len(entries), int(max(size / DPI, 3.2) / longest)))
    lines = -(-len(entries) // across)
    figure, panels = _canvas(view, size, shape, 0 if wide else longest, 0.24 * lines + 0.2 if wide else 0)
    for axes, (year, values) in zip(panels, maps.items(), strict=False):
        image = coloured(values, classes.colours)
        draw_map(axes, image, view.grid, "" if year is None else str(year), interpolation="nearest")
        axes.set_facecolor(NODATA_COLOUR)
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    _label_outside(panels, len(maps), columns)
    entitle(figure, f"{name}\n{figure_text(view.facts())}", 9.5)
    place: Any = "outside lower center" if wide else "outside right center"
    figure.legend(handles=entries, loc=place, ncols=across if wide else 1, fontsize=9, frameon=False)
    return figure


def _label_outside(panels: Sequence[Any], count: int, columns: int) -> None:
    """Leave numbers at the left and lower edges of several maps alone, for all are of the same place."""
    for number, axes in enumerate(panels[:count]):
        axes.tick_params(labelleft=number % columns == 0, labelbottom=number + columns >= count)
        if number % columns:
            axes.set_ylabel("")
        if number + columns < count:
            axes.set_xlabel("")


def _field(
    source: Any, request: MapRequest, view: View, years: dict[int | None, int], shape: tuple[int, int]
) -> Drawing:
    """Draw values that are neither elevations nor codes, in their own units."""
    fields = {year: sampled(source, view.window, view.step, "read", layer) for year, layer in years.items()}
    valid = np.concatenate([values[np.isfinite(values)] for values in fields.values()])
    low, high = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 0.0)
    place = source.georeference
    label = str(place.attributes.get("long_name") or source.name.rpartition(": ")[2])
    label += "" if place.units == "1" else f" ({place.units})"
    facts = {
        **view.facts(),
        "years": [year for year in years if year is not None],
        "units": place.units,
        "minimum": low if valid.size else None,
        "maximum": high if valid.size else None,
        "drawn_without_value": int(sum(values.size for values in fields.values()) - valid.size),
    }
    if math.isclose(low, high):
        low, high = low - 0.5, high + 0.5

    def picture(shown: dict[int | None, NDArray[np.float32]]) -> Figure:
        figure, panels = _canvas(view, request.size, shape, 1.0, 0.0)
        for axes, (year, values) in zip(panels, shown.items(), strict=False):
            blank_voids(axes)
            title = "" if year is None else str(year)
            options: dict[str, Any] = {"cmap": _FIELD, "vmin": low, "vmax": high, "interpolation": "nearest"}
            image = draw_map(axes, np.ma.masked_invalid(values), view.grid, title, **options)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        _label_outside(panels, len(shown), shape[1])
        colour_bar(figure, image, panels, label)
        note_voids(figure, list(shown.values()))
        entitle(figure, f"{source.name}\n{figure_text(view.facts())}", 9.5)
        return figure

    def figures() -> Iterator[Figure]:
        moving = request.suffix in (".gif", ".mp4")
        for group in [[year] for year in fields] if moving else [list(fields)]:
            yield picture({year: fields[year] for year in group})

    return Drawing("field", facts, figures)

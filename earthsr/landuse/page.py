"""Pages of land-use maps: classes of every year, how sure they are, what changed, and how far from the scenario."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError
from earthsr.evaluation.maps import Drawing, MapRequest, View, figure_text, holds_codes, seen_from, view_of, window_of
from earthsr.evaluation.page.layers import Curves, Layer, Packed, pack_classes, shading
from earthsr.evaluation.page.write import Page
from earthsr.geo.areas import brought_onto
from earthsr.geo.crs import same_crs
from earthsr.geo.elevations import elevations
from earthsr.geo.fields import FieldSource, open_dataset
from earthsr.geo.grid import Grid
from earthsr.geo.raster import sampled
from earthsr.geo.readers import SOURCES, kind_of, open_layers, open_source, split_variable
from earthsr.geo.values import is_metres
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass
from earthsr.landuse.coarse_areas import Tally
from earthsr.landuse.maps.layout import DESCRIPTION, MapsSpec
from earthsr.landuse.plot import DrawnClasses, classes_of, require_of_land, years_of
from earthsr.landuse.sources.scenario import Scenario, open_scenario
from earthsr.landuse.sources.scenario_files import variable_name

#: Share of a coarse cell that the map has to cover for the scenario to be compared.
_COVERED: Final = 0.99
#: Bytes of a page that layers beside the classes may take, before they are text.
_BUDGET: Final = 17_000_000
_CONFIDENCE: Final = "viridis"
_MISMATCH: Final = "magma_r"


def draw_land_page(source: Any, request: MapRequest) -> Drawing:
    """Make the page of a raster of classes, or of another field of the land surface.

    Parameters
    ----------
    source : Source
        Open; NetCDF and Zarr may have a layer a year.
    request : MapRequest
        Part, size, years; scenario and relief by choice.

    Raises
    ------
    InputError
        If a year is not there, or something is asked for that is of elevation.
    DataError
        If a number is no code of a class, or a scenario does not fit.
    """
    require_of_land(source, request)
    years = years_of(source, request)
    grid = source.georeference
    view = view_of(grid, window_of(grid, request.bbox), request.size)
    frames = tuple("map" if year is None else str(year) for year in years)
    page = Page(
        source.name,
        view.grid,
        frames,
        (),
        years=tuple(year for year in years if year is not None) or None,
        notes=(figure_text(view.facts()),),
    )
    if not holds_codes(source):
        if request.scenario:
            raise InputError(
                f"--scenario: {source.name} holds no classes, and a scenario has their areas; leave it out"
            )
        page, facts = _field_page(source, view, years, page)
    else:
        page, facts = _class_page(source, request, view, years, page)
    if request.relief is not None:
        page = replace(page, shade=_relief(request.relief, view.grid))
    return Drawing(
        "classes" if holds_codes(source) else "field",
        {**view.facts(), "years": [year for year in years if year is not None], **facts},
        page=page,
    )


def _maps(source: Any, view: View, years: Mapping[int | None, int], kind: str) -> Iterator[Any]:
    for layer in years.values():
        yield sampled(source, view.window, view.step, kind, layer)


def _field_page(source: Any, view: View, years: Mapping[int | None, int], page: Page) -> tuple[Page, dict[str, Any]]:
    low, high = math.inf, -math.inf
    for values in _maps(source, view, years, "read"):
        valid = values[np.isfinite(values)]
        if valid.size:
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    facts = {"units": source.georeference.units, "minimum": None, "maximum": None}
    if low > high:
        low = high = 0.0
    else:
        facts |= {"minimum": low, "maximum": high}
    place = source.georeference
    ends = (low - 0.5, high + 0.5) if math.isclose(low, high) else (low, high)
    layer = Layer.of_values(
        "field",
        str(place.attributes.get("long_name") or source.name.rpartition(": ")[2]),
        _maps(source, view, years, "read"),
        view.grid,
        palette=palette(_CONFIDENCE),
        low=ends[0],
        high=ends[1],
        least=low,
        most=high,
        units="" if place.units == "1" else place.units,
    )
    return replace(page, layers=(layer,)), facts


def palette(name: str, count: int = 128) -> list[str]:
    """Colours of one of matplotlib's maps, ``#rrggbb``."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, count))]


def _class_page(
    source: Any, request: MapRequest, view: View, years: Mapping[int | None, int], page: Page
) -> tuple[Page, dict[str, Any]]:
    described = _attributes(request.text)
    table = _table(described)
    occurring: set[int] = set()
    for codes in _maps(source, view, years, "codes"):
        occurring |= {int(code) for code in np.unique(codes.stored[codes.valid])}
    classes = classes_of(source, sorted(occurring))
    anchor = _anchor(described, tuple(years))
    with_scenario = _scenario(request, classes, table, view.grid)
    notes = [*page.notes]
    try:
        tally = Tally(view, tuple(years), len(classes.names), None if with_scenario is None else with_scenario.grid)

        def indices() -> Iterator[NDArray[np.uint8]]:
            for number, codes in enumerate(_maps(source, view, years, "codes")):
                values = classes.index(codes)
                tally.add(number, values)
                yield values

        packed = pack_classes(indices())
        about = {"classes": [{"name": n, "colour": c} for n, c in zip(classes.names, classes.colours, strict=True)]}
        layers = [Layer("classes", "Classes", "classes", packed, view.grid, about)]
        confidence = _confidence(request.text, source, view, years, _BUDGET - packed.size)
        if confidence is not None:
            layers.append(confidence)
        if len(years) > 1:
            layers.append(Layer("change", f"Change since {page.frames[anchor]}", "change", None, view.grid))
        scenario = None if with_scenario is None else tally.scenario(with_scenario, classes.names)
    finally:
        if with_scenario is not None:
            with_scenario.close()
    curves = tally.curves(classes, scenario)
    if scenario is not None:
        layers.append(_mismatch(curves, tally))
        notes.append("Scenario against maps: share of each coarse cell whose class would have to be another one")
        if tally.times > 1:
            notes.append(f"{tally.times} x {tally.times} cells of the scenario are put together")
    if view.step > 1:
        notes.append(f"areas are counted from the cells of this page, every {view.step} of the raster")
    facts = {
        "classes": [
            {"code": code, "name": name, "colour": colour}
            for code, name, colour in zip(classes.codes, classes.names, classes.colours, strict=True)
        ]
    }
    page = replace(
        page,
        layers=tuple(layers),
        anchor=anchor if len(years) > 1 else None,
        curves=curves if page.years else None,
        notes=tuple(notes),
        facts=_provenance(described),
    )
    return page, {**facts, "layers": [layer.title for layer in layers]}


def _attributes(text: str | None) -> dict[str, Any]:
    """What a file of maps says of itself; nothing where it is no such file."""
    if text is None:
        return {}
    path, _ = split_variable(text)
    if kind_of(path) not in SOURCES:
        return {}
    dataset = open_dataset(path)
    try:
        return dict(dataset.attrs)
    finally:
        dataset.close()


def _table(described: Mapping[str, Any]) -> ClassTable:
    """Which table of classes a file was made with; HILDA+'s where it does not say."""
    if DESCRIPTION not in described:
        return HILDA_PLUS
    return MapsSpec.from_json(described[DESCRIPTION], "maps").table


def _provenance(described: Mapping[str, Any]) -> dict[str, str]:
    known = {key: str(described[key]) for key in ("title", "source", "history", "references") if key in described}
    try:
        stated = json.loads(described.get("provenance", "{}"))
    except (TypeError, ValueError):
        stated = {}
    for key in ("checkpoint", "backend", "areas_matched", "anchor_year"):
        if key in stated:
            known[key.replace("_", " ")] = str(stated[key])
    return known


def _anchor(described: Mapping[str, Any], years: Sequence[int | None]) -> int:
    """Which frame change is counted from: the map that the others were rolled out from, else the first one."""
    try:
        return years.index(json.loads(described.get("provenance", "{}")).get("anchor_year"))
    except (TypeError, ValueError, AttributeError):
        return 0


def _confidence(
    text: str | None, source: Any, view: View, years: Mapping[int | None, int], budget: int
) -> Layer | None:
    """How sure the model was, where the file has it; with fewer cells where the page would become too large."""
    if text is None or not isinstance(source, FieldSource) or source.name.endswith(": confidence"):
        return None
    path, _ = split_variable(text)
    dataset = open_dataset(path)
    try:
        there = "confidence" in dataset.data_vars
    finally:
        dataset.close()
    if not there:
        return None
    raster: Any = open_layers(f"{path}:confidence")
    try:
        if raster.years() != source.years():
            return None
        step, seen = view.step, view
        options: dict[str, Any] = {
            "palette": palette(_CONFIDENCE),
            "low": 0.0,
            "high": 1.0,
            "least": 0.0,
            "most": 1.0,
            "step": 0.01,
        }
        while True:
            first = dict(list(years.items())[:1])
            sample = Layer.of_values(
                "confidence", "Confidence", _maps(raster, seen, first, "read"), seen.grid, **options
            )
            assert isinstance(sample.packed, Packed)
            if sample.packed.size * len(years) <= budget or min(seen.grid.rows, seen.grid.columns) < 64:
                break
            step *= 2
            seen = view_of(raster.georeference, view.window, max(view.window.rows, view.window.columns) / step)
        return Layer.of_values("confidence", "Confidence", _maps(raster, seen, years, "read"), seen.grid, **options)
    finally:
        raster.close()


def _relief(text: str, grid: Grid) -> bytes:
    """Hillshade of a raster of elevation on the cells of a page."""
    raster: Any = elevations(open_source(text), option=None)
    try:
        place = raster.georeference
        units = place.units.strip()
        if units and not is_metres(units):
            raise InputError(f"--relief: {raster.name} has units {units!r}, expected metres, as of elevation")
        if not same_crs(place.crs_wkt, grid.crs_wkt):
            raise InputError(f"--relief: {raster.name} has another CRS than the maps; rio warp brings it onto theirs")
        seen = seen_from(raster, grid, 1.5 * max(grid.rows, grid.columns))
        if seen is None:
            raise InputError(f"--relief: {raster.name} has nothing of the ground of these maps; give one that has")
        onto, _ = brought_onto(*seen, grid, raster.name)
        return shading(onto, grid)
    finally:
        raster.close()


def _scenario(request: MapRequest, classes: DrawnClasses, table: ClassTable, grid: Grid) -> Scenario | None:
    """Open the scenario by the classes' own names or the states that they are tied to."""
    if not request.scenario:
        return None
    if not grid.geographic:
        raise InputError("--scenario: these maps have no longitude and latitude, which scenarios are on; leave it out")
    tied = {code: land_class.forcing for land_class in table.classes for code in land_class.codes}
    rows = tuple(
        LandClass(name, (code,), colour, tied.get(code, ()))
        for name, code, colour in zip(classes.names, classes.codes, classes.colours, strict=True)
    )
    dataset = open_dataset(Path(request.scenario[0]))
    try:
        variables = set(map(str, dataset.data_vars))
    finally:
        dataset.close()
    wanted = [channel for row in rows for channel in (*row.forcing, row.name)]
    channels = [name for name in dict.fromkeys(wanted) if name in variables or variable_name(name) in variables]
    if not channels:
        raise InputError(
            f"--scenario: {request.scenario[0]} has no variable of a class of these maps ({', '.join(classes.names)}); "
            "give the one that they were made from"
        )
    return open_scenario(request.scenario, channels, ClassTable("drawn", rows), grid, [])


def _mismatch(curves: Curves, tally: Tally) -> Layer:
    """Half of the sum of differences between shares of maps and scenario, percent of a coarse cell."""
    assert curves.scenario is not None
    whole = tally.covered >= _COVERED * tally.areas

    def differing() -> Iterator[NDArray[np.float32]]:
        assert curves.scenario is not None
        for ours, theirs in zip(curves.shares, curves.scenario, strict=True):
            known = np.isfinite(theirs)
            apart = np.where(known, np.abs(ours - theirs), 0).sum(axis=0) * 50
            there = known.any(axis=0) & whole & np.isfinite(ours).all(axis=0) & (ours.sum(axis=0) > 0)
            yield np.where(there, apart, np.nan).astype(np.float32)

    largest = max((float(np.nanmax(values)) for values in differing() if np.isfinite(values).any()), default=0.0)
    return Layer.of_values(
        "scenario",
        "Scenario against maps",
        differing(),
        curves.grid,
        palette=palette(_MISMATCH),
        low=0.0,
        high=min(max(largest, 1.0), 100.0),
        least=0.0,
        most=100.0,
        units="%",
        step=0.01,
    )

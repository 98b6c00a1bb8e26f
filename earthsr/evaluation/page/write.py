"""Writing a page: data, Bokeh's script and ours in one file of HTML."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from earthsr.errors import InputError, install_hint
from earthsr.evaluation.maps import aspect
from earthsr.evaluation.page.layers import Curves, Layer
from earthsr.geo.crs import crs_name, metres_per_unit
from earthsr.geo.grid import Grid

#: Name of the page of an evaluation, beside its report.
PAGE: Final = "page.html"
#: Nothing to be seen until the script has set colours.
_NONE: Final = "#00000000"


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    title: str
    grid: Grid
    """Of the map."""
    frames: tuple[str, ...]
    """What the slider goes through: years, or names of rasters."""
    layers: tuple[Layer, ...]
    """The first one is shown first."""
    years: tuple[int, ...] | None = None
    """Of the frames, where they are years."""
    anchor: int | None = None
    """Number of the frame that change is counted from."""
    blend: bool = False
    """Whether frames pass into each other, as those of one surface do."""
    shade: bytes | Sequence[bytes] | None = None
    """Of :func:`~earthsr.evaluation.page.shading`: for all frames, or one for each."""
    curves: Curves | None = None
    notes: tuple[str, ...] = ()
    """What a reader has to know, a sentence each."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Provenance, in words."""


def require_bokeh(path: Path) -> None:
    """Check that a page can be written.

    Raises
    ------
    InputError
        If it is one and Bokeh is not there.
    """
    if path.suffix.lower() in (".html", ".htm") and find_spec("bokeh") is None:
        raise InputError(
            f"{path}: a page holds the script of Bokeh, which is not installed: {install_hint('page')}, or name "
            f"{path.with_suffix('.png')}"
        )


def write_page(page: Page, path: Path) -> None:
    """Write a page into a file that nobody sees yet.

    Parameters
    ----------
    page : Page
        What it shows.
    path : Path
        ``.html``.
    """
    blobs: list[bytes] = []
    described = _described(page, blobs)
    texts = "\n".join(
        f'<script type="text/plain" id="blob-{number}">{base64.b64encode(blob).decode("ascii")}</script>'
        for number, blob in enumerate(blobs)
    )
    assets = resources.files("earthsr.evaluation.page")
    body = assets.joinpath("page.html").read_text(encoding="utf-8")
    filled = {
        "title": html.escape(page.title),
        "style": assets.joinpath("page.css").read_text(encoding="utf-8"),
        "bokeh": _bokeh_script(),
        "plots": _script_text(json.dumps(_plots(page))),
        "data": _script_text(json.dumps(described)),
        "blobs": texts,
        "script": assets.joinpath("page.js").read_text(encoding="utf-8"),
    }
    for key, text in filled.items():
        body = body.replace("{{" + key + "}}", text, 1)
    path.write_text(body, encoding="utf-8")


def _script_text(text: str) -> str:
    """JSON that cannot end the element which it stands in."""
    return text.replace("<", "\\u003c")


def _bokeh_script() -> str:
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"], minified=True).js_raw)


def _described(page: Page, blobs: list[bytes]) -> dict[str, Any]:
    """What the script reads, with the numbers of the ``blobs`` that are added."""

    def add(blob: bytes) -> int:
        blobs.append(blob)
        return len(blobs) - 1

    grid = page.grid
    shades = [] if page.shade is None else [page.shade] if isinstance(page.shade, bytes) else list(page.shade)
    described: dict[str, Any] = {
        "title": page.title,
        "crs": crs_name(grid.crs_wkt),
        "geographic": grid.geographic,
        "unit_km": 0 if grid.geographic else metres_per_unit(grid.crs_wkt) / 1000,
        "aspect": aspect(grid),
        **_placed(grid),
        "frames": list(page.frames),
        "years": page.years,
        "anchor": page.anchor,
        "blend": page.blend,
        "layers": [
            {
                "name": layer.name,
                "title": layer.title,
                "kind": layer.kind,
                **_placed(layer.grid),
                **layer.about,
                **(
                    {}
                    if layer.packed is None
                    else {
                        "blobs": [add(chunk) for chunk in layer.packed.chunks],
                        "keys": layer.packed.keys,
                        "bits": layer.packed.bits,
                        "smooth": layer.packed.smooth,
                    }
                ),
            }
            for layer in page.layers
        ],
        "shade": [add(shade) for shade in shades],
        "notes": list(page.notes),
        "facts": dict(page.facts),
    }
    if page.curves is not None:
        curves = page.curves
        described["curves"] = {
            "names": curves.names,
            "colours": curves.colours,
            **_placed(curves.grid),
            "scenario": curves.scenario is not None,
            "steps": curves.STEPS,
            "block": curves.BLOCK,
            "void": 65535,
            "blobs": [add(block) for block in curves.blocks()],
            "areas": [[round(float(value), 3) for value in row] for row in curves.areas[:, :1]],
            "whole": curves.whole,
        }
    return described


def _placed(grid: Grid) -> dict[str, Any]:
    return {"bounds": list(grid.bounds), "rows": grid.rows, "columns": grid.columns}


def _plots(page: Page) -> list[Any]:
    """Map and curves, empty: documents of Bokeh for the script to fill."""
    from bokeh.embed import json_item

    years = page.years or ()
    with_curves = [json_item(_curves(years))] if page.curves is not None and len(years) > 1 else []
    return [json_item(_map(page)), *with_curves]


def _map(page: Page) -> Any:
    from bokeh.models import (
        BoxZoomTool,
        ColumnDataSource,
        CustomJSTickFormatter,
        PanTool,
        Range1d,
        ResetTool,
        SaveTool,
        WheelZoomTool,
    )
    from bokeh.plotting import figure

    west, south, east, north = page.grid.bounds
    cell = min(page.grid.cell_x, page.grid.cell_y)
    ranges = {
        "x_range": Range1d(west, east, min_interval=2 * cell, name="x"),
        "y_range": Range1d(south, north, min_interval=2 * cell, name="y"),
    }
    wheel = WheelZoomTool(zoom_on_axis=False, maintain_focus=False)
    plot = figure(
        name="map",
        sizing_mode="stretch_both",
        min_border=4,
        tools=[PanTool(), wheel, BoxZoomTool(match_aspect=True), ResetTool(), SaveTool()],
        active_scroll=wheel,
        toolbar_location="above",
        **ranges,
    )
    plot.toolbar.logo = None
    image = ColumnDataSource(
        {"image": [np.zeros((1, 1), np.uint32)], "x": [west], "y": [north], "w": [east - west], "h": [north - south]},
        name="image",
    )
    plot.image_rgba("image", x="x", y="y", dw="w", dh="h", source=image, origin="top_left", anchor="top_left")
    cell_source = ColumnDataSource({"left": [], "right": [], "top": [], "bottom": []}, name="cell")
    for colour, width in (("#000000", 4), ("#ffffff", 2)):
        plot.quad(
            "left", "right", "top", "bottom", source=cell_source, fill_color=None, line_color=colour, line_width=width
        )
    if page.grid.geographic:
        plot.xaxis.formatter = CustomJSTickFormatter(code="return earthsr.longitude(tick)")
        plot.yaxis.formatter = CustomJSTickFormatter(code="return earthsr.latitude(tick)")
    else:
        kilometres = f"return (tick * {metres_per_unit(page.grid.crs_wkt) / 1000!r}).toLocaleString('en')"
        plot.xaxis.formatter = CustomJSTickFormatter(code=kilometres)
        plot.yaxis.formatter = CustomJSTickFormatter(code=kilometres)
        plot.xaxis.axis_label, plot.yaxis.axis_label = "easting (km)", "northing (km)"
    plot.xgrid.grid_line_color = plot.ygrid.grid_line_color = None
    plot.background_fill_color = plot.border_fill_color = _NONE
    return plot


def _curves(years: Sequence[int]) -> Any:
    from bokeh.models import ColumnDataSource, NumeralTickFormatter, PanTool, Range1d, ResetTool, Span, WheelZoomTool
    from bokeh.plotting import figure

    wheel = WheelZoomTool(dimensions="width")
    plot = figure(
        name="curves",
        height=260,
        sizing_mode="stretch_width",
        min_border=4,
        tools=[PanTool(dimensions="width"), wheel, ResetTool()],
        toolbar_location=None,
        x_range=Range1d(float(years[0]), float(years[-1])),
        y_range=Range1d(0.0, 1.0),
    )
    for name, dash in (("map", "solid"), ("scenario", "dashed")):
        source = ColumnDataSource({"xs": [], "ys": [], "colour": []}, name=f"curves-{name}")
        plot.multi_line("xs", "ys", source=source, line_color="colour", line_dash=dash, line_width=2)
    plot.add_layout(Span(dimension="height", location=float(years[0]), line_width=1.5, name="now"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    plot.yaxis.axis_label = "km²"
    plot.background_fill_color = plot.border_fill_color = _NONE
    return plot

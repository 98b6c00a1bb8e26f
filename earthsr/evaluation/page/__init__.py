"""One page to look at maps with, in any browser and without a network: pan, zoom, years, layers, values, curves.

``page.js`` and ``page.css`` run in it, beside Bokeh's own script, which draws map and curves. Every raster in a page is
bytes, compressed and written as text; the browser takes them apart when they are to be seen.
"""

from earthsr.evaluation.page.layers import Curves, Layer, Packed, pack_classes, pack_values, shading
from earthsr.evaluation.page.write import PAGE, Page, require_bokeh, write_page

__all__ = [
    "PAGE",
    "Curves",
    "Layer",
    "Packed",
    "Page",
    "pack_classes",
    "pack_values",
    "require_bokeh",
    "shading",
    "write_page",
]

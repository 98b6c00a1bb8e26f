"""One page to look at maps with, in any browser and without a network: pan, zoom, years, layers, values, curves.

``page.js`` and ``page.css`` run in it, beside Bokeh's own script, which draws map and curves. Every raster in a page is
bytes, compressed and written as text; the browser takes them apart when they are to be seen.
"""

"""Georeferenced rasters in any CRS, read and written window by window: GeoTIFF, NetCDF, Zarr, arrays in memory."""

from earthsr.geo.crs import crs_name, same_crs
from earthsr.geo.grid import Bounds, Grid, Window
from earthsr.geo.memory import MemorySink, array_source, dataarray_source, to_dataarray
from earthsr.geo.mosaic import mosaic
from earthsr.geo.raster import Georeference, Sink, Source
from earthsr.geo.readers import open_source, open_sources, reprojected
from earthsr.geo.values import require_metres
from earthsr.geo.writers import open_sink

__all__ = [
    "Bounds",
    "Georeference",
    "Grid",
    "MemorySink",
    "Sink",
    "Source",
    "Window",
    "array_source",
    "crs_name",
    "dataarray_source",
    "mosaic",
    "open_sink",
    "open_source",
    "open_sources",
    "reprojected",
    "require_metres",
    "same_crs",
    "to_dataarray",
]

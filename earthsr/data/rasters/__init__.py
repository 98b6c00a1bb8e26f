"""Georeferenced rasters in any CRS, read and written window by window: GeoTIFF, NetCDF, Zarr, arrays in memory."""

from earthsr.data.rasters.crs import crs_name, same_crs
from earthsr.data.rasters.dataarrays import dataarray_source, to_dataarray
from earthsr.data.rasters.georeference import Georeference, Sink, Source
from earthsr.data.rasters.memory import MemorySink, array_source
from earthsr.data.rasters.mosaics import mosaic
from earthsr.data.rasters.outputs import open_sink
from earthsr.data.rasters.reprojection import reprojected
from earthsr.data.rasters.sources import open_source, open_sources
from earthsr.data.rasters.values import require_metres
from earthsr.data.window import Window

__all__ = [
    "Georeference",
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

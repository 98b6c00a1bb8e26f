"""Annual land-use maps on disk: one Zarr store that many processes fill chunk by chunk, and copies of it for others."""

from earthsr.landuse.maps.export import export_geotiffs, export_netcdf
from earthsr.landuse.maps.layout import LAYERS, MapsSpec
from earthsr.landuse.maps.scratch import Scratch
from earthsr.landuse.maps.store import Maps, create_maps, open_maps

__all__ = [
    "LAYERS",
    "Maps",
    "MapsSpec",
    "Scratch",
    "create_maps",
    "export_geotiffs",
    "export_netcdf",
    "open_maps",
]

"""Annual land-use maps on disk: one Zarr store that many processes fill chunk by chunk, and copies of it for others."""

from earthsr.data.maps.geotiff import export_geotiffs
from earthsr.data.maps.netcdf import export_netcdf
from earthsr.data.maps.scratch import Scratch
from earthsr.data.maps.spec import LAYERS, MapsSpec
from earthsr.data.maps.store import Maps, create_maps, open_maps

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

"""Opening a raster for writing, in the format that its name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from earthsr.errors import InputError
from earthsr.geo.georeference import Georeference, Sink
from earthsr.geo.geotiff_sink import GeoTiffSink
from earthsr.geo.netcdf_sink import NetCdfSink
from earthsr.geo.sinks import FileSink
from earthsr.geo.zarr_sink import ZarrSink

#: Formats of output by suffix.
SINKS: Final[dict[str, type[FileSink]]] = {
    ".tif": GeoTiffSink,
    ".tiff": GeoTiffSink,
    ".nc": NetCdfSink,
    ".zarr": ZarrSink,
}


def open_sink(
    path: str | Path,
    georeference: Georeference,
    bands: Sequence[str] = ("elevation",),
    block: tuple[int, int] = (1280, 1280),
    overwrite: bool = False,
) -> Sink:
    """Begin a raster file: cloud-optimised GeoTIFF (.tif, .tiff), NetCDF-4 with CF metadata (.nc) or Zarr (.zarr).

    Parameters
    ----------
    path : str or Path
        Destination; nothing of this name is there before the sink is finished.
    georeference : Georeference
        Grid of what is written.
    bands : sequence of str
        Names of the bands; the first has the input's long name and standard name.
    block : tuple of int
        Rows and columns of the blocks that will be written; chunks of NetCDF and Zarr are as large.
    overwrite : bool
        Whether a file that is there is replaced, in the end.

    Returns
    -------
    Sink
        Takes blocks in any order, each cell once; cells that are never written have no value. Voids are the input's
        nodata where float32 has it, else -9999 in GeoTIFF and NaN in NetCDF and Zarr.

    Raises
    ------
    InputError
        If the suffix is another one, the file is there and is not to be replaced, its folder cannot be written, or
        the disk is too small.
    """
    path = Path(path)
    sink = SINKS.get(path.suffix.lower())
    if sink is None:
        raise InputError(f"{path.name}: suffix {path.suffix!r} is no format of output; {', '.join(SINKS)} are")
    if not bands or len(set(bands)) != len(bands):
        raise InputError(f"{path.name}: bands are {', '.join(bands) or 'none'}, expected different names")
    return sink(path, georeference, bands, block, overwrite)

"""One NetCDF-4 file of all maps, copied chunk by chunk."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from earthsr.errors import geo_module
from earthsr.geo.cf_write import netcdf_attributes, plain_attributes
from earthsr.geo.writers import GuardedFile
from earthsr.landuse.classes import NODATA
from earthsr.landuse.maps.layout import all_chunks, coordinates, layer_attributes, layer_dimensions
from earthsr.landuse.maps.store import Maps
from earthsr.store import Part, disk_errors

#: Cells a side that are compressed at once; readers keep a few of 1 MiB in memory.
_SIDE: Final = 1024


def export_netcdf(maps: Maps, path: Path, overwrite: bool = False) -> Path:
    """Copy finished maps into one NetCDF-4 file with the same variables and attributes.

    One chunk is in memory at a time. The file is there whole or not at all.

    Parameters
    ----------
    maps : Maps
        Finished.
    path : Path
        Destination, ``NAME.nc``.
    overwrite : bool
        Whether a file that is there is replaced.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    InputError
        If the maps are not finished, the file is there, or the disk does not take it; nothing is left then.
    """
    path = Path(path)
    attributes = maps.finished_attributes()
    h5netcdf = geo_module("h5netcdf")
    part = Part(path, overwrite)
    try:
        with disk_errors(path), _closing(GuardedFile(part.target)) as handle:
            with _closing(h5netcdf.File(handle, "w")) as file:
                _describe(file, maps, attributes)
                for layer in maps.spec.layers:
                    _copy(maps, layer, _create(file, maps, layer), handle)
                file.close()
            handle.close()
            handle.check()
        part.commit()
    finally:
        part.discard()
    return path


@contextlib.contextmanager
def _closing(file: Any) -> Any:
    """Close a file after an error too, of which closing it shows no more."""
    try:
        yield file
    except BaseException:
        with contextlib.suppress(Exception):
            file.close()
        raise


def _describe(file: Any, maps: Maps, attributes: dict[str, Any]) -> None:
    spec = maps.spec
    years, rows, columns = spec.shape("land_use")
    file.dimensions = {"time": years, "bnds": 2, "lat": rows, "lon": columns}
    if "probabilities" in spec.layers:
        file.dimensions["class"] = len(spec.table)
    for coordinate in coordinates(spec):
        dtype = h5py.string_dtype() if coordinate.values.dtype == object else coordinate.values.dtype
        variable = file.create_variable(coordinate.name, coordinate.dimensions, dtype, data=coordinate.values)
        variable.attrs.update(netcdf_attributes(coordinate.attributes))
    file.attrs.update(netcdf_attributes(plain_attributes(attributes)))


def _create(file: Any, maps: Maps, layer: str) -> Any:
    shape, chunk = maps.spec.shape(layer), maps.spec.chunk
    sides = (min(_side(chunk[0]), shape[-2]), min(_side(chunk[1]), shape[-1]))
    variable = file.create_variable(
        layer,
        layer_dimensions(layer),
        np.uint8,
        chunks=(*(1 for _ in shape[:-2]), *sides),
        compression="gzip",
        compression_opts=4,
        fillvalue=np.uint8(NODATA),
    )
    attributes = layer_attributes(maps.spec, layer)
    if "scale_factor" in attributes:
        # Its type is the type of what readers make of the bytes.
        attributes["scale_factor"] = np.float32(attributes["scale_factor"])
    variable.attrs.update(netcdf_attributes(attributes))
    return variable


def _side(side: int) -> int:
    """Side of the largest part that a chunk divides into and that is not too large for readers."""
    parts = -(-side // _SIDE)
    return side // parts if side % parts == 0 else side


def _copy(maps: Maps, layer: str, variable: Any, handle: Any) -> None:
    spec = maps.spec
    for place, year in enumerate(spec.years):
        for window in all_chunks(spec.grid, spec.chunk):
            values = maps.stored(layer, year, window)
            if (values != NODATA).any():
                row, column, rows, columns = window
                variable[place, ..., row : row + rows, column : column + columns] = values
                handle.check()

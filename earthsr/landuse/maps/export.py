"""Copies of annual maps for other programs: cloud-optimised GeoTIFFs, one file a year, and one NetCDF-4 file of all.

What is copied goes chunk by chunk.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import h5py
import numpy as np

from earthsr.errors import InputError, already_there, geo_module
from earthsr.geo.cf_write import netcdf_attributes, plain_attributes
from earthsr.geo.writers import CogFile
from earthsr.landuse.classes import NODATA
from earthsr.landuse.maps.layout import (
    COMPLETE,
    DESCRIPTION,
    SCALE,
    all_chunks,
    coordinates,
    flags,
    georeference,
    layer_attributes,
    layer_dimensions,
)
from earthsr.landuse.maps.store import Maps
from earthsr.store import Part, disk_errors
from earthsr.store.disk import GuardedFile

#: Attributes that say something about the store.
_NOT_FOR_TIFF: Final = ("Conventions", DESCRIPTION, COMPLETE)
#: The average of two codes is the code of something else.
_OVERVIEWS: Final = {"land_use": "MODE", "confidence": "AVERAGE"}


def export_geotiffs(maps: Maps, path: Path, overwrite: bool = False, journal: Path | None = None) -> list[Path]:
    """Copy finished maps into cloud-optimised GeoTIFFs: ``NAME.tif`` gives ``NAME_1850.tif`` and so on.

    Maps hold codes of classes, with a table of colours, and overviews of the most frequent class; names of classes are
    in a file ``NAME_1850.tif.aux.xml`` beside each, where GDAL looks for them, and with the colours in
    ``NAME_1850.qml``, which QGIS applies when it opens the map; a style of one's own stays. Confidence, where it was
    kept, becomes ``NAME_confidence_1850.tif``, bytes of 0.004. Probabilities are not copied. Every file is there whole
    or not at all, and memory does not grow with the grid.

    Parameters
    ----------
    maps : Maps
        Finished.
    path : Path
        Destination, ``NAME.tif``, to which years are added.
    overwrite : bool
        Whether files that are there are replaced.
    journal : Path, optional
        File to which the name of each GeoTIFF is added that is finished; those that it names and that are there are
        not made again, so that an export that was killed goes on where it was.

    Returns
    -------
    list of Path
        The GeoTIFFs.

    Raises
    ------
    InputError
        If the maps are not finished, one of the files is there, or the disk does not take one; those that were
        written before stay.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path}: suffix {path.suffix!r} is none of a GeoTIFF, expected NAME.tif")
    attributes = maps.finished_attributes()
    geo_module("rasterio")
    wanted = [(layer, year) for layer in _OVERVIEWS if layer in maps.spec.layers for year in maps.spec.years]
    targets = [_target(path, layer, year) for layer, year in wanted]
    for target in targets:
        if target.exists() and not overwrite:
            raise already_there(target)
    done = set(journal.read_text(encoding="utf-8").splitlines()) if journal is not None and journal.exists() else set()
    for target, (layer, year) in zip(targets, wanted, strict=True):
        if target.name in done and target.exists():
            continue
        _export(maps, layer, year, attributes, target, overwrite)
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{target.name}\n")
    return targets


def _target(path: Path, layer: str, year: int) -> Path:
    kind = "" if layer == "land_use" else f"_{layer}"
    return path.with_name(f"{path.stem}{kind}_{year:04d}{path.suffix}")


def _export(maps: Maps, layer: str, year: int, attributes: dict[str, Any], target: Path, overwrite: bool) -> None:
    part = Part(target, overwrite)
    cog = None
    try:
        with disk_errors(target):
            colours = "PALETTE" if layer == "land_use" else "MINISBLACK"
            cog = CogFile(target, part.target, georeference(maps.spec), np.uint8, NODATA, PHOTOMETRIC=colours)
            with cog.errors():
                _write(maps, layer, year, attributes, cog.file)
            cog.finish(OVERVIEW_RESAMPLING=_OVERVIEWS[layer])
            names, style = target.with_name(f"{target.name}.aux.xml"), target.with_suffix(".qml")
            names.unlink(missing_ok=True)  # of a file that was there before
            part.commit()
            if layer == "land_use":
                _write_beside(names, _names(maps))
                if not style.exists() or _MADE in style.read_text(encoding="utf-8", errors="replace"):
                    _write_beside(style, _style(maps))
    finally:
        if cog is not None:
            with contextlib.suppress(Exception):
                cog.close()
        part.discard()


def _write(maps: Maps, layer: str, year: int, attributes: dict[str, Any], file: Any) -> None:
    spec = maps.spec
    tags = {key: value for key, value in attributes.items() if key not in _NOT_FOR_TIFF}
    file.update_tags(**plain_attributes({**tags, "year": year, "AREA_OR_POINT": "Area"}))
    file.descriptions = (f"{layer} {year}",)
    band = {"long_name": layer_attributes(spec, layer)["long_name"]}
    if layer == "land_use":
        meanings = flags(spec)
        meanings["flag_values"] = " ".join(map(str, meanings["flag_values"]))
        file.update_tags(1, **band, **meanings)
        file.write_colormap(1, _colours(maps))
    else:
        file.update_tags(1, **band)
        file.units, file.scales = ("1",), (SCALE,)
    for window in all_chunks(spec.grid, spec.chunk):
        row, column, rows, columns = window
        values = maps.stored(layer, year, window)
        file.write(values, 1, window=((row, row + rows), (column, column + columns)))


def _colours(maps: Maps) -> dict[int, tuple[int, int, int, int]]:
    colours = {NODATA: (0, 0, 0, 0)}
    for land_class in maps.spec.table.classes:
        red, green, blue = bytes.fromhex(land_class.colour[1:])
        colours[land_class.code] = (red, green, blue, 255)
    return colours


def _names(maps: Maps) -> str:
    """Names of classes as GDAL writes them: a list with the code as place."""
    names = {land_class.code: land_class.name for land_class in maps.spec.table.classes}
    listed = "".join(f"      <Category>{escape(names.get(i, ''))}</Category>\n" for i in range(max(names) + 1))
    band = f'  <PAMRasterBand band="1">\n    <CategoryNames>\n{listed}    </CategoryNames>\n  </PAMRasterBand>\n'
    return f"<PAMDataset>\n{band}</PAMDataset>\n"


#: Tells a style that was written here from somebody's own, which stays.
_MADE: Final = "<!-- earthsr reconstruct -->"


def _style(maps: Maps) -> str:
    """Colours and names of classes as QGIS keeps them for a raster whose values are categories."""
    entries = "".join(
        f'        <paletteEntry value="{one.code}" color="{one.colour}" alpha="255" label={quoteattr(one.name)}/>\n'
        for one in maps.spec.table.classes
    )
    return (
        f'<qgis version="3.0" styleCategories="Symbology">\n  {_MADE}\n  <pipe>\n'
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        f"      <colorPalette>\n{entries}      </colorPalette>\n    </rasterrenderer>\n  </pipe>\n</qgis>\n"
    )


def _write_beside(path: Path, text: str) -> None:
    part = Part(path, overwrite=True)
    try:
        part.target.write_text(text, encoding="utf-8")
        part.commit()
    finally:
        part.discard()


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

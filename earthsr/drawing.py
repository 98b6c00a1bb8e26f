"""Drawing rasters of whichever workload: a picture, an animation, a table of areas, or a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earthsr.config import installed_workloads
from earthsr.errors import InputError, already_there
from earthsr.evaluation.maps import PAGE, SUFFIXES, Box, MapRequest, require_ffmpeg, write_drawing
from earthsr.evaluation.page.write import require_bokeh, write_page
from earthsr.geo.readers import open_layers, split_variable
from earthsr.store import Part, require_other

#: Pixels of a picture's long side.
_SIZES = (100, 8000)


def plot(
    source: str | Path,
    output: str | Path | None = None,
    *,
    bbox: Box | None = None,
    size: int = 1200,
    contours: float | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    years: Sequence[int] | None = None,
    areas: bool = False,
    scenario: str | Path | Sequence[str | Path] = (),
    relief: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw a raster: elevation in colours over hillshade, land use in the colours of its classes.

    Large rasters are read at the size of the picture, GeoTIFF from its overviews. No backend is needed.

    Parameters
    ----------
    source : str or Path
        GeoTIFF, NetCDF or Zarr; ``FILE.nc:VARIABLE`` names a variable.
    output : str or Path, optional
        ``.png``; ``.html`` for a page to pan, zoom and slide in, which needs no network and, to be written, the extra
        ``page``; of a raster of several years also ``.gif`` and ``.mp4`` (with ffmpeg); of classes ``.csv``, a table of
        areas. Where absent ``NAME.png`` in the working directory.
    bbox : tuple of float, optional
        West, south, east, north in units of the CRS: the part to draw; west > east goes across the dateline.
    size : int
        Pixels of the map's long side.
    contours : float, optional
        Metres between contours of elevation; none where absent.
    beside : str or Path, or sequence of these
        A second raster of elevation, drawn on the same scale, with the difference from the first one; on a page
        several.
    years : sequence of int, optional
        Of a raster of several years; nine spread evenly where absent, or all in an animation or a table.
    areas : bool
        Add up the areas of classes by year, km2: on the sphere, over every cell of the part.
    scenario : str or Path, or sequence of these
        For a page of maps: files of the scenario that they should follow, as ``reconstruct`` takes them.
    relief : str or Path, optional
        For a page of maps: a raster of elevation whose hillshade lies over them.
    overwrite : bool
        Replace an output that is there.

    Returns
    -------
    dict
        ``output``, ``kind`` (elevation, classes or field), and what is shown: bounds, cells, years, classes, range and
        units, areas.

    Raises
    ------
    InputError
        If the output is there, or is the input, or has another suffix; or what is asked for is not there: a year, an
        overlap.
    DataError
        If a raster is missing or damaged, or its values are not what they should be.

    Examples
    --------
    >>> import earthsr
    >>> shown = earthsr.plot("runs/landuse-data/archives/landuse_1989.tif", "landuse.png", overwrite=True)
    >>> shown["kind"]
    'classes'
    """
    path, variable = split_variable(source)
    target = Path(f"{path.stem}_{variable}.png" if variable else f"{path.stem}.png") if output is None else Path(output)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{target}: suffix {target.suffix!r} is none of a picture; {', '.join(SUFFIXES)} are")
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise InputError(f"--size is {size}, expected {_SIZES[0]} to {_SIZES[1]} pixels")
    others, files = _texts(beside), _texts(scenario)
    require_other([target], [source, *others, *files, relief])
    if target.exists() and not overwrite:
        raise already_there(target)
    require_ffmpeg(target)
    require_bokeh(target)
    request = MapRequest(
        str(source),
        bbox,
        size,
        contours,
        others,
        None if years is None else tuple(years),
        suffix,
        areas,
        files,
        None if relief is None else str(relief),
    )
    workloads = installed_workloads().values()
    raster = open_layers(source, [name for workload in workloads for name in workload.variables])
    try:
        workload = next((workload for workload in workloads if workload.draws(raster)), None)
        if workload is None:
            raise InputError(
                f"{raster.name}: holds values in {raster.georeference.units or 'no unit'}, which none of the workloads "
                f"that are installed draws ({', '.join(workload.title for workload in workloads) or 'there is none'})"
            )
        drawing = workload.draw(raster, request)
    finally:
        raster.close()
    if suffix == ".csv" and not drawing.table:
        raise InputError(f"{target}: .csv is a table of the areas of classes, and {source} holds none; name a .png")
    if suffix == PAGE and drawing.page is None:
        raise InputError(
            f"{target}: the workload that draws {source} makes no pages; name {target.with_suffix('.png')}"
        )
    part = Part(target, overwrite)
    try:
        if suffix == PAGE:
            write_page(drawing.page, part.target)
        else:
            write_drawing(drawing, part.target)
        part.commit()
    finally:
        part.discard()
    return {"output": str(target), "source": str(source), "kind": drawing.kind, **drawing.facts}


def _texts(files: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """One file, or several."""
    return (str(files),) if isinstance(files, str | Path) else tuple(map(str, files or ()))

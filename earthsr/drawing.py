"""Drawing rasters of whichever workload: a picture, an animation, a table of areas, or a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from earthsr.config import installed_workloads
from earthsr.errors import InputError, already_there
from earthsr.evaluation.maps import PAGE, SUFFIXES, Box, Drawing, MapRequest, require_ffmpeg, write_drawing
from earthsr.evaluation.page.write import require_bokeh, write_page
from earthsr.geo.memory import dataarray_source
from earthsr.geo.readers import open_layers, split_variable
from earthsr.geo.values import Voids
from earthsr.store import Part, require_other

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray

#: Pixels of a picture's long side.
_SIZES = (100, 8000)


@overload
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
    nodata: Voids = None,
    units: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]: ...


@overload
def plot(
    source: DataArray,
    output: None = None,
    *,
    bbox: Box | None = None,
    size: int = 1200,
    contours: float | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    years: Sequence[int] | None = None,
    nodata: Voids = None,
    units: str | None = None,
) -> Figure: ...


@overload
def plot(
    source: DataArray,
    output: str | Path,
    *,
    bbox: Box | None = None,
    size: int = 1200,
    contours: float | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    years: Sequence[int] | None = None,
    areas: bool = False,
    scenario: str | Path | Sequence[str | Path] = (),
    relief: str | Path | None = None,
    nodata: Voids = None,
    units: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]: ...


def plot(
    source: str | Path | DataArray,
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
    nodata: Voids = None,
    units: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any] | Figure:
    """Draw a raster: elevation in colours over hillshade, land use in the colours of its classes.

    Large rasters are read at the size of the picture, GeoTIFF from its overviews. No backend is needed.

    Parameters
    ----------
    source : str, Path or xarray.DataArray
        GeoTIFF, NetCDF or Zarr; ``FILE.nc:VARIABLE`` names a variable. An array is read as a file with its coordinates
        and attributes would be; :mod:`earthsr.xarray` lets it draw itself.
    output : str or Path, optional
        ``.png``; ``.html`` for a page to pan, zoom and slide in, which needs no network and, to be written, the extra
        ``page``; of a raster of several years also ``.gif`` and ``.mp4`` (with ffmpeg); of classes ``.csv``, a table of
        areas. Where absent ``NAME.png`` in the working directory; of an array the figure is returned.
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
    nodata : float or sequence of float, optional
        Stored numbers that stand for no value, besides those that the source names.
    units : str, optional
        Of the values, in place of what the source says.
    overwrite : bool
        Replace an output that is there.

    Returns
    -------
    dict or matplotlib.figure.Figure
        ``output``, ``kind`` (elevation, classes or field), and what is shown: bounds, cells, years, classes, range and
        units, areas. Of an array without an output the figure, which a notebook shows.

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
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise InputError(f"--size is {size}, expected {_SIZES[0]} to {_SIZES[1]} pixels")
    others, files = _texts(beside), _texts(scenario)
    chosen = None if years is None else tuple(years)
    overlaid = None if relief is None else str(relief)
    text = str(source) if isinstance(source, (str, Path)) else None
    target = None if output is None else Path(output)
    if target is None and text is not None:
        target = _target(text)
    if target is not None:
        _require_target(target, [text, *others, *files, relief], overwrite)
    suffix = ".png" if target is None else target.suffix.lower()
    request = MapRequest(text, bbox, size, contours, others, chosen, suffix, areas, files, overlaid)
    workloads = installed_workloads().values()
    if text is not None:
        raster = open_layers(text, [name for w in workloads for name in w.variables], nodata=nodata, units=units)
    else:
        raster = dataarray_source(source, nodata=nodata, units=units, layers=True)
    try:
        workload = next((workload for workload in workloads if workload.draws(raster)), None)
        if workload is None:
            raise InputError(
                f"{raster.name}: holds values in {raster.georeference.units or 'no unit'}, which none of the workloads "
                f"that are installed draws ({', '.join(workload.title for workload in workloads) or 'there is none'})"
            )
        drawing = workload.draw(raster, request)
        if target is None:
            return next(drawing.figures())
        _write(drawing, target, raster.name, overwrite)
    finally:
        raster.close()
    return {"output": str(target), "source": text or raster.name, "kind": drawing.kind, **drawing.facts}


def _target(source: str) -> Path:
    path, variable = split_variable(source)
    return Path(f"{path.stem}_{variable}.png" if variable else f"{path.stem}.png")


def _require_target(target: Path, inputs: Sequence[str | Path | None], overwrite: bool) -> None:
    """Check that a picture can be written there, and with what is installed."""
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{target}: suffix {target.suffix!r} is none of a picture; {', '.join(SUFFIXES)} are")
    require_other([target], inputs)
    if target.exists() and not overwrite:
        raise already_there(target)
    require_ffmpeg(target)
    require_bokeh(target)


def _write(drawing: Drawing, target: Path, name: str, overwrite: bool) -> None:
    suffix = target.suffix.lower()
    if suffix == ".csv" and not drawing.table:
        raise InputError(f"{target}: .csv is a table of the areas of classes, and {name} holds none; name a .png")
    if suffix == PAGE and drawing.page is None:
        raise InputError(f"{target}: the workload that draws {name} makes no pages; name {target.with_suffix('.png')}")
    part = Part(target, overwrite)
    try:
        if suffix == PAGE:
            write_page(drawing.page, part.target)
        else:
            write_drawing(drawing, part.target)
        part.commit()
    finally:
        part.discard()


def _texts(files: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """One file, or several."""
    return (str(files),) if isinstance(files, str | Path) else tuple(map(str, files or ()))

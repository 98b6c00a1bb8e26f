"""Fields on axes, read window by window: variables of NetCDF files and Zarr stores, and DataArrays.

xarray opens them; stored numbers are decoded here, so that codes of classes stay the whole numbers that they are.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, EarthsrWarning, geo_module
from earthsr.geo.cf import Axes, axes_of, grid_of, years_along
from earthsr.geo.grid import Window
from earthsr.geo.raster import Codes, Georeference
from earthsr.geo.values import Categories, Packing, Voids, categories_of, kept_attributes, packing_of, unreadable
from earthsr.store.untrusted import probe_hdf5

#: Key of the encoding under which a reader leaves what it has to say of a field.
_NOTE: Final = "earthsr_note"


class FieldSource:
    """One field of two dimensions, or a field of three with its layers."""

    def __init__(
        self,
        name: str,
        open_array: Callable[[], tuple[Any, Callable[[], None]]],
        georeference: Georeference,
        axes: Axes,
        layer: dict[str, int],
        packing: Packing,
        layers: str | None = None,
        categories: Categories | None = None,
    ) -> None:
        self.name, self.georeference, self.packing = name, georeference, packing
        self.layers = layers
        """Dimension of the layers; None where there is but one."""
        self.categories = categories
        """What codes stand for; None where nothing says that these are codes."""
        self._open, self._axes, self._layer = open_array, axes, layer
        self._opened: tuple[Any, Callable[[], None]] | None = None

    @property
    def packed(self) -> bool:
        """Whether values are stored numbers times a scale, or with an offset."""
        return (self.packing.scale, self.packing.offset) != (1.0, 0.0)

    def read(self, window: Window, layer: int = 0) -> NDArray[np.float32]:
        """Read (rows, columns) from north to south, NaN where there is no value.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        return self.packing.decode(self._stored(window, layer))

    def codes(self, window: Window, layer: int = 0) -> Codes:
        """Read stored numbers as they are, and which of them are values.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        stored = self._stored(window, layer)
        return Codes(stored, ~self.packing.void(stored))

    def sampled(self, window: Window, step: int, kind: str = "read", layer: int = 0) -> Any:
        """Read every so many cells; see :func:`earthsr.geo.raster.sampled`."""
        stored = self._stored(window, layer, step)
        return self.packing.decode(stored) if kind == "read" else Codes(stored, ~self.packing.void(stored))

    def years(self) -> tuple[int, ...] | None:
        """Years of the layers; None where there is but one without a time.

        Raises
        ------
        DataError
            If the axis of the layers is no time.
        """
        if self.layers is None:
            return None
        return years_along(self._array()[self.layers], f"{self.name}: {self.layers}")

    def _array(self) -> Any:
        self._opened = self._opened or self._open()
        return self._opened[0]

    def _stored(self, window: Window, layer: int, step: int = 1) -> NDArray:
        """Read stored numbers (rows, columns) from north to south, of a type that says their sign."""
        row, column, rows, columns = window = self.georeference.check(window)
        if self._axes.ascending:
            # Counted from the south, every so many rows begin with the last of those from the north.
            rows = (rows - 1) // step * step + 1
            row = self.georeference.rows - row - rows
        y, x = self._axes.y, self._axes.x
        at = {**self._layer, y: slice(row, row + rows, step), x: slice(column, column + columns, step)}
        if self.layers is not None:
            at[self.layers] = layer
        try:
            array = self._array()
            stored = np.asarray(array.isel(at).transpose(y, x).values)
        except DataError:
            raise
        except Exception as error:  # every library has errors of its own for a damaged block
            raise unreadable(self.name, window, error) from error
        stored = self.packing.stored(stored)
        return np.ascontiguousarray(stored[::-1]) if self._axes.ascending else stored

    def release(self) -> None:
        """Close the file until the next read."""
        if self._opened is not None:
            self._opened[1]()
            self._opened = None

    def close(self) -> None:
        """Close the file."""
        self.release()


def field_source(
    name: str,
    array: Any,
    variables: Any,
    open_array: Callable[[], tuple[Any, Callable[[], None]]],
    *,
    nodata: Voids,
    units: str | None,
    band: int | None,
    need_crs: bool = True,
    layers: bool = False,
) -> FieldSource:
    """Describe a field and read it.

    Parameters
    ----------
    name : str
        For messages.
    array : xarray.DataArray
        The field, decoded or not.
    variables : Mapping
        Where the variable of its CRS is looked for.
    open_array : callable
        Gives the field and what closes it again.
    nodata, units, band
        As in :func:`~earthsr.geo.readers.open_source`.
    need_crs : bool
        Whether it is an error to have none.
    layers : bool
        Whether it may have several layers, along one dimension besides the two of space.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: holds {array.dtype}, expected real numbers")
    axes = axes_of(array, name)
    along = _layers(array, axes, name) if layers else None
    layer = {} if along is not None else _layer(array, axes, name, band)
    if along is not None:
        layer = dict.fromkeys((str(dim) for dim in array.dims if dim not in (axes.y, axes.x, along)), 0)
    # A field that xarray has decoded keeps in its encoding what it was packed with; its voids are NaN.
    packing = packing_of(array.attrs, array.dtype, name, given=nodata, decoded=array.encoding)
    georeference = grid_of(
        array,
        variables,
        axes,
        name,
        units=str(array.attrs.get("units", "")) if units is None else units,
        nodata=packing.nodata[0] if packing.nodata else None,
        attributes=kept_attributes(array.attrs),
        need_crs=need_crs,
    )
    for text in (array.encoding.get(_NOTE), _lost_zeros(array, packing)):
        if text:
            warnings.warn(f"{name}: {text}", EarthsrWarning, stacklevel=3)
    return FieldSource(name, open_array, georeference, axes, layer, packing, along, categories_of(array.attrs))


def _lost_zeros(array: Any, packing: Packing) -> str:
    """What is said of a field in which xarray took zeros for voids when it decoded it."""
    fill = array.encoding.get("_FillValue")
    packed = {"scale_factor", "add_offset"} & set(array.encoding)
    if "_FillValue" in array.attrs or fill is None or packed or np.ndim(fill) or fill != 0:
        return ""
    return (
        "its fill value is 0, so that cells of 0 m, the sea, were made voids when it was opened; "
        "xarray.open_dataset(..., mask_and_scale=False) keeps them, and so does the path of the file"
    )


def _layers(array: Any, axes: Axes, name: str) -> str | None:
    """Name the dimension of a field's layers: one of several, or of time; None where there is none."""
    others = {str(dim): count for dim, count in array.sizes.items() if dim not in (axes.y, axes.x)}
    along = [dim for dim, count in others.items() if count > 1 or dim.lower() in ("time", "year", "years")]
    if len(along) > 1:
        raise DataError(f"{name}: has dimensions {array.dims}, expected time, latitude and longitude")
    return along[0] if along else None


def _layer(array: Any, axes: Axes, name: str, band: int | None) -> dict[str, int]:
    others = {str(dim): array.sizes[dim] for dim in array.dims if dim not in (axes.y, axes.x)}
    several = [dim for dim, count in others.items() if count > 1]
    listed = " x ".join(f"{dim} ({count})" for dim, count in others.items())
    if several and (band is None or len(several) > 1):
        raise DataError(
            f"{name}: has several layers, {listed}, expected one; cdo seltimestep,1 IN OUT (or ncks -d {several[0]},0) "
            "takes one out"
        )
    count = others[several[0]] if several else 1
    if band is not None and not 1 <= band <= count:
        raise DataError(f"{name}: has no band {band}, it has {count}; they count from 1")
    layer = dict.fromkeys(others, 0)
    if several and band is not None:
        layer[several[0]] = band - 1
    return layer


def open_dataset(path: Path) -> Any:
    """Open a NetCDF file or a Zarr store as xarray has it, without decoding anything or keeping what was read.

    Raises
    ------
    DataError
        If it is neither.
    """
    if path.is_dir():
        return _open_store(path)
    xarray = geo_module("xarray")
    try:
        with path.open("rb") as handle:
            engine = "scipy" if handle.read(3) == b"CDF" else "h5netcdf"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    geo_module(engine)
    if engine == "h5netcdf":
        probe_hdf5(path)
    try:
        return xarray.open_dataset(path, engine=engine, decode_cf=False, cache=False)
    except Exception as error:  # of damaged classic files SciPy's own code fails anywhere
        reason = " ".join(str(error).split()) or type(error).__name__
        # What h5netcdf has opened by half complains on standard error when it goes: it goes here, unheard.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            traceback.clear_frames(error.__traceback__)
        finally:
            sys.unraisablehook = hook
        raise DataError(f"{path.name}: cannot be read as NetCDF ({reason})") from None


def open_field(
    path: Path,
    variable: str | None,
    nodata: Voids = None,
    units: str | None = None,
    band: int | None = None,
    *,
    prefer: str | Sequence[str] = "",
    layers: bool = False,
) -> FieldSource:
    """Open one variable of a NetCDF file, or of a Zarr store of version 2 or 3, with consolidated metadata or without.

    Parameters
    ----------
    path : Path
        File or store.
    variable : str, optional
        Which one; the only one with two axes of space where absent.
    nodata, units, band
        As in :func:`~earthsr.geo.readers.open_source`.
    prefer : str or sequence of str
        Variable to take where several are there and none is named; of several, the first that is there.
    layers : bool
        Whether it may have several layers.
    """
    dataset = open_dataset(path)
    try:
        key = _choose(dataset, variable, path.name, prefer)
        return field_of(path, key, dataset, shared=False, nodata=nodata, units=units, band=band, layers=layers)
    finally:
        dataset.close()


def field_of(
    path: Path,
    key: str,
    dataset: Any,
    *,
    shared: bool = True,
    nodata: Voids = None,
    units: str | None = None,
    band: int | None = None,
    layers: bool = False,
) -> FieldSource:
    """Read a variable of an open data set; of one that is not ``shared``, the source opens the file again."""

    def again() -> tuple[Any, Callable[[], None]]:
        opened = open_dataset(path)
        return opened[key], opened.close

    def held() -> tuple[Any, Callable[[], None]]:
        return dataset[key], lambda: None

    return field_source(
        f"{path.name}: {key}",
        dataset[key],
        dataset.variables,
        held if shared else again,
        nodata=nodata,
        units=units,
        band=band,
        layers=layers,
    )


def _open_store(path: Path) -> Any:
    xarray, zarr = geo_module("xarray"), geo_module("zarr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that metadata are not consolidated concerns nobody here
            dataset = xarray.open_dataset(path, engine="zarr", chunks=None, cache=False, decode_cf=False)
            group = zarr.open_group(path, mode="r")
    except Exception as error:  # zarr has many errors for stores that are no groups of arrays
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path.name}: cannot be read as a Zarr store ({reason})") from None
    for key, array in dataset.data_vars.items():
        note = _zero_fill(array, group[key])
        if note:
            array.encoding[_NOTE] = note
    return dataset


def _zero_fill(array: Any, stored: Any) -> str:
    """Keep sea level where 0 is merely what Zarr fills with: it is the default of arrays of version 2.

    xarray takes any fill value of version 2 for a void. A fill value of 0 m is one here only where the attributes say
    so; what is said of it is returned, with the chunks that nobody wrote.
    """
    fill = np.asarray(0 if stored.fill_value is None else stored.fill_value)
    attributes = array.attrs
    if fill.dtype.kind not in "iuf" or float(fill) * _plain(attributes, "scale_factor", 1) + _plain(
        attributes, "add_offset", 0
    ):
        return ""
    own = {key: stored.attrs[key] for key in ("_FillValue", "missing_value") if key in stored.attrs}
    if any(_plain(own, key, 1) == float(fill) for key in own):
        return ""
    missing = stored.nchunks - stored.nchunks_initialized
    absent = f"; {missing} of {stored.nchunks} chunks were never written and count as 0" if missing else ""
    # What the attributes of the store declare stays; the array's own 0 goes, which xarray puts beside them.
    if "_FillValue" in own or attributes.pop("_FillValue", None) is None:
        return absent[2:] and f"{absent[2:]}; --nodata 0 makes them voids, and every other 0"
    return f"the fill value of the Zarr store is 0, and 0 m is taken for sea level; --nodata 0 makes it a void{absent}"


def _plain(attributes: Any, key: str, otherwise: float) -> float:
    try:
        return float(np.ravel(attributes.get(key, otherwise))[0])
    except (TypeError, ValueError):
        return otherwise


def fields_of(dataset: Any) -> list[str]:
    """Names of the variables of a dataset that have two axes of space."""
    fields = []
    for key, array in dataset.data_vars.items():
        try:
            axes_of(array, str(key))
        except DataError:
            continue
        fields.append(str(key))
    return fields


def _choose(dataset: Any, variable: str | None, name: str, prefer: str | Sequence[str] = "") -> str:
    """Name the field to read: the one that is asked for or preferred, else the only one with two axes of space."""
    fields = fields_of(dataset)
    listed = ", ".join(fields)
    if not fields:
        dims = ", ".join(f"{dim} ({size})" for dim, size in dataset.sizes.items()) or "none"
        raise DataError(
            f"{name}: has no field on axes of latitude and longitude, or of y and x in a projection, among the "
            f"dimensions {dims}; rio warp IN OUT.tif --dst-crs EPSG:4326 makes such a grid"
        )
    if variable is not None:
        if variable not in fields:
            raise DataError(f"{name}: has no field {variable}, it has {listed}")
        return variable
    for wanted in (prefer,) if isinstance(prefer, str) else prefer:
        if wanted in fields:
            return wanted
    if len(fields) != 1:
        raise DataError(f"{name}: holds {len(fields)} fields ({listed}); name the one to take as {name}:VARIABLE")
    return fields[0]

"""Rasters on regular grids of longitude and latitude, read window by window from GeoTIFF and NetCDF.

Rows go from north to south and longitudes from -180, whatever the file has. The packages that read the files are
imported when a file is opened: preparing needs them, nothing else does.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import DataError, InputError, install_hint
from earthsr.geo.cf import Axis, regular_axis
from earthsr.geo.grid import Grid, westward
from earthsr.geo.times import years_of
from earthsr.geo.window import Window

_WARP: Final = "gdalwarp -t_srs EPSG:4326 -r near IN OUT.tif"
_LATITUDE: Final = ("latitude", "lat")
_LONGITUDE: Final = ("longitude", "lon")

#: GDAL would keep a twentieth of the machine's memory of blocks that are read once.
_GDAL_CACHE_BYTES: Final = 64 * 2**20


def geo_module(name: str) -> Any:
    """Import a package of the extra ``geo``.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"reading rasters needs the package {name.split('.')[0]}: {install_hint('geo')}") from None


class Raster:
    """One field of a file, with its grid; several years of it where the file has them."""

    def __init__(
        self, path: Path, name: str, grid: Grid, crs: str, flipped: bool, nodata: float | None, units: str
    ) -> None:
        self.path, self.name, self.crs, self.nodata, self.units = path, name, crs, nodata, units
        self.grid, self._shift = westward(grid)
        self._flipped = flipped
        self.scale, self.offset = 1.0, 0.0
        self.years: tuple[int, ...] | None = None
        """Of the layers; None where the file has no time."""

    def read(self, window: Window, layer: int = 0) -> NDArray:
        """Read values as stored, (rows, columns), north to south.

        Columns of a global grid may be negative or go beyond the last one.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        row = self.grid.rows - window.row - window.rows if self._flipped else window.row
        parts, column, left = [], window.column + self._shift, window.columns
        while left:
            start = column % self.grid.columns
            count = min(left, self.grid.columns - start)
            try:
                parts.append(self._stored(layer, Window(row, start, window.rows, count)))
            except Exception as error:  # every library has errors of its own for a damaged block
                reason = " ".join(str(error).split())
                raise DataError(f"{self.name}: cannot be read ({reason}); the file may be damaged") from error
            column, left = column + count, left - count
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return values[::-1] if self._flipped else values

    def values(self, window: Window, layer: int = 0) -> NDArray[np.float32]:
        """Read values in their units, (rows, columns), NaN where there is none; infinite ones stay what they are."""
        stored = self.read(window, layer)
        values = stored.astype(np.float64)
        void = np.isnan(values)
        if self.nodata is not None and np.isfinite(self.nodata):
            void |= stored == (stored.dtype.type(self.nodata) if stored.dtype.kind == "f" else self.nodata)
        return np.where(void, np.nan, values * self.scale + self.offset).astype(np.float32)

    def _stored(self, layer: int, window: Window) -> NDArray:
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""


class GeoTiff(Raster):
    """A GeoTIFF of one band."""

    def __init__(self, path: Path) -> None:
        rasterio = geo_module("rasterio")
        try:
            with warnings.catch_warnings():
                # A file without a place is refused below, in our words.
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                self._file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{path.name}: cannot be read as GeoTIFF ({' '.join(str(error).split())})") from None
        try:
            file = self._file
            if file.count != 1:
                raise DataError(f"{path.name}: has {file.count} bands, expected one; gdal_translate -b 1 takes one out")
            if file.crs is None:
                raise DataError(f"{path.name}: has no CRS; gdal_edit.py -a_srs EPSG:4326 FILE sets it if it is that")
            if not file.crs.is_geographic:
                raise DataError(f"{path.name}: CRS is {_short(file.crs)}, expected longitude and latitude; {_WARP}")
            t = file.transform
            if t.b or t.d or t.a <= 0 or not t.e:
                raise DataError(f"{path.name}: the grid is rotated or mirrored, expected north up; {_WARP}")
            north = t.f if t.e < 0 else t.f + t.e * file.height
            grid = Grid(t.c, north, t.a, abs(t.e), file.height, file.width)
            units = file.units[0] or file.tags(1).get("units") or file.tags().get("units") or ""
            super().__init__(path, path.name, grid, _short(file.crs), t.e > 0, file.nodata, units)
            self.scale, self.offset = file.scales[0], file.offsets[0]
        except BaseException:
            self._file.close()
            raise

    def _stored(self, layer: int, window: Window) -> NDArray:
        row, column, rows, columns = window
        with geo_module("rasterio").Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
            return self._file.read(1, window=((row, row + rows), (column, column + columns)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _short(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else " ".join(crs.to_string().split())


def open_dataset(path: Path) -> Any:
    """Open a NetCDF file without decoding anything, and without keeping what was read.

    Raises
    ------
    DataError
        If it is no NetCDF file.
    """
    xarray = geo_module("xarray")
    try:
        with path.open("rb") as handle:
            engine = "scipy" if handle.read(3) == b"CDF" else "h5netcdf"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    geo_module(engine)
    try:
        return xarray.open_dataset(path, engine=engine, decode_cf=False, cache=False)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path.name}: cannot be read as NetCDF ({' '.join(str(error).split())})") from None


class NetCdf(Raster):
    """One variable of a NetCDF file, with an axis of years or without."""

    def __init__(self, path: Path, variable: str | None = None, dataset: Any = None, prefer: str = "") -> None:
        self._own = dataset is None
        self._dataset = open_dataset(path) if dataset is None else dataset
        try:
            self._prepare(path, variable, prefer)
        except BaseException:
            self.close()
            raise

    def _prepare(self, path: Path, variable: str | None, prefer: str) -> None:
        latitude, longitude = self._dimension(path, _LATITUDE), self._dimension(path, _LONGITUDE)
        key = self._choose(path, variable, prefer, {latitude, longitude})
        self._variable = self._dataset[key]
        name = f"{path.name}: {key}"
        y = regular_axis(self._dataset[latitude].values, latitude, path.name)
        x = regular_axis(self._dataset[longitude].values, longitude, path.name)
        if x.step < 0:
            raise DataError(f"{path.name}: {longitude} goes from east to west; turn it round (ncpdq -a -{longitude})")
        attributes = self._variable.attrs
        fill = attributes.get("_FillValue", attributes.get("missing_value"))
        nodata = None if fill is None else float(np.ravel(fill)[0])
        units = str(attributes.get("units", ""))
        super().__init__(path, name, _grid(x, y), "EPSG:4326", y.step > 0, nodata, units)
        self.scale = float(attributes.get("scale_factor", 1.0))
        self.offset = float(attributes.get("add_offset", 0.0))
        others = [d for d in self._variable.dims if d not in (latitude, longitude)]
        layers = [d for d in others if self._variable.sizes[d] > 1 or str(d).lower() in ("time", "year", "years")]
        if len(layers) > 1:
            raise DataError(f"{name} has dimensions {self._variable.dims}, expected time, latitude and longitude")
        self._order = (latitude, longitude)
        self._layer = layers[0] if layers else None
        self._single = dict.fromkeys((d for d in others if d not in layers), 0)
        if self._layer is not None:
            axis = self._dataset[self._layer]
            said = {k: str(axis.attrs.get(k, "")) for k in ("units", "calendar")}
            self.years = years_of(axis.values, said["units"], said["calendar"], f"{path.name}: {self._layer}")

    def _dimension(self, path: Path, names: tuple[str, ...]) -> str:
        kind = names[0]
        for dim in self._dataset.dims:
            if dim not in self._dataset.variables:
                continue
            attributes = self._dataset[dim].attrs
            units = str(attributes.get("units", "")).lower()
            direction = "north" if kind == "latitude" else "east"
            if attributes.get("standard_name") == kind or units.endswith(("_" + direction, "_" + direction[0])):
                return str(dim)
            if str(dim).lower() in names:
                return str(dim)
        raise DataError(
            f"{path.name}: has no axis {kind} among {', '.join(map(str, self._dataset.dims))}, expected a grid of "
            f"longitude and latitude in degrees; {_WARP}"
        )

    def _choose(self, path: Path, variable: str | None, prefer: str, wanted: set[str]) -> str:
        fields = [str(key) for key, value in self._dataset.data_vars.items() if wanted <= set(value.dims)]
        listed = ", ".join(fields) or "none"
        if variable is not None:
            if variable not in fields:
                raise DataError(f"{path.name}: has no variable {variable} on its grid; it has {listed}")
            return variable
        if prefer in fields:
            return prefer
        if len(fields) != 1:
            raise DataError(
                f"{path.name}: holds {len(fields)} fields ({listed}); name the one to take as {path.name}:VARIABLE"
            )
        return fields[0]

    def _stored(self, layer: int, window: Window) -> NDArray:
        latitude, longitude = self._order
        row, column, rows, columns = window
        at: dict[str, Any] = {latitude: slice(row, row + rows), longitude: slice(column, column + columns)}
        if self._layer is not None:
            at[self._layer] = layer
        return self._variable.isel(**at, **self._single).transpose(latitude, longitude).values

    def close(self) -> None:
        """Close the file, unless it is another's."""
        if self._own:
            self._dataset.close()


def _grid(x: Axis, y: Axis) -> Grid:
    step = abs(y.step)
    north = max(y.first, y.first + y.step * (y.cells - 1)) + step / 2
    # Grids with a row on each pole reach beyond it by half a cell; the areas are clipped there.
    return Grid(x.first - x.step / 2, north, x.step, step, y.cells, x.cells)


def open_raster(text: str | Path, prefer: str = "") -> Raster:
    """Open a GeoTIFF or a NetCDF variable, by what the file is and not by its suffix.

    Parameters
    ----------
    text : str or Path
        Path; ``FILE.nc:VARIABLE`` names a variable.
    prefer : str
        Variable to take where several are there and none is named.

    Raises
    ------
    DataError
        If there is no such file, it is neither, or its grid is not a regular one of longitude and latitude.
    """
    path, variable = split_variable(text)
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return GeoTiff(path)
    if start[:3] == b"CDF" or start == b"\x89HDF\r\n\x1a\n":
        return NetCdf(path, variable, prefer=prefer)
    raise DataError(f"{path.name}: is neither a GeoTIFF nor a NetCDF file; gdal_translate IN OUT.tif makes one")


def split_variable(text: str | Path) -> tuple[Path, str | None]:
    """Split ``FILE:VARIABLE``; a colon that belongs to a file's own name stays there."""
    whole = Path(text)
    head, colon, tail = str(text).rpartition(":")
    if colon and tail.isidentifier() and not whole.exists() and Path(head).is_file():
        return Path(head), tail
    return whole, None

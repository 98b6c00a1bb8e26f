"""Prediction in one call, whatever the elevations come as: arrays, DataArrays, files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.data.arrays import SUFFIXES, read_elevation
from earthsr.dem.predict.arrays import predict_array, predict_file
from earthsr.dem.predict.keep import FEATHER
from earthsr.dem.predict.plan import Mode, PredictOptions
from earthsr.dem.predict.rasters import Box, predict_dataarray, predict_raster
from earthsr.errors import InputError, geo_module
from earthsr.geo.elevations import Positive
from earthsr.geo.values import Voids

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

    from earthsr.inference.pieces import Scheduler

#: A model, or what names one: a run folder, a weights file, ``demo-dem``.
AnyModel = Model | str | Path


@overload
def predict(model: AnyModel, elevation: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float32]: ...


@overload
def predict(
    model: AnyModel,
    elevation: DataArray,
    *,
    bbox: Box | None = None,
    mode: Mode = "gaussian",
    tile: int | None = None,
    overlap: float = 0.25,
    symmetries: Literal[False] = False,
    conserve: bool = False,
    batch_size: int | None = None,
    compare: bool = False,
    clip: bool = False,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
) -> DataArray: ...


@overload
def predict(
    model: AnyModel | Sequence[AnyModel],
    elevation: DataArray,
    *,
    bbox: Box | None = None,
    mode: Mode = "gaussian",
    tile: int | None = None,
    overlap: float = 0.25,
    symmetries: bool = False,
    conserve: bool = False,
    batch_size: int | None = None,
    compare: bool = False,
    clip: bool = False,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
) -> DataArray | Dataset: ...


@overload
def predict(
    model: AnyModel | Sequence[AnyModel],
    elevation: str | Path,
    target: str | Path,
    *,
    bbox: Box | None = None,
    mode: Mode = "gaussian",
    tile: int | None = None,
    overlap: float = 0.25,
    symmetries: bool = False,
    conserve: bool = False,
    batch_size: int | None = None,
    compare: bool = False,
    clip: bool = False,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    tiles: float | None = None,
    scheduler: Scheduler | None = None,
    overwrite: bool = False,
) -> dict[str, object]: ...


@overload
def predict(
    model: AnyModel | Sequence[AnyModel],
    elevation: str | Path,
    target: None = None,
    *,
    bbox: Box | None = None,
    mode: Mode = "gaussian",
    tile: int | None = None,
    overlap: float = 0.25,
    symmetries: bool = False,
    conserve: bool = False,
    batch_size: int | None = None,
    compare: bool = False,
    clip: bool = False,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    scheduler: Scheduler | None = None,
) -> NDArray[np.float32] | DataArray | Dataset: ...


def predict(
    model: AnyModel | Sequence[AnyModel],
    elevation: NDArray[np.floating] | NDArray[np.integer] | DataArray | str | Path,
    target: str | Path | None = None,
    *,
    bbox: Box | None = None,
    mode: Mode = "gaussian",
    tile: int | None = None,
    overlap: float = 0.25,
    symmetries: bool = False,
    conserve: bool = False,
    batch_size: int | None = None,
    compare: bool = False,
    clip: bool = False,
    nodata: Voids = None,
    units: str | None = None,
    positive: Positive | None = None,
    keep: Sequence[float | str | Path] = (),
    feather: int = FEATHER,
    offset: str | tuple[float, float] | None = None,
    register: str | Path | None = None,
    tiles: float | None = None,
    scheduler: Scheduler | None = None,
    overwrite: bool = False,
) -> NDArray[np.float32] | DataArray | Dataset | dict[str, object]:
    """Enlarge elevations by the model's scale.

    Parameters
    ----------
    model : Model, str or Path, or sequence of these
        Trained or loaded, or what names one, such as ``demo-dem`` or a run folder. Several are an ensemble, of a
        DataArray or a raster: their mean, and their spread.
    elevation : ndarray, xarray.DataArray, str or Path
        Metres, NaN where there is no value. An array (H, W), (N, H, W) or (N, C, H, W) is predicted in one piece; a
        DataArray on axes of latitude and longitude, or of y and x, window by window; so is a raster file (GeoTIFF,
        NetCDF, Zarr). A file of arrays (``.npz``, ``.h5``) is as an array.
    target : str or Path, optional
        Where the prediction of a file goes: ``.tif``, ``.nc``, ``.zarr``, or ``.npz`` and ``.h5``. Without one it is
        returned, whole in memory: of a raster as a DataArray.
    bbox : tuple of float, optional
        West, south, east, north in units of the coordinates: the part to enlarge; west > east goes across the dateline.
    mode : {"gaussian", "exact"}
        Windows that are blended; or windows with a halo that is cut off, as if predicted in one piece.
    tile : int, optional
        Coarse cells per side of a window, or of what is kept of one (exact).
    overlap : float
        Gaussian: share of its side that a window has in common with the next.
    symmetries : bool
        Mean over the eight symmetries of the square, and their spread.
    conserve : bool
        Shift the result so that its area mean over each coarse cell is that cell's value.
    batch_size : int, optional
        Windows at once; chosen by their size where absent.
    compare : bool
        Gaussian: compare with the exact prediction everywhere, not at some places.
    clip : bool
        Write the bound, -12,000 or 9,500 m, where a prediction is beyond it, in place of an error.
    nodata : float or sequence of float, optional
        Stored numbers that stand for none, besides those that the raster names.
    units : str, optional
        Of a raster, in place of its own.
    positive : {"up", "down"}, optional
        Which way a raster's values count, in place of what it says; depths are turned into heights.
    keep : sequence of float, str or Path
        Numbers that are ground although they are repeated and far from all their neighbours. Names of finer rasters, or
        patterns of the tiles of one: where they have a value it stays, and a band ``source`` says which cell is from
        where.
    feather : int
        Cells of the output over which the model is shifted towards what is kept beside it.
    offset : str or tuple of float, optional
        Fine cells to the east and to the north by which a raster is moved before it is enlarged; ``"46m,46m"`` are
        metres.
    register : str or Path, optional
        A finer raster of some of the same ground, against which that offset is measured.
    tiles : float, optional
        Of a file: write a folder of GeoTIFFs of so many degrees a side, with a VRT and a STAC catalogue over them.
    scheduler : Scheduler, optional
        Of a file: who does the work (:func:`earthsr.inference.scheduler.make_scheduler`).
    overwrite : bool
        Replace ``target`` where it is there.

    Returns
    -------
    ndarray, xarray.DataArray, xarray.Dataset or dict
        As the input: a DataArray keeps the names of its axes, its CRS, units, long and standard name and vertical
        datum, is called ``elevation``, and says in further attributes how it was made. A Dataset of ``elevation`` and
        ``spread`` for an ensemble. Of a file, what was done and found: grids, range, residuals, times.

    Raises
    ------
    InputError
        If the input or an option does not fit.
    DataError
        If a file is damaged, or a value is no elevation.

    Examples
    --------
    >>> import earthsr
    >>> from earthsr.samples.dem import jacksboro
    >>> model = earthsr.from_pretrained("demo-dem", backend="torch")
    >>> coarse = jacksboro().elevation[:160, :160].reshape(32, 5, 32, 5).mean((1, 3))  # metres
    >>> earthsr.predict(model, coarse).shape
    (160, 160)
    """
    options = PredictOptions(mode, tile, overlap, symmetries, conserve, batch_size, compare, clip)
    of_rasters = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    of_rasters += ["bbox"] * (bbox is not None)
    reading = [
        name for name, value in (("nodata", nodata), ("units", units), ("positive", positive)) if value is not None
    ]
    reading += ["keep"] * bool(keep) + ["feather"] * (feather != FEATHER)
    reading += [name for name, value in (("offset", offset), ("register", register)) if value is not None]
    chosen = _opened(model) if isinstance(model, (Model, str, Path)) else [_opened(one) for one in model]
    if isinstance(elevation, (str, Path)):
        if target is None:
            options_of_files = {"tiles": tiles is not None, "overwrite": overwrite}
            _refuse([name for name, given in options_of_files.items() if given], "with a target alone")
            if Path(elevation).suffix.lower() in SUFFIXES:
                _refuse([*of_rasters, *reading], "of a raster file; a file of arrays is predicted in one piece")
                return predict_array(_one(chosen), read_elevation(elevation).values)
            with tempfile.TemporaryDirectory() as folder:
                reading_options: dict[str, Any] = {"nodata": nodata, "units": units, "positive": positive, "keep": keep}
                reading_options |= {"feather": feather, "offset": offset, "register": register}
                predict_raster(
                    chosen,
                    elevation,
                    Path(folder) / "fine.nc",
                    options,
                    bbox=bbox,
                    scheduler=scheduler,
                    **reading_options,
                )
                return _loaded(Path(folder) / "fine.nc")
        if {Path(elevation).suffix.lower(), Path(target).suffix.lower()} & set(SUFFIXES):
            of_rasters += [name for name, value in (("tiles", tiles), ("scheduler", scheduler)) if value is not None]
            _refuse([*of_rasters, *reading], "of a raster file; a file of arrays is predicted in one piece")
            return predict_file(_one(chosen), elevation, target, overwrite=overwrite)
        return predict_raster(
            chosen,
            elevation,
            target,
            options,
            bbox=bbox,
            nodata=nodata,
            units=units,
            positive=positive,
            keep=keep,
            feather=feather,
            offset=offset,
            register=register,
            tiles=tiles,
            scheduler=scheduler,
            overwrite=overwrite,
        )
    of_files = ["target"] * (target is not None) + ["overwrite"] * overwrite
    of_files += [name for name, value in (("tiles", tiles), ("scheduler", scheduler)) if value is not None]
    words = "of files; the prediction of an array is returned"
    if hasattr(elevation, "dims"):
        _refuse(of_files, words)
        return predict_dataarray(
            chosen,
            elevation,
            options,
            bbox=bbox,
            nodata=nodata,
            units=units,
            positive=positive,
            keep=keep,
            feather=feather,
            offset=offset,
            register=register,
        )
    _refuse([*reading, *of_files], words)
    _refuse(of_rasters, "options of a DataArray; a bare array is predicted in one piece")
    return predict_array(_one(chosen), elevation)


def _opened(model: AnyModel) -> Model:
    return model if isinstance(model, Model) else Model.from_checkpoint(model)


def _loaded(path: Path) -> DataArray | Dataset:
    """What is in a file of elevations, in memory: a DataArray, or a Dataset where there is a spread, too."""
    dataset = geo_module("xarray").load_dataset(path, engine="h5netcdf", decode_coords="all")
    fields = [name for name, field in dataset.data_vars.items() if field.ndim == 2]
    if fields != ["elevation"]:
        return dataset
    return dataset["elevation"].assign_attrs({**dataset.attrs, **dataset["elevation"].attrs})


def _refuse(given: list[str], words: str) -> None:
    if given:
        raise InputError(f"{', '.join(given)}: {words}")


def _one(model: Model | Sequence[Model]) -> Model:
    if isinstance(model, Model):
        return model
    raise InputError(f"{len(model)} models: an ensemble predicts a DataArray or a raster; give one model for arrays")

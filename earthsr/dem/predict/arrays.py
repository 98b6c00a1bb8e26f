"""Predicting arrays, in one piece each: ``.npz`` and ``.h5`` in and out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model
from earthsr.data.arrays import SUFFIXES, Elevation, checked_elevation, read_elevation
from earthsr.errors import DataError, EarthsrWarning, InputError, ResultError, already_there
from earthsr.geo.elevations import PLAUSIBLE_M
from earthsr.models import UNetSpec
from earthsr.store import atomic_file, owned, require_other


def _require_elevations(model: Model) -> None:
    if isinstance(model.spec, UNetSpec):
        raise InputError(
            f"{model.metadata.get('source', 'the model')}: is a land-use model, and predict enlarges elevations; "
            "earthsr reconstruct makes its maps, earthsr evaluate scores it"
        )


def predict_array(
    model: Model, values: NDArray[np.floating] | NDArray[np.integer], batch_size: int = 16
) -> NDArray[np.float32]:
    """Enlarge an array.

    Parameters
    ----------
    model : Model
        Of one input and one output channel, unless ``values`` has a channel axis.
    values : ndarray of shape (H, W), (N, H, W) or (N, C, H, W)
        Elevation in metres; NaN where there is no value, which stays so. Each (H, W) is predicted in one piece: memory
        grows with it.
    batch_size : int
        Pieces at a time.

    Returns
    -------
    ndarray
        Of the same number of axes, the last two ``scale`` times as long, metres, float32.

    Raises
    ------
    DataError
        If the number of axes or channels does not fit, or a value is infinite or no elevation.
    ResultError
        If a value of the prediction can be no elevation on Earth.
    """
    _require_elevations(model)
    fields = checked_elevation(np.asarray(values), "the input")
    lead = fields.ndim
    batch = fields[None, None] if lead == 2 else fields[:, None] if lead == 3 else fields
    channels = model.spec.inputs[0].shape[0]
    if batch.shape[1] != channels:
        raise DataError(f"the input has {batch.shape[1]} channel(s), this model takes {channels}")
    pieces = []
    size = min(batch_size, len(batch))
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        fine = model.submit(part, pad_to=size).result()
        void = np.isnan(part).any(axis=1, keepdims=True)
        if void.any():
            scale = model.spec.scale
            wide = np.repeat(np.repeat(void, scale, axis=-2), scale, axis=-1)
            fine = np.where(wide, np.float32(np.nan), fine)
        pieces.append(fine)
    result = np.concatenate(pieces)
    low, high = PLAUSIBLE_M
    if (result < low).any() or (result > high).any():
        worst = float(result.flat[int(np.nanargmax(np.abs(result)))])
        raise ResultError(
            f"the prediction holds {worst:.0f} m, outside {low:,} to {high:,} m: look for spikes in the input there, "
            "or take another model"
        )
    return result[0, 0] if lead == 2 else result[:, 0] if lead == 3 else result


def write_elevation(path: str | Path, elevation: Elevation, attributes: dict[str, Any]) -> None:
    """Write ``elevation`` with units and provenance, atomically."""
    path = Path(path)
    extra: dict[str, Any] = {**elevation.georeference, "units": "m", **attributes}
    if elevation.cell_size_deg is not None:
        extra["cell_size_deg"] = elevation.cell_size_deg
    with atomic_file(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {"elevation": elevation.values, **extra}
            np.savez_compressed(temporary, **arrays)
        else:
            with h5py.File(temporary, "w") as handle:
                handle.create_dataset("elevation", data=elevation.values)
                for key, value in extra.items():
                    if np.ndim(value) > 1:
                        handle.create_dataset(key, data=value)
                    else:
                        handle.attrs[key] = str(value) if np.asarray(value).dtype.kind == "U" else value


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Check that an output can be written in its format, before anything is computed.

    Raises
    ------
    InputError
        If the suffix is not supported, or something is there already.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise already_there(path)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path}: output of type {path.suffix or 'none'} is not supported; expected {', '.join(SUFFIXES)}"
        )
    return path


def predict_file(
    model: Model, source: str | Path, target: str | Path, batch_size: int = 16, overwrite: bool = False
) -> dict[str, Any]:
    """Read an array, enlarge it and write it.

    Parameters
    ----------
    model : Model
        Trained or loaded.
    source, target : str or Path
        ``.npz`` or ``.h5`` with arrays of elevation (H, W), (N, H, W) or (N, C, H, W), metres; what is written.
    batch_size : int
        Fields at a time.
    overwrite : bool
        Replace the target where it is there.

    Returns
    -------
    dict
        Shapes and range of what was written.

    Raises
    ------
    InputError
        If input or output is not supported, missing or damaged; nothing is written then.
    """
    _require_elevations(model)
    target = check_output(target, overwrite)
    require_other([target], [source])
    with owned(target):
        return _predict_file(model, source, target, batch_size)


def _predict_file(model: Model, source: str | Path, target: Path, batch_size: int) -> dict[str, Any]:
    elevation = read_elevation(source)
    trained = model.metadata.get("input_cell_size_deg")
    if trained and elevation.cell_size_deg and not 0.8 < elevation.cell_size_deg / trained < 1.25:
        warnings.warn(
            f"{source}: cells of {elevation.cell_size_deg:.6g} degrees; the model was trained on {trained:.6g}",
            EarthsrWarning,
            stacklevel=2,
        )
    fine = predict_array(model, elevation.values, batch_size)
    scale = model.spec.scale
    cell = None if elevation.cell_size_deg is None else elevation.cell_size_deg / scale
    attributes = {"scale": scale, "checkpoint": str(model.metadata.get("source", "in memory")), "source": str(source)}
    write_elevation(target, Elevation(fine, cell, elevation.georeference), attributes)
    return {
        "output": str(target),
        "input_shape": list(elevation.values.shape),
        "output_shape": list(fine.shape),
        "units": "m",
        "minimum": None if np.isnan(fine).all() else float(np.nanmin(fine)),
        "maximum": None if np.isnan(fine).all() else float(np.nanmax(fine)),
    }

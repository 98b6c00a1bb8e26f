"""What a file holds and what a machine can do, as plain values."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

import earthsr
from earthsr.backend import available_backends, is_exported, read_model
from earthsr.check.card import card_markdown, metrics_beside, model_card
from earthsr.config import installed_workloads, load_yaml_config
from earthsr.data.arrays import read_elevation
from earthsr.data.hdf5 import open_h5, plain_attributes, reading
from earthsr.errors import InputError, already_there, install_hint
from earthsr.geo import Window, crs_name
from earthsr.geo.cf import spans
from earthsr.geo.fields import FieldSource, fields_of, open_dataset
from earthsr.geo.readers import SOURCES, kind_of, open_layers, split_variable
from earthsr.models import NetworkSpec, read_checkpoint, resolve_checkpoint
from earthsr.models.checkpoint import STATE, pretrained_weights
from earthsr.store import is_zarr, write_text
from earthsr.store.untrusted import parse_json
from earthsr.tasks import task_for

_PACKAGES = ("numpy", "h5py", "hdf5plugin", "matplotlib", "pydantic", "typer", "safetensors")
_NOT_INSTALLED = "not installed"
_EXTRAS = {
    "geo": ("xarray", "rasterio", "zarr"),
    "dask": ("dask", "distributed"),
    "page": ("bokeh",),
    "hub": ("huggingface_hub",),
    "export": ("onnx", "onnxscript"),
    "bmi": ("bmipy",),
    "logging": ("tensorboard", "mlflow-skinny"),
}


def _spec_values(spec: NetworkSpec, size: int) -> dict[str, Any]:
    return {
        "parameters": spec.parameter_count,
        "spec": spec.to_dict(),
        "receptive_radius_cells": spec.receptive_radius,
        f"gflop_per_patch_{size}x{size}": round(spec.flops(size, size) / 1e9, 3),
        "layer_groups": list(dict.fromkeys(group.split(".")[0] for group in spec.groups)),
    }


def _describe_yaml(path: Path) -> dict[str, Any]:
    """A configuration, or a table of classes."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        plain = None  # what is wrong with it is said by who reads configurations
    if not isinstance(plain, dict) or not isinstance(plain.get("classes"), list) or "model" in plain:
        return _describe_config(path)
    classes = [row for row in plain["classes"] if isinstance(row, dict) and isinstance(row.get("codes"), list)]
    if len(classes) != len(plain["classes"]):
        raise InputError(f"{path}: is no class table; expected classes: a list of name, codes (a list) and colour")
    return {
        "kind": "class table",
        "path": str(path),
        "name": plain.get("name"),
        "classes": [f"{'/'.join(map(str, row.get('codes') or ()))} {row.get('name')}" for row in classes],
        "forcing": {str(row.get("name")): row.get("forcing") or "none" for row in classes},
        "nodata_codes": plain.get("nodata_codes") or "none",
    }


#: What is shown of the JSON that evaluations and reconstructions write.
_OF_REPORTS = ("task", "split", "units", "samples", "scores", "decades", "protocol", "provenance", "place", "stages")


def _describe_report(path: Path) -> dict[str, Any]:
    """Scores, decades and provenance of ``metrics.json``, ``reconstruct.json`` and others."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no JSON that can be read ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, expected what evaluate or reconstruct has written")
    shown = {key: values[key] for key in _OF_REPORTS if key in values}
    return {"kind": "report", "path": str(path), **shown, "keys": list(values)}


def _describe_config(path: Path) -> dict[str, Any]:
    config = load_yaml_config(path)
    values = _spec_values(task_for(config).spec(), config.data.patch_size)
    return {"kind": "config", "path": str(path), **values, "epochs": config.epochs, "data": config.data.root_dir}


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    weights = resolve_checkpoint(path)
    file = read_model(weights)
    values: dict[str, Any] = {"kind": "checkpoint", "path": str(weights), **_spec_values(file.spec, 32)}
    values["metadata"] = file.metadata
    notes = read_checkpoint(weights.parent).notes if (weights.parent / STATE).is_file() else {}
    if notes:
        for key in ("progress", "backend", "sampler", "data_fingerprint", "earthsr_version"):
            values[key] = notes.get(key)
    values["card"] = model_card(
        file.spec, file.metadata, name=_model_name(path, weights), notes=notes, metrics=metrics_beside(weights)
    )
    return values


def _model_name(path: Path, weights: Path) -> str:
    """Name of the run folder where there is one, else of the file."""
    if weights.parent.parent.name == "checkpoints":
        return weights.parent.parent.parent.resolve().name
    return weights.stem if path == weights else path.name


def write_card(values: Mapping[str, Any], target: str | Path, overwrite: bool = False) -> Path:
    """Write the model card of a checkpoint that was described as Markdown.

    Parameters
    ----------
    values : mapping
        What :func:`describe_file` returned.
    target : str or Path
        Destination, ``.md``.
    overwrite : bool
        Replace it where it is there.

    Raises
    ------
    InputError
        If what was described is no model, the suffix is another, or the file is there already.
    """
    target = Path(target)
    if "card" not in values:
        raise InputError(f"{values['path']}: is a file of kind {values['kind']}, and only models have a card")
    if target.suffix.lower() not in (".md", ".markdown"):
        raise InputError(f"{target}: a card is Markdown; name a file that ends in .md")
    if target.exists() and not overwrite:
        raise already_there(target)
    return write_text(target, card_markdown(values["card"]))


def _describe_data(path: Path) -> dict[str, Any]:
    with open_h5(path) as handle, reading(path):
        datasets = {
            name: {
                "shape": list(item.shape),
                "dtype": str(item.dtype),
                "layout": f"chunks {item.chunks}, {item.compression or 'uncompressed'}"
                if item.chunks
                else "contiguous",
            }
            for name, item in handle.items()
            if isinstance(item, h5py.Dataset)
        }
        attributes = {name: _readable(value) for name, value in plain_attributes(handle).items()}
        return {"kind": "data", "path": str(path), "datasets": datasets, "attributes": attributes}


def _readable(value: Any) -> Any:
    """What an attribute that holds JSON says; any other as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _describe_arrays(path: Path) -> dict[str, Any]:
    elevation = read_elevation(path)
    return {
        "kind": "elevation",
        "path": str(path),
        "shape": list(elevation.values.shape),
        "units": "m",
        "cell_size_deg": elevation.cell_size_deg,
        "minimum": float(np.nanmin(elevation.values)) if np.isfinite(elevation.values).any() else None,
        "maximum": float(np.nanmax(elevation.values)) if np.isfinite(elevation.values).any() else None,
        "cells_without_value": int(np.isnan(elevation.values).sum()),
    }


#: Suffixes of raster files that GDAL opens; NetCDF and Zarr are known by what they are.
_RASTERS = (".tif", ".tiff", ".vrt", ".asc", ".img", ".hgt", ".jp2", ".bil", ".flt", ".dt0", ".dt1", ".dt2")
#: Sides of the blocks of a raster that are looked at, and how many at most: 4 million cells.
_BLOCK, _BLOCKS = 256, 64


def _describe_fields(path: Path, preferred: Sequence[str]) -> dict[str, Any]:
    """Names, shapes and units of the fields of NetCDF or Zarr that holds several; nothing where one is taken."""
    dataset = open_dataset(path)
    try:
        fields = {name: dataset[name] for name in fields_of(dataset)}
        if len(fields) < 2 or any(name in fields for name in preferred):
            return {}
        return {
            "kind": "fields",
            "path": str(path),
            "fields": {
                name: {
                    "dimensions": {str(dim): int(count) for dim, count in array.sizes.items()},
                    "units": str(array.attrs.get("units", "not said")),
                    "meaning": str(array.attrs.get("long_name", array.attrs.get("standard_name", "not said"))),
                }
                for name, array in fields.items()
            },
            "attributes": {str(key): _readable(value) for key, value in dataset.attrs.items()},
            "one_of_them": f"earthsr info {path}:{next(iter(fields))}",
        }
    finally:
        dataset.close()


def _describe_raster(text: str) -> dict[str, Any]:
    """Grid, CRS, units and range of a raster: of all cells, or of blocks all over a large one."""
    preferred = [name for workload in installed_workloads().values() for name in workload.variables]
    path, variable = split_variable(text)
    if variable is None and kind_of(path) in ("NetCDF", "Zarr") and (several := _describe_fields(path, preferred)):
        return several
    source = open_layers(text, preferred)
    try:
        place = source.georeference
        years = source.years() if isinstance(source, FieldSource) else None
        blocks = [
            place.check(Window(row, column, min(_BLOCK, place.rows - row), min(_BLOCK, place.columns - column)))
            for row in range(0, place.rows, _BLOCK)
            for column in range(0, place.columns, _BLOCK)
        ]
        chosen = blocks[:: -(-len(blocks) // _BLOCKS)]
        parts = [source.read(block) for block in chosen]
        values = np.concatenate([part.ravel() for part in parts])
        valid = values[np.isfinite(values)]
        return {
            "kind": "raster",
            "path": text,
            "field": source.name,
            "shape": [place.rows, place.columns],
            "years": None if years is None else spans(years),
            "crs": crs_name(place.crs_wkt),
            "bounds": list(place.bounds),
            "cell_size": [place.cell_y, place.cell_x],
            "round_the_globe": place.periodic,
            "units": place.units or "not said",
            **_classes(source),
            "nodata": None if place.nodata is None else float(place.nodata),
            "cells_read": f"{len(values)} of {place.rows * place.columns}"
            + ("" if not years else " of the first year"),
            "cells_without_value": len(values) - len(valid),
            "minimum": float(valid.min()) if len(valid) else None,
            "maximum": float(valid.max()) if len(valid) else None,
        }
    finally:
        source.close()


def _classes(source: Any) -> dict[str, Any]:
    """What codes of a raster stand for, where its file says it."""
    categories = getattr(source, "categories", None)
    if categories is None or not any(categories.names):
        return {}
    named = zip(categories.codes, categories.names, strict=True)
    return {"classes": [f"{code} {name}" for code, name in named if name]}


def _is_raster(path: Path) -> bool:
    if path.is_dir():
        return is_zarr(path)
    known = (".yaml", ".yml", ".h5", ".hdf5", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".safetensors")
    return path.is_file() and path.suffix not in known and (path.suffix.lower() in _RASTERS or kind_of(path) in SOURCES)


def describe_file(path: str | Path) -> dict[str, Any]:
    """Describe a configuration, class table, checkpoint, run folder, HDF5 file, report or raster.

    Parameters
    ----------
    path : str or Path
        ``FILE.nc:VARIABLE`` names one of several variables.

    Raises
    ------
    InputError
        If it is missing, damaged, or none of these.
    """
    if _is_raster(split_variable(path)[0]):
        return _describe_raster(str(path))
    path = Path(path)
    if path.is_dir() or path.suffix == ".safetensors" or is_exported(path):
        return _describe_checkpoint(path)
    if not path.exists():
        if pretrained_weights(str(path)) is not None:
            return _describe_checkpoint(path)
        raise InputError(f"{path}: no such file")
    if path.suffix in (".yaml", ".yml"):
        return _describe_yaml(path)
    if path.suffix == ".json":
        return _describe_report(path)
    if path.suffix in (".h5", ".hdf5"):
        return _describe_data(path)
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        return _describe_checkpoint(path)
    if path.suffix == ".npz":
        return _describe_arrays(path)
    raise InputError(
        f"{path}: not a kind of file that info knows; expected .yaml, .json, .h5, .npz, .safetensors, .onnx, .mindir, "
        "a run folder, or a raster (GeoTIFF, NetCDF, Zarr)"
    )


def _extra(name: str, packages: Sequence[str]) -> dict[str, str]:
    """Versions of an extra's packages, and how it is installed where one is missing."""
    versions = {package: _installed(package) for package in packages}
    return versions if _NOT_INSTALLED not in versions.values() else {**versions, "how": install_hint(name)}


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _NOT_INSTALLED


def _backend_values(name: str) -> dict[str, Any]:
    backend = available_backends()[name]
    if not backend.installed():
        return {"installed": False, "how": install_hint(name)}
    try:
        described = backend().describe()
    except Exception as error:  # a broken framework is a finding, not a failure of the doctor
        return {"installed": True, "broken": f"{type(error).__name__}: {error}"}
    devices = {d.name: f"{'yes' if d.available else 'no'}: {d.detail}" for d in described.devices}
    return {
        "installed": True,
        "version": described.version,
        "devices": devices,
        "precisions": dict(described.precisions),
        "not supported": dict(described.unsupported),
        "not exercised": dict(described.unexercised),
    }


def describe_machine() -> dict[str, Any]:
    """Describe what this machine can do, framework by framework."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "earthsr": earthsr.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "packages": {package: _installed(package) for package in _PACKAGES},
        "extras": {name: _extra(name, packages) for name, packages in _EXTRAS.items()},
        "backends": {name: _backend_values(name) for name in available_backends()},
    }

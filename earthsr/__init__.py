"""earthsr: deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore.

The public names below are loaded when they are first used; importing the package imports no framework.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("earthsr")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_PUBLIC = {
    "load_yaml_config": "earthsr.config",
    "Config": "earthsr.config",
    "DemData": "earthsr.dem.split",
    "Dataset": "earthsr.data.dataset",
    "Normalisation": "earthsr.data.normalise",
    "LandUseData": "earthsr.landuse.split",
    "LandUseDataset": "earthsr.landuse.dataset",
    "DemSRNetSpec": "earthsr.models",
    "UNetSpec": "earthsr.models",
    "CrossEntropyLoss": "earthsr.models",
    "MSELoss": "earthsr.models",
    "L1Loss": "earthsr.models",
    "HuberLoss": "earthsr.models",
    "OptimizerSpec": "earthsr.models",
    "average_weights": "earthsr.models",
    "Precision": "earthsr.models",
    "Emulator": "earthsr.landuse.emulator",
    "Model": "earthsr.backend",
    "get_backend": "earthsr.backend",
    "Trainer": "earthsr.training",
    "EvaluateCallBack": "earthsr.training",
    "InferenceModule": "earthsr.inference.evaluate",
    "plt_dem_data": "earthsr.evaluation.figures",
    "Run": "earthsr.api",
    "create_logger": "earthsr.log",
    "evaluate": "earthsr.api",
    "from_pretrained": "earthsr.api",
    "init_model": "earthsr.api",
    "load_checkpoint": "earthsr.mindearth",
    "load_param_into_net": "earthsr.mindearth",
    "predict": "earthsr.api",
    "train": "earthsr.api",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'earthsr' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)

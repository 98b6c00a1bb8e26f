"""earthsr: deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore.

The public names below are loaded when they are first used; importing the package imports no framework.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

try:
    __version__ = version("earthsr")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Twice the same names: type checkers and editors read the imports, Python the table (tests/test_api.py compares them).
if TYPE_CHECKING:
    from earthsr.api import Run as Run
    from earthsr.api import evaluate as evaluate
    from earthsr.api import from_pretrained as from_pretrained
    from earthsr.api import push_to_hub as push_to_hub
    from earthsr.api import train as train
    from earthsr.backend import Model as Model
    from earthsr.backend import get_backend as get_backend
    from earthsr.check.convert import convert as convert
    from earthsr.check.export import export as export
    from earthsr.config import Config as Config
    from earthsr.data.normalise import Normalisation as Normalisation
    from earthsr.dem.api import predict as predict
    from earthsr.dem.prepare import DemPlan as DemPlan
    from earthsr.dem.prepare import prepare_dem as prepare_dem
    from earthsr.drawing import plot as plot
    from earthsr.landuse.api import reconstruct as reconstruct
    from earthsr.landuse.classes import ClassTable as ClassTable
    from earthsr.landuse.dataset import LandUseDataset as LandUseDataset
    from earthsr.landuse.emulator import Emulator as Emulator
    from earthsr.landuse.prepare import prepare_landuse as prepare_landuse
    from earthsr.landuse.split import LandUseData as LandUseData
    from earthsr.landuse.write import SplitPlan as SplitPlan
    from earthsr.mindearth import Dataset as Dataset
    from earthsr.mindearth import DemData as DemData
    from earthsr.mindearth import DemSrTrainer as DemSrTrainer
    from earthsr.mindearth import EvaluateCallBack as EvaluateCallBack
    from earthsr.mindearth import InferenceModule as InferenceModule
    from earthsr.mindearth import MSELoss as MSELoss
    from earthsr.mindearth import Trainer as Trainer
    from earthsr.mindearth import create_logger as create_logger
    from earthsr.mindearth import init_data_parallel as init_data_parallel
    from earthsr.mindearth import init_model as init_model
    from earthsr.mindearth import load_checkpoint as load_checkpoint
    from earthsr.mindearth import load_param_into_net as load_param_into_net
    from earthsr.mindearth import load_yaml_config as load_yaml_config
    from earthsr.mindearth import plt_dem_data as plt_dem_data
    from earthsr.mindearth import update_config as update_config
    from earthsr.models import CrossEntropyLoss as CrossEntropyLoss
    from earthsr.models import DemSRNetSpec as DemSRNetSpec
    from earthsr.models import HuberLoss as HuberLoss
    from earthsr.models import L1Loss as L1Loss
    from earthsr.models import OptimizerSpec as OptimizerSpec
    from earthsr.models import Precision as Precision
    from earthsr.models import UNetSpec as UNetSpec
    from earthsr.models import average_weights as average_weights

_PUBLIC = {
    "convert": "earthsr.check.convert",
    "export": "earthsr.check.export",
    "predict": "earthsr.dem.api",
    "DemPlan": "earthsr.dem.prepare",
    "prepare_dem": "earthsr.dem.prepare",
    "reconstruct": "earthsr.landuse.api",
    "ClassTable": "earthsr.landuse.classes",
    "prepare_landuse": "earthsr.landuse.prepare",
    "SplitPlan": "earthsr.landuse.write",
    "Run": "earthsr.api",
    "evaluate": "earthsr.api",
    "from_pretrained": "earthsr.api",
    "plot": "earthsr.drawing",
    "push_to_hub": "earthsr.api",
    "train": "earthsr.api",
    "Model": "earthsr.backend",
    "get_backend": "earthsr.backend",
    "Config": "earthsr.config",
    "Normalisation": "earthsr.data.normalise",
    "LandUseDataset": "earthsr.landuse.dataset",
    "Emulator": "earthsr.landuse.emulator",
    "LandUseData": "earthsr.landuse.split",
    "Dataset": "earthsr.mindearth",
    "DemData": "earthsr.mindearth",
    "DemSrTrainer": "earthsr.mindearth",
    "EvaluateCallBack": "earthsr.mindearth",
    "InferenceModule": "earthsr.mindearth",
    "MSELoss": "earthsr.mindearth",
    "Trainer": "earthsr.mindearth",
    "create_logger": "earthsr.mindearth",
    "init_data_parallel": "earthsr.mindearth",
    "init_model": "earthsr.mindearth",
    "load_checkpoint": "earthsr.mindearth",
    "load_param_into_net": "earthsr.mindearth",
    "load_yaml_config": "earthsr.mindearth",
    "plt_dem_data": "earthsr.mindearth",
    "update_config": "earthsr.mindearth",
    "CrossEntropyLoss": "earthsr.models",
    "DemSRNetSpec": "earthsr.models",
    "HuberLoss": "earthsr.models",
    "L1Loss": "earthsr.models",
    "OptimizerSpec": "earthsr.models",
    "Precision": "earthsr.models",
    "UNetSpec": "earthsr.models",
    "average_weights": "earthsr.models",
}

__all__ = ["__version__", *_PUBLIC]

if not TYPE_CHECKING:
    # Hidden from type checkers, to which it would mean that every name is there.
    def __getattr__(name: str) -> object:
        if name not in _PUBLIC:
            from difflib import get_close_matches

            near = get_close_matches(name, _PUBLIC, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"module 'earthsr' has no attribute {name!r}{hint}")
        from importlib import import_module

        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)

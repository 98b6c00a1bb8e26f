"""Using a trained model: evaluation of a split, prediction of arrays and of rasters of any size."""

from earthsr.inference.enlarge import Options
from earthsr.inference.evaluate import InferenceModule, evaluate_split
from earthsr.inference.evaluation import Evaluation
from earthsr.inference.predict import predict_array, predict_file
from earthsr.inference.predict_raster import dry_run, predict_dataarray, predict_raster

__all__ = [
    "Evaluation",
    "InferenceModule",
    "Options",
    "dry_run",
    "evaluate_split",
    "predict_array",
    "predict_dataarray",
    "predict_file",
    "predict_raster",
]

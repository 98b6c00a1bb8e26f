"""Using a trained model: evaluation of a split, prediction of arrays."""

from earthsr.inference.evaluate import InferenceModule, evaluate_split
from earthsr.inference.evaluation import Evaluation
from earthsr.inference.predict import predict_array, predict_file

__all__ = ["Evaluation", "InferenceModule", "evaluate_split", "predict_array", "predict_file"]

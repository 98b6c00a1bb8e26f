"""Using a trained model, whatever its workload: windows, blending, pipelines, evaluation of a split."""

from earthsr.inference.evaluate import Evaluation, evaluate_split

__all__ = ["Evaluation", "evaluate_split"]

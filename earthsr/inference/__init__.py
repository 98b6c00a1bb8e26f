"""Using a trained model, whatever its workload: windows, blending, pipelines, evaluation of a split."""

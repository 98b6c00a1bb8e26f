"""Finer elevations from coarse ones: arrays and rasters of any size."""

from earthsr.dem.predict.arrays import predict_array, predict_file
from earthsr.dem.predict.plan import PredictOptions
from earthsr.dem.predict.rasters import dry_run, predict_dataarray, predict_raster

__all__ = ["PredictOptions", "dry_run", "predict_array", "predict_dataarray", "predict_file", "predict_raster"]

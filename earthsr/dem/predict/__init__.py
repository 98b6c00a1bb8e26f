"""Finer elevations from coarse ones: arrays and rasters of any size."""

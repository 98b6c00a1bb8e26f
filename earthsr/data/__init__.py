"""Patches on disk and in batches: HDF5 files, order of samples, normalisation, augmentation, sample data."""

from earthsr.data.batch import Batch, Earlier, make_batch
from earthsr.data.dataset import Dataset
from earthsr.data.dem import DemData
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.data.patches import Patches
from earthsr.data.sampler import Sampler

__all__ = ["Batch", "Dataset", "DemData", "Earlier", "Normalisation", "Patches", "Sampler", "Statistics", "make_batch"]

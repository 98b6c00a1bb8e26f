"""Patches and tiles on disk and in batches: HDF5 files, order of samples, normalisation, augmentation, sample data."""

from earthsr.data.batch import Batch, Earlier, make_batch
from earthsr.data.dataset import Dataset
from earthsr.data.dem import DemData
from earthsr.data.landuse import LandUseData
from earthsr.data.landuse_dataset import LandUseDataset, LandUseOptions
from earthsr.data.landuse_normalise import ChannelNormalisation
from earthsr.data.normalisations import read_normalisation
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.data.patches import Patches
from earthsr.data.sampler import Sampler

__all__ = [
    "Batch",
    "ChannelNormalisation",
    "Dataset",
    "DemData",
    "Earlier",
    "LandUseData",
    "LandUseDataset",
    "LandUseOptions",
    "Normalisation",
    "Patches",
    "Sampler",
    "Statistics",
    "make_batch",
    "read_normalisation",
]

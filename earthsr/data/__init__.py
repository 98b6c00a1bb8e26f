"""Samples on disk and in batches: HDF5 files, order of samples, normalisation, batches prepared ahead."""

from earthsr.data.batch import Batch, Earlier, make_batch
from earthsr.data.dataset import Dataset, SampleSet, SplitFile
from earthsr.data.normalise import ChannelNormalisation, Normalisation, Statistics, read_normalisation
from earthsr.data.samples import Patches, Sampler

__all__ = [
    "Batch",
    "ChannelNormalisation",
    "Dataset",
    "Earlier",
    "Normalisation",
    "Patches",
    "SampleSet",
    "Sampler",
    "SplitFile",
    "Statistics",
    "make_batch",
    "read_normalisation",
]

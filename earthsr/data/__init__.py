"""Samples on disk and in batches: HDF5 files, order of samples, normalisation, batches prepared ahead."""

"""Made fields to try the workload with: ``python -m earthsr_sst.sample FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

SIDE = 80
"""Fine cells per side."""


def write_sample(folder: str | Path, seed: int = 0) -> Path:
    """Write ``train.h5``, ``valid.h5`` and ``test.h5``: eddies around a cape, °C."""
    rng, folder = np.random.default_rng(seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wavenumber = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    for split, days in (("train", 48), ("valid", 8), ("test", 8)):
        spectrum = np.fft.fft2(rng.normal(size=(days, SIDE, SIDE))) / (0.02 + wavenumber) ** 2
        eddies = np.fft.ifft2(spectrum).real
        sst = 15 + 3 * eddies / eddies.std()
        sst[:, :30, :20] = np.nan  # a cape
        with h5py.File(folder / f"{split}.h5", "w") as handle:
            handle["sst"] = sst.astype(np.float32)
    return folder


if __name__ == "__main__":
    print(write_sample(sys.argv[1]))

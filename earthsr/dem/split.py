"""One split of DEM patches, read from MindEarth's HDF5 layout with or without our additions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.data.dataset import SplitFile
from earthsr.data.hdf5 import (
    DemLayout,
    Params,
    SharedFile,
    read_layout,
    read_samples,
    statistics_of,
    units_of,
)
from earthsr.data.normalise import Statistics, limits, moments
from earthsr.data.samples import PADDING, ROUNDING_M, Patches, furthest_from_means
from earthsr.errors import DataError
from earthsr.geo.elevations import PLAUSIBLE_M
from earthsr.geo.voids import STANDARD_FILLS, undeclared_fills
from earthsr.ranks import ALONE, Rank

SURFACES = ("land", "coast", "ocean")

#: Patches read at a time by passes over a whole split.
SCAN_CHUNK = 256


class DemData(SplitFile):
    """Patches of one split.

    The file is checked when the object is made, and opened again by each process on its first read, so that objects
    may travel to workers.

    Parameters
    ----------
    data_params : mapping
        The ``data`` section: ``root_dir`` and ``patch_size`` are read.
    run_mode : {"train", "valid", "test"}
        The split: ``root_dir/run_mode/run_mode.h5``.
    scale : int, optional
        Fine cells per coarse cell; read from the file where absent.

    Raises
    ------
    DataError
        If the file is missing, damaged, or does not hold patches of that size and scale.

    Examples
    --------
    >>> import earthsr
    >>> data = earthsr.DemData({"root_dir": "runs/demo-data", "patch_size": 16}, "test")
    >>> coarse, fine = data[0]
    >>> coarse.shape, fine.shape
    ((1, 16, 16), (1, 80, 80))
    """

    def __init__(self, data_params: Params, run_mode: str = "train", scale: int | None = None) -> None:
        self.split = run_mode
        path = Path(data_params["root_dir"]) / run_mode / f"{run_mode}.h5"
        self.layout: DemLayout = read_layout(path, int(data_params["patch_size"]), scale)
        self.units = units_of(self.layout)
        self._file = SharedFile(path)
        self._statistics: Statistics | None = None
        self._limits: tuple[float, float] | None = None
        """Lowest and highest truth, metres."""

    def __len__(self) -> int:
        return self.layout.samples

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coarse (C, p, p) and fine (C, p * scale, p * scale) elevations in metres; NaN where masked."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"patch {index} of {len(self)}")
        patches = self.read(np.array([index % len(self)]))
        fine = np.where(patches.mask.astype(bool), patches.fine, np.nan).astype(np.float32)
        return patches.coarse[0], fine[0]

    @property
    def path(self) -> Path:
        """The HDF5 file."""
        return self.layout.path

    @property
    def cell_size_deg(self) -> float | None:
        """Size of the fine cells in degrees, or None where the file does not say.

        Raises
        ------
        DataError
            If the attribute is not a positive number.
        """
        value = self.layout.attributes.get("cell_size_deg")
        if value is None:
            return None
        if not isinstance(value, (int, float)) or not 0 < value < 90:
            raise DataError(f"{self.path}: cell_size_deg is {value!r}, expected a positive number of degrees")
        return float(value)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._file.close()

    def read(self, indices: NDArray[np.int64]) -> Patches:
        """Read patches by position; ``PADDING`` gives zeros with an empty mask.

        Parameters
        ----------
        indices : ndarray of shape (n,)
            Positions of patches in the file.

        Returns
        -------
        Patches
            Coarse (n, C, p, p) and fine (n, C, p * scale, p * scale) in metres, with their mask.

        Raises
        ------
        DataError
            If a value is NaN or infinite where no mask covers it, or the file cannot be read.
        """
        layout = self.layout
        count, p, q = len(indices), layout.patch_size, layout.fine_size
        coarse = np.zeros((count, layout.channels, p, p), np.float32)
        fine = np.zeros((count, layout.channels, q, q), np.float32)
        mask = np.zeros((count, 1, q, q), np.uint8)
        wanted = np.asarray(indices, dtype=np.int64)
        real = wanted != PADDING
        with self._file.open() as handle:
            read_samples(handle[layout.coarse_key], wanted, coarse)
            read_samples(handle[layout.fine_key], wanted, fine)
            if layout.mask_key:
                stored = handle[layout.mask_key]
                for i in np.flatnonzero(real):
                    mask[i] = np.reshape(stored[wanted[i]], (1, q, q)) != 0
            else:
                mask[real] = 1
        self._check_values(coarse, fine, mask, indices)
        if not mask.all():
            fine[np.broadcast_to(mask == 0, fine.shape)] = 0.0
        return Patches(coarse, fine, mask, wanted)

    def _check_values(
        self,
        coarse: NDArray[np.float32],
        fine: NDArray[np.float32],
        mask: NDArray[np.uint8],
        indices: NDArray[np.int64],
    ) -> None:
        p, scale = self.layout.patch_size, self.layout.scale
        # Comparisons with NaN are false: this catches NaN, infinities and fill values alike.
        low, high = PLAUSIBLE_M
        # Two looks without a temporary settle it where nothing is wrong.
        lowest = [np.float32(field.min()) for field in (coarse, fine) if field.size]
        within = all(field.size == 0 or (field.min() >= low and field.max() <= high) for field in (coarse, fine))
        if within and not STANDARD_FILLS.intersection(lowest):
            return
        bad_fine = ~((fine >= low) & (fine <= high))
        bad_coarse = ~((coarse >= low) & (coarse <= high))
        valid = mask.astype(bool)
        # A coarse cell may lack a value where any of its fine cells is masked: a block mean that touches a void.
        whole = valid.reshape(len(mask), 1, p, scale, p, scale).all(axis=(3, 5))
        advice = f"mask it (mask_{self.layout.fine_size}, 1 = valid) or fill it"
        for key, bad in ((self.layout.fine_key, bad_fine & valid), (self.layout.coarse_key, bad_coarse & whole)):
            if bad.any():
                i, _, row, column = np.argwhere(bad)[0]
                value = (fine if key == self.layout.fine_key else coarse)[tuple(np.argwhere(bad)[0])]
                what = f"{value:g} m, a fill value?" if np.isfinite(value) else "a NaN or infinite value"
                raise DataError(
                    f"{self.path}: {key} holds {what} in patch {indices[i]}, row {row}, "
                    f"column {column}, where no mask covers it; {advice}"
                )
        for key, field, known in ((self.layout.fine_key, fine, valid), (self.layout.coarse_key, coarse, whole)):
            for i, channel in np.ndindex(field.shape[:2]):
                values = np.where(known[i, min(channel, known.shape[1] - 1)], field[i, channel], np.float32(np.nan))
                for fill in undeclared_fills(values):
                    if fill.value in STANDARD_FILLS:
                        cells = int((values == fill.value).sum())
                        raise DataError(
                            f"{self.path}: {key} holds {fill.value:g} m, a fill value, in {cells} cells of patch "
                            f"{indices[i]}, the first in row {fill.row}, column {fill.column}, where no mask covers "
                            f"it; {advice}"
                        )
        coarse[bad_coarse] = np.nan

    def chunks(self, size: int = SCAN_CHUNK) -> Iterator[Patches]:
        """All patches in the order of the file, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self)), dtype=np.int64))

    def statistics(self) -> Statistics:
        """Statistics from the file's attribute, else from one pass over it (which also finds unmasked NaN).

        Raises
        ------
        DataError
            If the attribute is damaged or a value is NaN where no mask covers it.
        """
        stored = statistics_of(self.layout)
        if stored is not None:
            try:
                return Statistics.from_dict(stored)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{self.path}: attribute statistics lacks or garbles {error}; remove or rewrite it"
                ) from None
        if self._statistics is None:
            self._statistics = Statistics.of(self.chunks())
        return self._statistics

    def require_means(self) -> None:
        """Check that coarse cells are means of their blocks, by patches spread over the file and one of every region.

        ``earthsr prepare dem`` takes another product for some regions alone, where it is told so.

        Raises
        ------
        DataError
            If they are those of another product.
        """
        chosen = self._spread()
        if self.layout.has_region:
            chosen = np.union1d(chosen, np.unique(self._column("region"), return_index=True)[1])
        furthest_m = furthest_from_means(self.read(chosen))
        if furthest_m > ROUNDING_M:
            raise DataError(
                f"{self.path}: {self.layout.coarse_key} is up to {furthest_m:.3g} m from the block means of "
                f"{self.layout.fine_key}, as another product is; data.shift takes coarse cells anew as such means: set "
                "it to false"
            )

    def _spread(self) -> NDArray[np.int64]:
        return np.unique(np.linspace(0, len(self) - 1, num=min(16, len(self))).astype(np.int64))

    def scan(self, share: Rank = ALONE) -> None:
        """Read every value once; a large file shows its progress on a terminal.

        Statistics that the file lacks, and the range of the truth, are known from then on.

        Parameters
        ----------
        share : Rank
            Of several processes that call this together each reads every n-th chunk, and all know what was found.

        Raises
        ------
        DataError
            If a value is NaN, infinite or no elevation on Earth where no mask covers it, or the masks cover all.
        """
        chunks = -(-len(self) // SCAN_CHUNK)
        stored = statistics_of(self.layout) is not None
        quick = chunks < 50 or share.number > 0
        with tqdm(desc=f"check {self.split}", total=-(-chunks // share.of), disable=True if quick else None) as bar:

            def row_of(number: int) -> tuple[float, ...]:
                patches = self.read(np.arange(len(self))[number * SCAN_CHUNK : (number + 1) * SCAN_CHUNK])
                bar.update()
                return limits(patches) if stored else moments(patches)

            rows = share.rows(chunks, 6, row_of)
        if not rows[:, 0].any():
            raise DataError(
                f"{self.path}: the masks cover every cell of the {len(self)} patches of the {self.split} split: "
                "nothing can be learnt or scored: prepare it from rasters that have values there"
            )
        self._limits = float(rows[:, 4].min()), float(rows[:, 5].max())
        if not stored:
            self._statistics = Statistics.merged(rows)

    def value_range(self, share: Rank = ALONE) -> float:
        """Range of the truth, metres; from :meth:`scan` where that has been called.

        Parameters
        ----------
        share : Rank
            Of several processes that call this together each reads every n-th chunk.

        Raises
        ------
        DataError
            If no cell is valid.
        """
        if self._limits is None:
            self.scan(share)
        assert self._limits is not None
        return self._limits[1] - self._limits[0]

    def _column(self, key: str) -> NDArray:
        with self._file.open() as handle:
            return np.asarray(handle[key][...])

    def groups(self) -> dict[str, NDArray]:
        """Labels of every patch by which scores are grouped: ``surface`` (land, coast, ocean) and ``region``.

        Raises
        ------
        DataError
            If the file's ``surface`` holds codes that nobody knows.
        """
        labels: dict[str, NDArray] = {}
        if self.layout.has_surface:
            codes = self._column("surface")
            if codes.dtype.kind not in "iub" or (codes.size and (codes.min() < 0 or codes.max() >= len(SURFACES))):
                raise DataError(f"{self.path}: surface holds codes other than 0 land, 1 coast, 2 ocean")
            labels["surface"] = np.array(SURFACES)[codes.astype(int)]
        if self.layout.has_region:
            values = self._column("region")
            labels["region"] = np.array(
                [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
            )
        return labels

    def _cell_sizes_deg(self) -> NDArray[np.float64] | None:
        """Size of the fine cells of every patch in degrees: patches of regions with cells of several sizes may mix."""
        with self._file.open() as handle:
            if "cell_size_deg" in handle:
                sizes = np.asarray(handle["cell_size_deg"][...], np.float64)
                if sizes.shape != (len(self),) or not ((sizes > 0) & (sizes < 90)).all():
                    raise DataError(
                        f"{self.path}: cell_size_deg has shape {sizes.shape}, expected a positive number of degrees "
                        f"for each of {len(self)} patches; remove or rewrite it"
                    )
                return sizes
        degrees = self.cell_size_deg
        return None if degrees is None else np.full(len(self), degrees)

    def fine_cell_size_m(self) -> NDArray[np.float64] | None:
        """Size of the fine cells of every patch in metres, (N, 2) as (north-south, east-west), or None if unknown.

        On the sphere of WGS 84's mean radius, at the latitude of each patch's centre; of a projected grid the attribute
        ``cell_size_m``.

        Raises
        ------
        DataError
            If the file's cell size or latitudes cannot be.
        """
        degrees = self._cell_sizes_deg()
        if degrees is None:
            metres = self.layout.attributes.get("cell_size_m")
            return np.full((len(self), 2), float(metres)) if isinstance(metres, (int, float)) and metres > 0 else None
        if not self.layout.has_origin:
            return None
        metres_per_degree = np.pi * 6_371_008.8 / 180
        origin = self._column("origin")
        if origin.dtype.kind != "f" or not (np.abs(origin[:, 1]) <= 90).all():
            raise DataError(f"{self.path}: origin holds latitudes outside -90 to 90 degrees; remove or rewrite it")
        north = origin[:, 1] - self.layout.fine_size * degrees / 2
        along = degrees * metres_per_degree
        return np.stack([along, along * np.cos(np.deg2rad(north))], axis=1)

    def centre(self, index: int) -> str | None:
        """Centre of the patch at ``index`` in words, such as ``36.70 N, 84.11 W``; None where it is not known."""
        degrees = self._cell_sizes_deg()
        if degrees is None or not self.layout.has_origin:
            return None
        west, north = (float(value) for value in self._column("origin")[index])
        half = self.layout.fine_size * float(degrees[index]) / 2
        latitude, longitude = north - half, west + half
        return f"{abs(latitude):.2f}° {'NS'[latitude < 0]}, {abs(longitude):.2f}° {'EW'[longitude < 0]}"

    def about(self) -> dict[str, Any]:
        """See the base class: source, CRS, and each split's regions where ``earthsr prepare dem`` wrote the file."""
        attributes = self.layout.attributes
        return {"source": attributes.get("source"), "crs": attributes.get("crs"), "regions": self._regions_by_split()}

    def _regions_by_split(self) -> dict[str, list[str]] | None:
        try:
            regions = json.loads(self.layout.attributes["provenance"])["result"]["regions"]
            return {str(split): [str(name) for name in names] for split, names in regions.items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def fingerprint(self) -> str:
        """Short hash of the layout and of patches spread over the file; two files that differ rarely share it."""
        digest = hashlib.sha256()
        layout = self.layout
        digest.update(json.dumps([layout.samples, layout.channels, layout.patch_size, layout.scale]).encode())
        patches = self.read(self._spread())
        for array in (patches.coarse, patches.fine, patches.mask):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

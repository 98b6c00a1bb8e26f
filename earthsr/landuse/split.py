"""One split of land-use tiles: reading what is stored once, by tile and by year."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from earthsr.data.dataset import SplitFile
from earthsr.data.hdf5 import Params, SharedFile
from earthsr.errors import DataError
from earthsr.geo.areas import Interpolation, window_matrix, window_size
from earthsr.geo.cf import spans
from earthsr.landuse.classes import NODATA
from earthsr.landuse.fields import ContinuousField
from earthsr.landuse.split_file import LandUseLayout, read_landuse
from earthsr.ranks import ALONE, Rank


class LandUseData(SplitFile):
    """Tiles of one split.

    The file is checked when the object is made, and opened again by each process on its first read, so that objects
    may travel to workers.

    Parameters
    ----------
    data_params : mapping
        The ``data`` section: ``root_dir`` and ``patch_size`` (fine cells per tile side) are read.
    run_mode : {"train", "valid", "test"}
        The split: ``root_dir/run_mode/run_mode.h5``.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds tiles of another size.

    Examples
    --------
    >>> import earthsr
    >>> data = earthsr.LandUseData({"root_dir": "runs/landuse-data", "patch_size": 64}, "train")
    >>> data.anchor_year
    1979
    """

    def __init__(self, data_params: Params, run_mode: str = "train") -> None:
        self.split = run_mode
        path = Path(data_params["root_dir"]) / run_mode / f"{run_mode}.h5"
        self.layout: LandUseLayout = read_landuse(path)
        size = int(data_params["patch_size"])
        if size != self.layout.tile_size:
            raise DataError(
                f"{path}: has tiles of {self.layout.tile_size} cells, data.patch_size is {size}; set it to "
                f"{self.layout.tile_size}"
            )
        self._file = SharedFile(path)
        self._coarse: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Tiles times years."""
        return self.layout.tiles * len(self.layout.years)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coarse": None}

    @property
    def path(self) -> Path:
        """The HDF5 file."""
        return self.layout.path

    @property
    def anchor_year(self) -> int:
        """Last year whose truth a rollout may see: the file's, else one in the middle of its years."""
        years, anchor = self.layout.years, self.layout.anchor_year
        holds_out = any(year in years for year in self.layout.held_out_years)
        return anchor if holds_out else years[(len(years) - 1) // 2]

    @property
    def scored_years(self) -> tuple[int, ...]:
        """Years that scores count: those held out, else those after the anchor."""
        years = self.layout.years
        held = tuple(year for year in years if year in self.layout.held_out_years)
        return held or tuple(year for year in years if year > self.anchor_year)

    def _read(self, pick: Callable[[h5py.File], Any]) -> NDArray:
        with self._file.open() as handle:
            return np.asarray(pick(handle))

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._file.close()

    def static(self, tile: int) -> NDArray[np.float32]:
        """Static fields of a tile (C_s, P, P), in their units; NaN where there is no value.

        Raises
        ------
        DataError
            If a value is infinite; the message names channel, tile and cell.
        """
        fields = self._read(lambda handle: handle["static"][tile]).astype(np.float32, copy=False)
        if np.isinf(fields).any():
            c, row, column = (int(i) for i in np.argwhere(np.isinf(fields))[0])
            raise DataError(
                f"{self.path}: static holds {fields[c, row, column]} for {self.layout.static_channels[c].name} in tile "
                f"{tile}, row {row}, column {column}; use NaN where there is no value"
            )
        return fields

    def classes(self, tile: int, year: int) -> NDArray[np.uint8]:
        """Class indices of a tile in a year (P, P); 255 = nodata.

        Raises
        ------
        DataError
            If a value is no class of the table; the message names tile, year and cell.
        """
        index = self.layout.years.index(year)
        classes = self._read(lambda handle: handle["classes"][tile, index])
        bad = (classes >= len(self.layout.table)) & (classes != NODATA)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(
                f"{self.path}: classes holds {classes[row, column]} in tile {tile}, year {year}, row {row}, column "
                f"{column}; the table has {len(self.layout.table)} classes, and 255 is nodata"
            )
        return classes.astype(np.uint8, copy=False)

    def field(self, name: str) -> ContinuousField:
        """Return the continuous field of that name.

        Raises
        ------
        DataError
            If the file has none of that name; the message lists those it has.
        """
        for field in self.layout.continuous:
            if field.name == name:
                return field
        listed = ", ".join(field.name for field in self.layout.continuous) or "none"
        raise DataError(f"{self.path}: has no continuous field {name}; it has {listed} (data.target)")

    def continuous(self, name: str, tile: int, year: int) -> NDArray[np.float32]:
        """Continuous field ``name`` of a tile in a year (M, P, P), in its units; NaN where there is no value."""
        scale = self.field(name).scale_factor
        index = self.layout.years.index(year)
        stored = self._read(lambda handle: handle[name][tile, index])
        return np.where(stored == NODATA, np.float32(np.nan), stored * np.float32(scale)).astype(np.float32)

    @property
    def coarse(self) -> NDArray[np.float32]:
        """Fractions of all years (Y, C_c, h, w): mapped from the file, which may be larger than memory."""
        if self._coarse is None:
            with self._file.open() as handle:
                dataset = handle["coarse"]
                offset, shape = dataset.id.get_offset(), dataset.shape
                plain = offset is not None and dataset.dtype == np.dtype("<f4")
                # Other programs may have compressed it: then it is read as a whole.
                whole = None if plain else dataset[...].astype(np.float32, copy=False)
            self._coarse = np.memmap(self.path, "<f4", "r", offset, shape) if whole is None else whole
        return self._coarse

    def forcing(self, year: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Fractions of a year on some rows and columns of the coarse grid (C_c, n_rows, n_columns).

        Raises
        ------
        DataError
            If a value is no fraction, or those of a cell add up to more than 1; the message names channel, year and
            cell.
        """
        values = self.coarse[self.layout.years.index(year)][:, rows[:, None], columns]
        bad = ~((values > -1e-3) & (values < 1 + 1e-3)) & ~np.isnan(values)
        if bad.any():
            c, i, j = (int(k) for k in np.argwhere(bad)[0])
            raise DataError(
                f"{self.path}: coarse holds {values[c, i, j]:g} for {self.layout.coarse_channels[c]} in {year}, row "
                f"{rows[i]}, column {columns[j]}; expected a fraction of 0 to 1"
            )
        total = np.nansum(values, axis=0)
        if (total > 1 + 1e-3).any():
            i, j = (int(k) for k in np.argwhere(total > 1 + 1e-3)[0])
            raise DataError(
                f"{self.path}: coarse adds up to {total[i, j]:g} over its channels in {year}, row {rows[i]}, column "
                f"{columns[j]}; expected at most 1"
            )
        return values

    @property
    def origins(self) -> NDArray[np.float64]:
        """North-western corners of all tiles (T, 2): longitude and latitude in degrees."""
        return self._read(lambda handle: handle["tile_origin"][...])

    @property
    def places(self) -> NDArray[np.int64]:
        """First row and column of all tiles on the fine grid (T, 2)."""
        return self._read(lambda handle: handle["tile_index"][...])

    @property
    def window_cells(self) -> int:
        """Coarse cells per side of the window that a tile gets."""
        fine, coarse = self.layout.fine, self.layout.coarse
        size = self.layout.tile_size
        return max(
            window_size(size, fine.cell_y, coarse.cell_y),
            window_size(size, fine.cell_x, coarse.cell_x),
        )

    def window(
        self, place: NDArray[np.int64], method: Interpolation
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Coarse rows and columns (n,) around a tile, and the matrices ``Wy`` (P, n) and ``Wx`` (P, n).

        Parameters
        ----------
        place : ndarray of shape (2,)
            Row and column of the tile's first cell on the fine grid.
        method : {"bilinear", "nearest"}
            How the forcing comes onto the fine cells.

        Raises
        ------
        DataError
            If the forcing does not cover the tile.
        """
        fine, coarse, size = self.layout.fine, self.layout.coarse, self.layout.tile_size
        n = self.window_cells
        try:
            rows, wy = window_matrix(
                fine.latitudes(int(place[0]), size),
                float(coarse.latitudes()[0]),
                -coarse.cell_y,
                coarse.rows,
                n,
                method,
            )
            columns, wx = window_matrix(
                fine.longitudes(int(place[1]), size),
                float(coarse.longitudes()[0]),
                coarse.cell_x,
                coarse.columns,
                n,
                method,
                coarse.periodic,
            )
        except DataError as error:
            raise DataError(f"{self.path}: tile at row {place[0]}, column {place[1]}: {error}") from None
        return rows, columns, wy, wx

    def about(self) -> dict[str, Any]:
        """See the base class: source, CRS, years and bounds in degrees (west, south, east, north)."""
        layout, fine = self.layout, self.layout.fine
        south, east = fine.north - fine.rows * fine.cell_y, fine.west + fine.columns * fine.cell_x
        return {
            "source": layout.source,
            "crs": layout.crs,
            "years": list(layout.years),
            "held_out_years": list(layout.held_out_years),
            "bounds_deg": [fine.west, south, east, fine.north],
        }

    def fingerprint(self) -> str:
        """Short hash of the layout and of tiles spread over the file; two files that differ rarely share it."""
        layout = self.layout
        digest = hashlib.sha256()
        digest.update(json.dumps([layout.tiles, layout.tile_size, layout.years, layout.table.names]).encode())
        for tile in np.unique(np.linspace(0, layout.tiles - 1, num=min(8, layout.tiles)).astype(np.int64)):
            digest.update(self.classes(int(tile), layout.years[int(tile) % len(layout.years)]).tobytes())
            digest.update(np.ascontiguousarray(self.static(int(tile))).tobytes())
        for field in layout.continuous:
            digest.update(self.continuous(field.name, 0, layout.years[-1]).tobytes())
        for year in np.unique(np.linspace(0, len(layout.years) - 1, num=4).astype(np.int64)):
            digest.update(np.ascontiguousarray(self.coarse[year]).tobytes())
        return digest.hexdigest()[:16]

    def require_values(self, years: Iterable[int], target: str | None = None) -> None:
        """Look for a cell that can be learnt from, or scored; the first tile has one as a rule.

        Parameters
        ----------
        years : iterable of int
            Those that are learnt or scored.
        target : str, optional
            A continuous field; the classes where absent.

        Raises
        ------
        DataError
            If there is none in any tile: training would go to its end with a loss of 0.
        """
        years = sorted(set(years))
        for tile in range(self.layout.tiles):
            for year in years:
                if target is None and (self.classes(tile, year) != NODATA).any():
                    return
                if target is not None and np.isfinite(self.continuous(target, tile, year)).any():
                    return
        what = f"{target}: has no value" if target is not None else f"has no cell with a class (all are {NODATA})"
        raise DataError(
            f"{self.path}: {what} in {spans(years)} in any of the {self.layout.tiles} tiles of the {self.split} split; "
            "nothing can be learnt or scored: prepare it from maps that have some there"
        )

    def scan(self, share: Rank = ALONE) -> None:
        """Read every tile and the forcing once; a large file shows its progress on a terminal.

        Parameters
        ----------
        share : Rank
            Of several processes that call this together each reads every n-th tile and year of the forcing.

        Raises
        ------
        DataError
            If a value is no class, no fraction, or infinite.
        """
        rows, columns = np.arange(self.layout.coarse.rows), np.arange(self.layout.coarse.columns)
        years = self.layout.years

        def read_forcing(number: int) -> tuple[float, ...]:
            self.forcing(years[number], rows, columns)
            return (0.0,)

        share.rows(len(years), 1, read_forcing)
        quick = len(self) < 20_000 or share.number > 0
        total = -(-self.layout.tiles // share.of)
        with tqdm(desc=f"check {self.split}", total=total, disable=True if quick else None) as bar:

            def read(tile: int) -> tuple[float, ...]:
                self.static(tile)
                for year in years:
                    self.classes(tile, year)
                bar.update()
                return (0.0,)

            share.rows(self.layout.tiles, 1, read)

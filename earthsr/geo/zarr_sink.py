"""Zarr stores of version 3 with CF metadata, written block by block."""

from __future__ import annotations

import base64
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.cf_write import axis_attributes, crs_attributes, plain_attributes, value_attributes
from earthsr.geo.lonlat_rasters import geo_module
from earthsr.geo.sinks import FileSink
from earthsr.geo.window import Window


class ZarrSink(FileSink):
    """A Zarr store as xarray writes it: one array of float32 a band, in compressed chunks of the size of a block."""

    store: ClassVar[bool] = True

    def _begin(self, target: Path) -> None:
        zarr = geo_module("zarr")
        codecs = geo_module("zarr.codecs")
        g = self.georeference
        self._group = zarr.open_group(target, mode="w", zarr_format=3)
        y, x = ("lat", "lon") if g.geographic else ("y", "x")
        for name, centres, said in zip((y, x), (g.y(), g.x()), axis_attributes(g), strict=True):
            self._group.create_array(name, data=centres, chunks=centres.shape, dimension_names=(name,), attributes=said)
        if g.crs_wkt:
            crs = np.array(0, np.int32)
            self._group.create_array("crs", data=crs, dimension_names=(), attributes=crs_attributes(g))
        # xarray's way to say it in JSON, which has no NaN.
        fill = base64.standard_b64encode(struct.pack("<d", self.nodata)).decode()
        self._arrays = [
            self._group.create_array(
                band,
                shape=(g.rows, g.columns),
                chunks=(min(self.block[0], g.rows), min(self.block[1], g.columns)),
                dtype=np.float32,
                fill_value=np.float32(self.nodata),
                dimension_names=(y, x),
                compressors=codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                attributes={**plain_attributes(value_attributes(g, band, number == 0)), "_FillValue": fill},
            )
            for number, band in enumerate(self.bands)
        ]

    def _put(self, window: Window, values: NDArray[np.float32]) -> None:
        row, column, rows, columns = window
        for array, band in zip(self._arrays, values, strict=True):
            array[row : row + rows, column : column + columns] = band

    def _end(self, target: Path, attributes: Mapping[str, Any]) -> None:
        zarr = geo_module("zarr")
        self._group.attrs.update({"Conventions": "CF-1.8", **plain_attributes(attributes)})
        with warnings.catch_warnings():
            # Version 3 does not describe it yet, and readers that do not know it do without.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self._group.store)

    def _drop(self) -> None:
        """Nothing stays open."""
